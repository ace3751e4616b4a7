"""Would the copy have been another one for another gender or age? Counterfactual prompts and what is counted in them.

The same brief is ordered twice, with words for the audience that differ in a gender or an age band and in nothing else.
Of the copies of both sides it is counted how many name a price, name an offer, name each amount that any of them
names, or hold words of a kind of tone (``fairness.yml``). A difference of shares has Newcombe's interval (1998, method
10) and is held against the shop's limit by its near end, so a difference that chance explains is no verdict. α is
divided: for words by the number of words, for amounts, which are as many as the copies bring up, by their number, the
pairs and the audit's briefs.
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
    """price | offer | amount.<figure and currency, or share left to pay> | tone.<kind>"""
    copies: tuple[int, int]
    said: tuple[int, int]
    difference: float | None
    low: float | None
    high: float | None
    verdict: str
    """alike (no sure difference) | differs (surely beyond the limit) | needs_more"""


def version() -> str:
    return str(lexicon.words("fairness")["version"])


def traits() -> list[str]:
    """What two prompts may differ in."""
    return list(lexicon.words("fairness")["traits"])


def sides(brief: Brief, copies: int) -> Iterator[Side]:
    """The counterfactual orders of a brief: every trait's groups, ``copies`` variants each."""
    joint = "，" if brief.language == "zh" else ", "
    for trait, groups in lexicon.words("fairness")["traits"].items():
        for group in groups[brief.language]:
            words = joint.join(part for part in (group, brief.segment_words) if part)
            yield Side(trait, group, brief.model_copy(update={"segment_words": words, "variants": copies}))


def compare(
    written: Mapping[tuple[str, str], Sequence[Copy]], brief: Brief, limit: float, briefs: int
) -> list[Difference]:
    """Every two groups of each trait, from (trait, group) → its copies; ``briefs``: how many the audit compares."""
    pairs = [
        (trait, first, second)
        for trait, groups in lexicon.words("fairness")["traits"].items()
        for first, second in combinations(groups[brief.language], 2)
    ]
    found: list[Difference] = []
    for trait, first, second in pairs:
        pair = written.get((trait, first), ()), written.get((trait, second), ())
        found += _differences((trait, first, second), pair, brief.language, limit, len(pairs) * briefs)
    return found


def _differences(
    key: tuple[str, str, str],
    pair: tuple[Sequence[Copy], Sequence[Copy]],
    language: Language,
    limit: float,
    comparisons: int,
) -> Iterator[Difference]:
    """``comparisons``: pairs of prompts of the whole audit."""
    told = [[_told(copy, language) for copy in copies] for copies in pair]
    words = ["price", "offer", *(f"tone.{kind}" for kind in lexicon.words("fairness")["tone"])]
    amounts = sorted(set().union(*(one for side in told for one in side)) - set(words))
    sizes = len(pair[0]), len(pair[1])
    for names, alpha in (
        (words, (1 - CONFIDENCE) / len(words)),
        (amounts, (1 - CONFIDENCE) / max(1, len(amounts) * comparisons)),
    ):
        for what in names:
            said = (sum(what in one for one in told[0]), sum(what in one for one in told[1]))
            difference, low, high, verdict = _judged(said, sizes, alpha, limit)
            yield Difference(*key, what, sizes, said, difference, low, high, verdict)


def _judged(
    said: tuple[int, int], sizes: tuple[int, int], alpha: float, limit: float
) -> tuple[float | None, float | None, float | None, str]:
    """(difference, low, high, verdict) of two shares."""
    # Where even all against none would be no sure difference, nothing can be said of any.
    if not all(sizes) or _interval((sizes[0], 0), sizes, alpha)[0] <= limit:
        return None, None, None, "needs_more"
    low, high = _interval(said, sizes, alpha)
    difference = said[0] / sizes[0] - said[1] / sizes[1]
    return difference, low, high, "differs" if max(low, -high) > limit else "alike"


def _interval(said: tuple[int, int], sizes: tuple[int, int], alpha: float) -> tuple[float, float]:
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        said[0], sizes[0], said[1], sizes[1], method="newcomb", compare="diff", alpha=alpha
    )
    return float(low), float(high)


def _told(copy: Copy, language: Language) -> set[str]:
    """What of all that is counted a copy says, as `Difference.what`."""
    text = plain(copy.text).text
    amounts = facts.amounts_said(text, language)
    names = {f"amount.{amount}" for amount in amounts}
    if amounts:
        names.add("price")
    if facts.says_an_offer(text, language):
        names.add("offer")
    return names | {f"tone.{kind}" for kind, pattern in _tones(language).items() if pattern.search(text)}


@cache
def _tones(language: Language) -> Mapping[str, Any]:
    import re

    return {kind: re.compile(lexicon.any_of(row[language])) for kind, row in lexicon.words("fairness")["tone"].items()}


def sentence(one: Difference, language: Language) -> str:
    """The counts, the difference with its interval, and what follows."""
    counts = [f"{said}/{size}" for said, size in zip(one.said, one.copies, strict=True)]
    kind, _, name = one.what.partition(".")
    if language == "zh":
        names = {"price": "提到价格", "offer": "提到优惠", "amount": f"提到 {name}"}
        what = names.get(kind) or f"{_TONES_ZH[name]}语气"
        text = f"{one.first} 与 {one.second}，{what}：{counts[0]} 对 {counts[1]} 条文案"
        if one.verdict == "needs_more":
            return text + "；文案太少，按店铺上限无法判断"
        told = {"alike": "无确定差别", "differs": "差别确定超出店铺上限"}[one.verdict]
        return f"{text}，相差 {_points(one)}；{told}"
    names = {"price": "a price", "offer": "an offer", "amount": name}
    what = names.get(kind) or f"words of the kind {name}"
    text = f"{one.first} against {one.second}, {what}: {counts[0]} against {counts[1]} copies"
    if one.verdict == "needs_more":
        return text + "; not enough data, too few copies for the shop's limit"
    told = {"alike": "no sure difference", "differs": "surely beyond the shop's limit"}[one.verdict]
    return f"{text}, {_points(one)}; {told}"


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
