"""Proofs by simulation: what an interval or a correction promises holds in worlds whose truth is planted.

The functions are those the SQL feeds. ``make test`` runs a small version of each, ``make proof`` the full size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adloom.evaluation.intervals import Moments, corrected_rate, design_effect, rate_interval, wilson
from adloom.evaluation.maturity import CURVE_COHORTS, DelayCurve, completeness_of, estimate_curve
from adloom.simulation.clustered import ClusteredWorld
from adloom.simulation.delays import DelayWorld

WINDOW = 7
CR = 0.03
THRESHOLD = 0.9
CONFIDENCE = 0.95
FULL = pytest.mark.proof
sizes = pytest.mark.parametrize("worlds", [pytest.param(200, id="small"), pytest.param(2_000, id="full", marks=FULL)])


def coverage(low: NDArray[Any], high: NDArray[Any], truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


def assert_honest(covered: float, worlds: int) -> None:
    """93 to 97 %; with fewer worlds than a proof has, three standard errors of the simulation are allowed."""
    allowed = 0.0 if worlds >= 1_000 else 3 * np.sqrt(0.05 * 0.95 / worlds)
    assert 0.93 - allowed <= covered <= 0.97 + allowed


def as_of(clicks: NDArray[Any], conversions: NDArray[Any], today: int) -> tuple[DelayCurve, NDArray[Any]]:
    """The curve as of cohort ``today``, and the ages of all cohorts (negative: not yet begun)."""
    ages = today - np.arange(clicks.shape[-1])
    recent = (ages >= 0) & (ages <= CURVE_COHORTS + WINDOW)
    return estimate_curve(conversions[:, recent], clicks[:, recent], ages[recent], WINDOW), ages


def known_by(conversions: NDArray[Any], age: int) -> NDArray[Any]:
    return conversions[..., : age + 1].sum(-1)


def by_age(clicks: NDArray[Any], age: int) -> NDArray[Any]:
    """The clicks of one cohort as the clicks by age that `completeness_of` takes."""
    return clicks[..., None] * (np.arange(WINDOW + 1) == min(age, WINDOW))


@sizes
@pytest.mark.parametrize("ctr", [0.005, 0.02, 0.05])
def test_coverage_with_clustered_users(ctr: float, worlds: int) -> None:
    """Users see ten ads on average and differ: the clustered interval covers 93–97 %, Wilson's about 75 %."""
    rng = np.random.default_rng(20240310)
    clustered, naive = [], []
    for batch in range(0, worlds, 200):
        impressions, clicks = ClusteredWorld(ctr=ctr).draw(rng, min(200, worlds - batch))
        trials, successes = impressions.sum(-1), clicks.sum(-1)
        effect = design_effect(Moments.of(impressions, clicks), CONFIDENCE)
        clustered.append(coverage(*rate_interval(successes, trials, effect, CONFIDENCE), ctr))
        naive.append(coverage(*wilson(successes, trials, CONFIDENCE), ctr))
    print(f"CTR {ctr}: clustered {np.mean(clustered):.4f}, Wilson {np.mean(naive):.4f}")
    assert_honest(float(np.mean(clustered)), worlds)
    assert 0.65 <= np.mean(naive) <= 0.85


@sizes
@pytest.mark.parametrize("history", [14, 60])
def test_corrected_cr_is_unbiased_and_covered_at_every_age(history: int, worlds: int) -> None:
    """The curve is learnt from the shop's own cohorts: after two weeks of history and after two months.

    Mean relative bias of the corrected CR at most 5 % for cohorts of every age, and 93–97 % coverage, the uncertainty
    of the curve included.
    """
    rng = np.random.default_rng(1)
    clicks, conversions = DelayWorld(cohorts=history).draw(rng, worlds)
    curve, ages = as_of(clicks, conversions, history - 1)
    assert curve.is_known.all()
    for age in range(WINDOW + 1):
        cohort = int(np.flatnonzero(ages == age)[0])
        known = completeness_of(by_age(clicks[:, cohort], age), curve, WINDOW)
        rate, low, high = corrected_rate(
            known_by(conversions[:, cohort], age),
            clicks[:, cohort],
            known.completeness,
            known.variance,
            effect=1.0,
            confidence=CONFIDENCE,
        )
        bias, covered = float(np.mean(rate / CR - 1)), coverage(low, high, CR)
        print(f"history {history}, age {age}: bias {bias:+.4f}, coverage {covered:.4f}")
        assert abs(bias) <= 0.05
        assert_honest(covered, worlds)


