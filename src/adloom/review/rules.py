"""Rules as data: the YAML files beside this one and a shop's own, read, validated, versioned and looked for in a text.

A text is read several ways, so that a rule cannot be slipped past: normalised (``text.plain``), without what stands
between letters, with letters that stand in for others read as those. A hit inside a phrase that claims nothing is
none; one inside an exemption is a finding that warns and says why it passed. An exemption is read in the text as it
stands: where its spaces are taken out, the sentence after it would be excused as well.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from adloom.creative import Copy, Language
from adloom.errors import AdloomError
from adloom.review.finding import Part
from adloom.review.text import Plain, closed, plain, spelled_together, with_stand_ins
from adloom.rule import Exemption, Rule, RuleFile

HERE = Path(__file__).parent
LATIN = re.compile(r"[a-z0-9]")
HAN = re.compile(r"[\u3400-\u9fff]")
ACROSS_CLAUSES = {"statutory", "near_synonym", "safety"}
"""Tiers whose words are found even where somebody put a comma into them; of others 甜美。白色 would read 美白"""
Spot = tuple[int, int]
"""Places in the original text: first character, and one past the last"""


def read_file(path: Path) -> RuleFile:
    """The rules of a YAML file; `AdloomError` names file, rule and key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AdloomError(f"{path.name} is not readable YAML: {error}", "mend the rule file") from error
    try:
        return RuleFile.model_validate(content)
    except ValidationError as error:
        reasons = "; ".join(f"{_where(content, one['loc'])}: {one['msg']}" for one in error.errors())
        raise AdloomError(f"{path.name}: {reasons}", "mend these keys of the rule file") from error


def _where(content: object, place: tuple[int | str, ...]) -> str:
    """``law.superlative: severity`` for ``rules.3.severity``: people know rules by their id, not by their number."""
    names = [str(one) for one in place]
    if len(place) >= 2 and place[0] == "rules" and isinstance(place[1], int) and isinstance(content, dict):
        row = content["rules"][place[1]]
        name = row.get("id", f"rule {place[1] + 1}") if isinstance(row, dict) else f"rule {place[1] + 1}"
        return f"{name}: {'.'.join(names[2:])}" if names[2:] else str(name)
    return ".".join(names) or "file"


@dataclass(frozen=True)
class Compiled:
    """A rule, ready to be looked for."""

    rule: Rule
    words: re.Pattern[str]
    patterns: tuple[re.Pattern[str], ...]
    not_claims: tuple[re.Pattern[str], ...]
    exemptions: tuple[tuple[re.Pattern[str], Exemption], ...]


@dataclass(frozen=True)
class RuleSet:
    """Rules of one language. ``version`` changes whenever their content does, and with nothing else."""

    language: Language
    rules: tuple[Compiled, ...]
    stand_ins: Mapping[str, str]
    version: str


@dataclass(frozen=True)
class Hit:
    """Words a rule looks for, where they stand in the original, and what excuses them."""

    rule: Rule
    text: str
    spot: Spot
    exemption: Exemption | None = None


@cache
def rule_set(name: str, language: Language) -> RuleSet:
    """The rules of ``review/<name>_<language>.yml``."""
    return compiled(read_file(HERE / f"{name}_{language}.yml"))


@lru_cache(maxsize=64)
def with_own(name: str, language: Language, own: tuple[Rule, ...]) -> RuleSet:
    """Those rules and a shop's own; one with the id of ours takes its place."""
    if not own:
        return rule_set(name, language)
    file = read_file(HERE / f"{name}_{language}.yml")
    replaced = {rule.id for rule in own}
    return compiled(file.model_copy(update={"rules": (*(one for one in file.rules if one.id not in replaced), *own)}))


def compiled(file: RuleFile) -> RuleSet:
    return RuleSet(
        language=file.language,
        rules=tuple(_compiled(rule) for rule in file.rules),
        stand_ins=dict(file.stand_ins),
        version=version_of(file.model_dump(mode="json")),
    )


def version_of(content: object) -> str:
    """Twelve hex digits over the content of rules, whatever their file looks like."""
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _compiled(rule: Rule) -> Compiled:
    return Compiled(
        rule=rule,
        words=re.compile(any_word(rule.words)),
        patterns=tuple(map(re.compile, rule.patterns)),
        not_claims=tuple(map(re.compile, rule.not_claims)),
        exemptions=tuple((re.compile(one.pattern), one) for one in rule.exemptions),
    )


