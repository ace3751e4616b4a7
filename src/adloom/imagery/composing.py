"""A finished ad image: a picture and a copy set into a template (text over pixels, never drawn by a generator).

Nothing is painted over the subject, nothing is written outside the safe area or without contrast, and nothing is
invented: a field that a template needs and the brief lacks is an error that names it.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
from adloom.imagery.placing import fill, is_large_enough, painted, pixels, suits
from adloom.imagery.templates import Layout, Template
from adloom.imagery.typesetting import clean, draw_line, ink_box

_COMFORTABLE = 0.85
"""A body set smaller than this share of its usual size gets the template's roomy layout, where it has one."""
_SMALL = 0.05
_AIMED_SMALL = 5.6
"""Text below that share of the short side has strokes so thin that they blur: its contrast aims higher; so do rules."""
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

    ``template`` None: the most suitable one whose text fits, the body with it where any has room for it. ``label``: the
    AI label as it is to be written; every image carries one (None: for an export without it, which
    `publishing.unlabelled` writes down). Raises `AdloomError` for a missing field, a character no font has, text that
    does not fit at its smallest readable size. Same input, same pixels.
    """
    words = _words(copy, brief, label)
    style = colours.style_of(brief.segment_words)
    tones = _palette(picture, style)
    if template is not None:
        chosen = designs.template(template) if isinstance(template, str) else template
        return _painted(_planned(chosen, words, brief, picture, format), picture, format, tones)
    candidates = designs.suitable(copy, brief, style, format)
    candidates.sort(key=lambda one: not suits(one.layouts[format.shape].picture, picture, format))
    return _painted(_best_plan(candidates, words, brief, picture, format), picture, format, tones)


@dataclass(frozen=True)
class _Plan:
    """Text that was measured and fits: nothing is painted yet."""

    template: Template
    layout: Layout
    pieces: tuple[tuple[Piece, int, int], ...]
    left_out: tuple[str, ...]
    body_size: int
    """of the font, in pixels; 0: no body is shown"""
    body_scale: float
    """and as a share of its size where there is room; 1 in a layout that shows none"""


def _best_plan(candidates: list[Template], words: Words, brief: Brief, picture: Picture, format: Format) -> _Plan:
    """The first candidate's, or, where that one has no room for the body, the first that shows it: well, if any does.

    Candidates that show the product too small are taken only where all do.
    """
    plans: list[_Plan] = []
    problem: AdloomError | None = None
    seen = [one for one in candidates if is_large_enough(one.layouts[format.shape].picture, picture, format)]
    for one in seen or candidates:
        try:
            plan = _planned(one, words, brief, picture, format)
        except DoesNotFit as error:
            problem = problem or error
            continue
        # A template without a body is chosen for its own sake, not because it need not show one.
        if plans and not plan.body_size:
            continue
        is_usual = plan.layout is one.layouts[format.shape]
        if not plan.left_out and (is_usual or suits(plan.layout.picture, picture, format)):
            return plan
        plans.append(plan)
    if not plans:
        raise problem or AdloomError(f"no template has a layout for {format.name}", "add one under imagery/templates")
    return next((one for one in plans if not one.left_out), plans[0])


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


def _planned(template: Template, words: Words, brief: Brief, picture: Picture, format: Format) -> _Plan:
    """The template's usual layout, or its roomy one where the body is larger there, or fits there alone."""
    lacking = designs.missing(template, brief)
    if lacking:
        raise AdloomError(
            f"template {template.id} needs {', '.join(lacking)}, which the brief of item {brief.item.item_id} lacks",
            "choose another template, or deliver the field: nothing is filled in",
        )
    if format.shape not in template.layouts:
        raise AdloomError(f"template {template.id} has no {format.shape} layout", "choose another template")
    usual = _measured(template, template.layouts[format.shape], words, format)
    roomy = template.roomy.get(format.shape)
    if roomy is None or usual.body_scale > _COMFORTABLE:
        return usual
    # A body that only looks small is not worth a small product.
    shows = is_large_enough if usual.left_out else suits
    if not shows(roomy.picture, picture, format):
        return usual
    with suppress(DoesNotFit):
        plan = _measured(template, roomy, words, format)
        if plan.body_size > usual.body_size:
            return plan
    return usual


def _measured(template: Template, layout: Layout, words: Words, format: Format) -> _Plan:
    """Text is measured first: what does not fit is refused before any pixel is touched."""
    where = f"{format.name}, template {template.id}"
    columns = [set_column(column, words, format, where) for column in layout.columns]
    pieces = tuple(one for found, _ in columns for one in found)
    left_out = tuple(sorted({name for _, names in columns for name in names}))
    size = next((mark.size for piece, _, _ in pieces for mark in piece.marks if mark.kind == "body"), 0)
    usual = designs.body_size(layout) * format.short_side
    return _Plan(template, layout, pieces, left_out, size, size / usual if usual and words["body"] else 1.0)


def _painted(plan: _Plan, picture: Picture, format: Format, tones: Palette) -> Composed:
    layout, placed = plan.layout, plan.pieces
    canvas, subject, frame, sample, magnified = painted(layout, picture, format, tones)
    boxes = [_paint_shape(canvas, mark, left, top, tones) for mark, left, top in _marks(placed) if mark.line is None]
    drawn = _write(canvas, placed, tones)
    fields = tuple(pixels(one.area, format) for one in layout.over) + tuple(boxes)
    return Composed(
        canvas, format, plan.template.id, tones, subject, frame, sample, magnified, drawn, fields, plan.left_out
    )


_palettes: OrderedDict[tuple[str, str], Palette] = OrderedDict()


def _palette(picture: Picture, style: str) -> Palette:
    key = (picture.digest, style)
    if key not in _palettes:
        _palettes[key] = colours.palette(picture, style)
        while len(_palettes) > 512:
            _palettes.popitem(last=False)
    return _palettes[key]


# --- painting the text --------------------------------------------------------------------------------------------


def _marks(placed: Sequence[tuple[Piece, int, int]]) -> Iterator[tuple[Mark, int, int]]:
    for piece, left, top in placed:
        for mark in piece.marks:
            yield mark, left + mark.left, top + mark.top


def _paint_shape(canvas: Image.Image, mark: Mark, left: int, top: int, tones: Palette) -> Box:
    box = (left, top, left + mark.width, top + mark.height)
    if mark.kind == "shape":
        fill(canvas, box, tones[mark.colour], mark.radius)
    return box


def _write(canvas: Image.Image, placed: Sequence[tuple[Piece, int, int]], tones: Palette) -> tuple[Drawn, ...]:
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
        is_small = mark.kind == "list_price" or mark.size < _SMALL * min(canvas.size)
        colour = colours.readable(tones[mark.colour], under, _AIMED_SMALL if is_small else colours.AIMED)
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
