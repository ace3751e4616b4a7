"""What a report shows, read from the published snapshot as of one day and nothing later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Table, and_, column, func, select, table

from adloom.shop import Shop
from adloom.strategy import approvals
from adloom.warehouse import ledger

WINDOW_DAYS = 7
"""The window of every figure of the page that is not about a single day."""

Record = Row[Any]

_daily = table(
    "fct_creative_daily",
    column("known_date"),
    column("impression_date"),
    column("conversions"),
    column("invalid_impressions"),
    schema="marts",
)


@dataclass(frozen=True)
class Facts:
    """Rows of the snapshot a report for ``day`` needs; every sequence is ordered."""

    day: date
    overall: Record | None
    policies: Sequence[Record]
    """campaign × policy over the window, largest campaign first"""
    daily: Sequence[Record]
    """campaign × policy, one row per day of the window, each as of its own end"""
    verdicts: Sequence[Record]
    plan: Record | None
    allocations: Sequence[Record]
    """adaptive shares of ``plan``, the largest change first"""
    creatives: int
    """creatives with a decision by the day …"""
    approved: int
    """… and those among them that may run"""
    quality: Sequence[Record]
    """checks of the window's days"""
    lift: Record | None
    off_policy: Sequence[Record]
    copies: Sequence[Record]
    """creatives made on the day with item, portrait and offer of their briefs, refused ones last"""
    findings: Sequence[Record]
    """what reviews found in them"""
    assets: Sequence[Record]
    """their finished images and videos"""
    refused_briefs: Sequence[Record]
    directives: Sequence[Record]
    """what the day's copy was asked for, and why"""
    waiting: frozenset[str]
    """creatives of the day that nobody has decided about and no review blocks"""
    stopped: Sequence[Record]
    """findings in candidates that were never chosen, with what their briefs say; a row per finding"""
    stopped_counts: Mapping[str, int]
    """rule → candidates that it stopped first, most first"""
    retired: Sequence[Record]
    """creatives that are over with tomorrow's plan, and why"""
    allocation_blocks: Sequence[Record]
    fatigue: Sequence[Record]
    """the surest decline first"""
    account: Record | None
    counterfactuals: Sequence[Record]
    last_audit: date | None
    """the last day up to this one whose copy was compared across groups"""
    has_conversions: bool
    rejected_rows: int
    invalid_impressions: int

    @property
    def follows_plan(self) -> bool:
        """Whether any impression of the window was chosen by a plan."""
        return self.lift is not None and self.lift.adaptive_impressions + self.lift.holdout_impressions > 0

    @property
    def first(self) -> date:
        return first_day(self.day)

    @property
    def days(self) -> list[date]:
        return [self.first + timedelta(days=offset) for offset in range(WINDOW_DAYS)]


def first_day(day: date) -> date:
    """The first day of the window that ends on ``day``."""
    return day - timedelta(days=WINDOW_DAYS - 1)


