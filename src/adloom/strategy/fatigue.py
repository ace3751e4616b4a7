"""Do the same users click a creative less the more often they have seen it? Early against late exposures, per creative.

Users who saw a creative at least `LATE` times are compared with themselves: their impressions up to the `EARLY`-th with
those from the `LATE`-th on. Who comes often is then on both sides, and a heavy user who never clicks makes no creative
look tired (pooled over all users, every creative does). The difference has the interval of `evaluation.sequences`,
clustered by user, so it may be read every day. A sentence says what to do; shares do not follow it: what tires loses
clicks, and the strategy sees those.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from adloom.evaluation import sequences
from adloom.shop import Shop
from adloom.warehouse import ledger

EARLY, LATE = 2, 5
WINDOW_DAYS = 28
TIRED = 0.3
"""A decline that is surely real and about this large or larger is called tired."""

_EXPOSURES = text(
    f"""
    with shown as (
        select creative_id, user_hash,
            row_number() over (partition by creative_id, user_hash order by impression_at, impression_id) as nth,
            case when click_known_date <= :day then 1 else 0 end as is_clicked
        from marts.fct_impressions
        where is_valid and user_hash is not null and impression_known_date between :since and :day
    ),

    counted as (
        select creative_id, user_hash, max(nth) as exposures,
            sum(case when nth <= {EARLY} then 1 else 0 end) as early,
            sum(case when nth <= {EARLY} then is_clicked else 0 end) as early_clicks,
            sum(case when nth >= {LATE} then 1 else 0 end) as late,
            sum(case when nth >= {LATE} then is_clicked else 0 end) as late_clicks
        from shown
        group by creative_id, user_hash
    )

    select creative_id, early, early_clicks, late, late_clicks, count(*) as users
    from counted
    where exposures >= {LATE}
    group by creative_id, early, early_clicks, late, late_clicks
    order by creative_id, early, early_clicks, late, late_clicks
    """  # noqa: S608 - whole numbers of this module
)


@dataclass(frozen=True)
class Exposures:
    """Users of one creative who saw it often: rows of (early, early clicks, late, late clicks, users alike)."""

    creative_id: str
    rows: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def users(self) -> int:
        return int(self.rows[:, 4].sum())

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """(early impressions, early clicks, late impressions, late clicks)"""
        early, clicks, late, late_clicks = (self.rows[:, :4] * self.rows[:, 4:]).sum(0)
        return int(early), int(clicks), int(late), int(late_clicks)


def fatigue_rows(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Rows of ``adloom.fatigue``: one per creative that some user has seen often enough; none without users."""
    bound = {"day": day, "since": day - timedelta(days=WINDOW_DAYS - 1)}
    found: dict[str, list[tuple[float, ...]]] = {}
    for creative_id, *counts in connection.execute(_EXPOSURES, bound):
        found.setdefault(creative_id, []).append(tuple(float(count) for count in counts))
    return [_row(shop, day, Exposures(name, np.array(rows))) for name, rows in found.items()]


def _row(shop: Shop, day: date, seen: Exposures) -> dict[str, Any]:
    early, early_clicks, late, late_clicks = seen.counts
    found: tuple[float | None, float | None, float | None] = (None, None, None)
    decline = low = high = None
    verdict = "needs_more"
    if seen.users >= shop.min_segment_users and early_clicks + late_clicks >= sequences.MINIMUM_SUCCESSES:
        found = declined(seen, 1 - shop.evaluation.confidence)
        decline, low, high = found
        if decline is not None:
            tired = low is not None and low > 0 and decline >= TIRED
            verdict = "tired" if tired else "fresh" if high is not None and high < TIRED else "needs_more"
    return {
        "day": day,
        "creative_id": seen.creative_id,
        "users": seen.users,
        "early_impressions": early,
        "early_clicks": early_clicks,
        "late_impressions": late,
        "late_clicks": late_clicks,
        "decline": decline,
        "decline_low": low,
        "decline_high": high,
        "verdict": verdict,
        "sentence": _sentence(shop, seen, found, verdict),
    }


def declined(seen: Exposures, alpha: float) -> tuple[float | None, float | None, float | None]:
    """1 − late CTR / early CTR with an interval that holds at all looks; None without an early click.

    The bounds are those of the difference divided by the early CTR, as if that were known.
    """
    early, early_clicks, late, late_clicks = seen.counts
    if not early_clicks:
        return None, None, None
    trials, successes = np.array([[early, late]]), np.array([[early_clicks, late_clicks]])
    clusters = np.array([[seen.users, seen.users]])
    success, miss = sequences.cell_scores(trials, successes, clusters)
    e, ec, n, nc, users = seen.rows.T
    score = ec * success[0, 0] + (e - ec) * miss[0, 0] + nc * success[0, 1] + (n - nc) * miss[0, 1]
    evidence = sequences.stratified(trials, successes, float((users * score**2).sum()), clusters)
    low, high = evidence.interval(alpha)
    rate = early_clicks / early
    return float(-evidence.difference / rate), float(-high / rate), min(float(-low / rate), 1.0)


def _sentence(shop: Shop, seen: Exposures, found: tuple[float | None, float | None, float | None], verdict: str) -> str:
    decline, low, high = found
    early, early_clicks, late, late_clicks = seen.counts
    name = seen.creative_id
    if shop.language == "zh":
        counts = (
            f"同一批 {seen.users:,} 名用户：前 {EARLY} 次展示 {early_clicks:,}/{early:,} 次点击，"
            f"第 {LATE} 次起 {late_clicks:,}/{late:,}"
        )
        if decline is None:
            return f"创意 {name}：数据不足，看不出疲劳与否（{counts}）"
        told = {
            "tired": "已经疲劳：让它休息，或换一个变体",
            "fresh": "没有疲劳",
            "needs_more": "尚不能断定是否疲劳",
        }[verdict]
        return f"创意 {name}：重复展示后 CTR 下降 {decline:.0%} [{low:.0%}, {high:.0%}]，{told}（{counts}）"
    counts = (
        f"the same {seen.users:,} users: {early_clicks:,} clicks in {early:,} first and second impressions, "
        f"{late_clicks:,} in {late:,} from the fifth on"
    )
    if decline is None:
        return f"creative {name}: not enough data to say whether it tires ({counts})"
    told = {
        "tired": "it tires: let it rest, or order a variant of it",
        "fresh": "it does not tire",
        "needs_more": "not sure yet whether it tires",
    }[verdict]
    return f"creative {name}: CTR falls by {decline:.0%} [{low:.0%}, {high:.0%}] when seen again; {told} ({counts})"


def record(connection: Connection, shop: Shop, day: date) -> None:
    """Replace the day's rows of ``adloom.fatigue``."""
    ledger.replace_rows(connection, ledger.fatigue, {"day": day}, fatigue_rows(connection, shop, day))
