"""Each scenario from planted facts, and what is refused because a fact is missing or does not belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from adloom.errors import AdloomError

DAY = date(2024, 3, 10)
World = Any
"""The shop that conftest.py plants."""


def test_a_segment_is_recommended_what_it_looks_at(world: World) -> None:
    world.item("kite1", category="玩具/风筝")
    found = world.briefs("recommendation", "zh")
    assert {(one.item.item_id, one.channel, one.segment_words) for one in found} == {("lamp1", "feed", "喜欢灯具")}
    item = found[0].item
    assert (item.title, item.category, item.brand, item.price) == ("竹灯 lamp1", "家居/灯具", "露墨", "¥199")
    assert item.attributes == {"颜色": "云白", "材质": "竹"}


def test_the_english_brief_holds_only_the_translation(world: World) -> None:
    (found,) = world.briefs("recommendation", "en")
    assert (found.item.title, found.item.category, found.item.brand) == ("Bamboo lamp lamp1", "Home/Lamps", "Lumo")
    assert (found.item.attributes, found.segment_words) == ({"Colour": "cloud white"}, "into lamps")


def test_those_who_looked_at_one_category_get_items_of_the_other_and_its_name(world: World) -> None:
    world.item(
        "tea1",
        category="茶咖/茶叶",
        english={"title": "Green tea", "category": "Tea/Leaf", "attributes": {"Taste": "fresh"}},
    )
    world.affinity("家居/灯具", "茶咖/茶叶", low=1.4)
    found = {(one.language, one.item.item_id, one.related) for one in world.briefs("cross_category")}
    assert found == {("zh", "tea1", "灯具"), ("en", "tea1", "lamps")}


def test_a_lift_that_may_be_chance_makes_no_brief(world: World) -> None:
    world.item("tea1", category="茶咖/茶叶")
    world.affinity("家居/灯具", "茶咖/茶叶", low=0.98)
    assert world.refusals()["cross_category", "zh", "affinities"].startswith("no two categories go together")


def test_the_offer_is_told_only_of_items_it_covers_even_to_those_who_looked_at_others(world: World) -> None:
    world.item("kite1", category="玩具/风筝")
    world.segment("kites", 300, {"玩具/风筝": 0.9}, recent_items=["kite1"])
    world.campaign()
    found = world.briefs("promotion")
    assert {one.item.item_id for one in found} == {"lamp1"}
    offers = {one.language: one.offer for one in found}
    assert offers["en"] is not None
    assert (offers["en"].name, offers["en"].text) == ("Lamp Week", "¥30 off ¥199 on lamps")
    assert (offers["en"].starts_on, offers["en"].ends_on) == (date(2024, 3, 8), date(2024, 3, 14))


def test_an_event_carries_its_last_day_by_which_plans_let_go_of_it(world: World) -> None:
    world.event()  # ends with the midnight after the 11th
    assert {one.event.ends_on for one in world.briefs("hot_event")} == {date(2024, 3, 11)}


def test_a_campaign_that_names_items_covers_no_others_of_their_category(world: World) -> None:
    world.item("lamp2")
    world.campaign(items="lamp2")
    assert {one.item.item_id for one in world.briefs("promotion")} == {"lamp2"}


def test_a_campaign_keeps_to_its_channels_and_segments(world: World) -> None:
    world.segment("others", 900, {"家居/灯具": 0.9})
    world.campaign(channels="weibo;x", segments='["lamps"]')
    assert {(one.channel, one.segment_id) for one in world.briefs("promotion")} == {("weibo", "lamps")}


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "is_on"),
    [
        (datetime(2024, 3, 1), datetime(2024, 3, 11), False),  # ends as tomorrow begins
        (datetime(2024, 3, 1), datetime(2024, 3, 11, 0, 1), True),
        (datetime(2024, 3, 12), datetime(2024, 3, 20), False),  # begins as tomorrow ends
        (None, None, True),
    ],
)
def test_only_campaigns_that_are_on_tomorrow_are_promoted(
    world: World, starts_at: Any, ends_at: Any, is_on: bool
) -> None:
    world.campaign(starts_at=starts_at, ends_at=ends_at)
    assert bool(world.briefs("promotion")) == is_on


def test_today_s_price_is_not_said_when_a_campaign_of_the_item_begins_or_ends_overnight(world: World) -> None:
    world.item("kite1", category="玩具/风筝")
    world.segment("kites", 300, {"玩具/风筝": 0.9})
    world.campaign(ends_at=datetime(2024, 3, 11))
    prices = {one.item.item_id: one.item.price for one in world.briefs("recommendation", "zh")}
    assert prices == {"lamp1": "", "kite1": "¥199"}


def test_social_briefs_are_for_channels_with_hashtags_in_their_language(world: World) -> None:
    found = {(one.language, one.channel) for one in world.briefs("social")}
    assert found == {("zh", "weibo"), ("en", "instagram")}
    assert all(one.limits.hashtags_min >= 1 and one.tone for one in world.briefs("social"))


def test_an_event_is_tied_to_items_by_its_words(world: World) -> None:
    world.item("kite1", title="纸鸢", category="玩具/风筝", english={})
    world.segment("kites", 300, {"玩具/风筝": 0.9})
    world.event()
    found = world.briefs("hot_event", "en")
    assert {one.item.item_id for one in found} == {"lamp1"}
    assert found[0].event is not None
    assert (found[0].event.title, found[0].event.keywords) == ("The Lantern Fair", ("bamboo lamp",))


def test_an_event_without_a_link_is_refused_and_never_forced(world: World) -> None:
    world.event(
        keywords="元宵;猜谜", translations=json.dumps({"en": {"title": "Lantern Fair", "keywords": ["riddles"]}})
    )
    refused = world.refusals()
    assert refused["hot_event", "zh", "lantern_fair"] == "no item shares a word with event lantern_fair"
    assert not world.briefs("hot_event")


def test_a_word_of_two_meanings_in_one_language_ties_nothing(world: World) -> None:
    world.item(
        "book1",
        title="岛上旧事",
        attributes={"题材": "海岛故事"},
        english={"title": "Old Island Days", "category": "Books/Fiction", "attributes": {"Subject": "a family story"}},
    )
    world.event(keywords="团圆", translations=json.dumps({"en": {"title": "Harvest Moon", "keywords": ["family"]}}))
    assert not world.briefs("hot_event")


def test_who_is_not_personalised_gets_what_is_popular_and_no_word_about_themselves(world: World) -> None:
    world.segment("not_personalised", 500, words_zh="喜欢灯具", words_en="into lamps", recent_items=["lamp1"])
    found = [one for one in world.briefs() if one.segment_id == "not_personalised"]
    assert {one.scenario for one in found} >= {"recommendation", "social"}
    assert {one.segment_words for one in found} == {""}


def test_a_segment_nobody_is_in_is_refused(world: World) -> None:
    world.segment("empty", 0, {"家居/灯具": 0.9})
    assert world.refusals()["any", "zh", "empty"] == "segment empty has too few users to be written for"
    assert {one.segment_id for one in world.briefs()} == {"lamps"}


def test_a_campaign_or_event_that_is_not_translated_is_refused_in_that_language_only(world: World) -> None:
    world.campaign(english={})
    world.event(translations=None)
    refused = world.refusals()
    assert refused["promotion", "en", "lamp_week"] == "campaign lamp_week has no English offer"
    assert refused["hot_event", "en", "lantern_fair"] == "event lantern_fair has no English title"
    assert {(one.scenario, one.language) for one in world.briefs() if one.scenario in {"promotion", "hot_event"}} == {
        ("promotion", "zh"),
        ("hot_event", "zh"),
    }


def test_what_becomes_known_later_changes_nothing(world: World) -> None:
    before = world.write().path.read_bytes()
    later = {"known_date": DAY + timedelta(days=1)}
    world.item("lamp1", title="改名的灯", price=1, **later)
    world.item("lamp2", **later)
    world.campaign(**later)
    world.event(**later)
    world.seen("lamp1", 50, **later)
    assert world.write().path.read_bytes() == before


def test_the_last_delivery_of_an_item_counts(world: World) -> None:
    world.item("lamp1", title="旧名", price=99, known_date=DAY - timedelta(days=3))
    assert {one.item.title for one in world.briefs(language="zh")} == {"竹灯 lamp1"}


def test_an_erased_item_is_not_written_about(world: World) -> None:
    from adloom.warehouse import ledger

    world.ledger_row(ledger.erasures, kind="item", subject="lamp1", requested_on=DAY, reason="recalled")
    assert world.refusals()["any", "zh", "lamp1"] == "item lamp1 was erased"


def test_a_shop_without_items_says_so_and_writes_an_empty_file(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.segment("all", 0)
    report = world.write()
    assert (report.briefs, report.path.read_bytes()) == (0, b"")
    refused = world.refusals()
    assert refused["any", "en", "items"] == "the shop has delivered no items"
    assert ("promotion", "zh", "campaigns") in refused
    assert ("hot_event", "zh", "hot_events") in refused


def test_a_shop_of_items_without_titles_refuses_them_all_in_few_rows(make_world: Callable[..., World]) -> None:
    world = make_world(language="en", copy_languages=[])
    world.segment("all", 900)
    for number in range(30):
        world.item(f"i{number:02}", title=None)
    refused = world.refusals()
    assert refused["any", "en", "i00"] == "item i00 has no title"
    assert refused["any", "en", "items"] == "10 more items: each has no title"
    assert not world.briefs()


def test_where_nobody_can_be_counted_all_is_written_for(make_world: Callable[..., World]) -> None:
    world = make_world()
    world.item("lamp1")
    world.segment("all", 0)
    assert {(one.segment_id, one.segment_words) for one in world.briefs()} == {("all", "")}


def test_without_portraits_it_names_the_command_that_makes_them(make_world: Callable[..., World]) -> None:
    world = make_world()
    with pytest.raises(AdloomError, match="adloom portraits"):
        world.write()


def test_forbidden_words_and_voice_go_along_in_the_brief_s_language(make_world: Callable[..., World]) -> None:
    world = make_world(forbidden_words=["最好", "cheapest"], brand_voice="像朋友聊天")
    world.item("lamp1")
    world.segment("lamps", 200, {"家居/灯具": 0.8})
    (english, *_), (chinese, *_) = world.briefs(language="en"), world.briefs(language="zh")
    assert english.forbidden_words == ("cheapest",)
    assert "最好" in chinese.forbidden_words
    assert ("像朋友聊天" in chinese.tone, "像朋友聊天" in english.tone) == (True, False)
