"""Landing → raw: every known_date whose files changed is replaced as a whole, in one transaction.

The engine reads the files; rows never pass through Python. A clean Parquet file is read once: the rows its footer
promises are compared with the rows that passed, and only a difference makes a second reading for the rejected ones.
See ``docs/landing_contract.md`` for what happens to bad rows and bad files.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy import Connection, bindparam, func, select

from adloom.errors import AdloomError, GateFailed
from adloom.settings import user_id_key
from adloom.shop import Shop
from adloom.warehouse import reading
from adloom.warehouse.contract import TABLES
from adloom.warehouse.engine import warehouse
from adloom.warehouse.landing import (
    RACY,
    LandedFile,
    Seen,
    Unreadable,
    blank_lines,
    day_files,
    landed_days,
    line_numbers,
    line_text,
    manifest_digest,
    with_hashes,
)
from adloom.warehouse.ledger import create_ledger, landing_days, landing_files, replace_rows
from adloom.warehouse.reading import Reader, first_line

log = logging.getLogger(__name__)

MALFORMED = {
    "MISSING COLUMNS": "has too few fields",
    "TOO MANY COLUMNS": "has too many fields",
    "UNQUOTED VALUE": "has a quote that is not closed or not doubled",
    "LINE SIZE OVER MAXIMUM": "is too long a line",
}
GONE = ""  # manifest digest of a known_date whose folders have vanished


@dataclass(frozen=True)
class FileResult:
    """What became of one file. ``rejected_reason``: why none of it was loaded."""

    table: str
    name: str
    rows_loaded: int = 0
    rows_rejected: int = 0
    unknown_columns: tuple[str, ...] = ()
    rejected_reason: str | None = None


@dataclass(frozen=True)
class DayResult:
    """What became of one known_date; ``deleted``: its folders are gone, and so are its rows."""

    known_date: date
    files: tuple[FileResult, ...] = ()
    deleted: bool = False

    @property
    def rows_loaded(self) -> int:
        return sum(file.rows_loaded for file in self.files)

    @property
    def rows_rejected(self) -> int:
        return sum(file.rows_rejected for file in self.files)

    @property
    def unknown_columns(self) -> dict[str, tuple[str, ...]]:
        """Table → columns outside the contract, kept in ``extra``."""
        found: dict[str, set[str]] = {}
        for file in self.files:
            if file.unknown_columns:
                found.setdefault(file.table, set()).update(file.unknown_columns)
        return {table: tuple(sorted(names)) for table, names in sorted(found.items())}

    def __str__(self) -> str:
        if self.deleted:
            return f"known_date {self.known_date}: folder gone, its rows deleted"
        unknown = "; ".join(f"{table}: {', '.join(names)}" for table, names in self.unknown_columns.items())
        return (
            f"known_date {self.known_date}: {self.rows_loaded:,} rows loaded from {len(self.files)} files, "
            f"{self.rows_rejected:,} rejected" + (f"; unknown columns kept aside: {unknown}" if unknown else "")
        )


@dataclass(frozen=True)
class IngestReport:
    """The known_dates this call loaded (none: nothing had changed) and the newest folder in landing."""

    days: tuple[DayResult, ...]
    newest_day: date | None

    @property
    def rows_loaded(self) -> int:
        return sum(day.rows_loaded for day in self.days)

    @property
    def rows_rejected(self) -> int:
        return sum(day.rows_rejected for day in self.days)


def newest_day(shop: Shop) -> date | None:
    """The greatest known_date among the landing folders; None where there is none."""
    return max(landed_days(shop), default=None)


@dataclass
class _Session:
    """One connection and what is true for the whole call."""

    shop: Shop
    landing: Path
    connection: Connection
    started: datetime
    broken: dict[tuple[str, str], str] = field(default_factory=dict)
    read_again: list[LandedFile] = field(default_factory=list)
    """Files whose bytes had to be read to find them unchanged."""

    def execute(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction, below SQLAlchemy: parameters reach no log and no error text."""
        cursor = self.connection.connection.cursor()
        cursor.execute(sql, parameters or None)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def ingest(shop: Shop, day: date) -> IngestReport:
    """Load every known_date up to ``day`` whose landing files are new, changed or gone.

    Each known_date is one transaction that replaces all its raw rows. Raises `GateFailed` when a table's rejected
    rows pass ``limits.rejected_share`` or a whole file is no good; that known_date then stays as it was, the
    rejected rows are kept under ``rejected/``, and earlier days stay loaded.
    """
    landed = landed_days(shop)
    results = []
    with warehouse(shop) as engine:
        create_ledger(engine)
        with engine.connect() as connection:
            session = _Session(shop, shop.landing.resolve(), connection, datetime.now(UTC).replace(tzinfo=None))
            # Rejected rows of a load that was killed: they hold user ids.
            shutil.rmtree(_work(shop), ignore_errors=True)
            with connection.begin():
                _prepare(session)
                seen, digests = _remembered(connection, day)
                purged = _purged(connection)
            for known_date in sorted({*landed, *digests}):
                if known_date > day:
                    continue
                if known_date in purged:
                    if known_date in landed:
                        log.warning("known_date %s is older than raw retention and is not loaded again", known_date)
                    continue
                result = _ingest_day(
                    session, known_date, landed.get(known_date), seen.get(known_date, {}), digests.get(known_date)
                )
                if result is not None:
                    log.info("%s", result)
                    results.append(result)
            _note_read_again(session)
    return IngestReport(tuple(results), max(landed, default=None))