def read(connection: Connection, shop: Shop, day: date) -> Facts:
    """The facts of ``day``; a table without rows for it gives an empty sequence or None."""
    first = first_day(day)
    rates, verdicts = ledger.evaluations, ledger.verdicts
    of_day = select(rates).where(rates.c.day == day, rates.c.window_days == WINDOW_DAYS)
    size = func.sum(rates.c.impressions).over(partition_by=rates.c.campaign_id)
    plan = connection.execute(
        select(ledger.plans).where(ledger.plans.c.day == day).order_by(ledger.plans.c.version.desc()).limit(1)
    ).one_or_none()
    decisions = approvals.Decisions(connection, shop)
    decided = select(ledger.approvals.c.creative_id).where(ledger.approvals.c.decided_on <= day).distinct()
    creatives = frozenset(connection.scalars(decided))
    quality, files = ledger.quality_results, ledger.landing_files
    return Facts(
        day=day,
        overall=connection.execute(of_day.where(rates.c.grain == "overall")).one_or_none(),
        policies=connection.execute(
            of_day.where(rates.c.grain == "policy").order_by(size.desc(), rates.c.campaign_id, rates.c.policy_id.desc())
        ).all(),
        daily=connection.execute(
            select(rates)
            .where(rates.c.day.between(first, day), rates.c.window_days == 1, rates.c.grain == "policy")
            .where(rates.c.impressions > 0)
            .order_by(rates.c.day, rates.c.campaign_id, rates.c.policy_id)
        ).all(),
        verdicts=connection.execute(
            select(verdicts).where(verdicts.c.day == day).order_by(verdicts.c.comparison)
        ).all(),
        plan=plan,
        allocations=[] if plan is None else _allocations(connection, plan.plan_id),
        creatives=len(creatives),
        approved=len(creatives & decisions.approved(day)),
        quality=connection.execute(
            select(quality)
            .where(quality.c.day.between(first, day))
            .order_by(quality.c.day, quality.c.door.desc(), quality.c.check_id)
        ).all(),
        lift=connection.execute(
            select(ledger.holdout_lift).where(
                ledger.holdout_lift.c.day == day, ledger.holdout_lift.c.window_days == WINDOW_DAYS
            )
        ).one_or_none(),
        off_policy=connection.execute(
            select(ledger.off_policy)
            .where(ledger.off_policy.c.day == day)
            .order_by(ledger.off_policy.c.change, ledger.off_policy.c.estimator)
        ).all(),
        copies=_copies(connection, day),
        findings=connection.execute(
            select(ledger.reviews)
            .where(ledger.reviews.c.day == day)
            .order_by(ledger.reviews.c.severity, ledger.reviews.c.rule_id, ledger.reviews.c.part, ledger.reviews.c.span)
        ).all(),
        assets=connection.execute(
            select(ledger.assets)
            .where(ledger.assets.c.day == day)
            .order_by(ledger.assets.c.creative_id, ledger.assets.c.format)
        ).all(),
        refused_briefs=connection.execute(
            select(ledger.refused_briefs)
            .where(ledger.refused_briefs.c.day == day)
            .order_by(
                ledger.refused_briefs.c.briefs.desc(), ledger.refused_briefs.c.reason, ledger.refused_briefs.c.subject
            )
        ).all(),
        directives=_of_day(connection, ledger.directives, day, "position"),
        waiting=frozenset(
            creative_id
            for creative_id, content in decisions.contents.items()
            if content.day == day
            and not content.refusal
            and decisions.standing(creative_id, day, as_of_day=True) is None
        ),
        stopped=_stopped(connection, day),
        stopped_counts=_stopped_counts(connection, day),
        retired=_of_day(connection, ledger.retirements, day, "creative_id"),
        allocation_blocks=_of_day(connection, ledger.allocation_blocks, day, "placement", "creative_id"),
        fatigue=connection.execute(
            select(ledger.fatigue)
            .where(ledger.fatigue.c.day == day)
            .order_by(ledger.fatigue.c.decline_low.desc().nulls_last(), ledger.fatigue.c.creative_id)
        ).all(),
        account=next(iter(_of_day(connection, ledger.account_similarity, day)), None),
        counterfactuals=_of_day(
            connection, ledger.counterfactuals, day, "brief_id", "trait", "first", "second", "what"
        ),
        last_audit=connection.scalar(
            select(func.max(ledger.counterfactuals.c.day)).where(
                ledger.counterfactuals.c.day <= day, ledger.counterfactuals.c.verdict != "needs_more"
            )
        ),
        has_conversions=bool(_sum(connection, _daily.c.conversions, _daily.c.known_date <= day)),
        rejected_rows=_sum(connection, files.c.rows_rejected, files.c.known_date.between(first, day)),
        invalid_impressions=_sum(
            connection,
            _daily.c.invalid_impressions,
            _daily.c.known_date <= day,
            _daily.c.impression_date.between(first, day),
        ),
    )


def _allocations(connection: Connection, plan_id: str) -> Sequence[Record]:
    shares = ledger.allocations
    change = func.abs(shares.c.share - func.coalesce(shares.c.share_before, 0))
    return connection.execute(
        select(shares)
        .where(shares.c.plan_id == plan_id, shares.c.policy_id == "adaptive")
        .order_by(change.desc(), shares.c.segment_id, shares.c.placement, shares.c.creative_id)
    ).all()


def _copies(connection: Connection, day: date) -> Sequence[Record]:
    made, briefs = ledger.creatives, ledger.briefs
    own_brief = and_(briefs.c.day == made.c.day, briefs.c.brief_id == made.c.brief_id)
    place = [made.c.headline.is_(None), made.c.scenario, made.c.language.desc(), briefs.c.position]
    return connection.execute(
        select(made, briefs.c.content)
        .select_from(made.outerjoin(briefs, own_brief))
        .where(made.c.day == day)
        .order_by(*place, made.c.brief_id, made.c.variant)
    ).all()


def _stopped(connection: Connection, day: date) -> Sequence[Record]:
    thrown, briefs = ledger.stopped_copies, ledger.briefs
    own_brief = and_(briefs.c.day == thrown.c.day, briefs.c.brief_id == thrown.c.brief_id)
    place = [briefs.c.position, thrown.c.brief_id, thrown.c.position]
    return connection.execute(
        select(thrown, briefs.c.content)
        .select_from(thrown.outerjoin(briefs, own_brief))
        .where(thrown.c.day == day)
        .order_by(*place, thrown.c.rule_id, thrown.c.part, thrown.c.span)
    ).all()


def _stopped_counts(connection: Connection, day: date) -> dict[str, int]:
    t = ledger.stopped_counts.c
    candidates = func.sum(t.candidates)
    query = select(t.rule_id, candidates).where(t.day == day).group_by(t.rule_id)
    found = connection.execute(query.order_by(candidates.desc(), t.rule_id)).all()
    return {rule_id: int(count) for rule_id, count in found}


def _of_day(connection: Connection, of: Table, day: date, *order: str) -> Sequence[Record]:
    return connection.execute(select(of).where(of.c.day == day).order_by(*(of.c[name] for name in order))).all()


def _sum(connection: Connection, quantity: Any, *where: Any) -> int:
    return int(connection.scalar(select(func.coalesce(func.sum(quantity), 0)).where(*where)) or 0)
