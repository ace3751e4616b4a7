"""What is checked on every finished image: on the bytes that will be uploaded, against what was meant to stand there.

A check never repairs. `check` returns one result per rule; an image goes on only if all of them pass.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from adloom.errors import AdloomError
from adloom.imagery import palette as colours
from adloom.imagery.composing import Composed, Drawn
from adloom.imagery.formats import Box
from adloom.imagery.laying import LABEL_SHARE

LEAST_SUBJECT = 0.05
"""Share of the image that the subject's box takes up at least."""
LEAST_SIDE = 0.2
"""And the longer side of that box, as a share of the image's short side."""
SAME = 12.0
"""Mean difference (of 255) up to which the subject still looks as its picture does; JPEG alone stays below 5."""
SMALLEST_TEXT = 0.02
"""Height of the smallest characters, as a share of the short side."""
_RING = 3
"""Pixels around a text that show what lies behind it."""


@dataclass(frozen=True)
class Check:
    """One rule on one image. ``measured`` and ``required`` in the unit that ``detail`` names."""

    rule: str
    passed: bool
    measured: float
    required: float
    detail: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(composed: Composed, content: bytes, most_bytes: int) -> list[Check]:
    """Every rule's result for the encoded image ``content`` of a composition, in a fixed order."""
    try:
        image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "WEBP"))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise AdloomError(f"the composed image cannot be opened again: {error}", "compose it again") from error
    pixels = image.convert("RGB")
    found = [_size(composed, pixels), _weight(content, most_bytes)]
    if not found[0].passed:
        return found  # nothing stands where it was meant to
    return [
        *found,
        _subject_size(composed),
        _subject_inside(composed),
        _subject_free(composed),
        _subject_unchanged(composed, pixels),
        _contrast(composed, pixels),
        _label_height(composed),
        _text_height(composed),
        _safe_area(composed),
        _apart(composed),
    ]


def failed(checks: list[Check]) -> list[Check]:
    """The results that keep an image back."""
    return [one for one in checks if not one.passed]


def _size(composed: Composed, image: Image.Image) -> Check:
    wanted = (composed.format.width, composed.format.height)
    detail = f"{image.width} × {image.height} px; {composed.format.name} is {wanted[0]} × {wanted[1]}"
    return Check("size", image.size == wanted, float(image.width * image.height), float(wanted[0] * wanted[1]), detail)


def _weight(content: bytes, most_bytes: int) -> Check:
    detail = f"{len(content):,} bytes; the channel takes {most_bytes:,}"
    return Check("weight", len(content) <= most_bytes, float(len(content)), float(most_bytes), detail)


def _subject_size(composed: Composed) -> Check:
    wide, high = _sides(composed.subject)
    share = wide * high / (composed.format.width * composed.format.height)
    is_long = max(wide, high) >= LEAST_SIDE * composed.format.short_side
    detail = f"the product's box takes up {share:.1%} of the image"
    return Check("subject_size", share >= LEAST_SUBJECT and is_long, round(share, 4), LEAST_SUBJECT, detail)


def _subject_inside(composed: Composed) -> Check:
    inside = _area(_common(composed.subject, (0, 0, composed.format.width, composed.format.height)))
    share = inside / max(1, _area(composed.subject))
    return Check("subject_inside", share >= 0.999, round(share, 4), 1.0, f"{share:.1%} of the product is inside")


def _subject_free(composed: Composed) -> Check:
    boxes = [one.box for one in composed.drawn] + list(composed.fields)
    covered = max((_area(_common(composed.subject, box)) for box in boxes), default=0)
    detail = f"{covered:,} px of the product's box lie under text or a field"
    return Check("subject_free", covered == 0, float(covered), 0.0, detail)


def _subject_unchanged(composed: Composed, image: Image.Image) -> Check:
    seen = image.crop(composed.subject).resize(composed.sample.size, Image.Resampling.BOX)
    off = float(np.abs(np.asarray(seen, np.int16) - np.asarray(composed.sample, np.int16)).mean())
    detail = f"the product differs from its picture by {off:.1f} of 255 on average"
    return Check("subject_unchanged", off <= SAME, round(off, 2), SAME, detail)