@sizes
@pytest.mark.parametrize("window_days", [1, 7, 28])
def test_corrected_cr_of_a_window(window_days: int, worlds: int) -> None:
    """The windows of ``adloom.evaluations``: cohorts of several ages, corrected by their joint completeness."""
    rng = np.random.default_rng(2)
    clicks, conversions = DelayWorld(cohorts=60).draw(rng, worlds)
    curve, ages = as_of(clicks, conversions, 59)
    members = [int(cohort) for cohort in np.flatnonzero((ages >= 0) & (ages < window_days))]
    total = sum(by_age(clicks[:, cohort], int(ages[cohort])) for cohort in members)
    successes = sum(known_by(conversions[:, cohort], int(ages[cohort])) for cohort in members)
    known = completeness_of(total, curve, WINDOW)
    rate, low, high = corrected_rate(
        successes, total.sum(-1), known.completeness, known.variance, effect=1.0, confidence=CONFIDENCE
    )
    bias, covered = float(np.mean(rate / CR - 1)), coverage(low, high, CR)
    print(
        f"window {window_days}: completeness {known.completeness.mean():.3f}, bias {bias:+.4f}, coverage {covered:.4f}"
    )
    assert abs(bias) <= 0.05
    assert_honest(covered, worlds)


@sizes
def test_newcomer_is_ranked_above_a_veteran_but_not_acted_on(worlds: int) -> None:
    """3.0 % after one day (20,000 clicks) against 2.5 % (100,000 clicks, two weeks old), by corrected CR."""
    rng = np.random.default_rng(3)
    clicks, conversions = DelayWorld(cohorts=40).draw(rng, worlds)
    curve, _ = as_of(clicks, conversions, 39)

    def read(clicks: int, cr: float, age: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        cohort = np.full(worlds, clicks)
        found = known_by(DelayWorld(cr=cr).conversions(rng, cohort), age)
        known = completeness_of(by_age(cohort, age), curve, WINDOW)
        rate, _, _ = corrected_rate(
            found, cohort, known.completeness, known.variance, effect=1.0, confidence=CONFIDENCE
        )
        return found / cohort, rate, known.completeness >= THRESHOLD

    naive_newcomer, newcomer, newcomer_mature = read(20_000, 0.030, age=1)
    naive_veteran, veteran, veteran_mature = read(100_000, 0.025, age=14)
    above, naively = float(np.mean(newcomer > veteran)), float(np.mean(naive_newcomer > naive_veteran))
    print(f"newcomer above veteran: corrected {above:.4f}, as observed {naively:.4f}")
    assert above >= 0.98
    assert naively <= 0.02
    assert not newcomer_mature.any()
    assert veteran_mature.all()


@sizes
def test_double_11_swings_today_but_not_the_cohorts(worlds: int) -> None:
    """Three days of four-fold traffic: cohorts are immature at first, all mature at C + 7, and then cover 3 %."""
    rng = np.random.default_rng(11)
    spike = (40, 41, 42)
    world = DelayWorld(cohorts=60, spike_days=spike, spike_factor=4)
    clicks, conversions = world.draw(rng, worlds)

    # Conversions that became known today over today's clicks: what a naive page shows.
    days = range(36, 52)
    today = np.stack([sum(conversions[:, day - lag, lag] for lag in range(8)) / clicks[:, day] for day in days])
    swing = today.mean(-1)
    print(f"conversions today / clicks today: {swing.min():.4f} to {swing.max():.4f}")
    assert swing.min() < 0.025
    assert swing.max() > 0.05

    covered = []
    for cohort in range(36, 50):
        young, _ = as_of(clicks, conversions, cohort)
        assert not (completeness_of(by_age(clicks[:, cohort], 0), young, WINDOW).completeness >= THRESHOLD).any()
        curve, _ = as_of(clicks, conversions, cohort + WINDOW)
        known = completeness_of(by_age(clicks[:, cohort], WINDOW), curve, WINDOW)
        assert (known.completeness >= THRESHOLD).all()
        rate, low, high = corrected_rate(
            known_by(conversions[:, cohort], WINDOW),
            clicks[:, cohort],
            known.completeness,
            known.variance,
            effect=1.0,
            confidence=CONFIDENCE,
        )
        covered.append(coverage(low, high, CR))
        if cohort in spike:
            assert 0.029 <= rate.mean() <= 0.031
    print(f"coverage of the cohorts at C + 7: {min(covered):.4f} to {max(covered):.4f}")
    for share in covered:
        assert_honest(share, worlds)
