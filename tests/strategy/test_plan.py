from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from adloom.strategy import adjust, live_plan
from adloom.strategy.allocation import floor_share, next_shares, probability_best, target_shares
from adloom.strategy.posterior import DEFAULT_CTR, posterior, shrunk_rate
from adloom.warehouse.engine import warehouse

FIRST = date(2024, 3, 1)
STORED = ("approvals", "posteriors", "plans", "allocations", "holdout_lift", "off_policy")


def day(number: int) -> date:
    """Day 1 is the first."""
    return FIRST + timedelta(days=number - 1)


def week(marts: Any, days: int = 7) -> None:
    """Three creatives in two placements; c gets better every day; d arrives on day 4 in the first."""
    for number in range(1, days + 1):
        home = {"a": (2000, 10), "b": (1500, 4), "c": (800, 2 + 2 * number)}
        if number >= 4:
            home["d"] = (300, number % 3)
        marts.counts(day(number), home)
        marts.counts(day(number), {"a": (500, 3), "b": (700, 1 + number % 2)}, placement="home:2")


def adaptive(marts: Any, number: int) -> dict[str, dict[str, dict[str, Any]]]:
    """placement → creative → row of the adaptive plan made on a day."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in marts.table("allocations"):
        if row["policy_id"] == "adaptive" and f".{day(number)}." in row["plan_id"]:
            found[row["placement"]][row["creative_id"]] = row
    return found


def test_every_policy_and_placement_sums_to_one_and_keeps_the_floor(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts)
    summary = adjust(marts.shop, day(7))
    assert (summary.placements, summary.creatives, summary.valid_from) == (2, 4, day(8))
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in marts.table("allocations"):
        groups[row["policy_id"], row["placement"]].append(row["share"])
    assert sorted(groups) == [
        ("adaptive", "home:1"),
        ("adaptive", "home:2"),
        ("holdout", "home:1"),
        ("holdout", "home:2"),
    ]
    for (policy, _), shares in groups.items():
        assert abs(math.fsum(shares) - 1) <= 1e-12
        assert min(shares) >= (floor_share(len(shares)) if policy == "adaptive" else 1 / len(shares) - 1e-6)
    plan = adaptive(marts, 7)["home:1"]
    assert max(plan, key=lambda creative: plan[creative]["share"]) == "c"


@pytest.mark.parametrize("order", [(5, 4, 3, 2, 1), (4, 2, 5, 4, 1, 3)])
def test_plans_do_not_depend_on_the_order_of_days(order: tuple[int, ...], make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts, days=5)
    for number in order:
        adjust(marts.shop, day(number))
    stored = {name: marts.table(name) for name in STORED}
    for number in range(1, 6):
        adjust(marts.shop, day(number))
    assert {name: marts.table(name) for name in STORED} == stored
    # Facts that arrive on a later day change no earlier plan, and what a plan calls "before" is what the plan of the
    # day before said.
    for number in range(2, 6):
        for placement, plan in adaptive(marts, number).items():
            yesterday = adaptive(marts, number - 1)[placement]
            for creative, row in plan.items():
                assert row["share_before"] == yesterday.get(creative, {"share": None})["share"]


def test_a_day_loaded_later_changes_nothing_before_it(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts, days=5)
    adjust(marts.shop, day(5))
    plan, posteriors = adaptive(marts, 5), marts.table("posteriors")
    marts.counts(day(6), {"b": (100, 100), "z": (100, 100)})
    marts.counts(day(5), {"b": (0, 50)}, clicks_known=day(6))
    adjust(marts.shop, day(5))
    assert adaptive(marts, 5) == plan
    assert marts.table("posteriors") == posteriors


def test_no_share_moves_more_than_the_cap(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"max_share_change": 0.1})
    marts.counts(day(1), {"a": (5000, 25), "b": (5000, 25), "c": (5000, 25)})
    marts.counts(day(2), {"a": (5000, 25), "b": (5000, 25), "c": (9000, 400)})
    for number in range(3, 7):
        marts.counts(day(number), {"a": (500, 3), "b": (500, 2), "c": (9000, 400)})
    shares = []
    for number in range(1, 7):
        adjust(marts.shop, day(number))
        shares.append({creative: row["share"] for creative, row in adaptive(marts, number)["home:1"].items()})
    for before, after in itertools.pairwise(shares):
        assert max(abs(after[creative] - before[creative]) for creative in before) <= 0.1 + 2e-6
    assert shares[1]["c"] == pytest.approx(shares[0]["c"] + 0.1, abs=2e-6)
    assert "held back by the daily cap" in adaptive(marts, 2)["home:1"]["c"]["sentence"]
    assert shares[-1]["c"] > 0.7


def test_sentences_give_shares_reason_and_counts(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts)
    adjust(marts.shop, day(7))
    plan = adaptive(marts, 7)["home:1"]
    assert plan["c"]["sentence"].startswith("creative c: ")
    assert "clicks per 1,000 more than its family, 99 % sure (70 clicks in 5,600 impressions)" in plan["c"]["sentence"]
    assert "fewer than its family" in plan["b"]["sentence"]
    assert "at the least share, which keeps it in the race" in plan["b"]["sentence"]
    adjust(marts.shop, day(4))
    assert adaptive(marts, 4)["home:1"]["d"]["sentence"].startswith("creative d: new → ")
    assert adaptive(marts, 4)["home:1"]["d"]["share_before"] is None


def test_sentences_speak_the_shops_language(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(language="zh")
    week(marts)
    adjust(marts.shop, day(7))
    assert "每千次展示比同系列多" in adaptive(marts, 7)["home:1"]["c"]["sentence"]
    assert "5,600 次展示，70 次点击" in adaptive(marts, 7)["home:1"]["c"]["sentence"]


def test_a_creative_new_to_a_segment_starts_from_its_family(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    marts.counts(day(1), {"a": (9000, 90), "b": (9000, 45), "n": (50, 0)}, segment="young")
    marts.counts(day(1), {"a": (9000, 90), "b": (9000, 45)}, segment="old")
    adjust(marts.shop, day(1))
    rows = {(row["segment_id"], row["creative_id"]): row for row in marts.table("posteriors")}
    newcomer = rows["old", "n"]
    assert (newcomer["impressions"], newcomer["clicks"]) == (0, 0)
    assert rows["old", "b"]["ctr"] < newcomer["ctr"] < rows["old", "a"]["ctr"]
    sentences = [row["sentence"] for row in marts.table("allocations") if row["segment_id"] == "old"]
    assert any("no impressions here yet, so it starts from its family" in sentence for sentence in sentences)


def test_conversions_are_not_acted_on(make_marts: Callable[..., Any]) -> None:
    plans = []
    for shop_id, conversions in (("plain", 0), ("converting", 1000)):
        marts = make_marts(id=shop_id)
        marts.counts(day(1), {"a": (5000, 25), "b": (5000, 25)}, conversions=conversions)
        adjust(marts.shop, day(1))
        plans.append([row["share"] for row in marts.table("allocations")])
    assert plans[0] == plans[1]


def test_days_whose_clicks_are_still_arriving_are_left_out(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    for number in range(1, 12):
        # A third of each day's clicks is known on the day itself, the rest a day later.
        marts.counts(day(number), {"a": (3000, 10), "b": (3000, 10)})
        marts.counts(day(number), {"a": (0, 20), "b": (0, 20)}, clicks_known=day(number + 1))
    marts.counts(day(11), {"b": (0, 90)})
    adjust(marts.shop, day(11))
    rows = {row["creative_id"]: row for row in marts.table("posteriors")}
    assert rows["b"]["clicks"] == rows["a"]["clicks"] == 300
    assert rows["a"]["impressions"] == 30_000
    adjust(marts.shop, day(12))
    later = {row["creative_id"]: row for row in marts.table("posteriors") if row["day"] == day(12)}
    assert later["b"]["clicks"] == 420


def test_a_rejected_creative_is_in_no_plan_and_named(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts)
    marts.execute(
        "insert into adloom.approvals values ('c', 'h', 'rejected', 'person', '2024-03-05', 'Li', 'claim', null)"
    )
    summary = adjust(marts.shop, day(7))
    assert summary.left_out == ("c",)
    assert "left out, not approved: c" in str(summary)
    assert "c" not in {row["creative_id"] for row in marts.table("allocations")}


def test_a_day_without_facts_keeps_the_last_state_and_a_shop_without_facts_has_no_plan(
    make_marts: Callable[..., Any],
) -> None:
    marts = make_marts()
    empty = adjust(marts.shop, day(1))
    assert empty.plan_id is None
    assert "no plan" in str(empty)
    assert marts.table("plans") == []
    week(marts, days=3)
    adjust(marts.shop, day(3))
    adjust(marts.shop, day(4))
    last, quiet = adaptive(marts, 3)["home:1"], adaptive(marts, 4)["home:1"]
    assert {creative: row["share"] for creative, row in last.items()} == pytest.approx(
        {creative: row["share"] for creative, row in quiet.items()}, abs=0.01
    )


def test_a_creative_that_left_its_placement_gets_no_share(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    marts.counts(day(1), {"gone": (1000, 50), "a": (1000, 5)})
    marts.counts(day(30), {"a": (1000, 5), "b": (1000, 5)})
    adjust(marts.shop, day(30))
    assert sorted(adaptive(marts, 30)["home:1"]) == ["a", "b"]


def test_a_backfill_of_an_old_day_never_becomes_the_live_plan(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts)
    for number in (6, 7, 2):
        adjust(marts.shop, day(number))

    def live(number: int) -> Any:
        with warehouse(marts.shop) as engine, engine.connect() as connection:
            plan = live_plan(connection, day(number))
        return None if plan is None else plan.day

    assert [live(number) for number in (2, 3, 6, 7, 8, 30)] == [None, day(2), day(2), day(6), day(7), day(7)]


def test_a_replay_with_other_facts_replaces_the_plan_of_the_day(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    week(marts, days=3)
    first = adjust(marts.shop, day(3)).plan_id
    marts.counts(day(2), {"b": (1000, 90)})
    second = adjust(marts.shop, day(3)).plan_id
    assert first != second
    assert [row["plan_id"] for row in marts.table("plans")] == [second]
    assert {row["plan_id"] for row in marts.table("allocations")} == {second}


def test_top_two_splits_between_leader_and_challengers(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"algorithm": "top_two", "max_share_change": 1.0})
    marts.counts(day(1), {"a": (20_000, 400), "b": (20_000, 100), "c": (20_000, 60)})
    adjust(marts.shop, day(1))
    assert adaptive(marts, 1)["home:1"]["a"]["share"] == pytest.approx(0.5, abs=0.02)


def test_a_shop_without_a_holdout_has_one_policy(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"holdout_share": 0.0})
    week(marts, days=2)
    adjust(marts.shop, day(2))
    assert {row["policy_id"] for row in marts.table("allocations")} == {"adaptive"}


@pytest.mark.parametrize("algorithm", ["thompson", "top_two"])
def test_a_shops_nights_are_those_of_the_simulated_worlds(algorithm: Any, make_marts: Callable[..., Any]) -> None:
    """The proofs of `tests/simulation/test_bandit.py` run these lines in thousands of worlds; a shop runs `adjust`."""
    marts = make_marts(strategy={"algorithm": algorithm})
    rng = np.random.default_rng(5)
    creatives, days = list("abcdef"), 6
    ctrs = rng.gamma(4.0, 0.0046 / 4.0, len(creatives))
    shares = equal = np.full(len(creatives), 1 / len(creatives))
    shown, clicks = np.zeros((2, len(creatives), 2 * days))
    for number in range(1, days + 1):
        for stratum, (policy, count, split) in enumerate((("adaptive", 9500, shares), ("holdout", 500, equal))):
            place = 2 * (number - 1) + stratum
            shown[:, place] = rng.multinomial(count, split)
            clicks[:, place] = rng.binomial(shown[:, place].astype(int), ctrs)
            pairs = zip(shown[:, place].astype(int).tolist(), clicks[:, place].astype(int).tolist(), strict=True)
            marts.counts(day(number), dict(zip(creatives, pairs, strict=True)), policy=policy)
        known = slice(0, 2 * number)
        parent: Any = DEFAULT_CTR
        for _ in ("shop", "segment", "placement"):
            parent = shrunk_rate(clicks[:, known].sum(), shown[:, known].sum(), parent)
        belief = posterior(shown[:, known], clicks[:, known], parent, np.zeros(len(creatives), dtype=np.intp))
        best = probability_best(belief.alpha, belief.beta)
        shares = next_shares(target_shares(best, algorithm), shares, marts.shop.strategy.max_share_change)

        adjust(marts.shop, day(number))
        plan = adaptive(marts, number)["home:1"]
        assert [plan[creative]["share"] for creative in creatives] == pytest.approx(shares.tolist(), abs=2e-6)
