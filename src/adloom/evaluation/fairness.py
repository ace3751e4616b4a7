"""Who was shown a creative, against who could have been: shares of gender and age groups, and which creatives to stop.

**Eligible and delivered.** Eligible for a creative are the impressions of its placement on the days it was shown there,
whatever was shown in them, in the segments that had been shown it by then; delivered are those in which it was. A
creative made for one segment is not held against the others; one whose shares the strategy learns by segment is. Both
are counted in impressions: a group that comes more often is more often among the users who saw any creative, without
any skew. A day's eligible share is weighed by the creative's impressions of that day, so a creative that ran on
weekends is held against weekends.

**Difference.** With the creative as one arm and the rest of the placement as the other, delivered minus eligible share
is the score of `sequences` divided by the creative's impressions, so its interval is a confidence sequence, clustered
by user: it may be looked at every day. α is divided by the number of groups that are looked at.

**Block.** A creative is blocked in a placement from the day on which its difference is surely (by the near end of the
interval) beyond ``limits.audience_skew``, until that evidence is older than `AUDIT_DAYS`. The day is found by following
the evidence from known_date to known_date, so the blocks of a day are a function of the facts known by it: days may be
run in any order, and a plan can ask which creatives were blocked on the days before. What is left is judged again
without the blocked one.

Groups come from the users table as last known by the day. It is read here and by nothing that chooses shares: evidence,
posteriors and allocation see no gender and no age, only which creatives are left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    MetaData,
    Table,
    Text,
    column,
    func,
    select,
    table,
)

from adloom.evaluation import sequences
from adloom.evaluation.intervals import Moments, design_effect, rate_interval, ratio
from adloom.shop import Shop
from adloom.warehouse import ledger

AUDIT_DAYS = 90
"""Older impressions are forgotten, as they are by the strategy."""
ACTIVE_DAYS = 28
"""A creative not shown for so long is in no plan, and is not audited."""
TRAITS = ("gender", "age_band")
AUDIENCE_SKEW = "audience_skew"

Shown = tuple[str, date, str, str, int]
"""(user, known_date, segment, creative, impressions)"""
Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_MARTS = MetaData(schema="marts")
_IMPRESSIONS = Table(
    "fct_impressions",
    _MARTS,
    Column("impression_known_date", Date),
    Column("is_valid", Boolean),
    Column("user_hash", Text),
    Column("segment_id", Text),
    Column("creative_id", Text),
    Column("placement", Text),
)
_USERS = Table(
    "users",
    MetaData(schema="raw"),
    Column("user_hash", Text),
    Column("gender", Text),
    Column("age_band", Text),
    Column("known_date", Date),
    Column("source_file", Text),
    Column("source_line", BigInteger),
)


def evaluate_fairness(connection: Connection, shop: Shop, day: date) -> None:
    """Replace the day's rows of ``audience_shares`` and ``allocation_blocks``; none in a shop without users' traits."""
    shares: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    traits = _traits(connection, day)
    for placement in _placements(connection, day, traits) if traits else ():
        found, stopped = audit(placement, shop, day)
        shares += found
        blocks += stopped
    ledger.replace_rows(connection, ledger.audience_shares, {"day": day}, shares)
    ledger.replace_rows(connection, ledger.allocation_blocks, {"day": day}, blocks)


@dataclass(frozen=True)
class Placement:
    """Impressions of one placement, a row per user, known_date and segment, sorted."""

    name: str
    days: tuple[date, ...]
    day: Codes
    """number of the row's day"""
    user: Codes
    """number of the row's user, ascending"""
    segment: Codes
    total: Floats
    """impressions of the row, of all creatives"""
    groups: dict[str, tuple[tuple[str, ...], Codes]]
    """trait → (its values, each row's value; -1: unknown)"""
    creatives: dict[str, tuple[Codes, Floats]]
    """creative → (rows in which its users saw it, impressions)"""
    active: frozenset[str]
    """creatives shown lately"""


