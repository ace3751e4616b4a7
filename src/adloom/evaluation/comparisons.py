"""What is known about a comparison by the end of a day: its strata, from impressions or, beyond retention, stored.

Everything is recomputed from ``marts.fct_impressions`` as far as it is there. Dates at least ``retention_days`` old
whose impressions are gone are taken from ``adloom.comparison_days``, which holds for each stratum its counts and for
each date the two sums that the clustered variance is made of (`sequences.user_variance`), as the newest look that had
its impressions saw them. A look stores the strata that are about to need it (`STORED_DAYS` around that age) and no
others, so a day costs the same in a comparison's first month and in its third year. The store is keyed by the
comparison's id: a comparison whose arms or metric change is another one and needs another id.

What a store without user ids can and cannot carry: counts, difference and the variance within the carried dates are
exact. The covariance of a user between a carried date and one still readable cannot be computed any more; it is
extrapolated from the average covariance between dates seen together, per product of the dates' weights (0 if
negative). That is exact where users keep coming back as they did, and too wide where they drift away.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    column,
    func,
    select,
    table,
)

from adloom.evaluation import sequences
from adloom.shop import Comparison, Shop
from adloom.warehouse import ledger
from adloom.window import day_window, days_between

FIXED_POINT = 2**30
"""Scores are summed in SQL as integers of this scale: exact, whatever the order of rows. A user's sum of squares stays
within 128 bits for 10⁸ impressions."""

STORED_DAYS = 30
"""A date is stored by the looks of this many days before and after the age at which its impressions may go. A shop that
runs no day for longer than that loses from a verdict what left ``retention_days`` in between."""

_IMPRESSIONS = table(
    "fct_impressions",
    column("impression_id", String),
    column("impression_at", DateTime),
    column("impression_date", Date),
    column("impression_known_date", Date),
    column("is_valid", Boolean),
    column("user_hash", String),
    column("creative_id", String),
    column("segment_id", String),
    column("policy_id", String),
    column("campaign_id", String),
    column("placement", String),
    column("click_date", Date),
    column("click_known_date", Date),
    column("conversion_at", DateTime),
    column("conversion_known_date", Date),
    schema="marts",
)

_GATHERED = Table(
    "comparison_trials",
    MetaData(),
    Column("user_hash", Text, comment="null: trials without a user, together"),
    Column("stratum_date", Date, nullable=False),
    Column("placement", Text, nullable=False),
    Column("arm", Text, nullable=False),
    Column("trials", BigInteger, nullable=False),
    Column("successes", BigInteger, nullable=False),
    prefixes=["temporary"],
)
"""One comparison's trials per user and cell: the impressions are scanned once and read from here twice."""

Stratum = tuple[date, str]


@dataclass(frozen=True)
class Known:
    """A comparison's strata (date × placement of a segment, ascending) as of a day. Arrays have the shape (strata, 2).

    ``users`` counts distinct users of a cell and ``clusters`` these plus trials without a user. ``own`` and ``cross``
    are the clustered variance of each date (`sequences.user_variance`). Dates up to ``carried_to`` come from the store.
    """

    strata: tuple[Stratum, ...]
    trials: NDArray[np.int64]
    successes: NDArray[np.int64]
    users: NDArray[np.int64]
    clusters: NDArray[np.int64]
    own: dict[date, float]
    cross: dict[date, float]
    carried_to: date | None

    @cached_property
    def evidence(self) -> sequences.Evidence:
        variance = sum(self.own.values()) + 2 * sum(self.cross.values())
        return sequences.stratified(self.trials, self.successes, variance, self.clusters)

    def rows(self, shop: Shop, comparison: Comparison, day: date) -> list[dict[str, Any]]:
        """Rows that this look adds to ``adloom.comparison_days``; own and cross of a date stand on each of its rows."""
        horizon = _horizon(shop, comparison, day)
        first, last = (horizon + timedelta(days=days) for days in (-STORED_DAYS, STORED_DAYS))
        if self.carried_to is not None:
            first = max(first, self.carried_to + timedelta(days=1))
        return [
            {
                "comparison": comparison.id,
                "day": day,
                "stratum_date": stratum_date,
                "placement": placement,
                "arm": arm,
                "trials": int(self.trials[row, side]),
                "successes": int(self.successes[row, side]),
                "users": int(self.users[row, side]) or None,
                "moments": json.dumps(
                    {
                        "clusters": int(self.clusters[row, side]),
                        "own": self.own[stratum_date],
                        "cross": self.cross[stratum_date],
                    }
                ),
            }
            for row, (stratum_date, placement) in enumerate(self.strata)
            for side, arm in enumerate(comparison.arms)
            if self.trials[row, side] and first <= stratum_date <= last
        ]


