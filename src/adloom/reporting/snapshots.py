"""Parquet copies of the tables people read, so that a person can look while a run writes.

    published/snapshots/CURRENT                          which file each table is, swapped in last
    published/snapshots/<schema>.<table>/<sha256>.parquet

A file is named by its content: a table that did not change keeps its file, and the same facts published twice are
the same set of names. A reader resolves every table through one reading of ``CURRENT`` and so sees one state of all
of them. Files stay while ``CURRENT`` or the set before it names them, and for `GRACE_SECONDS` after that.

Left out: tables with a row per user (``fct_impressions``, ``fct_behaviours_daily``, ``user_segments``, those of the
ledger marked private) and the exact counts of ``dim_segments.users``, because whoever may read a page need not be able
to follow a person; ``runs``, because the run that publishes is itself not
over (``adloom status`` shows them); and what the clock wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import StaticPool

from adloom.errors import AdloomError, Busy, UsageError
from adloom.settings import settings
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

MARTS = ("dim_items", "dim_creatives", "dim_segments", "fct_creative_daily")
LEDGER = tuple(
    sorted(
        table.name
        for table in ledger.metadata.sorted_tables
        if table is not ledger.runs and not table.info.get("private")
    )
)
HIDDEN = {"marts.dim_segments": ("users",)}
"""Exact counts of persons, day by day: the difference of two days would be one user. Portraits publish them safely."""
GRACE_SECONDS = 900
"""How long a file outlives the last set that named it: a query that began on it may still be reading."""


@dataclass(frozen=True)
class Snapshot:
    """One published state of all tables."""

    day: date
    """the day whose run published it; it holds every day the warehouse knew then"""
    version: str
    """digest of the tables' names and contents"""
    tables: dict[str, Path]
    """``schema.table`` → Parquet file"""


def folder(shop: Shop) -> Path:
    return shop.published / "snapshots"


def publish(shop: Shop, day: date) -> Path:
    """Publish every table as it is now, all days of it; returns the path of ``CURRENT``.

    Raises `AdloomError` when the warehouse or one of the tables is not there yet.
    """
    root = folder(shop)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=settings().lock_timeout_seconds):
            before = _manifest(root)
            with warehouse(shop) as engine, engine.connect() as connection:
                tables = {name: _write(connection, root, name) for name in _tables(connection, shop)}
            return _swap(root, day, tables, before)
    except Timeout as error:
        raise Busy(
            f"another process is publishing the snapshots of {shop.id}", "; ADLOOM_LOCK_TIMEOUT_SECONDS waits longer"
        ) from error


def current(shop: Shop) -> Snapshot:
    """What is published now, or an `AdloomError` that says how to publish."""
    root = folder(shop)
    manifest = _manifest(root)
    if manifest is None:
        raise AdloomError(f"{shop.id} has published nothing yet", f"run `adloom run --shop {shop.id} --day D`")
    return Snapshot(
        date.fromisoformat(manifest["day"]),
        manifest["version"],
        {name: root / file for name, file in manifest["tables"].items()},
    )


