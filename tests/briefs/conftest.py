"""Shops whose marts, portraits and campaigns are planted by hand: these tests stand on no loader and no dbt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import pytest
from sqlalchemy import text

from adloom.briefs import BriefReport, write_briefs
from adloom.creative import Brief, read_rows
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 10)
TABLES = {
    "marts.fct_behaviours_daily": "user_hash varchar, item_id varchar, behaviour varchar, behaviour_date date, "
    "events bigint, quantity bigint, value decimal(38,6), known_date date",
    "marts.dim_items": "item_id varchar, title varchar, category varchar, brand varchar, price decimal(18,6), "
    "list_price decimal(18,6), currency varchar, attributes json, image varchar, stock bigint, known_date date",
    "staging.stg_landing__campaigns": "campaign_id varchar, scenario varchar, name varchar, starts_at timestamp, "
    "ends_at timestamp, offer varchar, items varchar, categories varchar, channels varchar, segments varchar, "
    "budget decimal(18,6), known_date date, source_file varchar, source_line bigint, translations varchar",
    "staging.stg_landing__hot_events": "event_id varchar, title varchar, keywords varchar, starts_at timestamp, "
    "ends_at timestamp, source varchar, known_date date, source_file varchar, source_line bigint, "
    "translations varchar",
}


@dataclass
class World:
    """A Chinese shop that writes in both languages."""

    shop: Shop
    waiting: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)

    def create(self) -> None:
        with warehouse(self.shop) as engine:
            ledger.create_ledger(engine)
            with engine.begin() as connection:
                for schema in ("marts", "staging"):
                    connection.execute(text(f"create schema {schema}"))
                for name, columns in TABLES.items():
                    connection.execute(text(f"create table {name} ({columns})"))

    def insert(self, table: str, **row: Any) -> None:
        row = {"known_date": DAY} | row
        values = ", ".join(f":{name}" for name in row)
        self.waiting.append((text(f"insert into {table} ({', '.join(row)}) values ({values})"), row))  # noqa: S608

    def ledger_row(self, table: Any, **row: Any) -> None:
        self.waiting.append((table.insert(), row))

    def store(self) -> None:
        """What was planted so far, in one go."""
        with warehouse(self.shop) as engine, engine.begin() as connection:
            for statement, row in self.waiting:
                connection.execute(statement, row)
        self.waiting.clear()

    def item(self, item_id: str, *, english: Mapping[str, Any] | None = None, **row: Any) -> None:
        """An item with everything; ``english=None``: as good in English, ``{}``: not translated."""
        attributes = row.pop("attributes", {"颜色": "云白", "材质": "竹"})
        if isinstance(attributes, dict):
            full = {
                "title": f"Bamboo lamp {item_id}",
                "category": "Home/Lamps",
                "brand": "Lumo",
                "attributes": {"Colour": "cloud white"},
            }
            translated = full if english is None else dict(english)
            attributes = attributes | ({"translations": {"en": translated}} if translated else {})
        content = attributes if isinstance(attributes, str) else json.dumps(attributes, ensure_ascii=False)
        usual = {
            "title": f"竹灯 {item_id}",
            "category": "家居/灯具",
            "brand": "露墨",
            "price": 199,
            "currency": "CNY",
            "stock": 9,
        }
        self.insert("marts.dim_items", item_id=item_id, attributes=content, **(usual | row))

    def seen(self, item_id: str, users: int, known_date: date = DAY) -> None:
        """So many users looked at the item."""
        row = {"item_id": item_id, "users": users, "known_date": known_date}
        sql = (
            "insert into marts.fct_behaviours_daily "
            "select 'u' || range, :item_id, 'view', :known_date, 1, 0, 0, :known_date from range(:users)"
        )
        self.waiting.append((text(sql), row))

    def segment(self, segment_id: str, users: int, interests: Mapping[str, float] | None = None, **row: Any) -> None:
        usual = {
            "day": DAY,
            "interests": json.dumps([{"category": key, "weight": one} for key, one in (interests or {}).items()]),
            "recent_items": json.dumps([{"item_id": one} for one in row.pop("recent_items", ())]),
            "price_level": "",
            "life_cycle": "",
            "engagement": "{}",
            "words_zh": "喜欢灯具" if interests else "",
            "words_en": "into lamps" if interests else "",
        }
        self.ledger_row(ledger.portraits, segment_id=segment_id, users=users, **(usual | row))

    def campaign(self, campaign_id: str = "lamp_week", *, english: Mapping[str, Any] | None = None, **row: Any) -> None:
        usual = {
            "scenario": "promotion",
            "name": "灯具周",
            "offer": "灯具满199减30",
            "categories": "家居/灯具",
            "starts_at": datetime(2024, 3, 8),
            "ends_at": datetime(2024, 3, 15),
            "source_file": "c.csv",
            "source_line": 1,
            "translations": json.dumps(
                {"en": {"name": "Lamp Week", "offer": "¥30 off ¥199 on lamps"} if english is None else dict(english)}
            ),
        }
        self.insert("staging.stg_landing__campaigns", campaign_id=campaign_id, **(usual | row))

    def event(self, event_id: str = "lantern_fair", **row: Any) -> None:
        usual = {
            "title": "花灯节",
            "keywords": "竹灯;赏灯",
            "starts_at": datetime(2024, 3, 11),
            "ends_at": datetime(2024, 3, 12),
            "source_file": "e.csv",
            "source_line": 1,
            "translations": json.dumps({"en": {"title": "The Lantern Fair", "keywords": ["bamboo lamp"]}}),
        }
        self.insert("staging.stg_landing__hot_events", event_id=event_id, **(usual | row))

    def affinity(self, viewed: str, bought: str, low: float) -> None:
        counts = {"users_viewed": 500, "users_bought": 300, "users_both": 200, "users": 2000}
        row = {"day": DAY, "viewed_category": viewed, "bought_category": bought, "lift": 2.6, "lift_high": 3.0}
        self.ledger_row(ledger.affinities, lift_low=low, **row, **counts)

    def clicked(self, segment_id: str, scenario: str, channel: str, impressions: int, clicks: int) -> None:
        """What creatives of such briefs got, in both languages' place: Chinese."""
        creative_id = f"{segment_id}-{scenario}-{channel}"
        self.ledger_row(
            ledger.creatives,
            creative_id=creative_id,
            creative_hash="h",
            day=DAY,
            brief_id="b",
            variant=0,
            scenario=scenario,
            language="zh",
            channel=channel,
            segment_id=segment_id,
            item_id="i",
            candidates=1,
            candidates_parsed=1,
            model_id="m",
            prompt_digest="p",
            seed=0,
        )
        self.ledger_row(
            ledger.evaluations,
            day=DAY,
            window_days=28,
            grain="creative_segment",
            campaign_id="",
            policy_id="",
            creative_id=creative_id,
            segment_id=segment_id,
            impressions=impressions,
            clicks=clicks,
            cohort_clicks=0,
            conversions=0,
            is_mature=False,
        )

    def write(self, day: date = DAY) -> BriefReport:
        self.store()
        return write_briefs(self.shop, day)

    def briefs(self, scenario: str | None = None, language: str | None = None) -> list[Brief]:
        """The briefs as written, in order."""
        found = list(read_rows(self.write().path, Brief))
        return [
            one
            for one in found
            if (scenario is None or one.scenario == scenario) and (language is None or one.language == language)
        ]

    def refusals(self) -> dict[tuple[str, str, str], str]:
        """(scenario, language, subject) → reason, after writing."""
        self.write()
        rows = self.query("select scenario, language, subject, reason from adloom.refused_briefs where day = :day")
        return {row[:3]: row[3] for row in rows}

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with warehouse(self.shop) as engine, engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), {"day": DAY})]


@pytest.fixture
def make_world(make_shop: Callable[..., Shop]) -> Callable[..., World]:
    """A shop without facts; overrides go into its YAML."""

    def make(**overrides: Any) -> World:
        usual = {"language": "zh", "copy_languages": ["zh", "en"], "channels": ["feed", "weibo", "instagram"]}
        world = World(make_shop(**(usual | overrides)))
        world.create()
        return world

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A shop with one lamp and one segment that looks at lamps."""
    found = make_world()
    found.item("lamp1")
    found.segment("lamps", 200, {"家居/灯具": 0.8})
    return found