@dataclass(frozen=True)
class _Cell:
    """One arm of one stratum."""

    stratum: Stratum
    side: int
    trials: int
    successes: int
    users: int
    clusters: int
    anonymous: tuple[int, int] = (0, 0)
    own: float = 0.0
    cross: float = 0.0


def read_comparison(connection: Connection, shop: Shop, comparison: Comparison, day: date) -> Known:
    """The comparison from its ``started_on`` as known by the end of ``day``."""
    _gather(connection, shop, comparison, day)
    fresh = _fresh_cells(connection, comparison)
    carried = _carried_cells(connection, shop, comparison, day, fresh)
    carried_to = max((cell.stratum[0] for cell in carried), default=None)
    if carried_to is not None:
        fresh = [cell for cell in fresh if cell.stratum[0] > carried_to]

    strata, (trials, successes, users, clusters) = _arrays([*carried, *fresh])
    own = {cell.stratum[0]: cell.own for cell in carried}
    cross = {cell.stratum[0]: cell.cross for cell in carried}
    fresh_own, fresh_cross = _clustered_variance(connection, comparison, fresh)
    _GATHERED.drop(connection, checkfirst=False)
    weights = sequences.stratum_weights(trials, clusters)
    weight_of: dict[date, float] = {}
    for (stratum_date, _), weight in zip(strata, weights, strict=True):
        weight_of[stratum_date] = weight_of.get(stratum_date, 0.0) + float(weight)
    lost = _lost_covariance(weight_of, cross, fresh_cross)
    own |= fresh_own
    cross |= {when: value + lost * weight_of[when] for when, value in fresh_cross.items()}
    return Known(strata, trials, successes, users, clusters, own, cross, carried_to)


def count_units(
    connection: Connection, shop: Shop, comparison: Comparison, day: date, after: date | None
) -> tuple[int, int, bool]:
    """What was split between the arms: (reference, challenger, are they users).

    A user counts once, in the arm of the first impression, so that a user who keeps an arm is not counted as many
    decisions; impressions without a user count each. ``after``: only impressions of later dates are looked at.
    """
    of_both = _impressions(comparison, day)
    if after is not None:
        of_both = of_both.where(_IMPRESSIONS.c.impression_date > after)
    shown = of_both.add_columns(_IMPRESSIONS.c.impression_at, _IMPRESSIONS.c.impression_id).subquery()
    in_arm = (
        select(
            shown.c.arm,
            shown.c.user_hash,
            func.row_number()
            .over(
                partition_by=shown.c.user_hash,
                # Of two arms first seen at the same instant (one page), an id decides, which knows nothing of arms.
                order_by=(func.min(shown.c.impression_at), func.min(shown.c.impression_id)),
            )
            .label("nth"),
        )
        .where(shown.c.user_hash.is_not(None))
        .group_by(shown.c.user_hash, shown.c.arm)
        .subquery()
    )
    of_users = dict(_pairs(connection, select(in_arm.c.arm, func.count()).where(in_arm.c.nth == 1)))
    of_nobody = dict(_pairs(connection, select(shown.c.arm, func.count()).where(shown.c.user_hash.is_(None))))
    reference, challenger = (of_users.get(arm, 0) + of_nobody.get(arm, 0) for arm in comparison.arms)
    return reference, challenger, bool(of_users)


def _pairs(connection: Connection, query: Select[Any]) -> list[tuple[str, int]]:
    """(arm, count) of a query of these two columns."""
    return [(arm, count) for arm, count in connection.execute(query.group_by(query.selected_columns[0]))]


def _impressions(comparison: Comparison, day: date) -> Select[Any]:
    """Valid impressions of both arms since ``started_on``, known by ``day``: (arm, user_hash)."""
    i = _IMPRESSIONS.c
    arm = i[comparison.dimension]
    chosen = select(arm.label("arm"), i.user_hash).where(
        i.is_valid,
        # Nothing is known before it happens, so the lower bound excludes no row; it lets the engine skip old days.
        i.impression_known_date.between(comparison.started_on, day),
        i.impression_date >= comparison.started_on,
        arm.in_(comparison.arms),
    )
    return chosen if comparison.campaign_id is None else chosen.where(i.campaign_id == comparison.campaign_id)


