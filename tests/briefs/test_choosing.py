"""A day's budget: how many briefs, which ones, and the same ones every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from adloom.creative import SCENARIOS

DAY = date(2024, 3, 10)
World = Any
"""The shop that conftest.py plants."""


INTERESTS = ("家居/灯具", "茶咖/茶叶", "玩具/风筝")


@pytest.fixture
def full_world(make_world: Callable[..., World]) -> Callable[..., World]:
    """A shop in which every scenario has candidates in both languages."""

    def make(**copywriting: Any) -> World:
        world = make_world(channels=[], copywriting=copywriting)
        for category in INTERESTS:
            for number in range(6):
                item_id = f"{category[:1]}{number}"
                english = {
                    "title": f"Thing {number}",
                    "category": "Shop/Things",
                    "attributes": {"Colour": "cloud white"},
                }
                world.item(item_id, title=f"竹灯 {item_id}", category=category, english=english)
            world.segment(f"fans_of_{category[:1]}", 120, {category: 0.7})
        world.segment("all", 2000)
        world.segment("not_personalised", 300)
        world.affinity(INTERESTS[0], INTERESTS[1], 1.5)
        world.campaign(categories=None)
        world.event()
        return world

    return make


@pytest.mark.parametrize("budget", [1, 3, 10, 48])
def test_there_are_never_more_than_the_budget(full_world: Callable[..., World], budget: int) -> None:
    world = full_world(briefs_per_day=budget)
    assert world.write().briefs == budget


def test_every_scenario_and_language_gets_one_where_the_budget_allows(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=10, exploration_share=0.5)
    cells = {(one.scenario, one.language) for one in world.briefs()}
    assert cells == {(scenario, language) for scenario in SCENARIOS for language in ("zh", "en")}


def test_the_share_that_explores_is_kept_and_spread_over_families(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=48, exploration_share=0.25)
    world.write()
    rows = world.query("select chosen_for, segment_id, scenario, channel, language from adloom.briefs where day = :day")
    explored = [row[1:] for row in rows if row[0] == "exploration"]
    assert len(explored) == 12
    assert len(set(explored)) == 12


def test_exploration_goes_where_least_was_shown(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=200, exploration_share=1)
    for segment in ("all", "not_personalised", *(f"fans_of_{one[:1]}" for one in INTERESTS)):
        world.clicked(segment, "recommendation", "feed", 5000, 25)
    world.write()
    rows = world.query(
        "select scenario, channel, language from adloom.briefs where day = :day and chosen_for = 'exploration' "
        "order by position limit 60"
    )
    assert ("recommendation", "feed", "zh") not in rows


def test_no_item_is_in_more_briefs_than_its_share(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=36)
    world.seen("家0", 200)
    items = Counter(one.item.item_id for one in world.briefs())
    assert max(items.values()) <= 4  # twice its even share of 36 briefs over 18 items


def test_what_is_clicked_more_is_worth_more(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=200, exploration_share=0)
    world.clicked("fans_of_家", "recommendation", "banner", 10_000, 300)
    world.clicked("fans_of_茶", "recommendation", "banner", 10_000, 10)
    world.write()
    rows = world.query(
        "select segment_id, max(expected_value), max(evidence) from adloom.briefs where day = :day "
        "and scenario = 'recommendation' and channel = 'banner' group by segment_id"
    )
    values = {row[0]: row[1] for row in rows}
    assert values["fans_of_家"] > 5 * values.get("fans_of_茶", 0)
    assert '"ctr_clicks": 300, "ctr_impressions": 10000' in {row[0]: row[2] for row in rows}["fans_of_家"]


def test_a_popular_item_comes_before_others_of_its_category(world: World) -> None:
    for number in range(2, 5):
        world.item(f"lamp{number}")
    world.seen("lamp3", 60)
    assert world.briefs("recommendation", "zh")[0].item.item_id == "lamp3"


def test_popularity_is_told_in_rounded_counts_of_users(world: World) -> None:
    world.seen("lamp1", 47)
    world.write()
    (evidence,) = world.query("select distinct evidence from adloom.briefs where day = :day and scenario = 'social'")[0]
    assert '"item_viewers": 40' in evidence


def test_a_second_run_is_the_same_bytes_and_rows(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=30)
    everything = "select * from adloom.briefs where day = :day order by position"
    first, rows = world.write().path.read_bytes(), world.query(everything)
    assert world.write().path.read_bytes() == first
    assert world.query(everything) == rows
    assert len(rows) == 30


def test_file_and_ledger_say_the_same_in_the_same_order(full_world: Callable[..., World]) -> None:
    world = full_world(briefs_per_day=30)
    lines = world.write().path.read_text(encoding="utf-8").splitlines()
    rows = world.query("select content from adloom.briefs where day = :day order by position")
    assert [row[0] for row in rows] == lines


def test_seeds_differ_between_briefs(full_world: Callable[..., World]) -> None:
    briefs = full_world(briefs_per_day=30).briefs()
    assert len({one.seed for one in briefs}) == len(briefs)
    assert len({one.brief_id for one in briefs}) == len(briefs)


def test_days_do_not_touch_each_other(world: World) -> None:
    other = DAY + timedelta(days=1)
    world.segment("lamps", 200, {"家居/灯具": 0.8}, day=other)
    first = world.write().path.read_bytes()
    world.write(other)
    world.write()
    assert world.shop.creatives.joinpath(f"day={DAY}", "briefs.jsonl").read_bytes() == first
    assert {row[0] for row in world.query("select day from adloom.briefs")} == {DAY, other}
