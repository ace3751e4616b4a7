"""A shop whose marts are written by hand, row by row."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

MARTS = (
    "create schema marts",
    "create table marts.fct_creative_daily (creative_id text, segment_id text, placement text, policy_id text, "
    "campaign_id text, impression_date date, click_date date, conversion_lag_days bigint, known_date date, "
    "impressions bigint, clicks bigint, conversions bigint)",
    "create table marts.dim_creatives (creative_id text, campaign_id text, known_date date)",
    "create table marts.fct_impressions (impression_id text, impression_at timestamp, impression_date date, "
    "impression_known_date date, is_valid boolean, user_hash text, creative_id text, segment_id text, "
    "campaign_id text, policy_id text, placement text, propensity double, click_known_date date)",
)


class Marts:
    """Writes facts into a shop's marts and reads its ledger."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)
        with self.open() as connection:
            for statement in MARTS:
                connection.execute(statement)

    def open(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(self.shop.home / "warehouse.duckdb"))

    def execute(self, statement: str, **values: Any) -> None:
        with self.open() as connection:
            connection.execute(statement, values or None)

    def counts(
        self,
        day: date,
        numbers: dict[str, tuple[int, int]],
        *,
        campaign: str = "spring",
        segment: str = "all",
        placement: str = "home:1",
        policy: str = "default",
        clicks_known: date | None = None,
        conversions: int = 0,
    ) -> None:
        """``numbers``: creative → (impressions, clicks) of one day, clicks known on ``clicks_known``."""
        shared = {
            "segment_id": segment,
            "placement": placement,
            "policy_id": policy,
            "campaign_id": campaign,
            "impression_date": day,
            "conversions": conversions,
        }
        rows = []
        for creative, (impressions, clicks) in numbers.items():
            shown = shared | {"creative_id": creative, "click_date": None, "known_date": day}
            rows.append(shown | {"impressions": impressions, "clicks": 0})
            if clicks:
                known = clicks_known or day
                rows.append(shown | {"click_date": day, "known_date": known, "impressions": 0, "clicks": clicks})
        creatives = [{"creative_id": creative, "campaign_id": campaign, "known_date": day} for creative in numbers]
        with self.open() as connection:
            for name, fresh in (("fct_creative_daily", rows), ("dim_creatives", creatives)):
                connection.register(f"fresh_{name}", pa.Table.from_pylist(fresh))
            connection.execute("insert into marts.fct_creative_daily by name from fresh_fct_creative_daily")
            connection.execute(
                "insert into marts.dim_creatives by name "
                "select * from fresh_dim_creatives anti join marts.dim_creatives using (creative_id)"
            )

    def impressions(self, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of ``fct_impressions``; what is left out has a default."""
        usual = {
            "is_valid": True,
            "user_hash": None,
            "creative_id": "a",
            "segment_id": "all",
            "campaign_id": "spring",
            "policy_id": "default",
            "placement": "home:1",
            "propensity": None,
            "click_known_date": None,
        }
        full = [usual | {"impression_known_date": row["impression_date"]} | row for row in rows]
        with self.open() as connection:
            connection.register("fresh", pa.Table.from_pylist(full))
            connection.execute("insert into marts.fct_impressions by name from fresh")

    def served(
        self, day: date, shares: dict[str, float], ctrs: dict[str, float], count: int = 2000, policy: str = "adaptive"
    ) -> None:
        """A day's impressions that followed a plan of one placement, propensities logged, and their sums."""
        rng = np.random.default_rng([day.toordinal(), count])
        creatives = rng.choice(list(shares), count, p=list(shares.values())).tolist()
        clicks = [bool(rng.random() < ctrs[creative]) for creative in creatives]
        self.impressions(
            [
                {
                    "impression_id": f"{policy} {day} {number}",
                    "impression_date": day,
                    "policy_id": policy,
                    "creative_id": creative,
                    "propensity": shares[creative],
                    "click_known_date": day if is_clicked else None,
                }
                for number, (creative, is_clicked) in enumerate(zip(creatives, clicks, strict=True))
            ]
        )
        shown, clicked = Counter(creatives), Counter(itertools.compress(creatives, clicks))
        self.counts(day, {creative: (shown[creative], clicked[creative]) for creative in sorted(shown)}, policy=policy)

    def table(self, name: str) -> list[dict[str, Any]]:
        with self.open() as connection:
            rows = connection.table(f"adloom.{name}").order("all")
            return [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]


@pytest.fixture
def make_marts(make_shop: Callable[..., Shop]) -> Callable[..., Marts]:
    """Marts of a shop made with the given overrides."""

    def make(**overrides: Any) -> Marts:
        return Marts(make_shop(**overrides))

    return make
