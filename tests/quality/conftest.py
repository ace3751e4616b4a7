"""A small shop's warehouse that every check finds in order: six days, made once and copied for each test."""

# ruff: noqa: S608 -- the statements that spoil a world are put together from this file's own names

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import create_engine

from adloom.creative import Copy
from adloom.errors import GateFailed
from adloom.quality import gate
from adloom.shop import Shop
from adloom.warehouse.ledger import create_ledger

DAY = date(2024, 3, 6)
FIRST = date(2024, 3, 1)

TABLES = """
create schema raw;
create table raw.ad_events (event_id varchar, event_type varchar, occurred_at timestamp, creative_id varchar,
    impression_id varchar, user_hash varchar, segment_id varchar, plan_id varchar, campaign_id varchar,
    policy_id varchar, channel varchar, position varchar, propensity double, value decimal(18, 6),
    cost decimal(18, 6), currency varchar, user_agent varchar, ip_prefix varchar, extra json, known_date date,
    source_file varchar, source_line bigint);
create table raw.behaviours (event_id varchar, user_hash varchar, behaviour varchar, occurred_at timestamp,
    item_id varchar, query varchar, quantity bigint, price decimal(18, 6), extra json, known_date date,
    source_file varchar, source_line bigint);
create table raw.users (user_hash varchar, gender varchar, age_band varchar, region varchar, interest_tags varchar,
    personalisation boolean, extra json, known_date date, source_file varchar, source_line bigint);
create table raw.items (item_id varchar, title varchar, category varchar, brand varchar, price decimal(18, 6),
    list_price decimal(18, 6), currency varchar, attributes json, image varchar, stock bigint, extra json,
    known_date date, source_file varchar, source_line bigint);
create table raw.campaigns (campaign_id varchar, scenario varchar, name varchar, starts_at timestamp,
    ends_at timestamp, offer varchar, items varchar, categories varchar, channels varchar, segments varchar,
    budget decimal(18, 6), extra json, known_date date, source_file varchar, source_line bigint);
create table raw.hot_events (event_id varchar, title varchar, keywords varchar, starts_at timestamp,
    ends_at timestamp, source varchar, extra json, known_date date, source_file varchar, source_line bigint);
create table raw.privacy_requests (user_hash varchar, kind varchar, requested_at timestamp, extra json,
    known_date date, source_file varchar, source_line bigint);
create schema intermediate;
create table intermediate.int_ad_events__duplicates (source_file varchar, source_line bigint, known_date date);
create table intermediate.int_behaviours__duplicates (source_file varchar, source_line bigint, known_date date);
create schema marts;
create table marts.fct_impressions (impression_id varchar, impression_at timestamp, impression_date date,
    impression_known_date date, is_valid boolean, invalid_reason varchar, user_hash varchar, creative_id varchar,
    segment_id varchar, plan_id varchar, campaign_id varchar, policy_id varchar, channel varchar, position varchar,
    placement varchar, propensity double, cost decimal(18, 6), currency varchar, click_at timestamp,
    click_date date, click_known_date date, click_cost decimal(18, 6),
    conversion_at timestamp, conversion_known_date date, value decimal(18, 6));
create table marts.fct_creative_daily (creative_id varchar, segment_id varchar, channel varchar, position varchar,
    placement varchar, policy_id varchar, campaign_id varchar, impression_date date, click_date date,
    conversion_lag_days bigint, known_date date, impressions bigint, clicks bigint, conversions bigint,
    conversions_value decimal(18, 6), cost decimal(18, 6), invalid_impressions bigint, invalid_clicks bigint);
create table marts.fct_behaviours_daily (user_hash varchar, item_id varchar, behaviour varchar,
    behaviour_date date, known_date date, events bigint, quantity bigint, value decimal(18, 6));
create table marts.dim_items (item_id varchar, known_date date, title varchar);
create table marts.dim_creatives (creative_id varchar, campaign_id varchar, known_date date);
create table marts.user_segments (user_hash varchar, known_date date, segment_id varchar);
create table marts.dim_segments (segment_id varchar, known_date date, users bigint);
"""

