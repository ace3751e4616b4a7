"""A temporary shop whose marts are filled by hand, with the shapes dbt gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Connection, text

from adloom.shop import Shop
from adloom.warehouse.engine import warehouse
from adloom.warehouse.ledger import create_ledger

IMPRESSION_COLUMNS = {
    "impression_id": "varchar",
    "impression_at": "timestamp",
    "impression_date": "date",
    "impression_known_date": "date",
    "is_valid": "boolean",
    "invalid_reason": "varchar",
    "user_hash": "varchar",
    "creative_id": "varchar",
    "segment_id": "varchar",
    "plan_id": "varchar",
    "campaign_id": "varchar",
    "policy_id": "varchar",
    "channel": "varchar",
    "position": "varchar",
    "placement": "varchar",
    "propensity": "double",
    "cost": "decimal(18,6)",
    "currency": "varchar",
    "click_at": "timestamp",
    "click_date": "date",
    "click_known_date": "date",
    "conversion_at": "timestamp",
    "conversion_known_date": "date",
    "value": "decimal(18,6)",
}
DEFAULTS = {
    "is_valid": True,
    "creative_id": "c1",
    "segment_id": "all",
    "campaign_id": "none",
    "policy_id": "default",
    "channel": "web",
    "position": "unknown",
}
GROUP = "creative_id, segment_id, channel, position, placement, policy_id, campaign_id, impression_date"
DAILY = f"""
create or replace table marts.fct_creative_daily as
with counted as (
    select {GROUP}, null::date as click_date, null::bigint as conversion_lag_days, impression_known_date as known_date,
        count(*) filter (is_valid) as impressions, 0 as clicks, 0 as conversions, 0 as conversions_value,
        coalesce(sum(cost) filter (is_valid), 0) as cost, count(*) filter (not is_valid) as invalid_impressions
    from marts.fct_impressions group by all
    union all
    select {GROUP}, click_date, null, click_known_date, 0, count(*), 0, 0, 0, 0
    from marts.fct_impressions where is_valid and click_at is not null group by all
    union all
    select {GROUP}, i.click_date, o.conversion_date - i.click_date, conversion_known_date,
        0, 0, count(*), coalesce(sum("value"), 0), 0, 0
    from marts.fct_impressions as i inner join marts.conversion_dates as o using (impression_id)
    where is_valid group by all
)
select {GROUP}, click_date, conversion_lag_days, known_date, impressions::bigint as impressions,
    clicks::bigint as clicks, conversions::bigint as conversions,
    conversions_value::decimal(18,6) as conversions_value, cost::decimal(18,6) as cost,
    invalid_impressions::bigint as invalid_impressions, 0::bigint as invalid_clicks
from counted
"""  # noqa: S608 (constants only)


class Marts:
    """The marts of one shop. ``add_impressions`` takes dicts or a data frame of `IMPRESSION_COLUMNS`.

    Only ``impression_at`` is needed; ids, local dates and known dates (the day it happened, never before its click or
    impression) are filled in. Both marts tables and ``adloom.landing_days`` are kept consistent.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self._frame = pd.DataFrame(columns=[*IMPRESSION_COLUMNS, "conversion_date"])
        with warehouse(shop) as engine:
            create_ledger(engine)
        self._write()

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed at the end of the block."""
        with warehouse(self.shop) as engine, engine.begin() as connection:
            yield connection

    def rows(self, table: str, order_by: str = "all") -> list[dict[str, Any]]:
        """All rows of a table, as dicts."""
        with self.connect() as connection:
            found = connection.execute(text(f"select * from {table} order by {order_by}"))  # noqa: S608
            return [dict(row) for row in found.mappings()]

    def _local_date(self, moments: pd.Series) -> pd.Series:
        local = pd.to_datetime(moments).dt.tz_localize("UTC").dt.tz_convert(self.shop.zone)
        return local.dt.normalize().dt.tz_localize(None)

    def add_impressions(self, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> None:
        given = rows.copy() if isinstance(rows, pd.DataFrame) else pd.DataFrame([dict(row) for row in rows])
        fresh = given.reindex(columns=[*IMPRESSION_COLUMNS, "conversion_date"]).astype(object)
        for name in ("impression_at", "click_at", "conversion_at"):
            fresh[name] = pd.to_datetime(fresh[name])
        for name, value in DEFAULTS.items():
            fresh[name] = fresh[name].where(fresh[name].notna(), value)
        ids = pd.Series([f"i{len(self._frame) + row:08d}" for row in range(len(fresh))], index=fresh.index)
        fresh["impression_id"] = fresh["impression_id"].where(fresh["impression_id"].notna(), ids)
        fresh["placement"] = fresh["channel"] + ":" + fresh["position"]
        before = None
        for event in ("impression", "click", "conversion"):
            happened = self._local_date(fresh[f"{event}_at"])
            fresh[f"{event}_date"] = happened
            known = pd.to_datetime(fresh[f"{event}_known_date"])
            known = known.where(known.notna(), happened)
            if before is not None:
                known = known.where(known.isna() | (known >= before), before)
            fresh[f"{event}_known_date"] = before = known
        self._frame = fresh if self._frame.empty else pd.concat([self._frame, fresh], ignore_index=True)
        self._write()

    def _write(self) -> None:
        columns = ", ".join(f'"{name}"::{kind} as "{name}"' for name, kind in IMPRESSION_COLUMNS.items())
        with self.connect() as connection:
            duck = connection.connection.driver_connection
            frame = self._frame.assign(**{"is_valid": self._frame["is_valid"].astype(bool)})
            duck.register("frame", frame)
            duck.execute("create schema if not exists marts")
            duck.execute(f"create or replace table marts.fct_impressions as select {columns} from frame")  # noqa: S608
            duck.execute(
                "create or replace temp table known as select distinct unnest([impression_known_date::date,"
                " click_known_date::date, conversion_known_date::date]) as known_date from frame"
            )
            duck.execute(
                "create or replace table marts.conversion_dates as"
                " select impression_id::varchar as impression_id, conversion_date::date as conversion_date"
                " from frame where conversion_at is not null"
            )
            duck.unregister("frame")
            duck.execute(DAILY)
            duck.execute("drop table marts.conversion_dates")
            duck.execute(
                "insert or replace into adloom.landing_days (known_date, manifest_digest, marts_digest)"
                " select known_date, 'given', 'built' from known where known_date is not null"
            )


@pytest.fixture
def marts(make_shop: Callable[..., Shop]) -> Marts:
    """Empty marts of a shop in UTC with default settings."""
    return Marts(make_shop())


@pytest.fixture
def make_marts(make_shop: Callable[..., Shop]) -> Callable[..., Marts]:
    """Empty marts of a shop with the given overrides."""
    return lambda **overrides: Marts(make_shop(**overrides))
