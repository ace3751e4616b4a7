"""The sample shop through the daily loop: its doors stay green, on its greatest day, too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from adloom import pipeline
from adloom.shop import Shop
from adloom.window import days_between

DOUBLE_11 = date(2025, 11, 11)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(
        id="sample_shop",
        language="zh",
        time_zone="Asia/Shanghai",
        simulated=True,
        source={"kind": "sample_shop", "options": {"seed": 1, "users": 1200}},
    )


def test_the_rush_of_double_11_warns_and_passes(shop: Shop) -> None:
    for day in days_between(date(2025, 11, 6), DOUBLE_11):
        pipeline.simulate(shop.id, day)
    pipeline.ingest(shop.id, DOUBLE_11)
    pipeline.check(shop.id, DOUBLE_11, "raw")
    summary = pipeline.quality_summary(shop.id, DOUBLE_11)
    assert summary["failed"] == 0
    assert summary["warned"] > 0


def test_a_day_passes_both_doors_and_its_offers_are_translated(shop: Shop) -> None:
    pipeline.simulate(shop.id, DOUBLE_11)
    for name in ("ingest", "check_raw", "build", "check_marts"):
        pipeline.STEPS[name](shop.id, DOUBLE_11)
    summary = pipeline.quality_summary(shop.id, DOUBLE_11)
    assert (summary["failed"], summary["warned"]) == (0, 0)
    _, offers = pipeline.query(
        shop.id,
        "select translations ->> '$.en.offer' from staging.stg_landing__campaigns where campaign_id = 'double_11_2025'",
        live=True,
    )
    assert offers == [("¥50 off every ¥300, across all categories",)]
    _, events = pipeline.query(
        shop.id, "select count(*), count(translations) from staging.stg_landing__hot_events", live=True
    )
    assert events[0][0] == events[0][1] > 0
    _, items = pipeline.query(
        shop.id,
        "select attributes ->> '$.translations.en.title' from marts.dim_items where item_id = 'hp001'",
        live=True,
    )
    assert items == [("Whalenote Xiaoman noise-cancelling earbuds",)]
