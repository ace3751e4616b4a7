"""Two arms side by side, day after day, with planted rates: the worlds in which verdicts have to prove themselves.

Arms are (reference, challenger) on the last axis. Equal rates make an A/A test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class FixedSplit:
    """Independent impressions, the same number for each arm every day."""

    rates: tuple[float, float] = (0.0046, 0.0046)
    impressions: tuple[int, int] = (2_000, 2_000)
    days: int = 30

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[Counts, Counts]:
        """Impressions and clicks, each of shape (worlds, days, 2)."""
        shown = np.broadcast_to(np.array(self.impressions), (worlds, self.days, 2)).copy()
        return shown, rng.binomial(shown, self.rates)


@dataclass(frozen=True)
class ThompsonSplit:
    """Tomorrow's shares follow the clicks so far, while the level of CTR moves from day to day.

    A day's level is log-normal with mean 1 and the standard deviation ``day_effect``; during ``spike_days`` traffic and
    level are multiplied by ``spike``. An arm's share is the normal approximation of its probability to be the better
    one under Beta(1, 200) priors, read from all clicks so far as if days did not differ, and at least ``floor``.
    """

    rates: tuple[float, float] = (0.0046, 0.0046)
    impressions: int = 4_000
    days: int = 30
    day_effect: float = 0.3
    spike: float = 2.0
    spike_days: tuple[int, ...] = (10, 11, 12)
    floor: float = 0.02

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[Counts, Counts]:
        """Impressions and clicks, each of shape (worlds, days, 2)."""
        spread = np.sqrt(np.log1p(self.day_effect**2))
        level = rng.lognormal(-(spread**2) / 2, spread, (worlds, self.days))
        traffic = np.full(self.days, self.impressions)
        spiking = list(self.spike_days)
        level[:, spiking] *= self.spike
        traffic[spiking] = (traffic[spiking] * self.spike).astype(int)

        shown = np.zeros((worlds, self.days, 2), dtype=np.int64)
        clicked = np.zeros_like(shown)
        for day in range(self.days):
            share = self._challenger_share(shown[:, :day].sum(axis=1), clicked[:, :day].sum(axis=1))
            shown[:, day, 1] = rng.binomial(traffic[day], share)
            shown[:, day, 0] = traffic[day] - shown[:, day, 1]
            clicked[:, day] = rng.binomial(shown[:, day], level[:, day, None] * np.array(self.rates))
        return shown, clicked

    def _challenger_share(self, shown: Counts, clicked: Counts) -> NDArray[np.float64]:
        successes, failures = clicked + 1.0, shown - clicked + 200.0
        total = successes + failures
        mean = successes / total
        variance = (mean * (1 - mean) / (total + 1)).sum(axis=-1)
        return np.clip(ndtr((mean[:, 1] - mean[:, 0]) / np.sqrt(variance)), self.floor, 1 - self.floor)


@dataclass(frozen=True)
class ReturningUsers:
    """The same users come back to the same arm day after day, and some click much more readily than others.

    A user's rate is Beta with its arm's mean and a standard deviation of ``spread`` times that mean; a user comes on a
    day with the chance ``return_chance`` and then sees ``ads`` impressions.
    """

    rates: tuple[float, float] = (0.0046, 0.0046)
    users_per_arm: int = 400
    ads: int = 6
    return_chance: float = 0.8
    spread: float = 2.5
    days: int = 30

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[Counts, Counts]:
        """Impressions and clicks of every user, each of shape (worlds, 2, users_per_arm, days)."""
        mean = np.array(self.rates)[:, None]
        strength = (1 - mean) / (mean * self.spread**2) - 1
        rate = rng.beta(mean * strength, (1 - mean) * strength, (worlds, 2, self.users_per_arm))
        comes = rng.random((worlds, 2, self.users_per_arm, self.days)) < self.return_chance
        shown = comes.astype(np.int64) * self.ads
        return shown, rng.binomial(shown, rate[..., None])


@dataclass(frozen=True)
class MovingShares:
    """Equal arms whose rate grows ``growth``-fold while the challenger's share goes from ``shares[0]`` to the other.

    Pooled over days the challenger looks better although it never was on any day (Simpson's paradox).
    """

    rate: float = 0.003
    growth: float = 3.0
    shares: tuple[float, float] = (0.1, 0.9)
    impressions: int = 4_000
    days: int = 30

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[Counts, Counts]:
        """Impressions and clicks, each of shape (worlds, days, 2)."""
        challenger = rng.binomial(self.impressions, np.linspace(*self.shares, self.days), (worlds, self.days))
        shown = np.stack([self.impressions - challenger, challenger], axis=-1)
        level = self.rate * np.geomspace(1, self.growth, self.days)
        return shown, rng.binomial(shown, level[:, None])