def _contrast(composed: Composed, image: Image.Image) -> Check:
    measured = [(_measured_contrast(image, one), one) for one in composed.drawn]
    least, worst = min(measured, key=lambda pair: pair[0])
    detail = f"{worst.kind} “{worst.text[:30]}” has the least contrast: {least:.2f}"
    return Check("contrast", least >= colours.CONTRAST, round(least, 2), colours.CONTRAST, detail)


def _measured_contrast(image: Image.Image, drawn: Drawn) -> float:
    """WCAG contrast of a text, from the pixels alone: the core of its strokes against all that surrounds it.

    The core is the twentieth part of the box's pixels that differs most from the surroundings; thin strokes blur into
    what lies behind them, which is how a reader sees them too.
    """
    left, top, right, bottom = drawn.box
    outer = (
        max(0, left - _RING),
        max(0, top - _RING),
        min(image.width, right + _RING),
        min(image.height, bottom + _RING),
    )
    light = colours.luminances(image.crop(outer))
    ring = np.concatenate([light[:2].ravel(), light[-2:].ravel(), light[:, :2].ravel(), light[:, -2:].ravel()])
    # JPEG lets strokes ring a little into their surroundings.
    # Sorted once: `np.percentile` and `np.median` would each take longer than all the rest of a check.
    ring.sort()
    low, middle, high = (float(ring[round(share * (ring.size - 1))]) for share in (0.03, 0.5, 0.97))
    flat = light.ravel()
    count = max(4, flat.size // 50)
    flat = np.partition(flat, (count - 1, flat.size - count))
    dark, bright = float(flat[:count].mean()), float(flat[-count:].mean())
    own = max(dark, bright, key=lambda one: colours.ratio(one, middle))
    return min(colours.ratio(own, low), colours.ratio(own, high))


def _label_height(composed: Composed) -> Check:
    wanted = LABEL_SHARE * composed.format.short_side
    height = min((one.height for one in composed.of("label")), default=0)
    detail = f"the AI label's characters are {height} px high; {wanted:.1f} are required"
    return Check("label_height", height >= wanted, float(height), round(wanted, 2), detail)


def _text_height(composed: Composed) -> Check:
    share, smallest = min(
        ((one.size / composed.format.short_side, one) for one in composed.drawn), key=lambda it: it[0]
    )
    detail = f"the smallest text is {smallest.kind} at {smallest.size} px"
    return Check("text_height", share >= SMALLEST_TEXT, round(share, 4), SMALLEST_TEXT, detail)


def _safe_area(composed: Composed) -> Check:
    safe = composed.format.safe
    outside = [one for one in composed.drawn if _area(_common(one.box, safe)) < _area(one.box)]
    detail = f"{outside[0].kind} leaves the safe area" if outside else "all text is inside the safe area"
    return Check("safe_area", not outside, float(len(outside)), 0.0, detail)


def _apart(composed: Composed) -> Check:
    meeting = [
        (first, second)
        for number, first in enumerate(composed.drawn)
        for second in composed.drawn[number + 1 :]
        if _area(_common(first.box, second.box)) > 0
    ]
    detail = f"{meeting[0][0].kind} and {meeting[0][1].kind} touch each other" if meeting else "no two texts touch"
    return Check("text_apart", not meeting, float(len(meeting)), 0.0, detail)


def _sides(box: Box) -> tuple[int, int]:
    return max(0, box[2] - box[0]), max(0, box[3] - box[1])


def _area(box: Box) -> int:
    wide, high = _sides(box)
    return wide * high


def _common(first: Box, second: Box) -> Box:
    return (
        max(first[0], second[0]),
        max(first[1], second[1]),
        min(first[2], second[2]),
        min(first[3], second[3]),
    )
