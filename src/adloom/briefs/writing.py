"""Writes the briefs of a day: `briefs.jsonl` for whoever writes the copy, and the ledger's account of it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from adloom.briefs.choosing import Chosen, choose
from adloom.briefs.describing import clean, is_in_language
from adloom.briefs.directives import Directives, read_directives
from adloom.briefs.knowing import SHOWN_REFUSALS, Known, read_known
from adloom.briefs.scenarios import ANY, Possible, possible_briefs, shop_channels
from adloom.creative import Brief, ItemFacts, voiced, write_rows
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)

LEAST_ITEMS = 8
"""Items looked at per segment and occasion, even where the budget is small: some will be taken by others."""


@dataclass
class BriefReport:
    """What `write_briefs` did."""

    shop_id: str
    day: date
    path: Path
    briefs: int = 0
    copies: int = 0
    """with all their variants: what the day's budget counts"""
    asked: int = 0
    """briefs with a directive"""
    by_cell: dict[tuple[str, str], int] = field(default_factory=dict)
    """(scenario, language) → briefs"""
    explored: int = 0
    candidates: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """reason → briefs, as far as they are reasons by name"""
    refused_rows: int = 0
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        cells = ", ".join(f"{scenario} {language}: {n}" for (scenario, language), n in sorted(self.by_cell.items()))
        lines = [
            f"{self.briefs:,} briefs of {self.candidates:,} possible ones, {self.explored:,} of them to explore",
            *([f"{self.copies:,} copies are to be written for them"] if self.copies != self.briefs else []),
            *([f"{self.asked:,} of the briefs have a directive"] if self.asked else []),
            *([cells] if cells else []),
            *(f"refused: {reason}" for reason in list(self.refused)[:10]),
        ]
        if self.refused_rows > len(lines):
            lines.append(f"{self.refused_rows:,} rows in adloom.refused_briefs say what was refused and why")
        return "\n".join([*lines, *self.notes])


def write_briefs(shop: Shop, day: date) -> BriefReport:
    """Replace the briefs of ``day`` by those that the facts known by then ask for.

    Marts, evaluation and portraits of the day must have been made. Writes ``creatives/day=…/briefs.jsonl`` in the
    shop's home and the day's rows of ``adloom.briefs`` and ``adloom.refused_briefs``.
    """
    path = shop.creatives / f"day={day}" / "briefs.jsonl"
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            known = read_known(connection, shop, day)
            directives = read_directives(connection, shop, day)
        possible = possible_briefs(shop, known, _most(shop, known), SHOWN_REFUSALS)
        for row, reason in directives.refused:
            said = f"directive “{row.words}” is left out: {reason}"
            possible.refused.add(ANY, row.language, f"directive {row.directive_id}", said, 0)
        chosen = choose(shop, day, possible.candidates, known.clicks, directives.variants)
        briefs = [_brief(shop, day, one, possible, directives) for one in chosen]
        report = BriefReport(shop.id, day, path, candidates=len(possible.candidates))
        _tell(report, shop, briefs, chosen, possible)
        report.notes += directives.notes()
        if report.asked and shop.copywriting.endpoint is None:
            report.notes.append(
                f"the local model is not told the directives of {report.asked:,} briefs, because it repeats their "
                "words: it gets the facts and variants they ask for; an endpoint is told"
            )
        report.notes += [
            f"{items:,} items without their price: campaign {campaign_id} begins or ends overnight"
            for campaign_id, items in known.unpriced.items()
        ]
        write_rows(path, briefs)
        with engine.begin() as connection:
            _store(connection, day, briefs, chosen, possible)
    for line in str(report).splitlines():
        log.info("%s %s: %s", shop.id, day, line)
    return report


