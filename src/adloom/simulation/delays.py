"""Clicks whose conversions become known days later, so that today's conversions / today's clicks misleads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEVEN_DAY_CURVE = (0.577, 0.705, 0.810, 0.872, 0.915, 0.949, 0.977, 1.0)
"""Share of the conversions within seven days that is known 0 … 7 days after the click's day.

Criteo's published delays (day of click 45 %, one day later 55 %, seven days later 78 % of all), normalised to seven
days; the days between are interpolated over the logarithm of the delay.
"""


@dataclass(frozen=True)
class DelayWorld:
    """Click cohorts of consecutive days and when their conversions become known.

    ``cr`` is the true share of clicks that convert within the window, ``clicks_per_day`` the mean of a cohort,
    ``spike_days`` the cohorts (by index) whose traffic is ``spike_factor`` times as large: a Double 11.
    """

    cohorts: int = 60
    clicks_per_day: float = 2_000
    cr: float = 0.03
    curve: tuple[float, ...] = SEVEN_DAY_CURVE
    spike_days: tuple[int, ...] = ()
    spike_factor: float = 1.0

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Clicks (worlds, cohorts) and conversions by the day they become known (worlds, cohorts, lags)."""
        mean = np.full(self.cohorts, float(self.clicks_per_day))
        mean[list(self.spike_days)] *= self.spike_factor
        clicks = rng.poisson(mean, (worlds, self.cohorts))
        return clicks, self.conversions(rng, clicks)

    def conversions(self, rng: np.random.Generator, clicks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Conversions of the given cohorts by lag: shape of ``clicks`` plus one axis of lags."""
        return rng.multinomial(rng.binomial(clicks, self.cr), np.diff(self.curve, prepend=0.0))
