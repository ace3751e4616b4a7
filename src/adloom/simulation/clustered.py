"""Users who see several ads and are not all alike: the world in which impression-level intervals are too narrow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClusteredWorld:
    """How users differ.

    ``ctr`` is the true rate of an impression. A user's own rate is Beta with that mean and intra-class correlation
    ``correlation``; how many ads a user sees is one plus a negative binomial with the mean ``ads_per_user`` and the
    given ``dispersion`` (smaller: a longer tail).
    """

    users: int = 2_000
    ctr: float = 0.02
    ads_per_user: float = 10.0
    dispersion: float = 0.7
    correlation: float = 0.085

    def draw(self, rng: np.random.Generator, worlds: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Impressions and clicks per user, each of shape (worlds, users)."""
        shape = (worlds, self.users)
        extra = self.ads_per_user - 1
        impressions = 1 + rng.negative_binomial(self.dispersion, self.dispersion / (self.dispersion + extra), shape)
        strength = 1 / self.correlation - 1
        rate = rng.beta(self.ctr * strength, (1 - self.ctr) * strength, shape)
        return impressions, rng.binomial(impressions, rate)
