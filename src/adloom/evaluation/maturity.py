"""How much of a click cohort's conversions is known yet, learnt from the shop's own cohorts.

A cohort is the clicks of one day C. A conversion counts when it follows within the attribution window; it becomes
known some days after C, its lag. Cohorts younger than the window have only shown their short lags: right truncation.
The curve is therefore built backwards (chain ladder, the product-limit estimator for right-truncated delays): among
the conversions known by lag j, of cohorts at least j days old, which share came exactly at lag j? Every cohort counts
for the lags it is old enough to have shown, so the curve is right early and follows a change quickly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import Connection, and_, case, func, select

from adloom.evaluation.facts import creative_daily
from adloom.evaluation.intervals import Floats, ratio
from adloom.shop import Shop

CURVE_COHORTS = 28
"""Days of complete cohorts the curve is learnt from: four weeks, so every weekday counts alike."""

ENOUGH_CONVERSIONS = 30
"""Conversions of cohorts past the attribution window before a curve is believed."""


@dataclass(frozen=True)
class DelayCurve:
    """Share of the eventual conversions known by each lag 0 … H; leading axes are worlds, if any.

    ``completeness`` ends in 1. ``hazard_variance`` at lag j is what lag j adds to the variance of ln completeness of
    every smaller lag. ``conversions`` (known by the lag) and ``clicks`` count the cohorts at least that old.
    ``is_known``: enough history.
    """

    completeness: Floats
    hazard_variance: Floats
    conversions: NDArray[np.int64]
    clicks: NDArray[np.int64]
    is_known: NDArray[np.bool_]

    @property
    def horizon(self) -> int:
        """The lag by which everything is known."""
        return self.completeness.shape[-1] - 1

    def of_cohorts(self, clicks_by_age: ArrayLike) -> tuple[Floats, Floats]:
        """Completeness of cohorts taken together, and its variance: the click-weighted mean over their ages.

        ``clicks_by_age`` has shape (…, H + 1); the last entry holds all cohorts of age H and older. NaN without clicks.
        """
        clicks = np.asarray(clicks_by_age, dtype=float)
        weighted = clicks * self.completeness
        total = clicks.sum(-1)
        # Lag j moves the completeness of every younger age alike: their weights add up before they are squared.
        moved = np.cumsum(weighted, -1)[..., :-1]
        variance = (self.hazard_variance[..., 1:] * moved * moved).sum(-1)
        return ratio(weighted.sum(-1), total, np.nan), ratio(variance, total * total, np.nan)


def estimate_curve(
    conversions: NDArray[np.int64], clicks: NDArray[np.int64], ages: NDArray[np.int64], attribution_window_days: int
) -> DelayCurve:
    """The delay curve from cohorts of different ages.

    ``conversions`` (…, cohorts, H + 1) by lag, ``clicks`` (…, cohorts), ``ages`` (cohorts): days since the cohort's
    day; cells younger than their lag and cohorts of negative age are not looked at. The variance is binomial per lag,
    times the dispersion between cohorts where they differ by more than chance (Pearson's χ² over its degrees of
    freedom, as in Mack's chain ladder).
    """
    lags = np.arange(conversions.shape[-1])
    shown = ages[:, None] >= lags
    new = np.where(shown, conversions, 0)
    known = np.where(shown, np.cumsum(conversions, -1), 0)
    new_total, known_total = new.sum(-2), known.sum(-2)
    hazard = ratio(new_total, known_total, 0.0)
    later = np.flip(np.cumprod(np.flip(1 - hazard, -1), -1), -1)
    ones = np.ones((*later.shape[:-1], 1))
    completeness = np.concatenate([later[..., 1:], ones], -1)

    expected = known * hazard[..., None, :]
    pearson = ratio((new - expected) ** 2, expected * (1 - hazard[..., None, :]), 0.0)[..., 1:].sum((-1, -2))
    varied = (expected * (1 - hazard[..., None, :]) > 0)[..., 1:]
    freedom = varied.sum((-1, -2)) - varied.any(-2).sum(-1)
    dispersion = np.maximum(ratio(pearson, freedom, 1.0), 1.0)
    # Half a conversion on either side keeps a lag at which nothing was seen from being certain.
    cautious = (new_total + 0.5) / (known_total + 1)
    variance = ratio(cautious, (1 - cautious) * known_total, 0.0) * dispersion[..., None]

    complete = (ages >= attribution_window_days)[:, None]
    return DelayCurve(
        completeness=completeness,
        hazard_variance=variance,
        conversions=known_total,
        clicks=np.where(shown, clicks[..., None], 0).sum(-2),
        is_known=np.where(complete, conversions, 0).sum((-1, -2)) >= ENOUGH_CONVERSIONS,
    )


@dataclass(frozen=True)
class Known:
    """How complete the conversions of a set of cohorts are (NaN: unknown) and the variance of that estimate."""

    completeness: Floats
    variance: Floats


def completeness_of(clicks_by_age: ArrayLike, curve: DelayCurve, attribution_window_days: int) -> Known:
    """Completeness of cohorts given by age, shape (…, ages): by the curve, or without one by age alone.

    Before the shop's own curve is known, cohorts are complete (1) when all have outlived the attribution window, and
    of unknown completeness otherwise. Unknown, too, without clicks.
    """
    clicks = np.asarray(clicks_by_age)
    beyond = max(curve.horizon + 1 - clicks.shape[-1], 0)
    padded = np.concatenate([clicks, np.zeros((*clicks.shape[:-1], beyond))], -1)
    young, oldest = padded[..., : curve.horizon], padded[..., curve.horizon :].sum(-1, keepdims=True)
    completeness, variance = curve.of_cohorts(np.concatenate([young, oldest], -1))
    settled = (clicks[..., :attribution_window_days].sum(-1) == 0) & (clicks.sum(-1) > 0)
    return Known(
        np.where(curve.is_known, completeness, np.where(settled, 1.0, np.nan)),
        np.where(curve.is_known, variance, np.where(settled, 0.0, np.nan)),
    )


def horizon(conversions: NDArray[np.int64], ages: NDArray[np.int64], attribution_window_days: int) -> int:
    """The lag by which everything is known: the attribution window, or later where deliveries come late.

    ``conversions`` (cohorts, lags). A lag beyond the window counts only with `ENOUGH_CONVERSIONS` in the cohorts that
    are old enough to have shown it: one straggler in a thin old cohort does not bend the curve.
    """
    lags = np.arange(conversions.shape[-1])
    seen = (conversions * (ages[:, None] >= lags)).sum(0) > 0
    behind = (conversions.sum(-1)[:, None] * (ages[:, None] >= lags)).sum(0)
    late = np.flatnonzero(seen & (behind >= ENOUGH_CONVERSIONS))
    return max(attribution_window_days, int(late[-1]) if late.size else 0)


def delay_curve(connection: Connection, shop: Shop, day: date) -> DelayCurve:
    """The shop's curve as of ``day``, from the cohorts of the last weeks and the facts known by then."""
    t = creative_daily
    window = shop.attribution_window_days
    first = day - timedelta(days=CURVE_COHORTS + shop.lookback_days)
    counts = (
        select(
            t.c.click_date,
            t.c.known_date,
            func.sum(case((t.c.conversion_lag_days.is_(None), t.c.clicks), else_=0)).label("clicks"),
            func.sum(case((t.c.conversion_lag_days <= window, t.c.conversions), else_=0)).label("conversions"),
        )
        .where(and_(t.c.known_date >= first, t.c.known_date <= day, t.c.click_date >= first))
        .group_by(t.c.click_date, t.c.known_date)
    )
    cohorts = (day - first).days + 1
    ages = np.arange(cohorts - 1, -1, -1)
    clicks = np.zeros(cohorts, dtype=np.int64)
    conversions = np.zeros((cohorts, max(cohorts, window + 1)), dtype=np.int64)
    for click_date, known_date, some_clicks, some_conversions in connection.execute(counts):
        cohort = (click_date - first).days
        clicks[cohort] += int(some_clicks)
        conversions[cohort, max((known_date - click_date).days, 0)] += int(some_conversions)
    last = horizon(conversions, ages, window)
    # The few conversions known later than the horizon were, for the curve, known at it.
    conversions[:, last] += conversions[:, last + 1 :].sum(-1)
    recent = ages <= CURVE_COHORTS + last
    return estimate_curve(conversions[recent, : last + 1], clicks[recent], ages[recent], window)


def curve_rows(curve: DelayCurve, day: date) -> list[dict[str, object]]:
    """Rows of ``adloom.delay_curves``; none while the curve is not known."""
    if not curve.is_known:
        return []
    return [
        {
            "day": day,
            "lag_days": lag,
            "completeness": float(curve.completeness[lag]),
            "conversions": int(curve.conversions[lag]),
            "clicks": int(curve.clicks[lag]),
        }
        for lag in range(curve.horizon + 1)
    ]
