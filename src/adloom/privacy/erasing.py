"""Erasure: a user's rows leave the delivered files first, everything made from them follows.

What is made from landing (raw, rejected rows, marts, portraits) needs no erasing of its own: a rewritten file changes
its day's manifest, so the next `ingest` and `build` replace those days. `sweep` takes out what is not made from landing
any more: days older than raw retention and files handed to the ad server. `compact` clears the database's free pages.

An erasure covers what happened by ``requested_at``; who comes back later is a new user.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy import Connection, select, text
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random

from adloom.errors import AdloomError, Busy
from adloom.privacy.registry import ERASE, Request
from adloom.settings import settings, user_id_key
from adloom.shop import Shop
from adloom.warehouse import ledger, reading
from adloom.warehouse.contract import TABLES
from adloom.warehouse.engine import is_busy, warehouse_url
from adloom.warehouse.landing import LandedFile, Unreadable, day_files, landed_days, open_bytes

log = logging.getLogger(__name__)

TOKENS = re.compile(r"[\s,;|:\"'{}\[\]]+")
"""What separates the values of a line that could not be read as a record."""
LONGEST_FIELD = 16_777_216
ANONYMISED = {
    "int_impressions__flagged": "user_hash = null",
    "int_clicks__linked": "user_hash = null, click_user_hash = null",
    "int_conversions__attributed": "user_hash = null",
}
"""Counted in aggregates that are kept: their rows stay and lose the user."""
CHAINED = {"user_portraits", "int_users__interests", "int_users__profiled"}
"""Made day by day, each from the one before and from purged days too: not only what is purged has to go."""


@dataclass(frozen=True)
class Erased:
    """What `clean_files` took out of landing."""

    rows: int = 0
    files: int = 0


# --- landing -----------------------------------------------------------------------------------------------------


def note_impressions(connection: Connection, requests: Sequence[Request]) -> None:
    """Remember which impressions are to go: clicks and conversions name them and not always the user.

    Kept until the erasure is finished, because raw forgets them half-way.
    """
    hashes = sorted({one.user_hash for one in requests if one.kind == ERASE})
    connection.execute(
        text(
            "insert into adloom.erased_impressions "
            "select distinct coalesce(shown.impression_id, shown.event_id) from raw.ad_events as shown "
            "join adloom.privacy_registry as registry on registry.user_hash = shown.user_hash "
            "and shown.occurred_at <= registry.requested_at and registry.kind = 'erase' "
            "where shown.event_type = 'impression' and registry.completed_on is null "
            "and list_contains(cast(:hashes as varchar[]), shown.user_hash) "
            "and coalesce(shown.impression_id, shown.event_id) not in "
            "(select impression_id from adloom.erased_impressions)"
        ),
        {"hashes": hashes},
    )


def clean_files(shop: Shop, requests: Sequence[Request], impressions: Iterable[str]) -> Erased:
    """Rewrite every landing file that holds a user to be erased, without that user's rows.

    Whole files are swapped in; run again after a kill it finds nothing left to do. Raises `AdloomError`, after all
    other files are clean, naming a file that cannot be read and so not be searched.
    """
    erasures = _Erasures(requests, frozenset(impressions))
    if not erasures.by_user:
        return Erased()
    rows, files, unreadable = 0, 0, []
    root = shop.landing.resolve()
    work = shop.home / "loading"
    work.mkdir(parents=True, exist_ok=True)
    for known_date, folders in sorted(landed_days(shop).items()):
        for file in day_files(root, known_date, folders):
            if TABLES[file.table].user is None and file.table != "ad_events":
                continue
            if file.reason is not None:
                unreadable.append(f"{file.table}/known_date={known_date}/{file.name} {file.reason}")
                continue
            try:
                gone = _clean(shop, file, erasures, work)
            except (Unreadable, OSError, EOFError) as error:
                unreadable.append(f"{file.table}/known_date={known_date}/{file.name} {error}")
                continue
            rows += gone
            files += gone > 0
    log.info("%s: %d rows of %d users to be erased left %d files", shop.id, rows, len(erasures.by_user), files)
    if unreadable:
        raise AdloomError(
            f"not searched for users to be erased: {'; '.join(unreadable[:3])}",
            "have the file delivered again or remove it, then run again; every other file is clean",
        )
    return Erased(rows, files)


class _Erasures:
    """Decides whose a row is."""

    def __init__(self, requests: Sequence[Request], impressions: frozenset[str]) -> None:
        self.impressions = impressions
        self.by_user: dict[str, tuple[datetime, date]] = {}
        for one in requests:
            if one.kind == ERASE:
                before = self.by_user.get(one.user_hash, (one.requested_at, one.known_date))
                self.by_user[one.user_hash] = max(before[0], one.requested_at), max(before[1], one.known_date)
        self._hashes: dict[str, str] = {}

    def hashed(self, user: str) -> str:
        found = self._hashes.get(user)
        if found is None:
            found = self._hashes[user] = reading.user_hash(user, user_id_key())
        return found

    def covers(self, row: Mapping[str, Any], file: LandedFile) -> bool:
        table = TABLES[file.table]
        user = row.get(table.user) if table.user else None
        if user not in {None, ""}:
            through = self.by_user.get(self.hashed(str(user)))
            return through is not None and _is_within(row.get(table.time) if table.time else None, through, file)
        return file.table == "ad_events" and row.get("impression_id") in self.impressions

    def named_in(self, line: str, file: LandedFile) -> bool:
        """Does a line that is no record name one of them?"""
        known = (self.by_user.get(self.hashed(token)) for token in set(TOKENS.split(line)) if token)
        return any(through is not None and file.known_date <= through[1] for through in known)


def _is_within(moment: Any, through: tuple[datetime, date], file: LandedFile) -> bool:
    """Did it happen by the moment of the request? Without a time of its own a row is as old as its delivery."""
    try:
        happened = datetime.fromisoformat(str(moment)) if moment else None
    except ValueError:
        happened = None
    if happened is None or happened.tzinfo is None:
        return file.known_date <= through[1]
    return happened.astimezone(UTC).replace(tzinfo=None) <= through[0]


def _clean(shop: Shop, file: LandedFile, erasures: _Erasures, work: Path) -> int:
    return _clean_parquet(shop, file, erasures, work) if file.format == "parquet" else _clean_text(file, erasures)


def _clean_text(file: LandedFile, erasures: _Erasures) -> int:
    """Rewrite a CSV or JSON-lines file; returns the records that left it."""
    gone = 0
    fresh = file.path.with_name(f".{file.path.name}.tmp")
    kept_rows = False
    try:
        with _writer(file, fresh) as target:
            for row, lines in _records(file):
                if row is None:  # the header
                    target.writelines(lines)
                elif row and erasures.covers(row, file):
                    gone += 1
                elif not row:
                    kept = [line for line in lines if not erasures.named_in(_text(line), file)]
                    gone += len(lines) - len(kept)
                    target.writelines(kept)
                    kept_rows = kept_rows or bool(kept)
                else:
                    target.writelines(lines)
                    kept_rows = True
        if not gone:
            return 0
        if file.format == "jsonl" and not kept_rows:
            file.path.unlink()  # a file of no bytes would count as broken
        else:
            _replace(fresh, file.path)
        return gone
    finally:
        fresh.unlink(missing_ok=True)


def _replace(fresh: Path, path: Path) -> None:
    """Swap the file in; who may read it stays as it was: what a shop delivers for few is not to be read by all."""
    shutil.copymode(path, fresh)
    os.replace(fresh, path)


def _writer(file: LandedFile, path: Path) -> Any:
    # Without a name and a time inside, the same rows are the same bytes.
    return gzip.GzipFile(filename="", mode="wb", fileobj=path.open("wb"), mtime=0) if file.is_gzip else path.open("wb")


def _records(file: LandedFile) -> Iterator[tuple[dict[str, Any] | None, list[bytes]]]:
    """(row, its lines as delivered); row None: a header, empty: no record that can be read."""
    with open_bytes(file) as stream:
        if file.format == "jsonl":
            for line in stream:
                try:
                    row = json.loads(line)
                except ValueError:
                    row = {}
                yield (row if isinstance(row, dict) else {}), [line]
            return
        csv.field_size_limit(LONGEST_FIELD)
        lines: list[bytes] = []

        def told() -> Iterator[str]:
            for line in stream:
                lines.append(line)
                yield _text(line)

        names: list[str] | None = None
        for fields in csv.reader(told()):
            own, lines[:] = list(lines), []
            if names is None:
                names = [name.removeprefix("\ufeff") for name in fields]
                yield None, own
            else:
                # A quote that is never closed swallows the lines after it and may still count the right fields.
                is_sound = len(own) == 1 or b"".join(own).count(b'"') % 2 == 0
                yield (dict(zip(names, fields, strict=True)) if is_sound and len(fields) == len(names) else {}), own


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _clean_parquet(shop: Shop, file: LandedFile, erasures: _Erasures, work: Path) -> int:
    """Rewrite a Parquet file; returns the rows that left it."""
    link, fresh = work / f"erase-{os.getpid()}", file.path.with_name(f".{file.path.name}.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(file.path.resolve())
    try:
        reader = reading.reader(shop, file, link)
        table = TABLES[file.table]
        with duckdb.connect() as engine:
            engine.execute("set timezone = 'UTC'")
            engine.execute("set memory_limit = ?", [settings().memory_limit])
            _bind(engine, erasures)
            moment = f'"{table.time}"' if table.time else "null::timestamp"
            user = f'"{table.user}"' if table.user in reader.types else "null::varchar"
            linked = (
                "impression_id in (select impression_id from impressions)" if file.table == "ad_events" else "false"
            )
            engine.execute(
                f"create temp table gone as {reader.judged()}, "  # noqa: S608 - names are the contract's
                f"named as (select distinct {user} as named from judged where {user} is not null), "
                "theirs as (select named, through, last_known from named "
                "join erased on erased.user_hash = user_hash(named)) "
                f'select "#line" as line from judged left join theirs on theirs.named = {user} '
                f"where case when {user} is null then {linked} "
                f"when theirs.named is null then false when {moment} is null then $known_date <= last_known "
                f"else {moment} <= through end",
                reader.parameters | {"known_date": file.known_date},
            )
            [(gone,)] = engine.execute("select count(*) from gone").fetchall()
            if gone:
                engine.execute(
                    "copy (select * exclude (file_row_number) "
                    "from read_parquet($path, hive_partitioning=false, file_row_number=true) "
                    "where file_row_number + 1 not in (select line from gone) order by file_row_number) "
                    "to $fresh (format parquet, compression zstd)",
                    {"path": str(link), "fresh": str(fresh)},
                )
                _replace(fresh, file.path)
        return int(gone)
    except duckdb.Error as error:
        raise Unreadable(f"cannot be rewritten: {reading.first_line(error)}") from error
    finally:
        link.unlink(missing_ok=True)
        fresh.unlink(missing_ok=True)


def _bind(engine: duckdb.DuckDBPyConnection, erasures: _Erasures) -> None:
    reading.bind_user_key(lambda sql, parameters: engine.execute(sql, parameters or None), user_id_key())
    engine.execute("create temp table erased (user_hash varchar, through timestamp, last_known date)")
    engine.executemany(
        "insert into erased values (?, ?, ?)", [(user, *through) for user, through in erasures.by_user.items()]
    )
    engine.execute("create temp table impressions (impression_id varchar)")
    if erasures.impressions:
        engine.execute("insert into impressions select unnest(?::varchar[])", [sorted(erasures.impressions)])


# --- what is not made from landing any more ----------------------------------------------------------------------


def sweep(shop: Shop, connection: Connection, requests: Sequence[Request]) -> int:
    """Take erased users out of what landing does not make again: purged days, portraits so far, audience files.

    To be called before marts and portraits are built again, because portraits are made from purged days too. Days that
    landing still has are left to the build, which keeps what happened after the request. Returns the rows touched.
    """
    erasures = _Erasures(requests, frozenset())
    if not erasures.by_user:
        return 0
    touched = 0
    for schema, name, moment in _user_tables(connection):
        where = "user_hash = :user"
        if name in CHAINED:
            where += f' and ("{moment}" <= :last_known or "{moment}" not in (select day from adloom.portrait_days))'  # noqa: S608
        elif moment:
            where += (
                f' and "{moment}" <= :last_known and "{moment}" in '  # noqa: S608
                "(select known_date from adloom.landing_days where purged_on is not null)"
            )
        change = (
            f'update "{schema}"."{name}" set {ANONYMISED[name]} where {where}'  # noqa: S608 - the database's own names
            if name in ANONYMISED
            else f'delete from "{schema}"."{name}" where {where}'  # noqa: S608
        )
        for user, (_, last_known) in erasures.by_user.items():
            bound = {"user": user} | ({"last_known": last_known} if moment else {})
            touched += max(0, connection.execute(text(change), bound).rowcount)
    for path in sorted(shop.published.rglob("audience.parquet")):
        touched += _sweep_audience(path, sorted(erasures.by_user))
    return touched


def forget_impressions(connection: Connection) -> None:
    """Forget what `note_impressions` remembered; once everything is made again."""
    connection.execute(ledger.erased_impressions.delete())


def _user_tables(connection: Connection) -> list[tuple[str, str, str | None]]:
    """(schema, table, the column that says as of which day) of every table with a user in its rows."""
    found = connection.execute(
        text(
            "select c.table_schema, c.table_name, "
            "max(case when other.column_name in ('known_date', 'day') then other.column_name end) as moment "
            "from information_schema.columns as c "
            "join information_schema.tables as t using (table_schema, table_name) "
            "join information_schema.columns as other using (table_schema, table_name) "
            "where c.column_name = 'user_hash' and t.table_type = 'BASE TABLE' and c.table_schema <> 'raw' "
            "group by all order by all"
        )
    ).all()
    return [(row[0], row[1], row[2]) for row in found if row[1] != ledger.privacy_registry.name]


def _sweep_audience(path: Path, hashes: Sequence[str]) -> int:
    import pyarrow as pa
    from pyarrow import compute, parquet

    rows = parquet.read_table(path)
    kept = rows.filter(compute.invert(compute.is_in(rows["user_hash"], pa.array(hashes, pa.string()))))
    gone = int(rows.num_rows - kept.num_rows)
    if gone:
        fresh = path.with_name(f".{path.name}.tmp")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        parquet.write_table(kept, fresh)
        os.replace(fresh, path)
    return gone


def compact(shop: Shop) -> None:
    """Write the database file anew: deleted rows stay readable in its free pages until then."""
    database = Path(str(warehouse_url(shop).database)).resolve()
    fresh = database.with_name(f".{database.name}.compact")
    try:
        for attempt in Retrying(
            retry=retry_if_exception(is_busy),
            stop=stop_after_delay(settings().lock_timeout_seconds),
            wait=wait_random(0.05, 0.3),
        ):
            with attempt:
                _copy(database, fresh)
    except RetryError as error:
        raise Busy(
            f"the warehouse of {shop.id} is in use by another process", "; ADLOOM_LOCK_TIMEOUT_SECONDS waits longer"
        ) from error


def _copy(database: Path, fresh: Path) -> None:
    fresh.unlink(missing_ok=True)
    # Views name the database they were made in, so it keeps its name while it is copied.
    name = database.stem.replace('"', '""')
    with duckdb.connect() as engine:
        engine.execute("set memory_limit = ?", [settings().memory_limit])
        engine.execute(f"attach '{_quoted(database)}' as \"{name}\"")
        engine.execute(f'checkpoint "{name}"')
        engine.execute(f"attach '{_quoted(fresh)}' as fresh_copy")
        engine.execute(f'copy from database "{name}" to fresh_copy')
        engine.execute("detach fresh_copy")
        # Still attached, so that nobody opens the old file meanwhile.
        _replace(fresh, database)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def pending_impressions(connection: Connection) -> list[str]:
    """Impressions that `note_impressions` remembers."""
    return list(connection.scalars(select(ledger.erased_impressions.c.impression_id)))
