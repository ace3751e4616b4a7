"""Lines of Chinese and English: where they may break, where they break well, and drawing them.

Legal breaks are those of UAX #14 (uniseg); good ones in Chinese are those between phrases (budoux). A headline is
balanced, a longer body fills its lines; neither ends in a lonely character where that can be avoided.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import Literal

from PIL import ImageDraw

from adloom.creative import Language
from adloom.errors import AdloomError
from adloom.imagery.fonts import LANGUAGE, Face, draws, font
from adloom.imagery.formats import Box
from adloom.imagery.palette import Colour

Manner = Literal["headline", "body"]

_REFERENCE = 100
"""Widths are measured once at this size and scaled: advances of these faces are proportional to it."""
_EMOJI_SCALE = 0.8
"""An OpenMoji glyph is 1.29 em wide; scaled so, it is as wide as a Han character."""
_PAUSE = "，。！？、；：,.!?;:…"
_NUMERALS = frozenset("0123456789一二两三四五六七八九十百千万半几第每")
"""What follows them belongs to them: 五公里."""
_BALANCED = 3
"""Lines of a body that are made equally wide, as a headline's are; a longer one fills its lines."""
_OPEN_ENDED = frozenset(
    "a an the of for to in on at by with and or but from into "  # noqa: SIM905 - words read better so
    "your my our its is are no that which who when if not".split()
)
# Where UAX #14 breaks whatever stands further away: between two Han characters, and between two English words. What is
# cut there first is short and comes again, so that the rules are gone through seldom.
_SURE_BREAK = re.compile(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])|(?<=[A-Za-z.,;:!?] )(?=[A-Za-z])")
_INVISIBLE = {"\u200b", "\u2060", "\ufeff", "\u00ad"}
_JOINERS = {"\u200d", "\ufe0f", "\ufe0e", "\u20e3"}
_PLAIN = re.compile(r"[\u0020-\u00ff\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]*")


@dataclass(frozen=True)
class Line:
    """One line as it is drawn: runs of one face each, its width in em, and how well it ends: 2 with a pause or the
    text, 1 between phrases, 0 within one."""

    text: str
    runs: tuple[tuple[str, str], ...]
    em: float
    ending: int = 2


@dataclass(frozen=True)
class _Unit:
    """Text between two legal breaks. ``em``: its width; ``bare``: without the space behind it."""

    text: str
    em: float
    bare: float
    is_good_end: bool


def clean(text: str, field: str) -> str:
    """One line of text without invisible characters; `AdloomError` names what cannot be set."""
    text = unicodedata.normalize("NFC", text)
    for character in text:
        if unicodedata.bidirectional(character) in ("R", "AL", "AN", "RLE", "RLO", "RLI", "LRO"):
            raise AdloomError(
                f"{field}: {_named(character)} is written from right to left, which no template sets",
                "write it in Chinese or English",
            )
    kept = "".join(
        " " if one.isspace() else one
        for one in text
        if one not in _INVISIBLE
        and (one in _JOINERS or one.isspace() or unicodedata.category(one)[0] != "C" or one >= "\U000e0020")
    )
    return re.sub(r" +", " ", kept).strip()


def require_glyphs(text: str, face: Face, field: str) -> None:
    """`AdloomError` names the first character that neither the face nor the emoji can draw."""
    for face_name, run in runs(text, face):
        if face_name == "missing":
            raise AdloomError(f"{field}: no font draws {_named(run)}", "take it out, or write it another way")


def _named(cluster: str) -> str:
    codes = " ".join(f"U+{ord(one):04X}" for one in cluster)
    shown = cluster if cluster.isprintable() else ""
    return f"{shown} ({codes}, {unicodedata.name(cluster[0], 'unnamed').lower()})".strip()


@lru_cache(maxsize=8192)
def runs(text: str, face: Face) -> tuple[tuple[str, str], ...]:
    """(face, text) pairs: the face wherever it has the glyphs, emoji in colour, ``missing`` for what nothing draws."""
    if _PLAIN.fullmatch(text) and draws(face, text):
        return ((face, text),)
    from uniseg.graphemecluster import grapheme_clusters

    found: list[tuple[str, str]] = []
    for cluster in grapheme_clusters(text):
        name = _face_of(cluster, face)
        shown = cluster.replace("\ufe0e", "").replace("\ufe0f", "") if name == face else cluster
        if found and found[-1][0] == name and name == face:
            found[-1] = (name, found[-1][1] + shown)
        else:
            found.append((name, shown))
    return tuple(found)


@cache
def _face_of(cluster: str, face: Face) -> str:
    wants_colour = "\ufe0f" in cluster or "\u20e3" in cluster
    if not wants_colour and draws(face, cluster.replace("\ufe0e", "")):
        return face
    if draws("emoji", cluster):
        return "emoji"
    bare = cluster.replace("\ufe0f", "").replace("\ufe0e", "")
    if draws(face, bare):
        return face
    return "emoji" if draws("emoji", bare) else "missing"