# Every day: 400 impressions of four creatives at propensity 1/4, 40 clicks, 4 conversions, 10 invalid impressions,
# 300 behaviours, 40 users, 40 items, one campaign, one hot event, one request.
DATA = """
create temp table days as
    select d::date as known_date, row_number() over (order by d) - 1 as n
    from generate_series(date '2024-03-01', date '2024-03-06', interval 1 day) as series (d);
insert into raw.ad_events by name
    select 'i' || n || '-' || k as event_id, 'impression' as event_type,
        known_date + interval 8 hour + k * interval 1 minute as occurred_at, 'c' || k % 4 as creative_id,
        'i' || n || '-' || k as impression_id, if(k % 10 = 9, null, 'u' || k % 40) as user_hash, 'all' as segment_id,
        'spring' as campaign_id, 'adaptive' as policy_id, 'app' as channel, 'top' as position, 0.25 as propensity,
        0.01 as cost, known_date, 'a.csv' as source_file, k as source_line
    from days, range(400) as series (k);
insert into raw.ad_events by name
    select 'k' || n || '-' || k as event_id, 'click' as event_type,
        known_date + interval 20 hour + k * interval 1 minute as occurred_at, 'i' || n || '-' || k as impression_id,
        known_date, 'a.csv' as source_file, 400 + k as source_line
    from days, range(40) as series (k);
insert into raw.ad_events by name
    select 'v' || n || '-' || k as event_id, 'conversion' as event_type,
        known_date + interval 22 hour as occurred_at, 'i' || n || '-' || k as impression_id, 20 as value, known_date,
        'a.csv' as source_file, 440 + k as source_line
    from days, range(4) as series (k);
insert into raw.behaviours by name
    select 'b' || n || '-' || k as event_id, 'u' || k % 40 as user_hash, 'view' as behaviour,
        known_date + interval 9 hour as occurred_at, 'p' || k % 40 as item_id, 1 as quantity, 9.5 as price,
        known_date, 'b.csv' as source_file, k as source_line
    from days, range(300) as series (k);
insert into raw.users by name
    select 'u' || k as user_hash, true as personalisation, known_date from days, range(40) as series (k);
insert into raw.items by name
    select 'p' || k as item_id, 'Pot ' || k as title, 9.5 as price, 3 as stock, known_date
    from days, range(40) as series (k);
insert into raw.campaigns by name
    select 'spring' as campaign_id, 'promotion' as scenario, 100 as budget, known_date from days;
insert into raw.hot_events by name select 'fair' as event_id, 'Spring fair' as title, known_date from days;
insert into raw.privacy_requests by name
    select 'u1' as user_hash, 'opt_out' as kind, known_date + interval 1 hour as requested_at, known_date from days;
insert into adloom.landing_days (known_date, manifest_digest) select known_date, 'm' || n from days;

insert into marts.fct_impressions by name
    select impression.impression_id, impression.occurred_at as impression_at,
        impression.known_date as impression_date, impression.known_date as impression_known_date,
        impression.source_line < 390 as is_valid, if(is_valid, null, 'bot') as invalid_reason, impression.user_hash,
        impression.creative_id, 'all' as segment_id, 'spring' as campaign_id, 'adaptive' as policy_id,
        'app' as channel, 'top' as position, 'app:top' as placement, impression.propensity, impression.cost,
        click.occurred_at as click_at, click.known_date as click_date, click.known_date as click_known_date,
        conversion.occurred_at as conversion_at, conversion.known_date as conversion_known_date, conversion.value
    from raw.ad_events as impression
    left join raw.ad_events as click
        on click.event_type = 'click' and click.impression_id = impression.impression_id
    left join raw.ad_events as conversion
        on conversion.event_type = 'conversion' and conversion.impression_id = impression.impression_id
    where impression.event_type = 'impression';
insert into marts.fct_creative_daily by name
    select creative_id, segment_id, channel, position, placement, policy_id, campaign_id, impression_date,
        null as click_date, null as conversion_lag_days, impression_known_date as known_date,
        count(*) filter (where is_valid) as impressions, 0 as clicks, 0 as conversions, 0 as conversions_value,
        sum(cost) filter (where is_valid) as cost,
        count(*) filter (where not is_valid) as invalid_impressions, 0 as invalid_clicks
    from marts.fct_impressions group by all
    union all by name
    select creative_id, segment_id, channel, position, placement, policy_id, campaign_id, impression_date, click_date,
        null as conversion_lag_days, click_known_date as known_date, 0 as impressions, count(*) as clicks,
        0 as conversions, 0 as conversions_value, 0 as cost, 0 as invalid_impressions, 0 as invalid_clicks
    from marts.fct_impressions where click_at is not null group by all
    union all by name
    select creative_id, segment_id, channel, position, placement, policy_id, campaign_id, impression_date, click_date,
        0 as conversion_lag_days, conversion_known_date as known_date, 0 as impressions, 0 as clicks,
        count(*) as conversions, sum(value) as conversions_value, 0 as cost, 0 as invalid_impressions,
        0 as invalid_clicks
    from marts.fct_impressions where conversion_at is not null group by all;
insert into marts.fct_behaviours_daily by name
    select user_hash, item_id, behaviour, occurred_at::date as behaviour_date, known_date, count(*) as events,
        sum(quantity) as quantity, sum(quantity * price) as value
    from raw.behaviours group by all;
insert into marts.dim_items by name select item_id, known_date, title from raw.items;
insert into marts.dim_creatives by name
    select creative_id, 'spring' as campaign_id, min(known_date) as known_date
    from raw.ad_events where creative_id is not null group by creative_id;
insert into marts.user_segments by name
    select user_hash, min(known_date) as known_date, 'all' as segment_id from raw.users group by user_hash;
insert into marts.dim_segments by name select 'all' as segment_id, known_date, 40 as users from days;
"""

