"""Text as rules read it: one spelling for what a reader takes as the same, with the way back to the original."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

# Format characters are invisible: a rule must not be evaded by one between two letters.
INVISIBLE = {"Cf", "Cc", "Mn", "Me"}
TYPOGRAPHIC = str.maketrans({**dict.fromkeys("‘’ʼ′＇", "'"), **dict.fromkeys("‐‑‒–−", "-")})
SPACES = {"Zs", "Zl", "Zp"}
# Letters and signs by category that show nothing.
BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# Cyrillic and Greek letters that look like Latin ones; beside a Latin letter they stand in for it.
LOOK_ALIKES = str.maketrans("авеёкмнорстухіјѕԁһӏαεικνορτυχ", "abeekmhopctyxijsdhlaeikvoptux")
NO_LATIN = re.compile(f"[{''.join(map(chr, LOOK_ALIKES))}]+")
CLAUSE_ENDS = ",。!?;:、\n"
# b e s t, b.e.s.t: letters one by one.
SPELLED = re.compile(r"(?<![a-z0-9])[a-z](?:[^a-z0-9\n,;:!?]{1,3}[a-z])+(?![a-z0-9])")
HAN_OR_DIGIT = re.compile(r"[\u3400-\u9fff0-9%]")


@dataclass(frozen=True)
class Plain:
    """Normalised text; ``origins[i]`` is the place in ``original`` that character i came from."""

    original: str
    text: str
    origins: tuple[int, ...]

    def span(self, start: int, end: int) -> str:
        """The original characters behind the normalised ones from ``start`` up to ``end``."""
        if start >= end:
            return ""
        return self.original[self.origins[start] : self.origins[end - 1] + 1]


def plain(original: str) -> Plain:
    """Full-width to half-width, traditional to simplified, lower case, no invisible characters or accents' marks."""
    characters: list[str] = []
    origins: list[int] = []
    for place, character in enumerate(original):
        for one in _plain_character(character):
            characters.append(one)
            origins.append(place)
    return Plain(original, _latin(characters), tuple(origins))


def _latin(characters: list[str]) -> str:
    """One word in two alphabets is a disguise; one in Cyrillic or Greek alone is what it is."""
    text = "".join(characters)
    if not NO_LATIN.search(text):
        return text
    return re.sub(
        r"[^\W\d_]+", lambda word: word[0].translate(LOOK_ALIKES) if re.search("[a-z]", word[0]) else word[0], text
    )


def closed(text: Plain, *, across_clauses: bool = False) -> Plain:
    """Without what stands between letters: 最 佳, 最*佳 and 最-佳 read 最佳; English words keep their spaces.

    Punctuation that ends a clause stays, unless ``across_clauses``.
    """
    kept = []
    for place, one in enumerate(text.text):
        if one.isalnum() or one == "%" or (one in CLAUSE_ENDS and not across_clauses) or _parts_words(text.text, place):
            kept.append(place)
    return _only(text, kept)


def spelled_together(text: Plain) -> Plain:
    """Without what stands between letters that are written one by one: b.e.s.t reads best."""
    gaps = {
        place
        for match in SPELLED.finditer(text.text)
        for place in range(*match.span())
        if not text.text[place].isalpha()
    }
    return _only(text, [place for place in range(len(text.text)) if place not in gaps])


def with_stand_ins(text: Plain, stand_ins: Mapping[str, str]) -> Plain:
    """Letters that are written in place of others, read as those others: 蕞 reads 最."""
    if not stand_ins:
        return text
    characters: list[str] = []
    origins: list[int] = []
    done = 0
    for match in re.finditer("|".join(map(re.escape, sorted(stand_ins, key=len, reverse=True))), text.text):
        characters += text.text[done : match.start()]
        origins += text.origins[done : match.start()]
        read = stand_ins[match[0]]
        characters += read
        origins += [text.origins[match.start()]] * len(read)
        done = match.end()
    characters += text.text[done:]
    origins += text.origins[done:]
    return Plain(text.original, "".join(characters), tuple(origins))


def _only(text: Plain, places: list[int]) -> Plain:
    return Plain(text.original, "".join(text.text[one] for one in places), tuple(text.origins[one] for one in places))


def _parts_words(text: str, place: int) -> bool:
    """Is it a space between two Latin words, or a point within a number?"""
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if text[place] == " ":
        return bool(before and after) and not (HAN_OR_DIGIT.match(before) or HAN_OR_DIGIT.match(after))
    return text[place] == "." and before.isdigit() and after.isdigit()


def squeezed(original: str) -> str:
    """Normalised and without spaces: how values are compared that may be written with or without them."""
    return re.sub(r"\s+", "", plain(original).text)


@cache
def _plain_character(character: str) -> str:
    if character in "\n\t\r":
        return "\n" if character == "\n" else " "
    category = unicodedata.category(character)
    if category in INVISIBLE or character in BLANKS:
        return ""
    if category in SPACES:
        return " "
    normal = unicodedata.normalize("NFKC", character).translate(TYPOGRAPHIC)
    if any("LATIN" in unicodedata.name(one, "") for one in normal):
        normal = unicodedata.normalize("NFKD", normal)
    kept = "".join(one for one in normal if unicodedata.category(one) not in INVISIBLE)
    return "".join(_simplified(one) for one in kept).lower()


def _simplified(character: str) -> str:
    if not "\u3400" <= character <= "\u9fff":
        return character
    found = str(_converter().convert(character))
    # One for one, so that places stay what they are.
    return found if len(found) == 1 else character


@cache
def _converter():  # type: ignore[no-untyped-def]
    import opencc

    return opencc.OpenCC("t2s")
