"""The worlds hold the truth they claim."""

from __future__ import annotations

import numpy as np
import pytest

from adloom.simulation.clustered import ClusteredWorld
from adloom.simulation.delays import SEVEN_DAY_CURVE, DelayWorld


def test_clustered_world_has_its_rate_its_ads_and_its_correlation() -> None:
    world = ClusteredWorld(users=40_000, ctr=0.05, ads_per_user=6, correlation=0.2)
    impressions, clicks = (drawn[0] for drawn in world.draw(np.random.default_rng(5), 1))
    assert impressions.min() == 1
    assert impressions.mean() == pytest.approx(6, rel=0.03)
    assert clicks.sum() / impressions.sum() == pytest.approx(0.05, rel=0.03)
    # Two clicks of one user: chance is p² + ρ p (1 − p).
    pairs = (clicks * (clicks - 1)).sum() / (impressions * (impressions - 1)).sum()
    assert (pairs - 0.05**2) / (0.05 * 0.95) == pytest.approx(0.2, rel=0.1)


def test_delay_world_follows_its_curve_and_its_spike() -> None:
    world = DelayWorld(cohorts=50, clicks_per_day=20_000, spike_days=(10,), spike_factor=4)
    clicks, conversions = world.draw(np.random.default_rng(5), 20)
    assert conversions.shape == (20, 50, 8)
    known = np.cumsum(conversions.sum((0, 1))) / conversions.sum()
    assert known == pytest.approx(np.array(SEVEN_DAY_CURVE), abs=0.005)
    assert conversions.sum() / clicks.sum() == pytest.approx(0.03, rel=0.01)
    assert clicks[:, 10].mean() / clicks[:, 11].mean() == pytest.approx(4, rel=0.02)


def test_worlds_repeat_with_their_seed() -> None:
    for world in (ClusteredWorld(users=50), DelayWorld(cohorts=5)):
        first, second = (world.draw(np.random.default_rng(9), 3) for _ in range(2))
        assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
