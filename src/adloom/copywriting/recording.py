"""From the files a GPU task left to rows of the ledger: creatives, what a review found in them, trained models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from adloom.copywriting import handover, registry
from adloom.copywriting.generating import Generated
from adloom.copywriting.pairs import origins
from adloom.creative import Copy, Pair, read_rows
from adloom.errors import AdloomError
from adloom.review import Evidence, Finding, read_evidence, review_copy, similarity
from adloom.shop import Shop
from adloom.warehouse import ledger

# Rows reviewed together: one look into the warehouse for the evidence of so many.
BATCH = 1000


@dataclass(frozen=True)
class Recorded:
    """What a day's creatives came to."""

    briefs: int
    copies: int
    refused: int
    findings: int
    blocked: int
    """copies with a finding that blocks them"""
    candidates: int = 0
    stopped: int = 0
    """candidates that a review kept from being chosen"""
    kept: int = 0
    """those of them whose text is kept with its findings"""

    def __str__(self) -> str:
        return (
            f"{self.briefs} briefs: {self.copies} copies, {self.refused} refused; "
            f"{self.findings} findings, {self.blocked} copies blocked; "
            f"{self.stopped} of {self.candidates} candidates stopped by a review, {self.kept} of them kept to be read"
        )


def record_creatives(connection: Connection, day: date, rows: Iterable[Generated], shop: Shop) -> Recorded:
    """Replace the day's creatives by ``rows``, and the day's reviews by what every room of the review finds in them.

    Replaced as well: what the review finds in the candidates that it kept from being chosen, and how many these were.
    """
    creatives: list[dict[str, Any]] = []
    reviews: list[dict[str, Any]] = []
    stopped: list[dict[str, Any]] = []
    counts: list[dict[str, Any]] = []
    candidates = kept = 0
    for some in _batches(rows):
        items = {row.brief.item.item_id for row in some}
        evidence = read_evidence(connection, shop, day, items)
        for row in some:
            creative = _creative(day, row)
            creatives.append(creative)
            if row.copy_ is not None:
                reviews += _reviews(creative, review_copy(row.copy_, row.brief, shop, evidence[row.brief.item.item_id]))
            if row.variant == 0:
                candidates, kept = candidates + row.candidates, kept + len(row.stopped)
                counts += _counts(day, row)
                stopped += _stopped(day, row, shop, evidence[row.brief.item.item_id])
    ledger.replace_rows(connection, ledger.creatives, {"day": day}, creatives)
    ledger.replace_rows(connection, ledger.reviews, {"day": day}, reviews)
    ledger.replace_rows(connection, ledger.stopped_copies, {"day": day}, stopped)
    ledger.replace_rows(connection, ledger.stopped_counts, {"day": day}, counts)
    reviews += similarity.review_day(connection, shop, day)
    written = sum(one["headline"] is not None for one in creatives)
    return Recorded(
        briefs=len({one["brief_id"] for one in creatives}),
        copies=written,
        refused=len(creatives) - written,
        findings=len(reviews),
        blocked=len({one["creative_id"] for one in reviews if one["severity"] == "block"}),
        candidates=candidates,
        stopped=sum(one["candidates"] for one in counts),
        kept=kept,
    )


def content_hash(copy: Copy | None) -> str:
    """What an approval is bound to: 16 hex digits over what a reader sees; of a refused one that of nothing."""
    return hashlib.sha256(b"").hexdigest()[:16] if copy is None else copy.digest


def record_model(connection: Connection, shop: Shop, day: date) -> str:
    """Store the model that was trained on ``day`` and let it write if it is better; returns what was decided."""
    order = handover.training_order(shop, day)
    if order.reason_to_skip:
        raise AdloomError(f"no model was trained on {day}: {order.reason_to_skip}", "nothing is to be recorded")
    from adloom.copywriting.training import read_result

    result = read_result(shop.models / order.folder)
    learnt = origins(read_rows(handover.folder_of(shop, day) / handover.PAIRS, Pair))
    registry.record(connection, day, result, learnt, shop.models)
    return registry.promote_if_better(connection, result.model_id, day)


def _creative(day: date, row: Generated) -> dict[str, Any]:
    brief, copy = row.brief, row.copy_
    return {
        "creative_id": row.creative_id,
        "creative_hash": content_hash(copy),
        "day": day,
        "brief_id": brief.brief_id,
        "variant": row.variant,
        "scenario": brief.scenario,
        "language": brief.language,
        "channel": brief.channel,
        "segment_id": brief.segment_id,
        "item_id": brief.item.item_id,
        "campaign_id": brief.offer.campaign_id if brief.offer else None,
        "event_id": brief.event.event_id if brief.event else None,
        "headline": copy.headline if copy else None,
        "body": copy.body if copy else None,
        "call_to_action": copy.call_to_action if copy else None,
        "hashtags": json.dumps(copy.hashtags, ensure_ascii=False) if copy else None,
        "refused_reason": row.refused_reason,
        "candidates": row.candidates,
        "candidates_parsed": row.candidates_parsed,
        "scores": json.dumps(row.scores, sort_keys=True),
        "model_id": row.model_id,
        "prompt_digest": row.prompt_digest,
        "seed": row.seed,
    }


def _batches(rows: Iterable[Generated]) -> Iterator[list[Generated]]:
    stream = iter(rows)
    while some := list(islice(stream, BATCH)):
        yield some


def _reviews(creative: dict[str, Any], findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    about = {name: creative[name] for name in ("creative_id", "creative_hash", "day")}
    return (about | told for told in _told(findings))


def _counts(day: date, row: Generated) -> Iterator[dict[str, Any]]:
    for rule_id, count in row.stopped_by.items():
        yield {"day": day, "brief_id": row.brief.brief_id, "rule_id": rule_id, "candidates": count}


def _stopped(day: date, row: Generated, shop: Shop, evidence: Evidence) -> Iterator[dict[str, Any]]:
    """A row per finding in each candidate that was kept from being chosen."""
    brief = row.brief
    for position, one in enumerate(row.stopped):
        copy = one.copy_
        about = {
            "day": day,
            "brief_id": brief.brief_id,
            "position": position,
            "scenario": brief.scenario,
            "language": brief.language,
            "channel": brief.channel,
            "segment_id": brief.segment_id,
            "item_id": brief.item.item_id,
            "headline": copy.headline,
            "body": copy.body,
            "call_to_action": copy.call_to_action,
            "hashtags": json.dumps(copy.hashtags, ensure_ascii=False),
            "model_id": row.model_id,
            "stopped_by": one.rule_id,
        }
        told = list(_told(review_copy(copy, brief, shop, evidence)))
        if not any(finding["rule_id"] == one.rule_id for finding in told):
            # Written under other rules than those of now: what it was stopped for then still belongs to it.
            then = Finding(one.rule_id, "body", "", "block", one.fault, rule_version="before")
            told += _told([then])
        yield from (about | finding for finding in told)


def _told(findings: Iterable[Finding]) -> Iterator[dict[str, Any]]:
    told = set()
    # The same words twice in a part are one finding: the one that blocks, if the other is exempted where it stands.
    for finding in sorted(findings, key=lambda one: one.severity != "block"):
        key = finding.rule_id, finding.part, finding.span
        if key in told:
            continue
        told.add(key)
        yield {
            "rule_id": finding.rule_id,
            "rule_version": finding.rule_version,
            "part": finding.part,
            "span": finding.span,
            "severity": finding.severity,
            "reason": finding.reason,
        }
