"""What fairness blocks in a placement gets no new share there, and everybody who looks is told why."""

from __future__ import annotations

import json
from typing import Any

from adloom.publishing import dossier
from adloom.publishing.plan import publish
from adloom.strategy import adjust, plan_with_new_creatives
from adloom.strategy.plan import CREATIVES_PRODUCER
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

WHY = "creative b: women are 80 % of who saw it in home:1 and 50 % of who could have"


def block(planned: Any, creative_id: str, number: int, since: int, placement: str = "home:1") -> None:
    """The evaluation of day ``number`` knows of a block that began on day ``since``."""
    figures = ("delivered_share", "eligible_share", "difference_low", "difference_high", "most_allowed")
    planned.add(
        ledger.allocation_blocks,
        day=planned.day(number),
        placement=placement,
        creative_id=creative_id,
        reason="audience_skew",
        blocked_since=planned.day(since),
        sentence=WHY,
        trait="gender",
        value="f",
        users=600,
        impressions=1000,
        **dict.fromkeys(figures, 0.3),
    )


def live(planned: Any) -> dict[str, Any]:
    root = planned.shop.published / "plans"
    folder = root / json.loads((root / "CURRENT.json").read_text())["path"]
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return plan


def shown(planned: Any) -> dict[tuple[str, str], set[str]]:
    """(policy, placement) → creatives of the live plan."""
    policies = live(planned)["policies"]
    return {(name, where): set(cell) for name, cells in policies.items() for where, cell in cells["all"].items()}


def test_a_blocked_creative_loses_its_share_there_and_keeps_it_elsewhere(planned: Any) -> None:
    adjust(planned.shop, planned.day(6))
    publish(planned.shop, planned.day(6))
    assert shown(planned)["adaptive", "home:1"] == {"a", "b", "c"}
    block(planned, "b", 7, since=7)
    told = adjust(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(7))
    for policy in ("adaptive", "holdout"):
        assert shown(planned)[policy, "home:1"] == {"a", "c"}
        assert shown(planned)[policy, "home:2"] == {"a", "b", "c"}
    assert told.blocked == (WHY,)
    assert WHY in str(told)
    assert told.left_out == (), "it is approved: that is not why"
    gained = planned.execute(
        "select distinct sentence from adloom.allocations join adloom.plans using (plan_id) "
        "where placement = 'home:1' and policy_id = 'adaptive' and day = '2024-03-07' and share > share_before"
    )
    assert gained
    assert all("because b is blocked here for whom it was shown to" in row[0] for row in gained)


def test_a_new_creative_that_is_blocked_enters_elsewhere_only_and_its_dossier_says_why(planned: Any) -> None:
    planned.write("tea", 6)
    planned.decide("tea", number=6)
    block(planned, "tea", 7, since=7)
    plan_with_new_creatives(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(7), CREATIVES_PRODUCER)
    assert shown(planned)["adaptive", "home:1"] == {"a", "b", "c"}
    assert "tea" in shown(planned)["adaptive", "home:2"]
    with warehouse(planned.shop) as engine, engine.begin() as connection:
        told = dossier.collect(connection, planned.shop, "tea", planned.day(7))
    assert [(one["placement"], one["sentence"]) for one in told["blocks"]] == [("home:1", WHY)]


def test_a_block_counts_from_its_day_on(planned: Any) -> None:
    """The evaluation of a later day knows since when; a plan of before, made again, is what it was."""
    block(planned, "b", 7, since=7)
    adjust(planned.shop, planned.day(6))
    publish(planned.shop, planned.day(6))
    assert shown(planned)["adaptive", "home:1"] == {"a", "b", "c"}


def test_an_old_plan_does_not_go_on_with_what_is_blocked_by_now(planned: Any) -> None:
    for number in (6, 7):
        adjust(planned.shop, planned.day(number))
        publish(planned.shop, planned.day(number))
    block(planned, "b", 7, since=7)
    block(planned, "b", 8, since=7)
    publish(planned.shop, planned.day(8))  # no plan was made on that day
    assert not (planned.shop.published / "plans" / "CURRENT.json").exists(), "every plan there is shows it"
    adjust(planned.shop, planned.day(8))
    publish(planned.shop, planned.day(8))
    assert shown(planned)["adaptive", "home:1"] == {"a", "c"}
