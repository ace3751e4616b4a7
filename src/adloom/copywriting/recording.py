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
from adloom.review import Finding, read_evidence, review_copy, similarity
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

    def __str__(self) -> str:
        return (
            f"{self.briefs} briefs: {self.copies} copies, {self.refused} refused; "
            f"{self.findings} findings, {self.blocked} copies blocked"
        )


def record_creatives(connection: Connection, day: date, rows: Iterable[Generated], shop: Shop) -> Recorded:
    """Replace the day's creatives by ``rows``, and the day's reviews by what every room of the review finds in them."""
    creatives: list[dict[str, Any]] = []
    reviews: list[dict[str, Any]] = []
    for some in _batches(rows):
        items = {row.brief.item.item_id for row in some}
        evidence = read_evidence(connection, shop, day, items)
        for row in some:
            creative = _creative(day, row)
            creatives.append(creative)
            if row.copy_ is not None:
                reviews += _reviews(creative, review_copy(row.copy_, row.brief, shop, evidence[row.brief.item.item_id]))
    ledger.replace_rows(connection, ledger.creatives, {"day": day}, creatives)
    ledger.replace_rows(connection, ledger.reviews, {"day": day}, reviews)
    reviews += similarity.review_day(connection, shop, day)
    written = sum(one["headline"] is not None for one in creatives)
    return Recorded(
        briefs=len({one["brief_id"] for one in creatives}),
        copies=written,
        refused=len(creatives) - written,
        findings=len(reviews),
        blocked=len({one["creative_id"] for one in reviews if one["severity"] == "block"}),
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
    told = set()
    # The same words twice in a part are one finding: the one that blocks, if the other is exempted where it stands.
    for finding in sorted(findings, key=lambda one: one.severity != "block"):
        key = finding.rule_id, finding.part, finding.span
        if key in told:
            continue
        told.add(key)
        yield {
            "creative_id": creative["creative_id"],
            "creative_hash": creative["creative_hash"],
            "day": creative["day"],
            "rule_id": finding.rule_id,
            "rule_version": finding.rule_version,
            "part": finding.part,
            "span": finding.span,
            "severity": finding.severity,
            "reason": finding.reason,
        }
