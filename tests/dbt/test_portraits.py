"""The models of portraits: apart from the daily build, right by hand, and for many days as for one."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from sqlalchemy import inspect

from adloom.warehouse.dbt import run_dbt
from adloom.warehouse.engine import warehouse

SHAPED = ("int_items__described", "int_users__interests", "int_users__profiled")
ITEMS = [
    {"item_id": item_id, "category": category, "price": price, "currency": "EUR"}
    for item_id, category, price in [
        ("a", " Books / Fiction /Space", 5),
        ("b", "Books/Fiction", 10),
        ("c", "Books/Fiction", 10),
        ("d", "Books/Fiction", 40),
        ("e", "Books", 3),
        ("f", "Books//Lost", 3),
        ("g", None, 3),
        ("h", "Secret/Kept", 3),
    ]
]


def _behaviour(event_id: str, user: str, item_id: str, when: str, behaviour: str = "view") -> dict[str, Any]:
    return {"event_id": event_id, "user_hash": user, "item_id": item_id, "occurred_at": when, "behaviour": behaviour}


@pytest.fixture
def landing(make_landing: Any, facts: Any) -> Any:
    """Three days; on day 2 an item moves to another category and one user opts out."""
    landing = make_landing(portraits={"left_out_categories": ["Secret"]})
    landing.land(
        1,
        items=ITEMS,
        behaviours=[_behaviour(f"e{n}", user, "b", facts.at("1 10:00")) for n, user in enumerate("pqr")]
        + [_behaviour("x", "p", "h", facts.at("1 11:00"))],
        users=[{"user_hash": "q", "age_band": "13-17"}, {"user_hash": "p", "age_band": "25-34"}],
    )
    landing.land(
        2,
        items=[{"item_id": "b", "category": "Comics/Heroes", "price": 10, "currency": "EUR"}],
        privacy_requests=[{"user_hash": "r", "kind": "opt_out", "requested_at": facts.at("2 09:00")}],
        behaviours=[_behaviour("y", "p", "d", facts.at("2 10:00"), "purchase")],
    )
    landing.land(3, behaviours=[])
    landing.build(3)
    return landing


def test_the_daily_build_and_portraits_leave_each_other_alone(landing: Any) -> None:
    """The build makes no table of portraits, and their figures make no mart stale."""
    with warehouse(landing.shop) as engine:
        present = set(inspect(engine).get_table_names(schema="intermediate"))
    assert "int_users__segmented" in present
    assert not present & set(SHAPED)
    figures = landing.shop.portraits.model_copy(update={"half_life_days": 3})
    landing.shop = landing.shop.model_copy(update={"portraits": figures})
    assert not landing.build(3).known_dates


def test_rows_by_hand_and_the_same_one_day_at_a_time(landing: Any) -> None:
    days = [date(2024, 3, day) for day in (1, 2, 3)]
    ran = run_dbt(landing.shop, days[-1], select="tag:portraits", portrait_days=days)
    assert {name for name in ran if name.startswith("int_")} == set(SHAPED)

    described = "select item_id, category_1, category_2, price_position from intermediate.int_items__described "
    assert landing.query(described + "where known_date = '2024-03-01' order by 1") == [
        ("a", "Books", "Books/Fiction", 0),
        ("b", "Books", "Books/Fiction", 500),
        ("c", "Books", "Books/Fiction", 500),
        ("d", "Books", "Books/Fiction", 1000),
        ("e", "Books", "Books", None),
        ("f", "Books", "Books", None),
        ("g", None, None, None),
    ]
    # With b gone three prices are left: no distribution any more.
    assert landing.query(described + "where known_date = '2024-03-02' and item_id in ('a', 'b') order by 1") == [
        ("a", "Books", "Books/Fiction", None),
        ("b", "Comics", "Comics/Heroes", None),
    ]
    interests = "select day(known_date), user_hash, category_2, views, purchases from intermediate.int_users__interests"
    assert landing.query(f"{interests} order by all") == [
        (1, "p", "Books/Fiction", 1, 0),
        (1, "r", "Books/Fiction", 1, 0),
        (2, "p", "Books/Fiction", 0, 1),
        (2, "p", "Comics/Heroes", 1, 0),
        (3, "p", "Books/Fiction", 0, 1),
        (3, "p", "Comics/Heroes", 1, 0),
    ]
    profiled = "select day(known_date), user_hash, segment_id, interest_1, price_level, engagement "
    profiled += "from intermediate.int_users__profiled where known_date < '2024-03-03' order by 1, 2"
    assert landing.query(profiled) == [
        (1, "p", "all", "Books", "middle", "looks"),
        (1, "q", "not_personalised", None, None, None),
        (1, "r", "all", "Books", "middle", "looks"),
        (2, "p", "all", "Books", None, "buys"),
        (2, "q", "not_personalised", None, None, None),
        (2, "r", "not_personalised", None, None, None),
    ]

    together = {name: landing.query(f"select * from intermediate.{name} order by all") for name in SHAPED}  # noqa: S608
    for day in reversed(days):
        run_dbt(landing.shop, day, select="tag:portraits")
    apart = {name: landing.query(f"select * from intermediate.{name} order by all") for name in SHAPED}  # noqa: S608
    assert apart == together