def _prepare(session: _Session) -> None:
    session.execute("set timezone = 'UTC'")  # how a kept-aside time is written must not depend on the machine
    session.execute("create schema if not exists raw")
    for table in TABLES.values():
        session.execute(table.ddl)
    reading.bind_user_key(session.execute, user_id_key())


def _work(shop: Shop) -> Path:
    """Where a load keeps what it has not stored yet; inside the shop's home, because it holds user ids."""
    return shop.home / "loading"


def refuse_purged(connection: Connection, shop: Shop, day: date) -> None:
    """Raise `AdloomError` where ``day`` is past raw retention: it cannot be run again."""
    purged_on = _purged(connection).get(day)
    if purged_on is not None:
        raise AdloomError(
            f"{shop.id}: {day} is older than raw retention: its raw rows are gone since {purged_on}, its marts are "
            "kept as they are",
            "run a later day; retention.raw_days in the shop's file decides how long days can be run again",
        )


def _purged(connection: Connection) -> dict[date, date]:
    """known_dates past raw retention → the day of the run that purged them."""
    rows = select(landing_days.c.known_date, landing_days.c.purged_on).where(landing_days.c.purged_on.is_not(None))
    return {row.known_date: row.purged_on for row in connection.execute(rows)}


def _remembered(connection: Connection, day: date) -> tuple[dict[date, dict[tuple[str, str], Seen]], dict[date, str]]:
    """What the ledger knows: files by known_date, manifest digests by known_date."""
    seen: dict[date, dict[tuple[str, str], Seen]] = {}
    for row in connection.execute(select(landing_files).where(landing_files.c.known_date <= day)):
        key = (row.table_name, row.source_file)
        seen.setdefault(row.known_date, {})[key] = Seen(row.size_bytes, row.mtime_ns, row.sha256, row.loaded_at)
    rows = connection.execute(
        select(landing_days.c.known_date, landing_days.c.manifest_digest).where(landing_days.c.known_date <= day)
    )
    return seen, {row.known_date: row.manifest_digest for row in rows}


def _ingest_day(
    session: _Session,
    known_date: date,
    folders: list[Path] | None,
    seen: dict[tuple[str, str], Seen],
    digest_before: str | None,
) -> DayResult | None:
    """Replace one known_date if its manifest changed; None: it did not."""
    shop, connection = session.shop, session.connection
    if folders is None:
        if digest_before == GONE:
            return None
        with connection.begin():
            _delete(session, known_date)
            _keep_rejected(shop, known_date, {})
            _record(connection, known_date, GONE, [], session.started)
        return DayResult(known_date, deleted=True)
    files = with_hashes(day_files(session.landing, known_date, folders), seen)
    digest = manifest_digest(shop, files)
    if digest == digest_before:
        session.read_again += [file for file in files if _is_worth_noting(session, file, seen[file.table, file.name])]
        return None
    while True:
        try:
            return _load_day(session, known_date, files, digest, is_known=digest_before is not None)
        except _BrokenFile as broken:
            # Only while reading did the file turn out bad. Its transaction is gone; the next try leaves it out.
            session.broken[broken.file.table, broken.file.name] = broken.reason


class _BrokenFile(Exception):
    def __init__(self, file: LandedFile, reason: str) -> None:
        super().__init__(reason)
        self.file, self.reason = file, reason


