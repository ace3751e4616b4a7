"""CTR and CR at every grain and window, with intervals: the rows of ``adloom.evaluations``.

Counts come from the small increments of ``fct_creative_daily``. What user clustering needs, sums per user, comes from
``fct_impressions``: one scan of the window's impressions and one of its clicks serve all grains and windows. Where the
window holds more than `MAX_USER_IMPRESSIONS`, the users are those whose hash falls below a bound: the design effect
of a sample of users is that of all, and the counts stay whole; only the number of distinct users is then scaled up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)

from adloom.evaluation.facts import creative_daily, impressions
from adloom.evaluation.intervals import (
    Floats,
    Moments,
    corrected_rate,
    pooled_design_effect,
    rate_interval,
    ratio,
)
from adloom.evaluation.maturity import DelayCurve, completeness_of
from adloom.shop import Shop

WINDOWS = (1, 7, 28)
KEYS = ("campaign_id", "policy_id", "creative_id", "segment_id")
GRAINS: dict[str, tuple[str, ...]] = {
    "overall": (),
    "campaign": ("campaign_id",),
    "policy": ("campaign_id", "policy_id"),
    "creative": ("creative_id",),
    "segment": ("segment_id",),
    "creative_segment": ("creative_id", "segment_id"),
}
MAX_USER_IMPRESSIONS = 1_000_000
MOMENTS = len(fields(Moments))
MOST_SUCCESSES = 30_000
"""A user's successes count up to this in Σc⁴, whose terms must fit 64 bits."""
HASH_DIGITS = 4
"""Leading hex digits of a user hash that decide whether the user is in the sample."""


class Key(NamedTuple):
    """A row's place: grain and key columns, '' where the grain has no such key."""

    grain: str
    campaign_id: str = ""
    policy_id: str = ""
    creative_id: str = ""
    segment_id: str = ""


OVERALL = Key("overall")


@dataclass
class _Counts:
    """What the increments say about one key: by window, and for click cohorts by age (the last: and older)."""

    impressions: list[int] = field(default_factory=lambda: [0] * len(WINDOWS))
    clicks: list[int] = field(default_factory=lambda: [0] * len(WINDOWS))
    cost: list[Decimal] = field(default_factory=lambda: [Decimal(0)] * len(WINDOWS))
    cohorts: dict[int, tuple[int, int, Decimal]] = field(default_factory=dict)


def first_day(day: date, window_days: int) -> date:
    """The first day of the window that ends at ``day``."""
    return day - timedelta(days=window_days - 1)


def _grouping(columns: Any) -> tuple[list[ColumnElement[Any]], ColumnElement[Any]]:
    """The columns that name a row's key, and the grouping sets of all grains over them."""
    named = [func.coalesce(columns[name], "").label(name) for name in KEYS]
    missing = func.grouping(*(columns[name] for name in KEYS)).label("missing")
    sets = func.grouping_sets(*(tuple_(*(columns[name] for name in keys)) for keys in GRAINS.values()))
    return [missing, *named], sets


# GROUPING(campaign, policy, creative, segment): a bit per column, the first the highest, set where the row has none.
GRAIN_OF = {
    sum(2 ** (len(KEYS) - 1 - place) for place, name in enumerate(KEYS) if name not in keys): grain
    for grain, keys in GRAINS.items()
}


def _key(row: Any) -> Key:
    grain = GRAIN_OF[row.missing]
    return Key(grain, *(getattr(row, name) if name in GRAINS[grain] else "" for name in KEYS))


def _counts(connection: Connection, shop: Shop, day: date, oldest_age: int) -> dict[Key, _Counts]:
    """Counts of every key that has any in the longest window, as known by ``day``; overall is always there."""
    t = creative_daily
    found: dict[Key, _Counts] = defaultdict(_Counts)
    found[OVERALL] = _Counts()
    first = first_day(day, max(WINDOWS))
    known = and_(t.c.known_date >= first, t.c.known_date <= day)

    keys, sets = _grouping(t.c)
    sums = []
    for window in WINDOWS:
        inside = t.c.impression_date >= first_day(day, window)
        sums += [
            func.sum(case((inside, column), else_=0)).label(f"{name}_{window}")
            for name, column in (("impressions", t.c.impressions), ("clicks", t.c.clicks), ("cost", t.c.cost))
        ]
    for row in connection.execute(select(*keys, *sums).where(known, t.c.impression_date >= first).group_by(sets)):
        counts = found[_key(row)]
        for place, window in enumerate(WINDOWS):
            counts.impressions[place] = int(getattr(row, f"impressions_{window}") or 0)
            counts.clicks[place] = int(getattr(row, f"clicks_{window}") or 0)
            counts.cost[place] = getattr(row, f"cost_{window}") or Decimal(0)

    cohort = func.greatest(t.c.click_date, literal(day - timedelta(days=oldest_age))).label("cohort")
    rows = (
        select(
            *(t.c[name] for name in KEYS),
            cohort,
            t.c.clicks,
            t.c.conversion_lag_days,
            t.c.conversions,
            t.c.conversions_value,
        )
        .where(known, t.c.click_date >= first)
        .subquery()
    )
    counted = rows.c.conversion_lag_days <= shop.attribution_window_days
    keys, _ = _grouping(rows.c)
    sets = func.grouping_sets(*(tuple_(*(rows.c[name] for name in names), rows.c.cohort) for names in GRAINS.values()))
    query = select(
        *keys,
        rows.c.cohort,
        func.sum(case((rows.c.conversion_lag_days.is_(None), rows.c.clicks), else_=0)).label("clicks"),
        func.sum(case((counted, rows.c.conversions), else_=0)).label("conversions"),
        func.sum(case((counted, rows.c.conversions_value), else_=0)).label("value"),
    ).group_by(sets)
    for row in connection.execute(query):
        age = (day - row.cohort).days
        found[_key(row)].cohorts[age] = (int(row.clicks), int(row.conversions), row.value or Decimal(0))
    return found


