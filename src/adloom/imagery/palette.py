"""Colours of a banner: taken from its picture, tuned to the segment's style, and always readable.

Lightness and chroma are those of Oklab (Ottosson 2020), in which equal steps look equal; contrast is WCAG 2's ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from adloom.imagery.pictures import Picture

Colour = tuple[int, int, int]
CONTRAST = 4.5
"""WCAG 2 AA for text of any size."""
AIMED = 4.9
"""What is drawn aims higher: JPEG takes some of it away again."""
ON_ACCENT = 5.3
"""White on the accent, where a struck price has thin strokes that blur."""
WHITE: Colour = (255, 255, 255)
_GREY = 0.035
"""Chroma below it is no hue a person would name."""
_BROWN = math.radians(55)
"""The hue of what is yellow when it is bright: dark yellow looks like olive, dark orange like wood."""

_M1 = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_M2 = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_M1_BACK, _M2_BACK = np.linalg.inv(_M1), np.linalg.inv(_M2)
_LINEAR = np.array([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.arange(256) / 255])


@dataclass(frozen=True)
class Palette:
    """Roles and their colours, and the style they were tuned to."""

    style: str
    colours: dict[str, Colour]

    def __getitem__(self, role: str) -> Colour:
        return self.colours[role]


def palette(picture: Picture, style: str) -> Palette:
    """Colours for a banner around the picture, in a style of ``styles.yml``.

    Roles: ``paper`` (almost white), ``ground`` (pale, behind the picture), ``tint`` (a step darker), ``deep`` (dark
    panel), ``accent`` (bands and buttons), ``on_accent`` (text on it), ``strong`` (accent as text on pale), ``ink``
    (text on pale), ``muted`` (secondary text on pale), ``faint`` (what has to be there), ``white``; ``backdrop`` (the
    photo's own plain backdrop, else ``tint``), ``shelf`` (that backdrop where it is almost white, else white), ``card``
    (white, or pale where the backdrop is white itself).
    """
    tuning = styles()[style]
    hue, chroma = _key_colour(picture)
    if chroma < _GREY:
        # A grey product gets the style's own hue, and little of it on large areas.
        hue, soft, strong = math.radians(tuning["hue"]), 0.006, tuning["chroma"]
    else:
        soft, strong = min(0.03, chroma / 4) * tuning["softness"], min(0.2, max(chroma, 0.11)) * tuning["vividness"]
    backdrop = picture.backdrop
    tint = to_srgb(tuning["ground"] - 0.055, soft * 1.7, hue)
    is_bright = _is_yellow(hue) and tuning["accent"] > 0.5
    # Yellow darkened until white stands out on it is olive: it stays bright and carries dark text instead.
    accent = to_srgb(0.84, strong, hue) if is_bright else to_srgb(tuning["accent"], strong, hue)
    accent = accent if is_bright else readable(accent, (WHITE,), ON_ACCENT)
    dark = _BROWN if _is_yellow(hue) else hue
    is_pale = backdrop is not None and luminance(backdrop) > 0.85
    colours = {
        "paper": to_srgb(0.985, soft / 4, hue),
        "ground": to_srgb(tuning["ground"], soft, hue),
        "tint": tint,
        "deep": to_srgb(tuning["deep"], strong * 0.4, dark),
        "accent": accent,
        "on_accent": to_srgb(0.25, 0.04, dark) if is_bright else WHITE,
        "strong": readable(to_srgb(min(0.56, tuning["accent"]), strong, dark), (WHITE,)),
        "ink": to_srgb(0.22, min(strong, 0.03), dark),
        "muted": to_srgb(0.5, min(strong, 0.02), dark),
        "faint": readable(to_srgb(0.58, min(strong, 0.015), dark), (WHITE,)),
        "white": WHITE,
        "backdrop": backdrop or tint,
        "shelf": backdrop if backdrop is not None and is_pale else WHITE,
        "card": to_srgb(tuning["ground"] - 0.02, soft, hue) if is_pale else WHITE,
    }
    return Palette(style, colours)


def _is_yellow(hue: float) -> bool:
    return 72 < math.degrees(hue) % 360 < 125


def style_of(segment_words: str) -> str:
    """The style for a segment's words: the first of ``styles.yml`` one of whose words occurs, else the first named."""
    words = segment_words.lower()
    found = [name for name, row in styles().items() if any(word in words for word in row["words"])]
    return found[0] if found else next(iter(styles()))


@cache
def styles() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(
        Path(__file__).with_name("styles.yml").read_text(encoding="utf-8")
    )
    return found


def _key_colour(picture: Picture) -> tuple[float, float]:
    """Hue (radians) and chroma of the colour the subject is remembered by."""
    small = picture.image.convert("RGBA")
    small.thumbnail((96, 96), Image.Resampling.BOX)
    pixels = np.asarray(small)
    keep = pixels[..., 3] > 128
    mask = picture.mask
    if mask is not None:
        keep &= np.asarray(mask.resize(small.size, Image.Resampling.BOX)) > 128
    chosen = pixels[keep][:, :3] if keep.any() else pixels.reshape(-1, 4)[:, :3]
    flat = Image.fromarray(np.ascontiguousarray(chosen.reshape(1, -1, 3)))
    few = flat.quantize(colors=8, method=Image.Quantize.MEDIANCUT, kmeans=2)
    counts = few.getcolors() or []
    table = few.getpalette() or []
    best, found = -1.0, (0.0, 0.0)
    for count, index in counts:
        lightness, chroma, hue = to_oklch(tuple(table[3 * int(index) : 3 * int(index) + 3]))  # type: ignore[arg-type]
        # Colourful and neither black nor white, weighed by the root of its area: a red sole beats a grey shoe.
        score = math.sqrt(count / len(chosen)) * chroma * (1 - abs(2 * lightness - 1.15))
        if score > best:
            best, found = score, (hue, chroma)
    return found


def to_oklch(colour: Colour) -> tuple[float, float, float]:
    """Lightness 0–1, chroma, hue in radians."""
    lab = _M2 @ np.cbrt(_M1 @ _LINEAR[list(colour)])
    return float(lab[0]), float(np.hypot(lab[1], lab[2])), float(math.atan2(lab[2], lab[1]))


def to_srgb(lightness: float, chroma: float, hue: float) -> Colour:
    """The sRGB colour; chroma is lowered until there is one."""
    for step in range(21):
        kept = chroma * (1 - step / 20)
        lab = np.array([lightness, kept * math.cos(hue), kept * math.sin(hue)])
        linear = _M1_BACK @ (_M2_BACK @ lab) ** 3
        if step == 20 or (linear.min() >= -1e-4 and linear.max() <= 1 + 1e-4):
            break
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    red, green, blue = (round(float(value) * 255) for value in encoded)
    return red, green, blue


def luminance(colour: Colour) -> float:
    """WCAG relative luminance, 0–1."""
    red, green, blue = (float(_LINEAR[value]) for value in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def luminances(image: Image.Image) -> np.ndarray:
    """WCAG relative luminance of every pixel of an RGB image."""
    linear = _LINEAR[np.asarray(image)]
    found: np.ndarray = linear @ np.array([0.2126, 0.7152, 0.0722])
    return found


def ratio(first: float, second: float) -> float:
    """WCAG contrast of two luminances, 1–21."""
    high, low = max(first, second), min(first, second)
    return (high + 0.05) / (low + 0.05)


def contrast(colour: Colour, behind: tuple[Colour, ...]) -> float:
    """The least contrast of a colour against any of those behind it."""
    own = luminance(colour)
    return min(ratio(own, luminance(other)) for other in behind)


@lru_cache(maxsize=4096)
def readable(colour: Colour, behind: tuple[Colour, ...], least: float = AIMED) -> Colour:
    """The colour itself, or of its hue the nearest lightness with that contrast against all behind it; else black or
    white, whichever contrasts more."""
    if contrast(colour, behind) >= least:
        return colour
    lightness, chroma, hue = to_oklch(colour)
    for step in range(1, 41):
        for changed in (lightness - step / 40, lightness + step / 40):
            if 0 <= changed <= 1:
                found = to_srgb(changed, chroma, hue)
                if contrast(found, behind) >= least:
                    return found
    return max(((0, 0, 0), WHITE), key=lambda one: contrast(one, behind))
