"""The steps of a day as functions: what DAGs, commands and tests all call.

Each step takes a shop's id and a day, opens the warehouse itself and leaves it closed, and may be run again at
any time: the second run equals the first. `STEPS` is the day from landing to report, in order.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select, update
from sqlalchemy.exc import DBAPIError, ResourceClosedError

import adloom
from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop, load_shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)


def ingest(shop_id: str, day: date) -> Any:
    """Bring landing folders up to ``day`` into raw; opens the day's run and marks later runs stale."""
    from adloom import sources
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
    with _step(shop, day, "ingest"):
        sources.land(shop, day)
        report = loading.ingest(shop, day)
        with warehouse(shop) as engine, engine.begin() as connection:
            connection.execute(
                update(ledger.runs)
                .where(ledger.runs.c.day == day)
                .values(input_digest=input_digests(connection, [day])[day])
            )
            mark_stale(connection)
    return report


def check(shop_id: str, day: date, door: str) -> Any:
    """Hold the day's data against the door's suite; raises `GateFailed` when it is red.

    A bad day must not slip through with the next day's run: the raw door looks at every earlier day whose marts are
    still to be built, the marts door at every earlier day that has not passed it.
    """
    from adloom.quality import gate
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    with _step(shop, day, f"check_{door}"):
        earlier = dbt.pending_days(shop, day) if door == "raw" else _unpassed_days(shop, day, door)
        for other in earlier:
            if other != day:
                gate.check(shop, other, door)
        return gate.check(shop, day, door)


def _unpassed_days(shop: Shop, day: date, door: str) -> list[date]:
    """known_dates before ``day`` that were never held against the door, or were refused by it; ascending."""
    landed, results = ledger.landing_days, ledger.quality_results
    with _reading(shop) as connection:
        known = connection.scalars(
            select(landed.c.known_date)
            .where(landed.c.known_date < day, landed.c.manifest_digest != "")
            .order_by(landed.c.known_date)
        ).all()
        of_door = select(results.c.day).where(results.c.door == door, results.c.day < day)
        judged = set(connection.scalars(of_door))
        refused = set(connection.scalars(of_door.where(~results.c.is_passed, results.c.severity == "fail")))
    return [one for one in known if one not in judged or one in refused]


def build(shop_id: str, day: date) -> Any:
    """Build the marts of every known_date up to ``day`` that are missing or older than their landing."""
    from adloom.warehouse import dbt

    shop = load_shop(shop_id)
    with _step(shop, day, "build"):
        return dbt.build(shop, day)


def evaluate(shop_id: str, day: date) -> None:
    """CTR, CR, maturity and verdicts as of ``day``."""
    from adloom import evaluation

    shop = load_shop(shop_id)
    with _step(shop, day, "evaluate"):
        _require_marts(shop, day)
        evaluation.evaluate(shop, day)


def adjust(shop_id: str, day: date) -> Any:
    """Tomorrow's shares from the facts known by the end of ``day``."""
    from adloom import strategy

    shop = load_shop(shop_id)
    with _step(shop, day, "adjust"):
        _require_marts(shop, day)
        return strategy.adjust(shop, day)


def publish(shop_id: str, day: date) -> Path:
    """Hand the plan of ``day`` to the ad server's folder."""
    from adloom.publishing import plan

    shop = load_shop(shop_id)
    with _step(shop, day, "publish"):
        return plan.publish(shop, day)


def snapshot(shop_id: str, day: date) -> Path:
    """Publish Parquet copies for pages, report and ``adloom sql``."""
    from adloom.reporting import snapshots

    shop = load_shop(shop_id)
    with _step(shop, day, "snapshot"):
        return snapshots.publish(shop, day)


def report(shop_id: str, day: date) -> Path:
    """Write ``report.html`` from the published snapshot and close the day's run."""
    from adloom.reporting import report as page

    shop = load_shop(shop_id)
    with _step(shop, day, "report"):
        path = page.write(shop, day)
        _finish(shop, day)
    return path


