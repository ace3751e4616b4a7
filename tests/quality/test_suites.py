"""Every check of every door is shown going red: spoiled worlds, and in each the checks that must not pass."""

# ruff: noqa: S608 -- the statements that spoil a world are put together from this file's own names

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from adloom.quality.suites import DOORS, suite
from adloom.warehouse.contract import TABLES

TODAY = "known_date = date '2024-03-06'"
DAILY = "marts.fct_creative_daily"


def update(table: str, assignment: str, where: str = "true") -> str:
    return f"update {table} set {assignment} where {TODAY} and {where}"


def delete(table: str, where: str = "true") -> str:
    return f"delete from {table} where {TODAY} and {where}"


def double(table: str, where: str = "true", known: str = "known_date") -> str:
    return f"insert into {table} select * from {table} where {known} = date '2024-03-06' and {where}"


def multiply(table: str, key: str, times: int) -> str:
    """The day's rows so many times, under new ids."""
    return (
        f"insert into raw.{table} by name select day.* replace (day.{key} || '+' || n as {key}) "
        f"from raw.{table} as day, range(1, {times}) as series (n) where {TODAY}"
    )


def keep(table: str, rows: int) -> str:
    """Only so many of the day's rows."""
    return delete(table, f"rowid not in (select rowid from {table} where {TODAY} order by rowid limit {rows})")


