"""What one rule of the review holds: who may edit it needs no code, and a mistake is named by file and key.

Rules stand in YAML beside the review (``review/*.yml``) and, a shop's own, in its shop file under ``review``.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Tier = Literal[
    "statutory", "near_synonym", "contextual", "evidence", "price", "category", "conduct", "safety", "message"
]
Check = Literal[
    "source", "fact", "reference_price", "lowest_price", "reduction", "campaign", "campaign_end", "campaign_days",
    "stock", "phone", "identity_number", "bank_number",
]  # fmt: skip
"""What a claim is held against (``review/claims.py``), and what a number is checked to be (``review/safety.py``)"""
Severity = Literal["block", "warn"]
Language = Literal["zh", "en"]


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compiles)]
RuleId = Annotated[str, Field(pattern=r"^(law|brand|safety)\.[a-z][a-z0-9_]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wording(_Part):
    """The same sentence in the languages copy is written in."""

    zh: str = ""
    en: str = ""

    @model_validator(mode="after")
    def _says_something(self) -> Wording:
        if not (self.zh or self.en):
            raise ValueError("say it in zh, in en or in both")
        return self

    def in_language(self, language: str) -> str:
        """In ``language``, or in the other one where nobody wrote it in this one."""
        return (self.zh or self.en) if language == "zh" else (self.en or self.zh)


class Example(_Part):
    """A text the rule finds (``span``), or, as an exemption's, one it lets pass."""

    text: str = Field(min_length=1)
    span: str = ""


class Exemption(_Part):
    """Words around a hit that make it no violation. The hit still is a finding: it warns, and says why it passed."""

    pattern: Pattern = Field(description="covers the hit, in normalised text")
    reason: Wording
    example: str = Field(min_length=1, description="a text that passes by it")


class Rule(_Part):
    """One row of a rule file; words and patterns are read in normalised text (``review/text.py``)."""

    id: RuleId
    tier: Tier
    severity: Severity
    source: str = Field(min_length=1, description="the article, or the principle behind the rule")
    reason: Wording
    words: tuple[str, ...] = Field(default=(), description="found through spaces and signs between their letters")
    patterns: tuple[Pattern, ...] = Field(default=(), description="regular expressions")
    not_claims: tuple[Pattern, ...] = Field(default=(), description="phrases that hold the words and claim nothing")
    exemptions: tuple[Exemption, ...] = ()
    check: Check | None = Field(default=None, description="evidence that makes the claim good")
    days: int | None = Field(default=None, ge=1, description="for a check: within so many days")
    example: Example
    harmless: tuple[str, ...] = Field(default=(), description="texts in which the rule must find nothing")

    @model_validator(mode="after")
    def _looks_for_something(self) -> Rule:
        if not (self.words or self.patterns):
            raise ValueError("words or patterns: name what is looked for")
        return self


class RuleFile(_Part):
    """A file of rules in one language."""

    language: Language
    stand_ins: dict[str, str] = Field(default={}, description="letters written in place of others to slip through")
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ids_differ(self) -> RuleFile:
        ids = [rule.id for rule in self.rules]
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"two rules share the id {twice[0]}")
        return self


class MessageRule(_Part):
    """What a brand's copy must or must never say: everywhere, or in some channels, scenarios or languages."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["must", "never"]
    pattern: Pattern = Field(description="regular expression over normalised text: lower case, half width, simplified")
    channels: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    languages: tuple[Language, ...] = ()
    parts: tuple[Literal["headline", "body", "call_to_action", "hashtags"], ...] = ()
    severity: Severity = "block"
    reason: str = Field(min_length=1)
    example: str = Field(min_length=1, description="a text that breaks the rule")


class RecordedExemption(_Part):
    """A person's decision that words a rule blocks may run: who decided, why, for what, until when."""

    rule: RuleId
    words: str = Field(min_length=1, description="what the copy says, in any spelling")
    reason: str = Field(min_length=1)
    recorded_by: str = Field(min_length=1)
    recorded_on: datetime.date
    until: datetime.date | None = Field(default=None, description="the last day it holds")
    items: tuple[str, ...] = Field(default=(), description="item ids; empty: all")


class Claim(_Part):
    """Evidence for a claim: who says it, as of when, about what. All three, or it is none."""

    text: str = Field(min_length=1, description="the claim as copy may word it: 销量第一")
    source: str = Field(min_length=1)
    date: datetime.date
    scope: str = Field(min_length=1, description="what it holds for: market, category, period")
    until: datetime.date | None = Field(default=None, description="the last day it may be used")
    items: tuple[str, ...] = ()


class ShopReview(_Part):
    """A shop's own part of the review."""

    exclusions: tuple[str, ...] = Field(default=(), description="words and phrases that no copy of the brand has")
    messages: tuple[MessageRule, ...] = ()
    competitors: tuple[str, ...] = Field(default=(), description="names that no copy mentions")
    exemptions: tuple[RecordedExemption, ...] = ()
    rules: tuple[Rule, ...] = Field(default=(), description="law rules of the shop's own")
    claims: tuple[Claim, ...] = ()
    allowed_words: tuple[str, ...] = Field(default=(), description="words a list of profanities has and this shop uses")
    audit_every_days: int | None = Field(
        default=7,
        ge=1,
        description="a day's briefs are written again for other genders and ages when another model writes than at the "
        "last such audit, or so many days after it; none: only when somebody runs `adloom audit-copy`",
    )

    @model_validator(mode="after")
    def _ids_differ(self) -> ShopReview:
        for name, ids in (("messages", [one.id for one in self.messages]), ("rules", [one.id for one in self.rules])):
            if len(set(ids)) != len(ids):
                raise ValueError(f"{name}: two of them share an id")
        return self
