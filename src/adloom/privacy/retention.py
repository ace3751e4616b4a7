"""How long anything is kept. Raw and landing go first, what describes users next, aggregates stay.

A purged day keeps its marts and is never rebuilt: neither a changed model nor a late delivery touches it.

The ad archive (dossiers, and the log of exports without the visible label) is kept for years after a creative last ran:
whoever asks why somebody saw an ad asks about one that was shown. Files of what nobody ever approved go sooner.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

from sqlalchemy import Connection, func, select, text, update

from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.contract import TABLES
from adloom.warehouse.landing import landed_days
from adloom.window import years_later

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
    dossiers: int = 0
    exports: int = 0
    """lines of the log of label-free exports"""
    files: int = 0
    """banners and videos of creatives that nobody approved"""
    file_bytes: int = 0

    def __str__(self) -> str:
        words = (
            f"{len(self.known_dates)} days of raw and landing purged, {self.feature_rows:,} rows about users deleted; "
            f"{self.dossiers:,} dossiers, {self.exports:,} lines of the log of label-free exports and {self.files:,} "
            f"files of creatives that nobody approved ({self.file_bytes / 1e6:,.1f} MB) deleted"
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
    waiting = tuple(one for one in old if one in pending and one not in already)
    last = _last_ran(connection, day)
    return Purged(
        due,
        rows,
        waiting,
        _purge_dossiers(shop, connection, day, last),
        _purge_exports(shop, connection, day, last),
        *_purge_files(shop, connection, day, last),
    )


# --- the ad archive -----------------------------------------------------------------------------------------------


def _last_ran(connection: Connection, day: date) -> dict[str, date]:
    """creative_id → the last day it may have run: by a plan, until the next one began, or by ad events."""
    plans, shares = ledger.plans, ledger.allocations
    # Of a day's plans the last version is live, and it goes on until there is another, however long ago it was made.
    begins = sorted(set(connection.scalars(select(plans.c.valid_from))))
    ends = {one: after - timedelta(days=1) for one, after in pairwise(begins)}
    planned = (
        select(shares.c.creative_id, func.max(plans.c.valid_from))
        .join(plans, plans.c.plan_id == shares.c.plan_id)
        .group_by(shares.c.creative_id)
    )
    found: dict[str, date] = {row[0]: ends.get(row[1], max(day, row[1])) for row in connection.execute(planned)}
    if connection.dialect.has_table(connection, "fct_creative_daily", schema="marts"):
        events = text("select creative_id, max(known_date) from marts.fct_creative_daily group by creative_id")
        for creative_id, seen in connection.execute(events):
            found[creative_id] = max(found.get(creative_id, seen), seen)
    return found


def _purge_dossiers(shop: Shop, connection: Connection, day: date, last: Mapping[str, date]) -> int:
    """Delete dossiers whose time is over. Files first: what is left of a run that was killed is deleted by the next."""
    dossiers, years = ledger.dossiers, shop.retention.dossier_years
    gone = 0
    for row in connection.execute(select(dossiers).order_by(dossiers.c.creative_id)).all():
        ran = last.get(row.creative_id)
        if day <= max(row.keep_until, years_later(ran, years) if ran else row.keep_until):
            continue
        page = _inside(shop.published, row.path)
        if page is not None:
            page.unlink(missing_ok=True)
            page.with_suffix(".json").unlink(missing_ok=True)
        connection.execute(dossiers.delete().where(dossiers.c.creative_id == row.creative_id))
        log.info("%s: the dossier of %s is deleted: kept until %s", shop.id, row.creative_id, row.keep_until)
        gone += 1
    return gone


def _purge_exports(shop: Shop, connection: Connection, day: date, last: Mapping[str, date]) -> int:
    exports, years = ledger.label_free_exports, shop.retention.dossier_years
    gone = 0
    for row in connection.execute(select(exports)).all():
        # Whoever got the file may have used it that day, whatever our plans say.
        ran = max(row.day, last.get(row.creative_id, row.day))
        if day > max(row.keep_until, years_later(ran, years)):
            connection.execute(exports.delete().where(exports.c.export_id == row.export_id))
            gone += 1
    return gone


def _purge_files(shop: Shop, connection: Connection, day: date, last: Mapping[str, date]) -> tuple[int, int]:
    """(files, bytes) deleted. Their rows stay: a rejection is bound to what the creative was, its files included."""
    assets, creatives, approvals = ledger.assets, ledger.creatives, ledger.approvals
    oldest = day - timedelta(days=shop.retention.unapproved_image_days)
    ever_approved = set(connection.scalars(select(approvals.c.creative_id).where(approvals.c.decision == "approved")))
    made = select(assets.c.creative_id, assets.c.path, creatives.c.day).select_from(
        assets.outerjoin(creatives, creatives.c.creative_id == assets.c.creative_id)
    )
    files = size = 0
    for creative_id, path, written in connection.execute(made.where(assets.c.day < oldest)).all():
        is_kept = creative_id in ever_approved or creative_id in last or (written is not None and written >= oldest)
        file = None if is_kept else _inside(shop.creatives, path)
        if file is not None and file.is_file():
            size += file.stat().st_size
            file.unlink()
            files += 1
    return files, size


def _inside(folder: Path, path: str) -> Path | None:
    """A file that a row of the ledger names below ``folder``; None: the path leads out of it."""
    root = folder.resolve()
    file = (root / path).resolve()
    return file if file.is_relative_to(root) else None


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
