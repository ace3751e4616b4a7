"""Two processes at the same files: they take turns, say what they wait for, and a dead one holds up nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from adloom.errors import Busy
from adloom.shop import Shop
from adloom.turns import turn

DAY = date(2024, 3, 7)
HOLD = "with turn(load_shop('corner_shop'), 'creatives-2024-03-07'): print('held', flush=True); time.sleep(600)"
IMPORTS = "import sys, time; from adloom.shop import load_shop; from adloom.turns import turn\n"


@contextmanager
def process(code: str) -> Iterator[subprocess.Popen[str]]:
    """Another interpreter that runs ``code``, from when it has printed its first line until the block ends."""
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "held\n"
        yield started
    finally:
        started.kill()
        started.wait()


def test_the_second_waits_says_for_what_and_a_killed_holder_holds_nothing(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop()
    with process(IMPORTS + HOLD) as holder:
        monkeypatch.setenv("ADLOOM_LOCK_TIMEOUT_SECONDS", "0.2")
        with pytest.raises(Busy, match=r"another run of corner_shop is at this: creatives-2024-03-07") as busy:
            turn(shop, "creatives-2024-03-07").__enter__()
        assert busy.value.next_step.startswith("wait for it and run the step again")
        with turn(shop, "creatives-2024-03-08"), turn(shop, "publishing"):
            pass  # another day, or another kind of work, waits for nobody
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with turn(shop, "creatives-2024-03-07"):
            pass


def test_a_step_of_the_day_waits_its_turn_before_it_writes_anything(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline

    shop = make_shop()
    with process(IMPORTS + HOLD):
        monkeypatch.setenv("ADLOOM_LOCK_TIMEOUT_SECONDS", "0.1")
        for step in (pipeline.write_briefs, pipeline.plan_copy, pipeline.plan_images, pipeline.settle_approvals):
            with pytest.raises(Busy):
                step(shop.id, DAY)
        assert not shop.creatives.exists()


def _partial_of_copies(path: Path) -> Any:
    from adloom.copywriting.generating import _Partial

    return _Partial(path, "inputs")


def _partial_of_images(path: Path) -> Any:
    from adloom.imagery.generating import _Partial

    return _Partial(path, "inputs")


def _training_of_images(path: Path) -> Any:
    from adloom.imagery.runs import alone

    return alone(path.parent)


@pytest.mark.parametrize("lock", [_partial_of_copies, _partial_of_images, _training_of_images])
def test_a_shard_or_training_that_another_process_is_at_is_waited_for_and_not_an_error(
    lock: Callable[[Path], Any], tmp_path: Path
) -> None:
    """`Busy` is what makes a task try again; the other process goes on with whole files."""
    path = tmp_path / ".lock"
    code = f"import fcntl, time; f = open({str(path)!r}, 'w'); fcntl.flock(f, fcntl.LOCK_EX); "
    with process(code + "print('held', flush=True); time.sleep(600)"):
        held = lock(path)
        with pytest.raises(Busy, match="another process is"):
            held.__enter__()
    with lock(path):
        pass


PUBLISH = """
import sys
from datetime import date
from adloom import pipeline
for _ in range(6):
    pipeline.publish("corner_shop", date(2024, 3, 7))
    pipeline.publish_approved("corner_shop", date(2024, 3, 7))
"""


def test_two_runs_that_publish_the_same_plan_at_once_leave_it_whole(make_shop: Callable[..., Shop]) -> None:
    import duckdb

    from adloom.strategy import adjust
    from adloom.warehouse import ledger
    from adloom.warehouse.engine import warehouse

    shop = make_shop()
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
    with duckdb.connect(str(shop.home / "warehouse.duckdb")) as connection:
        connection.execute(
            "create schema marts;"
            "create table marts.fct_impressions (impression_id text, impression_at timestamp, impression_date date, "
            "impression_known_date date, is_valid boolean, user_hash text, creative_id text, segment_id text, "
            "campaign_id text, policy_id text, placement text, propensity double, click_known_date date);"
            "create table marts.dim_creatives as select unnest(['a', 'b']) as creative_id, 'spring' as campaign_id, "
            "date '2024-03-01' as known_date;"
            "create table marts.fct_creative_daily as select creative_id, 'all' as segment_id, 'home:1' as placement, "
            "'default' as policy_id, 'spring' as campaign_id, date '2024-03-06' as impression_date, "
            "date '2024-03-06' as known_date, 1000 as impressions, 9 as clicks from marts.dim_creatives"
        )
    adjust(shop, DAY)
    runs = [subprocess.Popen([sys.executable, "-c", PUBLISH], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in runs:
        _, said = one.communicate()
        assert one.returncode == 0, said
    root = shop.published / "plans"
    folder = root / json.loads((root / "CURRENT.json").read_text())["path"]
    assert json.loads((folder / "plan.json").read_text())["policies"]["adaptive"]["all"]["home:1"].keys() == {"a", "b"}
    assert sorted(path.name for path in folder.iterdir()) == ["audience.parquet", "plan.json", "plan.parquet"]
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