@dataclass(frozen=True)
class _Group:
    """One creative against one group: what is known of each day, and as of the last one."""

    trait: str
    value: str
    trials: Floats
    """(days, 2): impressions of the other creatives, and of this one"""
    successes: Floats
    """those of the group"""
    clusters: Floats
    users: Codes
    """(days,): users who had seen the creative by then"""
    eligible_users: int
    is_enough: NDArray[np.bool_]
    """(days,): were there enough users by then to say anything?"""
    variance: Floats
    """(days,): clustered variance of the score as of each day"""
    delivered_low: float
    delivered_high: float

    def path(self, alpha: float) -> tuple[Floats, Floats, Floats, Floats]:
        """As of each day: (delivered share, eligible share, low, high of the difference); nan where there is none."""
        weights = sequences.stratum_weights(self.trials, self.clusters)
        counts = weights > 0
        rates = ratio(self.successes, self.trials, 0.0)
        total = self.trials.sum(-1)
        pooled = ratio(self.successes.sum(-1), total, 0.0)
        if_equal = weights * pooled * (1 - pooled) * ratio(total, total - 1, 0.0)
        shown = np.cumsum(np.where(counts, self.trials[:, 1], 0.0))
        score = np.cumsum(weights * (rates[:, 1] - rates[:, 0]))
        eligible = np.cumsum(np.where(counts, self.trials[:, 1] * pooled, 0.0))
        half = sequences.radius(np.maximum(np.cumsum(if_equal), self.variance), alpha)
        with np.errstate(divide="ignore", invalid="ignore"):
            difference, half = score / shown, half / shown
            share = eligible / shown
        low, high = np.clip(difference - half, -1, 1), np.clip(difference + half, -1, 1)
        return share + difference, share, low, high


def audit(placement: Placement, shop: Shop, day: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows of ``audience_shares``, rows of ``allocation_blocks``) of one placement."""
    shares, found = _look(placement, shop, day)
    blocks: list[dict[str, Any]] = []
    while found:
        # What goes to more women leaves the men to the others. So the first is taken out, and the rest is judged again
        # among themselves: one that only mirrored it stays, and the last one of a placement always does.
        first = min(found, key=_clearest)
        # Before the earlier block was known, this one was no reason for another.
        first["blocked_since"] = max([first["blocked_since"], *(row["blocked_since"] for row in blocks)])
        blocks.append(first)
        placement = _without(placement, first["creative_id"])
        _, found = _look(placement, shop, day)
    return shares, sorted(blocks, key=lambda row: row["creative_id"])


def _look(placement: Placement, shop: Shop, day: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Shares of every creative and group, and for each creative beyond the limit the clearest reason to block it."""
    shares: list[dict[str, Any]] = []
    blocks: list[dict[str, Any]] = []
    for creative_id in sorted(placement.active):
        judged = list(_groups(placement, creative_id, shop.min_segment_users, shop.evaluation.confidence))
        tested = [one for one in judged if isinstance(one, _Group)]
        alpha = (1 - shop.evaluation.confidence) / max(len(tested), 1)
        about = _Audit(shop, day, placement.name, placement.days, creative_id, alpha)
        shares += [_share_row(about, one) for one in judged]
        found = [row for one in tested if (row := _block_row(about, one))]
        blocks += [min(found, key=_clearest)] if found else []
    return shares, blocks


def _clearest(row: dict[str, Any]) -> tuple[Any, ...]:
    """The earliest, then the surest, then of two sides of one coin the group that gets more."""
    return row["blocked_since"], -_surely(row), -row["difference_low"], row["creative_id"], row["value"]


def _without(placement: Placement, creative_id: str) -> Placement:
    rows, counts = placement.creatives[creative_id]
    total = placement.total.copy()
    total[rows] -= counts
    rest = {name: found for name, found in placement.creatives.items() if name != creative_id}
    return replace(placement, total=total, creatives=rest, active=placement.active - {creative_id})


def _surely(row: dict[str, Any]) -> float:
    return round(max(row["difference_low"], -row["difference_high"]), 9)


@dataclass(frozen=True)
class _TooFew:
    """A group of which nothing is said."""

    trait: str
    value: str


