"""What the logs say about replacing one logged policy of a campaign by another."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import permutations
from typing import Any

import numpy as np
from sqlalchemy import Connection, text

from adloom.evaluation.off_policy import Estimate, Floats, Log, estimate_change, sentence
from adloom.shop import Shop
from adloom.strategy.holdout import ADAPTIVE, HOLDOUT

WINDOW_DAYS = 28

_CAMPAIGNS = text(
    """
    select campaign_id from marts.fct_creative_daily
    where known_date <= :day and known_date > :since and impression_date > :since and impressions > 0
          and policy_id not in (:adaptive, :holdout)
    group by campaign_id having count(distinct policy_id) > 1
    order by campaign_id
    """
)
_LOG = text(
    """
    select policy_id, segment_id || ' ' || placement as context, creative_id, propensity,
           coalesce(click_known_date <= :day, false) as is_clicked, count(*)
    from marts.fct_impressions
    where impression_known_date <= :day and impression_known_date > :since and impression_date > :since and is_valid
          and propensity > 0 and propensity <= 1 and campaign_id = :campaign and policy_id not in (:adaptive, :holdout)
    group by all
    order by all
    """
)


def off_policy_rows(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Rows of ``adloom.off_policy`` as of ``day``: every logged policy of a campaign held against every other one.

    Only campaigns with two policies and logged propensities have rows. Adloom's own two policies are left out: they are
    compared by experiment, see ``holdout_lift``.
    """
    bound = {"day": day, "since": day - timedelta(days=WINDOW_DAYS), "adaptive": ADAPTIVE, "holdout": HOLDOUT}
    rows: list[dict[str, Any]] = []
    for campaign in connection.execute(_CAMPAIGNS, bound).scalars().all():
        logs, shape = _logs(connection, bound | {"campaign": campaign})
        for old, new in permutations(logs, 2):
            # Contexts that the new policy never saw say nothing about what it would do there.
            seen = np.isin(logs[old].context, logs[new].context)
            if not seen.any():
                continue
            change = f"{campaign}: {old} → {new}"
            estimates = estimate_change(_rows(logs[old], seen), _target(logs[new], shape), shop.evaluation.confidence)
            rows += [off_policy_row(day, change, estimate, shop) for estimate in estimates]
    return rows


def _logs(connection: Connection, bound: dict[str, Any]) -> tuple[dict[str, Log], tuple[int, int]]:
    """Each policy's log, contexts and creatives numbered alike over all of them."""
    rows = connection.execute(_LOG, bound).all()
    contexts = {name: number for number, name in enumerate(sorted({row[1] for row in rows}))}
    creatives = {name: number for number, name in enumerate(sorted({row[2] for row in rows}))}
    logs = {}
    for policy in sorted({row[0] for row in rows}):
        own = [row for row in rows if row[0] == policy]
        logs[policy] = Log(
            np.array([contexts[row[1]] for row in own], dtype=np.intp),
            np.array([creatives[row[2]] for row in own], dtype=np.intp),
            np.array([row[3] for row in own], dtype=np.float64),
            np.array([row[4] for row in own], dtype=np.float64),
            np.array([row[5] for row in own], dtype=np.float64),
        )
    return logs, (len(contexts), len(creatives))


def _rows(log: Log, kept: np.ndarray) -> Log:
    return Log(log.context[kept], log.action[kept], log.propensity[kept], log.click[kept], log.count[kept])


def _target(log: Log, shape: tuple[int, int]) -> Floats:
    """The policy's shares per context: its propensities where they never varied, else what it did.

    Rows of contexts it never saw are uniform; no impression of theirs is evaluated.
    """
    lowest, highest = np.full(shape, np.inf), np.full(shape, -np.inf)
    place = (log.context, log.action)
    np.minimum.at(lowest, place, log.propensity)
    np.maximum.at(highest, place, log.propensity)
    stated = np.where(np.isfinite(lowest), lowest, 0.0)
    is_fixed = ((highest - lowest <= 1e-9) | ~np.isfinite(lowest)).all(-1) & (np.abs(stated.sum(-1) - 1) < 1e-6)
    done = log.empirical_policy(*shape)
    done = np.where(done.sum(-1, keepdims=True) > 0, done, 1 / shape[1])
    return np.where(is_fixed[:, None], stated / np.where(is_fixed, stated.sum(-1), 1)[:, None], done)


def off_policy_row(day: date, change: str, estimate: Estimate, shop: Shop) -> dict[str, Any]:
    """A row of ``adloom.off_policy``."""
    return {
        "day": day,
        "change": change,
        "estimator": estimate.estimator,
        "impressions": estimate.impressions,
        "clicks": estimate.clicks,
        "supported_mass": estimate.supported_mass,
        "effective_sample_size": estimate.effective_sample_size,
        "largest_weight": estimate.largest_weight,
        "old_value": estimate.old_value,
        "new_value": estimate.new_value,
        "difference": estimate.difference,
        "difference_low": estimate.difference_low,
        "difference_high": estimate.difference_high,
        "decision": estimate.decision,
        "sentence": sentence(change, estimate, shop.language),
    }
