"""A door: evaluates its suite for one day, stores every result as a row, shows one table, and stays shut on red."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from sqlalchemy import Connection, Date, column, select, table
from sqlalchemy.exc import SQLAlchemyError

from adloom.errors import AdloomError, GateFailed, UsageError
from adloom.quality.facts import Facts, Measured
from adloom.quality.suites import DOORS, Check, suite
from adloom.settings import settings
from adloom.shop import Shop
from adloom.warehouse.engine import warehouse, warehouse_url
from adloom.warehouse.ledger import create_ledger, quality_results, replace_rows

log = logging.getLogger(__name__)

Status = Literal["passed", "skipped", "warned", "failed"]
SHOWN_VALUES = 3
LONGEST_TEXT = 300
NAMED_FAILURES = 8


@dataclass(frozen=True)
class Result:
    """What one check saw. ``skipped``: it could not be judged, ``observed`` says why."""

    check: Check
    status: Status
    observed: str
    rows_checked: int | None = None
    rows_unexpected: int | None = None

    def row(self, day: date, door: str) -> dict[str, Any]:
        """The row of ``adloom.quality_results``; a skipped check did not fail, and says that it was skipped."""
        return {
            "day": day,
            "door": door,
            "check_id": self.check.id,
            "table_name": self.check.table,
            "column_name": self.check.column,
            "expectation": self.check.expectation,
            "severity": self.check.severity,
            "is_passed": self.status in ("passed", "skipped"),
            "rows_checked": self.rows_checked,
            "rows_unexpected": self.rows_unexpected,
            "observed": f"skipped: {self.observed}" if self.status == "skipped" else self.observed,
            "expected": self.check.expected,
        }


@dataclass(frozen=True)
class QualityReport:
    """All results of a door for one day, in the suite's order."""

    shop_id: str
    day: date
    door: str
    results: tuple[Result, ...]

    def having(self, status: Status) -> list[Result]:
        return [result for result in self.results if result.status == status]

    @property
    def is_open(self) -> bool:
        return not self.having("failed")

    def summary(self) -> str:
        """One line: how many checks ended how."""
        counts = ", ".join(
            f"{len(self.having(status))} {status}" for status in ("failed", "warned", "skipped", "passed")
        )
        return f"{self.door} door of {self.shop_id} on {self.day}: {counts}"

    def table(self) -> str:
        """Every result as plain text, the worst first."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=self.summary(), title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("", "check", "observed", "expected"):
            shown.add_column(heading, overflow="fold")
        for status in ("failed", "warned", "skipped", "passed"):
            for result in self.having(status):
                cells = (status, result.check.id, result.observed, result.check.expected)
                shown.add_row(*(Text(cell) for cell in cells))
        out = io.StringIO()
        Console(file=out, width=160, color_system=None, force_terminal=False).print(shown)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def check(shop: Shop, day: date, door: str) -> QualityReport:
    """Judge the day at ``door`` (raw | marts), store and log the results, raise `GateFailed` if one failed.

    Replaces the day's rows of this door in ``adloom.quality_results``; reads only facts known by the day.
    """
    if door not in DOORS:
        raise UsageError(f"there is no door {door!r}", f"doors: {', '.join(DOORS)}")
    with warehouse(shop, read_only=True) as engine:
        try:
            connection = engine.connect()
        except (SQLAlchemyError, OSError) as error:
            raise AdloomError(f"the warehouse of {shop.id} cannot be read: {error}", "run `adloom ingest`") from error
        # The connection stays open while Great Expectations reads over its own, so that no writer comes between.
        with connection:
            results = tuple(_judge(connection, shop, day, door))
    report = QualityReport(shop.id, day, door, results)
    # Only now: DuckDB does not open one file for reading and for writing in one process at the same time.
    with warehouse(shop) as engine:
        create_ledger(engine)
        with engine.begin() as connection:
            rows = [result.row(day, door) for result in results]
            replace_rows(connection, quality_results, {"day": day, "door": door}, rows)
    log.log(logging.INFO if report.is_open else logging.ERROR, "%s", report.table())
    if not report.is_open:
        raise _refusal(report)
    return report


def _refusal(report: QualityReport) -> GateFailed:
    failed = report.having("failed")
    reasons = [f"{one.check.id}: {one.observed}; expected {one.check.expected}" for one in failed]
    if len(reasons) > NAMED_FAILURES:
        reasons[NAMED_FAILURES:] = [f"{len(reasons) - NAMED_FAILURES} more in the table"]
    steps = "; ".join(dict.fromkeys(one.check.next_step for one in failed[:NAMED_FAILURES]))
    return GateFailed(f"the {report.door} door stays shut on {report.day}: {' | '.join(reasons)}", steps)


# -- judging -----------------------------------------------------------------------------------------------------


def _judge(connection: Connection, shop: Shop, day: date, door: str) -> list[Result]:
    """Results of the door's suite, in its order."""
    facts = Facts(connection, shop, day)
    checks = suite(door, shop, day, _delivered(facts))
    measured = {one.id: _measure(facts, one) for one in checks if one.measure is not None}
    with _quiet_great_expectations() as context:
        judged = _judge_figures(context, checks, measured)
        with _rows_source(context, shop) as source:
            for name in dict.fromkeys(one.table for one in checks if one.measure is None):
                of_table = [one for one in checks if one.measure is None and one.table == name]
                judged |= _judge_rows(source, door, name, day, of_table)
    return [judged[one.id] for one in checks]


