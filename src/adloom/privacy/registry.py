"""Who asked for what, and what became of it: the one place that still knows a user after the erasure.

``adloom.privacy_registry`` is private (in no snapshot) and holds keyed hashes only. Its ``receipt`` is a random number:
it proves to the person that the request was dealt with, and says nothing of who the person is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, and_, exists, select, text, update

from adloom.warehouse import ledger

ERASE = "erase"


@dataclass(frozen=True)
class Request:
    """One request of one user; ``requested_at`` in UTC."""

    user_hash: str
    kind: str
    """erase | opt_out | opt_in"""
    requested_at: datetime
    known_date: date
    receipt: str


def register(connection: Connection, day: date) -> list[Request]:
    """Enter every request that landed by ``day`` and is not entered yet; returns those that are new."""
    registry = ledger.privacy_registry
    landed = connection.execute(
        text(
            "select user_hash, kind, requested_at, min(known_date) as known_date from raw.privacy_requests "
            "where known_date <= :day group by all order by known_date, requested_at, user_hash, kind"
        ),
        {"day": day},
    ).all()
    known = {
        (row.user_hash, row.kind, row.requested_at)
        for row in connection.execute(select(registry.c.user_hash, registry.c.kind, registry.c.requested_at))
    }
    fresh = [
        Request(row.user_hash, row.kind, row.requested_at, row.known_date, secrets.token_hex(8))
        for row in landed
        if (row.user_hash, row.kind, row.requested_at) not in known
    ]
    if fresh:
        connection.execute(
            registry.insert(),
            [
                {
                    "user_hash": one.user_hash,
                    "kind": one.kind,
                    "requested_at": one.requested_at,
                    "known_date": one.known_date,
                    "receipt": one.receipt,
                    "completed_on": None,
                }
                for one in fresh
            ],
        )
    return fresh


def open_requests(connection: Connection) -> list[Request]:
    """Requests without an end: new ones, and those of a run that was cut off; oldest first."""
    registry = ledger.privacy_registry
    rows = connection.execute(
        select(registry).where(registry.c.completed_on.is_(None)).order_by(registry.c.known_date, registry.c.receipt)
    )
    return [Request(row.user_hash, row.kind, row.requested_at, row.known_date, row.receipt) for row in rows]


def reopen(connection: Connection) -> int:
    """Open erasures again whose user is back in raw: an old file was delivered once more. Returns how many."""
    registry = ledger.privacy_registry
    returned = [
        exists(
            select(text("1"))
            .select_from(text(f"raw.{table}"))
            .where(
                text(f"raw.{table}.user_hash = adloom.privacy_registry.user_hash"),
                text(f"raw.{table}.{time} <= adloom.privacy_registry.{limit}"),
            )
        )
        for table, time, limit in (
            ("ad_events", "occurred_at", "requested_at"),
            ("behaviours", "occurred_at", "requested_at"),
            ("users", "known_date", "known_date"),
            ("privacy_requests", "requested_at", "requested_at"),
        )
    ]
    count = 0
    for one in returned:
        found = connection.execute(
            update(registry)
            .where(and_(registry.c.kind == ERASE, registry.c.completed_on.is_not(None), one))
            .values(completed_on=None)
        )
        count += max(0, found.rowcount)
    return count


def close(connection: Connection, requests: Sequence[Request], day: date) -> None:
    """Note that the requests were dealt with by the run of ``day``: one receipt each."""
    registry, receipts = ledger.privacy_registry, ledger.privacy_receipts
    for one in requests:
        own = registry.c.receipt == one.receipt
        connection.execute(update(registry).where(own).values(completed_on=day))
        row = {"receipt": one.receipt, "kind": one.kind, "known_date": one.known_date, "completed_on": day}
        ledger.replace_rows(connection, receipts, {"receipt": one.receipt}, [row])


def learnt_for(connection: Connection, requests: Sequence[Request], day: date) -> dict[str, date]:
    """creative_id → ``day``, of copies written for a segment while a user to be erased was counted in it.

    Such a copy knows the segment's words and no user; a model that learnt from it is trained anew all the same.
    """
    people, creatives = ledger.user_portraits, ledger.creatives
    hashes = sorted({one.user_hash for one in requests if one.kind == ERASE})
    counted = (
        select(creatives.c.creative_id)
        .join(people, and_(people.c.day == creatives.c.day, people.c.counted_in == creatives.c.segment_id))
        .where(people.c.user_hash.in_(hashes), creatives.c.segment_id.not_in(("all", "not_personalised")))
        .distinct()
    )
    return dict.fromkeys(connection.scalars(counted), day) if hashes else {}