def _per_user_trials(day: date, shop: Shop, *, of_clicks: bool) -> Select[Any]:
    """One row per valid impression (or click) of the longest window: keys, user, date of the trial, success or not."""
    t = impressions
    first = first_day(day, max(WINDOWS))
    clicked = func.coalesce(t.c.click_known_date <= day, false())
    # The marts attribute within the window; a window that the shop has shortened since is cut here (to the day).
    in_time = t.c.conversion_at < t.c.click_at + literal(timedelta(days=shop.attribution_window_days + 1))
    converted = func.coalesce(and_(t.c.conversion_known_date <= day, in_time), false())
    keys = [t.c[name] for name in (*KEYS, "user_hash")]
    if of_clicks:
        earliest = first - timedelta(days=shop.lookback_days)
        return select(*keys, t.c.click_date.label("trial_date"), converted.label("success")).where(
            t.c.is_valid,
            t.c.impression_known_date.between(earliest, day),
            t.c.click_date >= first,
            t.c.click_known_date <= day,
        )
    return select(*keys, t.c.impression_date.label("trial_date"), clicked.label("success")).where(
        t.c.is_valid, t.c.impression_known_date.between(first, day), t.c.impression_date >= first
    )


@dataclass
class UserSums:
    """By window: distinct users, and the fields of `Moments` (last axis) over users and over trials without a user."""

    users: Floats = field(default_factory=lambda: np.zeros(len(WINDOWS)))
    moments: Floats = field(default_factory=lambda: np.zeros((len(WINDOWS), MOMENTS)))


def user_moments(
    connection: Connection, shop: Shop, day: date, share: float, *, of_clicks: bool
) -> dict[Key, UserSums]:
    """Sums over users of every key, from one scan of ``fct_impressions``.

    ``share`` of the users, by their hash, are read. A trial without a user is a user of its own; all such trials are
    read, and scaled to the share.
    """
    trials = _per_user_trials(day, shop, of_clicks=of_clicks)
    if share < 1:
        bound = f"{int(share * 16**HASH_DIGITS):0{HASH_DIGITS}x}"
        user = impressions.c.user_hash
        trials = trials.where(or_(user.is_(None), user < bound))
    scan = trials.cte("trials").prefix_with("materialized")
    # One GROUP BY per grain over the kept scan: several times as fast on DuckDB as grouping sets over it.
    query = union_all(*(_sums_of_grain(scan, grain, day) for grain in GRAINS))

    found: dict[Key, UserSums] = defaultdict(UserSums)
    for row in connection.execute(query):
        grain, is_user, *rest = row
        key = Key(grain, *rest[: len(KEYS)])
        users, *sums = np.array([float(value) for value in rest[len(KEYS) :]]).reshape(len(WINDOWS), -1).T
        if is_user:
            found[key].users = users
            found[key].moments += np.stack(sums, axis=-1)
        else:
            n, c = share * sums[0], share * sums[1]
            found[key].moments += np.stack([n, c, n, c, c, c], axis=-1)
    return found


def _sums_of_grain(scan: CTE, grain: str, day: date) -> Select[Any]:
    """Per key of a grain, with and without users apart: distinct users and the sums of `Moments`, by window."""
    names = GRAINS[grain]
    counts = []
    for window in WINDOWS:
        inside = scan.c.trial_date >= first_day(day, window)
        counts += [
            func.count(case((inside, 1))).label(f"n_{window}"),
            func.count(case((and_(inside, scan.c.success), 1))).label(f"c_{window}"),
        ]
    keys = [scan.c[name] for name in names]
    is_user = scan.c.user_hash.is_not(None).label("is_user")
    users = select(*keys, is_user, *counts).group_by(*keys, scan.c.user_hash).subquery()

    sums: list[ColumnElement[Any]] = []
    for window in WINDOWS:
        n, c = users.c[f"n_{window}"], users.c[f"c_{window}"]
        squared = func.least(c, MOST_SUCCESSES) * func.least(c, MOST_SUCCESSES)
        powers = (case((n > 0, 1), else_=0), n, c, n * n, n * c, c * c, squared * squared)
        sums += [func.sum(power).label(f"power{place}_{window}") for place, power in enumerate(powers)]
    named = [users.c[name] if name in names else literal("").label(name) for name in KEYS]
    group = [users.c[name] for name in (*names, "is_user")]
    return select(literal(grain).label("grain"), users.c.is_user, *named, *sums).group_by(*group)


