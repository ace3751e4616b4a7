"""The new copies of a day as cards of the page: what it says, for whom and where, and what a review found in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from adloom.reporting.facts import Facts, Record
from adloom.reporting.thumbnails import NOTHING, Maker, Shown

SCENARIOS = ("recommendation", "cross_category", "promotion", "social", "hot_event")
MOST_CARDS = 120
"""Beyond it a page is no longer read; the rest is in adloom.creatives."""
MOST_REASONS = 12


@dataclass(frozen=True)
class Card:
    """One copy. Every text comes from data: the template escapes it."""

    creative_id: str
    language: str
    channel: str
    item: str
    segment: str
    """the portrait in words; empty where nothing is personalised"""
    offer: str
    event: str
    headline: str
    body: str
    call_to_action: str
    hashtags: Sequence[str]
    findings: Sequence[Record]
    images: Shown = NOTHING

    @property
    def is_blocked(self) -> bool:
        return any(finding.severity == "block" for finding in self.findings)


@dataclass(frozen=True)
class Scenario:
    """The cards of one scenario."""

    name: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Copies:
    """All that the page says about the day's copies."""

    scenarios: Sequence[Scenario]
    refused: Sequence[tuple[str, str, str, str]]
    """(scenario, language, item, reason) of what could not be written"""
    refused_briefs: Sequence[Record]
    models: Sequence[str]
    briefs: int = 0
    written: int = 0
    not_written: int = 0
    blocked: int = 0
    candidates: int = 0
    parsed: int = 0
    left_out: int = 0
    images: int = 0
    videos: int = 0
    languages: Counter[str] = field(default_factory=Counter)


def copies_of(facts: Facts, thumbnails: Maker = lambda assets: NOTHING) -> Copies | None:
    """The day's copies; None: nothing was ordered or refused on it. ``thumbnails`` makes small pictures of assets."""
    if not facts.copies and not facts.refused_briefs:
        return None
    written = [row for row in facts.copies if row.headline is not None]
    lacking = [row for row in facts.copies if row.headline is None]
    findings: dict[tuple[str, str], list[Record]] = {}
    for finding in facts.findings:
        findings.setdefault((finding.creative_id, finding.creative_hash), []).append(finding)
    cards = [(row.scenario, _card(row, findings.get((row.creative_id, row.creative_hash), []))) for row in written]
    assets: dict[str, list[Record]] = {}
    for asset in facts.assets:
        assets.setdefault(asset.creative_id, []).append(asset)
    shown = [
        (scenario, replace(card, images=thumbnails(assets.get(card.creative_id, ()))))
        for scenario, card in list(_in_turn(cards))[:MOST_CARDS]
    ]
    drawn = [row for row in facts.copies if row.variant == 0]
    return Copies(
        scenarios=[
            Scenario(name, [card for scenario, card in shown if scenario == name])
            for name in SCENARIOS
            if any(scenario == name for scenario, _ in shown)
        ],
        refused=[
            (row.scenario, row.language, title_of(row), row.refused_reason or "") for row in lacking[:MOST_REASONS]
        ],
        refused_briefs=facts.refused_briefs[:MOST_REASONS],
        models=sorted({row.model_id for row in facts.copies}),
        briefs=len({row.brief_id for row in facts.copies}),
        written=len(written),
        not_written=len(lacking),
        blocked=sum(card.is_blocked for _, card in cards),
        candidates=sum(row.candidates for row in drawn),
        parsed=sum(row.candidates_parsed for row in drawn),
        left_out=len(cards) - len(shown),
        images=sum(asset.kind == "image" for asset in facts.assets),
        videos=sum(asset.kind == "video" for asset in facts.assets),
        languages=Counter(row.language for row in written),
    )


def _in_turn(cards: Sequence[tuple[str, Card]]) -> Iterator[tuple[str, Card]]:
    """Every scenario and language in turn, so that a page that cannot hold all of them shows some of each."""
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for place, (scenario, card) in enumerate(cards):
        turns[scenario, card.language] += 1
        ranked.append((turns[scenario, card.language], place))
    kept = sorted(place for _, place in sorted(ranked)[:MOST_CARDS])
    return (cards[place] for place in kept)


def _card(row: Record, findings: Sequence[Record]) -> Card:
    brief = _brief(row)
    return Card(
        creative_id=row.creative_id,
        language=row.language,
        channel=row.channel,
        item=title_of(row),
        segment=brief.get("segment_words") or "",
        offer=(brief.get("offer") or {}).get("text", ""),
        event=(brief.get("event") or {}).get("title", ""),
        headline=row.headline,
        body=row.body,
        call_to_action=row.call_to_action,
        hashtags=json.loads(row.hashtags or "[]"),
        findings=findings,
    )


def _brief(row: Record) -> dict[str, Any]:
    return dict(json.loads(row.content)) if row.content else {}


def title_of(row: Record) -> str:
    """The item's title as the brief of the row's copy has it; its id where the brief is gone."""
    return str((_brief(row).get("item") or {}).get("title") or row.item_id)