def _load_day(
    session: _Session, known_date: date, files: list[LandedFile], digest: str, *, is_known: bool
) -> DayResult:
    shop, connection = session.shop, session.connection
    _work(shop).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_work(shop)) as temporary:
        work = Path(temporary)
        results: list[FileResult] = []
        rejected: dict[str, list[Path]] = {}
        with connection.begin():
            session.execute("drop table if exists hashed_users")
            if is_known:
                _delete(session, known_date)
            for number, file in enumerate(files):
                parts = work / f"rejected-{number}"
                results.append(_load_file(session, file, work / f"file-{number}", parts))
                if found := sorted(work.glob(f"{parts.name}-*")):
                    rejected.setdefault(file.table, []).extend(found)
            _unchanged(files)
            _keep_rejected(shop, known_date, rejected)
            result = DayResult(known_date, tuple(results))
            _judge(shop, result)
            _record(connection, known_date, digest, list(zip(files, results, strict=True)), session.started)
    return result


def _load_file(session: _Session, file: LandedFile, link: Path, parts: Path) -> FileResult:
    """Insert a file's good rows and write its rejected ones to ``<parts>-*``."""
    reason = file.reason or session.broken.get((file.table, file.name))
    try:
        if reason is not None:
            raise Unreadable(reason)
        link.symlink_to(file.path.resolve())
        reader = reading.reader(session.shop, file, link)
    except Unreadable as error:
        line = {"file": file.name, "line": None, "reason": str(error), "row": None}
        Path(f"{parts}-0").write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
        return FileResult(file.table, file.name, rejected_reason=str(error))
    try:
        loaded = _insert(session, reader)
        rejected = _reject(session, reader, loaded, parts)
        unknown = reader.unknown if file.format != "jsonl" else _unknown_keys(session, file)
    except duckdb.Error as error:
        if isinstance(error, reading.FILE_ERRORS):
            raise _BrokenFile(file, f"cannot be read: {first_line(error)}") from error
        raise AdloomError(
            f"{_where(file)}: the engine failed: {first_line(error)}",
            "check disk space and ADLOOM_MEMORY_LIMIT, then run again; nothing of this known_date was changed",
        ) from error
    return FileResult(file.table, file.name, loaded, rejected, unknown)


def _insert(session: _Session, reader: Reader) -> int:
    table, file = reader.table, reader.file
    user_hash, joined = f'user_hash("{table.user}")', ""
    is_mapped = _is_worth_a_map(session, reader)
    if is_mapped:
        # A user has many rows, in several tables: hash each one once a day.
        session.execute("create temp table if not exists hashed_users (user_id varchar, hashed varchar)")
        session.execute(
            f'insert into hashed_users select "{table.user}", {user_hash} from '  # noqa: S608
            f'(select distinct "{table.user}"::varchar as "{table.user}" from {reader.source}) as named '
            f'anti join hashed_users on hashed_users.user_id = named."{table.user}" where "{table.user}" is not null',
            reader.source_parameters,
        )
        user_hash = "hashed_users.hashed"
        joined = f' left join hashed_users on hashed_users.user_id = judged."{table.user}"'
    names = ", ".join(f'"{column.raw_name}"' for column in table.columns)
    values = ", ".join(user_hash if name == table.user else f'judged."{name}"' for name in table.names)
    _forget_errors(session)
    inserted = session.execute(
        f"insert into raw.{table.name} ({names}, extra, known_date, source_file, source_line) "  # noqa: S608
        f'{reader.judged()} select {values}, "#extra", $known_date, $source_file, "#line" '
        f'from judged{joined} where "#reason" is null',
        reader.parameters | {"known_date": file.known_date, "source_file": file.name},
    )
    return int(inserted[0][0])


def _is_worth_a_map(session: _Session, reader: Reader) -> bool:
    if not reader.has_users or reader.most_records < reading.MANY_ROWS:
        return False
    [(users,)] = session.execute(
        f'select approx_count_distinct("{reader.table.user}") from {reader.source}',  # noqa: S608
        reader.source_parameters,
    )
    return users * 3 < reader.most_records


def _reject(session: _Session, reader: Reader, loaded: int, parts: Path) -> int:
    """Write what was not loaded to ``<parts>-*`` and return how many records that is."""
    facts = reader.facts
    if facts is None:
        return 0 if loaded == reader.records else _write_rejected(session, reader, parts)[0]
    malformed = _write_malformed(session, reader, parts)
    if facts.header_lines + loaded + malformed == facts.lines:
        return malformed
    # Something does not add up: rows that broke a rule, records of several lines, blank lines, or lines lost.
    judged, lines_read = _write_rejected(session, reader, parts)
    return malformed + judged + _write_lost(reader, lines_read + _malformed_lines(session), parts)


