"""Does a copy keep to what the brand says and leaves out: excluded words, competitors, messages it must or never has?

All of it is the shop's own data (its shop file: ``forbidden_words`` and ``review``); the version of a finding is a
digest of that data, so it changes whenever somebody edits it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from adloom.creative import Brief, Copy
from adloom.review.finding import Finding, Part
from adloom.review.rules import Reading, any_word, parts_of, spot_of, version_of
from adloom.review.text import plain
from adloom.rule import MessageRule
from adloom.shop import Shop

SOURCE = "the shop's brand rules"
EXCLUSION = "brand.exclusion"
REASONS = {
    EXCLUSION: {"zh": "品牌不用的词", "en": "a word that this brand does not use"},
    "brand.competitor": {"zh": "提到竞争对手", "en": "names a competitor"},
}


def off_brand(copy: Copy, brief: Brief, shop: Shop) -> list[Finding]:
    """What the shop's own rules find in ``copy``."""
    version = rules_version(shop)
    excluded = (*shop.forbidden_words, *shop.review.exclusions, *brief.forbidden_words)
    found: list[Finding] = []
    for part, text in parts_of(copy):
        reading = Reading(text, brief.language, {})
        found += _words(reading, part, EXCLUSION, tuple(excluded), version)
        found += _words(reading, part, "brand.competitor", shop.review.competitors, version)
    for rule in shop.review.messages:
        if applies(rule, brief):
            found += _message(rule, copy, brief, version)
    return list(dict.fromkeys(found))


def rules_version(shop: Shop) -> str:
    """Digest of everything this room reads from the shop file."""
    review = shop.review
    return _version(shop.forbidden_words, review.exclusions, review.competitors, review.messages)


@lru_cache(maxsize=64)
def _version(
    forbidden: tuple[str, ...], exclusions: tuple[str, ...], names: tuple[str, ...], rules: tuple[MessageRule, ...]
) -> str:
    return version_of([forbidden, exclusions, names, [rule.model_dump(mode="json") for rule in rules]])


def applies(rule: MessageRule, brief: Brief) -> bool:
    """Is the rule meant for copy of this channel, scenario and language?"""
    return (
        (not rule.channels or brief.channel in rule.channels)
        and (not rule.scenarios or brief.scenario in rule.scenarios)
        and (not rule.languages or brief.language in rule.languages)
    )


@lru_cache(maxsize=256)
def _any(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(any_word(words))


def _words(reading: Reading, part: Part, rule_id: str, words: tuple[str, ...], version: str) -> Iterator[Finding]:
    seen = set()
    for text in (reading.plain, reading.joined):
        for match in _any(words).finditer(text.text):
            spot = spot_of(text, match)
            if spot in seen:
                continue
            seen.add(spot)
            yield Finding(
                rule_id=rule_id,
                part=part,
                span=reading.span(spot),
                severity="block",
                reason=REASONS[rule_id][reading.language],
                start=spot[0],
                rule_version=version,
                source=SOURCE,
            )


def _message(rule: MessageRule, copy: Copy, brief: Brief, version: str) -> Iterator[Finding]:
    pattern = re.compile(rule.pattern)
    parts = [(part, text) for part, text in parts_of(copy) if not rule.parts or part in rule.parts]
    if rule.kind == "must":
        if not any(pattern.search(plain(text).text) for _, text in parts):
            # What is missing has no place: the finding names the first part it could stand in.
            yield _told(rule, rule.parts[0] if rule.parts else "body", "", 0, version)
        return
    for part, text in parts:
        for spot in _spots(Reading(text, brief.language, {}), pattern):
            yield _told(rule, part, text[slice(*spot)], spot[0], version)


def _spots(reading: Reading, pattern: re.Pattern[str]) -> Iterable[tuple[int, int]]:
    found = {
        spot_of(text, match): None
        for text in (reading.plain, reading.joined)
        for match in pattern.finditer(text.text)
        if match[0]
    }
    return found


def _told(rule: MessageRule, part: Part, span: str, start: int, version: str) -> Finding:
    return Finding(
        rule_id=f"brand.{rule.id}",
        part=part,
        span=span,
        severity=rule.severity,
        reason=rule.reason,
        start=start,
        rule_version=version,
        source=SOURCE,
    )
