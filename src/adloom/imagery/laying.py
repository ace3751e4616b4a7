"""How a column of text is laid out: which of its blocks are shown, how large, in which lines, and where.

Sizes shrink together until everything fits; below the templates' floors nothing shrinks, and the text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from adloom.creative import Language
from adloom.errors import AdloomError
from adloom.imagery.fonts import LANGUAGE, Face, font
from adloom.imagery.formats import Box, Format
from adloom.imagery.placing import clip, pixels
from adloom.imagery.templates import Block, Column
from adloom.imagery.typesetting import Line, Manner, has_pause, ink_box, one_line, require_glyphs, set_lines

LABEL_SHARE = 0.05
"""GB 45438-2025: the label's characters are at least so high, as a share of the image's short side."""
_SCALES = (1.0, 0.94, 0.88, 0.82, 0.76, 0.7, 0.64, 0.58, 0.52, 0.46)
_LEAST_WITH_BODY = 0.66
"""A body for which everything would shrink further is left to the text beside the image."""
_LEAST_SIDE_BY_SIDE = 0.76
_LEAST_GAP = 0.66
_ABOVE = {"zh": 0.86, "en": 0.75}
_BELOW = {"zh": 0.1, "en": 0.2}
_LEADING: dict[tuple[str, Manner], float] = {
    ("zh", "headline"): 1.26,
    ("en", "headline"): 1.18,
    ("zh", "body"): 1.62,
    ("en", "body"): 1.42,
}
_SMALL = 0.56
"""Of a price: its currency sign and decimals, as a share of its figures."""
_STRUCK = 0.44
"""And the struck price beside it."""
_LEAST = 0.032
"""No text is smaller, as a share of the short side."""


class DoesNotFit(AdloomError):
    """The text has no room in this template, not even at its smallest readable size."""


@dataclass(frozen=True)
class Mark:
    """Something to paint at an offset from its piece's corner: a line of text, a filled shape or a rule."""

    kind: str
    left: int
    top: int
    line: Line | None = None
    face: Face = "regular"
    size: int = 0
    colour: str = "ink"
    width: int = 0
    height: int = 0
    radius: int = 0


@dataclass(frozen=True)
class Piece:
    """A block that was measured: how large it is and what is painted."""

    width: int
    height: int
    marks: tuple[Mark, ...] = ()
    gap: int = 0
    push: bool = False


@dataclass(frozen=True)
class Words:
    """Everything a banner can say, cleaned, in one language."""

    language: Language
    texts: dict[str, str] = field(hash=False)

    def __getitem__(self, name: str) -> str:
        return self.texts.get(name, "")


def set_column(
    column: Column, words: Words, format: Format, where: str
) -> tuple[list[tuple[Piece, int, int]], list[str]]:
    """The column's pieces with left and top, and what was left out: the body, where not all of it fits."""
    area = clip(pixels(column.area, format), format.safe)
    shown = [block for block in column.blocks if _is_shown(block, words)]
    left_out: list[str] = []
    while True:
        pieces = _fitted(shown, words, format, area)
        if pieces is not None:
            return _stacked(pieces, column, area), left_out
        if any(block.show == "body" for block in shown):
            # All of it or none: a sentence left out could be the condition of another.
            shown = [block for block in shown if block.show != "body"]
            left_out.append("body")
            continue
        longest = max(shown, key=lambda block: len(words[block.show])).show
        raise DoesNotFit(
            f"{longest} of {len(words[longest])} characters does not fit {where} at its smallest readable size",
            "shorten it, or choose another template",
        )


def _is_shown(block: Block, words: Words) -> bool:
    return bool(words[block.show]) or (block.beside is not None and bool(words[block.beside.show]))


def _fitted(blocks: list[Block], words: Words, format: Format, area: Box) -> list[Piece] | None:
    """The blocks at the largest scale at which they fit the area; None: not even at their floors."""
    width, height = area[2] - area[0], area[3] - area[1]
    least = _LEAST_WITH_BODY if any(block.show == "body" for block in blocks) else 0.0
    # Somewhat smaller and side by side looks better than a button that slips below its price.
    side_by_side = [(scale, False) for scale in _SCALES if scale >= _LEAST_SIDE_BY_SIDE]
    for scale, may_stack in [*side_by_side, *((scale, True) for scale in _SCALES)]:
        if scale < least:
            return None
        pieces = []
        for block in blocks:
            piece = _measured(block, words, format, scale, width, may_stack=may_stack)
            if piece is None:
                break
            pieces.append(piece)
        else:
            total = sum(piece.height for piece in pieces) + sum(piece.gap for piece in pieces[1:])
            if total <= height:
                return pieces
    return None