def any_word(words: Iterable[str]) -> str:
    """A pattern for any of ``words``, longest first; Latin ones only as whole words, Chinese ones without spaces."""
    known = {plain(word).text.strip() for word in words}
    return "|".join(_word(word) for word in sorted(known, key=lambda word: (-len(word), word)) if word) or "(?!)"


def _word(word: str) -> str:
    if HAN.search(word):
        word = re.sub(r"[^\w%]", "", word)
    before = r"(?<![a-z0-9])" if LATIN.match(word) else ""
    after = r"(?![a-z0-9])" if LATIN.match(word[-1:]) else ""
    return before + re.escape(word).replace(r"\-", r"[\s-]?").replace(r"\ ", r"[\s-]+").replace("'", "'?") + after


# --- reading a text ----------------------------------------------------------------------------------------------


class Reading:
    """One text in all the ways rules read it."""

    def __init__(self, text: str, language: Language, stand_ins: Mapping[str, str]) -> None:
        self.original = text
        self.language = language
        self.plain = with_stand_ins(plain(text), stand_ins)

    @cached_property
    def joined(self) -> Plain:
        """Without signs between letters; clauses still end."""
        return closed(self.plain) if self.language == "zh" else spelled_together(self.plain)

    @cached_property
    def tight(self) -> Plain:
        """Without signs at all (Chinese)."""
        return closed(self.plain, across_clauses=True) if self.language == "zh" else self.joined

    def span(self, spot: Spot) -> str:
        return self.original[slice(*spot)]


def spot_of(text: Plain, match: re.Match[str]) -> Spot:
    """Where a match of a reading stands in the original."""
    if match.start() == match.end():
        return (0, 0)
    return text.origins[match.start()], text.origins[match.end() - 1] + 1


def hits(reading: Reading, rules: RuleSet) -> Iterator[Hit]:
    """What the rules find, by place; words that claim nothing where they stand are left out."""
    found: dict[tuple[str, Spot], Hit] = {}
    plain, joined = _Phrases(reading.plain), _Phrases(reading.joined)
    for one in rules.rules:
        for text, spot in _spots(reading, one):
            if any(some.covering(one.not_claims, spot) is not None for some in (plain, joined)):
                continue
            number = plain.covering([pattern for pattern, _ in one.exemptions], spot)
            exemption = None if number is None else one.exemptions[number][1]
            found.setdefault((one.rule.id, spot), Hit(one.rule, text, spot, exemption))
    yield from sorted(found.values(), key=lambda hit: (hit.spot, hit.rule.id))


def _spots(reading: Reading, one: Compiled) -> Iterator[tuple[str, Spot]]:
    through = reading.tight if one.rule.tier in ACROSS_CLAUSES else reading.joined
    for text in (reading.plain, through):
        for match in one.words.finditer(text.text):
            yield match[0], spot_of(text, match)
    for text in (reading.plain, reading.joined):
        for pattern in one.patterns:
            for match in pattern.finditer(text.text):
                if match[0].strip():
                    yield match[0], spot_of(text, match)


class _Phrases:
    """Where patterns match in one text, each looked for once however many hits ask."""

    def __init__(self, text: Plain) -> None:
        self._text = text
        self._found: dict[re.Pattern[str], list[Spot]] = {}

    def covering(self, patterns: Iterable[re.Pattern[str]], spot: Spot) -> int | None:
        """Number of the first pattern with a match that holds the whole spot."""
        for number, pattern in enumerate(patterns):
            if pattern not in self._found:
                self._found[pattern] = [spot_of(self._text, match) for match in pattern.finditer(self._text.text)]
            if any(start <= spot[0] and spot[1] <= end for start, end in self._found[pattern]):
                return number
        return None


def parts_of(copy: Copy) -> Iterator[tuple[Part, str]]:
    """Every part of a copy that is read by itself."""
    yield "headline", copy.headline
    yield "body", copy.body
    yield "call_to_action", copy.call_to_action
    for tag in copy.hashtags:
        yield "hashtags", tag
