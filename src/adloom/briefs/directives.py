"""Which of the day's directives a brief is given: those of its scope that pass the review, a person's first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from sqlalchemy import Connection, Row, select

from adloom.briefs.describing import clean
from adloom.briefs.scenarios import Candidate
from adloom.copywriting.prompts import MOST_DIRECTIVES
from adloom.creative import ItemFacts
from adloom.review.safety import text_unsafe
from adloom.shop import Shop
from adloom.warehouse import ledger

MOST_VARIANTS = 50
"""`creative.Brief` takes no more."""


@dataclass
class Directives:
    """The day's directives as they may be used, in their order, and what came of them."""

    usual_variants: int
    rows: list[Row[Any]] = field(default_factory=list)
    refused: list[tuple[Row[Any], str]] = field(default_factory=list)
    """(directive, why it is in no brief)"""
    given: Counter[str] = field(default_factory=Counter)
    """directive_id → briefs that have it"""
    crowded: Counter[str] = field(default_factory=Counter)
    """directive_id → briefs that had no room for it"""

    def _of(self, candidate: Candidate) -> Iterator[Row[Any]]:
        """Those for such a brief, whatever its item."""
        own = (candidate.language, candidate.scenario, candidate.channel, candidate.segment.segment_id)
        for row in self.rows:
            scope = (row.language, row.scenario, row.channel, row.segment_id)
            if all(wanted is None or wanted == one for wanted, one in zip(scope, own, strict=True)):
                yield row

    def variants(self, candidate: Candidate) -> int:
        """How many copies such a brief is to have."""
        more = max((row.more_variants for row in self._of(candidate)), default=0)
        return min(MOST_VARIANTS, self.usual_variants + more)

    def asked(self, candidate: Candidate, item: ItemFacts) -> list[Row[Any]]:
        """Those that the brief about ``item`` has; what it has no room for is counted."""
        found = [
            row
            for row in self._of(candidate)
            if (row.category is None or row.category == item.category)
            and (row.attribute is None or row.attribute in item.attributes)
        ]
        self.given.update(row.directive_id for row in found[:MOST_DIRECTIVES])
        self.crowded.update(row.directive_id for row in found[MOST_DIRECTIVES:])
        return found[:MOST_DIRECTIVES]

    def notes(self) -> Iterator[str]:
        """What a person should know: orders of theirs that are in no brief or found no room in some."""
        given, crowded = Counter[str](), Counter[str]()
        orders = [row for row in self.rows if row.kind == "person"]
        for row in orders:
            given[row.words] += self.given[row.directive_id]
            crowded[row.words] += self.crowded[row.directive_id]
        for words in dict.fromkeys(row.words for row in orders):
            if not given[words]:
                yield f"directive in no brief: {words}"
            elif crowded[words]:
                yield f"directive without room in {crowded[words]:,} briefs, which have {MOST_DIRECTIVES}: {words}"


def read_directives(connection: Connection, shop: Shop, day: date) -> Directives:
    """The directives that `adjust` recorded for ``day``.

    They quote catalogue, copy and a person, so they pass what copy passes: nothing of a person, nothing that is meant
    for a model, nothing vulgar.
    """
    t = ledger.directives
    found = Directives(shop.copywriting.variants_per_brief)
    for row in connection.execute(select(t).where(t.c.day == day).order_by(t.c.position)):
        unsafe = text_unsafe(row.words, row.language, allowed=shop.review.allowed_words)
        blocking = [one for one in unsafe if one.severity == "block"]
        if not clean(row.words):
            found.refused.append((row, "holds nothing that can be read"))
        elif blocking:
            found.refused.append((row, f"{blocking[0].rule_id}: {blocking[0].reason}"))
        else:
            found.rows.append(row)
    return found
