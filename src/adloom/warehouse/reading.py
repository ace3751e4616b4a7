"""SQL that lets the engine read one delivered file, type its columns and judge its rows.

No text of a shop's data is ever part of the SQL: paths, file names and column names travel as bound parameters, and
a file is opened through a link with a plain name, because the engine takes ``*``, ``?`` and ``[`` in a path for
wildcards. The user-id key is bound once into session variables (`bind_user_key`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from adloom.shop import Shop
from adloom.warehouse.contract import TABLES, Column, Kind, LandingTable
from adloom.warehouse.landing import LandedFile, TextFacts, Unreadable, text_facts
from adloom.window import day_window

# What the engine raises when it is the file that is wrong; anything else (memory, disk, lock) is not the file's fault.
FILE_ERRORS = (
    duckdb.InvalidInputException,
    duckdb.ConversionException,
    duckdb.BinderException,
    duckdb.NotImplementedException,
    duckdb.SerializationException,
    duckdb.OutOfRangeException,
)
REJECTS = "store_rejects=true, rejects_table='csv_errors', rejects_scan='csv_scans', rejects_limit=100000"
OFFSET_TIME = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)"
# From this many rows on, hashing each user once and joining is worth its two extra looks at one column.
MANY_ROWS = 200_000
BLOCK = 64
USER = "user_id"


def user_hash(user_id: str, key: bytes) -> str:
    """What ``raw`` holds instead of ``user_id``: the same as the macro of `bind_user_key`."""
    return base64.urlsafe_b64encode(hmac.digest(key, user_id.encode(), "sha256")[:9]).decode()


def bind_user_key(execute: Any, key: bytes) -> None:
    """Give a session the macro ``user_hash(user_id)``: HMAC-SHA256 (RFC 2104) in SQL, its first 9 bytes in base64url.

    ``execute(sql, parameters)`` must not log its parameters. The two padded keys live in session variables: bound,
    gone with the connection, never in a statement's text.
    """
    block = (hashlib.sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
    execute("set variable inner_key = $key", {"key": bytes(byte ^ 0x36 for byte in block)})
    execute("set variable outer_key = $key", {"key": bytes(byte ^ 0x5C for byte in block)})
    execute(
        "create or replace temp macro user_hash(user_id) as translate(to_base64(unhex(left(sha256("
        "getvariable('outer_key') || unhex(sha256(getvariable('inner_key') || encode(user_id)))), 18))), '+/', '-_')",
        {},
    )


@dataclass(frozen=True)
class Reader:
    """How to read one file: SQL of its records, and what must be bound to run it."""

    file: LandedFile
    table: LandingTable
    columns: str  # "#line", "#broken", "#extra" and the contract's columns the file has
    given: str  # the record as delivered and the line feeds inside it
    source: str  # what columns are read from
    types: dict[str, str]
    parameters: dict[str, Any]
    unknown: tuple[str, ...] = ()
    facts: TextFacts | None = None  # CSV and JSON lines
    records: int = 0  # Parquet: rows according to its footer

    @property
    def has_users(self) -> bool:
        """Whether ``source`` itself has a column of user ids; of JSON lines it has none before they are parsed."""
        return self.table.user in self.types and self.file.format != "jsonl"

    @property
    def most_records(self) -> int:
        """At least as many as there are records."""
        return self.records if self.facts is None else self.facts.lines

    @property
    def source_parameters(self) -> dict[str, Any]:
        """What must be bound where only ``source`` is read."""
        return {name: value for name, value in self.parameters.items() if name != "end"}

    def judged(self, *, with_given: bool = False) -> str:
        """WITH …, ending in ``judged``: one row per record with typed columns and ``"#reason"`` (NULL: good).

        ``with_given`` adds ``"#given"`` and ``"#feeds"``.
        """
        given = f", {self.given}" if with_given else ""
        kept = ', "#given", "#feeds"' if with_given else ""
        return (
            f"with scanned as (select {self.columns}{given} from {self.source}), "  # noqa: S608
            f'typed as (select "#line", "#broken", "#extra"{kept}, {_typed(self.table, self.types)} from scanned), '
            f'judged as (select *, case {_reasons(self.table)} end as "#reason" from typed)'
        )


def reader(shop: Shop, file: LandedFile, path: Path) -> Reader:
    """The reader of a file that is opened through ``path``. Raises `Unreadable` when the whole file is no good."""
    if file.size == 0:
        raise Unreadable("is empty (0 bytes); a day without rows is an empty folder or a file with only a header")
    table = TABLES[file.table]
    parameters: dict[str, Any] = {"path": str(path)}
    if table.time:
        # Read as text: whatever the zone, the boundary is one UTC instant.
        parameters["end"] = day_window(file.known_date, shop.time_zone).end.replace(tzinfo=None)
    if file.format == "parquet":
        return _parquet(table, file, parameters)
    facts = text_facts(file)
    return (_csv if file.format == "csv" else _jsonl)(table, file, parameters, facts)


def _parquet(table: LandingTable, file: LandedFile, parameters: dict[str, Any]) -> Reader:
    options = "hive_partitioning=false, binary_as_string=true"
    try:
        with duckdb.connect() as scratch:
            path = {"path": parameters["path"]}
            described = scratch.execute(f"describe select * from read_parquet($path, {options})", path).fetchall()  # noqa: S608
            count = scratch.execute("select num_rows from parquet_file_metadata($path)", path).fetchone()
    except duckdb.Error as error:
        raise Unreadable(f"is not readable Parquet ({first_line(error)})") from error
    types = {str(row[0]): str(row[1]) for row in described}
    unknown = _unknown(table, tuple(types), numbered=True)
    known = [name for name in table.names if name in types]
    columns = (
        f'file_row_number + 1 as "#line", null::varchar as "#broken", '
        f'{_extra(unknown, [*known, "file_row_number"])} as "#extra"{_listed(known)}'
    )
    given = f'{_row("file_row_number")} as "#given", 0 as "#feeds"'
    source = f"read_parquet($path, {options}, file_row_number=true)"
    types = {name: types[name] for name in known}
    _typed(table, types)  # a type that cannot be used is the file's fault, found before anything is written
    return Reader(
        file, table, columns, given, source, types, parameters, unknown, records=int(count[0]) if count else 0
    )


def _csv(table: LandingTable, file: LandedFile, parameters: dict[str, Any], facts: TextFacts) -> Reader:
    if len(set(map(str.lower, facts.header))) < len(facts.header):
        raise Unreadable("names a column twice")
    unknown = _unknown(table, facts.header)
    known = [name for name in table.names if name in facts.header]
    # The physical line a record starts on: one line a record, plus the line feeds inside earlier records' quotes.
    line = f"{facts.header_lines} + row_number() over ()"
    if facts.has_quotes:
        line = (
            f"{facts.header_lines} + 1 + coalesce(sum(1 + {_feeds()}) over "
            "(rows between unbounded preceding and 1 preceding), 0)"
        )
    columns = (
        f'({line})::bigint as "#line", null::varchar as "#broken", {_extra(unknown, known)} as "#extra"{_listed(known)}'
    )
    given = f'{_row()} as "#given", {_feeds()} as "#feeds"'
    source = (
        "read_csv($path, columns=$columns, auto_detect=false, header=true, delim=',', quote='\"', escape='\"', "
        f"strict_mode=true, parallel=false, compression='{_compression(file)}', {REJECTS})"
    )
    if len(facts.header) == 1:  # of one column, a blank line is a row of one missing value to the engine
        source = f"(select * from {source} where columns(*) is not null)"  # noqa: S608
    parameters = parameters | {"columns": dict.fromkeys(facts.header, "VARCHAR")}
    return Reader(
        file, table, columns, given, source, dict.fromkeys(known, "VARCHAR"), parameters, unknown, facts=facts
    )


def _jsonl(table: LandingTable, file: LandedFile, parameters: dict[str, Any], facts: TextFacts) -> Reader:
    # Lines come through the CSV reader with a separator JSON cannot contain: a malformed line keeps its number and
    # its text, which the JSON reader would not give.
    shape = ", ".join(f'"{name}": "VARCHAR"' for name in table.names)
    removed = ", ".join(f'"{name}": null' for name in table.names)
    near = ", ".join(f"'{name}'" for name in table.names)
    lines = (
        "read_csv($path, columns={'line': 'VARCHAR'}, auto_detect=false, header=false, delim='\x01', quote='', "
        "escape='', strict_mode=false, parallel=false, max_line_size=16777216, "
        f"compression='{_compression(file)}', {REJECTS})"
    )
    objects = (
        'select row_number() over () as "#line", line, '  # noqa: S608
        f"coalesce(case when json_valid(line) then json_type(line) = 'OBJECT' end, false) as is_object from {lines}"
    )
    parsed = (
        f"select \"#line\", line, case when is_object then json_transform(line, '{{{shape}}}') end as doc, "  # noqa: S608
        "case when is_object then nullif(json_merge_patch(json_merge_patch('{}', line), "
        f"'{{{removed}}}')::varchar, '{{}}')::json end as \"#extra\" from ({objects}) where trim(line, ' \t\r') <> ''"
    )
    unknown = 'list_transform(json_keys("#extra"), lambda k: lower(trim(k)))'
    columns = (
        "\"#line\", case when doc is null then 'is not a JSON object' "
        f"when list_has_any({unknown}, [{near}]) "
        "then 'has a key that differs from the contract only in case or spaces' "
        f"when list_contains({unknown}, '{USER}') then 'has a key {USER}, but {table.name} may not hold user ids' "
        'end as "#broken", "#extra"' + "".join(f', doc."{name}" as "{name}"' for name in table.names)
    )
    given = 'case when doc is null then to_json(line) else line::json end as "#given", 0 as "#feeds"'
    types = dict.fromkeys(table.names, "VARCHAR")
    return Reader(file, table, columns, given, f"({parsed})", types, parameters, facts=facts)


def _compression(file: LandedFile) -> str:
    return "gzip" if file.is_gzip else "none"


def _unknown(table: LandingTable, names: tuple[str, ...], *, numbered: bool = False) -> tuple[str, ...]:
    """The columns outside the contract, in file order. Raises `Unreadable` for missing or nearly right ones."""
    missing = [name for name in table.required if name not in names]
    if missing:
        raise Unreadable(f"lacks the required column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    unknown = tuple(name for name in names if name not in table.names)
    for name in unknown:
        # Kept aside as unknown, a column "User_ID" would carry user ids into the warehouse.
        plain = name.strip().lower()
        if plain == USER and table.user is None:
            raise Unreadable(f"has a column {name!r}, but {table.name} may not hold user ids")
        if plain in table.names or (numbered and re.fullmatch(r"user_id_\d+", plain)):
            raise Unreadable(f"has a column {name!r}, which differs from the contract's only in case or spaces")
    return unknown


def _listed(names: list[str]) -> str:
    return "".join(f', "{name}"' for name in names)


def _extra(unknown: tuple[str, ...], known: list[str]) -> str:
    if not unknown:
        return "null::json"
    return f"nullif(json_merge_patch('{{}}', {_row(*known)})::varchar, '{{}}')::json"


def _row(*without: str) -> str:
    """The record as a JSON object of the file's own columns, whatever they are called."""
    exclude = f" exclude ({', '.join(f'{chr(34)}{name}{chr(34)}' for name in without)})" if without else ""
    return f"to_json(struct_pack(*columns(*{exclude})))"


