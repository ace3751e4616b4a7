"""Planted worlds for an allocation: does a strategy earn, and does it find the best creative?

The world is an ad server: it shows, counts clicks and asks the strategy every night. The strategy is handed in, so the
very functions of production can be held against the truth, in thousands of worlds at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Strategy = Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]
"""(impressions, clicks, today's shares) → (tomorrow's shares, probability of being best).

Counts have shape (worlds, creatives, strata); a stratum is a day under one policy. The rest is (worlds, creatives).
"""


@dataclass(frozen=True)
class Outcome:
    """One number per world."""

    earned: Floats
    """CTR outside the holdout as a share of the best creative's CTR."""
    uniform: Floats
    """CTR that equal shares earn, as a share of the best creative's CTR."""
    chosen: Floats
    """True CTR of the creative most likely to be best at the end, as a share of the best creative's CTR."""

    def summary(self) -> str:
        return (
            f"{len(self.earned)} worlds: earns {self.earned.mean():.3f} of the best creative's CTR, "
            f"{self.earned.mean() / self.uniform.mean():.2f} × uniform ({self.uniform.mean():.3f}); "
            f"chosen creative's true CTR {self.chosen.mean():.3f} of the best's"
        )


def gamma_ctrs(rng: np.random.Generator, worlds: int, creatives: int = 10) -> Floats:
    """CTRs with mean .46 % and coefficient of variation .5, as in the fashion shop's random logs."""
    return rng.gamma(4.0, 0.0046 / 4.0, (worlds, creatives))


def uniform_ctrs(rng: np.random.Generator, worlds: int, creatives: int = 10) -> Floats:
    """CTRs between .4 % and 1 %."""
    return rng.uniform(0.004, 0.010, (worlds, creatives))


def simulate(
    strategy: Strategy,
    ctrs: Floats,
    rng: np.random.Generator,
    *,
    impressions: int = 10_000,
    days: int = 30,
    holdout_share: float = 0.05,
    level_sd: float = 0.0,
) -> Outcome:
    """Serve ``days`` of ``impressions`` in every world of ``ctrs`` (worlds, creatives), shares adjusted every night.

    ``level_sd``: standard deviation of the log of each day's level; 0 means all days are alike.
    """
    worlds, creatives = ctrs.shape
    held_out = round(impressions * holdout_share)
    equal = np.full((worlds, creatives), 1 / creatives)
    shown = np.zeros((worlds, creatives, 2 * days))
    clicks = np.zeros_like(shown)
    shares, best = equal, equal
    expected = np.zeros(worlds)
    for day in range(days):
        level = np.exp(rng.normal(-(level_sd**2) / 2, level_sd, (worlds, 1)))
        for stratum, (count, policy) in enumerate(((impressions - held_out, shares), (held_out, equal)), start=2 * day):
            views = rng.multinomial(count, policy)
            shown[..., stratum] = views
            clicks[..., stratum] = rng.binomial(views, np.minimum(ctrs * level, 1))
        expected += (shares * ctrs).sum(-1) / days
        so_far = slice(0, 2 * (day + 1))
        shares, best = strategy(shown[..., so_far], clicks[..., so_far], shares)
    top = ctrs.max(-1)
    chosen = np.take_along_axis(ctrs, best.argmax(-1)[:, None], axis=-1)[:, 0]
    return Outcome(expected / top, ctrs.mean(-1) / top, chosen / top)