@dataclass(frozen=True)
class _Clusters:
    """Per key and window: the design effect and the number of distinct users (0: no trial has one)."""

    effect: Floats
    users: Floats


def _clusters(found: dict[Key, UserSums], keys: Iterable[Key], share: float, confidence: float) -> _Clusters:
    nothing = UserSums()
    of_keys = [found.get(key, nothing) for key in keys]
    moments = Moments(*np.moveaxis(np.array([sums.moments for sums in of_keys]), -1, 0))
    pool = Moments(*np.moveaxis(found.get(OVERALL, nothing).moments, -1, 0))
    users = np.rint(np.array([sums.users for sums in of_keys]) / share)
    return _Clusters(np.where(users > 0, pooled_design_effect(moments, pool, confidence), 1.0), users)


def sample_share(expected: int) -> float:
    """The share of users to read so that about `MAX_USER_IMPRESSIONS` are read: a whole number of hash steps."""
    if expected <= MAX_USER_IMPRESSIONS:
        return 1.0
    steps = 16**HASH_DIGITS
    return max(1, MAX_USER_IMPRESSIONS * steps // expected) / steps


def evaluation_rows(connection: Connection, shop: Shop, day: date, curve: DelayCurve) -> list[dict[str, Any]]:
    """The day's rows of ``adloom.evaluations``, as of the facts known by ``day``, ordered by window and key."""
    confidence = shop.evaluation.confidence
    oldest_age = max(curve.horizon, *(window for window in WINDOWS if window < max(WINDOWS)))
    counts = _counts(connection, shop, day, oldest_age)
    keys = sorted(counts)
    share = sample_share(counts[OVERALL].impressions[-1])
    ctr_users = _clusters(user_moments(connection, shop, day, share, of_clicks=False), keys, share, confidence)
    cr_users = _clusters(user_moments(connection, shop, day, share, of_clicks=True), keys, share, confidence)

    by_age = np.zeros((len(keys), oldest_age + 1, 2), dtype=np.int64)
    for place, key in enumerate(keys):
        for age, (clicks, conversions, _) in counts[key].cohorts.items():
            by_age[place, age] = clicks, conversions

    rows = []
    for w, window in enumerate(WINDOWS):
        trials = np.array([counts[key].impressions[w] for key in keys])
        successes = np.array([counts[key].clicks[w] for key in keys])
        ctr = ratio(successes, trials, np.nan)
        ctr_low, ctr_high = rate_interval(successes, trials, ctr_users.effect[:, w], confidence)

        youngest = by_age[:, : window if window < max(WINDOWS) else None]
        cohort_clicks, conversions = np.moveaxis(youngest.sum(1), -1, 0)
        known = completeness_of(youngest[..., 0], curve, shop.attribution_window_days)
        cr, cr_low, cr_high = corrected_rate(
            conversions,
            cohort_clicks,
            known.completeness,
            known.variance,
            effect=cr_users.effect[:, w],
            confidence=confidence,
        )
        is_mature = known.completeness >= shop.evaluation.completeness_threshold
        for place, key in enumerate(keys):
            if key != OVERALL and not (trials[place] or cohort_clicks[place]):
                continue
            cohorts = counts[key].cohorts
            values = [cohorts[age][2] for age in cohorts if age < window or window == max(WINDOWS)]
            rows.append(
                {
                    "day": day,
                    "window_days": window,
                    **key._asdict(),
                    "impressions": int(trials[place]),
                    "clicks": int(successes[place]),
                    "users": int(ctr_users.users[place, w]) or None,
                    "ctr": _number(ctr[place]),
                    "ctr_low": _number(ctr_low[place]),
                    "ctr_high": _number(ctr_high[place]),
                    "ctr_interval": _kind(ctr[place], ctr_users.users[place, w] > 0),
                    "cohort_clicks": int(cohort_clicks[place]),
                    "conversions": int(conversions[place]),
                    "cr": _number(cr[place]),
                    "cr_low": _number(cr_low[place]),
                    "cr_high": _number(cr_high[place]),
                    "cr_interval": _kind(cr[place], cr_users.users[place, w] > 0),
                    "conversions_value": sum(values, Decimal(0)),
                    "cost": counts[key].cost[w],
                    "completeness": _number(known.completeness[place]),
                    "is_mature": bool(is_mature[place]),
                }
            )
    return rows


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _kind(rate: float, has_users: bool) -> str | None:
    if np.isnan(rate):
        return None
    return "user_clustered" if has_users else "wilson"
