"""Which creatives may be shown: what people decided, and what was running before anyone was asked."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta

from sqlalchemy import Connection, and_, select, text

from adloom.warehouse import ledger

MADE_ELSEWHERE = ""
"""Hash of a creative that came from outside: there is no content of ours to hash."""


def record_external(connection: Connection, day: date) -> None:
    """Give every creative first seen in ad_events by ``day`` an approval of origin ``external``.

    Decided on the day it was first known; what a person decided is left alone and outranks it (`approved`).
    """
    approvals = ledger.approvals
    known = text("select creative_id, min(known_date) from marts.dim_creatives where known_date <= :day group by all")
    wanted: dict[str, date] = {row[0]: row[1] for row in connection.execute(known, {"day": day})}
    external = select(approvals.c.creative_id, approvals.c.decided_on).where(approvals.c.origin == "external")
    recorded: dict[str, date] = {row[0]: row[1] for row in connection.execute(external)}
    # A later day's row stays, unless its creative turns out to have been known before.
    wrong = [
        creative
        for creative, decided in recorded.items()
        if wanted.get(creative, None if decided <= day else decided) != decided
    ]
    for creative in wrong:
        connection.execute(
            approvals.delete().where(and_(approvals.c.origin == "external", approvals.c.creative_id == creative))
        )
    rows = [
        {
            "creative_id": creative,
            "creative_hash": MADE_ELSEWHERE,
            "decision": "approved",
            "origin": "external",
            "decided_on": seen,
            "decided_by": None,
            "reason": f"already running when first seen on {seen}",
        }
        for creative, seen in sorted(wanted.items())
        if recorded.get(creative) != seen
    ]
    if rows:
        connection.execute(approvals.insert(), rows)


def approved(connection: Connection, day: date, *, as_of_day: bool = False) -> frozenset[str]:
    """Creatives that a plan made for the day after ``day`` may show.

    A creative follows its latest decision, on the same day a rejection first; a person's word outranks ``external``.
    An approval counts from the day it was given. A rejection counts for every plan made after it is recorded,
    whatever the plan's day: a backfill must not bring back what a person took out. With ``as_of_day`` such later
    rejections are left out too: then the answer never changes again.
    """
    approvals = ledger.approvals
    query = select(approvals.c.creative_id, approvals.c.decision, approvals.c.origin, approvals.c.decided_on)
    latest: dict[str, tuple[bool, date, bool]] = {}
    for creative, decision, origin, decided_on in connection.execute(query):
        is_rejection = decision != "approved"
        if decided_on <= day + timedelta(days=1) or (is_rejection and not as_of_day):
            rank = (origin == "person", decided_on, is_rejection)
            latest[creative] = max(rank, latest.get(creative, rank))
    return frozenset(creative for creative, (_, _, is_rejection) in latest.items() if not is_rejection)


def unapproved(connection: Connection, day: date, creatives: Iterable[str]) -> list[str]:
    """Those of ``creatives`` that a plan of ``day`` must not show, sorted."""
    return sorted(set(creatives) - approved(connection, day))