def _delivered(facts: Facts) -> set[str]:
    """Tables to be looked at: with rows on the day; the event tables also when the shop usually has them."""
    try:
        landed = facts.landed
    except SQLAlchemyError as error:
        raise AdloomError(f"the ledger of {facts.shop.id} cannot be read: {error}", "run `adloom ingest`") from error
    events = {name for name in ("ad_events", "behaviours") if any(landed.get(name, {}).values())}
    return {name for name, days in landed.items() if days.get(facts.day)} | events


def _measure(facts: Facts, one: Check) -> Measured | Exception:
    """The figure, or what went wrong on the way to it: a check that cannot be evaluated is red, never green."""
    assert one.measure is not None  # noqa: S101 - for the type checker
    try:
        return one.measure(facts)
    except SQLAlchemyError as error:
        facts.connection.rollback()
        return error


def _judge_figures(
    context: Any, checks: Sequence[Check], measured: dict[str, Measured | Exception]
) -> dict[str, Result]:
    """Evaluate the expectations on figures over a frame of one row with a column per check."""
    import pandas as pd

    judged: dict[str, Result] = {}
    figures: dict[str, Measured] = {}
    for one in checks:
        found = measured.get(one.id)
        if isinstance(found, Exception):
            judged[one.id] = _red(one, found)
        elif found is not None and found.value is None:
            judged[one.id] = Result(one, "skipped", found.observed)
        elif found is not None:
            figures[one.id] = found
    if figures:
        frame = pd.DataFrame([{check_id: found.value for check_id, found in figures.items()}])
        asset = context.data_sources.add_pandas("figures").add_dataframe_asset("figures")
        batch = asset.add_batch_definition_whole_dataframe("day").get_batch({"dataframe": frame})
        for one, outcome in _validate(batch, [one for one in checks if one.id in figures]):
            found = figures[one.id]
            judged[one.id] = (
                _red(one, outcome)
                if isinstance(outcome, Exception)
                else Result(one, _status(one, outcome["success"]), found.observed, found.rows, found.unexpected)
            )
    return judged


def _judge_rows(source: Any, schema: str, name: str, day: date, checks: Sequence[Check]) -> dict[str, Result]:
    """Evaluate the expectations on the rows of one table and day, inside the warehouse; doors are named as schemas."""
    names = {str(one.column) for one in checks} | {one.only_where[0] for one in checks if one.only_where}
    rows = table(name, column("known_date", Date), *map(column, sorted(names)), schema=schema)
    query = select(*(each for each in rows.c if each.name in names)).where(rows.c.known_date == day)
    # Great Expectations takes text only: our own identifiers and a date, as literals made by SQLAlchemy.
    sql = str(query.compile(dialect=source.get_engine().dialect, compile_kwargs={"literal_binds": True}))
    try:
        batch = source.add_query_asset(name, query=sql).add_batch_definition_whole_table("day").get_batch()
        outcomes = list(_validate(batch, checks))
    except Exception as error:  # whatever it is, it is not a pass
        return {one.id: _red(one, error) for one in checks}
    judged = {}
    for one, outcome in outcomes:
        if isinstance(outcome, Exception):
            judged[one.id] = _red(one, outcome)
            continue
        total, unexpected = int(outcome["element_count"]), int(outcome["unexpected_count"] or 0)
        if not total:
            judged[one.id] = Result(one, "skipped", "no such rows", 0, 0)
            continue
        observed = f"{unexpected} of {total} rows"
        examples = sorted({_cut(str(each), 40) for each in outcome["partial_unexpected_list"] if each is not None})
        if examples:
            observed += f", such as {', '.join(examples[:SHOWN_VALUES])}"
        judged[one.id] = Result(one, _status(one, outcome["success"]), observed, total, unexpected)
    return judged