def _stacked(pieces: list[Piece], column: Column, area: Box) -> list[tuple[Piece, int, int]]:
    total = sum(piece.height for piece in pieces) + sum(piece.gap for piece in pieces[1:])
    spare = area[3] - area[1] - total
    pushed = [number for number, piece in enumerate(pieces) if piece.push and number]
    share = spare // len(pushed) if pushed else 0
    top = area[1]
    if not pushed and column.anchor != "top":
        top += spare if column.anchor == "bottom" else spare // 2
    placed = []
    for number, piece in enumerate(pieces):
        top += piece.gap if number else 0
        top += share if number in pushed else 0
        left = area[0] if column.align == "left" else (area[0] + area[2] - piece.width) // 2
        placed.append((piece, left, top))
        top += piece.height
    return placed


def _measured(block: Block, words: Words, format: Format, scale: float, width: int, *, may_stack: bool) -> Piece | None:
    """A block, and what stands beside it (``may_stack``: or below it), at a scale; None: too wide."""
    shown = [one for one in (block, block.beside) if one is not None and words[one.show]]
    pieces = [_piece(one, words, format, scale, width) for one in shown]
    own, other = pieces[0], pieces[-1]
    if own is None or other is None:
        return None
    gap = round(block.gap * format.short_side * max(scale, _LEAST_GAP))
    if len(pieces) == 1:
        return replace(own, gap=gap, push=block.push)
    apart = round(0.03 * format.short_side)
    if own.width + apart + other.width <= width:
        height = max(own.height, other.height)
        # Plain text shares a baseline; a button is centred on its neighbour.
        level = all(one.look == "plain" for one in shown)
        shifts = [height - one.height if level else (height - one.height) // 2 for one in (own, other)]
        marks = _moved(own, 0, shifts[0]) + _moved(other, width - other.width, shifts[1])
        return Piece(width, height, marks, gap, block.push)
    if not may_stack:
        return None
    below = round(0.04 * format.short_side)
    marks = own.marks + _moved(other, 0, own.height + below)
    return Piece(max(own.width, other.width), own.height + below + other.height, marks, gap, block.push)


def _moved(piece: Piece, left: int, top: int) -> tuple[Mark, ...]:
    return tuple(replace(mark, left=mark.left + left, top=mark.top + top) for mark in piece.marks)


def _piece(block: Block, words: Words, format: Format, scale: float, width: int) -> Piece | None:
    size = on_grid(format.short_side * max(block.floor, block.size * scale), format.short_side * block.floor)
    if block.show == "label":
        size = _label_size(words["label"], block.face, format.short_side)
    if block.show == "price":
        return _price(block, words, size, width, format.short_side)
    text = words[block.show]
    require_glyphs(text, block.face, block.show)
    pad = _padding(block, size)
    manner: Manner = "body" if block.show == "body" else "headline"
    shown = f"{text} →" if block.look == "link" else text
    # A hundredth of tolerance: kerning across breaks is not measured.
    lines = set_lines(shown, block.face, words.language, _room(width, pad, size), block.lines, manner)
    if block.show == "headline":
        size, lines = _best_lines(block, shown, words.language, width, size, short_side=format.short_side)
    if lines is None:
        return None
    return _boxed(block, _text_piece(block, lines, size, words.language, manner), pad, size)


def on_grid(size: float, least: float = 0.0) -> int:
    """A font's size in pixels: the nearest of few, because every face and size that is open takes some megabytes."""
    step = 2 if size < 60 else 4 if size < 120 else 8
    found = step * round(size / step)
    return found if found >= least else found + step


def _room(width: int, pad: tuple[int, int], size: int) -> float:
    return round((width - 2 * pad[0]) / size * 0.99, 2)


def _best_lines(
    block: Block, text: str, language: Language, width: int, size: int, *, short_side: int
) -> tuple[int, tuple[Line, ...] | None]:
    """A headline's size and lines: somewhat smaller where its lines then end better, and in no more lines."""
    best: tuple[int, tuple[Line, ...] | None] = (size, None)
    # A headline of two clauses is set as two clauses; otherwise the end of a phrase will do.
    wanted = 2 if has_pause(text) else 1
    for scale in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7):
        smaller = on_grid(scale * size)
        if scale < 1 and smaller < round(block.floor * short_side):
            break
        lines = set_lines(text, block.face, language, _room(width, (0, 0), smaller), block.lines, "headline")
        if lines is not None and (best[1] is None or _ending(lines) > _ending(best[1])):
            best = smaller, lines
            if _ending(lines) >= wanted:
                break
    return best


def _ending(lines: tuple[Line, ...]) -> int:
    return min(line.ending for line in lines)


def _padding(block: Block, size: int) -> tuple[int, int]:
    if block.look == "pill":
        return round(0.85 * size), round(0.5 * size)
    return (round(0.5 * size), round(0.32 * size)) if block.look == "tag" else (0, 0)


