"""The source ``files`` says what is missing, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop
from adloom.sources import land

DAY = date(2024, 3, 1)


def test_a_new_shop_is_told_where_to_put_files(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    with pytest.raises(AdloomError, match="no files of ad_events or behaviours up to 2024-03-01") as stopped:
        land(shop, DAY)
    assert str(shop.landing / "ad_events" / "known_date=2024-03-01") in stopped.value.next_step
    assert shop.landing.is_dir()


@pytest.mark.parametrize("table", ["ad_events", "behaviours"])
def test_either_of_the_two_tables_is_enough(make_shop: Callable[..., Shop], table: str) -> None:
    shop = make_shop()
    (shop.landing / table / "known_date=2024-02-29").mkdir(parents=True)
    land(shop, DAY)


def test_a_later_day_does_not_count(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    (shop.landing / "ad_events" / "known_date=2024-03-02").mkdir(parents=True)
    with pytest.raises(AdloomError, match="up to 2024-03-01"):
        land(shop, DAY)


def test_a_day_without_a_folder_is_said(make_shop: Callable[..., Shop], caplog: pytest.LogCaptureFixture) -> None:
    shop = make_shop()
    (shop.landing / "ad_events" / "known_date=2024-02-29").mkdir(parents=True)
    land(shop, DAY)
    assert "no folder known_date=2024-03-01" in caplog.text


def test_options_are_refused(make_shop: Callable[..., Shop]) -> None:
    with pytest.raises(UsageError, match="does not know folder"):
        land(make_shop(source={"kind": "files", "options": {"folder": "x"}}), DAY)