def _feeds() -> str:
    """Line feeds inside the record's quotes."""
    return "list_sum(list_transform([*columns(*)], lambda v: coalesce(length(v) - length(replace(v, chr(10), '')), 0)))"


def _typed(table: LandingTable, types: dict[str, str]) -> str:
    """Each column as its ``raw`` type, and ``<name>?``: whether a value was given at all."""
    parts = []
    for column in table.columns:
        if column.name not in types:
            parts.append(f'null::{column.kind.sql_type} as "{column.name}", false as "{column.name}?"')
            continue
        given, value = _value(column, types[column.name])
        parts.append(f'{value} as "{column.name}", {given} is not null as "{column.name}?"')
    return ", ".join(parts)


def _value(column: Column, given_type: str) -> tuple[str, str]:  # noqa: PLR0911
    """(the value as given or NULL, the typed value or NULL) of a column, as SQL."""
    name, kind = f'"{column.name}"', column.kind
    is_text = given_type == "VARCHAR"
    is_nested = given_type.endswith(("]", ")")) and not given_type.startswith("DECIMAL")
    given = f"nullif({name}, '')" if is_text else name
    if is_nested and kind not in (Kind.LIST, Kind.JSON):
        raise Unreadable(f"has {given_type} in column {column.name}, where the contract wants {kind.words}")
    match kind:
        case Kind.LIST | Kind.JSON if is_nested:
            return given, f"to_json({name})::{kind.sql_type}"
        case Kind.TEXT | Kind.LIST | Kind.USER:
            return given, given if is_text else f"{name}::varchar"
        case Kind.JSON:
            return given, f"case when json_valid({given}) then {given}::json end" if is_text else f"to_json({name})"
        case Kind.SWITCH:
            text = f"lower({given}::varchar)"
            return given, f"case when {text} in ('on', 'true') then true when {text} in ('off', 'false') then false end"
        case Kind.COUNT:
            if given_type.endswith(("INT", "INTEGER")):
                return given, f"try_cast({name} as bigint)"
            number = f"try_cast({given} as double)"
            return given, f"case when {number} = floor({number}) then try_cast({number} as bigint) end"
        case Kind.TIME:
            if given_type == "TIMESTAMP WITH TIME ZONE":
                return given, f"case when isfinite({name}) then make_timestamp(epoch_us({name})) end"
            if given_type.startswith(("TIMESTAMP", "DATE", "TIME")):
                raise Unreadable(f"has {given_type} in column {column.name}, which says nothing about its offset")
            if not is_text:  # also what a column of nothing but nulls looks like
                return given, "null::timestamp"
            moment = f"try_cast(case when regexp_full_match({name}, '{OFFSET_TIME}') then {name} end as timestamptz)"
            return given, f"make_timestamp(epoch_us({moment}))"
    return given, f"try_cast({given} as {kind.sql_type})"


