"""Builds the marts: runs dbt, in this process, for one known_date after the other.

dbt is told everything (`run_vars`), asks no clock and no network, and writes its target and logs under the shop's
home. What a known_date's marts were built from is kept as ``landing_days.marts_digest``; a known_date is built when
that differs from what it should be, so a second run does nothing and a killed one is repaired by the next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, column, func, select, table, update

from adloom.errors import AdloomError, UsageError
from adloom.settings import settings
from adloom.shop import Shop
from adloom.warehouse.engine import warehouse, warehouse_url
from adloom.warehouse.ledger import create_ledger, landing_days, landing_files

log = logging.getLogger(__name__)

MARTS = (
    "dim_creatives",
    "dim_items",
    "dim_segments",
    "fct_behaviours_daily",
    "fct_creative_daily",
    "fct_impressions",
    "user_segments",
)
_KNOWN_DATE_OF = {"fct_impressions": "impression_known_date"}

# How many look-backs a mart row's facts may lie before it. A counted conversion looks back for its click, another
# conversion that claimed that click looks back for its own, a click for its impression, an impression for its
# user's day, and each of those for duplicates: six steps of `lookback_days`, however unlikely all are at once.
REACH_IN_LOOKBACKS = 6
# Users' state is carried forward without end, so all deliveries of these tables count.
_STATEFUL_TABLES = ("users", "privacy_requests")
# The manifest digest that the loader gives a known_date whose folders have vanished, until its marts are emptied.
GONE = ""
# Parsing needs some known_date; nothing is built from this one.
_PARSE_ONLY = date(1970, 1, 1)


@dataclass
class BuildReport:
    """What a build did: the known_dates it built, ascending, and the rows each mart now holds of them."""

    known_dates: list[date] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def run_vars(shop: Shop, known_date: date) -> dict[str, Any]:
    """All that the models are told about a run."""
    return {
        "known_date": known_date.isoformat(),
        "time_zone": shop.time_zone,
        "attribution_window_days": shop.attribution_window_days,
        "lookback_days": shop.lookback_days,
        "impressions_per_user_day": shop.limits.impressions_per_user_day,
        "bot_user_agents": shop.bot_user_agents,
        "unknown_age_is_minor": shop.unknown_age_is_minor,
    }


def portrait_vars(shop: Shop, days: Sequence[date]) -> dict[str, Any]:
    """What only the models tagged portraits are told; no mart goes stale by it. The last day is the known_date."""
    figures = shop.portraits.model_dump(exclude={"min_moved_users", "affinity_days"}, mode="json")
    return figures | {
        "portrait_days": ",".join(day.isoformat() for day in days),
        "left_out_categories": "/".join(shop.portraits.left_out_categories),
    }


def build(shop: Shop, day: date) -> BuildReport:
    """Build, ascending, every known_date up to ``day`` whose marts are not what its landing says they should be.

    A known_date that left landing is emptied the same way. Raises `AdloomError` naming the node that failed.
    """
    began = time.monotonic()
    with warehouse(shop) as engine:
        create_ledger(engine)
        with engine.connect() as connection:
            stale = _stale_known_dates(connection, shop, day)
    report = BuildReport()
    if stale:
        project = _Project(shop)
        for known_date, digest in sorted(stale.items()):
            started = time.monotonic()
            if not _claim(shop, known_date, digest):
                continue
            project.build(known_date, with_views=not report.known_dates)
            rows = _store_digest(shop, known_date, digest)
            for mart, count in rows.items():
                report.rows[mart] = report.rows.get(mart, 0) + count
            report.known_dates.append(known_date)
            log.info(
                "known_date %s built in %.1f s: %s",
                known_date,
                time.monotonic() - started,
                ", ".join(f"{count:,} {mart}" for mart, count in rows.items() if count) or "no rows",
            )
    report.seconds = time.monotonic() - began
    log.info("marts of %s up to %s: %d known_dates built", shop.id, day, len(report.known_dates))
    return report


def pending_days(shop: Shop, day: date) -> list[date]:
    """known_dates up to ``day`` whose marts are missing or older than their landing, ascending: what `build` builds."""
    with warehouse(shop) as engine:
        create_ledger(engine)
        with engine.connect() as connection:
            return sorted(_stale_known_dates(connection, shop, day))


def run_dbt(
    shop: Shop,
    known_date: date,
    select: str | None = None,
    command: str = "build",
    portrait_days: Sequence[date] | None = None,
) -> list[str]:
    """Run ``dbt build`` (or ``test``, ``run`` …) for one known_date; returns the names of the nodes that ran.

    ``portrait_days``: the days that models tagged portraits are built for at once, the last one ``known_date``.
    Raises `AdloomError` where the selection matches nothing, or naming every failing node with its message.
    """
    return _Project(shop).build(known_date, select=select, command=command, portrait_days=portrait_days)


# --- which known_dates -------------------------------------------------------------------------------------------


def _stale_known_dates(connection: Connection, shop: Shop, day: date) -> dict[date, str | None]:
    """known_date → the digest its marts should have; None for one that is no longer in landing."""
    rows = connection.execute(
        select(
            landing_days.c.known_date,
            landing_days.c.manifest_digest,
            landing_days.c.marts_digest,
            landing_days.c.purged_on,
        )
        .where(landing_days.c.known_date <= day)
        .order_by(landing_days.c.known_date)
    ).all()
    stateful = connection.execute(
        select(
            landing_files.c.known_date, landing_files.c.table_name, landing_files.c.source_file, landing_files.c.sha256
        )
        .where(landing_files.c.known_date <= day, landing_files.c.table_name.in_(_STATEFUL_TABLES))
        .order_by(*landing_files.primary_key.columns)
    ).all()
    expected = _expected_digests(shop, {row.known_date: row.manifest_digest for row in rows}, stateful)
    stale: dict[date, str | None] = {
        row.known_date: expected.get(row.known_date)
        for row in rows
        # Without its raw rows a known_date cannot be built again: its marts stay.
        if row.purged_on is None and (row.manifest_digest == GONE or row.marts_digest != expected[row.known_date])
    }
    built = _built_known_dates(connection, day)
    return {**stale, **dict.fromkeys(built - expected.keys())}


def _built_known_dates(connection: Connection, day: date) -> set[date]:
    """known_dates that have rows in the marts: dim_segments, built last, has a row for each of them."""
    if not connection.dialect.has_table(connection, "dim_segments", schema="marts"):
        return set()
    known_date: Any = column("known_date")
    segments = table("dim_segments", known_date, schema="marts")
    return set(connection.scalars(select(known_date).select_from(segments).where(known_date <= day).distinct()))


def _expected_digests(shop: Shop, manifests: Mapping[date, str], stateful: Iterable[Any]) -> dict[date, str]:
    """known_date → SHA-256 over all that its marts are made from: facts within reach, users' history, vars, models."""
    facts = {known_date: manifest for known_date, manifest in manifests.items() if manifest != GONE}
    configuration = run_vars(shop, _PARSE_ONLY)
    base = hashlib.sha256(json.dumps([configuration, project_digest()], sort_keys=True).encode())
    reach = timedelta(days=REACH_IN_LOOKBACKS * shop.lookback_days)
    files = [(row.known_date, json.dumps([str(part) for part in row])) for row in stateful]
    days = sorted(facts)
    lines = [f"{day} {facts[day]}\n".encode() for day in days]
    digests, position, first = {}, 0, 0
    for last, known_date in enumerate(days, start=1):
        while position < len(files) and files[position][0] <= known_date:
            base.update(files[position][1].encode())
            position += 1
        while days[first] < known_date - reach:
            first += 1
        own = base.copy()
        own.update(b"".join(lines[first:last]))
        digests[known_date] = own.hexdigest()
    return digests


