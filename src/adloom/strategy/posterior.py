"""What is believed about each creative's CTR: Beta posteriors shrunk towards the creative's family.

Three ideas, each a pure function of counts, each working on whole stacks of worlds at once (leading axes), so that
production and `adloom.simulation.bandit` run the same lines:

1. *Compare within the day.* While shares move, a creative that was shown more on good days looks better than it is.
   `ordinary_impressions` fits ``clicks ≈ impressions × creative's CTR × stratum's level`` (a stratum is a day under one
   policy) and counts an impression of a stratum twice as good as usual as two ordinary impressions. A level is shrunk
   towards 1 as if levels differed by `LEVEL_SD`, so a stratum with few clicks cannot say much about itself. A day whose
   clicks are still arriving is low for all its creatives alike and hurts none of them.
2. *Shrink towards the family.* `family_prior` estimates, by empirical Bayes, how CTRs spread between the creatives of a
   family; the best of eighty creatives with few impressions is mostly luck and is pulled back accordingly.
3. *Start from the family.* A creative without impressions has the family's prior as its posterior; a family's mean
   counts its parent (the placement in that segment) as one more creative, so a new family starts from there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

LEVEL_SD = 0.3
"""How much days differ from each other, as a share of the CTR, before a day's own clicks are seen."""
LEVEL_ROUNDS = 12
USUAL_SPREAD, SPREAD_LOG_SD = 0.5, 0.7
"""The spread assumed until a family's own creatives say otherwise: log-normal around `USUAL_SPREAD`."""
SPREADS: Floats = USUAL_SPREAD * 2 ** (np.arange(-20, 13) / 6)
"""Candidates, .05 to 2, for the coefficient of variation of CTRs within a family."""
MEAN_ROUNDS = 3
PARENT_CLICKS = 5.0
"""How many clicks a parent's rate is worth to the level below it."""
DEFAULT_CTR = 0.005
"""The CTR of a shop that has no impressions at all."""


@dataclass(frozen=True)
class Posterior:
    """Beta(alpha, beta) of each creative's CTR on an ordinary day; arrays of shape (..., creatives)."""

    alpha: Floats
    beta: Floats
    family_mean: Floats

    @property
    def mean(self) -> Floats:
        return self.alpha / (self.alpha + self.beta)

    def interval(self, confidence: float) -> tuple[Floats, Floats]:
        """The equal-tailed credible interval."""
        tail = (1 - confidence) / 2
        return (
            special.betaincinv(self.alpha, self.beta, tail),
            special.betaincinv(self.alpha, self.beta, 1 - tail),
        )

    def above_family(self) -> Floats:
        """Probability that a creative's CTR is above its family's mean."""
        return 1 - special.betainc(self.alpha, self.beta, self.family_mean)


def shrunk_rate(clicks: Floats | float, impressions: Floats | float, parent: Floats | float) -> Floats:
    """Clicks / impressions, the parent's rate counting as `PARENT_CLICKS` clicks."""
    return np.asarray((clicks + PARENT_CLICKS) / (impressions + PARENT_CLICKS / parent))


def ordinary_impressions(impressions: Floats, clicks: Floats) -> Floats:
    """Impressions per creative, each counted at its stratum's level.

    ``impressions`` and ``clicks`` have shape (..., creatives, strata); the result (..., creatives) has the same total
    as ``impressions``. Levels are the posterior means of a Gamma-Poisson model, fitted by alternation.
    """
    total, total_clicks = impressions.sum((-2, -1)), clicks.sum((-2, -1))
    pooled = ((total_clicks + 1) / (total + 1 / DEFAULT_CTR))[..., None]
    usual = 1 / USUAL_SPREAD**2  # what one creative's prior is worth, in clicks
    prior = 1 / LEVEL_SD**2  # what a level's prior is worth, in clicks
    own_clicks, level_clicks = clicks.sum(-1), clicks.sum(-2)
    ordinary: Floats = impressions.sum(-1).astype(np.float64)
    for _ in range(LEVEL_ROUNDS):
        rate = (own_clicks + usual) / (ordinary + usual / pooled)
        expected = (impressions * rate[..., None]).sum(-2)
        level = (prior + level_clicks) / (prior + expected)
        ordinary = (impressions * level[..., None, :]).sum(-1)
        counted = ordinary.sum(-1, keepdims=True)
        ordinary = ordinary * np.divide(total[..., None], counted, out=np.ones_like(counted), where=counted > 0)
    return np.maximum(ordinary, own_clicks)


def family_prior(impressions: Floats, clicks: Floats, parent: Floats | float) -> tuple[Floats, Floats]:
    """Mean and strength (in impressions) of the Beta prior shared by the creatives of one family.

    The counts have shape (..., creatives), ``parent`` is the rate of the level above, shape (...). The mean weighs
    each creative by how much it says about the family, n / (n + strength), so that the creatives shown most do not
    drown the rest; the parent counts as one creative. The spread is the maximum of the beta-binomial likelihood times
    the log-normal prior around `USUAL_SPREAD`, so two creatives with a handful of clicks cannot make it 0 or boundless.
    """
    parent = np.broadcast_to(np.asarray(parent, dtype=np.float64), impressions.shape[:-1])
    prior = -0.5 * (np.log(SPREADS / USUAL_SPREAD) / SPREAD_LOG_SD) ** 2
    mean = parent
    strength = _strength(mean, np.full_like(mean, USUAL_SPREAD))
    for _ in range(MEAN_ROUNDS):
        told = impressions + strength[..., None]
        mean = ((clicks / told).sum(-1) + parent) / ((impressions / told).sum(-1) + 1)
        strengths = _strength(mean[..., None], SPREADS)  # (..., spreads)
        alpha = (mean[..., None] * strengths)[..., None, :]
        beta = strengths[..., None, :] - alpha
        likelihood = special.betaln(
            alpha + clicks[..., None], beta + (impressions - clicks)[..., None]
        ) - special.betaln(alpha, beta)
        best = np.argmax(likelihood.sum(-2) + prior, axis=-1)
        strength = np.take_along_axis(strengths, best[..., None], axis=-1)[..., 0]
    return mean, strength


def _strength(mean: Floats, spread: Floats) -> Floats:
    """alpha + beta of the Beta distribution with this mean and coefficient of variation (at least 2 impressions)."""
    return np.maximum((1 - mean) / (mean * spread**2) - 1, 2.0)


def posterior(impressions: Floats, clicks: Floats, parent: Floats | float, families: NDArray[np.intp]) -> Posterior:
    """Posteriors of all creatives of one segment and placement.

    ``impressions`` and ``clicks`` (..., creatives, strata); ``families`` (creatives,) numbers each creative's family.
    """
    ordinary, own_clicks = ordinary_impressions(impressions, clicks), clicks.sum(-1)
    alpha, beta, family_mean = (np.empty_like(ordinary) for _ in range(3))
    for family in np.unique(families):
        members = families == family
        mean, strength = family_prior(ordinary[..., members], own_clicks[..., members], parent)
        family_mean[..., members] = mean[..., None]
        alpha[..., members] = (mean * strength)[..., None] + own_clicks[..., members]
        beta[..., members] = ((1 - mean) * strength)[..., None] + (ordinary - own_clicks)[..., members]
    return Posterior(alpha, beta, family_mean)
