"""What a generated picture is asked to show, and for whom: category, style and portrait, as words and as numbers.

Plain data without torch, so that orders are written by tasks that have none. No condition is ever about somebody
under 18: whoever makes one meets `refuse_minors`, and so does the training, whatever was selected before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from adloom.creative import _Row
from adloom.errors import AdloomError

MOST_INTERESTS = 256
"""Interests a generator can tell apart; the most frequent ones."""
FIELDS = ("category", "style", "age_band", "gender")


class Condition(_Row):
    """What to show (category, style) and for whom (age band, gender, interests). Empty: unknown, anybody."""

    category: str
    style: str = ""
    age_band: str = ""
    gender: str = ""
    interests: tuple[str, ...] = ()


class TrainingImage(_Row):
    """One picture to learn from. ``path``: below the folder that the training is given; ``name``: for errors."""

    path: str
    condition: Condition
    name: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.path


def age_group(age_band: str) -> str:
    """'minor', 'adult' or 'unknown', as the dbt macro ``age_group`` decides: a band that reaches below 18 is minor."""
    numbers = re.findall(r"[0-9]+", age_band)
    lowest = int(numbers[0]) if numbers else None
    below = re.search(r"^\s*(<|≤|under|below|up to)|未満|未满|以下", age_band, re.IGNORECASE)
    below_or_to = below or re.search(r"^\s*(-|to |u)", age_band, re.IGNORECASE)
    if re.search(r"minor|child|teen|未成年|少年", age_band, re.IGNORECASE):
        return "minor"
    if below_or_to and lowest is not None and lowest <= 18:
        return "minor"
    if below:
        return "unknown"
    if lowest is not None:
        return "minor" if lowest < 18 else "adult"
    return "adult" if re.search(r"adult|成人|成年", age_band, re.IGNORECASE) else "unknown"


def refuse_minors(conditions: Iterable[Condition]) -> None:
    """`AdloomError` where a condition is about somebody under 18."""
    for condition in conditions:
        if condition.age_band and age_group(condition.age_band) == "minor":
            raise AdloomError(
                f"a picture for the age band {condition.age_band!r} is asked for: nothing is made for people under 18",
                "leave the age band out, or name one from 18 on",
            )


class ConditionSpace(BaseModel):
    """The words that a generator knows, each a number; number 0 of a field stands for unknown and is taught, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: tuple[str, ...]
    style: tuple[str, ...] = ()
    age_band: tuple[str, ...] = ()
    gender: tuple[str, ...] = ()
    interests: tuple[str, ...] = ()

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> ConditionSpace:
        """Of the conditions that are learnt, sorted: the same conditions make the same space."""
        words = {name: tuple(sorted({getattr(one, name) for one in conditions} - {""})) for name in FIELDS}
        counts: dict[str, int] = {}
        for one in conditions:
            for interest in one.interests:
                counts[interest] = counts.get(interest, 0) + 1
        kept = sorted(counts, key=lambda interest: (-counts[interest], interest))[:MOST_INTERESTS]
        return cls(**words, interests=tuple(sorted(kept)))

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each of `FIELDS` has, the 0 for unknown included."""
        return tuple(len(getattr(self, name)) + 1 for name in FIELDS)

    def numbers(self, condition: Condition) -> tuple[list[int], list[float]]:
        """(a number per field, a 0 or 1 per interest). A category nobody taught is an error, anything else is unknown.

        A category or an interest that is narrower than those known counts as the one around it.
        """
        found = []
        for name in FIELDS:
            words, word = getattr(self, name), getattr(condition, name)
            if name == "category":
                word = self._known_category(word)
            found.append(words.index(word) + 1 if word in words else 0)
        liked = {around(one, self.interests) for one in condition.interests}
        return found, [float(one in liked) for one in self.interests]

    def _known_category(self, category: str) -> str:
        """The category itself, or the narrowest known one around it."""
        path = around(category, self.category)
        if not path:
            known = ", ".join(self.category[:12]) + ("…" if len(self.category) > 12 else "")
            raise AdloomError(
                f"the generator was never taught the category {category!r}; it knows {known}",
                "train it on pictures of that category, or let these items show their own photo",
            )
        return path


def around(path: str, known: Sequence[str]) -> str:
    """The category path itself, or the narrowest of ``known`` around it; empty where there is none."""
    while path and path not in known:
        path = path.rpartition("/")[0]
    return path
