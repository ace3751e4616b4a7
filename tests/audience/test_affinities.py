"""Lift and its interval, the blocks of days they are counted in, and the planted truth of the sample shop."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from adloom.audience.affinities import Block, last_block, lift, rows
from adloom.audience.portraits import read_affinities
from adloom.warehouse.engine import warehouse

FIRST = date(2024, 3, 1)


def test_blocks_follow_each_other_without_a_gap_or_a_day_in_two() -> None:
    blocks = [last_block(FIRST, FIRST + timedelta(days=n), 7) for n in range(22)]
    assert blocks[:6] == [None] * 6
    found = list(dict.fromkeys(block for block in blocks if block))
    assert found == [Block(FIRST + timedelta(days=n - 1), FIRST + timedelta(days=n + 6)) for n in (0, 7, 14)]


def test_no_relation_is_a_lift_of_one_and_its_interval_holds_it() -> None:
    value, low, high = lift(both=50, viewed=200, bought=250, everybody=1000)
    assert value == 1
    assert low < 1 < high


@pytest.mark.parametrize("more", [1, pytest.param(10, marks=pytest.mark.proof)])
@pytest.mark.parametrize("truth", [(0.05, 0.15, 0.1), (0.12, 0.08, 0.05)])
def test_the_interval_holds_the_true_lift_as_often_as_it_says(truth: tuple[float, ...], more: int) -> None:
    """Multinomial draws of 2,000 users; both, viewed only, bought only as given."""
    rng = np.random.default_rng(3)
    both, viewed_only, bought_only = truth
    true = both / ((both + viewed_only) * (both + bought_only))
    draws = rng.multinomial(2000, (*truth, 1 - sum(truth)), 600 * more)
    held = 0
    for one, other, third, _ in draws.tolist():
        _, low, high = lift(one, one + other, one + third, 2000)
        held += low <= true <= high
    assert held / len(draws) == pytest.approx(0.95, abs=0.025)


def test_a_complement_of_a_few_users_is_not_shown() -> None:
    """50 of the 52 viewers bought: the row would say that exactly two did not."""

    class Row:
        viewed_category, bought_category, both, viewed, bought, everybody = "a", "b", 50, 52, 200, 1000

    assert not list(rows([Row], FIRST, together=10))
    Row.viewed = 60
    assert [row["users_both"] for row in rows([Row], FIRST, together=10)] == [50]


def test_the_planted_affinities_of_the_sample_shop_are_found_and_unrelated_pairs_are_not(
    make_world: Any, facts: Any
) -> None:
    """Four weeks of 3,000 simulated users, known at once: every pair that shows enough users is judged."""
    from adloom.simulation.behaviours import behave
    from adloom.simulation.catalogue import catalogue
    from adloom.simulation.sample_shop import AFFINITIES, UNRELATED, prices_on

    world, season = make_world({"min_moved_users": 3}, min_segment_users=12), catalogue()
    kinds = {kind.key: kind.category["zh"] for kind in season.kinds}
    shelf = [facts.item(item.item_id, season.kinds[item.kind].category["zh"], item.price) for item in season.items]
    did = []
    for offset in range(28):
        day = season.first_day + timedelta(days=offset)
        events = behave(1, 3000, day, prices_on(1, day))
        for user, behaviour, item in zip(events.user, events.behaviour, events.item, strict=True):
            if item >= 0:
                did.append(facts.did(f"u{user}", season.items[item].item_id, str(behaviour), day=offset + 1))
    world.know(1, [], shelf)
    world.know(28, did)
    world.make(28)
    with warehouse(world.shop) as engine, engine.connect() as connection:
        found = {(one.viewed_category, one.bought_category): one for one in read_affinities(connection, facts.on(28))}

    def pair(looked_at: str, bought: str) -> tuple[str, str]:
        """As the table names them: both by their kind, or both by their department."""
        if "/" in looked_at and "/" in bought:
            return kinds[looked_at], kinds[bought]
        departments = {key.partition("/")[0]: path.partition("/")[0] for key, path in kinds.items()}
        return departments[looked_at.partition("/")[0]], departments[bought.partition("/")[0]]

    planted = [found[pair(one.looked_at, one.bought)] for one in AFFINITIES if pair(one.looked_at, one.bought) in found]
    assert len(planted) >= 5
    assert all(one.lift_low > 1 for one in planted), planted
    # Visitors differ in how much they look at, so everything is a little related to everything.
    usual = float(np.median([one.lift for one in found.values()]))
    unrelated = [found[pair(*one)] for one in UNRELATED if pair(*one) in found]
    assert all(one.lift < min(planted_one.lift for planted_one in planted) or one.lift_low < usual for one in unrelated)