@lru_cache(maxsize=16384)
def em_width(text: str, face: Face) -> float:
    """Width of a piece of text in em."""
    total = 0.0
    for name, run in runs(text, face):
        scale = _EMOJI_SCALE if name == "emoji" else 1.0
        total += scale * font(name, _REFERENCE).getlength(run, language=LANGUAGE) / _REFERENCE
    return total


@lru_cache(maxsize=4096)
def _units(text: str, face: Face, language: Language) -> tuple[_Unit, ...]:
    good = _phrase_ends(text) if language == "zh" else frozenset()
    found, at = [], 0
    for unit in _with_their_numbers(legal_units(text)):
        at += len(unit)
        bare = unit.rstrip()
        if language == "zh":
            is_good = bare[-1:] in _PAUSE or (at in good and bare[-1:] not in _NUMERALS)
        else:
            is_good = bare.lower() not in _OPEN_ENDED
        found.append(_Unit(unit, em_width(unit, face), em_width(bare, face), is_good))
    return tuple(found)


def _with_their_numbers(units: list[str]) -> list[str]:
    """What a number counts stays on its line: 50 g, 3 pairs."""
    kept: list[str] = []
    for unit in units:
        if kept and re.search(r"\d $", kept[-1]):
            kept[-1] += unit
        else:
            kept.append(unit)
    return kept


def legal_units(text: str) -> list[str]:
    """The text between its legal breaks: as uniseg cuts it, but for the time that takes."""
    return [unit for piece in _SURE_BREAK.split(text) for unit in _cut(piece)]


@lru_cache(maxsize=16384)
def _cut(piece: str) -> tuple[str, ...]:
    if len(piece) == 1:
        return (piece,)
    from uniseg.linebreak import line_break_units

    return tuple(line_break_units(piece))


def _phrase_ends(text: str) -> frozenset[int]:
    ends, at = set(), 0
    for phrase in _parser()(text):
        at += len(phrase)
        ends.add(at)
    return frozenset(ends)


@cache
def _parser() -> Callable[[str], list[str]]:
    import budoux

    parse: Callable[[str], list[str]] = budoux.load_default_simplified_chinese_parser().parse
    return parse


@lru_cache(maxsize=2048)
def set_lines(  # noqa: PLR0917 - what is set, in what, how wide
    text: str, face: Face, language: Language, em: float, most_lines: int, manner: Manner
) -> tuple[Line, ...] | None:
    """The text in lines at most ``em`` wide; None: it does not fit in ``most_lines`` of them."""
    units = _units(text, face, language)
    if not units or max(unit.bare for unit in units) > em:
        return None
    least = _fewest(units, em)
    if least > most_lines:
        return None
    is_short = manner == "headline" or least <= _BALANCED
    ends = _balanced(units, em, least) if is_short else _filled(units, em)
    if len(ends) > most_lines:
        ends = _greedy(units, em)
    lines, start = [], 0
    for end in ends:
        piece = "".join(unit.text for unit in units[start:end]).strip()
        ending = 2 if end == len(units) or piece[-1] in _PAUSE else int(units[end - 1].is_good_end)
        if language == "en" and len(units) > 3 and " " not in piece and (end < len(units) or len(piece) < 6):
            ending = 0  # a word alone on its line looks lost
        lines.append(Line(piece, runs(piece, face), em_width(piece, face), ending))
        start = end
    return tuple(lines)


def has_pause(text: str) -> bool:
    """Is there a pause before the text's end?"""
    return any(one in _PAUSE for one in text[:-1])


def _greedy(units: tuple[_Unit, ...], em: float) -> list[int]:
    ends, width = [], 0.0
    for number, unit in enumerate(units):
        if width + unit.bare > em and width:
            ends.append(number)
            width = 0.0
        width += unit.em
    return [*ends, len(units)]


def _fewest(units: tuple[_Unit, ...], em: float) -> int:
    return len(_greedy(units, em))


def _starts(units: tuple[_Unit, ...]) -> list[float]:
    """Where each unit starts on one long line, in em; the last number is the line's end."""
    return [0.0, *accumulate(unit.em for unit in units)]


def _end_cost(units: tuple[_Unit, ...], end: int, inside_phrase: float, after_pause: float) -> float:
    """What it costs to break after unit ``end`` - 1; the end of the text is free."""
    if end == len(units):
        return 0.0
    unit = units[end - 1]
    if unit.text.rstrip()[-1:] in _PAUSE:
        return after_pause
    return 0.0 if unit.is_good_end else inside_phrase


def _is_lonely(units: tuple[_Unit, ...], start: int, end: int) -> bool:
    """Would the last line hold a single Han character or a single short word?"""
    text = "".join(unit.text for unit in units[start:end]).strip().rstrip(_PAUSE + "”’』」》）)")
    return end == len(units) and start > 0 and (len(text) < 2 or (len(text) < 6 and text.isascii() and " " not in text))