LEDGER = """
delete from adloom.landing_files;
insert into adloom.landing_files
    (known_date, table_name, source_file, size_bytes, sha256, rows_loaded, rows_rejected)
    {counts}
"""
LANDING_TABLES = ("ad_events", "behaviours", "users", "items", "campaigns", "hot_events", "privacy_requests")


# The day's creatives: 40 briefs of one copy each, 38 written and 2 refused, every fourth in Chinese.
CREATIVES = """
insert into adloom.briefs (day, brief_id, position, scenario, language, channel, segment_id, item_id, chosen_for,
    content)
    values (date '{day}', ?, ?, 'recommendation', ?, 'feed', 'all', ?, 'value', ?);
"""
WRITTEN = """
insert into adloom.creatives (creative_id, creative_hash, day, brief_id, variant, scenario, language, channel,
    segment_id, item_id, headline, body, call_to_action, hashtags, refused_reason, candidates, candidates_parsed,
    scores, model_id, prompt_digest, seed)
    values (?, ?, date '{day}', ?, 0, 'recommendation', ?, 'feed', 'all', ?, ?, ?, ?, ?, ?, 4, 3, ?, 'base', 'p', 1);
"""


def add_creatives(connection: duckdb.DuckDBPyConnection) -> None:
    """Briefs and creatives of `DAY` that a good day could have made."""
    for number in range(40):
        language = "zh" if number % 4 == 0 else "en"
        item = {"item_id": f"p{number}", "title": f"item {number}", "attributes": {}}
        limits = {"headline": 30, "body_min": 5, "body": 60, "call_to_action": 12, "hashtags_min": 0, "hashtags": 2}
        content = {"item": item, "offer": None, "event": None, "forbidden_words": ["cheapest"], "limits": limits}
        content |= {"language": language, "variants": 1}
        key = f"b{number}"
        order = [key, number, language, item["item_id"], json.dumps(content)]
        connection.execute(CREATIVES.format(day=DAY), order)
        body = f"第{number}号好物，周末带回家" if language == "zh" else f"A thing for the weekend, number {number}"
        copy = Copy(headline=f"No. {number}" if language == "en" else f"{number}号", body=body, call_to_action="Go")
        parts = (copy.headline, copy.body, copy.call_to_action, "[]", None)
        if number >= 38:
            parts = (None, None, None, None, "none of 4 candidates could be used")
        scores = json.dumps({"warnings": 1.0 if number == 0 else 0.0})
        row = [f"k{number}", copy.digest, key, language, item["item_id"], *parts, scores]
        connection.execute(WRITTEN.format(day=DAY), row)
    connection.execute(
        "insert into adloom.reviews values "
        "('k0', (select creative_hash from adloom.creatives where creative_id = 'k0'), "
        f"date '{DAY}', 'facts.colour_narrower', '1', 'body', 'wine red', 'warn', 'a shade that no fact gives')"
    )


