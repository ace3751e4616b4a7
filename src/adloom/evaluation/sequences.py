"""Confidence sequences for the difference of two rates: what may be read every day and still be believed.

**Estimate.** Within each stratum (day × placement, of one segment) the arms' rates are subtracted, and the strata are
combined with the weights h = n_a n_b / (n_a + n_b). The weights depend on how many trials each arm got, never on
their outcomes, so shares that follow the outcomes of earlier days (Thompson sampling) and days of different level
cannot make a difference of their own (Simpson's paradox). The *score* is Σ h (rate_b − rate_a); score / Σ h is the
difference.

**Variance** of the score, the larger of two:

- under "the arms are equal": Σ h p (1 − p), from the stratum's pooled rate: steady while successes are few;
- clustered by user: a trial adds g (outcome − rate of its stratum and arm) to its user's score, with
  g = +n_a/n in arm b and −n_b/n in arm a, and the variance is Σ over users of (score over all days and strata)²,
  the covariance of a user across days included. A trial without a user is a cluster of its own. Residuals of a cell
  with m clusters are stretched by √(m / (m − 1)); a stratum where an arm has fewer than two clusters has no weight.

The first one is a floor: clusters may widen an interval, never narrow it.

**Boundary.** The normal mixture of Robbins (1970), in the asymptotic form of Waudby-Smith et al. (arXiv 2103.06476):
|score − truth| < sqrt((V + v) log((V + v) / (v α²))) at all looks at once with probability 1 − α. Where the same
users come back to the same arm, a user's luck on one day comes back on the next: increments of the score are
positively correlated, the path is *more* tied together than a Brownian motion with the same variances, and by
Slepian's inequality crosses the boundary less often.

``v`` = 1 / `TYPICAL_EFFECT`² is a mixture whose effects have that relative size (for rare successes V is about half
an arm's successes): it is planned, not taken from the data. v = 16 makes the boundary tightest near V = 128, which
is a run of 250 clicks an arm, such as 30 days of 2,000 impressions at .43 %, and costs a few per cent of width a
factor of 4 away.

Arrays: ``trials`` and ``successes`` have the shape (..., strata, 2), the last axis being (reference, challenger); every
result has the shape of the leading axes, so that a thousand simulated worlds go through the lines a shop's day does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

Floats = NDArray[np.float64]

TYPICAL_EFFECT = 0.25
"""Relative difference a comparison is planned for (standard deviation of the mixture)."""

MINIMUM_SUCCESSES = 20
"""Over both arms; with fewer, a sum of rare events is too skewed for a normal boundary, so nothing is claimed."""

SPLIT_CONCENTRATION = 1_000.0
"""Prior units behind the intended split: the check looks for shares that are off by 1 to 2 points."""

PROJECTION_POWER_QUANTILE = 0.8416
"""A projected number of trials suffices with a chance of 80 %."""

_MIXTURE = 1 / TYPICAL_EFFECT**2


@dataclass(frozen=True)
class Evidence:
    """What the strata say together: ``weight`` is Σ h, ``rate`` the pooled rate with the same weights (nan: none), and
    ``successes`` those of both arms in all strata."""

    successes: Floats
    weight: Floats
    score: Floats
    variance: Floats
    rate: Floats

    @property
    def difference(self) -> Floats:
        """Stratified rate of the challenger minus that of the reference; nan where no stratum holds both arms."""
        return _ratio(self.score, self.weight)

    def interval(self, alpha: float) -> tuple[Floats, Floats]:
        """Bounds of the difference that hold at all looks at once with probability 1 − ``alpha``."""
        half = _ratio(radius(self.variance, alpha), self.weight)
        return np.clip(self.difference - half, -1, 1), np.clip(self.difference + half, -1, 1)

    @property
    def p_value(self) -> Floats:
        """Always valid: where the arms are equal, P(p ≤ α at any look) ≤ α. The interval of α excludes 0 iff p < α.

        1 below `MINIMUM_SUCCESSES`. It is the p of this look, not the smallest so far: valid at every look all the
        same, and a function of the facts known by the day alone, in whatever order days are evaluated.
        """
        exponent = 0.5 * np.log1p(self.variance / _MIXTURE) - self.score**2 / (2 * (self.variance + _MIXTURE))
        return np.where(self.successes >= MINIMUM_SUCCESSES, np.exp(np.minimum(exponent, 0.0)), 1.0)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _zero_where_empty(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    return np.nan_to_num(_ratio(numerator, denominator))


def stratum_weights(trials: ArrayLike, clusters: ArrayLike | None = None) -> Floats:
    """h = n_a n_b / (n_a + n_b) of shape (..., strata); 0 where an arm has fewer than 2 clusters (default: trials)."""
    n = np.asarray(trials, float)
    enough = (n if clusters is None else np.asarray(clusters)).min(axis=-1) >= 2
    return np.where(enough, _zero_where_empty(n.prod(axis=-1), n.sum(axis=-1)), 0.0)


def cell_scores(trials: ArrayLike, successes: ArrayLike, clusters: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """What a success and what a miss adds to its user's score, each of shape (..., strata, 2)."""
    n, x = np.asarray(trials, float), np.asarray(successes, float)
    m = n if clusters is None else np.asarray(clusters, float)
    share_of_other = _zero_where_empty(n[..., ::-1], n.sum(axis=-1, keepdims=True))
    stretch = np.sqrt(_zero_where_empty(m, m - 1))
    counts = stratum_weights(n, m)[..., None] > 0
    g = np.where(counts, share_of_other * stretch, 0.0) * np.array([-1.0, 1.0])
    rate = _zero_where_empty(x, n)
    return g * (1 - rate), -g * rate