def portraits(shop_id: str, day: date) -> Any:
    """Segments of at least k users, the words they are described with, and affinities, as of ``day``.

    No step of the daily run: what writes creatives asks for it, on the days it needs it.
    """
    from adloom.audience.making import make_portraits

    shop = load_shop(shop_id)
    _require_marts(shop, day)
    return make_portraits(shop, day)


Step = Callable[[str, date], Any]

STEPS: dict[str, Step] = {
    "ingest": ingest,
    "check_raw": lambda shop_id, day: check(shop_id, day, "raw"),
    "build": build,
    "check_marts": lambda shop_id, day: check(shop_id, day, "marts"),
    "evaluate": evaluate,
    "adjust": adjust,
    "publish": publish,
    "snapshot": snapshot,
    "report": report,
}


def simulate(shop_id: str, day: date) -> Any:
    """Write one day of a simulated shop into its landing folder: what a shop's own systems would deliver.

    A driver's step, in no DAG: a run never makes its own input.
    """
    from adloom.simulation import sample_shop

    return sample_shop.write_day(load_shop(shop_id), day)


def run_day(shop_id: str, day: date, on_step: Callable[[str], None] = lambda name: None) -> None:
    """The whole day; ``on_step`` hears the name of each step before it begins."""
    for name, step in STEPS.items():
        on_step(name)
        step(shop_id, day)


def stale_days(shop_id: str) -> list[date]:
    """Days whose results are not what landing says now, ascending; replay them in this order.

    Looks at the landing folders first, so a folder filled, delivered again or taken away since is noticed. A day
    whose last run failed or was cut off belongs to them.
    """
    from adloom.warehouse import loading

    shop = load_shop(shop_id)
    runs = ledger.runs
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            last = connection.execute(select(func.max(runs.c.day))).scalar()
    if last is None:
        return []
    loading.ingest(shop, last)
    with warehouse(shop) as engine, engine.begin() as connection:
        mark_stale(connection)
        return list(connection.scalars(select(runs.c.day).where(runs.c.status != "done").order_by(runs.c.day)))


def is_newest(shop_id: str, day: date) -> bool:
    """Is ``day`` the greatest known_date among the landing folders? Only then are new creatives made."""
    from adloom.warehouse import loading

    newest = loading.newest_day(load_shop(shop_id))
    return newest is not None and day >= newest


def quality_summary(shop_id: str, day: date) -> dict[str, int]:
    """Checks of the day over all doors: how many passed, warned and failed."""
    results = ledger.quality_results
    query = (
        select(results.c.is_passed, results.c.severity, func.count())
        .where(results.c.day == day)
        .group_by(results.c.is_passed, results.c.severity)
    )
    summary = {"passed": 0, "warned": 0, "failed": 0}
    with _reading(load_shop(shop_id)) as connection:
        for is_passed, severity, count in connection.execute(query):
            summary["passed" if is_passed else "warned" if severity == "warn" else "failed"] += count
    return summary


@dataclass(frozen=True)
class PolicyRow:
    """One line of the summary a run ends with: campaign × policy over the last 7 days."""

    campaign_id: str
    policy_id: str
    impressions: int
    clicks: int
    ctr: float | None
    ctr_low: float | None
    ctr_high: float | None
    verdict: str


def summary(shop_id: str, day: date, window_days: int = 7) -> list[PolicyRow]:
    """Campaign × policy as of ``day``: counts, CTR with its interval, and the verdict of its comparison."""
    rates, verdicts = ledger.evaluations, ledger.verdicts
    with _reading(load_shop(shop_id)) as connection:
        said = {
            (row.campaign_id, arm): _verdict_words(row)
            for row in connection.execute(select(verdicts).where(verdicts.c.day == day))
            for arm in (row.arm_a, row.arm_b)
        }
        rows = connection.execute(
            select(rates)
            .where(rates.c.day == day, rates.c.grain == "policy", rates.c.window_days == window_days)
            .order_by(rates.c.campaign_id, rates.c.policy_id.desc())
        ).all()
    return [
        PolicyRow(
            row.campaign_id,
            row.policy_id,
            row.impressions,
            row.clicks,
            row.ctr,
            row.ctr_low,
            row.ctr_high,
            said.get((row.campaign_id, row.policy_id), said.get((None, row.policy_id), "")),
        )
        for row in rows
    ]


