"""``report.html``: one page about one day that a marketer can read, made from the published snapshot alone.

Nothing on it is computed anew: every rate, interval and verdict is the one the ledger holds. The same snapshot
gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from adloom.copywriting.reasons import in_language
from adloom.reporting import charts, thumbnails, words
from adloom.reporting.charts import Estimate, Panel, Series
from adloom.reporting.copies import Copies, copies_of
from adloom.reporting.facts import WINDOW_DAYS, Facts, Record, read
from adloom.reporting.snapshots import open_snapshot
from adloom.reporting.stopped import stopped_of
from adloom.reporting.words import Words
from adloom.shop import Shop
from adloom.simulation.pictures import CREDIT
from adloom.strategy.wording import change_head

STRICTNESS = ("passed", "held", "refused")
OUTCOMES = ("passed", "skipped", "warned", "failed")
MOST_ROWS = 40
MOST_PANELS = 6
MOST_SERIES = len(charts.COLOURS)
MOST_MOVES = 8
MOST_SENTENCES = 4
MOVED = 0.01
"""A share that moves less than a percentage point is no news."""
VISIBLE = 0.0005
"""A share that moves less looks the same before and after."""
DECIDED = ("winner", "no_difference")
LIFT_FIGURES = (("lift", ""), ("low", "_low"), ("high", "_high"))


def write(shop: Shop, day: date) -> Path:
    """Write the report of ``day`` from the published snapshot; returns the page that shows it.

    Every day keeps its page, ``published/reports/<day>.html``; ``published/report.html`` is the newest of them, so
    that a backfill of an old day does not put old figures before people. Returns the former unless ``day`` is newest.
    """
    with open_snapshot(shop) as engine, engine.connect() as connection:
        facts = read(connection, shop, day)
    pages = shop.published / "reports"
    pages.mkdir(parents=True, exist_ok=True)
    own = pages / f"{day.isoformat()}.html"
    _replace(own, render(shop, facts))
    newest = max(pages.glob("????-??-??.html"))
    latest = shop.published / "report.html"
    _replace(latest, newest.read_text(encoding="utf-8"))
    return latest if newest == own else own


def render(shop: Shop, facts: Facts) -> str:
    """The page as HTML. Whatever came from data is escaped by the template."""
    say = Words(shop.language)
    confidence = f"{shop.evaluation.confidence:.0%}"
    groups = _groups(facts)
    policies = _drawn_policies(facts)
    in_groups = {verdict.comparison for group in groups for verdict in group.verdicts}
    largest = max((estimate.high for group in groups for estimate in group.estimates), default=0.0)
    moves = [one for one in facts.allocations if abs(one.share - (one.share_before or 0)) >= VISIBLE][:MOST_MOVES]
    copies = copies_of(facts, thumbnails.maker(shop))
    cr_rows = [row for row in facts.policies if row.cohort_clicks] if facts.has_conversions else []
    return _template().render(
        shop=shop,
        facts=facts,
        say=say,
        confidence=confidence,
        hundredth=round(100 * shop.evaluation.confidence),
        window_days=WINDOW_DAYS,
        tomorrow=facts.day + timedelta(days=1),
        total=_estimate(facts.overall),
        summary=_summary(shop, facts, say),
        groups=groups[:MOST_ROWS],
        rows_left_out=sum(len(group.rows) for group in groups[MOST_ROWS:]),
        other_verdicts=[verdict for verdict in facts.verdicts if verdict.comparison not in in_groups],
        bar=partial(charts.interval_bar, largest=largest),
        estimate=_estimate,
        largest=largest,
        colours=charts.COLOURS,
        policy_class={policy_id: f"c{index}" for index, policy_id in enumerate(policies)},
        panels=_panels(facts, policies),
        campaigns=len(groups),
        moves=moves,
        moves_scale=max((max(one.share, one.share_before or 0) for one in moves), default=1),
        is_first_plan=_is_first_plan(facts),
        doors=_doors(facts),
        not_green=[row for row in facts.quality if row.day == facts.day and not row.is_passed],
        policy_changes=_policy_changes(facts),
        cr_rows=cr_rows,
        immature=sum(not row.is_mature for row in cr_rows),
        reason=partial(_reason, language=shop.language),
        refusal=partial(in_language, language=shop.language),
        most_series=MOST_SERIES,
        copies=copies,
        pictures_credit=CREDIT if shop.source.kind == "sample_shop" else "",
        copies_counts=None if copies is None else _copies_counts(copies, say),
        stopped=stopped_of(facts, shop),
    )


@dataclass(frozen=True)
class Group:
    """One campaign of the table: its policies and the verdicts on them."""

    campaign_id: str
    rows: Sequence[Record]
    verdicts: Sequence[Record]
    estimates: Sequence[Estimate]


@dataclass(frozen=True)
class Summary:
    """The sentences at the head of the page."""

    happened: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    tomorrow: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Door:
    """One door's checks by day: outcome → how many; None where the door was not reached."""

    door: str
    days: Sequence[tuple[date, dict[str, int] | None]]


