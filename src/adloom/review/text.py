"""Text as rules read it: one spelling for what a reader takes as the same, with the way back to the original."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

# Format characters are invisible: a rule must not be evaded by one between two letters.
INVISIBLE = {"Cf", "Cc", "Mn"}
SPACES = {"Zs", "Zl", "Zp"}


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
    return Plain(original, "".join(characters), tuple(origins))


def squeezed(original: str) -> str:
    """Normalised and without spaces: how values are compared that may be written with or without them."""
    return re.sub(r"\s+", "", plain(original).text)


@cache
def _plain_character(character: str) -> str:
    if character in "\n\t\r":
        return "\n" if character == "\n" else " "
    category = unicodedata.category(character)
    if category in INVISIBLE:
        return ""
    if category in SPACES:
        return " "
    kept = "".join(
        one for one in unicodedata.normalize("NFKC", character) if unicodedata.category(one) not in INVISIBLE
    )
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
