"""Which copies a model may learn from: those a person approved, that no review blocks and nobody asked to forget.

The selection says why each of the others was left out, and `write_training`, the only writer of a training file, asks
the ledger again about every pair it is given.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, exists, select

from adloom.copywriting import registry
from adloom.copywriting.prompts import completion, prompt, prompt_versions
from adloom.copywriting.starter import ORIGIN as STARTER
from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, Language, Pair, write_rows
from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.strategy.approvals import APPROVED, POLICY, Decisions
from adloom.warehouse import ledger

if TYPE_CHECKING:
    from adloom.copywriting.training import TrainingText

LATER = "known only later"
UNAPPROVED = "not approved"
REJECTED = "rejected"
BLOCKED = "blocked by a review"
ERASED = "erased"
NO_BRIEF = "its brief is gone"


@dataclass(frozen=True)
class Selection:
    """What may be learnt from as of a day."""

    pairs: list[Pair]
    refused: dict[str, int]
    """reason → copies left out"""
    new: int
    """pairs that no model trained before that day has learnt from"""
    must_retrain: bool
    """the live model has learnt from something that was erased since"""

    def reason_to_skip(self, min_new_pairs: int) -> str | None:
        """Why a training is not worth it, in words; None: train."""
        if self.must_retrain or (self.pairs and self.new >= max(1, min_new_pairs)):
            return None
        return f"{self.new} newly approved pairs, fewer than copywriting.fine_tuning.min_new_pairs = {min_new_pairs}"


def training_pairs(connection: Connection, shop: Shop, day: date) -> Selection:
    """Starter pairs of the shop's languages, and the approved copies known by the end of ``day``; in a fixed order."""
    judge = _Judge(connection, shop, day)
    pairs: list[Pair] = []
    refused: Counter[str] = Counter()
    for pair in judge.starter:
        if judge.is_erased(STARTER, pair.brief.item.item_id):
            refused[ERASED] += 1
        else:
            pairs.append(pair)
    for creative in judge.creatives.values():
        reason = judge.refusal(creative)
        if reason is None:
            pairs.append(judge.pair(creative))
        else:
            refused[reason] += 1
    if judge.undecided:
        refused[UNAPPROVED] += judge.undecided
    before = [
        row
        for row in registry.all_models(connection)
        # Strictly before: the day run again finds the pairs as new as the first time. A candidate that was not
        # promoted, or was rolled back, counts: the same pairs would only make the same model again.
        if row.day < day and is_same_base(row.base, shop.copywriting.model)
    ]
    learnt = registry.learnt_from(connection, before)
    counts = Counter(pair.origin for pair in pairs)
    new = sum(max(0, count - learnt.get(origin, 0)) for origin, count in counts.items())
    live = registry.live_model(connection, day)
    must_retrain = live is not None and bool(
        set(registry.learnt_from(connection, [live])) & set(registry.erased_origins(connection))
    )
    return Selection(pairs, dict(sorted(refused.items())), new, must_retrain)


def assert_allowed(connection: Connection, shop: Shop, day: date, pairs: Iterable[Pair]) -> None:
    """`AdloomError` that names the first of ``pairs`` that must not be learnt from on ``day``, and why."""
    judge = _Judge(connection, shop, day)
    starter = {pair.digest for pair in judge.starter}
    for pair in pairs:
        item = pair.brief.item.item_id
        if pair.origin == STARTER:
            reason = ERASED if judge.is_erased(STARTER, item) else None
            reason = reason if pair.digest in starter else "not in the starter corpus"
        elif pair.origin not in judge.creatives:
            reason = UNAPPROVED
        else:
            creative = judge.creatives[pair.origin]
            reason = judge.refusal(creative)
            if reason is None and pair != judge.pair(creative):
                reason = "not the copy that was approved"
        if reason is not None:
            raise AdloomError(
                f"training refused: the copy of {pair.origin} (item {item}): {reason}",
                "train on what training_pairs selects",
            )