def _estimate(row: Record | None) -> Estimate | None:
    if row is None or not row.impressions or row.ctr is None:
        return None
    return Estimate(row.impressions, row.clicks, row.ctr, row.ctr_low, row.ctr_high)


def _groups(facts: Facts) -> list[Group]:
    groups = []
    for campaign_id, found in groupby(facts.policies, key=lambda row: row.campaign_id):
        rows = list(found)
        arms = {row.policy_id for row in rows}
        groups.append(
            Group(
                campaign_id,
                rows,
                [one for one in facts.verdicts if one.campaign_id == campaign_id and {one.arm_a, one.arm_b} <= arms],
                [estimate for estimate in map(_estimate, rows) if estimate is not None],
            )
        )
    return groups


def _drawn_policies(facts: Facts) -> list[str]:
    """The policies with most impressions, in the order of the table; each has one colour on the whole page."""
    sizes: dict[str, int] = {}
    for row in facts.policies:
        sizes[row.policy_id] = sizes.get(row.policy_id, 0) + row.impressions
    largest = sorted(sizes, key=lambda policy_id: (-sizes[policy_id], policy_id))[:MOST_SERIES]
    return sorted(largest, reverse=True)


def _panels(facts: Facts, policies: Sequence[str]) -> list[tuple[str, Panel]]:
    """One panel per campaign, the largest campaigns first."""
    by_key = {(row.campaign_id, row.policy_id, row.day): _estimate(row) for row in facts.daily}
    campaigns: list[tuple[str, list[Series]]] = []
    for group in _groups(facts)[:MOST_PANELS]:
        series = [
            Series(
                row.policy_id,
                policies.index(row.policy_id),
                tuple(by_key.get((row.campaign_id, row.policy_id, day)) for day in facts.days),
                _estimate(row),
            )
            for row in group.rows
            if row.policy_id in policies
        ]
        if any(estimate is not None for one in series for estimate in one.days):
            campaigns.append((group.campaign_id, series))
    ticks = charts.shared_ticks([series for _, series in campaigns])
    return [(campaign_id, charts.draw_panel(series, facts.days, ticks)) for campaign_id, series in campaigns]


def _doors(facts: Facts) -> list[Door]:
    counts: dict[tuple[str, date], dict[str, int]] = {}
    for row in facts.quality:
        cell = counts.setdefault((row.door, row.day), dict.fromkeys(OUTCOMES, 0))
        cell[_outcome(row)] += 1
    names = sorted({door for door, _ in counts}, key=("raw", "marts", "creatives").index)
    return [Door(door, [(day, counts.get((door, day))) for day in facts.days]) for door in names]


def _policy_changes(facts: Facts) -> list[Record]:
    """One row per change of policy that was judged: that of the stricter estimator."""
    strictest: dict[str, Record] = {}
    for row in facts.off_policy:
        known = strictest.get(row.change)
        if known is None or STRICTNESS.index(row.decision) > STRICTNESS.index(known.decision):
            strictest[row.change] = row
    return list(strictest.values())


def _outcome(check: Record) -> str:
    """One of `OUTCOMES`; a check that could not be judged yet is stored as passed and says that it was skipped."""
    if not check.is_passed:
        return "warned" if check.severity == "warn" else "failed"
    return "skipped" if (check.observed or "").startswith("skipped: ") else "passed"


def _copies_counts(copies: Copies, say: Words) -> str:
    listed = [f"{words.count(number)} {say(f'in_{language}')}" for language, number in sorted(copies.languages.items())]
    return say(
        "copies_counts",
        briefs=words.count(copies.briefs),
        written=words.count(copies.written),
        languages=say("comma").join(listed) or "–",
        refused=words.count(copies.not_written),
        candidates=words.count(copies.candidates),
        parsed=words.count(copies.parsed),
    )


def _is_first_plan(facts: Facts) -> bool:
    return bool(facts.allocations) and all(one.share_before is None for one in facts.allocations)


def _summary(shop: Shop, facts: Facts, say: Words) -> Summary:
    summary = Summary()
    _say_what_happened(summary, facts, say)
    _say_verdicts(summary, facts, say)
    _say_what_is_open(summary, facts, say)
    _say_quality(summary, facts, say)
    _say_tomorrow(summary, facts, say)
    _say_retired(summary, facts, say)
    return summary


def _say_what_happened(summary: Summary, facts: Facts, say: Words) -> None:
    total = _estimate(facts.overall)
    if total is None:
        summary.happened.append(say("no_data"))
        return
    values = {
        "impressions": words.count(total.trials),
        "clicks": words.count(total.successes),
        "ctr": words.rate(total.value),
        "low": words.rate(total.low),
        "high": words.rate(total.high),
    }
    summary.happened.append(say("total" if total.successes else "no_clicks", **values))


