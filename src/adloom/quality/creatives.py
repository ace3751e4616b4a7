"""What the creatives door judges: is every order written or refused, and may what is written be put before a person?

These figures are taken from the stored rows alone, with rules of their own: what the generator promises to keep is
looked at again by somebody else.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from adloom.creative import Copy, content_hash
from adloom.quality.facts import Facts, Measured, skipped

SHOWN = 3
HAN = re.compile(r"[\u3400-\u9fff]")
CHINESE_SHARE = 0.3
"""Of a Chinese copy's letters, at least: brands, models and units are often Latin, a sentence is not."""


def orders(facts: Facts) -> Measured:
    """Briefs of the day."""
    return Measured(len(facts.ordered), f"{len(facts.ordered)} briefs", len(facts.ordered))


def incomplete(facts: Facts) -> Measured:
    """Briefs without as many creatives as ordered, each written or with a reason; and creatives nobody ordered."""
    found = Counter(
        row["brief_id"] for row in facts.made if row["headline"] is not None or (row["refused_reason"] or "").strip()
    )
    wrong = [
        f"{brief_id}: {found[brief_id]} of {brief['variants']}"
        for brief_id, brief in facts.ordered.items()
        if found[brief_id] != brief["variants"]
    ]
    wrong += [
        f"{brief_id}: not ordered"
        for brief_id in sorted({row["brief_id"] for row in facts.made})
        if brief_id not in facts.ordered
    ]
    return _counted(wrong, len(facts.ordered), "briefs")


def refused(facts: Facts) -> Measured:
    """Share of the ordered copies that could not be written."""
    if not facts.made:
        return skipped("no creatives on the day")
    none, total = len(facts.made) - len(facts.copies), len(facts.made)
    return Measured(none / total, f"{none / total:.0%} ({none} of {total} copies)", total, none)


def unparsed(facts: Facts) -> Measured:
    """Share of the drawn candidates that were no copies at all."""
    drawn = sum(row["candidates"] for row in facts.made if row["variant"] == 0)
    parsed = sum(row["candidates_parsed"] for row in facts.made if row["variant"] == 0)
    if not drawn:
        return skipped("no candidate was drawn on the day")
    return Measured(1 - parsed / drawn, f"{1 - parsed / drawn:.0%} ({drawn - parsed} of {drawn} candidates)", drawn)


def off_limits(facts: Facts) -> Measured:
    """Copies that their channel does not take as they are."""
    return _those(facts, _is_off_limits, "outside their channel's limits")


def forbidden(facts: Facts) -> Measured:
    """Copies with a word that the shop or the brief forbids."""
    return _those(facts, lambda row, brief: _forbidden(row, (*brief["forbidden_words"], *facts.shop.forbidden_words)))


def in_another_language(facts: Facts) -> Measured:
    """Copies that are not in the language they are for."""
    return _those(facts, lambda row, brief: "" if _is_in_language(row, brief) else "another language")


def repeated(facts: Facts) -> Measured:
    """Share of the day's copies that say the same as another one, but for spaces, signs and case."""
    if not facts.copies:
        return skipped("no copies on the day")
    found = Counter((row["language"], re.sub(r"[\W_]+", "", _text(row).lower())) for row in facts.copies)
    twice, total = sum(count - 1 for count in found.values()), len(facts.copies)
    return Measured(twice / total, f"{twice / total:.0%} ({twice} of {total} copies)", total, twice)


def account_similarity(facts: Facts) -> Measured:
    """1 − originals / copies over seven days: the share that the review found to resemble an earlier copy."""
    found = facts.row(
        """
        select count(*) as copies, count(*) filter (where exists (
            select 1 from adloom.reviews as review
            where review.creative_id = creative.creative_id and review.creative_hash = creative.creative_hash
                and review.rule_id = 'similarity.near_duplicate'
        )) as alike
        from adloom.creatives as creative
        where creative.headline is not null and creative.day between cast(:day as date) - 6 and :day
        """
    )
    copies, alike = int(found["copies"]), int(found["alike"])
    if not copies:
        return skipped("no copies in the last seven days")
    return Measured(
        alike / copies, f"{alike / copies:.0%} ({alike} of {copies} copies of the last seven days)", copies, alike
    )


def hashes(facts: Facts) -> Measured:
    """Copies whose hash is not that of what they say: approvals and findings would belong to another text."""
    return _those(facts, lambda row, _: "" if row["creative_hash"] == _copy(row).digest else "another hash")


