from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from adloom.strategy.posterior import (
    SPREAD_LOG_SD,
    SPREADS,
    USUAL_SPREAD,
    family_prior,
    ordinary_impressions,
    posterior,
    shrunk_rate,
)


def alone(*numbers: int) -> np.ndarray:
    """Counts of creatives over a single day: shape (creatives, 1)."""
    return np.array(numbers, dtype=float)[:, None]


def test_a_creative_without_impressions_starts_from_its_family() -> None:
    belief = posterior(alone(0), alone(0), 0.005, np.array([0]))
    # One creative without evidence: mean of the parent, spread .5, so strength (1 − .005) / (.005 × .25) − 1 = 795.
    assert belief.alpha[0] == pytest.approx(3.975)
    assert belief.beta[0] == pytest.approx(791.025)
    # Siblings at 2 % pull the newcomer up: the parent counts as one creative beside them.
    siblings = posterior(alone(100_000, 100_000, 0), alone(2_000, 2_000, 0), 0.005, np.array([0, 0, 0]))
    assert siblings.mean[2] == pytest.approx((0.02 + 0.02 + 0.005) / 3, rel=0.02)
    assert siblings.family_mean[2] == pytest.approx(siblings.mean[2])


def test_a_new_family_starts_from_its_placement_not_from_its_neighbours() -> None:
    belief = posterior(alone(100_000, 100_000, 0), alone(2_000, 2_000, 0), 0.005, np.array([0, 0, 1]))
    assert belief.mean[2] == pytest.approx(0.005)


def test_shrinkage_equals_the_beta_binomial_computed_by_hand() -> None:
    impressions, clicks, parent = np.array([1000.0, 4000.0, 500.0]), np.array([9.0, 14.0, 0.0]), 0.004
    mean, strength = parent, (1 - parent) / (parent * USUAL_SPREAD**2) - 1
    for _ in range(3):
        weights = [n / (n + strength) for n in impressions]
        rates = [c / n for c, n in zip(clicks, impressions, strict=True)]
        mean = (sum(w * r for w, r in zip(weights, rates, strict=True)) + parent) / (sum(weights) + 1)
        scores = []
        for spread in SPREADS:
            tried = (1 - mean) / (mean * spread**2) - 1
            likelihood = stats.betabinom.logpmf(clicks, impressions, mean * tried, (1 - mean) * tried).sum()
            scores.append(likelihood + stats.norm.logpdf(np.log(spread / USUAL_SPREAD), scale=SPREAD_LOG_SD))
        strength = (1 - mean) / (mean * SPREADS[int(np.argmax(scores))] ** 2) - 1
    found = family_prior(impressions, clicks, parent)
    assert found[0] == pytest.approx(mean)
    assert found[1] == pytest.approx(strength)
    belief = posterior(impressions[:, None], clicks[:, None], parent, np.zeros(3, dtype=int))
    assert belief.mean == pytest.approx((clicks + mean * strength) / (impressions + strength))


def test_the_best_of_eighty_equal_creatives_is_mostly_luck() -> None:
    rng = np.random.default_rng(3)
    shown = np.full((200, 80, 1), 125.0)
    clicks = rng.binomial(125, 0.0046, shown.shape).astype(float)
    parent = shrunk_rate(clicks.sum((1, 2)), shown.sum((1, 2)), 0.005)
    belief = posterior(shown, clicks, parent, np.zeros(80, dtype=int))
    naive = (clicks / shown)[..., 0].max(-1).mean() / 0.0046
    assert naive > 5
    assert belief.mean.max(-1).mean() / 0.0046 < 2.2


def test_different_families_spread_is_learned() -> None:
    rng = np.random.default_rng(4)
    shown = np.full(40, 20_000.0)
    spread = {}
    for name, cv in (("alike", 0.05), ("apart", 0.8)):
        ctr = rng.gamma(1 / cv**2, 0.01 * cv**2, 40)
        mean, strength = family_prior(shown, rng.binomial(20_000, ctr).astype(float), 0.01)
        spread[name] = float(np.sqrt((1 - mean) / (mean * (strength + 1))))
    assert spread["alike"] < 0.15
    assert spread["apart"] == pytest.approx(0.8, rel=0.3)


def test_a_creative_shown_on_good_days_does_not_look_better() -> None:
    # Both have the same CTR; the first got nearly all of a day twice as good, the second all of the ordinary days.
    shown = np.array([[90_000.0, 10_000.0, 10_000.0], [10_000.0, 90_000.0, 90_000.0]])
    clicks = shown * 0.005 * np.array([2.0, 1.0, 1.0])
    naive = clicks.sum(-1) / shown.sum(-1)
    assert naive[0] / naive[1] > 1.6
    ordinary = ordinary_impressions(shown, clicks)
    assert ordinary.sum() == pytest.approx(shown.sum())
    rates = clicks.sum(-1) / ordinary
    assert rates[0] / rates[1] == pytest.approx(1, abs=0.03)


def test_a_day_whose_clicks_have_not_arrived_hurts_nobody() -> None:
    shown = np.array([[50_000.0, 90_000.0], [50_000.0, 10_000.0]])
    clicks = np.array([[300.0, 0.0], [200.0, 0.0]])  # day two: 100,000 impressions, no click known yet
    belief = posterior(shown, clicks, 0.005, np.zeros(2, dtype=int))
    assert belief.mean[0] > belief.mean[1]
    naive = clicks.sum(-1) / shown.sum(-1)
    assert naive[0] < naive[1]


def test_worlds_are_independent_of_each_other() -> None:
    rng = np.random.default_rng(5)
    shown = rng.integers(100, 5000, (3, 6, 4)).astype(float)
    clicks = rng.binomial(shown.astype(int), 0.01).astype(float)
    parents = np.array([0.005, 0.01, 0.02])
    families = np.array([0, 0, 1, 1, 1, 2])
    together = posterior(shown, clicks, parents, families)
    for world in range(3):
        single = posterior(shown[world], clicks[world], parents[world], families)
        assert together.mean[world] == pytest.approx(single.mean)
        low, high = single.interval(0.95)
        assert (low < single.mean).all()
        assert (single.mean < high).all()
