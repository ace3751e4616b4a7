"""Intervals against published figures, figures computed by hand and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest

from adloom.evaluation.intervals import (
    Moments,
    corrected_rate,
    design_effect,
    pooled_design_effect,
    rate_interval,
    wilson,
)
from adloom.simulation.clustered import ClusteredWorld


@pytest.mark.parametrize(
    ("clicks", "low", "high"),
    [(38, 0.00277, 0.00521), (42, 0.00311, 0.00567), (46, 0.00345, 0.00613), (69, 0.00546, 0.00872)],
)
def test_wilson_gives_the_bounds_published_for_open_bandit(clicks: int, low: float, high: float) -> None:
    assert np.allclose(wilson(clicks, 10_000, 0.95), (low, high), rtol=0, atol=1e-5)


def test_no_clicks_and_no_impressions() -> None:
    low, high = wilson([0, 0, 5], [100, 0, 5], 0.95)
    assert low[0] == 0
    assert high[0] == pytest.approx(0.0369935, abs=1e-7)  # z² / (n + z²)
    assert np.isnan([low[1], high[1]]).all()
    assert high[2] == 1


def test_design_effect_by_hand() -> None:
    """A hundred users each with 4, 1, 0 and 0 clicks of 5 impressions.

    r = 500 / 2000 = .25; Σ(c − rn)² = 100 (2.75² + .25² + 1.25² + 1.25²) = 1075 against 2000 · .25 · .75 = 375, so
    the effect is 2.86667. The clicks rest on 1700² / 25 700 = 112.45 users: t = 1.98128, (t/z)² = 1.02187.
    """
    moments = Moments.of([5] * 400, [4] * 100 + [1] * 100 + [0] * 200)
    assert moments.effective_users == pytest.approx(112.4514, abs=1e-4)
    assert moments.trials_per_user == 5
    effect = design_effect(moments, 0.95)
    assert effect == pytest.approx(1 + 1.866667 * 1.02187, abs=1e-4)
    low, high = rate_interval(500, 2000, effect, 0.95)
    assert (float(low), float(high)) == pytest.approx((0.21909, 0.28369), abs=2e-5)


def test_users_with_one_impression_each_are_not_clusters() -> None:
    moments = Moments.of([1] * 50, [1] * 7 + [0] * 43)
    assert design_effect(moments, 0.95) == 1


def test_two_clicking_users_widen_only_up_to_users_of_one_mind() -> None:
    moments = Moments.of([5, 5, 5, 5], [4, 1, 0, 0])
    assert design_effect(moments, 0.95) == moments.trials_per_user == 5


def test_a_key_without_clicks_borrows_the_correlation_of_the_pool() -> None:
    pool = Moments.of([5] * 400, [4] * 100 + [1] * 100 + [0] * 200)
    silent = Moments.of([3] * 10, [0] * 10)
    correlation = (design_effect(pool, 0.95) - 1) / (5 - 1)
    assert design_effect(silent, 0.95) == 1
    assert pooled_design_effect(silent, pool, 0.95) == pytest.approx(1 + 2 * correlation)
    assert pooled_design_effect(pool, silent, 0.95) == design_effect(pool, 0.95)


def test_interval_agrees_with_a_bootstrap_of_users() -> None:
    rng = np.random.default_rng(7)
    impressions, clicks = (drawn[0] for drawn in ClusteredWorld(users=3_000).draw(rng, 1))
    effect = design_effect(Moments.of(impressions, clicks), 0.95)
    ours = rate_interval(clicks.sum(), impressions.sum(), effect, 0.95)
    weights = rng.multinomial(3_000, np.full(3_000, 1 / 3_000), 2_000)
    resampled = (weights @ clicks) / (weights @ impressions)
    theirs = np.quantile(resampled, [0.025, 0.975])
    assert np.allclose(ours, theirs, rtol=0, atol=0.1 * (theirs[1] - theirs[0]))


def test_correction_by_hand() -> None:
    """30 conversions of 2,000 clicks, three quarters known: 30 / 1500 = 2 %."""
    rate, low, high = corrected_rate(30, 2_000, 0.75, 0.0, effect=1.0, confidence=0.95)
    assert rate == pytest.approx(0.02)
    # Var = (.015 · .985 / 2000) / .75² = 1.31333e-5, the variance of 2 % of 1,492.386 clicks.
    assert (float(low), float(high)) == pytest.approx(
        tuple(map(float, wilson(0.02 * 1492.386, 1492.386, 0.95))), abs=1e-7
    )


def test_an_uncertain_correction_widens_the_interval() -> None:
    sure = corrected_rate(300, 20_000, 0.75, 0.0, effect=1.0, confidence=0.95)
    unsure = corrected_rate(300, 20_000, 0.75, 0.05**2, effect=1.0, confidence=0.95)
    assert unsure[1] < sure[1] < sure[0] == unsure[0] < sure[2] < unsure[2]


def test_complete_cohorts_need_no_correction() -> None:
    _, low, high = corrected_rate(30, 1_000, 1.0, 0.0, effect=2.0, confidence=0.95)
    assert np.allclose((low, high), wilson(15, 500, 0.95))


def test_correction_stays_within_bounds_and_admits_ignorance() -> None:
    rate, low, high = corrected_rate(
        [0, 10, 10, 0], [50, 10, 10, 0], [0.5, 1.0, 0.5, 0.5], [0.01] * 4, effect=1.0, confidence=0.95
    )
    assert rate[:3].tolist() == [0, 1, 1]
    assert ((low[:3] >= 0) & (high[:3] <= 1)).all()
    assert np.isnan([rate[3], low[3], high[3]]).all()
    assert np.isnan(corrected_rate(3, 50, 0.0, 0.0, effect=1.0, confidence=0.95)).all()
