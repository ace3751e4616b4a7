"""The counts a strategy may act on, read once and cut as of any of the last few days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from adloom.strategy.posterior import DEFAULT_CTR, Floats, shrunk_rate

EVIDENCE_DAYS = 90
"""Older impressions are forgotten: audiences and creatives change."""
ACTIVE_DAYS = 28
"""A creative not shown for so long in a placement has left it."""
SETTLED_DAYS = 7
"""Clicks of impressions this old have all arrived, as far as the shop's click delay is measured on them."""
SETTLED_CLICKS = 20
"""With fewer settled clicks the delay is unknown; days are then compared within themselves only."""

Integers = NDArray[np.int64]

_COUNTS = text(
    """
    select segment_id, placement, creative_id, campaign_id, policy_id, impression_date,
           greatest(known_date, :recent) as known_date, sum(impressions), sum(clicks)
    from marts.fct_creative_daily
    where known_date <= :day and known_date > :since and impression_date > :since
    group by all
    having sum(impressions) + sum(clicks) > 0
    order by all
    """
)
_DELAYS = text(
    """
    select impression_date, known_date, sum(clicks)
    from marts.fct_creative_daily
    where known_date <= :day and known_date > :since and impression_date > :since and clicks > 0
    group by all
    order by all
    """
)


@dataclass(frozen=True)
class Cell:
    """One segment and placement as of a day; creatives sorted by id."""

    segment_id: str
    placement: str
    creatives: tuple[str, ...]
    families: tuple[str, ...]
    impressions: Floats
    """(creatives, strata); a stratum is an impression date under one policy."""
    clicks: Floats
    parent: float
    """CTR of the cell, leaning on its segment's, which leans on the shop's."""

    @property
    def key(self) -> tuple[str, str]:
        return self.segment_id, self.placement

    @property
    def family_numbers(self) -> NDArray[np.intp]:
        return np.unique(np.asarray(self.families), return_inverse=True)[1]


