"""The plan of a day: tomorrow's shares, as a pure function of the facts known by the end of the day.

Nothing is carried from run to run. What today's shares were is computed again, from the facts known yesterday, instead
of being read from yesterday's row: so days may be run in any order, twice, or not at all, and every plan comes out
the same. To honour the daily cap the shares are followed through the last days, as many as the cap needs to move a
share from 0 to 1 (`chain_days`). The first of them is taken without a cap: whatever it hides lies so far back that the
capped shares have caught up with it since.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, select

from adloom.shop import Shop
from adloom.strategy import approvals, directives, fatigue, fresh, holdout, wording
from adloom.strategy.allocation import (
    UNITS,
    floor_share,
    next_shares,
    probability_best,
    target_shares,
    uniform_shares,
    whole_shares,
)
from adloom.strategy.blocks import blocked_on, known_blocks
from adloom.strategy.change import Judgement, judge, not_needed
from adloom.strategy.evidence import Cell, Evidence
from adloom.strategy.logged_policies import off_policy_rows
from adloom.strategy.posterior import Floats, Posterior, posterior
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

PRODUCER, CREATIVES_PRODUCER = "behaviour_daily", "creatives_daily"
"""Who makes plans: the daily loop, and the DAG that approves new creatives. As text the second is the later one."""
LONGEST_CHAIN = 30
"""A cap below 1/30 a day is honoured as far as this many days show it."""

Key = tuple[str, str]
Shares = dict[Key, dict[str, float]]


@dataclass(frozen=True)
class PlanSummary:
    """What `adjust` decided, for a log line and for the marketer."""

    plan_id: str | None
    version: str | None
    valid_from: date
    placements: int
    creatives: int
    left_out: tuple[str, ...]
    """Creatives with traffic that are in no plan because they are not approved."""
    changes: tuple[str, ...]
    """Sentences of the largest changes."""
    gate: str
    """Why a change of algorithm was or was not made; empty where none is due."""
    blocked: tuple[str, ...] = ()
    """Why approved creatives were left out of a placement: a sentence each."""
    retired: tuple[str, ...] = ()
    """Creatives that are over with this plan, and why: a sentence each."""
    directives: tuple[str, ...] = ()
    """What new copy is asked for and why, or that nothing is."""

    def __str__(self) -> str:
        if self.plan_id is None:
            none = f"no plan for {self.valid_from}: no approved creative has had an impression yet"
            return "\n".join((none, *self.blocked, *(f"retired: {sentence}" for sentence in self.retired)))
        lines = [f"plan {self.version} for {self.valid_from}: {self.creatives} creatives, {self.placements} placements"]
        lines += [f"left out, not approved: {', '.join(self.left_out)}"] if self.left_out else []
        lines += [self.gate] if self.gate else []
        lines += [*self.blocked, *(f"retired: {sentence}" for sentence in self.retired)]
        return "\n".join((*lines, *self.changes, *self.directives))


@dataclass(frozen=True)
class Belief:
    """A cell with what is believed about its creatives."""

    cell: Cell
    posterior: Posterior
    best: Floats
    target: Floats
    above_family: Floats


def chain_days(max_share_change: float) -> int:
    """How many days back the shares are followed to honour the daily cap."""
    return min(math.ceil(1 / max(max_share_change, 1 / LONGEST_CHAIN)), LONGEST_CHAIN)


class Strategy:
    """Beliefs and shares as of ``day`` and the days before it."""

    def __init__(self, connection: Connection, shop: Shop, day: date, made_until: date | None = None) -> None:
        """``made_until``: creatives made on that day or before may enter; default: before ``day``.

        Those of ``day`` itself are made and approved after its daily loop has planned: if they entered there, the loop
        run again would not give what it gave the first time.
        """
        self.shop, self.day = shop, day
        self.chain_days = chain_days(shop.strategy.max_share_change)
        back = self.chain_days + 2  # today's shares begin a day earlier and ask what was running the day before
        self.evidence = Evidence(connection, day, back)
        self.blocks = known_blocks(connection, day)
        days = (day - timedelta(days=days) for days in range(back + 1))
        self.decisions = decisions = approvals.Decisions(connection, shop)
        self.approved = {earlier: decisions.approved(earlier) for earlier in days}
        self.fits = decisions.fits
        self.fresh = self._fresh(day, day - timedelta(days=1) if made_until is None else made_until)
        self._beliefs: dict[date, dict[Key, Belief]] = {}
        due = shop.strategy.change
        is_due = due is not None and day + timedelta(days=1) >= due.valid_from
        self._judged = judge(connection, shop, due) if due is not None and is_due else None

    def _fresh(self, day: date, until: date) -> list[approvals.Content]:
        """What the plan of ``day`` may bring in without evidence: approved, and made lately, at last on ``until``."""
        return [
            one
            for creative_id, one in sorted(self.decisions.contents.items())
            if creative_id in self.approved[day] and until - timedelta(days=fresh.FRESH_DAYS) < one.day <= until
        ]

    def cells(self, day: date) -> list[Cell]:
        completeness = self.shop.evaluation.completeness_threshold
        blocked = blocked_on(self.blocks, day)
        return self.evidence.cells(day, self.approved[day], completeness, blocked, self.fits)

    def gate(self, day: date) -> Judgement:
        """Which algorithm the plan made on ``day`` follows, and what the gate said if it is a new one."""
        due = self.shop.strategy.change
        if due is None:
            return not_needed(self.shop, self.shop.strategy.algorithm)
        if self._judged is None or day + timedelta(days=1) < due.valid_from:
            return not_needed(self.shop, due.before)
        return self._judged

    def beliefs(self, day: date) -> dict[Key, Belief]:
        """What is believed with the facts known by the end of ``day``."""
        if day not in self._beliefs:
            found = {}
            for cell in self.cells(day):
                belief = posterior(cell.impressions, cell.clicks, cell.parent, cell.family_numbers)
                best = probability_best(belief.alpha, belief.beta)
                target = target_shares(best, self.gate(day).algorithm)
                found[cell.key] = Belief(cell, belief, best, target, belief.above_family())
            self._beliefs[day] = found
        return self._beliefs[day]

    def shares(self, day: date) -> Shares:
        """Shares for the day after ``day``: floor and cap kept, in whole millionths."""
        first = day - timedelta(days=self.chain_days)
        running_before = {cell.key for cell in self.cells(first - timedelta(days=1))}
        shares: dict[Key, dict[str, float]] = {}
        for step in range(self.chain_days + 1):
            today = first + timedelta(days=step)
            now: dict[Key, dict[str, float]] = {}
            for key, belief in self.beliefs(today).items():
                creatives, count = belief.cell.creatives, len(belief.cell.creatives)
                cap = self.shop.strategy.max_share_change
                if key in shares:
                    before = np.array([shares[key].get(creative, 0.0) for creative in creatives])
                else:
                    # A placement's first plan starts from the reference policy.
                    before = np.full(count, 1 / count)
                    cap = 1.0 if step == 0 and key in running_before else cap
                now[key] = dict(zip(creatives, next_shares(belief.target, before, cap).tolist(), strict=True))
            shares = now
        return {
            key: dict(zip(cell, whole_shares(np.array(list(cell.values()))).tolist(), strict=True))
            for key, cell in shares.items()
        }

    @cached_property
    def tomorrow(self) -> Shares:
        """Shares for tomorrow, of what has been shown and of what was approved since."""
        blocked = blocked_on(self.blocks, self.day)
        shares = self.shares(self.day)
        return fresh.enter(self.shop, shares, self.today, self.fresh, blocked=blocked, fits=self.fits)

    @cached_property
    def today(self) -> Shares:
        return self.shares(self.day - timedelta(days=1))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Creatives with traffic that may be in no plan, because they are not approved."""
        out = self.evidence.active_creatives(self.day) - self.approved[self.day]
        return tuple(sorted(one for one in out if not self.decisions.is_over(one, self.day)))

    def retirement_rows(self) -> list[dict[str, Any]]:
        """Rows of ``adloom.retirements``: what ran, or had just entered, and what it speaks of is over."""
        rows = []
        before = self.day - timedelta(days=1)
        ran = {creative_id for cell in self.today.values() for creative_id in cell}
        ran |= {one.creative_id for one in self._fresh(before, before)}
        for creative_id in sorted(ran - self.approved[self.day]):
            ending = self.decisions.ending(creative_id, self.day)
            if ending is not None:
                sentence = wording.retired_sentence(creative_id, ending, self.shop.language)
                row = {"day": self.day, "creative_id": creative_id, "ended": ending.what, "subject": ending.subject}
                rows.append(row | {"ended_on": ending.on, "sentence": sentence})
        return rows

    @property
    def blocked(self) -> tuple[str, ...]:
        """Why creatives that may be shown elsewhere are left out of a placement, a sentence each."""
        active = self.evidence.active_creatives(self.day) & self.approved[self.day]
        now = blocked_on(self.blocks, self.day)
        return tuple(self.blocks[key].sentence for key in sorted(now) if key[1] in active)

    def newly_blocked(self, placement: str) -> tuple[str, ...]:
        """Creatives of today's plan that leave ``placement`` with tomorrow's because they are blocked."""
        new = blocked_on(self.blocks, self.day) - blocked_on(self.blocks, self.day - timedelta(days=1))
        return tuple(sorted(creative for where, creative in new if where == placement))

    def posterior_rows(self) -> list[dict[str, Any]]:
        """Rows of ``adloom.posteriors``."""
        rows = []
        for (segment_id, placement), belief in self.beliefs(self.day).items():
            low, high = belief.posterior.interval(self.shop.evaluation.confidence)
            for number, creative_id in enumerate(belief.cell.creatives):
                rows.append(
                    {
                        "day": self.day,
                        "segment_id": segment_id,
                        "placement": placement,
                        "creative_id": creative_id,
                        "family": belief.cell.families[number],
                        "impressions": int(belief.cell.impressions[number].sum()),
                        "clicks": int(belief.cell.clicks[number].sum()),
                        "alpha": float(belief.posterior.alpha[number]),
                        "beta": float(belief.posterior.beta[number]),
                        "ctr": float(belief.posterior.mean[number]),
                        "ctr_low": float(low[number]),
                        "ctr_high": float(high[number]),
                        "probability_best": float(belief.best[number]),
                    }
                )
        return rows

    def change(self, key: Key, creative_id: str) -> wording.Change:
        """One creative's change from today to tomorrow, with its reasons."""
        belief, after = self.beliefs(self.day)[key], self.tomorrow[key][creative_id]
        number = belief.cell.creatives.index(creative_id)
        yesterday = self.beliefs(self.day - timedelta(days=1)).get(key)
        best_before = None
        if yesterday is not None and creative_id in yesterday.cell.creatives:
            best_before = float(yesterday.best[yesterday.cell.creatives.index(creative_id)])
        before = self.today.get(key, {}).get(creative_id)
        moved = 0.0 if before is None else abs(after - before)
        return wording.Change(
            creative_id,
            before,
            after,
            floor_share(len(self.tomorrow[key])),
            moved >= self.shop.strategy.max_share_change - 2 / UNITS,
            int(belief.cell.impressions[number].sum()),
            int(belief.cell.clicks[number].sum()),
            float(belief.posterior.mean[number]),
            float(belief.posterior.family_mean[number]),
            float(belief.above_family[number]),
            best_before,
            float(belief.best[number]),
            float(belief.target[number]),
            self.newly_blocked(key[1]),
        )

    def _sentence(self, key: Key, creative_id: str, share: float) -> str:
        belief = self.beliefs(self.day).get(key)
        if belief is not None and creative_id in belief.cell.creatives:
            return wording.change_sentence(self.change(key, creative_id), self.shop.language)
        is_new = any(one.creative_id == creative_id for one in self.fresh)
        return wording.entering_sentence(creative_id, share, self.shop.language, is_new=is_new)

    def allocation_rows(self) -> list[dict[str, Any]]:
        """Rows of ``adloom.allocations``, without their plan_id."""
        language = self.shop.language
        rows = []
        for key, shares in self.tomorrow.items():
            today = self.today.get(key, {})
            policies = [(holdout.ADAPTIVE, shares)]
            if self.shop.strategy.holdout_share > 0:
                equal = uniform_shares(len(shares)).tolist()
                policies.append((holdout.HOLDOUT, dict(zip(shares, equal, strict=True))))
                equal_before = dict(zip(today, uniform_shares(len(today)).tolist() if today else (), strict=True))
            for policy_id, chosen in policies:
                is_adaptive = policy_id == holdout.ADAPTIVE
                rows += [
                    {
                        "policy_id": policy_id,
                        "segment_id": key[0],
                        "placement": key[1],
                        "creative_id": creative_id,
                        "share": share,
                        "share_before": (today if is_adaptive else equal_before).get(creative_id),
                        "sentence": self._sentence(key, creative_id, share)
                        if is_adaptive
                        else wording.holdout_sentence(creative_id, share, language),
                    }
                    for creative_id, share in chosen.items()
                ]
        return rows