def _groups(placement: Placement, creative_id: str, least: int, confidence: float) -> Iterator[_Group | _TooFew]:
    """Each trait's groups; `_TooFew` where creative, group or rest has fewer than ``least`` users of known trait."""
    rows, counts = placement.creatives[creative_id]
    own = np.zeros_like(placement.total)
    own[rows] = counts
    days = len(placement.days)
    shown_there = np.full(int(placement.segment.max()) + 1, days)
    np.minimum.at(shown_there, placement.segment[rows], placement.day[rows])
    # Days on which it was shown, in the segments it had reached.
    met = (np.bincount(placement.day, own, days) > 0)[placement.day] & (placement.day >= shown_there[placement.segment])
    for trait, (values, value_of) in placement.groups.items():
        known = (value_of >= 0) & (placement.total > 0) & met
        user, day_of, group_of = placement.user[known], placement.day[known], value_of[known]
        mine = own[known]
        others = placement.total[known] - mine
        trials = _by_day(day_of, days, others, mine)
        clusters = _by_day(day_of, days, others > 0, mine > 0)
        first_seen = np.full(int(placement.user.max()) + 1, days)
        np.minimum.at(first_seen, user[mine > 0], day_of[mine > 0])
        users = np.cumsum(np.bincount(first_seen[first_seen < days], minlength=days))
        newly = np.concatenate([[True], user[1:] != user[:-1]]) if user.size else np.array([], dtype=bool)
        for code, value in enumerate(values):
            is_in = group_of == code
            inside, outside = (np.cumsum(np.bincount(day_of[newly & side], minlength=days)) for side in (is_in, ~is_in))
            enough = np.minimum(np.minimum(inside, outside), users) >= least
            if not enough[-1]:
                yield _TooFew(trait, value)
                continue
            successes = _by_day(day_of, days, others * is_in, mine * is_in)
            success, miss = sequences.cell_scores(trials, successes, clusters)
            score = others * np.where(is_in, success[day_of, 0], miss[day_of, 0]) + mine * np.where(
                is_in, success[day_of, 1], miss[day_of, 1]
            )
            low, high = _delivered_interval(user, mine, mine * is_in, confidence)
            yield _Group(
                trait=trait,
                value=value,
                trials=trials,
                successes=successes,
                clusters=clusters,
                users=users,
                eligible_users=int(inside[-1] + outside[-1]),
                is_enough=enough,
                variance=_variance_path(user, day_of, days, score),
                delivered_low=low,
                delivered_high=high,
            )


def _by_day(day_of: Codes, days: int, first: Any, second: Any) -> Floats:
    return np.stack([np.bincount(day_of, one, days) for one in (first, second)], axis=-1)


def _variance_path(user: Codes, day_of: Codes, days: int, score: Floats) -> Floats:
    """Σ over users of (their score so far)², as of each day; rows are sorted by user and day."""
    running = np.cumsum(score)
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    before_user = np.repeat(running[starts] - score[starts], np.diff([*starts, len(user)]))
    before = running - before_user - score
    return np.maximum(np.cumsum(np.bincount(day_of, score**2 + 2 * score * before, days)), 0.0)


def _delivered_interval(user: Codes, shown: Floats, of_group: Floats, confidence: float) -> tuple[float, float]:
    """Wilson's interval of the delivered share, widened because a user's impressions are all of one group."""
    trials, successes = np.bincount(user, shown), np.bincount(user, of_group)
    moments = Moments.of(trials, successes)
    effect = design_effect(moments, confidence)
    low, high = rate_interval(successes.sum(), trials.sum(), effect, confidence)
    return float(low), float(high)


_FIGURES = (
    *("delivered_share", "delivered_low", "delivered_high", "eligible_share"),
    *("difference", "difference_low", "difference_high"),
)

# --- rows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Audit:
    """One creative of a placement, as of a day."""

    shop: Shop
    day: date
    placement: str
    days: tuple[date, ...]
    creative_id: str
    alpha: float

    @property
    def key(self) -> dict[str, Any]:
        return {"day": self.day, "placement": self.placement, "creative_id": self.creative_id}


