"""How fast is one day? Adloom's ingest → dbt → marts against one hand-written DuckDB script, from the same Parquet.

    .venv/bin/python benchmarks/daily_loop.py --behaviours 10000000 --ad-events 5000000
    .venv/bin/python benchmarks/daily_loop.py --history

The first compares with `handwritten` (same machine, threads and memory limit; both make the same marts, which is
checked by content) and prints where the time goes. The second runs the same day after 7 and after 365 days of small
history, ingested day by day; its marts are built for one of those days and copied to the others with other dates and
ids, because 365 builds would take a quarter of an hour and the rows are what a day has to find its way through.
Every measured step runs in a process of its own; its peak memory is what the system says of that process. Elapsed
time means little beside other load: then compare the CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import yaml

SHOP = "benchmark"
DAY = date(2024, 6, 30)
KEY = "a key for benchmarks only"
RATIO_LIMIT, MEMORY_LIMIT_GB, HISTORY_LIMIT = 1.5, 4.0, 1.15
HISTORY_SIZE = (2_000, 1_000)
HISTORY_LENGTHS = (7, 365)
SAME = {
    "fct_impressions": "impression_id, impression_at, impression_date, impression_known_date, is_valid, "
    "invalid_reason, user_hash, creative_id, segment_id, plan_id, campaign_id, policy_id, channel, position, "
    "placement, propensity, cost, currency, click_at, click_date, click_known_date, conversion_at, "
    "conversion_known_date, value",
    "fct_creative_daily": "creative_id, segment_id, channel, position, placement, policy_id, campaign_id, "
    "impression_date, click_date, conversion_lag_days, known_date, impressions, clicks, conversions, "
    "conversions_value, cost, invalid_impressions, invalid_clicks",
    "fct_behaviours_daily": "user_hash, item_id, behaviour, behaviour_date, known_date, events, quantity, value",
    "dim_creatives": "creative_id, campaign_id, first_impression_at, known_date",
    "dim_segments": "segment_id, known_date",
}
"""Marts and the columns in which both must agree, row by row."""

# A day of events, spread over it; every figure is a function of the row number, so the files are the same each time.
# One event in a thousand is delivered twice, one agent in two hundred is a bot, one impression in ten has no user.
BEHAVIOURS = """
with numbers as (
    select i, (hash(i, $day, 'behaviour') >> 1)::bigint as h from range($rows) as series (i)
),
events as (
    select 'b-' || $day || '-' || lpad((i - if(i % 1000 = 999, 1, 0))::varchar, 9, '0') as event_id,
        'user-' || (h % $users) as user_id,
        ['view', 'view', 'view', 'view', 'view', 'view', 'search', 'favourite', 'cart', 'purchase'][h // 7 % 10 + 1]
            as behaviour,
        $day::date::timestamp + to_milliseconds(h // 11 % 86400000) as moment,
        if(behaviour = 'search', null, 'item-' || ((h // 13 % 1000) * (h // 17 % 1000) // 100)) as item_id,
        if(behaviour = 'search', 'query ' || (h // 19 % 5000), null) as query,
        if(behaviour in ('cart', 'purchase'), h // 23 % 3 + 1, null)::bigint as quantity,
        if(behaviour in ('cart', 'purchase'), (h // 29 % 20000 / 100), null)::decimal(18, 2) as price
    from numbers
)
select * exclude (moment), timezone('UTC', moment) as occurred_at from events
"""
AD_EVENTS = """
with numbers as (
    select i - if(i % 1000 = 999, 1, 0) as n, (hash(n, $day, 'impression') >> 1)::bigint as h
    from range($rows) as series (i)
),
impressions as (
    select 'i-' || $day || '-' || lpad(n::varchar, 9, '0') as event_id, 'impression' as event_type,
        $day::date::timestamp + to_milliseconds(h // 11 % 86000000) as moment,
        'creative-' || (h // 13 % 500) as creative_id, event_id as impression_id,
        if(h // 17 % 10 = 0, null, 'user-' || (h // 19 % $users)) as user_id, 'all' as segment_id, 'plan-1' as plan_id,
        'campaign-' || (h // 13 % 20) as campaign_id, if(h // 23 % 20 = 0, 'holdout', 'adaptive') as policy_id,
        ['app', 'web', 'mail'][h // 29 % 3 + 1] as channel, ['top', 'feed', 'end'][h // 31 % 3 + 1] as position,
        0.002::double as propensity, null::decimal(18, 6) as value, 0.0012::decimal(18, 6) as cost, 'EUR' as currency,
        if(h // 37 % 200 = 0, 'Some bot/' || (h // 41 % 9), 'Browser/' || (h // 41 % 400)) as user_agent,
        '10.' || (h // 43 % 256) || '.' || (h // 47 % 256) as ip_prefix, h
    from numbers
),
clicks as (
    select * replace (
        'k' || event_id as event_id, 'click' as event_type, moment + to_milliseconds(h // 3 % 60000) as moment,
        0.05::decimal(18, 6) as cost)
    from impressions where h // 53 % 1000 < 6
),
conversions as (
    select * replace (
        'v' || event_id as event_id, 'conversion' as event_type,
        moment + to_milliseconds(h // 5 % 200000) as moment,
        if(user_id is not null and h // 59 % 2 = 0, null, impression_id) as impression_id,
        null as cost, (h // 61 % 9000 / 100)::decimal(18, 6) as value)
    from clicks where h // 67 % 20 = 0
),
events as (
    from impressions union all from clicks union all from conversions
)
select * exclude (moment, h), timezone('UTC', moment) as occurred_at from events
"""


def make_day(landing: Path, day: date, behaviours: int, ad_events: int) -> None:
    """Write the Parquet of one day: ``behaviours`` rows, and ``ad_events`` impressions with their outcomes (+ .6 %)."""
    users = max(behaviours // 10, 100)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for name, query, rows in (("behaviours", BEHAVIOURS, behaviours), ("ad_events", AD_EVENTS, ad_events)):
            folder = landing / name / f"known_date={day}"
            folder.mkdir(parents=True, exist_ok=True)
            values = {"day": day.isoformat(), "rows": rows, "users": users}
            connection.execute(
                f"copy ({query}) to $target (format parquet)", values | {"target": str(folder / "events.parquet")}
            )


@contextmanager
def home(keep: Path | None, started_on: date = DAY) -> Any:
    """A home of the benchmark's own, with one shop that compares its policies from ``started_on`` on."""
    root = keep or Path(tempfile.mkdtemp(prefix="adloom-benchmark-"))
    try:
        (root / "shops").mkdir(parents=True, exist_ok=True)
        shop = {
            "id": SHOP,
            "name": "Benchmark",
            "language": "en",
            "time_zone": "UTC",
            "start_day": "2023-01-01",
            "source": {"kind": "files"},
            "simulated": True,
            "evaluation": {
                "comparisons": [
                    {"id": "policies", "arms": ["holdout", "adaptive"], "started_on": started_on.isoformat()}
                ]
            },
        }
        (root / "shops" / f"{SHOP}.yml").write_text(yaml.safe_dump(shop), encoding="utf-8")
        yield root
    finally:
        if keep is None:
            shutil.rmtree(root, ignore_errors=True)


def measured(root: Path, work: str, day: date, threads: int, memory_limit: str) -> dict[str, Any]:
    """Run one worker in a process of its own; seconds per step, CPU seconds and peak memory."""
    environment = os.environ | {
        "ADLOOM_HOME": str(root / "home"),
        "ADLOOM_SHOPS_DIR": str(root / "shops"),
        "ADLOOM_USER_ID_KEY": KEY,
        "ADLOOM_THREADS": str(threads),
        "ADLOOM_MEMORY_LIMIT": memory_limit,
    }
    command = [sys.executable, __file__, "--worker", work, "--root", str(root), "--day", day.isoformat()]
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if finished.returncode:
        raise SystemExit(f"the worker {work!r} failed for {day}")
    return json.loads(finished.stdout.splitlines()[-1])


def work(name: str, root: Path, day: date) -> dict[str, Any]:
    """What a worker does: returns its figures."""
    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Any:
        begun, begun_cpu = time.perf_counter(), time.process_time()
        yield
        seconds[step], cpu[step] = time.perf_counter() - begun, time.process_time() - begun_cpu

    if name == "handwritten":
        from handwritten import build

        with timed("script"):
            build(
                root / "home" / "shops" / SHOP / "landing",
                day.isoformat(),
                root / "handwritten.duckdb",
                key=KEY.encode(),
                threads=int(os.environ["ADLOOM_THREADS"]),
                memory_limit=os.environ["ADLOOM_MEMORY_LIMIT"],
            )
    elif name == "adloom":
        with timed("import"):
            from adloom.shop import load_shop
            from adloom.warehouse import dbt, loading
        shop = load_shop(SHOP)
        with timed("ingest"):
            loading.ingest(shop, day)
        with timed("build"):
            dbt.build(shop, day)
    elif name == "ingest":
        from adloom.shop import load_shop
        from adloom.warehouse import loading

        with timed("ingest"):
            loading.ingest(load_shop(SHOP), day)
    elif name == "mark_built":
        mark_built(day)
    elif name == "evaluate":
        from adloom.evaluation import evaluate
        from adloom.shop import load_shop

        shop = load_shop(SHOP)
        with timed("evaluate"):
            evaluate(shop, day)
    elif name.startswith("door_"):
        from adloom.quality import gate
        from adloom.shop import load_shop

        with timed("import"):
            import great_expectations  # noqa: F401
        shop = load_shop(SHOP)
        with timed(name):
            gate.check(shop, day, name.removeprefix("door_"))
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "total": sum(seconds.values()),
        "cpu": sum(one.ru_utime + one.ru_stime for one in usage),
        "peak_gb": max(one.ru_maxrss for one in usage) / 1e6,
    }


def contents(path: Path) -> dict[str, tuple[int, int]]:
    """mart → rows and a hash that does not depend on their order."""
    with duckdb.connect(str(path), read_only=True) as connection:
        found = {}
        for mart, columns in SAME.items():
            query = f"select count(*), bit_xor(hash({columns})) from marts.{mart}"  # noqa: S608
            found[mart] = connection.execute(query).fetchone()
        return found


def outcomes(path: Path) -> dict[str, int]:
    """Sums that show the day was not an easy one."""
    names = ("impressions", "clicks", "conversions", "invalid_impressions", "invalid_clicks")
    with duckdb.connect(str(path), read_only=True) as connection:
        sums = ", ".join(f"sum({name})::bigint" for name in names)
        found = connection.execute(f"select {sums} from marts.fct_creative_daily").fetchone()  # noqa: S608
        return dict(zip(names, found or (), strict=True))


def nodes(root: Path, top: int = 8) -> list[tuple[str, float]]:
    """The dbt nodes that took longest, from dbt's own log of the last invocation."""
    log = root / "home" / "shops" / SHOP / "dbt" / "logs" / "dbt.log"
    pattern = re.compile(r"(?:OK|PASS) .*?(\S+) (?:\.+ |\.* )\[(?:OK|PASS) in ([\d.]+)s\]")
    found: dict[str, float] = {}
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            if match := pattern.search(line):
                found[match[1]] = float(match[2])
    return sorted(found.items(), key=lambda item: -item[1])[:top]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def amounts(figures: dict[str, Any]) -> str:
    """Time and memory of a worker."""
    return f"{figures['total']:8.1f} s   CPU {figures['cpu']:6.1f} s   peak {figures['peak_gb']:.2f} GB"


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """One big day: Adloom against the script."""
    with home(arguments.keep) as root:
        landing = root / "home" / "shops" / SHOP / "landing"
        say(f"making {arguments.behaviours:,} behaviours and {arguments.ad_events:,} impressions with their outcomes …")
        make_day(landing, DAY, arguments.behaviours, arguments.ad_events)
        for stale in (root / "handwritten.duckdb", root / "home" / "shops" / SHOP / "warehouse.duckdb"):
            stale.unlink(missing_ok=True)
        # A day of a shop that has run before, if only an empty day: dbt keeps its parsed project from day to day.
        eve = DAY - timedelta(days=1)
        (landing / "ad_events" / f"known_date={eve}").mkdir()
        measured(root, "adloom", eve, arguments.threads, arguments.memory_limit)
        figures = {}
        for name in ("handwritten", "adloom"):
            say(f"running {name} …")
            figures[name] = measured(root, name, DAY, arguments.threads, arguments.memory_limit)
            say(f"  {amounts(figures[name])}")
        say("comparing the marts …")
        ours = contents(root / "home" / "shops" / SHOP / "warehouse.duckdb")
        theirs = contents(root / "handwritten.duckdb")
        sums = outcomes(root / "handwritten.duckdb")
        slowest = nodes(root)
        doors = {}
        if arguments.doors:
            for door in ("door_raw", "door_marts"):
                say(f"running {door} …")
                doors[door] = measured(root, door, DAY, arguments.threads, arguments.memory_limit)
    ratio, cpu_ratio = (figures["adloom"][what] / figures["handwritten"][what] for what in ("total", "cpu"))
    return {
        "behaviours": arguments.behaviours,
        "impressions": arguments.ad_events,
        "threads": arguments.threads,
        "memory_limit": arguments.memory_limit,
        "load_average": os.getloadavg()[0],
        "figures": figures | doors,
        "slowest_nodes": slowest,
        "marts_rows": {mart: rows for mart, (rows, _) in ours.items()},
        "outcomes": sums,
        "marts_differ": [mart for mart in SAME if ours[mart] != theirs[mart]],
        "ratio": ratio,
        "cpu_ratio": cpu_ratio,
        "is_within": ratio <= RATIO_LIMIT and figures["adloom"]["peak_gb"] <= MEMORY_LIMIT_GB,
    }


def copy_marts(path: Path, built: date, days: list[date]) -> None:
    """Give every one of ``days`` the rows that the tables under the marts hold of ``built``, with its dates and ids."""
    with duckdb.connect(str(path)) as connection:
        tables = connection.execute(
            "select schema_name, table_name from duckdb_tables() where schema_name in ('intermediate', 'marts')"
        ).fetchall()
        for schema, table in tables:
            columns = connection.execute(
                "select column_name, data_type from duckdb_columns() where schema_name = $1 and table_name = $2",
                [schema, table],
            ).fetchall()
            moved = {
                "DATE": "{0} + (day - $built::date)::integer",
                "TIMESTAMP": "{0} + to_days((day - $built::date)::integer)",
                "VARCHAR": "replace({0}, $built, day::varchar)",
            }
            changes = ", ".join(f"{moved[kind].format(name)} as {name}" for name, kind in columns if kind in moved)
            connection.execute(
                f"insert into {schema}.{table} select * exclude (day) replace ({changes}) from "  # noqa: S608
                f"(select unnest($days::date[]) as day), {schema}.{table} where known_date = $built::date "
                "order by day",
                {"built": built.isoformat(), "days": days},
            )


def mark_built(last: date) -> None:
    """Let the ledger say that all marts up to ``last`` are up to date."""
    from adloom.shop import load_shop
    from adloom.warehouse.dbt import _stale_known_dates
    from adloom.warehouse.engine import warehouse
    from adloom.warehouse.ledger import landing_days

    shop = load_shop(SHOP)
    with warehouse(shop) as engine, engine.begin() as connection:
        for known_date, digest in _stale_known_dates(connection, shop, last).items():
            connection.execute(
                landing_days.update().where(landing_days.c.known_date == known_date).values(marts_digest=digest)
            )


def after_history(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same day after a short and after a long history of small days."""
    figures: dict[int, dict[str, Any]] = {}
    for length in HISTORY_LENGTHS:
        keep = arguments.keep / f"history-{length}" if arguments.keep else None
        history = [DAY - timedelta(days=offset) for offset in range(length, 0, -1)]
        with home(keep, history[0]) as root:

            def run(name: str, day: date, root: Path = root) -> dict[str, Any]:
                return measured(root, name, day, arguments.threads, arguments.memory_limit)

            landing = root / "home" / "shops" / SHOP / "landing"
            say(f"{length} days of history …")
            make_day(landing, history[0], *HISTORY_SIZE)
            run("adloom", history[0])
            for day in history[1:]:
                make_day(landing, day, *HISTORY_SIZE)
            say(f"  ingest {run('ingest', history[-1])['total']:.0f} s")
            copy_marts(root / "home" / "shops" / SHOP / "warehouse.duckdb", history[0], history[1:])
            run("mark_built", history[-1])
            run("evaluate", history[-1])
            make_day(landing, DAY, arguments.behaviours, arguments.ad_events)
            figures[length] = {"loop": run("adloom", DAY), "evaluate": run("evaluate", DAY)}
            for step, found in figures[length].items():
                say(f"  {step:<10}{amounts(found)}")
    short, long = (figures[length] for length in HISTORY_LENGTHS)
    ratios = {step: long[step]["total"] / short[step]["total"] for step in ("loop", "evaluate")}
    cpu_ratios = {step: long[step]["cpu"] / short[step]["cpu"] for step in ("loop", "evaluate")}
    return {
        "behaviours": arguments.behaviours,
        "impressions": arguments.ad_events,
        "load_average": os.getloadavg()[0],
        "figures": figures,
        "ratios": ratios,
        "cpu_ratios": cpu_ratios,
        "is_within": all(ratio <= HISTORY_LIMIT for ratio in ratios.values()),
    }


def show_comparison(found: dict[str, Any]) -> None:
    ours, theirs = found["figures"]["adloom"], found["figures"]["handwritten"]
    print(
        f"{found['behaviours']:,} behaviours and {found['impressions']:,} impressions, {found['threads']} threads, "
        f"engine limit {found['memory_limit']}, load average {found['load_average']:.1f}"
    )
    print(f"hand-written script {amounts(theirs)}")
    print(f"adloom              {amounts(ours)} (limit {MEMORY_LIMIT_GB:g})")
    for step, seconds in ours["seconds"].items():
        print(f"  {step:<18}{seconds:8.1f} s   CPU {ours['cpu_seconds'][step]:6.1f} s")
    for node, seconds in found["slowest_nodes"]:
        print(f"    {node:<36}{seconds:6.1f} s")
    for door in ("door_raw", "door_marts"):
        if door in found["figures"]:
            figures = found["figures"][door]
            print(f"{door:<20}{figures['seconds'][door]:8.1f} s   peak {figures['peak_gb']:.2f} GB (beyond its import)")
    print("marts: " + ("differ: " + ", ".join(found["marts_differ"]) if found["marts_differ"] else "the same content"))
    print(f"ratio {found['ratio']:.2f} (limit {RATIO_LIMIT:g}); of CPU seconds {found['cpu_ratio']:.2f}")


def show_history(history: dict[str, Any]) -> None:
    print(
        f"{history['behaviours']:,} behaviours and {history['impressions']:,} impressions after days of "
        f"{HISTORY_SIZE[0]:,} and {HISTORY_SIZE[1]:,}; load average {history['load_average']:.1f}"
    )
    for length, figures in history["figures"].items():
        steps = [(step, figures[part]) for part in ("loop", "evaluate") for step in figures[part]["seconds"]]
        listed = ", ".join(
            f"{step} {found['seconds'][step]:.1f} s (CPU {found['cpu_seconds'][step]:.1f})" for step, found in steps
        )
        print(f"after {length:>3} days: {listed}; peak {figures['loop']['peak_gb']:.2f} GB")
    for step, ratio in history["ratios"].items():
        cpu_ratio = history["cpu_ratios"][step]
        print(f"ratio of {step}: {ratio:.2f} (limit {HISTORY_LIMIT:g}); of CPU seconds {cpu_ratio:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--behaviours", type=int, default=10_000_000, help="rows")
    parser.add_argument("--ad-events", type=int, default=5_000_000, help="impressions")
    parser.add_argument("--history", action="store_true", help="the same day after 7 and after 365 small days")
    parser.add_argument("--doors", action="store_true", help="also time the two quality doors on the big day")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--memory-limit", default="3GB", help="of the engine, for both (default 3GB)")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--day", type=date.fromisoformat, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(arguments.worker, arguments.root, arguments.day)))
        return 0
    found = after_history(arguments) if arguments.history else compare(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        (show_history if arguments.history else show_comparison)(found)
    return 0 if found["is_within"] and not found.get("marts_differ") else 1


if __name__ == "__main__":
    sys.exit(main())
