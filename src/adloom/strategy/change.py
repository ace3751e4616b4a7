"""A change of algorithm, declared in the shop file, and the gate it has to pass.

The gate is judged as of the eve of ``strategy.change.valid_from``: every later day recomputes the same decision from
the same facts, so the order in which days run does not matter and nothing learnt since turns it over. Where it does
not pass, plans keep the old algorithm. Daily updates of posteriors are capped, not gated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, Row, text

from adloom.evaluation.off_policy import Estimate, Floats, Log, estimate_change, gate, sentence
from adloom.shop import Algorithm, AlgorithmChange, Shop
from adloom.strategy import approvals
from adloom.strategy.allocation import next_shares, probability_best, target_shares
from adloom.strategy.evidence import Cell, Evidence
from adloom.strategy.holdout import ADAPTIVE, HOLDOUT
from adloom.strategy.logged_policies import WINDOW_DAYS, off_policy_row
from adloom.strategy.posterior import posterior

Shares = Mapping[tuple[str, str], Floats]
"""(segment, placement) → shares of its creatives."""

# Only impressions that followed a plan: their propensities are over all creatives of a segment and placement, as the
# shares to be judged are. Other logs give them within a campaign.
_LOG = text(
    """
    select segment_id, placement, creative_id, propensity,
           coalesce(click_known_date <= :day, false) as is_clicked, count(*) as impressions
    from marts.fct_impressions
    where impression_known_date <= :day and impression_known_date > :since and impression_date > :since
          and impression_date <= :day and is_valid and propensity > 0 and propensity <= 1
          and policy_id in (:adaptive, :holdout)
    group by all
    order by all
    """
)


@dataclass(frozen=True)
class Judgement:
    """What the gate said about the plan of a day, and the algorithm that is in force."""

    decision: Literal["not_needed", "passed", "held", "refused"]
    algorithm: Algorithm
    sentence: str
    name: str = ""
    estimates: tuple[Estimate, ...] = ()

    def rows(self, shop: Shop, day: date) -> list[dict[str, Any]]:
        """Rows of ``adloom.off_policy``."""
        return [off_policy_row(day, self.name, estimate, shop) for estimate in self.estimates]


def not_needed(shop: Shop, algorithm: Algorithm) -> Judgement:
    """The judgement of a plan that changes nothing but its evidence."""
    told = (
        "每日更新只受变动上限约束，不经离线评估"
        if shop.language == "zh"
        else "a daily update is capped, not gated; only a change of policy or model is"
    )
    return Judgement("not_needed", algorithm, told)


def judge(connection: Connection, shop: Shop, change: AlgorithmChange) -> Judgement:
    """May ``shop.strategy.algorithm`` replace ``change.before``? Only facts known before ``valid_from`` count.

    Compares the shares both would give, floor kept, on the impressions that followed a plan in the last `WINDOW_DAYS`.
    """
    eve = change.valid_from - timedelta(days=1)
    # A creative that a person takes out later must not turn the decision over.
    approved = approvals.approved(connection, shop, eve, as_of_day=True)
    cells = Evidence(connection, eve, 0).cells(eve, approved, shop.evaluation.completeness_threshold)
    old, new = (_targets(cells, algorithm) for algorithm in (change.before, shop.strategy.algorithm))
    if all(np.allclose(old[key], new[key], rtol=0, atol=1e-6) for key in old):
        return _judgement(shop, change, "passed", ())
    bound = {"day": eve, "since": eve - timedelta(days=WINDOW_DAYS), "adaptive": ADAPTIVE, "holdout": HOLDOUT}
    logged = [row for row in connection.execute(_LOG, bound) if (row.segment_id, row.placement) in old]
    if not logged:
        return _judgement(shop, change, "refused", ())
    log, before, after = _numbered(cells, logged, old, new)
    estimates = estimate_change(log, after, shop.evaluation.confidence, reference=before)
    return _judgement(shop, change, gate(estimates), estimates)


def _targets(cells: Sequence[Cell], algorithm: Algorithm) -> Shares:
    """What the algorithm would come to show if nothing more were learnt: its target with the floor kept."""
    found = {}
    for cell in cells:
        belief = posterior(cell.impressions, cell.clicks, cell.parent, cell.family_numbers)
        target = target_shares(probability_best(belief.alpha, belief.beta), algorithm)
        shares = next_shares(target, target, 1.0)
        found[cell.key] = shares / shares.sum()
    return found


def _numbered(cells: Sequence[Cell], logged: Sequence[Row[Any]], *targets: Shares) -> tuple[Log, Floats, Floats]:
    """The log and both targets, their contexts and creatives numbered alike."""
    contexts = {cell.key: number for number, cell in enumerate(cells)}
    names = {row.creative_id for row in logged}.union(*(cell.creatives for cell in cells))
    creatives = {name: number for number, name in enumerate(sorted(names))}
    log = Log(
        np.array([contexts[row.segment_id, row.placement] for row in logged], dtype=np.intp),
        np.array([creatives[row.creative_id] for row in logged], dtype=np.intp),
        np.array([row.propensity for row in logged], dtype=np.float64),
        np.array([row.is_clicked for row in logged], dtype=np.float64),
        np.array([row.impressions for row in logged], dtype=np.float64),
    )
    before, after = np.zeros((2, len(contexts), len(creatives)))
    for cell in cells:
        places = [creatives[creative] for creative in cell.creatives]
        for table, shares in zip((before, after), targets, strict=True):
            table[contexts[cell.key], places] = shares[cell.key]
    return log, before, after


def _judgement(
    shop: Shop,
    change: AlgorithmChange,
    decision: Literal["passed", "held", "refused"],
    estimates: tuple[Estimate, ...],
) -> Judgement:
    """The decision with the sentence that says why, what is in force, and what to do next."""
    name = f"{change.before} → {shop.strategy.algorithm}"
    in_force: Algorithm = shop.strategy.algorithm if decision == "passed" else change.before
    chinese = shop.language == "zh"
    if estimates:
        deciding = next(estimate for estimate in estimates if estimate.decision == decision)
        why = sentence(name, deciding, shop.language)
    elif decision == "passed":
        why = (
            f"{name}：通过。两者在每个版位给出的份额相同，无需比较"
            if chinese
            else f"{name}: passed. Both give the same shares in every placement: there is nothing to compare"
        )
    else:
        why = (
            f"{name}：拒绝。最近 {WINDOW_DAYS} 天有 0 次按计划投放且记录了 propensity 的展示，无法判断新算法"
            if chinese
            else f"{name}: refused. In the last {WINDOW_DAYS} days 0 impressions followed a plan and have a logged "
            "propensity: nothing tells what the new algorithm would do"
        )
    start = change.valid_from
    if chinese:
        judged = f"。依据 {start - timedelta(days=1)} 及之前已知的数据；{start} 起的计划使用 {in_force}。"
        keep = f"下一步：将 strategy.algorithm 改回 {change.before} 并删除 strategy.change，"
        wait = "下一步：继续按计划投放并在日志中记录 propensity，"
        later = "或积累更多数据后" if decision == "held" else "然后"
        later += "把 strategy.change.valid_from 改为更晚的日期。"
    else:
        judged = f". Judged on what was known by {start - timedelta(days=1)}; plans from {start} on use {in_force}. "
        keep = f"Next: set strategy.algorithm back to {change.before} and remove strategy.change, or, with more data, "
        wait = "Next: go on serving plans and log their propensities, then "
        later = "give strategy.change a later valid_from."
    next_step = {"passed": "", "held": keep + later, "refused": wait + later}[decision]
    return Judgement(decision, in_force, (why + judged + next_step).rstrip(), name, estimates)