def _share_row(about: _Audit, one: _Group | _TooFew) -> dict[str, Any]:
    row: dict[str, Any] = (
        about.key
        | {
            "trait": one.trait,
            "value": one.value,
            "since": about.days[0],
            "users": 0,
            "impressions": 0,
            "eligible_users": 0,
            "sentence": _too_few(about.shop),
        }
        | dict.fromkeys(_FIGURES)
    )
    if isinstance(one, _TooFew):
        return row
    figures = tuple(float(path[-1]) for path in one.path(about.alpha))
    delivered, eligible, low, high = figures
    row |= {
        "users": int(one.users[-1]),
        "impressions": int(one.trials[:, 1].sum()),
        "eligible_users": one.eligible_users,
    }
    if not np.isfinite(delivered):
        return row
    return row | {
        "delivered_share": delivered,
        "delivered_low": one.delivered_low,
        "delivered_high": one.delivered_high,
        "eligible_share": eligible,
        "difference": delivered - eligible,
        "difference_low": low,
        "difference_high": high,
        "sentence": _sentence(about, one, figures, len(about.days) - 1),
    }


def _block_row(about: _Audit, one: _Group) -> dict[str, Any] | None:
    """The block that this group is the reason for, with the figures of the first day that showed it."""
    shop, most = about.shop, about.shop.limits.audience_skew
    if most is None:
        return None
    path = one.path(about.alpha)
    surely = np.nan_to_num(np.maximum(path[2], -path[3]), nan=-1.0)
    crossed = np.flatnonzero((surely > most) & one.is_enough)
    if not crossed.size:
        return None
    first = int(crossed[0])
    figures = tuple(float(values[first]) for values in path)
    since = about.days[first]
    return about.key | {
        "reason": AUDIENCE_SKEW,
        "blocked_since": since,
        "trait": one.trait,
        "value": one.value,
        "users": _rounded(int(one.users[first]), shop),
        "impressions": int(one.trials[: first + 1, 1].sum()),
        "delivered_share": figures[0],
        "eligible_share": figures[1],
        "difference_low": figures[2],
        "difference_high": figures[3],
        "most_allowed": most,
        "sentence": _sentence(about, one, figures, first) + _verdict(shop, most, since),
    }


def _rounded(users: int, shop: Shop) -> int:
    """Down to a multiple, as every published count of persons."""
    return users - users % shop.portraits.min_moved_users


def _too_few(shop: Shop) -> str:
    least = shop.min_segment_users
    if shop.language == "zh":
        return f"数据不足：该创意、该人群与其余人群各需至少 {least} 名已知属性的用户"
    return f"not enough data: creative, group and the others need at least {least} users of known trait each"


_TRAITS_ZH = {"gender": "性别", "age_band": "年龄段"}
_TRAITS_EN = {"gender": "gender", "age_band": "age band"}


def _sentence(about: _Audit, one: _Group, figures: tuple[float, ...], at: int) -> str:
    """Both shares, their difference with its interval, and the counts behind them, as of the day number ``at``."""
    delivered, eligible, low, high = figures
    users = _rounded(int(one.users[at]), about.shop)
    shown = int(one.trials[: at + 1, 1].sum())
    more, bounds = 100 * (delivered - eligible), f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    if about.shop.language == "zh":
        return (
            f"创意 {about.creative_id}（{about.placement}）：{_TRAITS_ZH[one.trait]} {one.value} "
            f"占其展示的 {delivered:.0%}，占可触达展示的 {eligible:.0%}，"
            f"相差 {more:+.1f} 个百分点 {bounds}（{users:,}+ 名用户，{shown:,} 次展示）"
        )
    return (
        f"creative {about.creative_id} ({about.placement}): {_TRAITS_EN[one.trait]} {one.value} is {delivered:.0%} of "
        f"its impressions and {eligible:.0%} of those it could have had, {more:+.1f} points {bounds} "
        f"({users:,}+ users, {shown:,} impressions)"
    )


def _verdict(shop: Shop, most: float, since: date) -> str:
    if shop.language == "zh":
        return f"；确定超出店铺上限 {100 * most:.0f} 个百分点，自 {since} 的下一份计划起停投"
    return f"; surely beyond the shop's limit of {100 * most:.0f} points: out of the plans made from {since} on"


# --- reading -------------------------------------------------------------------------------------------------------


