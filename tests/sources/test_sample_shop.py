"""The source ``sample_shop`` never makes a day itself: it says what is missing and which command makes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop
from adloom.simulation.sample_shop import write_day
from adloom.sources import land

DAY = date(2025, 10, 1)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(
        id="sample_shop",
        language="zh",
        time_zone="Asia/Shanghai",
        simulated=True,
        source={"kind": "sample_shop", "options": {"users": 500}},
    )


def test_a_missing_day_names_the_driver_and_is_not_made(shop: Shop) -> None:
    with pytest.raises(AdloomError, match="no simulated day 2025-10-01") as stopped:
        land(shop, DAY)
    assert stopped.value.next_step == "adloom simulate --shop sample_shop --from 2025-10-01 --to 2025-10-01"
    assert not list(shop.landing.rglob("*.parquet"))


def test_the_days_between_are_named_with_it(shop: Shop) -> None:
    write_day(shop, date(2025, 9, 28))
    with pytest.raises(AdloomError) as stopped:
        land(shop, DAY)
    assert "--from 2025-09-29 --to 2025-10-01" in str(stopped.value.next_step)


def test_a_simulated_day_is_accepted_and_left_alone(shop: Shop) -> None:
    write_day(shop, DAY)
    before = {path: path.stat().st_mtime_ns for path in shop.landing.rglob("*.parquet")}
    land(shop, DAY)
    assert {path: path.stat().st_mtime_ns for path in shop.landing.rglob("*.parquet")} == before


def test_a_day_that_was_cut_off_is_not_accepted(shop: Shop) -> None:
    write_day(shop, DAY)
    for path in (shop.landing / "behaviours").rglob("*.parquet"):
        path.unlink()
    with pytest.raises(AdloomError, match="no simulated day"):
        land(shop, DAY)


def test_unknown_options_are_named(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(simulated=True, source={"kind": "sample_shop", "options": {"user": 500}})
    with pytest.raises(UsageError, match="does not know user"):
        land(shop, DAY)