def independent_variance(trials: ArrayLike, successes: ArrayLike, scores: tuple[Floats, Floats]) -> Floats:
    """Σ of squared scores of trials that are clusters of their own, per cell: shape (..., strata, 2)."""
    n, x = np.asarray(trials, float), np.asarray(successes, float)
    success, miss = scores
    return x * success**2 + (n - x) * miss**2


def user_variance(scores: ArrayLike) -> tuple[Floats, Floats]:
    """Users' scores per day, shape (..., users, days) → per day (own, cross), each of shape (..., days).

    ``own`` is Σ over users of score², ``cross`` Σ over users of score × (the user's score on all earlier days). The
    clustered variance up to a day is the running sum of own + 2 cross: additive over days, so days can be stored.
    """
    z = np.asarray(scores, float)
    before = np.cumsum(z, axis=-1) - z
    return np.einsum("...ut,...ut->...t", z, z), np.einsum("...ut,...ut->...t", z, before)


def stratified(
    trials: ArrayLike,
    successes: ArrayLike,
    clustered_variance: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
) -> Evidence:
    """The strata's evidence together; without ``clustered_variance`` (leading axes only) trials are independent."""
    n, x = np.asarray(trials, float), np.asarray(successes, float)
    h = stratum_weights(n, clusters)
    rates = _zero_where_empty(x, n)
    total = n.sum(axis=-1)
    pooled = _zero_where_empty(x.sum(axis=-1), total)
    if clustered_variance is None:
        clustered_variance = independent_variance(n, x, cell_scores(n, x, clusters)).sum(axis=(-1, -2))
    if_equal = (h * pooled * (1 - pooled) * _zero_where_empty(total, total - 1)).sum(axis=-1)
    weight = h.sum(axis=-1)
    return Evidence(
        successes=x.sum(axis=(-1, -2)),
        weight=weight,
        score=(h * (rates[..., 1] - rates[..., 0])).sum(axis=-1),
        variance=np.maximum(if_equal, clustered_variance),
        rate=_ratio((h * pooled).sum(axis=-1), weight),
    )


def radius(variance: ArrayLike, alpha: float) -> Floats:
    """How far the score may stray from the truth at any look, with probability 1 − ``alpha`` over all looks."""
    v = np.asarray(variance, float) + _MIXTURE
    return np.sqrt(v * np.log(v / (_MIXTURE * alpha**2)))


def projected_growth(weight: float, variance: float, effect: float, alpha: float) -> float:
    """By which factor (≥ 1) the trials must grow until an effect of this size crosses the boundary.

    Supposes that variance and weight grow with the trials as they did so far; inf when there is no effect to find.
    """
    if not (weight > 0 and effect > 0):
        return math.inf

    def is_enough(factor: float) -> bool:
        grown = variance * factor
        needed = float(radius(grown, alpha)) + PROJECTION_POWER_QUANTILE * math.sqrt(grown)
        return effect * weight * factor >= needed

    high = 1.0
    while not is_enough(high):
        high *= 2
    low = high / 2
    for _ in range(40 if high > 1 else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def split_p_value(units: ArrayLike, intended_shares: tuple[float, float]) -> Floats:
    """Always valid p that units (…, 2) were assigned with the intended shares (sample-ratio mismatch).

    A beta-binomial mixture around the intended share against the share itself (Lindon and Malek, NeurIPS 2022,
    arXiv 2011.03567): 1 / Bayes factor, which may be read after every unit. A χ² test read daily would not keep its p.
    """
    n = np.asarray(units, float)
    shares = np.asarray(intended_shares, float)
    prior = SPLIT_CONCENTRATION * shares
    with np.errstate(divide="ignore", invalid="ignore"):
        under_split = np.where(n > 0, n * np.log(shares), 0.0).sum(axis=-1)
    mixture = betaln(prior[0] + n[..., 0], prior[1] + n[..., 1]) - betaln(prior[0], prior[1])
    return np.exp(np.minimum(under_split - mixture, 0.0))
