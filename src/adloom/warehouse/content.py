"""Content digests: do two warehouses hold the same facts and results?

Left out are columns the clock wrote (marked ``wall_clock`` in the ledger) and the table ``runs``, which tells
when and how often, not what. Row order does not count.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import Engine, inspect, text

from adloom.warehouse import ledger

SCHEMAS = ("intermediate", "marts", ledger.SCHEMA)
DAY_COLUMNS = ("day", "known_date", "decided_on")


def _stated_columns(engine: Engine, schema: str, table: str) -> list[str]:
    columns = [column["name"] for column in inspect(engine).get_columns(table, schema=schema)]
    declared = ledger.metadata.tables.get(f"{schema}.{table}")
    if declared is None:
        return columns
    wall_clock = {column.name for column in declared.columns if column.info.get("wall_clock")}
    return [column for column in columns if column not in wall_clock]


def digests(engine: Engine, day: date | None = None) -> dict[str, str]:
    """``schema.table`` → digest of its rows; with ``day`` only rows whose day column is at most that day.

    Tables without a day column are left out when ``day`` is given.
    """
    found: dict[str, str] = {}
    # Always quoted: a column may be called position or value.
    quote = engine.dialect.identifier_preparer.quote_identifier
    names = inspect(engine)
    for schema in SCHEMAS:
        for table in sorted(names.get_table_names(schema=schema)):
            if (schema, table) == (ledger.SCHEMA, "runs"):
                continue
            columns = _stated_columns(engine, schema, table)
            day_column = next((name for name in DAY_COLUMNS if name in columns), None)
            if day is not None and day_column is None:
                continue
            listed = ", ".join(f"{quote(name)} := {quote(name)}" for name in columns)
            where = f"where {quote(day_column)} <= :day" if day is not None and day_column else ""
            # Names come from the catalogue and are quoted; the day is bound.
            query = text(
                f"select md5(coalesce(string_agg(line, '' order by line), '')) from "  # noqa: S608
                f"(select md5(cast(struct_pack({listed}) as varchar)) as line "
                f"from {quote(schema)}.{quote(table)} {where})"
            )
            with engine.connect() as connection:
                value = connection.execute(query, {"day": day} if where else {}).scalar_one()
            found[f"{schema}.{table}"] = str(value)
    return found
