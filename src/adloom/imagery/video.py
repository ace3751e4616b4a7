"""A short 9:16 video of one creative: its picture in slow motion, its words in time with it, its offer at the end.

One template, 6 to 15 seconds. The picture keeps moving on its stage above a panel; on the panel the headline opens, the
phrases of the body follow at reading speed, and a card with price, offer and call to action closes. The AI label is
there from the first frame to the last, and nothing is ever drawn over the product. H.264 in MP4 through PyAV, index in
front, one encoder thread and no clock: the same input gives the same bytes on one machine.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from adloom.creative import AI_LABEL, Brief, Copy, ItemFacts, Language
from adloom.errors import AdloomError
from adloom.imagery.fonts import Face
from adloom.imagery.formats import Box
from adloom.imagery.laying import LABEL_SHARE, character_height
from adloom.imagery.palette import Colour, Palette, palette, readable, style_of
from adloom.imagery.pictures import Picture
from adloom.imagery.typesetting import Line, clean, draw_line, ink_box, one_line, require_glyphs, set_lines

FORMAT = "video_1080x1920"
TEMPLATE = "stage_and_panel/1"
"""Named in the ledger; its number goes up when the same input gives another video."""
WIDTH, HEIGHT, RATE = 1080, 1920, 25
LEAST_SECONDS, MOST_SECONDS = 6.0, 15.0

SAFE: Box = (64, 250, 1016, 1580)
"""Outside of it the platforms draw their own controls."""
PANEL_TOP = 1072
RADIUS = 56
STAGE: Box = (0, 0, WIDTH, PANEL_TOP + RADIUS)
PRODUCT: Box = (72, 372, 1008, 1034)
"""The product stays inside of it at every moment: below the label, above the panel."""
ZOOM = 1.10
DRIFT = 0.012
"""How far the picture wanders, of the stage's width."""
OVERSAMPLE = 1.15
"""The stage is drawn larger than it is shown, so that the closest view of it is still sharp."""

OPENING = 2.4
CARD = 3.6
FADE = 0.36
# Characters a second that are read with ease, and at most: what subtitles go by.
_PACE: dict[Language, tuple[float, float]] = {"zh": (5.0, 9.0), "en": (13.0, 20.0)}
_LEAST_CAPTION = 1.5
_SENTENCE = {
    "zh": re.compile(r"[^。！？!?…]+[。！？!?…]*[”』」）)]*"),
    "en": re.compile(r"[^.!?…]+(?:[.!?…]+[”’\")]*|$)"),
}
_CLAUSE = {"zh": re.compile(r"[^，；：,;]+[，；：,;]*"), "en": re.compile(r"[^,;:–—]+(?:[,;:–—]+\s*|$)")}
# Sizes in pixels, largest first; the last one is the floor.
_HEADLINE_SIZES = tuple(range(104, 67, -4))
_CAPTION_SIZES = tuple(range(76, 51, -4))
_CAPTION_TOP = PANEL_TOP + 164
_BT709 = 1
"""The colours browsers assume of HD, by their number in the H.264 standard."""
_ENCODER = {
    **{"preset": "veryfast", "crf": "19", "threads": "1", "g": "50", "bf": "2", "profile": "high", "level": "4.2"},
    # With x264's macroblock tree the same frames gave other bytes now and then (core 165); without it never.
    "x264-params": "mbtree=0",
}


@dataclass(frozen=True)
class Video:
    """A finished video, without the metadata that `publishing.labels` adds to it last."""

    path: Path
    width: int
    height: int
    seconds: float
    bytes: int
    digest: str
    """SHA-256 of the file, hex"""
    template: str


@dataclass(frozen=True)
class Scene:
    """What stands on the panel from ``start`` to ``end``, in seconds."""

    kind: Literal["headline", "caption", "card"]
    text: str
    start: float
    end: float


# --- what is said when --------------------------------------------------------------------------------------------


