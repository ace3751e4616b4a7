"""The delay curve against figures computed by hand, and from the marts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from adloom.evaluation import evaluate_rates
from adloom.evaluation.maturity import DelayCurve, completeness_of, delay_curve, estimate_curve, horizon

DAY = date(2024, 3, 1)
TRIANGLE = np.array([[20, 12, 8], [10, 6, 99], [16, 99, 99]])
AGES = np.array([2, 1, 0])


def test_curve_by_hand() -> None:
    """Lag 2: 8 of 40; lag 1: 12 + 6 of 32 + 16; the nines lie in the future and are not looked at."""
    curve = estimate_curve(TRIANGLE, np.array([1000, 500, 800]), AGES, 2)
    assert curve.completeness == pytest.approx([0.8 * 0.625, 0.8, 1.0])
    assert curve.conversions.tolist() == [46, 48, 40]
    assert curve.clicks.tolist() == [2300, 1500, 1000]
    assert curve.is_known
    assert not estimate_curve(TRIANGLE, np.array([1000, 500, 800]), AGES - 1, 2).is_known


def test_completeness_of_a_window_is_weighted_by_clicks() -> None:
    curve = estimate_curve(TRIANGLE, np.array([1000, 500, 800]), AGES, 2)
    known = completeness_of(np.array([[100, 100, 150, 50], [7, 0, 0, 0], [0, 0, 0, 0]]), curve, 2)
    assert known.completeness[:2] == pytest.approx([(50 + 80 + 200) / 400, 0.5])
    assert np.isnan(known.completeness[2])
    # q̃₁ = 18.5 / 49 and q̃₂ = 8.5 / 41 add q̃ / ((1 − q̃) n) each; lag 1 moves 50 of the clicks, lag 2 130 of them.
    lag_1, lag_2 = 18.5 / 30.5 / 48, 8.5 / 32.5 / 40
    assert known.variance[0] == pytest.approx((lag_1 * 50**2 + lag_2 * 130**2) / 400**2)


def test_days_that_differ_widen_the_curve() -> None:
    ages = np.full(20, 9)
    steady = np.tile([60, 40], (20, 1))
    swinging = np.array([[90, 10], [30, 70]] * 10)
    clicks = np.full(20, 1000)
    sure, unsure = (estimate_curve(found, clicks, ages, 1) for found in (steady, swinging))
    assert sure.completeness.tolist() == unsure.completeness.tolist() == [0.6, 1.0]
    # χ² = Σ 30² / 24 over 20 cohorts, over 19 degrees of freedom
    assert unsure.hazard_variance[1] / sure.hazard_variance[1] == pytest.approx(20 * 900 / 24 / 19)


def test_without_a_curve_only_age_speaks() -> None:
    curve = estimate_curve(np.zeros((3, 3), dtype=int), np.array([5, 5, 5]), AGES, 2)
    known = completeness_of(np.array([[0, 0, 9, 4], [0, 1, 9, 4]]), curve, 2)
    assert known.completeness[0] == 1
    assert known.variance[0] == 0
    assert np.isnan(known.completeness[1])


def test_horizon_grows_with_late_deliveries_but_not_with_one_straggler() -> None:
    conversions = np.zeros((3, 9), dtype=int)
    conversions[0, [0, 1, 4]] = 20, 15, 5
    ages = np.array([8, 7, 0])
    assert horizon(conversions, ages, 2) == 4
    conversions[0, [0, 1, 4]] = 3, 2, 1
    assert horizon(conversions, ages, 2) == 2


def cohorts(days: int, first: date = DAY, lags: dict[int, int] | None = None) -> list[dict[str, Any]]:
    """Each day 50 clicked impressions, with conversions so many days later; 10 by default."""
    lags = {0: 6, 1: 3, 2: 1} if lags is None else lags
    later = [lag for lag, count in lags.items() for _ in range(count)]
    rows = []
    for offset in range(days):
        at = datetime.combine(first + timedelta(days=offset), datetime.min.time()) + timedelta(hours=12)
        for click in range(50):
            lag = later[click] if click < len(later) else None
            rows.append(
                {
                    "impression_at": at,
                    "click_at": at,
                    "conversion_at": None if lag is None else at + timedelta(days=lag),
                    "value": None if lag is None else 10,
                }
            )
    return rows


def _evaluated(marts: Any, day: date) -> dict[int, dict[str, Any]]:
    with marts.connect() as connection:
        evaluate_rates(connection, marts.shop, day)
    rows = marts.rows("adloom.evaluations")
    return {row["window_days"]: row for row in rows if row["grain"] == "overall" and row["day"] == day}


def _curve(marts: Any, day: date) -> DelayCurve:
    with marts.connect() as connection:
        return delay_curve(connection, marts.shop, day)


def test_curve_from_the_marts(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(attribution_window_days=2)
    marts.add_impressions(cohorts(30))
    day = DAY + timedelta(days=29)
    curve = _curve(marts, day)
    assert curve.completeness == pytest.approx([0.6, 0.9, 1.0])
    found = _evaluated(marts, day)
    assert [found[window]["completeness"] for window in (1, 7, 28)] == pytest.approx([0.6, 6.5 / 7, 27.5 / 28])
    assert [found[window]["cr"] for window in (1, 7, 28)] == pytest.approx([0.2] * 3)
    assert [found[window]["conversions"] for window in (1, 7, 28)] == [6, 65, 275]
    assert [found[window]["conversions_value"] for window in (1, 7, 28)] == [60, 650, 2750]
    assert [found[window]["is_mature"] for window in (1, 7, 28)] == [False, True, True]
    stored = marts.rows("adloom.delay_curves", "lag_days")
    assert [row["completeness"] for row in stored] == pytest.approx([0.6, 0.9, 1.0])
    assert [row["conversions"] for row in stored] == [30 * 6, 29 * 9, 28 * 10]
    assert [row["clicks"] for row in stored] == [30 * 50, 29 * 50, 28 * 50]


def test_young_shop_admits_ignorance(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(attribution_window_days=2)
    marts.add_impressions(cohorts(4))
    day = DAY + timedelta(days=3)
    for row in _evaluated(marts, day).values():
        assert (row["completeness"], row["cr"], row["cr_low"], row["is_mature"]) == (None, None, None, False)
    assert marts.rows("adloom.delay_curves") == []
    # With the third complete cohort, 30 conversions stand behind the curve.
    marts.add_impressions(cohorts(1, DAY + timedelta(days=4)))
    assert _evaluated(marts, DAY + timedelta(days=4))[1]["completeness"] == pytest.approx(0.6)


def test_old_cohorts_are_complete_without_a_curve(marts: Any) -> None:
    marts.add_impressions(cohorts(1, lags={0: 2}))
    day = DAY + timedelta(days=7)
    assert not _evaluated(marts, day - timedelta(days=1))[28]["is_mature"]
    row = _evaluated(marts, day)[28]
    assert (row["completeness"], row["is_mature"], row["cr"]) == (1.0, True, 2 / 50)
    assert (row["cr_low"], row["cr_high"]) == pytest.approx((0.01104, 0.13460), abs=1e-5)  # Wilson, 2 of 50


def test_conversions_after_the_window_do_not_count(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(attribution_window_days=2)
    marts.add_impressions(cohorts(10, lags={0: 5, 5: 5}))
    day = DAY + timedelta(days=9)
    assert _evaluated(marts, day)[28]["conversions"] == 50
    assert _curve(marts, day).completeness.tolist() == [1.0, 1.0, 1.0]


def test_late_deliveries_delay_maturity(make_marts: Callable[..., Any]) -> None:
    """Conversions of the click's day that are delivered four days later: nothing is known before, all afterwards."""
    marts = make_marts(attribution_window_days=2)
    rows = cohorts(20, lags={0: 10})
    for row in rows:
        if row["conversion_at"] is not None:
            row["conversion_known_date"] = row["conversion_at"].date() + timedelta(days=4)
    marts.add_impressions(rows)
    day = DAY + timedelta(days=19)
    assert _curve(marts, day).completeness.tolist() == [0, 0, 0, 0, 1]
    found = _evaluated(marts, day)
    assert (found[1]["completeness"], found[1]["cr"], found[1]["is_mature"]) == (0.0, None, False)
    assert found[7]["cr"] == pytest.approx(0.2)
    assert found[7]["completeness"] == pytest.approx(3 / 7)


def test_the_curve_follows_a_change(make_marts: Callable[..., Any]) -> None:
    """Five days after conversions became slower the curve has moved most of the way for the early lags."""
    marts = make_marts(attribution_window_days=2)
    marts.add_impressions(cohorts(30))
    before = _curve(marts, DAY + timedelta(days=29)).completeness[0]
    marts.add_impressions(cohorts(33, DAY + timedelta(days=30), lags={0: 2, 1: 4, 2: 4}))
    after = _curve(marts, DAY + timedelta(days=62)).completeness
    assert before == pytest.approx(0.6)
    assert after == pytest.approx([0.2, 0.6, 1.0])
