"""A shop with two placements and a week of hand-written marts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

FIRST = date(2024, 3, 1)


class PlannedShop:
    """A shop with evidence for seven days from `FIRST`; nothing is planned yet."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)
        self.execute(
            "create schema marts;"
            "create table marts.fct_impressions (impression_id text, impression_date date, impression_known_date date, "
            "is_valid boolean, user_hash text, creative_id text, segment_id text, campaign_id text, policy_id text, "
            "placement text, propensity double, click_known_date date);"
            "create table marts.dim_creatives as select unnest(['a', 'b', 'c']) as creative_id, "
            "'spring' as campaign_id, date '2024-03-01' as known_date;"
            "create table marts.fct_creative_daily as select creative_id, 'all' as segment_id, placement, "
            "'default' as policy_id, 'spring' as campaign_id, shown as impression_date, shown as known_date, "
            "1000 as impressions, ascii(creative_id) - 90 as clicks "
            "from marts.dim_creatives, (select unnest(['home:1', 'home:2']) as placement), "
            "(select unnest(range(date '2024-03-01', date '2024-03-08', interval 1 day))::date as shown)"
        )

    def day(self, number: int) -> date:
        return FIRST + timedelta(days=number - 1)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.shop.home / "warehouse.duckdb")) as connection:
            return connection.execute(statement).fetchall()


@pytest.fixture
def planned(make_shop: Callable[..., Shop]) -> PlannedShop:
    return PlannedShop(make_shop())