def project_digest(folders: tuple[str, ...] = ("models", "macros")) -> str:
    """SHA-256 over the project's SQL and YAML: a changed model or macro makes every known_date stale."""
    root = settings().dbt_project_dir
    files = [root / "dbt_project.yml"]
    for folder in folders:
        files += [path for path in (root / folder).rglob("*") if path.suffix in {".sql", ".yml"}]
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _claim(shop: Shop, known_date: date, digest: str | None) -> bool:
    """Note that the marts of a known_date are being built; False where another process has just built them.

    Without the note, a build killed half-way through a re-delivery that is then taken back would look finished. Without
    the look before it, a known_date that a run beside this one has finished would be pending again under its hands.
    """
    own = landing_days.c.known_date == known_date
    with warehouse(shop) as engine, engine.begin() as connection:
        if digest is not None and connection.execute(select(landing_days.c.marts_digest).where(own)).scalar() == digest:
            return False
        connection.execute(update(landing_days).where(own).values(marts_digest=None))
        return True


def _store_digest(shop: Shop, known_date: date, digest: str | None) -> dict[str, int]:
    """Note what the marts of a known_date were built from, or forget a known_date that left landing.

    Returns the rows of each mart.
    """
    own = landing_days.c.known_date == known_date
    with warehouse(shop) as engine, engine.begin() as connection:
        if digest is None:
            connection.execute(landing_days.delete().where(own, landing_days.c.manifest_digest == GONE))
        else:
            connection.execute(update(landing_days).where(own).values(marts_digest=digest))
        return _rows_of(connection, known_date)


def _rows_of(connection: Connection, known_date: date) -> dict[str, int]:
    rows = {}
    for mart in MARTS:
        key: Any = column(_KNOWN_DATE_OF.get(mart, "known_date"))
        count = select(func.count()).select_from(table(mart, key, schema="marts")).where(key == known_date)
        rows[mart] = connection.execute(count).scalar_one()
    return rows


# --- running dbt -------------------------------------------------------------------------------------------------