# Each world is spoiled in all the ways listed, then its door is knocked at once: a knock costs half a second.
RAW_WORLDS: dict[str, dict[str, list[str]]] = {
    "values missing": {
        "ad_events.event_id.not_null": [update("raw.ad_events", "event_id = null", "source_line = 1")],
        "ad_events.event_type.not_null": [update("raw.ad_events", "event_type = null", "source_line = 2")],
        "ad_events.occurred_at.not_null": [update("raw.ad_events", "occurred_at = null", "source_line = 3")],
        "ad_events.creative_id.on_impressions": [update("raw.ad_events", "creative_id = null", "source_line = 4")],
        "ad_events.impression_id.on_clicks": [update("raw.ad_events", "impression_id = null", "source_line = 401")],
        "ad_events.impression_id.on_conversions": [
            update("raw.ad_events", "impression_id = null, user_hash = null", "source_line = 441")
        ],
        "behaviours.event_id.not_null": [update("raw.behaviours", "event_id = null", "source_line = 1")],
        "behaviours.user_hash.not_null": [update("raw.behaviours", "user_hash = null", "source_line = 2")],
        "behaviours.behaviour.not_null": [update("raw.behaviours", "behaviour = null", "source_line = 3")],
        "behaviours.occurred_at.not_null": [update("raw.behaviours", "occurred_at = null", "source_line = 4")],
        "users.user_hash.not_null": [update("raw.users", "user_hash = null", "user_hash = 'u1'")],
        "items.item_id.not_null": [update("raw.items", "item_id = null", "item_id = 'p1'")],
        "campaigns.campaign_id.not_null": [update("raw.campaigns", "campaign_id = null")],
        "campaigns.scenario.not_null": [update("raw.campaigns", "scenario = null")],
        "hot_events.event_id.not_null": [update("raw.hot_events", "event_id = null")],
        "hot_events.title.not_null": [update("raw.hot_events", "title = null")],
        "privacy_requests.user_hash.not_null": [update("raw.privacy_requests", "user_hash = null")],
        "privacy_requests.kind.not_null": [update("raw.privacy_requests", "kind = null")],
        "privacy_requests.requested_at.not_null": [update("raw.privacy_requests", "requested_at = null")],
    },
    "values wrong": {
        "ad_events.event_type.in_set": [update("raw.ad_events", "event_type = 'view'", "source_line = 1")],
        "ad_events.propensity.probability": [update("raw.ad_events", "propensity = 0", "source_line = 2")],
        "ad_events.occurred_at.not_in_future": [
            update("raw.ad_events", "occurred_at = timestamp '2024-03-07 00:00:00'", "source_line = 3")
        ],
        "ad_events.occurred_at.within_lookback": [
            update("raw.ad_events", "occurred_at = timestamp '2024-02-04 23:59:59'", "source_line = 4")
        ],
        "ad_events.event_id.unique": [double("raw.ad_events", "source_line = 5")],
        "behaviours.behaviour.in_set": [update("raw.behaviours", "behaviour = 'stare'", "source_line = 1")],
        "behaviours.occurred_at.not_in_future": [
            update("raw.behaviours", "occurred_at = timestamp '2024-03-07 00:00:00'", "source_line = 2")
        ],
        "behaviours.occurred_at.within_lookback": [
            update("raw.behaviours", "occurred_at = timestamp '2024-02-04 23:59:59'", "source_line = 3")
        ],
        "behaviours.event_id.unique": [double("raw.behaviours", "source_line = 4")],
        "users.user_hash.unique": [double("raw.users", "user_hash = 'u1'")],
        "items.item_id.unique": [double("raw.items", "item_id = 'p1'")],
        "campaigns.campaign_id.unique": [double("raw.campaigns")],
        "hot_events.event_id.unique": [double("raw.hot_events")],
        "privacy_requests.kind.in_set": [update("raw.privacy_requests", "kind = 'forget'")],
        "privacy_requests.requested_at.not_in_future": [
            update("raw.privacy_requests", "requested_at = timestamp '2024-03-07 00:00:00'")
        ],
    },
    "unusual": {
        "ad_events.impression_id.known_warn": [
            update("raw.ad_events", "impression_id = 'unknown'", "event_type = 'click' and source_line < 403")
        ],
        "ad_events.user_hash.usual": [update("raw.ad_events", "user_hash = null", "source_line % 2 = 0")],
        "ad_events.rows.volume_warn": [multiply("ad_events", "event_id", 3)],
        "behaviours.rows.volume_warn": [keep("raw.behaviours", 149)],
        "users.rows.volume_warn": [keep("raw.users", 19)],
        "items.rows.volume_warn": [multiply("items", "item_id", 3)],
        "privacy_requests.requested_at.within_lookback": [
            update("raw.privacy_requests", "requested_at = timestamp '2020-01-01 00:00:00'")
        ],
    },
    "far out": {
        "ad_events.impression_id.known_fail": [
            update("raw.ad_events", "impression_id = 'unknown'", "event_type = 'click' and source_line < 421")
        ],
        "ad_events.rows.volume_fail": [multiply("ad_events", "event_id", 11)],
        "behaviours.rows.volume_fail": [keep("raw.behaviours", 29)],
        "users.rows.volume_fail": [keep("raw.users", 3)],
        "items.rows.volume_fail": [multiply("items", "item_id", 11)],
    },
    "no folder": {"landing.folder.present": [delete("adloom.landing_days")]},
    "empty folder": {"landing.rows.some": [delete(f"raw.{name}") for name in TABLES]},
}
LEDGER_WORLDS: dict[str, dict[str, list[str]]] = {
    "raw and ledger disagree": {f"{name}.rows.as_loaded": [double(f"raw.{name}")] for name in TABLES}
    | {
        "landing.files.usable": [
            "insert into adloom.landing_files (known_date, table_name, source_file, size_bytes, sha256, rows_loaded, "
            "rows_rejected, rejected_reason) values (date '2024-03-06', 'users', 'bad.csv', 1, 'h', 0, 0, 'not UTF-8')"
        ]
    },
}
MARTS_WORLDS: dict[str, dict[str, list[str]]] = {
    "keys repeated": {
        "fct_impressions.key.unique": [
            double("marts.fct_impressions", "impression_id = 'i5-1'", known="impression_known_date")
        ],
        "fct_creative_daily.key.unique": [double(DAILY, "creative_id = 'c1' and clicks > 0")],
        "fct_behaviours_daily.key.unique": [double("marts.fct_behaviours_daily", "user_hash = 'u1'")],
        "dim_items.key.unique": [double("marts.dim_items", "item_id = 'p1'")],
        "dim_creatives.key.unique": [
            "insert into marts.dim_creatives (creative_id, known_date) values ('c1', date '2024-03-06')"
        ],
        "user_segments.key.unique": [
            "insert into marts.user_segments values ('u1', date '2024-03-06', 'a'), ('u1', date '2024-03-06', 'b')"
        ],
    },
    "values missing": {
        f"fct_creative_daily.{column}.not_null": [update(DAILY, f"{column} = null", "impressions > 0")]
        for column in ("creative_id", "segment_id", "placement", "policy_id", "campaign_id", "impression_date")
    },
    "values wrong": {
        **{
            f"fct_creative_daily.{column}.not_negative": [update(DAILY, f"{column} = -1", "creative_id = 'c1'")]
            for column in ("impressions", "clicks", "conversions", "invalid_impressions", "invalid_clicks")
        },
        "fct_creative_daily.clicks.within_impressions": [
            update(DAILY, "clicks = 98", "creative_id = 'c2' and clicks > 0")
        ],
        "fct_creative_daily.conversions.within_clicks": [
            update(DAILY, "conversions = 11", "creative_id = 'c3' and conversions > 0")
        ],
    },
    "sums differ": {
        "fct_impressions.impressions.as_raw": ["delete from marts.fct_impressions where impression_id = 'i5-399'"],
        "fct_creative_daily.sums.as_impressions": [
            update(DAILY, "conversions_value = conversions_value + 0.000001", "conversions > 0")
        ],
        "fct_behaviours_daily.events.as_raw": [
            update("marts.fct_behaviours_daily", "events = events - 1", "user_hash = 'u1'")
        ],
        "dim_segments.users.as_members": [update("marts.dim_segments", "users = 39")],
        "fct_creative_daily.ctr.usual_fail": [update(DAILY, "clicks = 0", "clicks > 0")],
    },
    "unusual": {
        "fct_creative_daily.ctr.usual_warn": [update(DAILY, "clicks = 4", "clicks > 0")],
        "fct_creative_daily.invalid_impressions.usual": [update(DAILY, "invalid_impressions = 30", "impressions > 0")],
        "fct_impressions.propensity.consistent": ["update marts.fct_impressions set propensity = 1"],
        "fct_impressions.repeated.few": [
            "insert into intermediate.int_ad_events__duplicates "
            f"select source_file, source_line, known_date from raw.ad_events where {TODAY} and source_line < 30"
        ],
        "fct_behaviours_daily.repeated.few": [
            "insert into intermediate.int_behaviours__duplicates "
            f"select source_file, source_line, known_date from raw.behaviours where {TODAY} and source_line < 30"
        ],
    },
}
BRIEFS, MADE = "adloom.briefs", "adloom.creatives"


