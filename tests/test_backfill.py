"""Backfill is boring: any order, twice, with holes filled later, beside another run, killed anywhere.

Every scenario must end with the content digests of one clean run in order over the real ad logs.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from adloom import pipeline, sources
from adloom.settings import CHECKOUT
from adloom.shop import Shop, load_shop
from adloom.warehouse.content import digests
from adloom.warehouse.engine import warehouse

pytestmark = pytest.mark.timeout(3600)

FIRST = date(2019, 11, 24)
LAST = date(2019, 11, 30)


@pytest.fixture(scope="module", params=[4, pytest.param(7, marks=pytest.mark.proof)], ids=["4 days", "7 days"])
def days(request: pytest.FixtureRequest) -> list[date]:
    """The first days of the real logs; all of them in ``make proof``."""
    return [FIRST + timedelta(days=number) for number in range(request.param)]


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The landing folder of the real shop, written once."""
    home = tmp_path_factory.mktemp("landing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLOOM_HOME", str(home))
        patch.setenv("ADLOOM_SHOPS_DIR", str(CHECKOUT / "shops"))
        shop = load_shop("zozotown")
        sources.land(shop, LAST)
        return shop.landing


def _copy_shop(folder: Path, landing: Path, patch: pytest.MonkeyPatch) -> Shop:
    """The same shop with the same deliveries, read by source ``files`` so that a day can be held back."""
    shops = folder / "shops"
    shops.mkdir(parents=True)
    content = yaml.safe_load((CHECKOUT / "shops" / "zozotown.yml").read_text(encoding="utf-8"))
    content["source"] = {"kind": "files"}
    (shops / "zozotown.yml").write_text(yaml.safe_dump(content), encoding="utf-8")
    patch.setenv("ADLOOM_HOME", str(folder / "home"))
    patch.setenv("ADLOOM_SHOPS_DIR", str(shops))
    patch.setenv("ADLOOM_USER_ID_KEY", "a key for tests only")
    shop = load_shop("zozotown")
    shutil.copytree(landing, shop.landing)
    return shop


def _digests(shop: Shop, day: date | None = None) -> dict[str, str]:
    with warehouse(shop) as engine:
        return digests(engine, day)


def _run(shop: Shop, days: Iterable[date]) -> None:
    for day in days:
        pipeline.run_day(shop.id, day)


@pytest.fixture(scope="module")
def clean(days: list[date], landing: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of one clean run, in order."""
    with pytest.MonkeyPatch.context() as patch:
        shop = _copy_shop(tmp_path_factory.mktemp("clean"), landing, patch)
        _run(shop, days)
        found = _digests(shop)
    assert {"marts.fct_creative_daily", "adloom.evaluations", "adloom.verdicts", "adloom.allocations"} <= set(found)
    return found


@pytest.fixture
def shop(landing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return _copy_shop(tmp_path, landing, monkeypatch)


@pytest.mark.parametrize("order", ["reverse", "shuffled, two of them twice"])
def test_the_order_of_days_does_not_matter(shop: Shop, clean: dict[str, str], days: list[date], order: str) -> None:
    shuffled = random.Random(7).sample(days, len(days))
    _run(shop, days[::-1] if order == "reverse" else shuffled + days[1:3])
    assert _digests(shop) == clean


def test_a_day_filled_late_makes_later_days_stale_and_replaying_them_mends_it(
    shop: Shop, clean: dict[str, str], days: list[date], tmp_path: Path
) -> None:
    held_back = tmp_path / "held_back"
    folder = shop.landing / "ad_events" / f"known_date={days[1]}"
    shutil.move(folder, held_back)
    _run(shop, [day for day in days if day != days[1]])
    shutil.move(held_back, folder)
    assert pipeline.stale_days(shop.id) == days[2:]
    _run(shop, [days[1]])
    _run(shop, pipeline.stale_days(shop.id))
    assert pipeline.stale_days(shop.id) == []
    assert _digests(shop) == clean


def test_a_backfill_beside_the_scheduled_day(shop: Shop, clean: dict[str, str], days: list[date]) -> None:
    failures: list[BaseException] = []

    def scheduled() -> None:
        done = subprocess.run(
            [sys.executable, "-m", "adloom", "run", "--shop", shop.id, "--day", str(days[-1])],
            capture_output=True,
            text=True,
            check=False,
            env=dict(os.environ),
        )
        if done.returncode:
            failures.append(AssertionError(done.stderr))

    other = threading.Thread(target=scheduled)
    other.start()
    _run(shop, days[:-1])
    other.join()
    assert not failures, failures
    assert _digests(shop) == clean


def test_a_row_known_later_changes_nothing_as_of_an_earlier_day(shop: Shop, days: list[date]) -> None:
    _run(shop, days[:2])
    before = _digests(shop, days[1])
    later = shop.landing / "ad_events" / f"known_date={days[1] + timedelta(days=1)}"
    shutil.rmtree(later)
    later.mkdir()
    planted = later / "late.csv"
    rows = ["event_id,event_type,occurred_at,creative_id,campaign_id,policy_id,channel,position,impression_id"]
    for number in range(400):
        at = f"{days[1]}T10:00:{number % 60:02d}+00:00"
        rows.append(f"late-{number},impression,{at},men-1,men,bts,men,1,")
        rows.append(f"late-{number}-click,click,{at},,,,,,late-{number}")
        rows.append(f"late-{number}-again,click,{at},,,,,,men-bts-{number}")
    planted.write_text("\n".join(rows) + "\n", encoding="utf-8")
    _run(shop, [days[2], days[1]])
    assert _digests(shop, days[1]) == before


def _run_until_killed(shop: Shop, step: str, day: date, last: date, delay: float) -> bool:
    """Run from ``day`` to ``last`` in a process of its own; SIGKILL it ``delay`` seconds into ``step`` of ``day``.

    Returns whether it was killed (and did not finish first).
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "adloom", "run", "--shop", shop.id, "--from", str(day), "--to", str(last)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.split() == [shop.id, str(day), step]:
            break
    else:
        raise AssertionError("".join(said))
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    return process.wait() == -signal.SIGKILL


def test_killed_anywhere_it_ends_the_same(shop: Shop, clean: dict[str, str], days: list[date]) -> None:
    chance = random.Random(5)
    steps = list(pipeline.STEPS)
    # Five kills over four days in `make test`; over seven days, four in each step.
    kills = 5 if len(days) < 7 else 4 * len(steps)
    killed = 0
    for number in range(kills):
        step = steps[(number * 2) % len(steps)]
        day = days[number * len(days) // kills]
        killed += _run_until_killed(shop, step, day, days[-1], chance.uniform(0, 1.5))
    assert killed >= kills * 0.8
    _run(shop, days)
    assert _digests(shop) == clean