def content_digest(allocations: Iterable[Mapping[str, Any]]) -> str:
    """Digest of what an ad server obeys: policy, segment, placement, creative and share in millionths."""
    names = ("policy_id", "segment_id", "placement", "creative_id")
    lines = sorted(
        json.dumps([*(row[name] for name in names), round(row["share"] * UNITS)], ensure_ascii=False)
        for row in allocations
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def version_of(day: date, producer: str, digest: str) -> str:
    """A plan's version, ordered as text: its day first, so a backfill of an old day never becomes the newest plan."""
    return f"{day}.{producer}.{digest[:12]}"


def live_plan(connection: Connection, day: date) -> Row[Any] | None:
    """The plan that is served on ``day``: the greatest (valid_from, version) with valid_from ≤ ``day``."""
    plans = ledger.plans
    return connection.execute(
        select(plans)
        .where(plans.c.valid_from <= day)
        .order_by(plans.c.valid_from.desc(), plans.c.version.desc())
        .limit(1)
    ).one_or_none()


def adjust(shop: Shop, day: date, carried: directives.Carried = directives.literally) -> PlanSummary:
    """Decide tomorrow's shares and store them with their evidence, replacing what an earlier run of ``day`` stored.

    Reads marts with known_date ≤ ``day`` and the approvals; writes approvals of origin external, posteriors, plans,
    allocations, holdout_lift, fatigue, directives and off_policy in one transaction. A day without facts gets the plan
    that the facts before it support; a shop without any impression of an approved creative gets none. ``carried``: see
    `directives`.
    """
    with warehouse(shop) as engine, engine.begin() as connection:
        approvals.record_external(connection, day)
        strategy = Strategy(connection, shop, day)
        rows = strategy.allocation_rows()
        judged = strategy.gate(day)
        plan = _replace_plan(connection, strategy, PRODUCER, rows, judged)
        ledger.replace_rows(connection, ledger.posteriors, {"day": day}, strategy.posterior_rows())
        ledger.replace_rows(connection, ledger.holdout_lift, {"day": day}, holdout.lift_rows(connection, shop, day))
        fatigue.record(connection, shop, day)
        asked = directives.record(connection, shop, day, carried, strategy.decisions)
        judged_changes = [*judged.rows(shop, day), *off_policy_rows(connection, shop, day)]
        ledger.replace_rows(connection, ledger.off_policy, {"day": day}, judged_changes)
    return replace(_summary(strategy, plan, rows, judged), directives=asked.sentences)


def plan_with_new_creatives(shop: Shop, day: date) -> PlanSummary:
    """The next version of the plan of ``day``: as `adjust`, with the creatives that were made and approved since.

    Reads the same facts and the decisions recorded by now; writes approvals of origin external, plans and allocations,
    in one transaction.
    """
    with warehouse(shop) as engine, engine.begin() as connection:
        approvals.record_external(connection, day)
        strategy = Strategy(connection, shop, day, made_until=day)
        rows = strategy.allocation_rows()
        judged = strategy.gate(day)
        plan = _replace_plan(connection, strategy, CREATIVES_PRODUCER, rows, judged)
    return _summary(strategy, plan, rows, judged)


def _summary(
    strategy: Strategy, plan: dict[str, Any] | None, rows: Sequence[Mapping[str, Any]], judged: Judgement
) -> PlanSummary:
    return PlanSummary(
        plan_id=None if plan is None else plan["plan_id"],
        version=None if plan is None else plan["version"],
        valid_from=strategy.day + timedelta(days=1),
        placements=len({placement for _, placement in strategy.tomorrow}),
        creatives=len({creative for shares in strategy.tomorrow.values() for creative in shares}),
        left_out=strategy.left_out,
        changes=_largest_changes(rows),
        gate="" if judged.decision == "not_needed" else judged.sentence,
        blocked=strategy.blocked,
        retired=tuple(row["sentence"] for row in strategy.retirement_rows()),
    )


def _replace_plan(
    connection: Connection, strategy: Strategy, producer: str, rows: Sequence[Mapping[str, Any]], judged: Judgement
) -> dict[str, Any] | None:
    """Store the plan that ``producer`` makes in place of the one it made of that day before; no rows, no plan."""
    shop, day = strategy.shop, strategy.day
    plans, allocations = ledger.plans, ledger.allocations
    digest = content_digest(rows)
    version = version_of(day, producer, digest)
    plan: dict[str, Any] = {
        "plan_id": f"{shop.id}.{version}",
        "valid_from": day + timedelta(days=1),
        "version": version,
        "day": day,
        "produced_by": producer,
        "content_digest": digest,
        "algorithm": judged.algorithm,
        "gate": judged.decision,
        "gate_sentence": judged.sentence,
    }
    key = {"day": day, "produced_by": producer}
    earlier = select(plans.c.plan_id).where(plans.c.day == day, plans.c.produced_by == producer)
    for replaced in set(connection.scalars(earlier)) - {plan["plan_id"]}:
        ledger.replace_rows(connection, allocations, {"plan_id": replaced}, [])
    ledger.replace_rows(
        connection,
        allocations,
        {"plan_id": plan["plan_id"]},
        ({"plan_id": plan["plan_id"]} | dict(row) for row in rows),
    )
    ledger.replace_rows(connection, plans, key, [plan] if rows else [])
    ledger.replace_rows(connection, ledger.retirements, {"day": day}, strategy.retirement_rows())
    return plan if rows else None


def _largest_changes(rows: Sequence[Mapping[str, Any]], most: int = 5) -> tuple[str, ...]:
    moved = [row for row in rows if row["policy_id"] == holdout.ADAPTIVE and row["share"] != row["share_before"]]
    moved.sort(key=lambda row: -abs(row["share"] - (row["share_before"] or 0.0)))
    return tuple(f"{row['segment_id']} · {row['placement']} · {row['sentence']}" for row in moved[:most])
