"""Would the copy have been another one for another gender or age? Counterfactual prompts and what is counted in them.

The same brief is ordered twice, with words for the audience that differ in a gender or an age band and in nothing else.
Of the copies of both sides it is counted how many name a price, name an offer, or hold words of a kind of tone
(``fairness.yml``); a difference of shares has Newcombe's interval, with α divided by the number of things counted. It
is held against the shop's limit by its near end, so a difference that chance explains is no verdict. Amounts are
stricter: one that only one side is told, while both are told some, is a difference whatever the counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from adloom.creative import Brief, Copy, Language
from adloom.review import facts, lexicon
from adloom.review.text import plain

LEAST_COPIES = 6
"""On each side, below which nothing is said."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Side:
    """One of the two prompts: the brief with words for a group."""

    trait: str
    group: str
    brief: Brief


@dataclass(frozen=True)
class Difference:
    """What was counted on both sides of one trait."""

    trait: str
    first: str
    second: str
    what: str
    """price | offer | amounts | tone.<kind>"""
    copies: tuple[int, int]
    said: tuple[int, int]
    difference: float | None
    low: float | None
    high: float | None
    verdict: str
    """alike | differs | needs_more"""
    only_one: tuple[str, ...] = ()
    """amounts: those told to one side alone"""


def version() -> str:
    return str(lexicon.words("fairness")["version"])


def sides(brief: Brief, copies: int) -> Iterator[Side]:
    """The counterfactual orders of a brief: every trait's groups, ``copies`` variants each."""
    joint = "，" if brief.language == "zh" else ", "
    for trait, groups in lexicon.words("fairness")["traits"].items():
        for group in groups[brief.language]:
            words = joint.join(part for part in (group, brief.segment_words) if part)
            yield Side(trait, group, brief.model_copy(update={"segment_words": words, "variants": copies}))


def compare(written: Mapping[tuple[str, str], Sequence[Copy]], brief: Brief, limit: float) -> list[Difference]:
    """Every two groups of each trait, from (trait, group) → its copies."""
    found: list[Difference] = []
    for trait, groups in lexicon.words("fairness")["traits"].items():
        for first, second in combinations(groups[brief.language], 2):
            pair = written.get((trait, first), ()), written.get((trait, second), ())
            found += _differences((trait, first, second), pair, brief.language, limit)
    return found


def _differences(
    key: tuple[str, str, str], pair: tuple[Sequence[Copy], Sequence[Copy]], language: Language, limit: float
) -> Iterator[Difference]:
    told = [[_told(copy, language) for copy in copies] for copies in pair]
    names = ["price", "offer", *(f"tone.{kind}" for kind in lexicon.words("fairness")["tone"])]
    alpha = (1 - CONFIDENCE) / len(names)
    sizes = len(pair[0]), len(pair[1])
    for what in names:
        said = (sum(what in one.names for one in told[0]), sum(what in one.names for one in told[1]))
        difference, low, high, verdict = _judged(said, sizes, alpha, limit)
        yield Difference(*key, what, sizes, said, difference, low, high, verdict)
    amounts = [frozenset().union(*(one.amounts for one in side)) for side in told]
    only_one = sorted(amounts[0] ^ amounts[1]) if all(amounts) else []
    verdict = "needs_more" if min(sizes) < LEAST_COPIES else "differs" if only_one else "alike"
    yield Difference(
        *(*key, "amounts", sizes),
        (sum(bool(one.amounts) for one in told[0]), sum(bool(one.amounts) for one in told[1])),
        *(None, None, None, verdict),
        tuple(only_one),
    )


def _judged(
    said: tuple[int, int], sizes: tuple[int, int], alpha: float, limit: float
) -> tuple[float | None, float | None, float | None, str]:
    """(difference, low, high, verdict) of two shares."""
    if min(sizes) < LEAST_COPIES:
        return None, None, None, "needs_more"
    from statsmodels.stats.proportion import confint_proportions_2indep

    difference = said[0] / sizes[0] - said[1] / sizes[1]
    low, high = confint_proportions_2indep(
        said[0], sizes[0], said[1], sizes[1], method="newcomb", compare="diff", alpha=alpha
    )
    return difference, float(low), float(high), "differs" if max(low, -high) > limit else "alike"


@dataclass(frozen=True)
class _Told:
    names: frozenset[str]
    amounts: frozenset[str]


def _told(copy: Copy, language: Language) -> _Told:
    text = plain(copy.text).text
    amounts = facts.amounts_said(text, language)
    names = {"price"} if amounts else set()
    if facts.says_an_offer(text, language):
        names.add("offer")
    names |= {f"tone.{kind}" for kind, pattern in _tones(language).items() if pattern.search(text)}
    return _Told(frozenset(names), amounts)


@cache
def _tones(language: Language) -> Mapping[str, Any]:
    import re

    return {kind: re.compile(lexicon.any_of(row[language])) for kind, row in lexicon.words("fairness")["tone"].items()}


def sentence(one: Difference, language: Language) -> str:
    """The counts, the difference with its interval, and what follows."""
    counts = [f"{said}/{size}" for said, size in zip(one.said, one.copies, strict=True)]
    if language == "zh":
        names = {"price": "提到价格", "offer": "提到优惠", "amounts": "价格与折扣的数额"}
        what = names.get(one.what) or f"{_TONES_ZH[one.what.removeprefix('tone.')]}语气"
        text = f"{one.first} 与 {one.second}，{what}：{counts[0]} 对 {counts[1]} 条文案"
        if one.verdict == "needs_more":
            return text + f"；数据不足，两侧各需至少 {LEAST_COPIES} 条"
        if one.only_one:
            return text + f"；只对一侧出现：{'、'.join(one.only_one)}"
        told = {"alike": "无确定差别", "differs": "差别确定超出店铺上限"}[one.verdict]
        return text + (f"，相差 {_points(one)}；{told}" if one.difference is not None else f"；{told}")
    what = {"price": "a price", "offer": "an offer", "amounts": "amounts and discounts"}.get(one.what) or (
        f"words of the kind {one.what.removeprefix('tone.')}"
    )
    text = f"{one.first} against {one.second}, {what}: {counts[0]} against {counts[1]} copies"
    if one.verdict == "needs_more":
        return text + f"; not enough data, at least {LEAST_COPIES} on each side"
    if one.only_one:
        return text + f"; told to one side only: {', '.join(one.only_one)}"
    told = {"alike": "no sure difference", "differs": "surely beyond the shop's limit"}[one.verdict]
    return text + (f", {_points(one)}; {told}" if one.difference is not None else f"; {told}")


def _points(one: Difference) -> str:
    assert one.difference is not None  # noqa: S101 - for the type checker
    assert one.low is not None  # noqa: S101
    assert one.high is not None  # noqa: S101
    return f"{100 * one.difference:+.0f} [{100 * one.low:+.0f}, {100 * one.high:+.0f}]"


_TONES_ZH = {
    "urging": "催促",
    "cute": "可爱",
    "looks": "外貌",
    "force": "力量",
    "thrift": "省钱",
    "luxury": "奢华",
    "care": "关怀",
    "frail": "老弱",
}
