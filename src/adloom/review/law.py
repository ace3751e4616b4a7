"""Does a copy say what advertising law forbids, or what it allows only with evidence?

What is looked for is data: ``law_zh.yml``, ``law_en.yml`` and a shop's own rules. Words block by their tier; claims
that evidence can make good (prices, dates, ranks) are held against it (``claims.py``). An exemption does not silence
a finding: it becomes one that warns and says why it passed. Not legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adloom.creative import Brief, Copy, Language
from adloom.review.claims import Answer, Asked, Evidence, answer
from adloom.review.finding import Finding, Part
from adloom.review.rules import Hit, Reading, RuleSet, hits, parts_of, with_own
from adloom.review.text import plain, squeezed
from adloom.rule import RecordedExemption, Rule
from adloom.shop import Shop

NOTHING = Evidence()
GENERAL = {"near_synonym", "contextual"}
"""Tiers that know nothing of evidence"""
STRICTNESS = ("statutory", "near_synonym", "contextual")
"""Tiers of words, the stricter first; such words may be part of a registered name"""
_TITLED = re.compile(r"《[^《》]{1,40}》")
Parts = list[tuple[Part, str]]


@dataclass(frozen=True)
class _Case:
    """What a hit is judged by, beside itself."""

    rules: RuleSet
    whole: str
    """all of the copy, normalised"""
    brief: Brief | None
    evidence: Evidence
    recorded: tuple[RecordedExemption, ...] = ()


def violations(copy: Copy, brief: Brief, shop: Shop, evidence: Evidence = NOTHING) -> list[Finding]:
    """What the law rules find in ``copy``, in the order of its parts."""
    rules = with_own("law", brief.language, shop.review.rules)
    return _found(list(parts_of(copy)), rules, brief, evidence, shop.review.exemptions)


def text_violations(text: str, language: Language, evidence: Evidence = NOTHING) -> list[Finding]:
    """The same for a plain text that no brief ordered; every finding's part is ``body``."""
    return _found([("body", text)], with_own("law", language, ()), None, evidence)


def found_in(parts: Parts, brief: Brief, evidence: Evidence = NOTHING) -> list[Finding]:
    """What our own rules find in some parts of a copy for ``brief``."""
    return _found(parts, with_own("law", brief.language, ()), brief, evidence)


def _found(
    parts: Parts,
    rules: RuleSet,
    brief: Brief | None,
    evidence: Evidence,
    recorded: tuple[RecordedExemption, ...] = (),
) -> list[Finding]:
    case = _Case(rules, plain("\n".join(text for _, text in parts)).text, brief, evidence, recorded)
    found: list[Finding] = []
    for part, text in parts:
        reading = Reading(text, rules.language, rules.stand_ins)
        judged = [_finding(hit, part, reading, case) for hit in _without_general(list(hits(reading, rules)))]
        found += _without_doubles([one for one in judged if one is not None], rules)
    return list(dict.fromkeys(found))


def _without_general(found: list[Hit]) -> Iterator[Hit]:
    """第一 inside 销量第一 is judged by the rule of ranks, whose evidence may make it good; 最低 by that of prices."""
    special = [hit.spot for hit in found if hit.rule.check is not None]
    for hit in found:
        inside = any(start <= hit.spot[0] and hit.spot[1] <= end for start, end in special)
        if not (inside and hit.rule.tier in GENERAL):
            yield hit


def _finding(hit: Hit, part: Part, reading: Reading, case: _Case) -> Finding | None:
    """What is to be said of a hit; nothing where evidence makes its claim good."""
    rule, language = hit.rule, case.rules.language
    said: Answer | None = None
    if hit.exemption is not None:
        exemption = hit.exemption.reason.in_language(language)
    elif name := _name_around(hit, reading, case.brief):
        exemption = f"是名称的一部分：{name}" if language == "zh" else f"part of a name: {name}"
    else:
        after = plain(reading.original[hit.spot[1] : hit.spot[1] + 20]).text
        said = answer(Asked(rule, hit.text, after, case.whole, language, case.brief, case.evidence))
        if said is None:
            return None
        exemption = said.note if said.exempts else _recorded(hit, case)
    return Finding(
        rule_id=rule.id,
        part=part,
        span=reading.span(hit.spot),
        severity="warn" if exemption else (said.severity if said else rule.severity),
        reason=_reason(rule, said, exemption, language),
        start=hit.spot[0],
        rule_version=case.rules.version,
        source=rule.source,
        exemption=exemption,
    )


def _reason(rule: Rule, said: Answer | None, exemption: str, language: Language) -> str:
    text = rule.reason.in_language(language)
    if said is not None and said.note and not said.exempts:
        text += f"：{said.note}" if language == "zh" else f": {said.note}"
    text += f"（{rule.source}）" if language == "zh" else f" ({rule.source})"
    if exemption:
        text += f"；放行理由：{exemption}" if language == "zh" else f"; let pass: {exemption}"
    return text


def _name_around(hit: Hit, reading: Reading, brief: Brief | None) -> str:
    """The brand, event or titled work of the brief whose name holds the hit, as the copy writes it."""
    if brief is None or hit.rule.tier not in STRICTNESS:
        return ""
    names = [brief.item.brand, *(_TITLED.findall(brief.item.title))]
    if brief.event is not None:
        names.append(brief.event.title)
    for name in names:
        # 最佳 as a whole name would open the door to every other 最佳.
        if len(squeezed(name)) <= len(squeezed(hit.text)):
            continue
        for match in re.finditer(re.escape(name), reading.original):
            if match.start() <= hit.spot[0] and hit.spot[1] <= match.end():
                return name
    return ""


def _recorded(hit: Hit, case: _Case) -> str:
    """The decision of a person that holds for this hit: her reason, her name, its day."""
    shown = case.evidence.shown_on
    for one in case.recorded:
        is_about = one.rule == hit.rule.id and squeezed(one.words) == squeezed(hit.text)
        is_for = not one.items or (case.brief is not None and case.brief.item.item_id in one.items)
        holds = one.until is None or (shown is not None and shown <= one.until)
        if is_about and is_for and holds:
            return f"{one.reason} ({one.recorded_by}, {one.recorded_on.isoformat()})"
    return ""


def _without_doubles(found: list[Finding], rules: RuleSet) -> list[Finding]:
    """Of findings on the same words the one that blocks, of the stricter tier, with the longer span."""
    tiers = {one.rule.id: one.rule.tier for one in rules.rules}
    kept: list[Finding] = []
    for one in sorted(found, key=lambda one: _strength(one, tiers[one.rule_id])):
        others = [other for other in kept if _same_matter(one, other, tiers)]
        if not any(
            one.start < other.start + len(other.span) and other.start < one.start + len(one.span) for other in others
        ):
            kept.append(one)
    return sorted(kept, key=lambda one: (one.start, one.rule_id))


def _strength(one: Finding, tier: str) -> tuple[bool, int, bool, int, int, str]:
    strict = STRICTNESS.index(tier) if tier in STRICTNESS else len(STRICTNESS)
    return one.severity != "block", strict, not one.exemption, -len(one.span), one.start, one.rule_id


def _same_matter(one: Finding, other: Finding, tiers: Mapping[str, str]) -> bool:
    """Is it one rule, or two that see the same words from several sides?"""
    return one.rule_id == other.rule_id or {tiers[one.rule_id], tiers[other.rule_id]} <= set(STRICTNESS)