def storyboard(copy: Copy, language: Language) -> tuple[Scene, ...]:
    """The scenes of a copy: headline, the body's phrases, card. They fill 6 to 15 seconds without a gap.

    A body that cannot be read in time is shown as far as its whole sentences go; `AdloomError` if not even the first
    one fits. Nothing is cut off within a sentence.
    """
    ease, most = _PACE[language]
    headline = clean(copy.headline, "headline")
    opening = max(OPENING, min(3.6, len(headline) / ease))
    room = MOST_SECONDS - opening - CARD
    kept: list[str] = []
    for sentence in _SENTENCE[language].findall(clean(copy.body, "body")):
        if _seconds([*kept, *_phrases(sentence, language)], most) > room:
            break
        kept += _phrases(sentence, language)
    if not kept:
        raise AdloomError(
            f"body: its first sentence cannot be read in the {room:.1f} seconds a video has for it",
            "order a shorter copy: the channel's limits stand in channels.yml",
        )
    # At ease where there is time, faster where there is not.
    pace = most
    for step in range(9):
        pace = ease + (most - ease) * step / 8
        if _seconds(kept, pace) <= room:
            break
    scenes, at = [Scene("headline", headline, 0.0, _frame_time(opening))], _frame_time(opening)
    for phrase in kept:
        end = _frame_time(at + max(_LEAST_CAPTION, len(phrase) / pace))
        scenes.append(Scene("caption", phrase, at, end))
        at = end
    end = _frame_time(max(at + CARD, LEAST_SECONDS))
    return (*scenes, Scene("card", clean(copy.call_to_action, "call_to_action"), at, end))


def _seconds(phrases: Sequence[str], pace: float) -> float:
    return sum(max(_LEAST_CAPTION, len(phrase) / pace) for phrase in phrases)


def _frame_time(seconds: float) -> float:
    """The time of the nearest frame."""
    return round(seconds * RATE) / RATE


def _phrases(sentence: str, language: Language) -> list[str]:
    """A sentence, a long one in pieces that are read at a glance; short neighbours stay together."""
    short, long = (9, 24) if language == "zh" else (26, 90)
    if len(sentence.strip()) <= long:
        return [sentence.strip()] if sentence.strip() else []
    pieces: list[str] = []
    for clause in _CLAUSE[language].findall(sentence.strip()) or [sentence]:
        if pieces and (len(pieces[-1]) < short or len(clause.strip()) < short) and len(pieces[-1] + clause) <= long:
            pieces[-1] += clause
        else:
            pieces.append(clause)
    return [piece.strip() for piece in pieces if piece.strip()]


# --- drawing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """Pixels with transparency, and where their upper left corner stands."""

    image: Image.Image
    left: int
    top: int


@dataclass(frozen=True)
class _Text:
    """Lines that were set, and their size in pixels."""

    lines: tuple[Line, ...]
    size: int

    def height(self, spacing: float = 1.26) -> int:
        return round(self.size * (1 + spacing * (len(self.lines) - 1)))


@dataclass(frozen=True)
class _Look:
    """What all drawing needs to know."""

    language: Language
    colours: Palette

    def __getitem__(self, role: str) -> Colour:
        return self.colours[role]