def _validate(batch: Any, checks: Sequence[Check]) -> Iterator[tuple[Check, dict[str, Any] | Exception]]:
    """Each check with Great Expectations' result, or with the exception it met."""
    import great_expectations as gx
    from great_expectations.expectations.row_conditions import Column

    expectations = []
    for one in checks:
        condition = {"row_condition": Column(one.only_where[0]) == one.only_where[1]} if one.only_where else {}
        expectations.append(
            getattr(gx.expectations, one.expectation)(
                **one.arguments,
                **condition,
                severity={"fail": "critical", "warn": "warning"}[one.severity],
                meta={"check": one.id},
            )
        )
    by_id = {one.id: one for one in checks}
    validation = batch.validate(
        gx.ExpectationSuite("door", expectations=expectations), result_format={"result_format": "BASIC"}
    )
    for found in validation.results:
        one = by_id[found.expectation_config.meta["check"]]
        message = _exception_message(found.exception_info)
        yield one, RuntimeError(message) if message else dict(found.result) | {"success": bool(found.success)}


def _exception_message(info: Any) -> str | None:
    """The message inside GX's ``exception_info``: one record, or one for each metric that failed."""
    records = [info] if "raised_exception" in (info or {}) else list((info or {}).values())
    messages = [str(one.get("exception_message")) for one in records if one.get("raised_exception")]
    return "; ".join(dict.fromkeys(messages)) or None


def _status(one: Check, is_passed: bool) -> Status:
    if is_passed:
        return "passed"
    return "failed" if one.severity == "fail" else "warned"


def _red(one: Check, error: Exception) -> Result:
    """A check that could not be evaluated fails, whatever its severity: nobody knows what it would have said."""
    return Result(one, "failed", _cut(f"could not be evaluated: {error}", LONGEST_TEXT))


def _cut(text: str, length: int) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= length else f"{one_line[: length - 1]}…"


# -- Great Expectations ------------------------------------------------------------------------------------------


@contextmanager
def _quiet_great_expectations() -> Iterator[Any]:
    """An ephemeral context: nothing written to disk, no progress bars, no chatter in the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        chatter = logging.getLogger("great_expectations")
        level = chatter.level
        chatter.setLevel(logging.CRITICAL)
        try:
            yield gx.get_context(
                mode="ephemeral",
                project_config=DataContextConfig(
                    store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
                    progress_bars=ProgressBarsConfig(globally=False),
                    analytics_enabled=False,
                ),
            )
        finally:
            chatter.setLevel(level)


@contextmanager
def _rows_source(context: Any, shop: Shop) -> Iterator[Any]:
    """The shop's warehouse as a data source, opened exactly as `adloom.warehouse.engine` opens it for reading."""
    url = warehouse_url(shop).render_as_string(hide_password=False)
    source = context.data_sources.add_sql(
        "warehouse",
        connection_string=url.replace("$", r"\$"),  # GX would read $NAME as a variable to fill in
        kwargs={
            "connect_args": {
                "read_only": True,
                "config": {"threads": settings().threads, "memory_limit": settings().memory_limit},
            },
            # Without these GX's roll-backs fail on DuckDB ("list index out of range").
            "isolation_level": "AUTOCOMMIT",
            "skip_autocommit_rollback": True,
        },
        create_temp_table=False,
    )
    try:
        yield source
    finally:
        source.get_execution_engine().close()
        source.get_engine().dispose()