def _balanced(units: tuple[_Unit, ...], em: float, lines: int) -> list[int]:
    """Ends of exactly ``lines`` lines of nearly equal width that break between phrases where they can."""
    count = len(units)
    at = _starts(units)
    mean = min(em, at[-1] / lines)
    # best[k][j]: least cost of the first j units in k lines, and where the last of them starts
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for line in range(1, lines + 1):
        row: dict[int, tuple[float, int]] = {}
        for start, (cost, _) in best[-1].items():
            for end in range(start + 1, count + 1):
                width = at[end - 1] - at[start] + units[end - 1].bare
                if width > em:
                    break
                if (end == count) != (line == lines):
                    continue
                total = cost + ((width - mean) / mean) ** 2 + _end_cost(units, end, 0.3, -0.1)
                total += 1.0 if _is_lonely(units, start, end) else 0.0
                if end not in row or total < row[end][0]:
                    row[end] = (total, start)
        best.append(row)
    if count not in best[-1]:
        return _greedy(units, em)
    return _walk_back(best, count)


def _walk_back(best: list[dict[int, tuple[float, int]]], count: int) -> list[int]:
    ends, at = [], count
    for row in reversed(best[1:]):
        ends.append(at)
        at = row[at][1]
    return ends[::-1]


def _filled(units: tuple[_Unit, ...], em: float) -> list[int]:
    """Ends of lines that are full, with a last line of more than a character."""
    count, at = len(units), _starts(units)
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}
    for end in range(1, count + 1):
        for start in range(end - 1, -1, -1):
            width = at[end - 1] - at[start] + units[end - 1].bare
            if width > em:
                break
            if start not in best:
                continue
            slack = 0.0 if end == count else ((em - width) / em) ** 2
            total = best[start][0] + slack + _end_cost(units, end, 0.03, -0.01) + 0.05
            total += 0.5 if _is_lonely(units, start, end) else 0.0
            if end not in best or total < best[end][0]:
                best[end] = (total, start)
    ends, here = [], count
    while here:
        ends.append(here)
        here = best[here][1]
    return ends[::-1]


def ink_box(line: Line, size: int) -> Box:
    """The ink of a line whose baseline starts at (0, 0), in pixels."""
    left, top, right, bottom, at = 10**6, 10**6, -(10**6), -(10**6), 0.0
    for name, run in line.runs:
        own = run_size(name, size)
        box = _run_ink(name, run, own)
        left, right = min(left, round(at + box[0])), max(right, round(at + box[2]))
        top, bottom = min(top, round(box[1])), max(bottom, round(box[3]))
        at += font(name, own).getlength(run, language=LANGUAGE)
    return left, top, right, bottom


@lru_cache(maxsize=4096)
def _run_ink(face: str, run: str, size: int) -> tuple[float, float, float, float]:
    shape = font(face, size)
    left, top, right, bottom = shape.getbbox(run, anchor="ls", language=LANGUAGE)
    if face == "emoji" or run.isspace():
        return left, top, right, bottom
    # Pillow's box begins at the origin and ends with the advance: blank halves of punctuation are taken off here.
    before, _ = _side_bearings(face, run[0], size)
    _, behind = _side_bearings(face, run[-1], size)
    return before, top, shape.getlength(run, language=LANGUAGE) - behind, bottom


@lru_cache(maxsize=16384)
def _side_bearings(face: str, character: str, size: int) -> tuple[float, float]:
    """Blank before and behind a character's ink, in pixels."""
    shape = font(face, size)
    mask, offset = shape.getmask2(character, mode="L", anchor="ls", language=LANGUAGE)
    ink = mask.getbbox()
    if ink is None:
        return 0.0, 0.0
    return float(offset[0] + ink[0]), shape.getlength(character, language=LANGUAGE) - offset[0] - ink[2]


def run_size(face: str, size: int) -> int:
    """The font size of a run in a line of that size."""
    return round(size * _EMOJI_SCALE) if face == "emoji" else size


def draw_line(  # noqa: PLR0917 - what is drawn, where, and how
    draw: ImageDraw.ImageDraw, line: Line, left: int, baseline: int, size: int, colour: Colour
) -> None:
    """Draw a line whose baseline starts at (left, baseline)."""
    at = float(left)
    for name, run in line.runs:
        own = font(name, run_size(name, size))
        draw.text(
            (at, baseline),
            run,
            font=own,
            fill=colour,
            anchor="ls",
            language=LANGUAGE,
            embedded_color=name == "emoji",
        )
        at += own.getlength(run, language=LANGUAGE)


def one_line(text: str, face: Face) -> Line:
    """The text as a single line, however wide."""
    return Line(text, runs(text, face), em_width(text, face))
