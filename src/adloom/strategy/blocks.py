"""Creatives that may not be shown in a placement, because of whom they were shown to.

The audit that finds them reads gender and age (`adloom.evaluation.fairness`); nothing of that comes here but which
creative has to leave which placement, from which day on, and the sentence that says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, select

from adloom.warehouse import ledger

PlacedCreative = tuple[str, str]
"""(placement, creative_id)"""


@dataclass(frozen=True)
class Block:
    """Plans made on ``since`` or later leave the creative out."""

    since: date
    sentence: str


def known_blocks(connection: Connection, day: date) -> dict[PlacedCreative, Block]:
    """The blocks that the evaluation of ``day`` found."""
    t = ledger.allocation_blocks.c
    query = select(t.placement, t.creative_id, t.blocked_since, t.sentence).where(t.day == day)
    return {
        (placement, creative_id): Block(since, sentence)
        for placement, creative_id, since, sentence in connection.execute(query)
    }


def blocked_on(blocks: Mapping[PlacedCreative, Block], day: date) -> frozenset[PlacedCreative]:
    """Those that a plan made on ``day`` leaves out."""
    return frozenset(key for key, block in blocks.items() if block.since <= day)
