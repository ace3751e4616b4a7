"""A finished ad image: a picture and a copy set into a template (text over pixels, never drawn by a generator).

Nothing is painted over the subject, nothing is written outside the safe area or without contrast, and nothing is
invented: a field that a template needs and the brief lacks is an error that names it.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from adloom.creative import Brief, Copy
from adloom.errors import AdloomError
from adloom.imagery import palette as colours
from adloom.imagery import templates as designs
from adloom.imagery.formats import Box, Format
from adloom.imagery.laying import DoesNotFit, Mark, Piece, Words, character_height, set_column
from adloom.imagery.palette import Colour, Palette
from adloom.imagery.pictures import Picture
from adloom.imagery.placing import fill, painted, pixels, suits
from adloom.imagery.templates import Template
from adloom.imagery.typesetting import clean, draw_line, ink_box

_QUALITIES = ((92, 0), (88, 0), (84, 0), (80, 0), (76, 2), (70, 2), (64, 2), (58, 2))
"""JPEG quality and chroma subsampling (0: none), tried in turn until the file is small enough."""


@dataclass(frozen=True)
class Drawn:
    """A piece of text as it stands on the image. ``box``: its ink; ``size``: of the font, in pixels; ``contrast``: the
    least against any pixel behind it; ``height``: of its characters, in pixels."""

    kind: str
    text: str
    box: Box
    face: str
    size: int
    height: int
    colour: Colour
    contrast: float


@dataclass(frozen=True)
class Composed:
    """A finished image and what stands where on it. ``subject``: the box that shows the product; ``picture``: the box
    its picture fills; ``sample``: the subject in few pixels, as it was before anything was painted (for the checks);
    ``left_out``: what the brief has and the image does not show, for want of room."""

    image: Image.Image
    format: Format
    template: str
    palette: Palette
    subject: Box
    picture: Box
    sample: Image.Image
    magnified: float
    drawn: tuple[Drawn, ...]
    fields: tuple[Box, ...] = ()
    left_out: tuple[str, ...] = ()

    def of(self, kind: str) -> list[Drawn]:
        """The pieces of one kind, in the order of reading."""
        return [one for one in self.drawn if one.kind == kind]


def compose(
    copy: Copy,
    brief: Brief,
    picture: Picture,
    format: Format,
    template: Template | str | None = None,
    *,
    label: str | None,
) -> Composed:
    """The finished image of a copy in one format.

    ``template`` None: the most suitable one whose text fits. ``label``: the AI label as it is to be written; every
    image carries one (None: for an export without it, which `publishing.unlabelled` writes down). Raises `AdloomError`
    for a missing field, a character no font has, text that does not fit at its smallest readable size. Same input, same
    pixels.
    """
    words = _words(copy, brief, label)
    style = colours.style_of(brief.segment_words)
    tones = _palette(picture, style)
    if template is not None:
        chosen = designs.template(template) if isinstance(template, str) else template
        return _composed(chosen, words, brief, picture, format, tones=tones)
    candidates = designs.suitable(copy, brief, style, format)
    candidates.sort(key=lambda one: not suits(one.layouts[format.shape].picture, picture, format))
    problem: AdloomError | None = None
    for one in candidates:
        try:
            return _composed(one, words, brief, picture, format, tones=tones)
        except DoesNotFit as error:
            problem = problem or error
    if problem is None:
        problem = AdloomError(f"no template has a layout for {format.name}", "add one under imagery/templates")
    raise problem


def _words(copy: Copy, brief: Brief, label: str | None) -> Words:
    texts = {
        "headline": copy.headline,
        "body": copy.body,
        "action": copy.call_to_action,
        "brand": brief.item.brand,
        "price": brief.item.price,
        "list_price": brief.item.list_price if brief.item.list_price != brief.item.price else "",
        "offer": brief.offer.text if brief.offer else "",
        "label": label or "",
    }
    found = {name: clean(text, name) for name, text in texts.items()}
    for name in ("headline", "action") if label is None else ("headline", "action", "label"):
        if not found[name]:
            raise AdloomError(f"{name} is empty", "every banner needs one: nothing is filled in")
    return Words(brief.language, found)


def _composed(
    template: Template, words: Words, brief: Brief, picture: Picture, format: Format, *, tones: Palette
) -> Composed:
    lacking = designs.missing(template, brief)
    if lacking:
        raise AdloomError(
            f"template {template.id} needs {', '.join(lacking)}, which the brief of item {brief.item.item_id} lacks",
            "choose another template, or deliver the field: nothing is filled in",
        )
    if format.shape not in template.layouts:
        raise AdloomError(f"template {template.id} has no {format.shape} layout", "choose another template")
    layout = template.layouts[format.shape]
    where = f"{format.name}, template {template.id}"
    # Text is measured first: what does not fit is refused before any pixel is touched.
    set_columns = [set_column(column, words, format, where) for column in layout.columns]
    canvas, subject, frame, sample, magnified = painted(layout, picture, format, tones)
    placed = [one for pieces, _ in set_columns for one in pieces]
    boxes = [_paint_shape(canvas, mark, left, top, tones) for mark, left, top in _marks(placed) if mark.line is None]
    drawn = _write(canvas, placed, tones)
    left_out = tuple(sorted({name for _, names in set_columns for name in names}))
    fields = tuple(pixels(one.area, format) for one in layout.over) + tuple(boxes)
    return Composed(canvas, format, template.id, tones, subject, frame, sample, magnified, drawn, fields, left_out)


_palettes: OrderedDict[tuple[str, str], Palette] = OrderedDict()


def _palette(picture: Picture, style: str) -> Palette:
    key = (picture.digest, style)
    if key not in _palettes:
        _palettes[key] = colours.palette(picture, style)
        while len(_palettes) > 512:
            _palettes.popitem(last=False)
    return _palettes[key]


# --- painting the text --------------------------------------------------------------------------------------------


def _marks(placed: list[tuple[Piece, int, int]]) -> Iterator[tuple[Mark, int, int]]:
    for piece, left, top in placed:
        for mark in piece.marks:
            yield mark, left + mark.left, top + mark.top


def _paint_shape(canvas: Image.Image, mark: Mark, left: int, top: int, tones: Palette) -> Box:
    box = (left, top, left + mark.width, top + mark.height)
    if mark.kind == "shape":
        fill(canvas, box, tones[mark.colour], mark.radius)
    return box


def _write(canvas: Image.Image, placed: list[tuple[Piece, int, int]], tones: Palette) -> tuple[Drawn, ...]:
    draw = ImageDraw.Draw(canvas)
    todo, drawn = [], []
    for mark, left, top in _marks(placed):
        if mark.line is None:
            if mark.kind in ("rule", "strike"):
                todo.append((mark, left, top, (left, top, left + mark.width, top + mark.height)))
            continue
        ink = ink_box(mark.line, mark.size)
        todo.append((mark, left, top, (left + ink[0], top + ink[1], left + ink[2], top + ink[3])))
    # Colours are chosen against what lies behind, before any text is there.
    behind = [_behind(canvas, box) for _, _, _, box in todo]
    for (mark, left, top, box), under in zip(todo, behind, strict=True):
        colour = colours.readable(tones[mark.colour], under)
        if mark.line is None:
            draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour)
            continue
        least = colours.contrast(colour, under)
        if least < colours.CONTRAST:
            raise AdloomError(
                f"{mark.kind} has a contrast of {least:.1f} against what is behind it; {colours.CONTRAST} are needed",
                "choose another template",
            )
        draw_line(draw, mark.line, left, top, mark.size, colour)
        height = character_height(mark.line.text, mark.face, mark.size)
        drawn.append(Drawn(mark.kind, mark.line.text, box, mark.face, mark.size, height, colour, round(least, 2)))
    return tuple(drawn)


def _behind(canvas: Image.Image, box: Box) -> tuple[Colour, ...]:
    """The darkest and the brightest pixel in a box; one colour where it is even."""
    part = canvas.crop(box)
    ranges = part.getextrema()
    if all(low == high for low, high in ranges):  # type: ignore[misc]
        return (tuple(low for low, _ in ranges),)  # type: ignore[misc, return-value]
    light = colours.luminances(part).ravel()
    pixels = np.asarray(part).reshape(-1, 3)
    ends = pixels[int(light.argmin())], pixels[int(light.argmax())]
    return tuple((int(one[0]), int(one[1]), int(one[2])) for one in ends)


# --- the file -----------------------------------------------------------------------------------------------------


def encode(image: Image.Image, most_bytes: int) -> tuple[bytes, int]:
    """The image as JPEG of at most that many bytes, and the quality it took; `AdloomError` where none will do."""
    content = b""
    for quality, subsampling in _QUALITIES:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality, subsampling=subsampling, optimize=False)
        content = stream.getvalue()
        if len(content) <= most_bytes:
            return content, quality
    raise AdloomError(
        f"the image has {len(content):,} bytes at its lowest quality; its channel takes {most_bytes:,}",
        "raise the channel's limit in imagery/formats.yml, or deliver a calmer picture",
    )
