"""What tomorrow's copy is asked for, and why: a person's standing orders, and what the day's evidence surely supports.

Two things can be said before it is known which part of a creative drives its CTR:

- *something new*, where most of what a segment is shown of a kind (scenario, language, channel) goes to creatives that
  are tired (`fatigue`): one more variant, and nothing like the tired headline;
- *what the leader says first*, where one creative of a kind is surely clicked more than the others of it together. The
  difference is stratified (day, policy, placement), clustered by user and holds under a year of daily looks
  (`evaluation.sequences`), at a level divided by the number of creatives that were compared that day. Only what the
  leader says and no other of its kind does is asked for. That it was these words is not known: the sentence says so.

An always-valid interval holds while evidence grows, not while it slides along. So evidence begins on the first day of a
period of `PERIOD_DAYS` and grows through that and the next one, and the level is divided by the periods of a year.

Facts known by the day decide, and decisions about creatives as of the day: a later day changes nothing, but that a
creative which was rejected, blocked or erased since is neither a leader nor counted (as in plans).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, and_, bindparam, column, select, table, text

from adloom.creative import Language
from adloom.evaluation import sequences
from adloom.evaluation.sequences import Evidence, Floats
from adloom.shop import LONGEST_DIRECTIVE, Shop
from adloom.strategy.approvals import Decisions
from adloom.warehouse import ledger

PERIOD_DAYS = 28
"""Evidence is of the period that ended last and of the one that runs: 29 to 56 days."""
PERIODS_A_YEAR = 14
LIVE_DAYS = 7
"""A creative that was not shown for so long does not run any more."""
TIRED_SHARE = 0.5
"""Of a kind's impressions in the last `LIVE_DAYS`, on tired creatives: from here on something new is asked for."""
STRATEGY, PERSON = "strategy", "person"
MOST_SENTENCES = 8
SCOPE = ("language", "scenario", "channel", "segment_id", "category", "attribute", "words")

Numbers = NDArray[np.intp]
Kind = tuple[str, str, str, str]
"""segment, scenario, language, channel"""
Stratum = tuple[date, str, str]
"""impression date, policy, placement"""
Carried = Callable[[str, Sequence[str], Language], list[bool]]
"""For each value: does the text state it? (`review.facts.carried`, which stands above this room.)"""

_daily = table(
    "fct_creative_daily", column("creative_id"), column("known_date"), column("impression_date"), schema="marts"
)
_SHOWN = text(
    """
    select segment_id, creative_id, impression_date, policy_id, placement, sum(impressions), sum(clicks)
    from marts.fct_creative_daily
    where known_date <= :day and impression_date > :since and impression_date <= :day
    group by all
    having sum(impressions) > 0
    order by all
    """
)
_PERSONS = text(
    """
    select
        impression_date, policy_id, placement, creative_id = :leader as is_leader,
        coalesce(user_hash, impression_id) as person,
        count(*) as impressions,
        sum(case when click_known_date <= :day then 1 else 0 end) as clicks
    from marts.fct_impressions
    where
        is_valid and impression_known_date <= :day and impression_date > :since and impression_date <= :day
        and segment_id = :segment_id and creative_id in :creatives
    group by all
    order by all
    """
).bindparams(bindparam("creatives", expanding=True))


@dataclass(frozen=True)
class Written:
    """A copy of ours that may be shown, with the attributes its brief named."""

    creative_id: str
    scenario: str
    language: Language
    channel: str
    headline: str
    body: str
    call_to_action: str
    category: str
    """of the item, as the brief had it"""
    attributes: Mapping[str, str]

    def said_first(self, carried: Carried) -> str | None:
        """The name of the attribute that the copy states first; None: it states none."""
        names, values = list(self.attributes), list(self.attributes.values())
        for part in (self.headline, self.body):
            said = carried(part, values, self.language)
            held = [number for number, is_said in enumerate(said) if is_said]
            if held:
                # In other words it stands nowhere as it is: behind those that do.
                return names[min(held, key=lambda number: (values[number] not in part, part.find(values[number])))]
        return None


@dataclass
class Shown:
    """What a segment was shown of one kind in the evidence: creative → stratum → (impressions, clicks)."""

    kind: Kind
    counts: dict[str, dict[Stratum, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))

    def total(self, creative_id: str, since: date | None = None) -> tuple[int, int]:
        """(impressions, clicks) of the creative, of impressions after ``since``."""
        rows = [one for (shown_on, *_), one in self.counts[creative_id].items() if since is None or shown_on > since]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)


