"""Doors between days: what one day was refused for, the next day's run must not carry further."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from adloom import pipeline
from adloom.errors import GateFailed
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

FIRST, SECOND, THIRD = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)


def _land(shop: Shop, day: date) -> None:
    folder = shop.landing / "ad_events" / f"known_date={day}"
    folder.mkdir(parents=True)
    rows = [f"{day}-{number},impression,{day}T10:00:00+00:00,creative,0.5" for number in range(50)]
    head = "event_id,event_type,occurred_at,creative_id,propensity"
    (folder / "events.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def test_a_day_that_the_marts_door_refused_stops_the_days_after_it(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    for day in (FIRST, SECOND, THIRD):
        _land(shop, day)
    pipeline.ingest(shop.id, THIRD)
    pipeline.build(shop.id, THIRD)
    pipeline.check(shop.id, FIRST, "marts")
    with warehouse(shop) as engine, engine.begin() as connection:
        connection.exec_driver_sql("update marts.fct_creative_daily set clicks = -1 where known_date = '2024-03-02'")
    with pytest.raises(GateFailed, match=str(SECOND)):
        pipeline.check(shop.id, THIRD, "marts")
    with warehouse(shop) as engine, engine.connect() as connection:
        judged = set(
            connection.scalars(ledger.quality_results.select().with_only_columns(ledger.quality_results.c.day))
        )
    assert judged == {FIRST, SECOND}, "the third day is not judged before the second is mended"
    with warehouse(shop) as engine, engine.begin() as connection:
        connection.exec_driver_sql("update marts.fct_creative_daily set clicks = 0 where known_date = '2024-03-02'")
    pipeline.check(shop.id, THIRD, "marts")
