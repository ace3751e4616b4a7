"""Raw tables filled by hand, so that these tests stand on no loader."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from adloom.shop import Shop
from adloom.warehouse.dbt import BuildReport, build
from adloom.warehouse.engine import warehouse
from adloom.warehouse.ledger import create_ledger, landing_days, landing_files, replace_rows

_LANDED = "extra json, known_date date, source_file varchar, source_line bigint"
RAW = {
    "ad_events": "event_id varchar, event_type varchar, occurred_at timestamp, creative_id varchar, "
    "impression_id varchar, user_hash varchar, segment_id varchar, plan_id varchar, campaign_id varchar, "
    "policy_id varchar, channel varchar, position varchar, propensity double, value decimal(18,6), "
    "cost decimal(18,6), currency varchar, user_agent varchar, ip_prefix varchar",
    "behaviours": "event_id varchar, user_hash varchar, behaviour varchar, occurred_at timestamp, item_id varchar, "
    "query varchar, quantity bigint, price decimal(18,6)",
    "users": "user_hash varchar, gender varchar, age_band varchar, region varchar, interest_tags varchar, "
    "personalisation boolean",
    "items": "item_id varchar, title varchar, category varchar, brand varchar, price decimal(18,6), "
    "list_price decimal(18,6), currency varchar, attributes json, image varchar, stock bigint",
    "campaigns": "campaign_id varchar, scenario varchar, name varchar, starts_at timestamp, ends_at timestamp, "
    "offer varchar, items varchar, categories varchar, channels varchar, segments varchar, budget decimal(18,6)",
    "hot_events": "event_id varchar, title varchar, keywords varchar, starts_at timestamp, ends_at timestamp, "
    "source varchar",
    "privacy_requests": "user_hash varchar, kind varchar, requested_at timestamp",
}
DAY_ONE = date(2024, 3, 1)

Row = Mapping[str, Any]


@dataclass
class Landing:
    """A shop's raw tables. Day 1 is 2024-03-01; times are written as ``"1 09:30"`` (day, UTC time)."""

    shop: Shop

    def create(self) -> None:
        with warehouse(self.shop) as engine:
            create_ledger(engine)
            with engine.begin() as connection:
                connection.execute(text("create schema raw"))
                for name, columns in RAW.items():
                    connection.execute(text(f"create table raw.{name} ({columns}, {_LANDED})"))

    def land(self, day: int, **tables: Iterable[Row]) -> None:
        """Replace everything known on a day, as the loader would; without tables the day is there and empty."""
        known_date = _date(day)
        content = {name: [dict(row) for row in rows] for name, rows in tables.items()}
        with warehouse(self.shop) as engine, engine.begin() as connection:
            for name in RAW:
                connection.execute(text(f"delete from raw.{name} where known_date = :day"), {"day": known_date})  # noqa: S608
                for line, row in enumerate(content.get(name, []), start=1):
                    values = {"source_file": "part.csv", "source_line": line} | row | {"known_date": known_date}
                    names = ", ".join(values)
                    bound = ", ".join(f":{key}" for key in values)
                    connection.execute(text(f"insert into raw.{name} ({names}) values ({bound})"), values)  # noqa: S608
            digests = {
                name: hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()
                for name, rows in content.items()
            }
            replace_rows(
                connection,
                landing_files,
                {"known_date": known_date},
                [
                    {
                        "known_date": known_date,
                        "table_name": name,
                        "source_file": "part.csv",
                        "size_bytes": 1,
                        "sha256": digest,
                        "rows_loaded": len(content[name]),
                        "rows_rejected": 0,
                    }
                    for name, digest in digests.items()
                ],
            )
            # The loader keeps marts_digest when a day is loaded again: it tells what the marts were built from.
            kept = connection.execute(
                landing_days.select().where(landing_days.c.known_date == known_date)
            ).one_or_none()
            replace_rows(
                connection,
                landing_days,
                {"known_date": known_date},
                [
                    {
                        "known_date": known_date,
                        "manifest_digest": hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
                        "marts_digest": kept.marts_digest if kept else None,
                    }
                ],
            )

    def vanish(self, day: int, *, without_trace: bool = False) -> None:
        """The day's folder is gone; the loader leaves an empty manifest digest behind."""
        self.land(day)
        own = landing_days.c.known_date == _date(day)
        with warehouse(self.shop) as engine, engine.begin() as connection:
            if without_trace:
                connection.execute(landing_days.delete().where(own))
            else:
                connection.execute(landing_days.update().where(own).values(manifest_digest=""))

    def build(self, day: int) -> BuildReport:
        return build(self.shop, _date(day))

    def query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with warehouse(self.shop) as engine, engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), values)]

    def marts(self, day: int = 99) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every mart as of a day, ordered."""
        found = {}
        for mart, known_date in {
            "dim_creatives": "known_date",
            "dim_items": "known_date",
            "dim_segments": "known_date",
            "fct_behaviours_daily": "known_date",
            "fct_creative_daily": "known_date",
            "fct_impressions": "impression_known_date",
            "user_segments": "known_date",
        }.items():
            found[mart] = self.query(
                f"select * from marts.{mart} where {known_date} <= :day order by all",  # noqa: S608
                day=_date(day),
            )
        return found


def _date(day: int) -> date:
    return DAY_ONE + timedelta(days=day - 1)


@pytest.fixture
def make_landing(make_shop: Callable[..., Shop]) -> Callable[..., Landing]:
    """A shop with empty raw tables; overrides go into its YAML."""

    def make(**overrides: Any) -> Landing:
        landing = Landing(make_shop(**({"lookback_days": 7, "attribution_window_days": 7} | overrides)))
        landing.create()
        return landing

    return make


def at(text_: str) -> str:
    """``"2 09:30"`` → 2024-03-02 09:30:00."""
    day, clock = text_.split()
    return f"{_date(int(day))} {clock}"


def impression(event_id: str, when: str, **more: Any) -> dict[str, Any]:
    base = {"event_id": event_id, "event_type": "impression", "occurred_at": at(when), "creative_id": "c1"}
    return base | {"channel": "app", "position": "1", "propensity": 0.5} | more


def click(event_id: str, impression_id: str, when: str, **more: Any) -> dict[str, Any]:
    base = {"event_id": event_id, "event_type": "click", "occurred_at": at(when), "impression_id": impression_id}
    return base | more


def conversion(event_id: str, when: str, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "event_type": "conversion", "occurred_at": at(when), "value": 10} | more


@dataclass(frozen=True)
class Facts:
    """Builders of raw rows."""

    impression = staticmethod(impression)
    click = staticmethod(click)
    conversion = staticmethod(conversion)
    at = staticmethod(at)


@pytest.fixture
def facts() -> Facts:
    return Facts()
