"""Where the picture goes on the canvas, and the fields behind and over it: everything of a banner that is not text.

A subject that stands free is put whole into its place. A photo covers its place where that cuts nothing off the
subject; otherwise it is shown whole, and the rest of its place goes on with the colours of its rims.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw

from adloom.imagery.formats import Box, Format
from adloom.imagery.palette import Colour, Palette
from adloom.imagery.pictures import Picture
from adloom.imagery.templates import Layout, Place, Shaped

_LARGE = 0.1
"""Share of the image that a free-standing subject's box takes up in a template chosen for it."""
_SEEN = 0.052
"""And at least, where the text needs the room."""
_ALIKE = 0.6
"""And how alike a photo's proportions and its place's are."""
_TRIM = 0.06
"""Of a photo whose subject is not known so much may be cut off a side."""


def suits(place: Place, picture: Picture, format: Format) -> bool:
    """Does the place show this picture large: a free-standing subject, or a photo without much added around it?"""
    if _stands_free(picture):
        return _shown(place, picture, format) >= _LARGE
    area = pixels(place.area, format)
    wide, high = picture.image.size
    ratio = (area[2] - area[0]) * high / ((area[3] - area[1]) * wide)
    return min(ratio, 1 / ratio) >= _ALIKE


def is_large_enough(place: Place, picture: Picture, format: Format) -> bool:
    """Is a free-standing subject still seen well there? Photos fill their place."""
    return not _stands_free(picture) or _shown(place, picture, format) >= _SEEN


def _stands_free(picture: Picture) -> bool:
    return picture.is_cut_out or picture.backdrop is not None


def _shown(place: Place, picture: Picture, format: Format) -> float:
    """Share of the image that the subject's box takes up."""
    subject = picture.subject or (0, 0, *picture.image.size)
    scale, _ = _fitting(subject, _inner(place, format))
    return scale**2 * (subject[2] - subject[0]) * (subject[3] - subject[1]) / (format.width * format.height)


def _inner(place: Place, format: Format) -> Box:
    """Where a subject that stands free goes."""
    if place.free is not None:
        return pixels(place.free, format)
    return _shrunk(pixels(place.area, format), round(place.inset * format.short_side))


def painted(
    layout: Layout, picture: Picture, format: Format, tones: Palette
) -> tuple[Image.Image, Box, Box, Image.Image, float]:
    """The canvas without text, the subject's box, the picture's box, the subject in few pixels, its magnification."""
    canvas = Image.new("RGB", (format.width, format.height), tones[layout.ground])
    for one in layout.fields:
        _fill_area(canvas, one, format, tones)
    place = layout.picture
    area = pixels(place.area, format)
    radius = round(place.radius * format.short_side)
    if place.stage is not None and picture.is_cut_out:
        _fill_area(canvas, place.stage, format, tones)
    elif picture.backdrop is not None:
        fill(canvas, area, picture.backdrop, radius)
    elif place.fill is not None:
        fill(canvas, area, tones[place.fill], radius)
    subject, frame, magnified = _place_picture(canvas, picture, place, area, format, radius=radius)
    sample = canvas.crop(subject).resize((48, 48), Image.Resampling.BOX)
    for one in layout.over:
        _fill_area(canvas, one, format, tones)
    return canvas, subject, frame, sample, magnified


def _place_picture(
    canvas: Image.Image, picture: Picture, place: Place, area: Box, format: Format, *, radius: int
) -> tuple[Box, Box, float]:
    """Paste the picture into the area; returns the boxes of subject and picture on the canvas and the magnification."""
    width, height = picture.image.size
    whole = (0, 0, width, height)
    inner = _inner(place, format)
    if _stands_free(picture):
        scale, shift = _fitting(picture.subject or whole, inner)
        window = clip((shift[0], shift[1], shift[0] + width * scale, shift[1] + height * scale), area)
    else:
        subject = picture.subject or _shrunk(whole, 0, round(_TRIM * width), round(_TRIM * height))
        scale, shift = _covering(whole, subject, area)
        window = clip((shift[0], shift[1], shift[0] + width * scale, shift[1] + height * scale), area)
        if not _contains(window, _mapped(subject, scale, shift)):
            scale, shift = _fitting(whole, area)
            window = clip(_mapped(whole, scale, shift), area)
            _extend(canvas, picture, area, window, radius)
            radius = 0
    source = tuple(
        min(max(0.0, (value - shift[axis]) / scale), picture.image.size[axis])
        for value, axis in zip(window, (0, 1, 0, 1), strict=True)
    )
    size = (window[2] - window[0], window[3] - window[1])
    scaled = _scaled(picture, size, source)
    if picture.is_cut_out:
        canvas.paste(scaled, window[:2], scaled)
    elif radius:
        canvas.paste(scaled, window[:2], _rounded(size, radius))
    else:
        canvas.paste(scaled, window[:2])
    subject_box = picture.subject or whole
    return clip(_mapped(subject_box, scale, shift), window), window, scale


