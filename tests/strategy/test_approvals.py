from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from adloom.strategy.approvals import approved, record_external
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 5)


def record(marts: Any, day: date) -> list[tuple[str, date]]:
    with warehouse(marts.shop) as engine, engine.begin() as connection:
        record_external(connection, day)
    return [(row["creative_id"], row["decided_on"]) for row in marts.table("approvals") if row["origin"] == "external"]


def test_creatives_already_running_are_approved_on_the_day_they_were_first_known(
    make_marts: Callable[..., Any],
) -> None:
    marts = make_marts()
    marts.counts(date(2024, 3, 1), {"a": (10, 0)})
    marts.counts(date(2024, 3, 3), {"b": (10, 0)})
    assert record(marts, date(2024, 3, 2)) == [("a", date(2024, 3, 1))]
    both = [("a", date(2024, 3, 1)), ("b", date(2024, 3, 3))]
    assert record(marts, DAY) == both
    assert record(marts, date(2024, 3, 1)) == both, "a replay of an old day takes nothing back"
    # A folder filled late shows that b had run before; a folder delivered again no longer has a.
    marts.execute("update marts.dim_creatives set known_date = '2024-03-02' where creative_id = 'b'")
    marts.execute("delete from marts.dim_creatives where creative_id = 'a'")
    assert record(marts, date(2024, 3, 2)) == [("b", date(2024, 3, 2))]


@pytest.mark.parametrize(
    ("decisions", "allowed"),
    [
        ([], False),
        ([("approved", "external", "2024-03-01")], True),
        ([("approved", "external", "2024-03-08")], False),
        ([("approved", "person", "2024-03-06")], True),
        ([("approved", "person", "2024-03-07")], False),
        ([("approved", "external", "2024-03-05"), ("rejected", "person", "2024-03-01")], False),
        ([("rejected", "person", "2024-03-02"), ("approved", "person", "2024-03-04")], True),
        ([("rejected", "person", "2024-03-04"), ("approved", "person", "2024-03-04")], False),
        ([("approved", "person", "2024-03-02"), ("rejected", "person", "2024-03-04")], False),
        ([("approved", "person", "2024-03-02"), ("rejected", "person", "2024-04-01")], False),
        ([("approved", "person", "2024-03-02"), ("perhaps", "person", "2024-03-03")], False),
    ],
)
def test_the_latest_word_of_a_person_counts(
    decisions: list[tuple[str, str, str]], allowed: bool, make_marts: Callable[..., Any]
) -> None:
    marts = make_marts()
    for decision, origin, decided_on in decisions:
        marts.execute(
            "insert into adloom.approvals values ('a', '', $decision, $origin, $day, null, null, null)",
            decision=decision,
            origin=origin,
            day=decided_on,
        )
    with warehouse(marts.shop) as engine, engine.connect() as connection:
        assert ("a" in approved(connection, marts.shop, DAY)) is allowed
