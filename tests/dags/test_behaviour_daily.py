"""The daily DAG as Airflow sees it: ids, wiring, intervals, isolation of broken shops, cost of parsing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adloom.errors import AdloomError, GateFailed
from adloom.orchestration import DOC_SECTIONS, TAGS, strategy_asset, warehouse_pool
from adloom.settings import CHECKOUT, settings
from adloom.shop import Shop
from adloom.window import day_window, days_between, run_day

DAGS = CHECKOUT / "dags"
TASKS = [
    "ingest",
    "check_raw",
    "build_marts",
    "check_marts",
    "evaluate",
    "adjust_strategy",
    "publish_plan",
    "publish_snapshots",
]
KINDS = ("behaviour_daily", "creatives_daily", "privacy_daily")
ZONES = ["UTC", "Asia/Shanghai", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago"]


def test_the_checkout_has_exactly_these_dags(dag_bag: Callable[[], Any]) -> None:
    bag = dag_bag()
    assert bag.import_errors == {}
    shops = [path.stem for path in (CHECKOUT / "shops").glob("*.yml")]
    assert set(bag.dag_ids) == {f"{dag}__{shop}" for dag in KINDS for shop in shops}
    assert "behaviour_daily__zozotown" in bag.dag_ids


def test_a_dag_says_what_it_does_and_holds_its_shops_pool(dag_bag: Callable[[], Any], make_shop: Any) -> None:
    shop: Shop = make_shop(simulated=True)
    dag = dag_bag().dags[f"behaviour_daily__{shop.id}"]
    assert list(dag.task_dict) == TASKS
    for before, after in pairwise(TASKS):
        assert dag.task_dict[after].upstream_task_ids == {before}
    assert dag.tags == {"behaviour", "simulated"}
    assert dag.tags <= set(TAGS)
    assert dag.max_active_runs == 1
    assert dag.catchup is False
    assert [line for line in DOC_SECTIONS if f"**{line}.**" not in dag.doc_md] == []
    for task in dag.tasks:
        assert task.pool == warehouse_pool(shop.id)
        assert task.pool_slots == 1
        assert task.python_callable.__doc__
    assert [asset.name for asset in dag.task_dict["publish_snapshots"].outlets] == [strategy_asset(shop.id)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("schedule", ["0 3 * * *", "0 0 * * *", "30 2 * * *"])
def test_every_local_day_has_one_run_that_starts_when_the_day_is_over(
    zone: str, schedule: str, make_shop: Any, dag_bag: Callable[[], Any]
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    first, last = date(2024, 1, 1), date(2024, 12, 31)  # both changes of the clock, and a leap day
    shop: Shop = make_shop(time_zone=zone, schedule=schedule, start_day=first.isoformat())
    dag = DagSerialization.deserialize_dag(
        DagSerialization.serialize_dag(dag_bag().dags[f"behaviour_daily__{shop.id}"])
    )
    span = day_window(first, zone).start, day_window(last, zone).end - timedelta(seconds=1)
    intervals = [info.data_interval for info in dag.iter_dagrun_infos_between(*span)]
    days = [run_day({}, None, interval.start, zone) for interval in intervals]
    assert days == list(days_between(first, last))
    for day, interval in zip(days, intervals, strict=True):
        assert interval.start < interval.end
        assert interval.end >= day_window(day, zone).end
    assert [one.end for one in intervals[:-1]] == [one.start for one in intervals[1:]]


def test_a_broken_shop_breaks_only_its_own_dag(make_shop: Any, dag_bag: Callable[[], Any]) -> None:
    sound: Shop = make_shop()
    folder = settings().shops_dir
    (folder / "torn.yml").write_text("id: torn\nname: Torn\ntime_zone: Mars/Olympus\n", encoding="utf-8")
    (folder / "no_yaml.yml").write_text("id: [", encoding="utf-8")
    bag = dag_bag()
    assert set(bag.dag_ids) == {f"{dag}__{shop_id}" for dag in KINDS for shop_id in ("corner_shop", "torn", "no_yaml")}
    assert list(bag.dags[f"behaviour_daily__{sound.id}"].task_dict) == TASKS
    torn = bag.dags["behaviour_daily__torn"]
    assert torn.tags == {"broken"}
    assert "torn.yml" in torn.doc_md
    assert "Mars/Olympus" in torn.doc_md
    with pytest.raises(Exception, match="Mars/Olympus"):
        torn.task_dict["read_shop"].python_callable()
    # The banner over the list of DAGs names both files; it costs the sound shop nothing.
    ((file, reason),) = bag.import_errors.items()
    assert Path(file).name == "broken_shops.py"
    assert "torn.yml" in reason
    assert "no_yaml.yml" in reason


@pytest.mark.parametrize("path", sorted(DAGS.glob("*.py")), ids=lambda path: path.stem)
def test_parsing_is_cheap(path: Path) -> None:
    """Under .3 s of processor time beyond Airflow's own imports, and nothing heavy (pandas, dbt, …) is imported."""
    program = f"""
import airflow.dag_processing.dagbag, airflow.sdk, importlib.util, sys, time
known = set(sys.modules)
began = time.process_time()
spec = importlib.util.spec_from_file_location("parsed", {str(path)!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(time.process_time() - began)
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - known}}))
"""
    seconds, modules = [], set()
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
        took, names = done.stdout.splitlines()[-2:]
        seconds.append(float(took))
        modules |= set(names.split())
        if min(seconds) < 0.3:
            break
    assert min(seconds) < 0.3
    heavy = {"pandas", "torch", "great_expectations", "dbt", "duckdb", "duckdb_sqlalchemy", "scipy", "transformers"}
    assert not heavy & modules