BODY_OF_7 = f"select body from {MADE} where creative_id = 'k7'"


def rewrite(assignment: str, creative: str) -> str:
    return f"update {MADE} set {assignment} where creative_id = '{creative}'"


CREATIVES_WORLDS: dict[str, dict[str, list[str]]] = {
    "copies wrong": {
        "creatives.brief_id.complete": [f"delete from {MADE} where creative_id = 'k1'"],
        "creatives.body.within_limits": [rewrite('hashtags = \'["a", "b", "c"]\'', "k2")],
        "creatives.body.no_forbidden_word": [rewrite("body = 'The Cheapest: ' || body", "k3")],
        "creatives.language.right": [rewrite("body = 'not a word of Chinese'", "k4")],
        "creatives.creative_hash.of_content": [rewrite("headline = 'Other'", "k5")],
        "creatives.refused_reason.few_warn": [
            f"update {MADE} set headline = null, refused_reason = 'none' where creative_id between 'k10' and 'k19'"
        ],
        "creatives.body.different_warn": [rewrite("headline = 'No. 7', body = (" + BODY_OF_7 + ")", "k6")],
        "creatives.candidates.parsed": [f"update {MADE} set candidates_parsed = 1"],
        "reviews.creative_id.marked": ["delete from adloom.reviews"],
        "assets.format.complete": ["delete from adloom.assets where creative_id = 'k1' and format like 'feed%'"],
        "assets.checks.passed": ["update adloom.assets set width = 1081 where creative_id = 'k2'"],
        "assets.label.read_back": [
            "update adloom.assets set label = replace(label, 'shop-1', 'shop-2') where creative_id = 'k3'"
        ],
        "assets.digest.of_file": ["update adloom.assets set digest = 'other' where creative_id = 'k4'"],
        "assets.creative_id.few_refused": [
            "insert into adloom.reviews select creative_id, creative_hash, day, 'image.picture', '1', "
            f"'feed_1080x1080', '', 'block', 'no picture' from {MADE} where creative_id between 'k5' and 'k8'"
        ],
    },
    "most refused, the rest alike": {
        "creatives.refused_reason.few_fail": [
            f"update {MADE} set headline = null, refused_reason = 'none' where creative_id >= 'k2'"
        ],
        "creatives.body.different_fail": [
            f"update {MADE} set headline = 'Same', body = 'Always the same' where headline is not null"
        ],
        "creatives.body.original_warn": [],
        "creatives.body.original_fail": [
            "insert into adloom.reviews select creative_id, creative_hash, day, 'similarity.near_duplicate', '1', "
            f"'body', 'Always', 'warn', 'as k0' from {MADE} where creative_id between 'k10' and 'k15'"
        ],
        "approvals.creative_id.not_blocked": [
            "update adloom.reviews set severity = 'block'",
            # The content an approval is bound to: the copy and every picture made for it.
            "insert into adloom.approvals by name select made.creative_id, 'approved' as decision, 'person' as origin, "
            "date '2024-03-06' as decided_on, left(sha256(made.creative_hash || chr(10) || "
            "string_agg(asset.digest, chr(10) order by asset.digest)), 16) as creative_hash "
            "from adloom.creatives as made join adloom.assets as asset using (creative_id) "
            "where made.creative_id = 'k0' group by made.creative_id, made.creative_hash",
        ],
    },
    "nothing ordered": {"briefs.day.some": [f"delete from {BRIEFS}", f"delete from {MADE}"]},
}
WORLDS = (
    [("raw", name, spoilers, True) for name, spoilers in RAW_WORLDS.items()]
    + [("raw", name, spoilers, False) for name, spoilers in LEDGER_WORLDS.items()]
    + [("marts", name, spoilers, True) for name, spoilers in MARTS_WORLDS.items()]
    + [("creatives", name, spoilers, True) for name, spoilers in CREATIVES_WORLDS.items()]
)