def _trials(shop: Shop, comparison: Comparison, day: date) -> Select[Any] | None:
    """One row per trial: arm, user_hash, stratum_date, placement, is_success; None where no cohort is mature yet."""
    i = _IMPRESSIONS.c
    of_both = _impressions(comparison, day)
    if comparison.metric == "ctr":
        is_success = func.coalesce(i.click_known_date <= day, False)
        return of_both.add_columns(i.impression_date.label("stratum_date"), _place(), is_success.label("is_success"))

    newest = day - timedelta(days=shop.attribution_window_days)
    if newest < comparison.started_on:
        return None
    dates = list(days_between(comparison.started_on, newest))
    cohorts = _unnested(
        click_date=(dates, Date()),
        converts_before=([_window_end(shop, cohort) for cohort in dates], DateTime()),
    )
    is_success = func.coalesce(and_(i.conversion_known_date <= day, i.conversion_at < cohorts.c.converts_before), False)
    return (
        of_both.add_columns(i.click_date.label("stratum_date"), _place(), is_success.label("is_success"))
        .join_from(_IMPRESSIONS, cohorts, i.click_date == cohorts.c.click_date)
        .where(i.click_known_date <= day)
    )


def _place() -> ColumnElement[str]:
    """The placement, named together with the segment where there are segments.

    A plan has its own shares in every segment: pooled over segments of different CTR, equal arms would look unequal.
    """
    i = _IMPRESSIONS.c
    return case((i.segment_id == "all", i.placement), else_=i.placement + " · " + i.segment_id).label("placement")


def _window_end(shop: Shop, click_date: date) -> datetime:
    """The instant (naive UTC) at which a click cohort's attribution window is over."""
    last = click_date + timedelta(days=shop.attribution_window_days)
    return day_window(last, shop.time_zone).end.replace(tzinfo=None)


def _unnested(**columns: tuple[Sequence[Any], Any]) -> Any:
    """A small relation from bound lists of equal length."""
    parts = [
        func.unnest(bindparam(None, list(values), unique=True), type_=kind).label(name)
        for name, (values, kind) in columns.items()
    ]
    return select(*parts).cte()


def _gather(connection: Connection, shop: Shop, comparison: Comparison, day: date) -> None:
    """Create and fill `_GATHERED` in this connection; who reads it drops it."""
    _GATHERED.create(connection, checkfirst=False)
    found = _trials(shop, comparison, day)
    if found is None:
        return
    trial = found.subquery().c
    keys = (trial.user_hash, trial.stratum_date, trial.placement, trial.arm)
    counted = select(*keys, func.count(), func.count(case((trial.is_success, 1)))).group_by(*keys)
    connection.execute(_GATHERED.insert().from_select(list(_GATHERED.c), counted))


def _fresh_cells(connection: Connection, comparison: Comparison) -> list[_Cell]:
    """Cells counted from impressions, ascending."""
    g = _GATHERED.c
    keys = (g.stratum_date, g.placement, g.arm)
    is_anonymous = g.user_hash.is_(None)
    counted = (
        select(
            *keys,
            func.sum(g.trials).label("trials"),
            func.sum(g.successes).label("successes"),
            func.count(g.user_hash).label("users"),
            func.coalesce(func.sum(case((is_anonymous, g.trials))), 0).label("anonymous_trials"),
            func.coalesce(func.sum(case((is_anonymous, g.successes))), 0).label("anonymous_successes"),
        )
        .group_by(*keys)
        .order_by(*keys)
    )
    return [
        _Cell(
            stratum=(row.stratum_date, row.placement),
            side=comparison.arms.index(row.arm),
            trials=int(row.trials),
            successes=int(row.successes),
            users=row.users,
            clusters=row.users + int(row.anonymous_trials),
            anonymous=(int(row.anonymous_trials), int(row.anonymous_successes)),
        )
        for row in connection.execute(counted)
    ]


def _carried_cells(
    connection: Connection, shop: Shop, comparison: Comparison, day: date, fresh: Iterable[_Cell]
) -> list[_Cell]:
    """Stored cells of dates beyond retention, up to the newest of them whose impressions are gone, ascending."""
    store = ledger.comparison_days
    of_arms = (
        select(
            store,
            func.row_number()
            .over(partition_by=(store.c.stratum_date, store.c.placement, store.c.arm), order_by=store.c.day.desc())
            .label("age_rank"),
        )
        .where(
            store.c.comparison == comparison.id,
            store.c.day <= day,
            store.c.stratum_date.between(comparison.started_on, _horizon(shop, comparison, day)),
            store.c.arm.in_(comparison.arms),
        )
        .subquery()
    )
    query = (
        select(of_arms)
        .where(of_arms.c.age_rank == 1)
        .order_by(of_arms.c.stratum_date, of_arms.c.placement, of_arms.c.arm)
    )
    cells = []
    for row in connection.execute(query):
        moments = json.loads(row.moments)
        cells.append(
            _Cell(
                stratum=(row.stratum_date, row.placement),
                side=comparison.arms.index(row.arm),
                trials=row.trials,
                successes=row.successes,
                users=row.users or 0,
                **moments,
            )
        )
    then, now = _trials_by_date(cells), _trials_by_date(fresh)
    gone = max((when for when, trials in then.items() if trials > now.get(when, 0)), default=date.min)
    return [cell for cell in cells if cell.stratum[0] <= gone]