def _write_rejected(session: _Session, reader: Reader, parts: Path) -> tuple[int, int]:
    """Records that broke a rule; returns (how many, physical lines of all records read)."""
    parameters = reader.parameters | {"source_file": reader.file.name}
    _forget_errors(session)
    if reader.facts is None:
        session.execute("create or replace temp table shifts (first bigint, lines bigint)")
    [(count,)] = session.execute(
        f"copy ({reader.judged(with_given=True)} "  # noqa: S608
        'select $source_file as file, "#line" + coalesce(lines, 0) as line, "#reason" as reason, "#given" as "row" '
        'from judged asof left join shifts on "#line" >= first where "#reason" is not null order by "#line") '
        "to $target (format json)",
        parameters | {"target": f"{parts}-1"},
    )
    if reader.facts is None:
        return int(count), 0
    _forget_errors(session)
    [(lines,)] = session.execute(
        f'{reader.judged(with_given=True)} select coalesce(sum(1 + "#feeds"), 0)::bigint from judged',  # noqa: S608
        reader.parameters,
    )
    return int(count), int(lines)


def _forget_errors(session: _Session) -> None:
    session.execute("drop table if exists csv_errors")
    session.execute("drop table if exists csv_scans")


def _write_malformed(session: _Session, reader: Reader, parts: Path) -> int:
    """Records the engine could not split into fields: write them, and mend the line numbers after them."""
    file = reader.file
    found = session.execute(
        "select line_byte_position - 1, any_value(csv_line), list_distinct(list(error_type order by byte_position)) "
        "from csv_errors group by all order by 1"
    )
    shifts, shift = [], 0
    numbers = line_numbers(file, (offset for offset, _, _ in found)) if found else {}
    with Path(f"{parts}-0").open("w", encoding="utf-8") as target:
        for offset, given, errors in found:
            reason = "; ".join(MALFORMED.get(error, error.lower()) for error in sorted(errors))
            entry = {"file": file.name, "line": numbers[offset], "reason": reason, "row": given}
            target.write(json.dumps(entry, ensure_ascii=False) + "\n")
            # The engine numbers good records as if the bad ones were not there.
            lines = 1 + given.count("\n")
            shifts.append((numbers[offset] - shift, shift + lines))
            shift += lines
    if not found:
        Path(f"{parts}-0").unlink()
    session.execute(
        "create or replace temp table shifts as "
        "select unnest($first::bigint[]) as first, unnest($lines::bigint[]) as lines",
        {"first": [first for first, _ in shifts], "lines": [lines for _, lines in shifts]},
    )
    if found:
        session.execute(
            f"update raw.{file.table} as kept set source_line = moved.line from ("  # noqa: S608 -- names are ours
            f"select r.rowid as id, source_line + lines as line from raw.{file.table} as r "
            "asof join shifts on source_line >= first where known_date = $known_date and source_file = $source_file"
            ") as moved where kept.rowid = moved.id",
            {"known_date": file.known_date, "source_file": file.name},
        )
    return len(found)


def _malformed_lines(session: _Session) -> int:
    [(lines,)] = session.execute("select coalesce(max(lines), 0) from shifts")
    return int(lines)


def _write_lost(reader: Reader, lines_read: int, parts: Path) -> int:
    """Lines no record accounts for: an open quote swallows the rest of a file without an error of the engine."""
    file, facts = reader.file, reader.facts
    if facts is None:
        return 0
    missing = facts.lines - facts.header_lines - lines_read
    lost = missing - blank_lines(file) if missing > 0 else 0
    if lost <= 0 < missing and facts.has_open_quote:
        lost = missing  # blank lines inside quotes make the count above too small
    if lost <= 0:
        return 0
    first = facts.lines - lost + 1
    entry = {
        "file": file.name,
        "line": first,
        "reason": f"{lost} lines from about here on were not read: a quote is opened and never closed",
        "row": line_text(file, first),
    }
    Path(f"{parts}-2").write_text(json.dumps(entry, ensure_ascii=False) + "\n", encoding="utf-8")
    return lost


def _unknown_keys(session: _Session, file: LandedFile) -> tuple[str, ...]:
    keys = session.execute(
        f"select distinct unnest(json_keys(extra)) as key from raw.{file.table} "  # noqa: S608 -- names are ours
        "where known_date = $known_date and source_file = $source_file and extra is not null order by key",
        {"known_date": file.known_date, "source_file": file.name},
    )
    return tuple(key for (key,) in keys)