class Evidence:
    """Valid impressions and clicks known by ``day``, answering as of ``day`` and up to ``back`` days before it.

    Only counts of impressions and clicks are read. Conversions are not: a CR is acted on by nobody before its cohort is
    mature, and shares follow the CTR.
    """

    def __init__(self, connection: Connection, day: date, back: int) -> None:
        since = day - timedelta(days=back + EVIDENCE_DAYS)
        bound = {"day": day, "since": since}
        rows = connection.execute(_COUNTS, bound | {"recent": day - timedelta(days=back)}).all()
        columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if rows else [()] * 9
        self.segments, self._segment = _codes(columns[0])
        self.placements, self._placement = _codes(columns[1])
        self.creatives, self._creative = _codes(columns[2])
        self.campaigns, self._campaign = _codes(columns[3])
        self._policy = _codes(columns[4])[1]
        self._shown_on, self._known_on = _ordinals(columns[5]), _ordinals(columns[6])
        self._impressions = np.array(columns[7], dtype=np.float64)
        self._clicks = np.array(columns[8], dtype=np.float64)
        self._cells = _rows_by(self._segment, self._placement)
        self._placed = {placement: rows for (placement,), rows in _rows_by(self._placement).items()}
        delays = connection.execute(_DELAYS, bound).all()
        self._delays = np.array(
            [(shown.toordinal(), known.toordinal(), clicks) for shown, known, clicks in delays], dtype=np.int64
        ).reshape(-1, 3)

    def click_delay(self, day: date, completeness: float) -> int:
        """Days after which ``completeness`` of a day's clicks are known, measured on settled days as of ``day``."""
        shown, known, clicks = self._delays.T
        now = day.toordinal()
        settled = (known <= now) & (shown <= now - SETTLED_DAYS) & (shown > now - EVIDENCE_DAYS)
        total = clicks[settled].sum()
        if total < SETTLED_CLICKS:
            return 0
        delays = (known - shown)[settled]
        return next(
            delay
            for delay in range(int(delays.max()) + 1)
            if clicks[settled][delays <= delay].sum() >= completeness * total
        )

    def active_creatives(self, day: date) -> frozenset[str]:
        """Creatives shown somewhere during the last `ACTIVE_DAYS`, approved or not."""
        return frozenset(self.creatives[number] for number in np.unique(self._creative[self._active(day)]))

    def _known(self, day: date) -> NDArray[np.bool_]:
        now = day.toordinal()
        return (self._known_on <= now) & (self._shown_on <= now) & (self._shown_on > now - EVIDENCE_DAYS)

    def _active(self, day: date) -> NDArray[np.bool_]:
        return self._known(day) & (self._shown_on > day.toordinal() - ACTIVE_DAYS) & (self._impressions > 0)

    def cells(
        self,
        day: date,
        approved: frozenset[str],
        completeness: float = 0.9,
        blocked: frozenset[tuple[str, str]] = frozenset(),
        fits: Callable[[str, str], bool] = lambda segment_id, creative_id: True,
    ) -> list[Cell]:
        """Every segment and placement with traffic as of ``day``, with the approved creatives of the placement.

        A creative of the placement that a segment has not seen yet is there with zeros, if it ``fits`` the segment.
        Days whose clicks are not yet known to at least ``completeness`` are left out of the counts. ``blocked``
        (placement, creative) are left out.
        """
        active = self._active(day)
        mature = self._known(day) & (self._shown_on <= day.toordinal() - self.click_delay(day, completeness))
        overall = shrunk_rate(self._clicks[mature].sum(), self._impressions[mature].sum(), DEFAULT_CTR)
        segments = self._segment[mature]
        segment_rates = shrunk_rate(
            np.bincount(segments, self._clicks[mature], len(self.segments)).astype(np.float64),
            np.bincount(segments, self._impressions[mature], len(self.segments)).astype(np.float64),
            overall,
        )
        allowed = np.array([creative in approved for creative in self.creatives], dtype=bool)
        members = {
            placement: self._members(
                rows[active[rows]],
                allowed
                & ~np.array([(self.placements[placement], one) in blocked for one in self.creatives], dtype=bool),
            )
            for placement, rows in self._placed.items()
        }
        found = []
        for (segment, placement), rows in self._cells.items():
            creatives, families = members[placement]
            kept = [n for n, one in enumerate(creatives) if fits(self.segments[segment], self.creatives[one])]
            creatives, families = creatives[kept], tuple(families[number] for number in kept)
            if not creatives.size or not active[rows].any():
                continue
            counted = rows[mature[rows]]
            parent = shrunk_rate(
                self._clicks[counted].sum(), self._impressions[counted].sum(), float(segment_rates[segment])
            )
            impressions, clicks = self._table(counted, creatives)
            found.append(
                Cell(
                    self.segments[segment],
                    self.placements[placement],
                    tuple(self.creatives[creative] for creative in creatives),
                    families,
                    impressions,
                    clicks,
                    float(parent),
                )
            )
        return found

    def _members(self, rows: NDArray[np.intp], allowed: NDArray[np.bool_]) -> tuple[Integers, tuple[str, ...]]:
        """Creatives shown in a placement's ``rows`` and the family of each.

        The family is the campaign under which the creative was shown most there; ties go to the first by name.
        """
        creatives, number = np.unique(self._creative[rows], return_inverse=True)
        shown = np.zeros((len(creatives), len(self.campaigns)))
        np.add.at(shown, (number, self._campaign[rows]), self._impressions[rows])
        kept = allowed[creatives]
        return creatives[kept], tuple(self.campaigns[campaign] for campaign in shown[kept].argmax(-1))

    def _table(self, rows: NDArray[np.intp], members: Integers) -> tuple[Floats, Floats]:
        """Impressions and clicks of the members in ``rows``, by creative and stratum."""
        rows = rows[np.isin(self._creative[rows], members)]
        policies = int(self._policy.max(initial=0)) + 1
        strata, stratum = np.unique(self._shown_on[rows] * policies + self._policy[rows], return_inverse=True)
        shape = (len(members), max(len(strata), 1))
        place = (np.searchsorted(members, self._creative[rows]), stratum)
        impressions, clicks = np.zeros(shape), np.zeros(shape)
        np.add.at(impressions, place, self._impressions[rows])
        np.add.at(clicks, place, self._clicks[rows])
        return impressions, clicks


def _rows_by(*keys: Integers) -> dict[tuple[int, ...], NDArray[np.intp]]:
    """Row numbers of every combination of keys, combinations ascending."""
    if not keys[0].size:
        return {}
    order = np.lexsort(keys[::-1])
    ordered = np.stack(keys)[:, order]
    starts = np.flatnonzero(np.concatenate([[True], (ordered[:, 1:] != ordered[:, :-1]).any(0)]))
    return {
        tuple(ordered[:, start].tolist()): np.sort(rows)
        for start, rows in zip(starts, np.split(order, starts[1:]), strict=True)
    }


def _codes(values: tuple[Any, ...]) -> tuple[tuple[str, ...], Integers]:
    """Sorted distinct values and, for each value, its number."""
    names = tuple(sorted(set(values)))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.array([numbers[value] for value in values], dtype=np.int64)


def _ordinals(days: tuple[date, ...]) -> Integers:
    return np.array([day.toordinal() for day in days], dtype=np.int64)