@dataclass(frozen=True)
class Leader:
    """A creative that is surely clicked more than the others of its kind together."""

    creative_id: str
    counts: tuple[int, int]
    others: int
    other_counts: tuple[int, int]
    difference: float
    low: float
    high: float
    compared: int
    """creatives compared that day, in all kinds: what the level of the interval is divided by"""


@dataclass(frozen=True)
class Derived:
    """The day's rows of ``adloom.directives`` and, for whoever reads the log, what they stand on."""

    rows: list[dict[str, Any]]
    live: int
    """creatives of ours that run"""
    tired: int
    leaders: int

    @property
    def sentences(self) -> tuple[str, ...]:
        asked = [f"asked of the copy: {row['words']} ({row['why']})" for row in self.rows if row["kind"] == STRATEGY]
        if asked or not self.live:
            more = len(asked) - MOST_SENTENCES
            return (*asked[:MOST_SENTENCES], *([f"… and {more:,} more, in adloom.directives"] if more > 0 else []))
        if not self.tired and not self.leaders:
            return (f"nothing new is asked of the copy: none of {self.live} creatives is surely tired or surely ahead",)
        return (
            f"nothing new is asked of the copy: of {self.live} creatives {self.tired} surely tired, most are not; "
            f"{self.leaders} surely ahead, by nothing that they alone say",
        )


def literally(said: str, values: Sequence[str], language: Language) -> list[bool]:
    """The least `Carried`: a value stands in the text as it is."""
    return [bool(value) and value.casefold() in said.casefold() for value in values]


def record(
    connection: Connection, shop: Shop, day: date, carried: Carried = literally, decisions: Decisions | None = None
) -> Derived:
    """Replace the day's rows of ``adloom.directives``; ``adloom.fatigue`` of the day must have been recorded.

    ``decisions``: those of the shop, where the caller has read them.
    """
    derived = _derive(connection, shop, day, carried, decisions)
    ledger.replace_rows(connection, ledger.directives, {"day": day}, derived.rows)
    return derived


def _derive(connection: Connection, shop: Shop, day: date, carried: Carried, decisions: Decisions | None) -> Derived:
    """The directives of ``day``: a person's in their order, then new copy for what is tired, then what leads."""
    written = _written(connection, shop, day, decisions)
    shown = _shown(connection, day, written)
    tired = _tired(connection, day)
    recently = day - timedelta(days=LIVE_DAYS)
    live = {one for kind in shown for one in kind.counts if kind.total(one, recently)[0]}
    # What tires led once: it is no example.
    found = _leaders(connection, shop, day, shown)
    leaders = {kind: one for kind, one in found.items() if one.creative_id not in tired}
    rows = [
        *_standing_orders(shop, day),
        *_something_new(shop, shown, written, tired, recently),
        *_what_leads(shop, shown, written, leaders, carried),
    ]
    numbered: dict[str, dict[str, Any]] = {}
    for row in rows:
        scope = [row[name] for name in SCOPE]
        digest = hashlib.sha256(json.dumps(scope, ensure_ascii=False).encode()).hexdigest()[:16]
        numbered.setdefault(digest, {"day": day, "directive_id": digest, "position": len(numbered)} | row)
    return Derived(list(numbered.values()), len(live), len(live & tired.keys()), len(leaders))


# --- a person's ----------------------------------------------------------------------------------------------------


def _standing_orders(shop: Shop, day: date) -> Iterator[dict[str, Any]]:
    """One row per language and scope. What is written on ``day`` is shown from the day after it on."""
    why = "店铺的长期要求" if shop.language == "zh" else "a standing order of the shop"
    for order in shop.directives:
        if order.until is not None and order.until <= day:
            continue
        scopes = itertools.product(order.scenarios or (None,), order.channels or (None,), order.segments or (None,))
        for (scenario, channel, segment_id), language in itertools.product(scopes, shop.languages):
            if words := order.said(language):
                scope = {"scenario": scenario, "channel": channel, "segment_id": segment_id}
                yield _row(PERSON, language, scope | {"category": None, "attribute": None}, words, why=why, evidence={})


def _row(
    kind: str,
    language: Language,
    scope: Mapping[str, str | None],
    words: str,
    *,
    why: str,
    evidence: Mapping[str, Any],
    more_variants: int = 0,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "language": language,
        **scope,
        "words": words,
        "more_variants": more_variants,
        "why": why,
        "evidence": json.dumps(evidence, ensure_ascii=False, sort_keys=True),
    }


