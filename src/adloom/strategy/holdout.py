"""The permanent holdout: a fixed share of users who always see the reference policy, and what that proves.

Their CTR beside everyone else's is the only evidence in production that adapting earns anything.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import NormalDist
from typing import Any

from scipy import special
from sqlalchemy import Connection, text

from adloom.shop import Shop

SALT = "adloom-holdout-1:"
"""Never changes: another salt would move users in and out of the holdout."""
ADAPTIVE, HOLDOUT = "adaptive", "holdout"
LIFT_WINDOWS = (7, 28)
LEAST_CLICKS = 10
"""With fewer clicks on either side an interval would mislead."""


def in_holdout(unit_id: str, share: float) -> bool:
    """Does this unit always see the reference policy?

    ``unit_id`` is the user_hash (32 hex characters) or, where a shop has no users, the impression_id. An ad server
    decides the same way: the first 8 bytes (big-endian) of SHA-256 over the UTF-8 text `SALT` + unit_id, as a
    fraction of 2⁶⁴, lie below ``share``. A unit in a holdout of 5 % stays in when the share grows.
    """
    digest = hashlib.sha256((SALT + unit_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class Side:
    """Traffic of one policy: counts, and the variance of its CTR with users as clusters."""

    impressions: int = 0
    clicks: int = 0
    units: int = 0
    clicks_squared: int = 0
    """Σ over units of (clicks of the unit)², and so on: the second moments of the delta method."""
    impressions_squared: int = 0
    product: int = 0

    @property
    def ctr(self) -> float:
        return self.clicks / self.impressions

    @property
    def relative_variance(self) -> float:
        """Variance of the CTR's logarithm, clustered by unit (delta method)."""
        ctr = self.ctr
        residuals = self.clicks_squared - 2 * ctr * self.product + ctr**2 * self.impressions_squared
        return residuals / self.clicks**2 * self.units / max(self.units - 1, 1)


_PRESENT = text(
    """
    select count(*) from (
        select 1 from marts.fct_creative_daily
        where known_date <= :day and known_date > :since and policy_id in ('adaptive', 'holdout') limit 1
    )
    """
)
_SIDES = text(
    """
    with units as (
        select policy_id, coalesce(user_hash, impression_id) as unit, count(*) as impressions,
               count(*) filter (where click_known_date <= :day) as clicks
        from marts.fct_impressions
        where impression_known_date <= :day and impression_known_date > :since and impression_date > :since
              and impression_date <= :day and is_valid and policy_id in ('adaptive', 'holdout')
        group by all
    )
    select policy_id, sum(impressions), sum(clicks), count(*), sum(clicks * clicks),
           sum(impressions * impressions), sum(impressions * clicks)
    from units group by policy_id order by policy_id
    """
)


def lift_rows(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Rows of ``adloom.holdout_lift`` as of ``day``, one per window; says so where there is nothing to compare."""
    rows = []
    for window in LIFT_WINDOWS:
        bound = {"day": day, "since": day - timedelta(days=window)}
        sides: dict[str, Side] = {}
        # The summed facts are asked first: most shops without a holdout never touch their impressions.
        if connection.execute(_PRESENT, bound).scalar_one():
            sides = {policy: Side(*map(int, sums)) for policy, *sums in connection.execute(_SIDES, bound)}
        rows.append(
            {"day": day, "window_days": window}
            | compare(sides.get(ADAPTIVE, Side()), sides.get(HOLDOUT, Side()), shop, window)
        )
    return rows


def compare(adaptive: Side, holdout: Side, shop: Shop, window: int) -> dict[str, Any]:
    """Lift of the adaptive policy over the holdout with its interval, or the reason why there is none."""
    chinese = shop.language == "zh"
    found: dict[str, Any] = {
        "adaptive_impressions": adaptive.impressions,
        "adaptive_clicks": adaptive.clicks,
        "holdout_impressions": holdout.impressions,
        "holdout_clicks": holdout.clicks,
        "lift": None,
        "lift_low": None,
        "lift_high": None,
    }
    counts = (
        f"（{window} 天：自适应 {adaptive.clicks:,} 次点击 / {adaptive.impressions:,} 次展示，"
        f"对照组 {holdout.clicks:,} / {holdout.impressions:,}）"
        if chinese
        else f" ({window} days: adaptive {adaptive.clicks:,} clicks in {adaptive.impressions:,} impressions, "
        f"holdout {holdout.clicks:,} in {holdout.impressions:,})"
    )
    if adaptive.impressions + holdout.impressions == 0:
        sentence = (
            "日志中没有策略 adaptive 或 holdout 的展示：无法计算提升。"
            if chinese
            else "The logs have no impressions of the policies 'adaptive' and 'holdout': there is no lift to show."
        )
        return found | {"sentence": sentence}
    if min(adaptive.clicks, holdout.clicks) < LEAST_CLICKS:
        return found | {"sentence": ("数据还不够" if chinese else "Not enough data") + counts}
    units = adaptive.units + holdout.units
    expected = shop.strategy.holdout_share
    # Exact binomial, the smaller tail doubled.
    tails = special.bdtr(holdout.units, units, expected), special.bdtrc(holdout.units - 1, units, expected)
    if expected > 0 and 2 * min(tails) < shop.evaluation.sample_ratio_p:
        told = holdout.units / units
        sentence = (
            f"分流异常：对照组占 {100 * told:.2f} %，应为 {100 * expected:.2f} %，不报告提升"
            if chinese
            else f"Split broken: the holdout has {100 * told:.2f} % of the traffic, not {100 * expected:.2f} %; "
            "no lift is reported"
        )
        return found | {"sentence": sentence + counts}
    spread = NormalDist().inv_cdf((1 + shop.evaluation.confidence) / 2) * math.sqrt(
        adaptive.relative_variance + holdout.relative_variance
    )
    ratio = adaptive.ctr / holdout.ctr
    lift, low, high = (ratio * math.exp(step) - 1 for step in (0.0, -spread, spread))
    sure = f"{100 * shop.evaluation.confidence:g} %"
    sentence = (
        f"自适应投放的 CTR 比对照组{'高' if lift >= 0 else '低'} {100 * abs(lift):.1f} %"
        f"（{sure} 区间 {100 * low:+.1f} % 至 {100 * high:+.1f} %）"
        if chinese
        else f"Adaptive traffic has a CTR {100 * abs(lift):.1f} % {'above' if lift >= 0 else 'below'} the holdout's "
        f"({sure} interval {100 * low:+.1f} % to {100 * high:+.1f} %)"
    )
    return found | {"lift": lift, "lift_low": low, "lift_high": high, "sentence": sentence + counts}