def unmarked(facts: Facts) -> Measured:
    """Copies whose generator counted claims without a fact, and for which no review has a finding."""

    def is_unmarked(row: Mapping[str, Any], _brief: Mapping[str, Any]) -> str:
        doubtful = json.loads(row["scores"] or "{}").get("warnings", 0) > 0
        return "no finding" if doubtful and not row["findings"] else ""

    return _those(facts, is_unmarked)


def blocked_and_approved(facts: Facts) -> Measured:
    """Creatives that a review blocks and somebody approved as they are: the copy and all pictures made for it."""
    approved = facts.rows(
        """
        select distinct made.creative_id, made.creative_hash, approval.creative_hash as decided
        from adloom.creatives as made
        inner join adloom.reviews as review
            on review.creative_id = made.creative_id and review.creative_hash = made.creative_hash
        inner join adloom.approvals as approval on approval.creative_id = made.creative_id
        where review.day = :day and review.severity = 'block' and approval.decision = 'approved'
        order by made.creative_id
        """
    )
    pictures: dict[str, list[str]] = {}
    for row in facts.rows("select creative_id, digest from adloom.assets where day = :day"):
        pictures.setdefault(row["creative_id"], []).append(row["digest"])
    found = [
        row["creative_id"]
        for row in approved
        if row["decided"] == content_hash(row["creative_hash"], pictures.get(row["creative_id"], ()))
    ]
    return _counted(list(dict.fromkeys(found)), len(facts.copies), "copies")


# -- building blocks ---------------------------------------------------------------------------------------------


def _those(facts: Facts, fault: Callable[[Mapping[str, Any], Mapping[str, Any]], Any], what: str = "") -> Measured:
    """How many copies have a fault; one whose brief is gone is `incomplete`'s business."""
    found = []
    for row in facts.copies:
        brief = facts.ordered.get(row["brief_id"])
        said = fault(row, brief) if brief is not None else ""
        if said:
            found.append(f"{row['creative_id']}: {said if isinstance(said, str) else what}")
    return _counted(found, len(facts.copies), "copies")


def _counted(found: Iterable[str], total: int, what: str) -> Measured:
    names = list(found)
    named = f", such as {'; '.join(names[:SHOWN])}" if names else ""
    return Measured(float(len(names)), f"{len(names)} of {total} {what}{named}", total, len(names))


def _is_off_limits(row: Mapping[str, Any], brief: Mapping[str, Any]) -> str:
    limits = brief["limits"]
    lengths = {name: len(row[name]) for name in ("headline", "body", "call_to_action")}
    faults = [f"{name} of {size} characters" for name, size in lengths.items() if size > limits[name]]
    if lengths["body"] < limits["body_min"]:
        faults.append(f"body of {lengths['body']} characters")
    tags = len(row["hashtags"])
    if not limits["hashtags_min"] <= tags <= limits["hashtags"]:
        faults.append(f"{tags} hashtags")
    return ", ".join(faults)


def _forbidden(row: Mapping[str, Any], words: Iterable[str]) -> str:
    text = unicodedata.normalize("NFKC", _text(row)).lower()
    joined = re.sub(r"\s+", "", text)
    for word in words:
        wanted = unicodedata.normalize("NFKC", word).lower().strip()
        if HAN.search(wanted):
            is_there = re.sub(r"\s+", "", wanted) in joined
        else:
            is_there = bool(wanted and re.search(rf"(?<![a-z0-9]){re.escape(wanted)}(?![a-z0-9])", text))
        if is_there:
            return f"the word {word}"
    return ""


def _is_in_language(row: Mapping[str, Any], brief: Mapping[str, Any]) -> bool:
    if row["language"] != brief["language"]:
        return False
    letters = [letter for letter in f"{row['headline']}{row['body']}" if letter.isalpha()]
    chinese = sum(bool(HAN.match(letter)) for letter in letters)
    if row["language"] == "zh":
        return chinese >= CHINESE_SHARE * len(letters)
    own = "".join(HAN.findall(json.dumps([brief["item"], brief["offer"], brief["event"]], ensure_ascii=False)))
    return all(letter in own for letter in letters if HAN.match(letter))


def _copy(row: Mapping[str, Any]) -> Copy:
    return Copy(
        headline=row["headline"],
        body=row["body"],
        call_to_action=row["call_to_action"],
        hashtags=tuple(row["hashtags"]),
    )


def _text(row: Mapping[str, Any]) -> str:
    return _copy(row).text