def since(day: date) -> date:
    """The day before the first one whose impressions count: the same for all days of a period."""
    return date.fromordinal((day.toordinal() // PERIOD_DAYS - 1) * PERIOD_DAYS - 1)


# --- what is known -------------------------------------------------------------------------------------------------


def _written(connection: Connection, shop: Shop, day: date, decisions: Decisions | None) -> dict[str, Written]:
    """creative_id → copies of ours that were shown lately and that the plan of ``day`` may show."""
    made, briefs = ledger.creatives, ledger.briefs
    if connection.execute(select(made.c.creative_id).where(made.c.day <= day).limit(1)).first() is None:
        return {}
    daily = _daily.c
    shown = select(daily.creative_id).where(daily.known_date <= day, daily.impression_date > since(day))
    own_brief = and_(briefs.c.day == made.c.day, briefs.c.brief_id == made.c.brief_id)
    rows = connection.execute(
        select(made, briefs.c.content)
        .select_from(made.outerjoin(briefs, own_brief))
        .where(made.c.day <= day, made.c.headline.is_not(None), made.c.creative_id.in_(shown))
        .order_by(made.c.creative_id)
    ).all()
    if not rows:
        return {}
    approved = (decisions or Decisions(connection, shop)).approved(day, as_of_day=True)
    found = {}
    for row in rows:
        if row.creative_id in approved:
            brief: Mapping[str, Any] = json.loads(row.content) if row.content else {}
            item: Mapping[str, Any] = brief.get("item") or {}
            kind = (row.scenario, row.language, row.channel)
            said = (row.headline, row.body or "", row.call_to_action or "")
            about = (item.get("category") or "", item.get("attributes") or {})
            found[row.creative_id] = Written(row.creative_id, *kind, *said, *about)
    return found


def _shown(connection: Connection, day: date, written: Mapping[str, Written]) -> list[Shown]:
    """Counts by kind, kinds in order."""
    if not written:
        return []
    found: dict[Kind, Shown] = {}
    bound = {"day": day, "since": since(day)}
    for segment_id, creative_id, shown_on, policy_id, placement, impressions, clicks in connection.execute(
        _SHOWN, bound
    ):
        if (one := written.get(creative_id)) is not None:
            kind = segment_id, one.scenario, one.language, one.channel
            counts = found.setdefault(kind, Shown(kind)).counts[creative_id]
            counts[shown_on, policy_id, placement] = int(impressions), int(clicks)
    return [found[kind] for kind in sorted(found)]


def _tired(connection: Connection, day: date) -> dict[str, Any]:
    """creative_id → row of ``adloom.fatigue`` that calls it tired."""
    t = ledger.fatigue
    query = select(t).where(t.c.day == day, t.c.verdict == "tired")
    return {row.creative_id: row for row in connection.execute(query)}


# --- something new -------------------------------------------------------------------------------------------------

_NEW = {"zh": "换个新角度，不要再像“{headline}”那样写", "en": 'Find a new angle, nothing like "{headline}"'}
_WHY_NEW = {
    "zh": "人群 {segment_id} 近 {days} 天在 {channel} 看到的{count} 个同类创意（{scenario}）中 {tired} 个已经疲劳，"
    "占 {impressions:,} 次展示的 {share:.0%}。{sentence}",
    "en": "of {count} creatives ({scenario}) that {segment_id} was shown on {channel} in {days} days, {tired} tire; "
    "they had {share:.0%} of {impressions:,} impressions. {sentence}",
}


def _something_new(
    shop: Shop, shown: Sequence[Shown], written: Mapping[str, Written], tired: Mapping[str, Any], recently: date
) -> Iterator[dict[str, Any]]:
    for kind in shown:
        live = {one: kind.total(one, recently)[0] for one in kind.counts}
        live = {one: impressions for one, impressions in live.items() if impressions}
        worn = sorted((one for one in live if one in tired), key=lambda one: (-live[one], one))
        impressions = sum(live.values())
        share = sum(live[one] for one in worn) / impressions if worn else 0.0
        if share < TIRED_SHARE or not worn:
            continue
        segment_id, scenario, _, channel = kind.kind
        most = written[worn[0]]
        row = tired[worn[0]]
        evidence = {
            "creatives": len(live),
            "tired": worn,
            "impressions": impressions,
            "tired_share": round(share, 4),
            "creative_id": worn[0],
            "users": row.users,
            "early_impressions": row.early_impressions,
            "early_clicks": row.early_clicks,
            "late_impressions": row.late_impressions,
            "late_clicks": row.late_clicks,
            "decline": row.decline,
            "decline_low": row.decline_low,
            "decline_high": row.decline_high,
            "confidence": shop.evaluation.confidence,
        }
        why = _WHY_NEW[shop.language].format(
            segment_id=segment_id,
            scenario=scenario,
            channel=channel,
            days=LIVE_DAYS,
            count=len(live),
            tired=len(worn),
            share=share,
            impressions=impressions,
            sentence=row.sentence,
        )
        words = _fitted(_NEW[most.language], headline=most.headline)
        yield _row(STRATEGY, most.language, _scope(kind), words, why=why, evidence=evidence, more_variants=1)


def _scope(kind: Shown, category: str | None = None, attribute: str | None = None) -> dict[str, str | None]:
    segment_id, scenario, _, channel = kind.kind
    scope = {"scenario": scenario, "channel": channel, "segment_id": segment_id}
    return scope | {"category": category, "attribute": attribute}


_INNER_QUOTES = str.maketrans(dict.fromkeys('"“”„‟«»「」『』＂', "'"))


def _fitted(form: str, **quoted: str) -> str:
    """The words with what they quote, each cut so that the whole is no longer than a directive may be.

    A quotation ends where we end it: a mark inside would let a catalogue's text go on as an order to the writer.
    """
    room = (LONGEST_DIRECTIVE - len(form)) // max(1, len(quoted))
    inside = {name: one.translate(_INNER_QUOTES) for name, one in quoted.items()}
    cut = {name: one if len(one) <= room else one[: room - 1].rstrip() + "…" for name, one in inside.items()}
    return form.format(**cut)


# --- what leads ----------------------------------------------------------------------------------------------------

_FIRST = {"zh": "开头先说“{attribute}”这一项", "en": 'Begin with the fact "{attribute}"'}
_ACTION = {"zh": "行动语沿用“{action}”", "en": 'Keep the call to action "{action}"'}
_WHY_LEADS = {
    "zh": "人群 {segment_id} 在 {channel} 看到的同类创意（{scenario}）中，“{headline}”（{creative_id}）每千次展示"
    "比其余 {others} 个合计多 {difference:.1f} 次点击 [{low:.1f}, {high:.1f}]（{clicks:,}/{impressions:,} 对 "
    "{other_clicks:,}/{other_impressions:,}；{confidence:.0%} 区间，按 {compared} 个创意同时比较、一年里"
    "每天查看计算）。差别属于整个创意，是商品、文案还是图片所致并不知道。",
    "en": "of the creatives ({scenario}) that {segment_id} is shown on {channel}, “{headline}” ({creative_id}) gets "
    "{difference:.1f} [{low:.1f}, {high:.1f}] clicks per 1,000 impressions more than the {others} others together "
    "({clicks:,} in {impressions:,}, {other_clicks:,} in {other_impressions:,}; {confidence:.0%} interval for "
    "{compared} creatives compared at once and a year of daily looks). The difference is the whole creative's: whether "
    "item, words or picture make it is not known.",
}


def _what_leads(
    shop: Shop,
    shown: Sequence[Shown],
    written: Mapping[str, Written],
    leaders: Mapping[Kind, Leader],
    carried: Carried,
) -> Iterator[dict[str, Any]]:
    """For each leader what it says and no other of its kind does: the attribute it begins with, its call to action."""
    for kind in shown:
        leader = leaders.get(kind.kind)
        if leader is None:
            continue
        own = written[leader.creative_id]
        others = [written[one] for one in kind.counts if one != leader.creative_id]
        attribute = own.said_first(carried)
        if attribute in {one.said_first(carried) for one in others}:
            attribute = None
        action = own.call_to_action
        if action in {one.call_to_action for one in others}:
            action = ""
        why, evidence = _told(shop, kind.kind, own, leader)
        if attribute:
            words = _fitted(_FIRST[own.language], attribute=attribute)
            yield _row(STRATEGY, own.language, _scope(kind, attribute=attribute), words, why=why, evidence=evidence)
        if action and own.category:
            words = _fitted(_ACTION[own.language], action=action)
            # What invites to a book invites to no lamp.
            yield _row(STRATEGY, own.language, _scope(kind, category=own.category), words, why=why, evidence=evidence)


def _told(shop: Shop, kind: Kind, own: Written, leader: Leader) -> tuple[str, dict[str, Any]]:
    segment_id, scenario, _, channel = kind
    evidence = {
        "creative_id": leader.creative_id,
        "impressions": leader.counts[0],
        "clicks": leader.counts[1],
        "others": leader.others,
        "other_impressions": leader.other_counts[0],
        "other_clicks": leader.other_counts[1],
        "difference": leader.difference,
        "difference_low": leader.low,
        "difference_high": leader.high,
        "confidence": shop.evaluation.confidence,
        "compared": leader.compared,
    }
    thousands = {"difference": leader.difference, "low": leader.low, "high": leader.high}
    why = _WHY_LEADS[shop.language].format(
        **evidence
        | {name: 1000 * value for name, value in thousands.items()}
        | {"segment_id": segment_id, "scenario": scenario, "channel": channel, "headline": own.headline}
    )
    return why, evidence


def _leaders(connection: Connection, shop: Shop, day: date, shown: Sequence[Shown]) -> dict[Kind, Leader]:
    """Kind → the creative that surely leads it, where there is one."""
    kinds = [one for one in shown if len(one.counts) > 1]
    compared = sum(len(one.counts) for one in kinds)
    if not compared:
        return {}
    alpha = (1 - shop.evaluation.confidence) / (compared * PERIODS_A_YEAR)
    found = {}
    for kind in kinds:
        # The clustered interval is never narrower than this one: persons are looked at where it is worth it.
        name, p_value = _first_of(kind)
        if (
            p_value <= alpha
            and (leader := _confirmed(connection, day, kind, name, alpha=alpha, compared=compared)) is not None
        ):
            found[kind.kind] = leader
    return found


def _first_of(kind: Shown) -> tuple[str, float]:
    """The creative furthest ahead of the others together, and its p as if persons were impressions."""
    names = sorted(kind.counts)
    strata = sorted({stratum for counts in kind.counts.values() for stratum in counts})
    table = np.array(
        [[kind.counts[name].get(stratum, (0, 0)) for stratum in strata] for name in names], dtype=np.float64
    )
    own = np.stack([table.sum(0) - table, table], axis=-2)  # creatives, strata, (others, own), (impressions, clicks)
    evidence = sequences.stratified(own[..., 0], own[..., 1], np.zeros(len(names)))
    p_values = np.where(evidence.difference > 0, evidence.p_value, 1.0)
    best = int(np.argmin(p_values))
    return names[best], float(p_values[best])


def _confirmed(
    connection: Connection, day: date, kind: Shown, name: str, *, alpha: float, compared: int
) -> Leader | None:
    """The leader with its interval, clustered by user; None: with it the difference may be none."""
    bound = {"day": day, "since": since(day), "segment_id": kind.kind[0], "leader": name}
    rows = connection.execute(_PERSONS, bound | {"creatives": sorted(kind.counts)}).all()
    if not rows:
        return None
    shown_on, policies, placements, sides, persons, *counts = zip(*rows, strict=True)
    strata = _numbers(list(zip(shown_on, policies, placements, strict=True)))
    side, person = np.array(sides, dtype=np.intp), _numbers(list(persons))
    impressions, clicks = (np.array(one, dtype=np.float64) for one in counts)
    evidence = clustered(strata, side, person, impressions, clicks)
    low, high = evidence.interval(alpha)
    if not float(evidence.p_value) <= alpha or not float(low) > 0:
        return None
    others, own = ((int(impressions[side == one].sum()), int(clicks[side == one].sum())) for one in (0, 1))
    return Leader(
        name, own, len(kind.counts) - 1, others, float(evidence.difference), float(low), float(high), compared
    )


def clustered(strata: Numbers, side: Numbers, person: Numbers, impressions: Floats, clicks: Floats) -> Evidence:
    """What the strata say together of side 1 against side 0, clustered by person; the arrays have a row per cell."""
    shape = (int(strata.max()) + 1, 2)
    trials, successes, clusters = (np.zeros(shape) for _ in range(3))
    for counted, values in ((trials, impressions), (successes, clicks), (clusters, np.ones_like(clicks))):
        np.add.at(counted, (strata, side), values)
    success, miss = sequences.cell_scores(trials, successes, clusters)
    scores = clicks * success[strata, side] + (impressions - clicks) * miss[strata, side]
    return sequences.stratified(trials, successes, float((np.bincount(person, scores) ** 2).sum()), clusters)


def _numbers(values: list[Any]) -> Numbers:
    """Each value's number in order of appearance."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.intp)