def write_training(connection: Connection, shop: Shop, day: date, path: Path, pairs: Sequence[Pair]) -> int:
    """Write the file that `fine_tune` is fed from, after `assert_allowed`; returns the number of pairs."""
    assert_allowed(connection, shop, day, pairs)
    return write_rows(path, pairs)


def training_texts(
    pairs: Iterable[Pair], voices: Mapping[Language, Sequence[str]] = MappingProxyType({})
) -> list[TrainingText]:
    """The pairs as a model reads and writes them; an item is one group. ``voices``: of shops there may be."""
    from adloom.copywriting.training import TrainingText

    return [
        TrainingText(
            prompt=prompt(one.brief),
            completion=completion(one.copy_, one.brief.language),
            group=one.brief.item.item_id,
            versions=prompt_versions(one.brief, one.copy_, voices.get(one.brief.language, ())),
        )
        for one in pairs
    ]


def origins(pairs: Iterable[Pair]) -> dict[str, int]:
    """Origin → pairs, as `registry.record` keeps it."""
    return dict(sorted(Counter(pair.origin for pair in pairs).items()))


class _Judge:
    """What the ledger says of every copy that somebody decided about, read once."""

    def __init__(self, connection: Connection, shop: Shop, day: date) -> None:
        creatives, briefs, reviews, approvals = ledger.creatives, ledger.briefs, ledger.reviews, ledger.approvals
        self.day = day
        self._decisions = Decisions(connection)
        written = creatives.c.headline.is_not(None)
        decided = exists().where(approvals.c.creative_id == creatives.c.creative_id)
        self.creatives = {
            row.creative_id: row
            for row in connection.execute(
                select(creatives).where(written, decided).order_by(creatives.c.day, creatives.c.creative_id)
            )
            if self._decisions.about_content(row.creative_id)
        }
        self.undecided = len(self._decisions.contents) - len(self.creatives)
        needed = select(creatives.c.brief_id).where(written, decided)
        contents = select(briefs.c.brief_id, briefs.c.content).where(briefs.c.brief_id.in_(needed))
        self._briefs = {row.brief_id: row.content for row in connection.execute(contents)}
        blocking = select(reviews.c.creative_id, reviews.c.creative_hash).where(reviews.c.severity == "block")
        self._blocked = {tuple(row) for row in connection.execute(blocking)}
        self._erased = {(row.kind, row.subject) for row in connection.execute(select(ledger.erasures))}
        self.starter = [pair for language in shop.languages for pair in starter_pairs(language, shop.voice(language))]

    def refusal(self, creative: Row[Any]) -> str | None:
        """Why the copy must not be learnt from; None: it may. Later words count against a copy, never for it."""
        key = (creative.creative_id, creative.creative_hash)
        if self.is_erased(creative.creative_id, creative.item_id):
            return ERASED
        if key in self._blocked:
            return BLOCKED
        decision = self._decisions.standing(creative.creative_id, self.day)
        # Asks about other content of the same creative too: what was refused in other words is not learnt from.
        if self._decisions.is_rejected_otherwise(creative.creative_id) or (decision and decision.decision != APPROVED):
            return REJECTED
        if decision is None or creative.day > self.day or decision.decided_on > self.day:
            return LATER
        # What the shop's policy let through was read by nobody: a model must not become its own teacher.
        if decision.origin == POLICY:
            return UNAPPROVED
        return None if creative.brief_id in self._briefs else NO_BRIEF

    def is_erased(self, creative_id: str, item_id: str) -> bool:
        return ("creative", creative_id) in self._erased or ("item", item_id) in self._erased

    def pair(self, creative: Row[Any]) -> Pair:
        return Pair(
            brief=Brief.model_validate_json(self._briefs[creative.brief_id]),
            copy=Copy(
                headline=creative.headline,
                body=creative.body,
                call_to_action=creative.call_to_action,
                hashtags=tuple(json.loads(creative.hashtags or "[]")),
            ),
            origin=creative.creative_id,
        )


def is_same_base(base: str, setting: str) -> bool:
    """Is ``base`` (of a models row) what the shop's setting means? A hub's base has its revision besides."""
    return base == setting or base.startswith(f"{setting}@")
