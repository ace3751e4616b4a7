"""Does the strategy of production earn, and does it find the best creative? Full sizes: `make proof`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from adloom.simulation.bandit import Outcome, Strategy, gamma_ctrs, simulate, uniform_ctrs
from adloom.strategy.allocation import Algorithm, next_shares, probability_best, target_shares
from adloom.strategy.posterior import DEFAULT_CTR, Floats, posterior, shrunk_rate

SEED = 20191124
MAX_SHARE_CHANGE = 0.3  # the default of a shop


def production(algorithm: Algorithm) -> Strategy:
    """What `adloom.strategy.plan` does each night for one placement of one family, in many worlds at once.

    That it does is tested in `tests/strategy/test_plan.py`, against a shop's own run.
    """

    def tomorrow(shown: Floats, clicks: Floats, today: Floats) -> tuple[Floats, Floats]:
        parent: Floats | float = DEFAULT_CTR
        for _ in ("shop", "segment", "placement"):
            parent = shrunk_rate(clicks.sum((-2, -1)), shown.sum((-2, -1)), parent)
        belief = posterior(shown, clicks, parent, np.zeros(shown.shape[-2], dtype=np.intp))
        best = probability_best(belief.alpha, belief.beta)
        return next_shares(target_shares(best, algorithm), today, MAX_SHARE_CHANGE), best

    return tomorrow


def outcome(
    algorithm: Algorithm,
    worlds: int,
    *,
    draw: Callable[[np.random.Generator, int], Floats] = gamma_ctrs,
    impressions: int = 10_000,
    level_sd: float = 0.0,
) -> Outcome:
    rng = np.random.default_rng(SEED)
    return simulate(production(algorithm), draw(rng, worlds), rng, impressions=impressions, level_sd=level_sd)


def test_thompson_earns() -> None:
    found = outcome("thompson", 60)
    assert found.earned.mean() >= 0.85
    assert found.earned.mean() >= 1.4 * found.uniform.mean()


def test_top_two_decides() -> None:
    assert outcome("top_two", 60).chosen.mean() >= 0.98


@pytest.mark.parametrize("algorithm", ["thompson", "top_two"])
def test_days_of_different_levels_do_not_mislead(algorithm: Algorithm) -> None:
    alike, different = outcome(algorithm, 60), outcome(algorithm, 60, level_sd=0.3)
    assert different.chosen.mean() >= alike.chosen.mean() - 0.02
    assert different.earned.mean() >= alike.earned.mean() - 0.03


@pytest.mark.proof
def test_thompson_earns_in_a_thousand_worlds() -> None:
    found = outcome("thompson", 1000)
    print("\nThompson, Gamma(mean .46 %, cv .5), 10,000 impressions a day:", found.summary())
    assert found.earned.mean() >= 0.85
    assert found.earned.mean() >= 1.4 * found.uniform.mean()


@pytest.mark.proof
def test_top_two_decides_in_a_thousand_worlds() -> None:
    found = outcome("top_two", 1000)
    print("\ntop-two, Gamma(mean .46 %, cv .5), 10,000 impressions a day:", found.summary())
    assert found.chosen.mean() >= 0.98


@pytest.mark.proof
def test_days_of_different_levels_do_not_mislead_in_a_thousand_worlds() -> None:
    found = outcome("thompson", 1000, level_sd=0.3)
    print("\nThompson, days differing by 30 %:", found.summary())
    assert found.earned.mean() >= 0.85


@pytest.mark.proof
@pytest.mark.parametrize("algorithm", ["thompson", "top_two"])
@pytest.mark.parametrize(
    ("name", "draw", "impressions"),
    [
        ("Gamma(mean .46 %, cv .5)", gamma_ctrs, 500),
        ("U(.4 %, 1 %)", uniform_ctrs, 10_000),
        ("U(.4 %, 1 %)", uniform_ctrs, 500),
    ],
)
def test_harder_worlds_are_reported(
    algorithm: Algorithm, name: str, draw: Callable[[np.random.Generator, int], Floats], impressions: int
) -> None:
    """No figure is promised here; the strategy must still not lose against equal shares."""
    found = outcome(algorithm, 1000, draw=draw, impressions=impressions)
    print(f"\n{algorithm}, {name}, {impressions:,} impressions a day: {found.summary()}")
    assert found.earned.mean() > found.uniform.mean()
