"""The GAN benchmark's figures, each against a case made by hand and each able to be red."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from adloom.settings import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "benchmarks"))

import gan_metrics as metrics

LINE = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])


def test_covered_counts_points_within_a_neighbours_distance() -> None:
    # radii to the second neighbour: 2, 1, 1, 1, 2, so the line is covered from −2 to 6
    points = np.array([[-1.9], [-2.1], [2.5], [5.9], [6.1]])
    assert metrics.covered(points, LINE, neighbours=2) == pytest.approx(3 / 5)


def test_a_generator_of_one_picture_has_precision_and_no_recall() -> None:
    chance = np.random.default_rng(0)
    real = chance.normal(size=(400, 8))
    collapsed = 0.01 * chance.normal(size=(400, 8))
    assert metrics.covered(collapsed, real) > 0.95
    assert metrics.covered(real, collapsed) < 0.05
    noise = 20 * chance.normal(size=(400, 8))
    assert metrics.covered(noise, real) < 0.05
    twin = chance.normal(size=(400, 8))
    assert metrics.covered(twin, real) > 0.6
    assert metrics.covered(real, twin) > 0.6


def test_too_few_points_make_no_manifold() -> None:
    with pytest.raises(ValueError, match="more than 3"):
        metrics.covered(LINE, LINE[:3])


def test_nearest_is_the_distance_to_the_closest_row() -> None:
    assert metrics.nearest(np.array([[1.4], [9.0]]), LINE).tolist() == pytest.approx([0.4, 5.0])


def test_copies_of_training_pictures_are_memorised_and_fresh_ones_are_not() -> None:
    chance = np.random.default_rng(0)
    training, test, fresh = (chance.normal(size=(1000, 8)) for _ in range(3))
    assert metrics.memorised(fresh, training, test) < 0.03
    copies = training + 0.001 * chance.normal(size=training.shape)
    assert metrics.memorised(copies, training, test) == 1.0
    half = np.concatenate((copies[:500], fresh[:500]))
    assert metrics.memorised(half, training, test) == pytest.approx(0.5, abs=0.02)


def test_spread_is_the_mean_distance_within_classes() -> None:
    points, classes = np.array([[0.0], [2.0], [10.0], [16.0]]), np.array([0, 0, 1, 1])
    assert metrics.spread(points, classes) == pytest.approx((2 + 6) / 2)
    assert metrics.spread(np.array([[5.0], [5.0], [10.0], [10.0]]), classes) == 0
    with pytest.raises(ValueError, match="no class"):
        metrics.spread(points, np.arange(4))


def test_interval_holds_the_share() -> None:
    low, high = metrics.interval(0.9, 400)
    assert 0.86 < low < 0.9 < high < 0.93
