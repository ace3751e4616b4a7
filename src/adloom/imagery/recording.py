"""From what was composed to rows of the ledger: finished files, and what is wrong with an image."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection

from adloom.imagery.generating import Made
from adloom.warehouse import ledger

RULES_VERSION = "1"
"""Goes up when a check of an image decides otherwise."""
RULES = "image.%"


@dataclass(frozen=True)
class RecordedImages:
    """What a day's images came to."""

    creatives: int
    images: int
    videos: int
    missing: int
    """ordered and not made"""
    blocked: int
    """creatives with a finding about an image that blocks them"""

    def __str__(self) -> str:
        return (
            f"{self.images} images and {self.videos} videos of {self.creatives} creatives, {self.missing} not made; "
            f"{self.blocked} creatives blocked"
        )


def record_images(connection: Connection, day: date, rows: Iterable[Made]) -> RecordedImages:
    """Replace the day's assets by ``rows``, and the day's findings about images by theirs."""
    assets: list[dict[str, Any]] = []
    reviews: list[dict[str, Any]] = []
    creatives, missing = set(), 0
    for row in rows:
        creatives.add(row.creative_id)
        missing += row.asset is None
        if row.asset is not None:
            assets.append(_asset(day, row))
        reviews += [_review(day, row, number) for number in range(len(row.findings))]
    ledger.replace_rows(connection, ledger.assets, {"day": day}, assets)
    known = ledger.reviews
    connection.execute(known.delete().where(known.c.day == day, known.c.rule_id.like(RULES)))
    if reviews:
        connection.execute(known.insert(), reviews)
    return RecordedImages(
        creatives=len(creatives),
        images=sum(one["kind"] == "image" for one in assets),
        videos=sum(one["kind"] == "video" for one in assets),
        missing=missing,
        blocked=len({one["creative_id"] for one in reviews if one["severity"] == "block"}),
    )


def _asset(day: date, row: Made) -> dict[str, Any]:
    assert row.asset is not None  # noqa: S101 - for the type checker
    own = row.asset.model_dump()
    return own | {
        "digest": own.pop("sha256"),
        "creative_id": row.creative_id,
        "format": row.format,
        "day": day,
        "checks": json.dumps(own["checks"], sort_keys=True, ensure_ascii=False),
    }


def _review(day: date, row: Made, number: int) -> dict[str, Any]:
    finding = row.findings[number]
    return {
        "creative_id": row.creative_id,
        "creative_hash": row.creative_hash,
        "day": day,
        "rule_id": finding.rule_id,
        "rule_version": RULES_VERSION,
        "part": row.format,
        "span": finding.span,
        "severity": finding.severity,
        "reason": finding.reason,
    }
