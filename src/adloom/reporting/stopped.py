"""What the review stopped, for a lawyer and a marketer: thrown-away texts, blocked creatives, who waits, what is held.

Texts are cut into pieces, so that the words a finding is about can be marked and everything is still escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adloom.reporting.copies import title_of
from adloom.reporting.facts import Facts, Record
from adloom.shop import Shop

MOST_RULES, MOST_TEXTS, MOST_SENTENCES = 20, 12, 6
AROUND = 60
"""Characters of a long text that are shown on each side of the words a finding is about."""

Piece = tuple[str, bool]
"""(text, is it what the finding is about)"""


@dataclass(frozen=True)
class Told:
    """A text and one thing that was found in it. Every text comes from data: the template escapes it."""

    language: str
    channel: str
    item: str
    pieces: Sequence[Piece]
    rule_id: str
    rule_version: str
    reason: str
    more: int = 0
    """further findings in the same text"""


@dataclass(frozen=True)
class RuleRow:
    """A rule and the candidates it stopped."""

    rule_id: str
    candidates: int
    """those that it stopped first"""
    also: int
    """further kept texts that it would have stopped"""
    example: Told | None


@dataclass(frozen=True)
class Stopped:
    """All that the section says."""

    candidates: int
    """drawn for the day's briefs"""
    stopped: int
    kept: int
    rules: Sequence[RuleRow]
    rules_left_out: int
    blocked: Sequence[Told]
    blocked_count: int
    waiting: Sequence[tuple[str, str, str, Sequence[Record]]]
    """(headline, scenario, channel, findings that warn)"""
    waiting_count: int
    fatigue: Counter[str]
    """verdict → creatives"""
    tired: Sequence[str]
    audited: Counter[str]
    """verdict → comparisons of the audit of copies"""
    audit_briefs: int
    differing: Sequence[str]


def stopped_of(facts: Facts, shop: Shop) -> Stopped:
    """What the section on ``facts.day`` says; empty where there was nothing to stop."""
    rules = list(_rules(facts, shop))
    blocked = list(_blocked(facts))
    waiting = list(_waiting(facts))
    return Stopped(
        candidates=sum(row.candidates for row in facts.copies if row.variant == 0),
        stopped=sum(facts.stopped_counts.values()),
        kept=len({(row.brief_id, row.position) for row in facts.stopped}),
        rules=rules[:MOST_RULES],
        rules_left_out=len(rules[MOST_RULES:]),
        blocked=blocked[:MOST_TEXTS],
        blocked_count=len(blocked),
        waiting=waiting[:MOST_TEXTS],
        waiting_count=len(waiting),
        fatigue=Counter(row.verdict for row in facts.fatigue),
        tired=[row.sentence for row in facts.fatigue if row.verdict == "tired"][:MOST_SENTENCES],
        audited=Counter(row.verdict for row in facts.counterfactuals),
        audit_briefs=len({row.brief_id for row in facts.counterfactuals}),
        differing=[row.sentence for row in facts.counterfactuals if row.verdict == "differs"][:MOST_SENTENCES],
    )


def _rules(facts: Facts, shop: Shop) -> Iterator[RuleRow]:
    """The rules that stopped candidates, most of them first; then those that only found more in the texts kept."""
    blocking = [row for row in facts.stopped if row.severity == "block"]
    # A reader understands an example in the page's language best, and one that this rule alone stopped.
    ordered = sorted(blocking, key=lambda row: (row.rule_id != row.stopped_by, row.language != shop.language))
    examples: dict[str, Record] = {}
    for row in ordered:
        examples.setdefault(row.rule_id, row)
    also: dict[str, set[tuple[str, int]]] = {}
    for row in blocking:
        if row.rule_id != row.stopped_by:
            also.setdefault(row.rule_id, set()).add((row.brief_id, row.position))
    first = facts.stopped_counts
    others = sorted((rule_id for rule_id in also if rule_id not in first), key=lambda one: (-len(also[one]), one))
    for rule_id in (*first, *others):
        example = examples.get(rule_id)
        yield RuleRow(
            rule_id,
            first.get(rule_id, 0),
            len(also.get(rule_id, ())),
            None if example is None else _told(example, example),
        )


def _blocked(facts: Facts) -> Iterator[Told]:
    """The written copies that a review blocks, with the first of its findings."""
    found: dict[tuple[str, str], list[Record]] = {}
    for finding in facts.findings:
        if finding.severity == "block":
            found.setdefault((finding.creative_id, finding.creative_hash), []).append(finding)
    for row in facts.copies:
        findings = found.get((row.creative_id, row.creative_hash))
        if row.headline is not None and findings:
            yield _told(row, findings[0], more=len(findings) - 1)


def _waiting(facts: Facts) -> Iterator[tuple[str, str, str, Sequence[Record]]]:
    for row in facts.copies:
        if row.creative_id in facts.waiting:
            notes = [
                one
                for one in facts.findings
                if (one.creative_id, one.creative_hash) == (row.creative_id, row.creative_hash)
            ]
            yield row.headline, row.scenario, row.channel, notes


def _told(copy: Record, finding: Record, more: int = 0) -> Told:
    return Told(
        language=copy.language,
        channel=copy.channel,
        item=title_of(copy),
        pieces=pieces_of(copy, finding.part, finding.span),
        rule_id=finding.rule_id,
        rule_version=finding.rule_version,
        reason=finding.reason,
        more=more,
    )


def pieces_of(copy: Record, part: str, span: str) -> list[Piece]:
    """What a reader would have seen, headline first, with ``span`` marked where it stands in ``part``."""
    tags = " ".join(f"#{tag}" for tag in json.loads(copy.hashtags or "[]"))
    parts = {
        "headline": copy.headline,
        "body": copy.body,
        "call_to_action": copy.call_to_action,
        "hashtags": tags,
    }
    found: list[Piece] = []
    for name, text in parts.items():
        if text:
            found += [(" / ", False)] * bool(found)
            found += _marked(text, span if name == part else "")
    return [(text, is_marked) for text, is_marked in found if text]


def _marked(text: str, span: str) -> list[Piece]:
    at = text.find(span) if span else -1
    if at < 0:
        return [(text if len(text) <= 2 * AROUND else text[: 2 * AROUND] + "…", False)]
    before, after = text[:at], text[at + len(span) :]
    return [
        (before if len(before) <= AROUND else "…" + before[-AROUND:], False),
        (span, True),
        (after if len(after) <= AROUND else after[:AROUND] + "…", False),
    ]