def _say_verdicts(summary: Summary, facts: Facts, say: Words) -> None:
    if not facts.verdicts:
        summary.known.append(say("nothing_compared"))
        return
    if not any(one.verdict in DECIDED for one in facts.verdicts):
        summary.known.append(say("nothing_decided"))
    elif all(one.verdict in DECIDED for one in facts.verdicts):
        summary.known.append(say("all_decided"))
    for one in facts.verdicts:
        trials = say("impressions" if one.metric == "ctr" else "clicks")
        more = "" if one.needed_more is None else say("about_more", count=_about(one.needed_more), trials=trials)
        sentence = say(
            one.verdict,
            where=one.campaign_id or say("whole_shop"),
            a=one.arm_a,
            b=one.arm_b,
            winner=one.winner,
            metric=one.metric.upper(),
            more=more,
        )
        (summary.known if one.verdict in DECIDED else summary.unknown).append(sentence.strip())


def _say_what_is_open(summary: Summary, facts: Facts, say: Words) -> None:
    if not facts.has_conversions:
        summary.unknown.append(say("no_conversions"))
    elif facts.overall is not None and facts.overall.cohort_clicks and not facts.overall.is_mature:
        known = facts.overall.completeness
        summary.unknown.append(
            say("not_mature_unknown") if known is None else say("not_mature", share=words.share(known))
        )
    if facts.lift is None:
        return
    if facts.lift.lift is None:
        summary.unknown.append(say("lift_none" if facts.follows_plan else "lift_unused"))
        return
    figures = {name: words.change(getattr(facts.lift, f"lift{end}")) for name, end in LIFT_FIGURES}
    if facts.lift.lift_low > 0:
        summary.known.append(say("lift_sure", **figures))
    elif facts.lift.lift_high < 0:
        summary.known.append(say("lift_harm", **figures))
    else:
        summary.unknown.append(say("lift_open", **figures))


def _say_quality(summary: Summary, facts: Facts, say: Words) -> None:
    today = [_outcome(row) for row in facts.quality if row.day == facts.day]
    counts = {outcome: today.count(outcome) for outcome in OUTCOMES}
    judged = len(today) - counts["skipped"]
    state = "failed" if counts["failed"] else "warned" if counts["warned"] else "green" if judged else "none"
    sentence = say(f"quality_{state}", count=judged, **counts)
    if counts["skipped"]:
        sentence += say("space") + say("quality_skipped", count=counts["skipped"])
    summary.happened.append(sentence)


def _say_tomorrow(summary: Summary, facts: Facts, say: Words) -> None:
    tomorrow = say.day(facts.day + timedelta(days=1))
    if not facts.allocations:
        nothing_approved = facts.creatives and not facts.approved
        summary.tomorrow.append(
            say("no_creative" if nothing_approved else "no_plan", day=tomorrow, count=facts.creatives)
        )
        return
    if _is_first_plan(facts):
        running = {one.creative_id for one in facts.allocations}
        summary.tomorrow.append(say("first_plan", day=tomorrow, count=len(running)))
        return
    moved = [one for one in facts.allocations if abs(one.share - (one.share_before or 0)) >= MOVED]
    summary.tomorrow.append(say("plan_moves" if moved else "plan_still", day=tomorrow, count=len(moved)))
    if not facts.follows_plan:
        summary.tomorrow.append(say("plan_unused", days=WINDOW_DAYS))
    summary.tomorrow.extend(
        _first(say("at_place", place=_place(one), sentence=one.sentence) for one in moved if one.sentence)
    )


def _say_retired(summary: Summary, facts: Facts, say: Words) -> None:
    """Creatives of ours that leave the plan because what they speak of is over."""
    shown = _first(one.sentence for one in facts.retired)
    summary.tomorrow.extend(say("retired", sentence=sentence) for sentence in shown)
    if left_out := len(facts.retired) - len(shown):
        summary.tomorrow.append(say("retired_more", count=left_out))


def _place(move: Record) -> str:
    """Where a share counts: a creative has one in every placement and segment."""
    return move.placement if move.segment_id == "all" else f"{move.placement} · {move.segment_id}"


def _reason(move: Record, language: Literal["zh", "en"]) -> str:
    """The sentence about a change without the name and shares that stand beside it."""
    head = change_head(move.creative_id, move.share_before, move.share, language)
    return (move.sentence or "").removeprefix(head).lstrip(",;，； ")


def _first(sentences: Iterable[str]) -> list[str]:
    return [sentence for _, sentence in zip(range(MOST_SENTENCES - 1), sentences, strict=False)]


def _about(number: int) -> str:
    """Two figures are all that an estimate of this kind carries."""
    digits = len(str(abs(number)))
    return words.count(round(number, 2 - digits) if digits > 2 else number)


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count,
        "rate": words.rate,
        "interval": words.interval,
        "share": words.share,
        "change": words.change,
        "short": _short,
    }
    return environment.get_template("report.html.j2")


def _short(text: Any, length: int = 14) -> str:
    """A name that has to fit beside a mark; the whole name is in the mark's title."""
    name = str(text)
    return name if len(name) <= length else name[: length - 1] + "…"


def _replace(path: Path, content: str) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(content, encoding="utf-8")
    os.replace(fresh, path)
