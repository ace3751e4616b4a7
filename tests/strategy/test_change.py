"""A change of algorithm waits for its day and for the off-policy gate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from adloom.shop import load_shop
from adloom.strategy import adjust

FIRST = date(2024, 3, 1)
EVE, START = FIRST + timedelta(days=4), FIRST + timedelta(days=5)
EVEN = {"a": 0.5, "b": 0.5}
CLEAR = {"a": 0.10, "b": 0.02}
STORED = ("approvals", "posteriors", "plans", "allocations", "off_policy")


def changing(make_marts: Callable[..., Any], old: str, new: str, start: date = START, **overrides: Any) -> Any:
    change = {"from": old, "valid_from": start.isoformat()}
    return make_marts(strategy={"algorithm": new, "max_share_change": 1.0, "change": change}, **overrides)


def serve(marts: Any, days: int = 5, count: int = 2000, ctrs: dict[str, float] | None = None) -> None:
    for number in range(days):
        marts.served(FIRST + timedelta(days=number), EVEN, ctrs or CLEAR, count)


def plans(marts: Any) -> dict[date, dict[str, Any]]:
    return {row["valid_from"]: row for row in marts.table("plans")}


def leader(marts: Any, valid_from: date) -> float:
    """Share of creative a in the adaptive plan."""
    plan_id = plans(marts)[valid_from]["plan_id"]
    (share,) = (
        row["share"]
        for row in marts.table("allocations")
        if (row["plan_id"], row["policy_id"], row["creative_id"]) == (plan_id, "adaptive", "a")
    )
    return share


def test_a_better_algorithm_takes_over_on_its_day(make_marts: Callable[..., Any]) -> None:
    # Thompson gives a clear leader nearly everything, top-two only half: about 10 % against 6 % of clicks.
    marts = changing(make_marts, "top_two", "thompson")
    serve(marts)
    for day in (EVE - timedelta(days=1), EVE, START):
        adjust(marts.shop, day)
    before, passed, later = plans(marts)[EVE], plans(marts)[START], plans(marts)[START + timedelta(days=1)]
    assert (before["algorithm"], before["gate"]) == ("top_two", "not_needed")
    assert (passed["algorithm"], passed["gate"]) == (later["algorithm"], later["gate"]) == ("thompson", "passed")
    assert leader(marts, EVE) == pytest.approx(0.5, abs=0.05)
    assert leader(marts, START) == pytest.approx(0.98, abs=0.01)
    assert passed["gate_sentence"] == later["gate_sentence"]
    assert passed["gate_sentence"].startswith("top_two → thompson: passed, nothing says it is worse. CTR ")
    assert "(10,000 impressions, " in passed["gate_sentence"]
    assert passed["gate_sentence"].endswith(f"plans from {START} on use thompson.")
    rows = [row for row in marts.table("off_policy") if row["day"] == EVE]
    assert [(row["change"], row["estimator"], row["decision"]) for row in rows] == [
        ("top_two → thompson", "doubly_robust", "passed"),
        ("top_two → thompson", "snips", "passed"),
    ]
    for row in rows:
        assert row["difference"] == pytest.approx(0.48 * 0.08, rel=0.15)


def test_a_worse_algorithm_is_held_and_the_old_one_stays(make_marts: Callable[..., Any]) -> None:
    marts = changing(make_marts, "thompson", "top_two")
    serve(marts)
    summary = adjust(marts.shop, EVE)
    held = plans(marts)[START]
    assert (held["algorithm"], held["gate"]) == ("thompson", "held")
    assert leader(marts, START) == pytest.approx(0.98, abs=0.01)
    assert held["gate_sentence"] in str(summary)
    assert "held, the new policy is worse. CTR " in held["gate_sentence"]
    assert "clicks per 1,000 impressions (10,000 impressions" in held["gate_sentence"]
    assert f"plans from {START} on use thompson. Next: set strategy.algorithm back" in held["gate_sentence"]
    assert {row["decision"] for row in marts.table("off_policy")} == {"held"}
    # It is the old algorithm to the last share: the same shop without the change makes the same plan.
    plain = make_marts(id="plain_shop", strategy={"algorithm": "thompson", "max_share_change": 1.0})
    serve(plain)
    adjust(plain.shop, EVE)
    assert plans(plain)[START]["content_digest"] == held["content_digest"]


def test_a_log_too_small_is_refused(make_marts: Callable[..., Any]) -> None:
    marts = changing(make_marts, "top_two", "thompson")
    serve(marts, count=20)
    adjust(marts.shop, EVE)
    refused = plans(marts)[START]
    assert (refused["algorithm"], refused["gate"]) == ("top_two", "refused")
    assert "refused. The log of 100 impressions is worth " in refused["gate_sentence"]
    assert "Next: go on serving plans and log their propensities" in refused["gate_sentence"]


def test_without_a_plan_in_the_logs_nothing_can_be_told(make_marts: Callable[..., Any]) -> None:
    marts = changing(make_marts, "top_two", "thompson", language="zh")
    marts.served(EVE, EVEN, CLEAR, policy="foreign")
    adjust(marts.shop, EVE)
    refused = plans(marts)[START]
    assert (refused["algorithm"], refused["gate"]) == ("top_two", "refused")
    assert "0 次按计划投放" in refused["gate_sentence"]
    assert marts.table("off_policy") == []


def test_equal_shares_pass_without_an_estimate(make_marts: Callable[..., Any]) -> None:
    marts = changing(make_marts, "thompson", "top_two")
    marts.served(EVE, {"a": 1.0}, CLEAR)
    adjust(marts.shop, EVE)
    passed = plans(marts)[START]
    assert (passed["algorithm"], passed["gate"]) == ("top_two", "passed")
    assert "there is nothing to compare" in passed["gate_sentence"]
    assert marts.table("off_policy") == []


def test_the_decision_depends_neither_on_order_nor_on_what_is_known_later(make_marts: Callable[..., Any]) -> None:
    marts = changing(make_marts, "thompson", "top_two")
    serve(marts)
    days = [EVE + timedelta(days=shift) for shift in (-1, 0, 1, 2)]
    adjust(marts.shop, EVE)
    judged = plans(marts)[START]["gate_sentence"]
    # From the day on creative b is the better one by far: seen then, the change would pass.
    for day in days[2:]:
        marts.served(day, EVEN, {"a": 0.02, "b": 0.3}, 4000)
    marts.execute(
        "insert into adloom.approvals values ('b', 'h', 'rejected', 'person', '2024-03-07', 'Li', 'claim', null)"
    )
    for day in (days[3], days[0], days[2], days[1]):
        adjust(marts.shop, day)
    stored = {name: marts.table(name) for name in STORED}
    for day in days:
        adjust(marts.shop, day)
    assert {name: marts.table(name) for name in STORED} == stored
    assert [plans(marts)[day + timedelta(days=1)]["gate"] for day in days] == ["not_needed", "held", "held", "held"]
    assert {plans(marts)[day + timedelta(days=1)]["gate_sentence"] for day in days[1:]} == {judged}
    # Named again with a later day, the same change is judged on what is known by then.
    path = marts.shop.home.parents[2] / "shops" / f"{marts.shop.id}.yml"
    path.write_text(path.read_text().replace(START.isoformat(), (START + timedelta(days=2)).isoformat()))
    adjust(load_shop(marts.shop.id), days[2])
    assert plans(marts)[days[3]]["gate_sentence"] != judged