def _verdict_words(row: Row[Any]) -> str:
    """``winner: bts``, ``no difference``, ``needs about 58,000 more``, ``split broken``."""
    if row.winner is not None:
        return f"winner: {row.winner}"
    if row.verdict == "needs_more" and row.needed_more is not None:
        return f"needs about {row.needed_more:,} more"
    return str(row.verdict).replace("_", " ")


def summary_table(shop_id: str, day: date) -> str:
    """`summary` as text for a terminal or a log."""
    from tabulate import tabulate

    def percent(value: float | None) -> str:
        return "not enough data" if value is None else f"{value:.3%}"

    lines = [
        (
            row.campaign_id,
            row.policy_id,
            f"{row.impressions:,}",
            f"{row.clicks:,}",
            percent(row.ctr),
            f"{percent(row.ctr_low)} … {percent(row.ctr_high)}",
            row.verdict,
        )
        for row in summary(shop_id, day)
    ]
    interval = f"{load_shop(shop_id).evaluation.confidence:.0%} interval"
    headers = ("campaign", "policy", "impressions", "clicks", "CTR", interval, "verdict")
    return tabulate(lines, headers=headers, stralign="right", disable_numparse=True)


def run_history(shop_id: str) -> list[Row[Any]]:
    """Rows of ``adloom.runs``, ascending by day."""
    shop = load_shop(shop_id)
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
    with _reading(shop) as connection:
        return list(connection.execute(select(ledger.runs).order_by(ledger.runs.c.day)))


@dataclass(frozen=True)
class ModelRow:
    """A trained copy model, as a person lists it."""

    model_id: str
    trained_on: date
    base: str
    method: str
    pairs: int
    loss_base: float
    loss_tuned: float
    state: str
    """live | candidate | promoted DAY | rolled back DAY: why; with the day by which it must be retrained, if any"""
    licence: str


def models(shop_id: str, day: date | None = None) -> list[ModelRow]:
    """The copy models that were trained, newest first; ``day``: the day whose live model is meant (default: last)."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        rows = registry.all_models(connection)
        live = registry.live_model(connection, day or date.max)
    found = []
    for row in rows:
        metrics = json.loads(row.metrics)
        figures = float(metrics["loss_base"]), float(metrics["loss_tuned"])
        state = registry.state_words(row, live)
        found.append(ModelRow(row.model_id, row.day, row.base, row.method, row.pairs, *figures, state, row.licence))
    return found


def promote_model(shop_id: str, model_id: str, day: date, by: str) -> str:
    """Let a trained model write from ``day`` on."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        registry.promote(connection, model_id, day, by)
    return f"model {model_id} writes from {day} on"


def roll_back_model(shop_id: str, day: date, reason: str) -> str:
    """Take the model that is live on ``day`` out of use: the one before it writes again, or the base."""
    from adloom.copywriting import registry

    with _ledger(shop_id) as connection:
        withdrawn, now = registry.roll_back(connection, day, reason)
    return f"model {withdrawn} is out of use from {day} on; " + ("the base writes" if now is None else f"{now} writes")


@contextmanager
def _ledger(shop_id: str) -> Iterator[Connection]:
    """The ledger's tables, made if need be, in one transaction."""
    with warehouse(load_shop(shop_id)) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            yield connection