def _extend(canvas: Image.Image, picture: Picture, area: Box, window: Box, radius: int) -> None:
    """Go on with the photo's rims, softly, from its window to the area's: no bars, and not a pixel of it changed."""
    width, height = picture.image.size
    deep = max(1, round(0.02 * min(width, height)))
    ground = Image.new("RGB", (area[2] - area[0], area[3] - area[1]))
    is_across = window[0] > area[0] or window[2] < area[2]
    sides: tuple[tuple[Box, Box], ...]
    if is_across:
        sides = (
            ((0, 0, deep, height), (area[0], area[1], window[0], area[3])),
            ((width - deep, 0, width, height), (window[2], area[1], area[2], area[3])),
        )
    else:
        sides = (
            ((0, 0, width, deep), (area[0], area[1], area[2], window[1])),
            ((0, height - deep, width, height), (area[0], window[3], area[2], area[3])),
        )
    for rim, box in sides:
        few = (1, 4) if is_across else (4, 1)
        strip = picture.image.resize(few, Image.Resampling.BOX, rim)
        size = (box[2] - box[0], box[3] - box[1])
        if min(size) > 0:
            ground.paste(strip.resize(size, Image.Resampling.BICUBIC), (box[0] - area[0], box[1] - area[1]))
    canvas.paste(ground, area[:2], _rounded(ground.size, radius) if radius else None)


def _fitting(inner: Box, area: Box) -> tuple[float, tuple[float, float]]:
    """Scale and shift that put a box of the picture as large as it fits into the middle of an area."""
    width, height = inner[2] - inner[0], inner[3] - inner[1]
    scale = min((area[2] - area[0]) / width, (area[3] - area[1]) / height)
    left = (area[0] + area[2]) / 2 - scale * (inner[0] + inner[2]) / 2
    top = (area[1] + area[3]) / 2 - scale * (inner[1] + inner[3]) / 2
    return scale, (left, top)


def _covering(whole: Box, subject: Box, area: Box) -> tuple[float, tuple[float, float]]:
    """Scale and shift that cover an area with the picture, the subject as near its middle as the rims allow."""
    wide, high = area[2] - area[0], area[3] - area[1]
    scale = max(wide / whole[2], high / whole[3])
    left = area[0] + wide / 2 - scale * (subject[0] + subject[2]) / 2
    top = area[1] + high / 2 - scale * (subject[1] + subject[3]) / 2
    left = min(area[0], max(area[2] - scale * whole[2], left))
    top = min(area[1], max(area[3] - scale * whole[3], top))
    return scale, (left, top)


_kept: OrderedDict[tuple[Any, ...], Image.Image] = OrderedDict()


def _scaled(picture: Picture, size: tuple[int, int], source: tuple[float, ...]) -> Image.Image:
    """A part of the picture at a size. The last few are kept: the banners of an item show it at the same sizes."""
    key = (picture.digest, size, source)
    if key not in _kept:
        image = picture.image
        box = (source[0], source[1], source[2], source[3])
        if image.mode == "RGBA":
            # Premultiplied, so that what is transparent lends its colour to no edge.
            image = image.convert("RGBa").resize(size, Image.Resampling.LANCZOS, box, reducing_gap=2.0).convert("RGBA")
        else:
            image = image.resize(size, Image.Resampling.LANCZOS, box, reducing_gap=2.0)
        _kept[key] = image
        while len(_kept) > 12:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def _fill_area(canvas: Image.Image, shape: Shaped, format: Format, tones: Palette) -> None:
    box = pixels(shape.area, format)
    radius = round(shape.radius * format.short_side)
    if shape.shape == "circle":
        side = min(box[2] - box[0], box[3] - box[1])
        left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
        box, radius = (left, top, left + side, top + side), side // 2
    fill(canvas, box, tones[shape.fill], radius)


def fill(canvas: Image.Image, box: Box, colour: Colour, radius: int = 0) -> None:
    size = (box[2] - box[0], box[3] - box[1])
    radius = min(radius, size[0] // 2, size[1] // 2)
    canvas.paste(colour, box, _rounded(size, radius) if radius else None)


@lru_cache(maxsize=64)
def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask with smooth round corners."""
    mask = Image.new("L", size, 255)
    side = radius * 4
    corner = Image.new("L", (side, side), 0)
    ImageDraw.Draw(corner).ellipse((0, 0, 2 * side - 1, 2 * side - 1), fill=255)
    corner = corner.resize((radius, radius), Image.Resampling.BOX)
    for turn, at in (
        (None, (0, 0)),
        (Image.Transpose.FLIP_LEFT_RIGHT, (size[0] - radius, 0)),
        (Image.Transpose.FLIP_TOP_BOTTOM, (0, size[1] - radius)),
        (Image.Transpose.ROTATE_180, (size[0] - radius, size[1] - radius)),
    ):
        mask.paste(corner if turn is None else corner.transpose(turn), at)
    return mask


def pixels(area: tuple[float, float, float, float], format: Format) -> Box:
    left, top, right, bottom = area
    return (
        round(left * format.width),
        round(top * format.height),
        round(right * format.width),
        round(bottom * format.height),
    )


def _shrunk(box: Box, by: int, across: int | None = None, along: int | None = None) -> Box:
    across, along = by if across is None else across, by if along is None else along
    return box[0] + across, box[1] + along, box[2] - across, box[3] - along


def _mapped(box: Box, scale: float, shift: tuple[float, float]) -> tuple[float, float, float, float]:
    return (
        shift[0] + scale * box[0],
        shift[1] + scale * box[1],
        shift[0] + scale * box[2],
        shift[1] + scale * box[3],
    )


def clip(box: tuple[float, float, float, float], area: Box) -> Box:
    return (
        max(area[0], round(box[0])),
        max(area[1], round(box[1])),
        min(area[2], round(box[2])),
        min(area[3], round(box[3])),
    )


def _contains(outer: Box, inner: tuple[float, float, float, float]) -> bool:
    return (
        outer[0] <= inner[0] + 1 and outer[1] <= inner[1] + 1 and outer[2] >= inner[2] - 1 and outer[3] >= inner[3] - 1
    )