def _most(shop: Shop, known: Known) -> int:
    """Items per segment and occasion: so many that there is about four times the budget to choose from."""
    names = sum(len(shop_channels(shop, language)) for language in shop.languages)
    occasions = 2 + len(known.campaigns) + len(known.events)
    slots = max(1, len(known.portraits) * occasions * max(1, names // 2))
    return max(LEAST_ITEMS, math.ceil(4 * shop.copywriting.briefs_per_day / slots))


def _brief(shop: Shop, day: date, chosen: Chosen, possible: Possible, directives: Directives) -> Brief:
    one = chosen.candidate
    channel = shop_channels(shop, one.language)[one.channel]
    facts = possible.facts[one.language][one.item.item_id]
    asked = directives.asked(one, facts)
    brief = Brief(
        scenario=one.scenario,
        language=one.language,
        channel=one.channel,
        segment_id=one.segment.segment_id,
        segment_words=one.segment.words.get(one.language, "") if one.segment.is_personalised else "",
        item=_said(
            facts,
            shop.copywriting.facts_per_brief,
            f"{shop.id}\0{day}\0{one.segment.segment_id}\0{one.scenario}\0{one.channel}",
            {row.attribute for row in asked},
        ),
        related=one.related,
        offer=one.offer,
        event=one.hot_event,
        tone=voiced(channel.tone, shop.voice(one.language), one.language),
        forbidden_words=tuple(word for word in shop.forbidden_words if is_in_language(word, one.language)),
        limits=channel.limits,
        directives=tuple(clean(row.words) for row in asked),
        variants=chosen.variants,
    )
    drawn = hashlib.sha256(f"{shop.id}\0{day}\0{brief.json_line()}".encode()).digest()
    return brief.model_copy(update={"seed": int.from_bytes(drawn[:4], "big") >> 1})


def _said(facts: ItemFacts, most: int, occasion: str, wanted: Container[str]) -> ItemFacts:
    """The item with at most ``most`` of its attributes, in their order: those ``wanted``, and the occasion's own."""

    def drawn(name: str) -> bytes:
        return hashlib.sha256(f"{occasion}\0{facts.item_id}\0{name}".encode()).digest()

    kept = set(sorted(facts.attributes, key=lambda name: (name not in wanted, drawn(name)))[:most])
    return facts.model_copy(update={"attributes": {k: v for k, v in facts.attributes.items() if k in kept}})


def _tell(report: BriefReport, shop: Shop, briefs: list[Brief], chosen: list[Chosen], possible: Possible) -> None:
    """Fill the report in."""
    report.briefs = len(briefs)
    report.copies = sum(brief.variants for brief in briefs)
    report.asked = sum(bool(brief.directives) for brief in briefs)
    report.by_cell = dict(Counter((one.scenario, one.language) for one in briefs))
    report.explored = sum(one.chosen_for == "exploration" for one in chosen)
    for _, reason, count in possible.refused:
        report.refused[reason] = report.refused.get(reason, 0) + count
        report.refused_rows += 1
    if shop.brand_voice:
        report.notes += [
            f"the brand voice is not written in {language}: briefs in it have only the channel's tone"
            for language in shop.languages
            if not shop.voice(language)
        ]
    names = {name for language in shop.languages for name in shop_channels(shop, language)}
    report.notes += [
        f"channel {name} is known in no language of the shop" for name in shop.channels if name not in names
    ]


def _store(connection: Connection, day: date, briefs: list[Brief], chosen: list[Chosen], possible: Possible) -> None:
    rows: list[dict[str, Any]] = [
        {
            "day": day,
            "brief_id": brief.brief_id,
            "position": position,
            "scenario": brief.scenario,
            "language": brief.language,
            "channel": brief.channel,
            "segment_id": brief.segment_id,
            "item_id": brief.item.item_id,
            "campaign_id": brief.offer.campaign_id if brief.offer else None,
            "event_id": brief.event.event_id if brief.event else None,
            "chosen_for": one.chosen_for,
            "expected_value": one.value,
            "content": brief.json_line(),
            "evidence": json.dumps(one.evidence, sort_keys=True),
        }
        for position, (brief, one) in enumerate(zip(briefs, chosen, strict=True))
    ]
    ledger.replace_rows(connection, ledger.briefs, {"day": day}, rows)
    refused = [
        {"day": day, "scenario": key[0], "language": key[1], "subject": key[2], "reason": reason, "briefs": count}
        for key, reason, count in possible.refused
    ]
    ledger.replace_rows(connection, ledger.refused_briefs, {"day": day}, refused)