def _blank(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.new("RGBA", (width, height), (0, 0, 0, 0))


def _trimmed(image: Image.Image) -> _Layer:
    box = image.getchannel("A").getbbox() or (0, 0, 1, 1)
    return _Layer(image.crop(box), box[0], box[1])


def _rounded(size: tuple[int, int], box: tuple[float, ...], radius: float) -> Image.Image:
    """A mask with smooth corners: drawn four times as large."""
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle([4 * side for side in box], 4 * radius, fill=255)
    return large.resize(size, Image.Resampling.BOX)


def _fill(image: Image.Image, box: Box, radius: int, colour: Colour) -> None:
    width, height = box[2] - box[0], box[3] - box[1]
    mask = _rounded((width, height), (0, 0, width - 0.25, height - 0.25), radius)
    image.paste((*colour, 255), (box[0], box[1]), mask)


def _fitted(  # noqa: PLR0917 - what is set, in what, into what
    text: str, field: str, face: Face, language: Language, width: int, sizes: Sequence[int], most_lines: int
) -> _Text:
    """The text at the largest of ``sizes`` at which it fits; `AdloomError` names the field."""
    found = _fitting(text, field, face, language, width, sizes, most_lines)
    if found is None:
        raise AdloomError(
            f"{field}: {len(text)} characters do not fit {most_lines} lines of {sizes[-1]} px", "order a shorter copy"
        )
    return found


def _fitting(  # noqa: PLR0917
    text: str, field: str, face: Face, language: Language, width: int, sizes: Sequence[int], most_lines: int
) -> _Text | None:
    require_glyphs(text, face, field)
    for size in sizes:
        lines = set_lines(text, face, language, width / size, most_lines, "headline")
        if lines is not None:
            return _Text(lines, size)
    return None


def _draw(  # noqa: PLR0917 - what is drawn, where, and how
    image: Image.Image, text: _Text, left: int, top: int, colour: Colour, spacing: float = 1.26
) -> None:
    """Draw lines, the first one's em box starting at ``top``."""
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(text.lines):
        draw_line(draw, line, left, top + round(text.size * (0.88 + spacing * number)), text.size, colour)


def _label(look: _Look) -> _Layer:
    """The AI label on a dark field: there in every frame."""
    line = one_line(AI_LABEL[look.language], "bold")
    size = math.ceil(LABEL_SHARE * WIDTH)
    while character_height(line.text, "bold", size) < LABEL_SHARE * WIDTH:
        size += 1
    left, top, right, bottom = ink_box(line, size)
    across, down = 26, 18
    image = _blank()
    x, y = SAFE[0], SAFE[1]
    _fill(image, (x, y, x + right - left + 2 * across, y + bottom - top + 2 * down), 20, look["deep"])
    colour = readable(look["white"], (look["deep"],))
    draw_line(ImageDraw.Draw(image), line, x + across - left, y + down - top, size, colour)
    return _trimmed(image)


def _headline(look: _Look, said: str) -> _Layer:
    image = _blank()
    text = _fitted(said, "headline", "bold", look.language, SAFE[2] - SAFE[0], _HEADLINE_SIZES, 3)
    top = _panel_middle(text.height() + 40)
    _fill(image, (SAFE[0], top, SAFE[0] + 88, top + 12), 6, look["accent"])
    _draw(image, text, SAFE[0], top + 40, look["ink"])
    return _trimmed(image)


def _caption(look: _Look, said: str) -> _Layer:
    image = _blank()
    text = _fitted(said, "body", "bold", look.language, SAFE[2] - SAFE[0], _CAPTION_SIZES, 4)
    _draw(image, text, SAFE[0], _CAPTION_TOP, look["ink"], 1.36)
    return _trimmed(image)


def _kicker(look: _Look, brief: Brief) -> _Layer:
    """Brand and name of the item, or what of it fits: who comes in at the middle still learns what it is about."""
    image = _blank()
    brand, title = clean(brief.item.brand, "item.brand"), clean(brief.item.title, "item.title")
    width, sizes = SAFE[2] - SAFE[0] - 36, range(44, 35, -2)
    for said in (f"{brand} · {title}" if brand else title, title, brand):
        text = _fitting(said, "item.title", "regular", look.language, width, sizes, 1) if said else None
        if text is not None:
            middle = PANEL_TOP + 100
            _fill(image, (SAFE[0], middle - 24, SAFE[0] + 12, middle + 24), 6, look["accent"])
            colour = readable(look["muted"], (look["paper"],))
            _draw(image, text, SAFE[0] + 36, middle - text.size // 2, colour)
            break
    return _trimmed(image)


def _panel_middle(height: int) -> int:
    """The top of a block of that height that stands in the middle of the panel's safe part."""
    top, bottom = PANEL_TOP + 40, SAFE[3]
    return round(top + (bottom - top - height) / 2)


@dataclass(frozen=True)
class _Card:
    """The closing card: what stays, and the button that breathes."""

    base: _Layer
    button: _Layer


def _card(look: _Look, brief: Brief, call: str) -> _Card:
    """Brand, offer (or the item's name where there is none), price and struck price, call to action."""
    item, width = brief.item, SAFE[2] - SAFE[0]
    on_deep = readable(look["white"], (look["deep"],))
    quiet = readable(look["tint"], (look["deep"],))
    image = _blank()
    _fill(image, (0, PANEL_TOP, WIDTH, HEIGHT + RADIUS), RADIUS, look["deep"])
    button = _button(look, call)
    blocks: list[tuple[int, Callable[[int], None]]] = []
    brand = clean(item.brand, "item.brand")
    mark = _fitting(brand, "item.brand", "regular", look.language, width, (44, 40, 36), 1) if brand else None
    if mark is not None:
        blocks.append((mark.size + 18, lambda top: _draw(image, mark, SAFE[0], top, quiet)))
    said: _Text | None
    if brief.offer:
        said = _fitted(clean(brief.offer.text, "offer"), "offer", "bold", look.language, width, range(64, 39, -4), 2)
    else:
        # A name too long for two lines is left out: the captions said what it is about.
        title = clean(item.title, "item.title")
        said = _fitting(title, "item.title", "bold", look.language, width, range(64, 39, -4), 2)
    if said is not None:
        blocks.append((said.height(), lambda top: _draw(image, said, SAFE[0], top, on_deep)))
    if item.price:
        blocks.append((30 + 112, lambda top: _price(image, item, top + 30, on_deep, quiet)))
    gap = 40
    total = sum(height for height, _ in blocks) + gap + button.image.height
    top, bottom = PANEL_TOP + 36, SAFE[3]
    if total > bottom - top and mark is not None:
        total -= blocks.pop(0)[0]
    at = top + max(0, bottom - top - total) // 2
    for height, draw in blocks:
        draw(at)
        at += height
    return _Card(_trimmed(image), _Layer(button.image, SAFE[0], at + gap))


def _price(image: Image.Image, item: ItemFacts, top: int, colour: Colour, quiet: Colour) -> None:
    price = one_line(clean(item.price, "item.price"), "bold")
    require_glyphs(price.text, "bold", "item.price")
    size = next((one for one in range(112, 63, -8) if price.em * one <= 0.66 * (SAFE[2] - SAFE[0])), 64)
    baseline = top + 100
    draw = ImageDraw.Draw(image)
    draw_line(draw, price, SAFE[0], baseline, size, colour)
    if not item.list_price or item.list_price == item.price:
        return
    struck = one_line(clean(item.list_price, "item.list_price"), "regular")
    require_glyphs(struck.text, "regular", "item.list_price")
    left = SAFE[0] + round(price.em * size) + 36
    draw_line(draw, struck, left, baseline, 54, quiet)
    right = left + round(struck.em * 54)
    draw.line((left - 6, baseline - 19, right + 6, baseline - 19), fill=(*quiet, 255), width=4)


def _button(look: _Look, call: str) -> _Layer:
    width = SAFE[2] - SAFE[0]
    text = _fitted(call, "call_to_action", "bold", look.language, width - 210, range(52, 35, -4), 1)
    line, size = text.lines[0], text.size
    left, top, right, bottom = ink_box(line, size)
    image = _blank(width, 116)
    # The field is as wide as its words ask for; the arrow is drawn, so that no font can lack it.
    long = min(width, right - left + 190)
    field = look["white"]
    _fill(image, (0, 0, long, 116), 58, field)
    colour = readable(look["accent"], (field,))
    draw_line(ImageDraw.Draw(image), line, 56 - left, 58 - (top + bottom) // 2, size, colour)
    x, y = 56 + right - left + 38, 58
    sharp = Image.new("L", (80 * 4, 80 * 4))
    ImageDraw.Draw(sharp).line([(4 * 4, 16 * 4), (28 * 4, 40 * 4), (4 * 4, 64 * 4)], fill=255, width=34, joint="curve")
    sharp = sharp.resize((80, 80), Image.Resampling.BOX).resize((40, 40), Image.Resampling.BOX)
    image.paste((*colour, 255), (x, y - 20), sharp)
    return _Layer(image.crop((0, 0, long, 116)), 0, 0)


# --- the stage ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stage:
    """The picture on its ground, `OVERSAMPLE` times as large as it is shown. ``product``: its box in there."""

    image: Image.Image
    product: tuple[float, float, float, float]


def _stage(picture: Picture, look: _Look) -> _Stage:
    """The whole picture, unaltered, scaled so that its subject never leaves `PRODUCT` while the camera moves."""
    scale = OVERSAMPLE
    size = round((STAGE[2] - STAGE[0]) * scale), round((STAGE[3] - STAGE[1]) * scale)
    source = picture.image
    subject = picture.subject or (0, 0, *source.size)
    wander = 2 * DRIFT * WIDTH
    room = (PRODUCT[2] - PRODUCT[0] - wander) / ZOOM, (PRODUCT[3] - PRODUCT[1] - wander) / ZOOM
    factor = scale * min(room[0] / (subject[2] - subject[0]), room[1] / (subject[3] - subject[1]))
    middle = scale * (PRODUCT[0] + PRODUCT[2]) / 2, scale * (PRODUCT[1] + PRODUCT[3]) / 2
    left = middle[0] - factor * (subject[0] + subject[2]) / 2
    top = middle[1] - factor * (subject[1] + subject[3]) / 2
    sides = max(1, round(source.width * factor)), max(1, round(source.height * factor))
    if source.mode == "RGBA":
        # Premultiplied, so that what is transparent lends its colour to no edge.
        placed = source.convert("RGBa").resize(sides, Image.Resampling.LANCZOS).convert("RGBA")
    else:
        placed = source.resize(sides, Image.Resampling.LANCZOS)
    product = tuple((start + factor * side) for start, side in zip((left, top, left, top), subject, strict=True))
    at = round(left), round(top)
    if picture.is_cut_out:
        ground = _ground(size, look)
        _shadow(ground, placed, at, look)
        ground.paste(placed, at, placed)
    elif picture.backdrop is not None:
        ground = Image.new("RGB", size, picture.backdrop)
        ground.paste(placed, at)
    else:
        ground = _ground(size, look)
        mask = _rounded(placed.size, (0, 0, placed.width - 1, placed.height - 1), 40 * scale)
        _shadow(ground, Image.merge("RGBA", (*placed.split()[:3], mask)), at, look)
        ground.paste(placed.convert("RGB"), at, mask)
    return _Stage(ground, (product[0], product[1], product[2], product[3]))


def _ground(size: tuple[int, int], look: _Look) -> Image.Image:
    """A pale field, a little lighter behind the product: light that falls on a wall."""
    across, down = np.arange(size[0]), np.arange(size[1])[:, None]
    distance = np.hypot((across - size[0] / 2) / (0.85 * size[1]), (down - 0.52 * size[1]) / (0.85 * size[1]))
    share = np.clip(distance, 0, 1)[..., None] ** 1.4
    colour = np.array(look["paper"]) * (1 - share) + np.array(look["tint"]) * share
    # So few shades over so many pixels would show as rings; noise of about a shade hides their edges.
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (size[1], size[0], 1))
    return Image.fromarray(np.clip(np.rint(colour + noise), 0, 255).astype(np.uint8))


def _shadow(ground: Image.Image, shape: Image.Image, at: tuple[int, int], look: _Look) -> None:
    """The soft shadow of what stands on the ground."""
    alpha = Image.new("L", ground.size)
    alpha.paste(shape.getchannel("A"), (at[0], at[1] + 26))
    small = alpha.reduce(4).filter(ImageFilter.GaussianBlur(9)).point([round(0.26 * value) for value in range(256)])
    soft = small.resize(ground.size, Image.Resampling.BICUBIC)
    ground.paste(look["ink"], (0, 0), soft)


def _view(stage: _Stage, progress: float) -> tuple[float, float, float]:
    """(pixels of the stage per pixel shown, left, top) at a moment between 0 and 1: slowly nearer and across."""
    eased = 0.5 - 0.5 * math.cos(math.pi * progress)
    zoom = 1 + (ZOOM - 1) * eased
    step = OVERSAMPLE / zoom
    width, height = STAGE[2] - STAGE[0], STAGE[3] - STAGE[1]
    middle_x, middle_y = (PRODUCT[0] + PRODUCT[2]) / 2, (PRODUCT[1] + PRODUCT[3]) / 2
    # The product's middle stays where it is; the camera wanders around it.
    wander = DRIFT * width * math.sin(2 * math.pi * progress * 0.75)
    lift = 0.6 * DRIFT * width * math.cos(math.pi * progress)
    left = OVERSAMPLE * middle_x - step * (middle_x + wander * eased)
    top = OVERSAMPLE * middle_y - step * (middle_y + lift * eased)
    left = min(max(left, 0.0), stage.image.width - step * width)
    top = min(max(top, 0.0), stage.image.height - step * height)
    return step, left, top


def _shown_stage(stage: _Stage, progress: float) -> Image.Image:
    step, left, top = _view(stage, progress)
    width, height = STAGE[2] - STAGE[0], STAGE[3] - STAGE[1]
    # A box of fractions of pixels: a view rounded to whole ones would tremble.
    right, bottom = min(left + step * width, stage.image.width), min(top + step * height, stage.image.height)
    box = (max(left, 0.0), max(top, 0.0), right, bottom)
    return stage.image.resize((width, height), Image.Resampling.BICUBIC, box)


# --- frames -------------------------------------------------------------------------------------------------------


class Film:
    """A video before it is encoded: any of its ``frames`` can be drawn, in any order, from the same few layers."""

    def __init__(
        self, picture: Picture, copy: Copy, brief: Brief, style: str | None = None, *, has_label: bool = True
    ) -> None:
        self.scenes = storyboard(copy, brief.language)
        self.frames = round(self.scenes[-1].end * RATE)
        look = _Look(brief.language, palette(picture, style or style_of(brief.segment_words)))
        self._stage = _stage(picture, look)
        self._label = _label(look) if has_label else None
        self._kicker = _kicker(look, brief)
        self._texts = [_headline(look, self.scenes[0].text), *(_caption(look, one.text) for one in self.scenes[1:-1])]
        self._card = _card(look, brief, self.scenes[-1].text)
        panel = _panel(look)
        self._ground = Image.new("RGB", (WIDTH, HEIGHT), look["paper"])
        self._edge = _Layer(panel.image.crop((0, 0, WIDTH, STAGE[3] - panel.top)), panel.left, panel.top)

    @property
    def label_box(self) -> Box | None:
        """Where the AI label stands; None: this is a film without one."""
        if self._label is None:
            return None
        left, top = self._label.left, self._label.top
        return left, top, left + self._label.image.width, top + self._label.image.height

    def product_box(self, number: int) -> tuple[float, float, float, float]:
        """Where the product is seen on a frame, in pixels."""
        step, left, top = _view(self._stage, self._progress(number))
        x0, y0, x1, y1 = self._stage.product
        return (x0 - left) / step, (y0 - top) / step, (x1 - left) / step, (y1 - top) / step

    def frame(self, number: int) -> Image.Image:
        """One frame, RGB; the first one is number 0."""
        now = number / RATE
        frame = self._ground.copy()
        frame.paste(_shown_stage(self._stage, self._progress(number)), STAGE[:2])
        _put(frame, self._edge, 1.0, 0)
        card = self.scenes[-1].start
        if len(self.scenes) > 2:
            shown = _ease((now - self.scenes[1].start) / FADE)
            _put(frame, self._kicker, shown * (1 - _ease((now - card) / FADE)), 0)
        for scene, layer in zip(self.scenes, self._texts, strict=False):
            if not scene.start <= now < scene.end + FADE / 2:
                continue
            # The first frame is what a platform shows as a still: the headline is there already.
            shown = 1.0 if scene.start == 0 else _ease((now - scene.start) / FADE)
            gone = _ease((now - scene.end + FADE / 2) / (FADE / 2))
            _put(frame, layer, shown * (1 - gone), round(36 * (1 - shown)) - round(24 * gone))
        _closing(frame, self._card, now - card)
        if self._label is not None:
            _put(frame, self._label, 1.0, 0)
        return frame

    def _progress(self, number: int) -> float:
        return number / max(1, self.frames - 1)


def _closing(frame: Image.Image, card: _Card, since: float) -> None:
    """The card slides up, then its button breathes."""
    if since < 0:
        return
    risen = _ease(since / (1.6 * FADE))
    offset = round((HEIGHT - PANEL_TOP) * (1 - risen))
    _put(frame, card.base, 1.0, offset)
    breath = 1 + 0.03 * math.sin(math.pi * max(0.0, since - 0.9) / 0.6) ** 2 if since > 0.9 else 1.0
    image = card.button.image
    if breath > 1:
        # Grown about its left middle, so that it keeps the edge of the column.
        step = 1 / breath
        size = round(image.width * 1.04), image.height + 8
        image = image.transform(
            size,
            Image.Transform.AFFINE,
            (step, 0, 0, 0, step, image.height / 2 - step * size[1] / 2),
            resample=Image.Resampling.BICUBIC,
        )
    lift = (image.height - card.button.image.height) // 2
    _put(frame, _Layer(image, card.button.left, card.button.top - lift), 1.0, offset)


def _panel(look: _Look) -> _Layer:
    """The field that words stand on, and its soft edge towards the picture."""
    image = _blank()
    edge = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(edge).rounded_rectangle((0, PANEL_TOP - 6, WIDTH, HEIGHT + RADIUS), RADIUS, fill=46)
    edge = edge.filter(ImageFilter.GaussianBlur(22))
    image.paste((*look["ink"], 255), (0, 0), edge)
    field = _blank()
    _fill(field, (0, PANEL_TOP, WIDTH, HEIGHT + RADIUS), RADIUS, look["paper"])
    return _trimmed(Image.alpha_composite(image, field))


def _put(frame: Image.Image, layer: _Layer, opacity: float, down: int) -> None:
    if opacity <= 0:
        return
    mask = layer.image.getchannel("A")
    if opacity < 1:
        mask = ImageChops.multiply(mask, Image.new("L", mask.size, round(255 * opacity)))
    frame.paste(layer.image, (layer.left, layer.top + down), mask)


def _ease(share: float) -> float:
    """0 → 1, quick at first and slow at the end."""
    share = min(max(share, 0.0), 1.0)
    return 1 - (1 - share) ** 3


# --- the file -----------------------------------------------------------------------------------------------------


def compose_video(
    picture: Picture, copy: Copy, brief: Brief, target: Path, style: str | None = None, *, has_label: bool = True
) -> Video:
    """Write the video of a creative to ``target`` (.mp4), whole or not at all.

    ``style``: one of ``styles.yml``; without it that of the segment's words. ``has_label``: False only for an export
    that `publishing.labels` has written down. Raises `AdloomError` that names the field which cannot be set.
    """
    film = Film(picture, copy, brief, style, has_label=has_label)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.tmp")
    encode((film.frame(number) for number in range(film.frames)), fresh)
    content = fresh.read_bytes()
    os.replace(fresh, target)
    digest = hashlib.sha256(content).hexdigest()
    return Video(target, WIDTH, HEIGHT, film.frames / RATE, len(content), digest, TEMPLATE)


def encode(images: Iterable[Image.Image], path: Path) -> None:
    """H.264 in MP4, 4:2:0, BT.709, index in front: what every browser and platform plays. Memory holds one frame."""
    import av
    from av.video.reformatter import ColorRange, Colorspace

    options = {"movflags": "+faststart", "fflags": "bitexact"}
    with av.open(str(path), "w", format="mp4", options=options) as made:
        stream = made.add_stream("libx264", rate=RATE, options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        context = stream.codec_context
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_image(image).reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            for packet in stream.encode(frame):
                made.mux(packet)
        for packet in stream.encode(None):
            made.mux(packet)