@pytest.mark.parametrize(
    ("door", "spoilers", "relist"),
    [(door, spoilers, relist) for door, _, spoilers, relist in WORLDS],
    ids=[f"{door}: {name}" for door, name, *_ in WORLDS],
)
def test_a_spoiled_day_turns_each_of_its_checks_red(world, door, spoilers, relist):
    world.do(*(statement for statements in spoilers.values() for statement in statements))
    if relist:
        world.relist()
    found = world.knock(door)
    assert {check_id: found[check_id] for check_id in spoilers if found[check_id][0]} == {}
    assert not [seen for seen in found.values() if "could not be evaluated" in seen[1]]


def test_every_check_has_a_spoiler(make_shop):
    ids = [(door, one.id) for door in DOORS for one in suite(door, make_shop(), date(2024, 3, 6), set(TABLES))]
    assert len(set(ids)) == len(ids)
    assert {(door, check_id) for door, _, spoilers, _ in WORLDS for check_id in spoilers} == set(ids)


def test_good_days_pass_every_check(world):
    for door in DOORS:
        found = world.knock(door)
        assert found
        assert not {check_id: seen for check_id, seen in found.items() if not seen[0] or "skipped" in seen[1]}


def test_times_are_judged_in_the_shops_zone(make_world: Callable):
    world = make_world(time_zone="Asia/Shanghai")
    world.do(
        update("raw.ad_events", "occurred_at = timestamp '2024-03-06 15:59:59'"),
        update("raw.ad_events", "occurred_at = timestamp '2024-03-06 16:00:00'", "source_line = 1"),
    )
    is_passed, observed = world.knock("raw")["ad_events.occurred_at.not_in_future"]
    assert not is_passed
    assert observed == "1 of 444 rows, such as 2024-03-06 16:00:00"


@pytest.mark.parametrize(
    ("requested_at", "are_rebuilt", "is_passed"),
    [
        ("2024-03-06 23:00:00", True, True),
        ("2024-03-06 23:00:00", False, True),
        ("2024-03-06 00:30:00", True, False),
        (None, True, False),
    ],
    ids=["delivered again", "marts not built since", "happened after the request", "never asked"],
)
def test_raw_rows_of_an_erased_user_may_be_missing_in_the_marts(world, requested_at, are_rebuilt, is_passed):
    """Raw holds the user until the next privacy run, the marts until they are built again: no day stops for it."""
    if are_rebuilt:
        world.do(
            "delete from marts.fct_impressions where user_hash = 'u2' and impression_known_date = date '2024-03-06'",
            "delete from marts.fct_behaviours_daily where user_hash = 'u2' and known_date = date '2024-03-06'",
        )
    if requested_at:
        world.do(
            "insert into adloom.privacy_registry by name "
            f"select 'u2' as user_hash, 'erase' as kind, timestamp '{requested_at}' as requested_at, "
            "date '2024-03-06' as known_date, 'r' as receipt",
        )
    found = world.knock("marts")
    for name in ("fct_impressions.impressions.as_raw", "fct_behaviours_daily.events.as_raw"):
        assert found[name][0] == is_passed, found[name]
