"""The permanent holdout: a fixed share of users who always see the reference policy, and what that proves.

Their CTR beside everyone else's is the only evidence in production that adapting earns anything.

**Interval.** It is shown every day, so it is the confidence sequence of the verdicts (`adloom.evaluation.sequences`),
asked for a ratio: a lift L stays possible as long as Σ h (rate_adaptive − (1 + L) rate_holdout), over strata of day ×
segment × placement, lies within the sequence's radius for its variance, clustered by user. It holds for all looks at
once while a window fills. A window that slides for long is looked at anew again and again: over 30 daily looks a false
lift stays below 1 − confidence (tested), over a year of them it does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special
from sqlalchemy import Connection, text

from adloom.evaluation import sequences
from adloom.shop import Shop

SALT = "adloom-holdout-1:"
"""Never changes: another salt would move users in and out of the holdout."""
ADAPTIVE, HOLDOUT = "adaptive", "holdout"
LIFT_WINDOWS = (7, 28)
LEAST_CLICKS = 10
"""With fewer clicks on either side an interval would mislead."""
FARTHEST = 100.0
"""A ratio of CTRs this many times the estimate, still possible, means that the clicks bound nothing."""
FIXED_POINT = 2**30
"""Users' scores are summed in SQL as integers of this scale."""

Floats = NDArray[np.float64]


