from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adloom.strategy.allocation import (
    UNITS,
    closest_shares,
    floor_share,
    next_shares,
    probability_best,
    top_two,
    uniform_shares,
    whole_shares,
)


@pytest.mark.parametrize(("creatives", "floor"), [(1, 0.02), (2, 0.02), (10, 0.02), (34, 0.005883), (80, 0.0025)])
def test_floor_is_two_percent_or_a_fifth_shared_by_all(creatives: int, floor: float) -> None:
    assert floor_share(creatives) == floor
    assert min(0.02, 0.2 / creatives) <= floor <= min(0.02, 0.2 / creatives) + 1 / UNITS


weights = st.lists(st.floats(0, 1), min_size=1, max_size=80)


@settings(deadline=None, max_examples=200)
@given(target=weights, before=weights, cap=st.floats(0.01, 1))
def test_shares_sum_to_one_and_keep_floor_and_cap(target: list[float], before: list[float], cap: float) -> None:
    count = len(target)
    wanted = (np.array(target) + 1e-9) / (np.array(target) + 1e-9).sum()
    had = np.resize(np.array(before) + 1e-9, count)
    today = whole_shares(next_shares(had / had.sum(), np.full(count, 1 / count), 1.0))
    shares = whole_shares(next_shares(wanted, today, cap))
    assert abs(math.fsum(shares) - 1) <= 1e-12
    assert abs(sum(shares.tolist()) - 1) <= 1e-12
    if count > 1:
        assert shares.min() >= floor_share(count)
        assert np.abs(shares - today).max() <= cap + 2 / UNITS
    assert (np.round(shares * UNITS) / UNITS == shares).all()


def test_cap_and_floor_are_reached_and_the_rest_goes_where_it_is_wanted() -> None:
    shares = whole_shares(next_shares(np.array([1.0, 0, 0, 0]), np.full(4, 0.25), 0.3))
    assert shares[0] == 0.55
    assert shares[1:] == pytest.approx([0.15, 0.15, 0.15])
    assert whole_shares(next_shares(np.array([1.0, 0, 0, 0]), shares, 1.0)).tolist() == [0.94, 0.02, 0.02, 0.02]


def test_a_new_creative_takes_its_floor_from_the_others() -> None:
    shares = next_shares(np.array([0.6, 0.4, 0.0]), np.array([0.6, 0.4, 0.0]), 0.1)
    assert shares[2] == pytest.approx(0.02)
    assert shares.sum() == pytest.approx(1)


def test_closest_shares_are_the_nearest() -> None:
    rng = np.random.default_rng(1)
    target = rng.dirichlet(np.ones(4))
    low, high = np.full(4, 0.1), np.full(4, 0.4)
    found = closest_shares(target, low, high)
    others = rng.dirichlet(np.ones(4), 50_000)
    allowed = others[((others >= 0.1) & (others <= 0.4)).all(-1)]
    assert len(allowed) > 100
    assert ((found - target) ** 2).sum() <= ((allowed - target) ** 2).sum(-1).min() + 1e-6


def test_probability_best_equals_a_monte_carlo_count() -> None:
    rng = np.random.default_rng(2)
    # Narrow veterans, a wide newcomer and one without a chance.
    alpha = np.array([400.0, 420.0, 4.0, 30.0, 100.0])
    beta = np.array([80_000.0, 80_000.0, 800.0, 5_000.0, 40_000.0]) - alpha
    draws = rng.beta(alpha, beta, (400_000, 5))
    counted = np.bincount(draws.argmax(-1), minlength=5) / len(draws)
    assert probability_best(alpha, beta) == pytest.approx(counted, abs=0.004)
    assert probability_best(np.full(80, 4.0), np.full(80, 800.0)) == pytest.approx(1 / 80)


def test_probability_best_holds_when_some_are_sure_and_some_are_not() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        count = int(rng.choice([2, 10, 34, 80]))
        mean, strength = rng.gamma(4, 0.00115, count) + 1e-4, 800 + rng.choice([0, 5_000, 2_000_000], count)
        alpha, beta = mean * strength, (1 - mean) * strength
        exact = probability_best(alpha, beta, points=3000)
        assert np.abs(probability_best(alpha, beta) - exact).max() < 0.001


def test_top_two_equals_drawing_until_the_challenger_differs() -> None:
    best = np.array([0.7, 0.2, 0.06, 0.04])
    rng = np.random.default_rng(6)
    leaders = rng.choice(4, 200_000, p=best)
    challengers = rng.choice(4, 200_000, p=best)
    while (same := leaders == challengers).any():
        challengers[same] = rng.choice(4, int(same.sum()), p=best)
    drawn = 0.5 * best + 0.5 * np.bincount(challengers, minlength=4) / len(challengers)
    assert top_two(best) == pytest.approx(drawn, abs=0.004)


def test_top_two_gives_the_runner_up_its_half_even_when_the_leader_is_certain() -> None:
    assert top_two(np.array([1.0, 0.0])) == pytest.approx([0.5, 0.5])
    assert top_two(np.array([1 - 1e-20, 1e-20, 1e-25])) == pytest.approx([0.5, 0.5, 0], abs=1e-4)


def test_equal_shares_are_whole_too() -> None:
    for count in (1, 3, 7, 34, 80):
        shares = uniform_shares(count)
        assert abs(math.fsum(shares) - 1) <= 1e-12
        assert shares.max() - shares.min() <= 1.5 / UNITS