def _horizon(shop: Shop, comparison: Comparison, day: date) -> date:
    """The last stratum date whose impressions may be gone by the look of ``day``."""
    # Clicks of a day belong to impressions of up to lookback_days before.
    reach = shop.lookback_days if comparison.metric == "cr" else 0
    return day - timedelta(days=shop.evaluation.retention_days - reach)


def _trials_by_date(cells: Iterable[_Cell]) -> dict[date, int]:
    counted: dict[date, int] = {}
    for cell in cells:
        counted[cell.stratum[0]] = counted.get(cell.stratum[0], 0) + cell.trials
    return counted


def _arrays(cells: Iterable[_Cell]) -> tuple[tuple[Stratum, ...], NDArray[np.int64]]:
    """Strata, and (trials, successes, users, clusters) of shape (4, strata, 2); an arm that is absent has zeros."""
    listed = list(cells)
    strata = tuple(sorted({cell.stratum for cell in listed}))
    position = {stratum: row for row, stratum in enumerate(strata)}
    counts = np.zeros((4, len(strata), 2), dtype=np.int64)
    for cell in listed:
        counts[:, position[cell.stratum], cell.side] = cell.trials, cell.successes, cell.users, cell.clusters
    return strata, counts


def _clustered_variance(
    connection: Connection, comparison: Comparison, fresh: Sequence[_Cell]
) -> tuple[dict[date, float], dict[date, float]]:
    """(own, cross) of each date of the fresh cells: users' scores are summed where they are, in the warehouse."""
    strata, (trials, successes, _, clusters) = _arrays(fresh)
    success, miss = sequences.cell_scores(trials, successes, clusters)
    position = {stratum: row for row, stratum in enumerate(strata)}
    own = {stratum_date: 0.0 for stratum_date, _ in strata}
    cross = dict(own)
    for cell in fresh:
        row = position[cell.stratum]
        scores = (success[row, cell.side], miss[row, cell.side])
        own[cell.stratum[0]] += float(sequences.independent_variance(*cell.anonymous, scores))
    if not any(cell.users for cell in fresh):
        return own, cross

    g = _GATHERED.c
    at = [(position[cell.stratum], cell.side) for cell in fresh]
    cells = _unnested(
        stratum_date=([cell.stratum[0] for cell in fresh], Date()),
        placement=([cell.stratum[1] for cell in fresh], String()),
        arm=([comparison.arms[cell.side] for cell in fresh], String()),
        success=([round(float(success[where]) * FIXED_POINT) for where in at], None),
        miss=([round(float(miss[where]) * FIXED_POINT) for where in at], None),
    ).c
    score = g.successes * cells.success + (g.trials - g.successes) * cells.miss
    scored = (
        select(g.user_hash, g.stratum_date, func.sum(score).label("score"))
        .where(
            g.user_hash.is_not(None),
            g.stratum_date == cells.stratum_date,
            g.placement == cells.placement,
            g.arm == cells.arm,
        )
        .group_by(g.user_hash, g.stratum_date)
        .subquery()
        .c
    )
    earlier = func.sum(scored.score).over(partition_by=scored.user_hash, order_by=scored.stratum_date, rows=(None, -1))
    paths = select(scored.stratum_date, scored.score, func.coalesce(earlier, 0).label("earlier")).subquery().c
    sums = select(
        paths.stratum_date, func.sum(paths.score * paths.score), func.sum(paths.score * paths.earlier)
    ).group_by(paths.stratum_date)
    for stratum_date, squared, crossed in connection.execute(sums):
        own[stratum_date] += int(squared) / FIXED_POINT**2
        cross[stratum_date] += int(crossed) / FIXED_POINT**2
    return own, cross


def _lost_covariance(weight_of: dict[date, float], carried: dict[date, float], fresh: dict[date, float]) -> float:
    """Covariance of one unit of weight on a fresh date with all carried dates, which can no longer be read."""
    pairs = 0.0
    for part in (carried, fresh):
        weights = np.array([weight_of[when] for when in part])
        pairs += float(weights.sum() ** 2 - (weights**2).sum()) / 2
    if not carried or not pairs:
        return 0.0
    per_pair = (sum(carried.values()) + sum(fresh.values())) / pairs
    return max(per_pair, 0.0) * sum(weight_of[when] for when in carried)