class _Project:
    """The parsed dbt project of one shop; parsed once, run for many known_dates."""

    _parsed: ClassVar[dict[tuple[str, str], Any]] = {}

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        # What is parsed does not depend on the shop, except for the database's name in every relation.
        key = (project_digest(("models", "macros", "tests")), Path(_database(shop)).stem)
        if key not in self._parsed:
            self._parsed[key] = self._invoke(["parse"], _PARSE_ONLY, None).result
        self.manifest = self._parsed[key]

    def build(
        self,
        known_date: date,
        select: str | None = None,
        command: str = "build",
        *,
        with_views: bool = True,
        portrait_days: Sequence[date] | None = None,
    ) -> list[str]:
        """Run one command for one known_date; the names of the nodes that ran.

        Without a selection all models and their tests run, but not those tagged portraits, which have a step of their
        own, and not the unit tests: they say nothing about the data.
        Views hold no known_date, so they need to be made only for the first of several known_dates.
        """
        if select is not None:
            selection = ["--select", select]
        elif with_views:
            selection = ["--exclude", "tag:portraits", "--exclude-resource-type", "unit_test"]
        else:
            nodes = [node for node in self.manifest.nodes.values() if node.config.materialized != "view"]
            apart = {node.unique_id for node in nodes if "portraits" in node.tags}
            nodes = [node for node in nodes if not apart & {node.unique_id, getattr(node, "attached_node", None)}]
            selection = ["--indirect-selection", "empty", "--select", *sorted(node.name for node in nodes)]
        outcome = self._invoke([command, *selection], known_date, self.manifest, portrait_days)
        results = list(outcome.result.results)
        failed = [result for result in results if result.status in {"error", "fail", "runtime error"}]
        if failed:
            listed = "; ".join(_describe(result) for result in failed)
            raise AdloomError(
                f"dbt failed for known_date {known_date} of {self.shop.id}: {listed}",
                "mend the named model or the data it reads, then run the day again; "
                f"details are in {_folder(self.shop) / 'logs' / 'dbt.log'}",
            )
        if not results:
            raise AdloomError(
                f"the dbt selection {select!r} matches nothing"
                if select is not None
                else "the dbt project holds no models",
                f"`dbt ls` in {settings().dbt_project_dir.name} shows the names to choose from",
            )
        return [result.node.name for result in results]

    def _invoke(
        self, command: list[str], known_date: date, manifest: Any, portrait_days: Sequence[date] | None = None
    ) -> Any:
        from dbt.cli.main import dbtRunner  # takes two seconds: only a step that runs dbt pays them

        folder = _folder(self.shop)
        variables = run_vars(self.shop, known_date) | portrait_vars(self.shop, portrait_days or [known_date])
        arguments = [
            *("--no-use-colors", "--no-send-anonymous-usage-stats", "--no-version-check", "--no-print"),
            *("--no-write-json", "--log-level", "none", "--log-level-file", "info", "--log-path", str(folder / "logs")),
            *command,
            *("--project-dir", str(settings().dbt_project_dir), "--profiles-dir", str(settings().dbt_project_dir)),
            *("--target-path", str(folder / "target")),
            *("--vars", json.dumps(variables)),
        ]
        try:
            with _environment(self.shop):
                outcome = dbtRunner(manifest=manifest).invoke(arguments)
        finally:
            _close_duckdb()
        if outcome.exception is not None:
            if not isinstance(outcome.exception, Exception):
                raise outcome.exception  # a signal or the scheduler's time limit, not dbt's own failure
            raise AdloomError(
                f"dbt {command[0]} for known_date {known_date} of {self.shop.id}: {_first_lines(outcome.exception)}",
                "mend the dbt project or the file it names",
            ) from outcome.exception
        return outcome


def _close_duckdb() -> None:
    """dbt-duckdb keeps its database open for the next invocation; the next step must find the file free."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    environment = DuckDBConnectionManager._ENV
    if environment is not None:
        environment.close()
    DuckDBConnectionManager.close_all_connections()


@contextmanager
def _environment(shop: Shop) -> Iterator[None]:
    """What profiles.yml reads, for the length of one invocation."""
    values = {
        "ADLOOM_DBT_WAREHOUSE": _database(shop),
        "ADLOOM_DBT_THREADS": str(settings().threads),
        "ADLOOM_DBT_MEMORY_LIMIT": settings().memory_limit,
        "DO_NOT_TRACK": "1",
    }
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        # dbt also reads a .env of the working directory, which may hold settings of another installation.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _database(shop: Shop) -> str:
    path = warehouse_url(shop).database
    if not path or path == ":memory:":
        raise UsageError(f"{shop.id}.yml: warehouse_url: dbt needs a file", "name one or leave warehouse_url out")
    return str(Path(path).resolve())


def _folder(shop: Shop) -> Path:
    return shop.home / "dbt"


def _describe(result: Any) -> str:
    """``model int_x: message`` or ``test y: 3 failing rows``."""
    if result.status == "fail":
        return f"{result.node.resource_type} {result.node.name}: {result.failures} failing rows"
    return f"{result.node.resource_type} {result.node.name}: {_first_lines(result.message)}"


def _first_lines(message: object, lines: int = 6) -> str:
    """The start of a message on one line: dbt appends the path of compiled SQL, DuckDB draws an arrow under it."""
    kept = [line.strip() for line in str(message).splitlines() if line.strip()]
    return " ".join(kept[:lines])
