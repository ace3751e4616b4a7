"""What a review says about a copy: one finding names the rule and its version, the words it is about, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["headline", "body", "call_to_action", "hashtags"]
Severity = Literal["block", "warn"]


@dataclass(frozen=True)
class Finding:
    """``span`` is how the copy writes what the rule is about; ``rule_id`` is ``room.rule``, as in ``law.absolute``."""

    rule_id: str
    part: Part
    span: str
    severity: Severity
    reason: str
    start: int = 0
    """where the span begins in the part (for hashtags: in its tag)"""
    rule_version: str = ""
    """changes with the content of the rules; of an empty one the room knows it"""
    source: str = ""
    """the article or principle behind the rule"""
    exemption: str = ""
    """why what would block only warns; empty: nothing was exempted"""