@contextmanager
def open_snapshot(shop: Shop) -> Iterator[Engine]:
    """The published state as an engine for reading: one view per table, under the warehouse's own names.

    The views belong to one ``CURRENT``: what is published meanwhile is not seen. Statements other than SELECT raise
    `UsageError`. SQL can open no file but the snapshot's own, load no extension and undo none of this.
    """
    snapshot = current(shop)
    engine = create_engine("duckdb:///:memory:", poolclass=StaticPool)

    @event.listens_for(engine, "connect")
    def _make_views(connection: Any, _record: Any) -> None:
        for schema in sorted({name.partition(".")[0] for name in snapshot.tables}):
            connection.execute(f"create schema {schema}")
        for name, path in snapshot.tables.items():
            # A path cannot be bound in a view; a variable can, and nothing is spliced into SQL.
            variable = name.replace(".", "_")
            connection.execute(f"set variable {variable} = ?", [str(path)])
            connection.execute(f"create view {name} as select * from read_parquet(getvariable('{variable}'))")  # noqa: S608
        connection.execute("set threads = ?", [settings().threads])
        connection.execute("set memory_limit = ?", [settings().memory_limit])
        connection.execute("set python_enable_replacements = false")
        connection.execute("set allowed_paths = ?", [[str(path) for path in snapshot.tables.values()]])
        connection.execute("set enable_external_access = false")
        connection.execute("set lock_configuration = true")

    @event.listens_for(engine, "before_cursor_execute")
    def _only_select(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        require_select(statement)

    try:
        yield engine
    finally:
        engine.dispose()


def require_select(statement: str) -> None:
    """A `UsageError` unless ``statement`` is one SELECT (with its relatives: WITH, FROM, SHOW, DESCRIBE, SUMMARIZE)."""
    try:
        kinds = [one.type.name for one in duckdb.extract_statements(statement)]
    except duckdb.Error as error:
        raise UsageError(f"not SQL that DuckDB can read: {error}", "see https://duckdb.org/docs/sql") from error
    if kinds != ["SELECT"]:
        raise UsageError(f"{', '.join(kinds) or 'nothing'} is not a query", "snapshots are read with one SELECT")


def _tables(connection: Connection, shop: Shop) -> list[str]:
    """The tables to publish, or an error naming the first that is missing."""
    present = set(
        connection.scalars(text("select table_schema || '.' || table_name from information_schema.tables")).all()
    )
    wanted = [f"marts.{name}" for name in MARTS] + [f"{ledger.SCHEMA}.{name}" for name in LEDGER]
    missing = [name for name in wanted if name not in present]
    if missing:
        raise AdloomError(
            f"the warehouse of {shop.id} has no {missing[0]}", f"run `adloom run --shop {shop.id} --day D` first"
        )
    return wanted


def _write(connection: Connection, root: Path, name: str) -> str:
    """Write one table in a fixed order; returns its file relative to ``root``."""
    fresh = root / f".{name}.parquet"
    fresh.unlink(missing_ok=True)
    declared = ledger.metadata.tables.get(name)
    hidden = list(HIDDEN.get(name, ()))
    # What the clock wrote stays out, but where it belongs to the key: of two decisions the later one counts.
    clock = [] if declared is None else [one for one in declared.columns if one.info.get("wall_clock")]
    hidden += [column.name for column in clock if not column.info.get("key")]
    left_out = f"exclude ({', '.join(hidden)})" if hidden else ""
    # Names are constants of this code; the path is bound.
    connection.exec_driver_sql(
        f"copy (select * {left_out} from {name} order by all) to ? (format parquet, compression zstd)",  # noqa: S608
        (str(fresh),),
    )
    with fresh.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    path = root / name / f"{digest}.parquet"
    path.parent.mkdir(exist_ok=True)
    os.replace(fresh, path)
    return path.relative_to(root).as_posix()


def _manifest(root: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads((root / "CURRENT").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _swap(root: Path, day: date, tables: dict[str, str], before: dict[str, Any] | None) -> Path:
    """Name the new set in ``CURRENT`` and drop what nobody reads any more."""
    version = hashlib.sha256("\n".join(f"{name} {file}" for name, file in sorted(tables.items())).encode()).hexdigest()
    if before is None:
        previous: dict[str, str] = {}
    else:
        previous = before["tables"] if before["version"] != version else before["previous"]
    for file in previous.values():
        # The grace begins when a file is superseded, not when it was written.
        if (root / file).exists():
            os.utime(root / file)
    manifest = {"day": day.isoformat(), "version": version, "tables": tables, "previous": previous}
    target, fresh = root / "CURRENT", root / ".CURRENT"
    fresh.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(fresh, target)
    kept = set(tables.values()) | set(previous.values())
    too_old = time.time() - GRACE_SECONDS
    for path in root.glob("*/*.parquet"):
        if path.relative_to(root).as_posix() not in kept and path.stat().st_mtime < too_old:
            path.unlink()
    return target