def _judge(shop: Shop, result: DayResult) -> None:
    """Stop the run where too much was rejected."""
    limit = shop.limits.rejected_share
    for table in TABLES:
        files = [file for file in result.files if file.table == table]
        where = f"{table}/known_date={result.known_date}"
        for file in files:
            if file.rejected_reason is not None and limit < 1:
                raise GateFailed(
                    f"{where}: the file {file.name!r} {file.rejected_reason}; the day was not loaded",
                    "have the file delivered again or take it out of the folder, then run again",
                )
        rejected = sum(file.rows_rejected for file in files)
        total = rejected + sum(file.rows_loaded for file in files)
        if total and rejected / total > limit:
            raise GateFailed(
                f"{where}: {rejected:,} of {total:,} rows rejected, more than limits.rejected_share = {limit:g}; "
                "the day was not loaded",
                f"see file, line and reason in {_rejected_file(shop.rejected, table, result.known_date)}; have the "
                "file delivered again or raise the limit, then run again",
            )


def _rejected_file(folder: Path, table: str, known_date: date) -> Path:
    return folder / table / f"known_date={known_date}" / "rejected.jsonl"


def _keep_rejected(shop: Shop, known_date: date, parts: dict[str, list[Path]]) -> None:
    """Replace the rejected rows of a known_date; written beside the target and swapped in."""
    folder = shop.rejected
    for table in TABLES:
        target = _rejected_file(folder, table, known_date)
        if table in parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh = target.with_name(f".rejected.{os.getpid()}.tmp")
            with fresh.open("wb") as whole:
                for part in parts[table]:
                    with part.open("rb") as stream:
                        shutil.copyfileobj(stream, whole)
            fresh.replace(target)
        elif target.exists():
            target.unlink()
            with suppress(OSError):
                target.parent.rmdir()


def _delete(session: _Session, known_date: date) -> None:
    for table in TABLES:
        session.execute(f"delete from raw.{table} where known_date = $day", {"day": known_date})  # noqa: S608


def _record(
    connection: Connection,
    known_date: date,
    digest: str,
    loaded: list[tuple[LandedFile, FileResult]],
    started: datetime,
) -> None:
    """Write the known_date's manifest into the ledger; what its marts were built from stays as it is."""
    day = landing_days.c.known_date == known_date
    marts_digest = connection.execute(select(landing_days.c.marts_digest).where(day)).scalar()
    rows = [
        {
            "known_date": known_date,
            "table_name": file.table,
            "source_file": file.name,
            "size_bytes": file.size,
            "sha256": file.sha256,
            "mtime_ns": file.mtime_ns,
            "rows_loaded": result.rows_loaded,
            "rows_rejected": result.rows_rejected,
            "unknown_columns": ", ".join(result.unknown_columns) or None,
            "rejected_reason": result.rejected_reason,
            "loaded_at": started,
        }
        for file, result in loaded
    ]
    key = {"known_date": known_date}
    replace_rows(connection, landing_files, key, rows)
    replace_rows(connection, landing_days, key, [key | {"manifest_digest": digest, "marts_digest": marts_digest}])


def _is_worth_noting(session: _Session, file: LandedFile, before: Seen) -> bool:
    """Whether the next run could go by size and mtime if it knew that this one has read the bytes."""
    modified = datetime.fromtimestamp(file.mtime_ns / 1e9, UTC).replace(tzinfo=None)
    return file.mtime_ns != before.mtime_ns or before.loaded_at - RACY <= modified < session.started - RACY


def _note_read_again(session: _Session) -> None:
    """Same content: remember when it was last read, in one statement for the files of all days."""
    stale = session.read_again
    if not stale:
        return
    key = ("known_date", "table_name", "source_file")
    read = {
        "known_date": [file.known_date for file in stale],
        "table_name": [file.table for file in stale],
        "source_file": [file.name for file in stale],
        "mtime_ns": [file.mtime_ns for file in stale],
    }
    again = select(
        *(
            func.unnest(bindparam(None, values, unique=True), type_=landing_files.c[name].type).label(name)
            for name, values in read.items()
        )
    ).subquery()
    with session.connection.begin():
        session.connection.execute(
            landing_files.update()
            .where(*(landing_files.c[name] == again.c[name] for name in key))
            .values(mtime_ns=again.c.mtime_ns, loaded_at=session.started)
        )


def _unchanged(files: list[LandedFile]) -> None:
    """The bytes that were loaded are the bytes that were hashed."""
    for file in files:
        if file.reason is None:
            try:
                status = file.path.stat()
                same = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
            except OSError:
                same = False
            if not same:
                raise AdloomError(
                    f"{_where(file)} changed while it was being loaded; the day was not loaded",
                    "run again once the delivery is complete (write files under a name ending in .tmp, then rename)",
                )


def _where(file: LandedFile) -> str:
    return f"{file.table}/known_date={file.known_date}/{file.name!r}"
