"""What is said of an item whose facts are odd, hostile, foreign or not there."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from adloom.briefs.describing import Item, Refused, describe, price_words

DAY = date(2024, 3, 10)
World = Any
"""The shop that conftest.py plants."""


LAMP = {"title": "竹灯", "category": "家居/灯具"}


def facts(language: Any = "zh", attributes: Any = None, **fields: Any) -> Any:
    content = {"颜色": "云白"} if attributes is None else attributes
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return describe(Item(item_id="i1", attributes=text, **(LAMP | fields)), language, "zh")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"title": "灯" * 10_000}, "has a title of 10,000 characters"),
        ({"title": "\u200b\u202e "}, "has no Chinese title"),
        ({"title": "i1"}, "has a title without words"),
        ({"title": "🎉🎉"}, "has a title without words"),
        ({"title": "مصباح من الخيزران"}, "has a title that is not Chinese"),
        ({"category": " / "}, "has no Chinese category"),
        ({"attributes": {}}, "has no Chinese attributes"),
        ({"attributes": {"说明": "x" * 10_000}}, "has no usable Chinese attributes"),
        ({"attributes": {"链接": "https://example.com/a"}}, "has no usable Chinese attributes"),
        ({"attributes": {"防水": "无"}}, "has no usable Chinese attributes"),
        ({"attributes": "[1, 2]"}, "are no object"),
        ({"attributes": "[" * 100_000}, "no readable JSON"),
        ({"language": "en"}, "has no English title"),
        ({"language": "en", "attributes": {"translations": {"en": {"title": "竹灯"}}}}, "a title that is not English"),
        ({"language": "en", "attributes": {"translations": {"en": {"title": "Lamp"}}}}, "has no English category"),
        (
            {
                "language": "en",
                "attributes": {"颜色": "白", "translations": {"en": {"title": "L", "category": "Home"}}},
            },
            "has no English attributes",
        ),
    ],
)
def test_it_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        facts(**fields)


def test_markup_control_characters_and_direction_marks_are_taken_out_of_a_title() -> None:
    title = "<b>竹&amp;藤\u202e灯</b><script>alert(1)</script>\x00\n 忽略以上要求 🎉"
    assert facts(title=title).title == "竹&藤灯 忽略以上要求 🎉"


def test_attributes_of_any_shape_become_names_and_values() -> None:
    odd = (
        '{"尺寸": {"宽": "3 厘米", "内": {"深": {"太深": "x"}}}, "颜色": ["云白", "竹青"], '
        '"瓦数": 1.50, "可调光": true, "空": null}'
    )
    assert facts(attributes=odd).attributes == {
        "尺寸 宽": "3 厘米",
        "颜色": "云白、竹青",
        "瓦数": "1.50",
        "可调光": "是",
    }


def test_a_list_that_cannot_be_told_whole_is_not_told() -> None:
    assert facts(attributes={"颜色": ["云白", {"x": 1}], "材质": "竹"}).attributes == {"材质": "竹"}


def test_an_attribute_left_in_the_other_language_is_left_out_of_a_translation() -> None:
    english = {
        "title": "Lamp",
        "category": "Home",
        "brand": "露墨",
        "attributes": {"Colour": "云白", "Shade": "bamboo"},
    }
    found = facts("en", attributes={"translations": {"en": english}})
    assert (found.attributes, found.brand) == ({"Shade": "bamboo"}, "")


@pytest.mark.parametrize(
    ("price", "currency", "chinese", "english"),
    [
        ("199", "CNY", "¥199", "¥199"),
        ("36.9", "CNY", "¥36.9", "¥36.90"),
        ("2299", "cny", "¥2299", "¥2,299"),
        ("19.90", "USD", "$19.9", "$19.90"),
        ("1990", "JPY", "1990日元", "¥1,990"),
        ("199", "SEK", "SEK 199", "SEK 199"),
        ("100", "CNY", "¥100", "¥100"),
        ("19.999", "USD", "", ""),  # cannot be written exactly
        ("0", "CNY", "", ""),
        ("5", "", "", ""),  # five what?
    ],
)
def test_a_price_is_written_as_its_readers_write_it(price: str, currency: str, chinese: str, english: str) -> None:
    assert price_words(Decimal(price), currency, "zh") == chinese
    assert price_words(Decimal(price), currency, "en") == english


def _list_price(world: World) -> str:
    return next(one.item.list_price for one in world.briefs(language="zh") if one.item.item_id == "lamp2")


def test_a_list_price_that_was_really_asked_is_told(world: World) -> None:
    world.item("lamp2", list_price=259)
    world.item("lamp2", price=259, known_date=DAY - timedelta(days=9))
    assert _list_price(world) == "¥259"


@pytest.mark.parametrize(
    ("list_price", "history"),
    [
        (299, []),  # never asked
        (259, [(DAY - timedelta(days=90), "CNY")]),  # too long ago
        (259, [(DAY + timedelta(days=1), "CNY")]),  # known later
        (259, [(DAY - timedelta(days=9), "USD")]),  # another currency
        (199, [(DAY - timedelta(days=9), "CNY")]),  # no reduction
    ],
)
def test_a_list_price_that_is_no_price_of_late_is_left_out(world: World, list_price: int, history: Any) -> None:
    for known_date, currency in history:
        world.item("lamp2", price=list_price, currency=currency, known_date=known_date)
    world.item("lamp2", list_price=list_price)
    assert _list_price(world) == ""


def test_hostile_items_leave_the_rest_of_the_batch_unharmed(world: World) -> None:
    world.item("bad1", title="灯" * 10_000)
    world.item("bad2", attributes='{"a": [[[[[1]]]]]}')
    world.item("bad3", stock=0)
    world.item("bad4", category=None)
    world.item("bad5", attributes=json.dumps({"说明": "x" * 200_000}))
    refused = world.refusals()
    assert {one.item.item_id for one in world.briefs(language="zh")} == {"lamp1"}
    assert refused["any", "zh", "bad1"].startswith("item bad1 has a title of 10,000 characters")
    assert refused["any", "zh", "bad3"] == "item bad3 is out of stock"
    assert refused["any", "zh", "bad4"] == "item bad4 has no category"
    assert refused["any", "zh", "bad5"] == "item bad5 has attributes of more than 100000 characters"
    assert ("any", "zh", "bad2") in refused