# --- the tasks, run in this process with the steps of the pipeline replaced by recorders ------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    from adloom import pipeline

    called: list[tuple[Any, ...]] = []

    def recorder(name: str, answer: Any) -> Callable[..., Any]:
        return lambda *arguments: (called.append((name, *arguments)), answer)[1]

    for name in ("ingest", "check", "build", "evaluate", "adjust"):
        monkeypatch.setattr(pipeline, name, recorder(name, None))
    for name in ("publish", "snapshot", "report"):
        monkeypatch.setattr(pipeline, name, recorder(name, tmp_path / name))
    monkeypatch.setattr(pipeline, "quality_summary", lambda shop_id, day: {"passed": 12, "warned": 1, "failed": 0})
    monkeypatch.setattr(pipeline, "is_newest", lambda shop_id, day: False)
    return called


@pytest.mark.usefixtures("metadata_database")
def test_a_run_calls_the_steps_in_order_for_its_day_and_says_so(
    make_shop: Any, dag_bag: Callable[[], Any], steps: list[tuple[Any, ...]]
) -> None:
    shop: Shop = make_shop(time_zone="Asia/Shanghai")
    dag = dag_bag().dags[f"behaviour_daily__{shop.id}"]
    # 2024-03-10 20:00 UTC is 04:00 on the 11th in Shanghai: the last whole interval began on the 10th.
    run = dag.test(logical_date=datetime(2024, 3, 10, 20, tzinfo=ZoneInfo("UTC")))
    assert run.state == "success"
    day = date(2024, 3, 10)
    assert steps == [
        ("ingest", shop.id, day),
        ("check", shop.id, day, "raw"),
        ("build", shop.id, day),
        ("check", shop.id, day, "marts"),
        ("evaluate", shop.id, day),
        ("adjust", shop.id, day),
        ("publish", shop.id, day),
        ("snapshot", shop.id, day),
        ("report", shop.id, day),
    ]
    assert _states(run) == dict.fromkeys(TASKS, "success")


@pytest.mark.usefixtures("metadata_database")
def test_the_day_and_generate_can_be_given(
    make_shop: Any, dag_bag: Callable[[], Any], steps: list[tuple[Any, ...]]
) -> None:
    shop: Shop = make_shop()
    dag = dag_bag().dags[f"behaviour_daily__{shop.id}"]
    run = dag.test(run_conf={"day": "2024-03-07", "generate": True})
    assert run.state == "success"
    assert {call[2] for call in steps} == {date(2024, 3, 7)}


@pytest.mark.parametrize("error", [GateFailed("raw: 3 checks failed", "look at them"), AdloomError("model x", "mend")])
@pytest.mark.usefixtures("metadata_database")
def test_a_failure_that_is_explained_is_not_tried_again(
    error: AdloomError,
    make_shop: Any,
    dag_bag: Callable[[], Any],
    steps: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from adloom import pipeline

    def fail(*_arguments: Any) -> None:
        raise error

    monkeypatch.setattr(pipeline, "check", fail)
    shop: Shop = make_shop()
    run = dag_bag().dags[f"behaviour_daily__{shop.id}"].test(run_conf={"day": "2024-03-07"})
    assert run.state == "failed"
    assert _states(run) == {"ingest": "success", "check_raw": "failed"} | dict.fromkeys(TASKS[2:], "upstream_failed")
    assert [call[0] for call in steps] == ["ingest"]


@pytest.mark.usefixtures("metadata_database")
def test_a_historical_shop_skips_days_after_its_last(
    make_shop: Any, dag_bag: Callable[[], Any], steps: list[tuple[Any, ...]]
) -> None:
    shop: Shop = make_shop(end_day="2024-03-07")
    dag = dag_bag().dags[f"behaviour_daily__{shop.id}"]
    run = dag.test(run_conf={"day": "2024-03-08"})
    assert set(_states(run).values()) == {"skipped"}
    assert steps == []
    assert dag.test(run_conf={"day": "2024-03-07"}).state == "success"


def _states(run: Any) -> dict[str, str]:
    return {one.task_id: str(one.state) for one in run.get_task_instances()}
