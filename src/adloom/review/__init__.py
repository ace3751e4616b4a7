"""Rules over finished copy, kept as data: each verdict names rule, version, span and reason.

`review_copy` is what others call; the rooms behind it are ``facts`` (does the brief say so), ``law``, ``brand`` and
``safety``. What a finding is stands in ``finding``, what a rule is in `adloom.rule`.
"""

from __future__ import annotations

from dataclasses import replace

from adloom.creative import Brief, Copy
from adloom.review import brand, facts, law, safety
from adloom.review.claims import Evidence, read_evidence
from adloom.review.finding import Finding
from adloom.shop import Shop

__all__ = ["Evidence", "Finding", "read_evidence", "review_copy"]


def review_copy(copy: Copy, brief: Brief, shop: Shop, evidence: Evidence) -> list[Finding]:
    """Everything the review of a text finds: facts, law, brand, safety, in this order. No finding stops another."""
    said = [
        one if one.rule_version else replace(one, rule_version=facts.RULES_VERSION)
        for one in facts.unsupported(copy, brief)
    ]
    return [
        *said,
        *law.violations(copy, brief, shop, evidence),
        *brand.off_brand(copy, brief, shop),
        *safety.unsafe(copy, brief, shop),
    ]
