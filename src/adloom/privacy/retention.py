"""How long anything about a person is kept. Raw and landing go first, what describes users next, aggregates stay.

A purged day keeps its marts and is never rebuilt: neither a changed model nor a late delivery touches it.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection, select, text, update

from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.contract import TABLES
from adloom.warehouse.landing import landed_days

log = logging.getLogger(__name__)

FEATURES = (
    ("marts", "fct_behaviours_daily", "known_date"),
    ("intermediate", "int_users__interests", "known_date"),
    ("intermediate", "int_users__profiled", "known_date"),
    ("adloom", "user_portraits", "day"),
)
"""(schema, table, day): rows that describe a user."""


@dataclass(frozen=True)
class Purged:
    """What was older than it may get."""

    known_dates: tuple[date, ...] = ()
    """whose raw rows and landing folders are gone now"""
    feature_rows: int = 0
    waiting: tuple[date, ...] = ()
    """too old, but kept: their marts are not built yet"""

    def __str__(self) -> str:
        words = (
            f"{len(self.known_dates)} days of raw and landing purged, {self.feature_rows:,} rows about users deleted"
        )
        return words + (f"; {len(self.waiting)} wait until their marts are built" if self.waiting else "")


def purge(shop: Shop, connection: Connection, day: date, pending: frozenset[date]) -> Purged:
    """Delete what is older than the shop's ``retention`` as of ``day``; ``pending``: days whose marts are not built.

    The note that a day is purged is committed by the caller before its folders go (`remove_folders`).
    """
    days = ledger.landing_days
    boundary = day - timedelta(days=shop.retention.raw_days)
    old = list(
        connection.scalars(
            select(days.c.known_date)
            .where(days.c.known_date < boundary, days.c.manifest_digest != "")
            .order_by("known_date")
        )
    )
    already = set(connection.scalars(select(days.c.known_date).where(days.c.purged_on.is_not(None))))
    due = tuple(one for one in old if one not in already and one not in pending)
    for known_date in due:
        for table in TABLES:
            connection.execute(text(f"delete from raw.{table} where known_date = :day"), {"day": known_date})  # noqa: S608
        connection.execute(update(days).where(days.c.known_date == known_date).values(purged_on=day))
    rows = 0
    for schema, table, column in FEATURES:
        if connection.dialect.has_table(connection, table, schema=schema):
            oldest = day - timedelta(days=shop.retention.feature_days)
            statement = f'delete from {schema}.{table} where "{column}" < :oldest'  # noqa: S608 - names of this module
            rows += max(0, connection.execute(text(statement), {"oldest": oldest}).rowcount)
    return Purged(due, rows, tuple(one for one in old if one in pending and one not in already))


def remove_folders(shop: Shop, connection: Connection) -> list[date]:
    """Remove the landing folders and rejected rows of every purged day, also of one delivered again since."""
    purged = set(
        connection.scalars(select(ledger.landing_days.c.known_date).where(ledger.landing_days.c.purged_on.is_not(None)))
    )
    gone = []
    for known_date, folders in sorted(landed_days(shop).items()):
        if known_date in purged:
            for folder in folders:
                shutil.rmtree(folder)
            gone.append(known_date)
            log.info("%s: landing of %s removed: older than raw retention", shop.id, known_date)
    for known_date in purged:
        for table in TABLES:
            shutil.rmtree(shop.rejected / table / f"known_date={known_date}", ignore_errors=True)
    return gone