def in_holdout(unit_id: str, share: float) -> bool:
    """Does this unit always see the reference policy?

    ``unit_id`` is the user_hash (12 characters) or, where a shop has no users, the impression_id. An ad server
    decides the same way: the first 8 bytes (big-endian) of SHA-256 over the UTF-8 text `SALT` + unit_id, as a
    fraction of 2⁶⁴, lie below ``share``. A unit in a holdout of 5 % stays in when the share grows.
    """
    digest = hashlib.sha256((SALT + unit_id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class Sides:
    """Traffic of a window by stratum; the last axis of arrays is (holdout, adaptive)."""

    trials: NDArray[np.int64]
    """Impressions, shape (strata, 2)."""
    successes: NDArray[np.int64]
    clusters: NDArray[np.int64]
    """Users of a stratum and side, plus impressions without a user."""
    units: tuple[int, int]
    """What was split: users of the window, plus impressions without a user."""
    variance: tuple[float, float, float]
    """Σ over users of (score in the holdout)², product of both scores, (score in adaptive)²."""

    def lift(self, alpha: float) -> tuple[float, float, float] | None:
        """(lift, low, high), or None where the clicks do not bound it; ``alpha`` over all looks together."""
        n, x = self.trials.astype(float), self.successes.astype(float)
        weight = sequences.stratum_weights(n, self.clusters)
        rates = np.divide(x, n, out=np.zeros_like(n), where=n > 0)
        holdout, adaptive = (weight @ rates).tolist() if len(n) else (0.0, 0.0)
        if not (holdout > 0 and adaptive > 0 and x.sum() >= sequences.MINIMUM_SUCCESSES):
            return None
        n, x, weight = n[weight > 0], x[weight > 0], weight[weight > 0]

        def variances(at: Floats) -> tuple[Floats, Floats]:
            """Of the score if these were the ratios: of independent impressions, pooled over sides; and clustered."""
            low = x.sum(-1) / (n[:, 0] + at[:, None] * n[:, 1])  # the holdout's rate if this were the ratio
            high = np.minimum(at[:, None] * low, 1.0)
            each = at[:, None] ** 2 * low * (1 - low) / n[:, 0] + high * (1 - high) / n[:, 1]
            held, both, other = self.variance
            return (weight**2 * each).sum(-1), held * at**2 + 2 * both * at + other

        ratio = adaptive / holdout
        pooled, clustered = variances(np.array([ratio]))
        # A holdout that is clicked little by chance also varies little: how far clusters widen is asked of both sides.
        widened = max(1.0, float(clustered[0] / pooled[0]))

        def excess(at: Floats) -> Floats:
            """How far each ratio of the CTRs lies outside of what is possible."""
            pooled, clustered = variances(at)
            variance = np.maximum(widened * pooled, clustered)
            return np.abs(adaptive - at * holdout) - sequences.radius(variance, alpha)

        high = _first_outside(excess, ratio, ratio * FARTHEST)
        if high is None:
            return None
        low = _first_outside(excess, ratio, ratio / FARTHEST) or 0.0
        return ratio - 1, low - 1, high - 1


def _first_outside(excess: Callable[[Floats], Floats], inside: float, outside: float) -> float | None:
    """The point nearest to ``inside`` on the way to ``outside`` whose excess is positive; None: there is none."""
    for _ in range(3):
        points = np.geomspace(inside, outside, 101)
        is_outside = excess(points) > 0
        if not is_outside.any():
            return None
        first = max(int(is_outside.argmax()), 1)
        inside, outside = float(points[first - 1]), float(points[first])
    return outside


_PRESENT = text(
    """
    select count(*) from (
        select 1 from marts.fct_creative_daily
        where known_date <= :day and known_date > :since and policy_id in ('adaptive', 'holdout') limit 1
    )
    """
)
_CREATE = text(
    """
    create temporary table holdout_trials (
        impression_date date, segment_id text, placement text, side integer, user_hash text,
        impressions bigint, clicks bigint
    )
    """
)
# Impressions without a user are kept together (user_hash null); each is a unit of its own.
_GATHER = text(
    """
    insert into holdout_trials
    select impression_date, segment_id, placement, case policy_id when 'adaptive' then 1 else 0 end, user_hash,
           count(*), count(*) filter (where click_known_date <= :day)
    from marts.fct_impressions
    where impression_known_date <= :day and impression_known_date > :since and impression_date > :since
          and impression_date <= :day and is_valid and policy_id in ('adaptive', 'holdout')
    group by all
    """
)
_DROP = text("drop table holdout_trials")
_CELLS = text(
    """
    select impression_date, segment_id, placement, side, sum(impressions) as impressions, sum(clicks) as clicks,
           count(user_hash) as users,
           coalesce(sum(impressions) filter (where user_hash is null), 0) as anonymous_impressions,
           coalesce(sum(clicks) filter (where user_hash is null), 0) as anonymous_clicks
    from holdout_trials where impression_date > :since group by all order by all
    """
)
_USERS = text(
    "select side, count(distinct user_hash) from holdout_trials where impression_date > :since group by all order by 1"
)
_SCORES = text(
    """
    with cells as (
        select unnest(:dates) as impression_date, unnest(:segments) as segment_id, unnest(:placements) as placement,
               unnest(:sides) as side, unnest(:hits) as hit, unnest(:misses) as miss
    ),
    users as (
        select user_hash, coalesce(sum(score) filter (where side = 0), 0) as holdout,
               coalesce(sum(score) filter (where side = 1), 0) as adaptive
        from (
            select user_hash, side, clicks * hit + (impressions - clicks) * miss as score
            from holdout_trials join cells using (impression_date, segment_id, placement, side)
            where user_hash is not null
        )
        group by user_hash
    )
    select coalesce(sum(holdout * holdout), 0), coalesce(sum(holdout * adaptive), 0),
           coalesce(sum(adaptive * adaptive), 0)
    from users
    """
)


def lift_rows(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Rows of ``adloom.holdout_lift`` as of ``day``, one per window; says so where there is nothing to compare."""
    since = {window: day - timedelta(days=window) for window in LIFT_WINDOWS}
    bound = {"day": day, "since": min(since.values())}
    sides: dict[int, Sides | None] = {}
    # The summed facts are asked first: most shops without a holdout never touch their impressions.
    if connection.execute(_PRESENT, bound).scalar_one():
        connection.execute(_CREATE)
        connection.execute(_GATHER, bound)
        sides = {window: _read_sides(connection, start) for window, start in since.items()}
        connection.execute(_DROP)
    return [{"day": day, "window_days": window} | compare(sides.get(window), shop, window) for window in LIFT_WINDOWS]


def _read_sides(connection: Connection, since: date) -> Sides | None:
    """The gathered traffic after ``since``; None where there is none."""
    cells = connection.execute(_CELLS, {"since": since}).all()
    if not cells:
        return None
    strata = {stratum: number for number, stratum in enumerate(sorted({tuple(cell[:3]) for cell in cells}))}
    at = [(strata[tuple(cell[:3])], cell.side) for cell in cells]
    trials, successes, clusters = counts = np.zeros((3, len(strata), 2), dtype=np.int64)
    units, variance = [0, 0], [0.0, 0.0, 0.0]
    for place, cell in zip(at, cells, strict=True):
        counts[:, place[0], place[1]] = (cell.impressions, cell.clicks, cell.users + cell.anonymous_impressions)
        units[cell.side] += int(cell.anonymous_impressions)
    for side, users in connection.execute(_USERS, {"since": since}):
        units[side] += users
    hit, miss = sequences.cell_scores(trials, successes, clusters)
    for place, cell in zip(at, cells, strict=True):
        alone = int(cell.anonymous_impressions), int(cell.anonymous_clicks)
        variance[2 * cell.side] += float(sequences.independent_variance(*alone, (hit[place], miss[place])))
    if any(cell.users for cell in cells):
        named = {
            name: [cell[column] for cell in cells]
            for column, name in enumerate(("dates", "segments", "placements", "sides"))
        }
        # As integers: sums of floats would depend on the order of rows.
        scores = {
            name: [round(float(score[place]) * FIXED_POINT) for place in at]
            for name, score in (("hits", hit), ("misses", miss))
        }
        sums = connection.execute(_SCORES, named | scores).one()
        variance = [value + int(total) / FIXED_POINT**2 for value, total in zip(variance, sums, strict=True)]
    return Sides(trials, successes, clusters, (units[0], units[1]), (variance[0], variance[1], variance[2]))


def compare(sides: Sides | None, shop: Shop, window: int) -> dict[str, Any]:
    """Lift of the adaptive policy over the holdout with its interval, or the reason why there is none."""
    chinese = shop.language == "zh"
    shown, clicks = (
        ([0, 0], [0, 0]) if sides is None else (sides.trials.sum(0).tolist(), sides.successes.sum(0).tolist())
    )
    found: dict[str, Any] = {
        "adaptive_impressions": shown[1],
        "adaptive_clicks": clicks[1],
        "holdout_impressions": shown[0],
        "holdout_clicks": clicks[0],
        "lift": None,
        "lift_low": None,
        "lift_high": None,
    }
    counts = (
        f"（{window} 天：自适应 {clicks[1]:,} 次点击 / {shown[1]:,} 次展示，对照组 {clicks[0]:,} / {shown[0]:,}）"
        if chinese
        else f" ({window} days: adaptive {clicks[1]:,} clicks in {shown[1]:,} impressions, "
        f"holdout {clicks[0]:,} in {shown[0]:,})"
    )
    if sides is None:
        sentence = (
            "日志中没有策略 adaptive 或 holdout 的展示：无法计算提升。"
            if chinese
            else "The logs have no impressions of the policies 'adaptive' and 'holdout': there is no lift to show."
        )
        return found | {"sentence": sentence}
    too_little = found | {"sentence": ("数据还不够" if chinese else "Not enough data") + counts}
    if min(clicks) < LEAST_CLICKS:
        return too_little
    units, held = sum(sides.units), sides.units[0]
    expected = shop.strategy.holdout_share
    # Exact binomial, the smaller tail doubled.
    tails = special.bdtr(held, units, expected), special.bdtrc(held - 1, units, expected)
    if expected > 0 and 2 * min(tails) < shop.evaluation.sample_ratio_p:
        told = held / units
        sentence = (
            f"分流异常：对照组占 {100 * told:.2f} %，应为 {100 * expected:.2f} %，不报告提升"
            if chinese
            else f"Split broken: the holdout has {100 * told:.2f} % of the traffic, not {100 * expected:.2f} %; "
            "no lift is reported"
        )
        return found | {"sentence": sentence + counts}
    bounded = sides.lift(1 - shop.evaluation.confidence)
    if bounded is None:
        return too_little
    lift, low, high = bounded
    sure = f"{100 * shop.evaluation.confidence:g} %"
    sentence = (
        f"自适应投放的 CTR 比对照组{'高' if lift >= 0 else '低'} {100 * abs(lift):.1f} %"
        f"（每天查看仍有效的 {sure} 区间 {100 * low:+.1f} % 至 {100 * high:+.1f} %）"
        if chinese
        else f"Adaptive traffic has a CTR {100 * abs(lift):.1f} % {'above' if lift >= 0 else 'below'} the holdout's "
        f"({sure} interval {100 * low:+.1f} % to {100 * high:+.1f} %, made for daily looks)"
    )
    return found | {"lift": lift, "lift_low": low, "lift_high": high, "sentence": sentence + counts}