def query(shop_id: str, statement: str, live: bool = False) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Column names and rows of a read-only statement on the published snapshot, or on the warehouse itself."""
    from adloom.reporting import snapshots

    shop = load_shop(shop_id)
    try:
        opened = warehouse(shop, read_only=True) if live else snapshots.open_snapshot(shop)
        with opened as engine, engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return tuple(result.keys()), [tuple(row) for row in result]
    except (DBAPIError, ResourceClosedError) as error:
        reason = str(getattr(error, "orig", None) or error)
        raise UsageError(f"the query failed: {reason}", "tables are listed by `show all tables`") from error


def input_digests(connection: Connection, days: Sequence[date]) -> dict[date, str]:
    """Day → digest of every landing manifest up to it: what a run for that day may know."""
    landed = ledger.landing_days
    manifests = connection.execute(
        select(landed.c.known_date, landed.c.manifest_digest)
        # A folder that is gone leaves an empty manifest until its marts are emptied: the same as no folder.
        .where(landed.c.manifest_digest != "")
        .order_by(landed.c.known_date)
    ).all()
    digest, position, found = hashlib.sha256(), 0, {}
    for day in sorted(days):
        while position < len(manifests) and manifests[position].known_date <= day:
            digest.update(f"{manifests[position].known_date} {manifests[position].manifest_digest}\n".encode())
            position += 1
        found[day] = digest.copy().hexdigest()
    return found


def mark_stale(connection: Connection) -> None:
    """Set ``runs.status`` of every finished day whose landing has changed since to ``stale``."""
    runs = ledger.runs
    finished = {
        row.day: row.input_digest
        for row in connection.execute(select(runs.c.day, runs.c.input_digest).where(runs.c.status == "done"))
    }
    now = input_digests(connection, list(finished))
    stale = [day for day, digest in finished.items() if digest != now[day]]
    if stale:
        connection.execute(
            update(runs)
            .where(runs.c.day.in_(stale))
            .values(status="stale", message="landing changed after this run; replay it with `adloom run --stale`")
        )


@contextmanager
def _reading(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def _step(shop: Shop, day: date, name: str) -> Iterator[None]:
    """Write down that a step began and, if it fails, why. The step's own tables are its own transaction."""
    _record(shop, day, name, status="running")
    try:
        yield
    except Exception as error:
        _record(shop, day, name, status="failed", message=str(error))
        raise


def _record(shop: Shop, day: date, name: str, status: str, message: str | None = None) -> None:
    runs = ledger.runs
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            before = connection.execute(select(runs).where(runs.c.day == day)).mappings().one_or_none()
            fresh = before is None or name == "ingest"
            started = datetime.now(UTC).replace(tzinfo=None)
            row = {
                "day": day,
                "status": status,
                "step": name,
                "message": message,
                "input_digest": None if before is None else before["input_digest"],
                "config_digest": hashlib.sha256(shop.model_dump_json().encode()).hexdigest(),
                "code_version": adloom.__version__,
                "started_at": started if fresh or before is None else before["started_at"],
                "finished_at": None,
            }
            ledger.replace_rows(connection, runs, {"day": day}, [row])


def _finish(shop: Shop, day: date) -> None:
    runs = ledger.runs
    with warehouse(shop) as engine, engine.begin() as connection:
        connection.execute(
            update(runs)
            .where(runs.c.day == day)
            .values(status="done", finished_at=datetime.now(UTC).replace(tzinfo=None))
        )
        # A folder that changed while the day ran is found here, not silently kept.
        mark_stale(connection)


def _require_marts(shop: Shop, day: date) -> None:
    """Evaluation and strategy read marts that hold exactly the landing up to the day, or they do not start."""
    from adloom.warehouse import dbt

    pending = dbt.pending_days(shop, day)
    if pending:
        listed = ", ".join(str(one) for one in pending[:5]) + (" …" if len(pending) > 5 else "")
        raise AdloomError(
            f"the marts of {listed} are older than their landing",
            f"run `adloom build --shop {shop.id} --day {day}` first",
        )
