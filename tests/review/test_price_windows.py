"""Which days count for "was" and "lowest": the windows at their edges, and where nothing is known of a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import pytest

from adloom.creative import Brief, CopyLimits, ItemFacts
from adloom.review import Evidence, law
from adloom.review.claims import HISTORY_DAYS

DAY = date(2025, 11, 5)
LIMITS = CopyLimits(headline=60, body=300, call_to_action=30)


def daily(*values: float) -> dict[date, float]:
    """A price a day; the last one is today's."""
    return {DAY - timedelta(days=len(values) - 1 - place): value for place, value in enumerate(values)}


def stands(text: str, language: str, prices: Mapping[date, float]) -> bool:
    order = Brief(
        scenario="recommendation",
        language=language,  # type: ignore[arg-type]
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id="i", title="耳机" if language == "zh" else "Headphones"),
        limits=LIMITS,
    )
    hits = law.found_in([("body", text)], order, Evidence(day=DAY, prices=prices))
    return not any(one.severity == "block" for one in hits)


def ago(days: int) -> date:
    """So many days before the reduction, which is today's."""
    return DAY - timedelta(days=days)


@pytest.mark.parametrize(
    ("prices", "was_59"),
    [
        pytest.param(daily(49, *[59] * 30, 39), True, id="lower on the 31st day before"),
        pytest.param(daily(49, *[59] * 29, 39), False, id="lower on the 30th day before"),
        pytest.param(daily(*[59] * 29, 49, 39), False, id="lower on the day before"),
        pytest.param(daily(49, *[59] * 30, *[39] * 20), True, id="reduced for some time"),
        pytest.param(daily(49, *[59] * 29, *[39] * 20), False, id="reduced for some time, lower on the 30th day"),
        pytest.param({ago(40): 59, DAY: 39}, True, id="said once, long before"),
        pytest.param({ago(40): 49, ago(10): 59, DAY: 39}, False, id="what was said before still held as they began"),
        pytest.param({ago(31): 49, ago(29): 59, DAY: 39}, False, id="nothing known of the first day"),
        pytest.param({ago(31): 49, ago(30): 59, DAY: 39}, True, id="raised on the first day"),
        pytest.param({ago(40): 49, ago(35): 59, DAY: 39}, True, id="raised before the first day"),
        pytest.param({DAY: 39}, False, id="known since today"),
        pytest.param(daily(*[39] * 60), False, id="never another price"),
        pytest.param(daily(*[59] * 30, 69), False, id="raised"),
        pytest.param({}, False, id="nothing known"),
    ],
)
def test_was_is_the_lowest_price_of_the_thirty_days_before_the_reduction(
    prices: dict[date, float], was_59: bool
) -> None:
    assert stands("Was $59", "en", prices) is was_59


@pytest.mark.parametrize(
    ("text", "prices", "is_lowest"),
    [
        pytest.param("30天最低价", daily(99, *[299] * 29, 199), True, id="lower 30 days ago"),
        pytest.param("30天最低价", daily(99, *[299] * 28, 199), False, id="lower 29 days ago"),
        pytest.param("30天最低价", daily(*[299] * 26, 199), True, id="27 of 30 days known"),
        pytest.param("30天最低价", daily(*[299] * 25, 199), False, id="26 of 30 days known"),
        pytest.param("最低价", daily(*[299] * 6, 199), False, id="a week is no month"),
        pytest.param("7天最低价", daily(*[299] * 6, 199), False, id="a shorter boast needs the month, too"),
        pytest.param("60天最低价", daily(*[299] * 29, 199), False, id="60 days said, 30 known"),
        pytest.param("60天最低价", daily(*[299] * 59, 199), True, id="60 days said and known"),
        pytest.param("11月1日最低价", daily(299, 199), False, id="a date shortens nothing"),
        pytest.param("今年最低价", daily(*[299] * 199, 199), False, id="a year said, 200 days known"),
        pytest.param("历史最低价", daily(*[299] * 29, 199), False, id="ever said, a month known"),
        pytest.param("最低价", {}, False, id="nothing known"),
    ],
)
def test_lowest_is_shown_by_nearly_every_day_of_what_is_said(
    text: str, prices: dict[date, float], is_lowest: bool
) -> None:
    assert stands(text, "zh", prices) is is_lowest


def test_ever_needs_all_that_is_remembered_in_english_too() -> None:
    assert not stands("Our lowest price ever", "en", daily(*[59] * 29, 39))
    assert stands("Our lowest price ever", "en", daily(*[59] * (HISTORY_DAYS - 1), 39))
    assert stands("Our lowest price in 30 days", "en", daily(*[59] * 29, 39))
