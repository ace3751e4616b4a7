"""Intervals for rates: Wilson's, widened where the same user stands behind several trials or a factor is estimated.

Everything here is a pure function of arrays: the SQL of `adloom.evaluation.rates` and the simulated worlds of the
tests feed the same code. All intervals are two-sided and stay within 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

FEW_USERS = 10.0
"""Below so many effective users with a success, a key's own spread between users says too little."""


@dataclass(frozen=True)
class Moments:
    """Sums over users that the delta method needs; all fields are arrays of one shape.

    With n trials and c successes of a user: ``n`` = Σn, ``c`` = Σc, ``nn`` = Σn², ``nc`` = Σnc, ``cc`` = Σc²,
    ``c4`` = Σc⁴. A trial without a user is a user of its own.
    """

    n: Floats
    c: Floats
    nn: Floats
    nc: Floats
    cc: Floats
    c4: Floats

    @classmethod
    def of(cls, trials: ArrayLike, successes: ArrayLike) -> Moments:
        """The sums over the last axis of per-user trials and successes."""
        n, c = np.asarray(trials, dtype=float), np.asarray(successes, dtype=float)
        squares = c * c
        return cls(
            n=n.sum(-1),
            c=c.sum(-1),
            nn=(n * n).sum(-1),
            nc=(n * c).sum(-1),
            cc=squares.sum(-1),
            c4=(squares * squares).sum(-1),
        )

    @property
    def trials_per_user(self) -> Floats:
        """Trials of the user behind an average trial: Σn² / Σn, at least 1."""
        return np.maximum(ratio(self.nn, self.n, 1.0), 1.0)

    @property
    def effective_users(self) -> Floats:
        """How many users the successes rest on: (Σc²)² / Σc⁴, 0 without a success."""
        return ratio(self.cc * self.cc, self.c4, 0.0)


def ratio(above: ArrayLike, below: ArrayLike, otherwise: float) -> Floats:
    """above / below, elementwise; ``otherwise`` where ``below`` is not positive."""
    above, below = np.broadcast_arrays(np.asarray(above, dtype=float), np.asarray(below, dtype=float))
    return np.divide(above, below, out=np.full(above.shape, otherwise), where=below > 0)


def wilson(successes: ArrayLike, trials: ArrayLike, confidence: float) -> tuple[Floats, Floats]:
    """Wilson's score interval; NaN where there is no trial. Effective (fractional) sizes are welcome."""
    from statsmodels.stats.proportion import proportion_confint

    c, n = np.broadcast_arrays(np.asarray(successes, dtype=float), np.asarray(trials, dtype=float))
    low, high = proportion_confint(np.minimum(c, n), np.where(n > 0, n, np.nan), alpha=1 - confidence, method="wilson")
    return np.where(c <= 0, low * 0, low), np.where(c >= n, high * 0 + 1, high)


def design_effect(moments: Moments, confidence: float) -> Floats:
    """By how much users who are alike within themselves widen the variance of Σc / Σn; at least 1.

    Delta method for the ratio of user sums, Var = Σ(c − rn)² / N², against the binomial r(1 − r) / N. The excess over
    1 is learnt from the users with a success alone, so it is multiplied by (t/z)², with their effective number as
    degrees of freedom, as long as the result stays below what users of one mind each would give; without that, worlds
    with few clicks are covered too rarely. 1 without a success.
    """
    from scipy.stats import norm, t

    m = moments
    rate = ratio(m.c, m.n, 0.0)
    spread = np.maximum(m.cc - 2 * rate * m.nc + rate * rate * m.nn, 0.0)
    effect = np.maximum(ratio(spread, m.n * rate * (1 - rate), 1.0), 1.0)
    tail = 0.5 + confidence / 2
    few = (t.ppf(tail, np.maximum(m.effective_users, 1.0)) / norm.ppf(tail)) ** 2
    return np.maximum(effect, np.minimum(1 + (effect - 1) * few, m.trials_per_user))


def pooled_design_effect(moments: Moments, pool: Moments, confidence: float) -> Floats:
    """`design_effect`, where a key with `FEW_USERS` or fewer also hears the correlation found in the ``pool``.

    The correlation within a user, (effect − 1) / (trials per user − 1), carries over from the pool; how many trials
    a user has is the key's own. The wider of the two stands, so a key without a click is not more certain than others.
    """
    own = design_effect(moments, confidence)
    shared = ratio(design_effect(pool, confidence) - 1, pool.trials_per_user - 1, 0.0)
    borrowed = 1 + (moments.trials_per_user - 1) * np.minimum(shared, 1.0)
    return np.where(moments.effective_users < FEW_USERS, np.maximum(own, borrowed), own)


def rate_interval(
    successes: ArrayLike, trials: ArrayLike, effect: ArrayLike, confidence: float
) -> tuple[Floats, Floats]:
    """Wilson's interval at the effective sample size: trials and successes divided by the design effect."""
    return wilson(np.asarray(successes) / effect, np.asarray(trials) / effect, confidence)


def corrected_rate(
    successes: ArrayLike,
    trials: ArrayLike,
    completeness: ArrayLike,
    completeness_variance: ArrayLike,
    *,
    effect: ArrayLike,
    confidence: float,
) -> tuple[Floats, Floats, Floats]:
    """Rate and interval when only the share ``completeness`` of the eventual successes can be known yet.

    rate = successes / (trials · completeness). Its variance is that of the observed ratio (binomial times the design
    effect) plus that of the estimated completeness; Wilson's interval at the sample size which has that variance.
    With completeness 1 and no variance it is `rate_interval`. NaN where nothing could be known.
    """
    c, n = np.asarray(successes, dtype=float), np.asarray(trials, dtype=float)
    share = np.asarray(completeness, dtype=float)
    exposure = n * share
    rate = np.minimum(ratio(c, exposure, np.nan), 1.0)
    observed = ratio(c, n, 0.0)
    left = np.where(rate < 1, 1 - rate, 1.0)
    sampling = np.asarray(effect) * np.where(rate < 1, (1 - observed) / left, 1.0) * ratio(1.0, exposure, np.nan)
    correction = rate / np.maximum(1 - rate, 1e-12) * ratio(completeness_variance, share * share, 0.0)
    size = 1 / (sampling + correction)
    low, high = wilson(rate * size, size, confidence)
    return rate, low, high