def _text_piece(block: Block, lines: tuple[Line, ...], size: int, language: Language, manner: Manner) -> Piece:
    leading = round(_LEADING[language, manner] * size)
    above, below = round(_ABOVE[language] * size), round(_BELOW[language] * size)
    inks = [ink_box(line, size) for line in lines]
    width = max(ink[2] - ink[0] for ink in inks)
    # Lines start with their ink, so that an opening bracket's blank half does not dent the margin.
    marks = tuple(
        Mark(block.show, -ink[0], above + number * leading, line, block.face, size, block.colour)
        for number, (line, ink) in enumerate(zip(lines, inks, strict=True))
    )
    return Piece(width, above + (len(lines) - 1) * leading + below, marks)


def _boxed(block: Block, piece: Piece, pad: tuple[int, int], size: int) -> Piece:
    """The piece with what its look draws behind or below it."""
    if block.look == "plain":
        return piece
    if block.look == "link":
        # Clear of a comma's tail, also where letters are small.
        below = max(round(0.18 * size), 6)
        rule = Mark("rule", 0, piece.height + below, colour=block.colour, width=piece.width)
        thick = max(2, round(0.045 * size))
        return Piece(piece.width, rule.top + thick, (replace(rule, height=thick), *piece.marks))
    width, height = piece.width + 2 * pad[0], piece.height + 2 * pad[1]
    radius = height // 2 if block.look == "pill" else round(0.22 * size)
    shape = Mark("shape", 0, 0, colour=block.fill, width=width, height=height, radius=radius)
    return Piece(width, height, (shape, *_moved(piece, pad[0], pad[1])))


def _price(block: Block, words: Words, size: int, width: int, short_side: int) -> Piece | None:
    """The price, its figures larger than sign and decimals, and the struck price beside or below it."""
    require_glyphs(words["price"], block.face, "price")
    at, marks, above = 0, [], round(0.75 * size)
    small = on_grid(_SMALL * size)
    for text, is_figure in _figures(words["price"]):
        own = size if is_figure else small
        line = one_line(text, block.face)
        ink = ink_box(line, own)
        marks.append(Mark("price", at - ink[0], above, line, block.face, own, block.colour))
        at += ink[2] - ink[0] + round(0.09 * size)
    height = above + max(ink_box(mark.line, mark.size)[3] for mark in marks if mark.line)
    at -= round(0.09 * size)
    if at > width:
        return None
    struck = words["list_price"]
    if not struck:
        return Piece(at, height, tuple(marks))
    require_glyphs(struck, "regular", "list_price")
    own = on_grid(max(_STRUCK * size, _LEAST * short_side), _LEAST * short_side)
    line = one_line(struck, "regular")
    ink = ink_box(line, own)
    left, baseline = at + round(0.24 * size), above
    if left + ink[2] - ink[0] > width:
        left, baseline = 0, height + round(1.1 * own)
    height = max(height, baseline + ink[3])
    marks.append(Mark("list_price", left - ink[0], baseline, line, "regular", own, "muted"))
    thick = max(2, round(0.06 * own))
    rule = Mark("strike", left - thick, baseline - round(0.36 * own), colour="muted", height=thick)
    marks.append(replace(rule, width=ink[2] - ink[0] + 2 * thick))
    return Piece(max(at, left + ink[2] - ink[0]), height, tuple(marks))


def _figures(price: str) -> Iterator[tuple[str, bool]]:
    """Pieces of a price and whether each is its main figures: ¥ | 199 | .90."""
    found = re.fullmatch(r"(\D*)(\d[\d,]*)(.*)", price)
    if found is None:
        yield price, True
        return
    for text, is_figure in zip(found.groups(), (False, True, False), strict=True):
        if text.strip():
            yield text.strip(), is_figure


@lru_cache(maxsize=64)
def _label_size(label: str, face: Face, short_side: int) -> int:
    """The font size at which the label's characters are high enough."""
    wanted = LABEL_SHARE * short_side
    # Begun just below what the height at another size lets expect: every size that is looked at is opened.
    first = max(1, int(wanted * 100 / character_height(label, face, 100)) - 1)
    return next(size for size in range(first, short_side) if character_height(label, face, size) >= wanted)


@lru_cache(maxsize=4096)
def character_height(text: str, face: str, size: int) -> int:
    """Height in pixels of a text's characters above their baseline, or of Han characters their own: what hangs below a
    Latin baseline does not count."""
    heights = [0]
    for one in text:
        box = font(face, size).getbbox(one, anchor="ls", language=LANGUAGE)
        heights.append(round(box[3] - box[1]) if "\u3400" <= one <= "\u9fff" else round(-box[1]))
    return max(heights)