def _reasons(table: LandingTable) -> str:
    """WHEN … THEN … for every rule of the contract, the first broken one being the reason."""
    rules = [('"#broken" is not null', '"#broken"')]
    for column in table.columns:
        name = f'"{column.name}"'
        if column.required:
            rules.append((f'not "{column.name}?"', f"'{column.name} is missing'"))
        if column.kind not in (Kind.TEXT, Kind.LIST, Kind.USER):
            rules.append((f'"{column.name}?" and {name} is null', f"'{column.name} is not {column.kind.words}'"))
        if column.allowed:
            listed = ", ".join(f"'{value}'" for value in column.allowed)
            rules.append((f"{name} not in ({listed})", f"'{column.name} is not one of {', '.join(column.allowed)}'"))
        if column.range_sql:
            rules.append((f"not ({column.range_sql})", f"'{column.name} {column.range_words}'"))
        if column.name == table.time:
            rules.append((f"{name} >= $end", f"'{column.name} lies after the end of known_date'"))
    rules += [(condition, f"'{reason}'") for condition, reason in table.needs]
    return " ".join(f"when {condition} then {reason}" for condition, reason in rules)


def first_line(error: BaseException) -> str:
    """The first line of an engine's message, without its link to our temporary path."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"\s*(in )?(file )?[\"'][^\"']*[\"']", "", line).strip()
