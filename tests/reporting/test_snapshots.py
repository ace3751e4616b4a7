"""Snapshots: a reader sees one whole state, the same facts are the same files, and SQL reaches nothing else."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from adloom.errors import AdloomError, UsageError
from adloom.reporting import snapshots
from adloom.shop import Shop
from adloom.warehouse import ledger

Fill = Callable[[Shop], AbstractContextManager[Any]]
RATES = {("spring", "random"): (1000, 5), ("spring", "bts"): (1000, 7)}


@pytest.fixture
def shop(make_shop: Callable[..., Shop], fill: Fill) -> Shop:
    made = make_shop()
    with fill(made) as rows:
        rows.rates(RATES)
    return made


def files(shop: Shop) -> set[str]:
    root = snapshots.folder(shop)
    return {path.relative_to(root).as_posix() for path in root.glob("*/*.parquet")}


def impressions(shop: Shop) -> int:
    rates = ledger.evaluations
    query = select(rates.c.impressions).where(rates.c.grain == "overall")
    with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
        return int(connection.execute(query).scalar_one())


def test_ledger_tables_are_read_under_their_own_names(shop: Shop, day: date) -> None:
    snapshots.publish(shop, day)
    assert impressions(shop) == 14000


def test_tables_with_a_row_per_user_and_the_clock_stay_inside(shop: Shop, day: date) -> None:
    snapshots.publish(shop, day)
    with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
        columns = connection.execute(
            text("select table_schema || '.' || table_name, column_name from information_schema.columns")
        ).all()
    tables = {table for table, _ in columns}
    assert "marts.fct_creative_daily" in tables
    assert not tables & {"marts.fct_impressions", "marts.user_segments", "adloom.runs"}
    assert not [column for _, column in columns if column in {"user_hash", "loaded_at", "mtime_ns"}]


def test_the_same_facts_are_the_same_files_whoever_publishes(shop: Shop, day: date, fill: Fill) -> None:
    snapshots.publish(shop, day)
    first, before = snapshots.current(shop), files(shop)
    with fill(shop) as rows:  # the same rows in another physical order
        rows.connection.exec_driver_sql("create temp table kept as from adloom.evaluations")
        rows.connection.exec_driver_sql("delete from adloom.evaluations")
        rows.connection.exec_driver_sql("insert into adloom.evaluations from kept order by impressions, policy_id")
    snapshots.publish(shop, day - timedelta(days=3))
    assert snapshots.current(shop).version == first.version
    assert files(shop) == before


def test_a_change_rewrites_only_the_tables_it_touches(shop: Shop, day: date, fill: Fill) -> None:
    snapshots.publish(shop, day)
    before = snapshots.current(shop).tables
    with fill(shop) as rows:
        rows.verdict("spring")
    snapshots.publish(shop, day)
    after = snapshots.current(shop).tables
    assert {name for name in after if after[name] != before[name]} == {"adloom.verdicts"}


def test_the_set_before_is_kept_and_older_ones_go_after_the_grace(shop: Shop, day: date, fill: Fill) -> None:
    states = []
    for number in range(3):
        with fill(shop) as rows:
            rows.verdict(f"comparison_{number}")
        snapshots.publish(shop, day)
        states.append(snapshots.current(shop).tables["adloom.verdicts"])
    assert all(path.exists() for path in states), "a query may still be reading them"
    long_ago = states[0].stat().st_mtime - 2 * snapshots.GRACE_SECONDS
    os.utime(states[0], (long_ago, long_ago))
    os.utime(states[1], (long_ago, long_ago))
    snapshots.publish(shop, day)
    assert [path.exists() for path in states] == [False, True, True]


def test_a_reader_keeps_the_state_it_opened(shop: Shop, day: date, fill: Fill) -> None:
    snapshots.publish(shop, day)
    with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
        query = text("select count(*) from adloom.verdicts")
        assert connection.scalar(query) == 0
        with fill(shop) as rows:
            rows.verdict("spring")
        snapshots.publish(shop, day)
        assert connection.scalar(query) == 0
    with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
        assert connection.scalar(query) == 1


def test_an_interrupted_publication_changes_nothing(
    shop: Shop, day: date, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.publish(shop, day)
    with fill(shop) as rows:
        rows.connection.exec_driver_sql("update adloom.evaluations set impressions = 2 * impressions")

    def killed(source: Any, target: Any) -> None:
        if Path(target).name == "CURRENT":
            raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(snapshots.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            snapshots.publish(shop, day)
    assert impressions(shop) == 14000
    snapshots.publish(shop, day)
    assert impressions(shop) == 28000


def test_readers_beside_a_writer_always_see_one_whole_set(shop: Shop, day: date, fill: Fill) -> None:
    """Two tables are changed together; no reader may see one of them changed without the other."""
    snapshots.publish(shop, day)
    halt, torn = threading.Event(), []

    def look() -> None:
        query = text("select (select count(*) from adloom.verdicts), (select count(*) from adloom.quality_results)")
        while not halt.is_set():
            with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
                verdicts, checks = connection.execute(query).one()
            if verdicts != checks:
                torn.append((verdicts, checks))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for number in range(5):
            with fill(shop) as rows:
                rows.verdict(f"comparison_{number}")
                rows.check(f"check_{number}")
            snapshots.publish(shop, day)
    finally:
        halt.set()
        reader.join()
    assert torn == []


def test_paths_with_quotes_are_paths(
    make_shop: Callable[..., Shop], fill: Fill, day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADLOOM_HOME", str(tmp_path / "it's; drop schema marts; --"))
    shop = make_shop()
    with fill(shop) as rows:
        rows.rates(RATES)
    snapshots.publish(shop, day)
    assert impressions(shop) == 14000


@pytest.mark.parametrize(
    "query",
    [
        "select day, ctr from adloom.evaluations order by day limit 1",
        "with a as (select * from adloom.evaluations) select count(*) from a",
        "from adloom.evaluations limit 1",
        "describe adloom.evaluations",
        "summarize adloom.evaluations",
        "show all tables",
    ],
)
def test_queries_are_answered(shop: Shop, day: date, query: str) -> None:
    snapshots.publish(shop, day)
    with snapshots.open_snapshot(shop) as engine, engine.connect() as connection:
        assert connection.exec_driver_sql(query).all()


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('/etc/passwd')",
        "select * from sniff_csv('/etc/passwd')",
        "select * from glob('/etc/*')",
        "select * from duckdb_secrets()",
        "select * from query('copy (select 1) to ''out.csv''')",
        "copy (select 1) to 'out.csv'",
        "copy (select 1) to '{snapshot}' (use_tmp_file false)",
        "explain analyze copy (select 1) to '{snapshot}' (use_tmp_file false)",
        "attach 'other.duckdb'",
        "export database 'out'",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set variable adloom_evaluations = '/etc/passwd'",
        "drop view adloom.evaluations",
        "create table mine as select 1",
        "insert into adloom.verdicts select * from adloom.verdicts",
        "select 1; drop view adloom.evaluations",
        "pragma enable_profiling",
        "",
    ],
)
def test_anything_else_is_refused(
    shop: Shop, day: date, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.publish(shop, day)
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir(tmp_path))
    snapshot = snapshots.current(shop).tables["adloom.evaluations"]
    content = snapshot.read_bytes()
    with (
        snapshots.open_snapshot(shop) as engine,
        engine.connect() as connection,
        pytest.raises((UsageError, DBAPIError)),
    ):
        connection.exec_driver_sql(query.replace("{snapshot}", str(snapshot))).all()
    assert snapshot.read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == before


def test_nothing_published_and_nothing_built_say_what_to_do(make_shop: Callable[..., Shop], day: date) -> None:
    shop = make_shop()
    with pytest.raises(AdloomError, match="published nothing yet"), snapshots.open_snapshot(shop):
        pass
    with pytest.raises(AdloomError, match=r"has no marts\.dim_items.*adloom run"):
        snapshots.publish(shop, day)


def test_the_manifest_names_files_relative_to_itself(shop: Shop, day: date) -> None:
    manifest = json.loads(snapshots.publish(shop, day).read_text(encoding="utf-8"))
    assert manifest["day"] == day.isoformat()
    for name, file in manifest["tables"].items():
        assert file.startswith(f"{name}/")
        assert (snapshots.folder(shop) / file).is_file()