FORMATS = ("feed_1080x1080", "marketplace_800x800")


def add_images(connection: duckdb.DuckDBPyConnection) -> None:
    """Orders and finished images of the first ten creatives; `make_world` writes the files."""
    for number in range(10):
        for name in FORMATS:
            one, side = f"k{number}", int(name.rpartition("x")[2])
            connection.execute("insert into adloom.image_orders values (?, ?, ?, 'hash')", [DAY, one, name])
            label = {"AIGC": {"Label": "1", "ContentProducer": "shop-1", "ProduceID": one, "ReservedCode1": "sha256:0"}}
            measured = {"contrast": [7.1, 4.5], "label_height": [55.0, 54.0], "subject_size": [0.3, 0.05]}
            row = [one, name, DAY, "image", f"day={DAY}/{one}_{name}.jpg", digest(one, name), side, side, 1000]
            row += ["card", "own_photo", "0", json.dumps({"measured": measured})]
            row += [json.dumps(label | {"places": ["xmp"]})]
            connection.execute(f"insert into adloom.assets values ({', '.join('?' * len(row))})", row)


def digest(creative_id: str, name: str) -> str:
    return hashlib.sha256(f"{creative_id} {name}".encode()).hexdigest()


def write_files(shop: Shop) -> None:
    folder = shop.creatives / f"day={DAY}"
    folder.mkdir(parents=True)
    for number in range(10):
        for name in FORMATS:
            (folder / f"k{number}_{name}.jpg").write_text(f"k{number} {name}")


@dataclass
class World:
    """A shop whose warehouse a test may spoil before it knocks at a door."""

    shop: Shop
    day: date = DAY

    @contextmanager
    def open(self) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = duckdb.connect(str(self.shop.home / "warehouse.duckdb"))
        try:
            yield connection
        finally:
            connection.close()

    def do(self, *statements: str) -> None:
        with self.open() as connection:
            for statement in statements:
                connection.execute(statement)

    def relist(self) -> None:
        """Make the ledger of landed files agree with the raw tables."""
        counts = " union all ".join(
            f"select known_date, '{name}', 'file.csv', 1, 'hash', count(*), 0 from raw.{name} group by known_date"
            for name in LANDING_TABLES
        )
        with self.open() as connection:
            for statement in LEDGER.format(counts=counts).split(";"):
                connection.execute(statement)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.open() as connection:
            return connection.execute(sql).fetchall()

    def knock(self, door: str) -> dict[str, tuple[bool, str]]:
        """check id → (is_passed, observed) as stored, whether or not the door stayed shut."""
        with suppress(GateFailed):
            gate.check(self.shop, self.day, door)
        found = self.rows(
            f"select check_id, is_passed, observed from adloom.quality_results "
            f"where door = '{door}' and day = date '{self.day}'"
        )
        return {check_id: (is_passed, observed) for check_id, is_passed, observed in found}


@pytest.fixture(scope="session")
def good_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template file."""
    path = tmp_path_factory.mktemp("quality") / "warehouse.duckdb"
    engine = create_engine(f"duckdb:///{path}")
    create_ledger(engine)
    engine.dispose()
    with duckdb.connect(str(path)) as connection:
        connection.execute(TABLES)
        connection.execute(DATA)
        add_creatives(connection)
        add_images(connection)
    return path


@pytest.fixture
def make_world(make_shop: Callable[..., Shop], good_warehouse: Path) -> Callable[..., World]:
    """A good world of the test's own; overrides go into the shop's file."""

    def make(**overrides: Any) -> World:
        shop = make_shop(**{"ai_label_producer_id": "shop-1"} | overrides)
        shop.home.mkdir(parents=True)
        write_files(shop)
        shutil.copy(good_warehouse, shop.home / "warehouse.duckdb")
        world = World(shop)
        world.relist()
        return world

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