def _traits(connection: Connection, day: date) -> dict[str, tuple[str | None, str | None]]:
    """user_hash → (gender, age_band) as last known by ``day``; empty where the shop knows neither."""
    tables = table("tables", column("table_schema"), column("table_name"), schema="information_schema")
    here = select(func.count()).where(tables.c.table_schema == "raw", tables.c.table_name == "users")
    if not connection.scalar(here):
        return {}
    u = _USERS.c
    newest = func.row_number().over(
        partition_by=u.user_hash, order_by=(u.known_date.desc(), u.source_file.desc(), u.source_line.desc())
    )
    latest = (
        select(u.user_hash, u.gender, u.age_band, newest.label("age")).where(u.known_date <= day).subquery("latest")
    )
    query = select(latest.c.user_hash, latest.c.gender, latest.c.age_band).where(
        latest.c.age == 1, latest.c.gender.is_not(None) | latest.c.age_band.is_not(None)
    )
    return {user: (_value(gender), _value(age_band)) for user, gender, age_band in connection.execute(query)}


def _value(text: str | None) -> str | None:
    return (text or "").strip() or None


def _placements(
    connection: Connection, day: date, traits: dict[str, tuple[str | None, str | None]]
) -> Iterator[Placement]:
    """Every placement with users, ascending."""
    i = _IMPRESSIONS.c
    keys = (i.placement, i.user_hash, i.impression_known_date, i.segment_id, i.creative_id)
    query = (
        select(*keys, func.count())
        .where(
            i.is_valid,
            i.user_hash.is_not(None),
            i.impression_known_date.between(day - timedelta(days=AUDIT_DAYS - 1), day),
        )
        .group_by(*keys)
        .order_by(*keys)
    )
    rows: list[Shown] = []
    placement: str | None = None
    for name, *rest in connection.execute(query):
        if name != placement and rows:
            yield _placement(str(placement), rows, traits, day)
            rows = []
        placement = name
        rows.append((rest[0], rest[1], rest[2], rest[3], rest[4]))
    if rows:
        yield _placement(str(placement), rows, traits, day)


def _placement(
    name: str,
    found: Sequence[Shown],
    traits: dict[str, tuple[str | None, str | None]],
    day: date,
) -> Placement:
    """From what was shown, sorted, to arrays."""
    days = tuple(sorted({row[1] for row in found}))
    number = {when: place for place, when in enumerate(days)}
    users: list[str] = []
    row_user: list[int] = []
    row_day: list[int] = []
    row_segment: list[int] = []
    segments: dict[str, int] = {}
    total: list[float] = []
    seen: dict[str, tuple[list[int], list[float]]] = defaultdict(lambda: ([], []))
    active = set()
    last: tuple[str, date, str] | None = None
    for user, when, segment_id, creative_id, count in found:
        if not users or users[-1] != user:
            users.append(user)
        if last != (user, when, segment_id):
            last = (user, when, segment_id)
            row_segment.append(segments.setdefault(segment_id, len(segments)))
            row_user.append(len(users) - 1)
            row_day.append(number[when])
            total.append(0.0)
        total[-1] += count
        rows, counts = seen[creative_id]
        rows.append(len(total) - 1)
        counts.append(float(count))
        if when > day - timedelta(days=ACTIVE_DAYS):
            active.add(creative_id)
    user_of = np.array(row_user, dtype=np.int64)
    groups = {}
    for place, trait in enumerate(TRAITS):
        told = [traits.get(user, (None, None))[place] for user in users]
        values = tuple(sorted({value for value in told if value is not None}))
        codes = {value: code for code, value in enumerate(values)}
        of_user = np.array([-1 if value is None else codes[value] for value in told], dtype=np.int64)
        groups[trait] = (values, of_user[user_of])
    return Placement(
        name=name,
        days=days,
        day=np.array(row_day, dtype=np.int64),
        user=user_of,
        segment=np.array(row_segment, dtype=np.int64),
        total=np.array(total),
        groups=groups,
        creatives={one: (np.array(rows), np.array(counts)) for one, (rows, counts) in seen.items()},
        active=frozenset(active),
    )
