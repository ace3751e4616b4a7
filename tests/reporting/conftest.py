"""A corner shop whose ledger and marts are filled with plain rows, without the steps that would compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text

from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
MARTS = """
create schema if not exists marts;
create or replace table marts.dim_items (item_id varchar, title varchar, known_date date);
create or replace table marts.dim_creatives (creative_id varchar, campaign_id varchar, known_date date);
create or replace table marts.dim_segments (segment_id varchar, description varchar, users bigint, known_date date);
create or replace table marts.fct_impressions (impression_id varchar, user_hash varchar, known_date date);
create or replace table marts.user_segments (user_hash varchar, segment_id varchar, known_date date);
create or replace table marts.fct_creative_daily (
    creative_id varchar, segment_id varchar, channel varchar, position varchar, placement varchar, policy_id varchar,
    campaign_id varchar, impression_date date, click_date date, conversion_lag_days bigint, known_date date,
    impressions bigint, clicks bigint, conversions bigint, conversions_value decimal(18, 6), cost decimal(18, 6),
    invalid_impressions bigint, invalid_clicks bigint
);
"""


class Filled:
    """Writes rows into one shop's ledger; figures are made up, intervals only roughly right."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def add(self, name: str, **values: Any) -> None:
        self.connection.execute(ledger.metadata.tables[f"adloom.{name}"].insert(), [values])

    def evaluation(self, day: date, window_days: int, grain: str, impressions: int, clicks: int, **values: Any) -> None:
        ctr = clicks / impressions if impressions else None
        spread = 2 * (clicks + 1) ** 0.5 / impressions if impressions else 0
        row: dict[str, Any] = {
            "campaign_id": "",
            "policy_id": "",
            "creative_id": "",
            "segment_id": "",
            "ctr": ctr,
            "ctr_low": None if ctr is None else max(0.0, ctr - 0.9 * spread),
            "ctr_high": None if ctr is None else ctr + 1.1 * spread,
            "ctr_interval": "wilson",
            "cohort_clicks": clicks,
            "conversions": 0,
            "is_mature": True,
        }
        key = {"day": day, "window_days": window_days, "grain": grain}
        self.add("evaluations", **key, impressions=impressions, clicks=clicks, **row | values)

    def rates(self, rates: dict[tuple[str, str], tuple[int, int]], days: int = 7, day: date = DAY) -> None:
        """(campaign, policy) → (impressions, clicks) of one day, repeated on the last ``days`` days."""
        for (campaign_id, policy_id), (impressions, clicks) in rates.items():
            keys = {"campaign_id": campaign_id, "policy_id": policy_id}
            for back in range(days):
                self.evaluation(day - timedelta(days=back), 1, "policy", impressions, max(0, clicks - back % 3), **keys)
            total = sum(max(0, clicks - back % 3) for back in range(days))
            self.evaluation(day, 7, "policy", impressions * days, total, **keys)
        everything = [sum(pair) for pair in zip(*rates.values(), strict=True)]
        self.evaluation(day, 7, "overall", everything[0] * days, everything[1] * days)

    def verdict(self, comparison: str, verdict: str = "needs_more", **values: Any) -> None:
        row: dict[str, Any] = {
            "day": DAY,
            "comparison": comparison,
            "metric": "ctr",
            "campaign_id": None,
            "arm_a": "random",
            "arm_b": "bts",
            "started_on": DAY - timedelta(days=6),
            "verdict": verdict,
            "winner": None,
            "trials_a": 0,
            "successes_a": 0,
            "trials_b": 0,
            "successes_b": 0,
            "sentence": f"the sentence of {comparison}",
        }
        self.add("verdicts", **row | values)

    def plan(self, shares: dict[str, tuple[float | None, float]], day: date = DAY, **values: Any) -> None:
        """creative → (share before, share)."""
        plan_id = f"plan-{day}"
        row: dict[str, Any] = {
            "plan_id": plan_id,
            "valid_from": day + timedelta(days=1),
            "version": f"{day}-1",
            "day": day,
            "produced_by": "behaviour_daily",
            "content_digest": "0",
            "algorithm": "thompson",
        }
        self.add("plans", **row | values)
        for creative_id, (before, share) in shares.items():
            self.add(
                "allocations",
                plan_id=plan_id,
                policy_id="adaptive",
                segment_id="all",
                placement="web:1",
                creative_id=creative_id,
                share=share,
                share_before=before,
                sentence=f"creative {creative_id}: why it changed",
            )

    def check(self, check_id: str, *, passed: bool = True, day: date = DAY, **values: Any) -> None:
        row = {"door": "raw", "table_name": "ad_events", "expectation": "e", "severity": "fail"}
        self.add("quality_results", day=day, check_id=check_id, is_passed=passed, **row | values)


FillShop = Callable[[Shop], AbstractContextManager[Filled]]


@pytest.fixture
def fill() -> FillShop:
    """``with fill(shop) as rows:`` opens the shop's warehouse, all tables made, for writing rows."""

    @contextmanager
    def opened(shop: Shop) -> Iterator[Filled]:
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)
            with engine.begin() as connection:
                if not connection.scalar(text("select count(*) from duckdb_tables() where schema_name = 'marts'")):
                    connection.exec_driver_sql(MARTS)
                yield Filled(connection)

    return opened


@pytest.fixture
def day() -> date:
    return DAY
