"""How a copy that was never shown is expected to be clicked, from how similar copies were clicked.

A copy's clicks are compared with those an average creative got in the same segments, placements and days: a good slot
or a great day says nothing about words. The log ratio is Peto's, observed less expected clicks over their variance
(Yusuf et al. 1985): the copy's own impressions are among those of the slot, so where it had nearly all of them little
is known, and nothing where it had all. The log ratios of copies of one scenario and language are taken as a Gaussian
process over texts (Rasmussen and Williams 2006, section 2.2): two copies are correlated as far as their texts share
pieces. A new copy's value is the probability that it is clicked more often than its scenario's mean. Without measured
copies, or far from all of them, that is one half for every candidate, and the rest of the score decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sqlalchemy import Connection, select, text

from adloom.copywriting.ranking import pieces
from adloom.creative import Brief, Copy, Language, Scenario, _Row
from adloom.strategy.posterior import USUAL_SPREAD
from adloom.warehouse import ledger

WINDOW_DAYS = 28
MOST = 300
"""Copies of a scenario and language that are looked at, the most shown: the cube of it is paid once a shard."""
UNEXPLAINED = 0.2
"""Share of the CTRs' variance that no text explains (picture, audience, day): even the same words say no more."""


PRIOR_CLICKS = 5
"""With so many clicks that can be compared a family's own mean is believed by half."""

_SHOWN = text(
    """
    with cells as (
        select creative_id, segment_id, placement, impression_date, sum(impressions) as impressions,
            sum(clicks) as clicks
        from marts.fct_creative_daily
        where known_date <= :day and impression_date > :since and impression_date <= :day
        group by all
    ),
    compared as (
        select creative_id, impressions, clicks, sum(impressions) over slot as shown,
            impressions * sum(clicks) over slot / nullif(sum(impressions) over slot, 0) as expected
        from cells
        window slot as (partition by segment_id, placement, impression_date)
    )
    select creative_id, sum(impressions)::bigint as impressions, sum(clicks)::bigint as clicks,
        round(fsum(expected), 6) as expected, round(fsum(expected * (1 - impressions / shown)), 6) as information
    from compared
    where shown > 0
    group by creative_id
    having information > 0
    order by sum(impressions) desc, creative_id
    """
)


class MeasuredCopy(_Row):
    """A copy that was shown beside others, and what came of it in the last `WINDOW_DAYS` days."""

    scenario: Scenario
    language: Language
    text: str
    impressions: int = Field(gt=0)
    clicks: int = Field(ge=0)
    expected: float = Field(ge=0, description="clicks of an average creative in its segments, placements and days")
    information: float = Field(gt=0, description="of expected clicks, those that others' impressions are compared with")


def measured_copies(connection: Connection, day: date) -> list[MeasuredCopy]:
    """The most shown copies of each scenario and language with impressions as of ``day``; empty in a new shop.

    What was erased is not among them.
    """
    if not connection.dialect.has_table(connection, "fct_creative_daily", schema="marts"):
        return []
    creatives, erasures = ledger.creatives, ledger.erasures
    erased = {(row.kind, row.subject) for row in connection.execute(select(erasures))}
    written = {
        row.creative_id: row
        for row in connection.execute(select(creatives).where(creatives.c.headline.is_not(None)))
        if ("creative", row.creative_id) not in erased and ("item", row.item_id) not in erased
    }
    found: defaultdict[tuple[str, str], list[MeasuredCopy]] = defaultdict(list)
    for shown in connection.execute(_SHOWN, {"day": day, "since": day - timedelta(days=WINDOW_DAYS)}):
        row = written.get(shown.creative_id)
        if row is None or len(found[row.scenario, row.language]) == MOST:
            continue
        found[row.scenario, row.language].append(
            MeasuredCopy(
                scenario=row.scenario,
                language=row.language,
                text=Copy(headline=row.headline, body=row.body, call_to_action=row.call_to_action).text,
                impressions=shown.impressions,
                clicks=shown.clicks,
                expected=shown.expected,
                information=shown.information,
            )
        )
    return [one for key in sorted(found) for one in found[key]]


class Predicted:
    """The `ranking.Value` that measured copies give: probability of more clicks than the scenario's mean, 0 to 1."""

    def __init__(self, measured: Iterable[MeasuredCopy]) -> None:
        families: defaultdict[tuple[str, str], list[MeasuredCopy]] = defaultdict(list)
        for one in measured:
            families[one.scenario, one.language].append(one)
        self._families = {key: _Family(some) for key, some in families.items()}

    def __call__(self, copy: Copy, brief: Brief) -> float:
        family = self._families.get((brief.scenario, brief.language))
        # Measured texts are without hashtags, which a banner does not show.
        return 0.5 if family is None else family.above_mean(copy.model_copy(update={"hashtags": ()}).text)


class _Family:
    """Measured copies of one scenario and language; log ratios of clicks to expected ones, in natural units."""

    def __init__(self, measured: Sequence[MeasuredCopy]) -> None:
        self._texts = [pieces(one.text) for one in measured]
        more = np.array([one.clicks - one.expected for one in measured], dtype=np.float64)
        information = np.array([one.information for one in measured], dtype=np.float64)
        # The average of a slot counts copies of other scenarios too: what is left of it is the family's own mean.
        self._ratios = more / information - more.sum() / (information.sum() + PRIOR_CLICKS)
        self._noise = 1 / information
        self._variance = USUAL_SPREAD**2

    @cached_property
    def _solved(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """(inverse of the ratios' covariance, that times the ratios)."""
        size = len(self._texts)
        alike = np.array([[_alike(one, other) for other in self._texts] for one in self._texts]).reshape(size, size)
        covariance = self._variance * (UNEXPLAINED * np.eye(size) + (1 - UNEXPLAINED) * alike) + np.diag(self._noise)
        inverse = np.linalg.inv(covariance)
        return inverse, inverse @ self._ratios

    def above_mean(self, text: str) -> float:
        inverse, weights = self._solved
        own = pieces(text)
        shared = self._variance * (1 - UNEXPLAINED) * np.array([_alike(own, other) for other in self._texts])
        mean = float(shared @ weights)
        spread = math.sqrt(max(self._variance - float(shared @ inverse @ shared), 1e-9))
        return 0.5 * (1 + math.erf(mean / spread / math.sqrt(2)))


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    """Cosine of the two sets of pieces, 0 to 1: a kernel, unlike the share of the smaller text."""
    return len(one & other) / math.sqrt(len(one) * len(other))
