"""Verdicts on a shop's comparisons that may be read every day: winner, no difference, needs more, split broken.

A verdict of day D is a function of the facts known by the end of D (`comparisons`) and of statistics that hold at
all looks at once (`sequences`), so days can be evaluated in any order, again, or not at all.

Precedence: a broken split forbids every conclusion; an interval inside ± margin × rate is no difference, even if it
excludes 0 (the shop said that such a difference counts as none); a winner needs its always-valid p, adjusted by Holm
over the comparisons of the day, to be at most 1 − confidence. Holm keeps its promise over all looks: a false winner
on some day takes a p ≤ α / (number of true nulls) on some day, which each null does with that probability at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from sqlalchemy import Connection, select

from adloom.evaluation import sequences
from adloom.evaluation.comparisons import Known, count_units, read_comparison
from adloom.shop import Comparison, Shop
from adloom.warehouse import ledger

Verdict = Literal["winner", "no_difference", "needs_more", "split_broken"]


@dataclass(frozen=True)
class Split:
    """Users (impressions where there are no users) that each arm got, and how surprising that is."""

    units: tuple[int, int]
    are_users: bool
    p_value: float


@dataclass(frozen=True)
class Finding:
    """What a day's evidence says about one comparison. ``needed_more`` is None where it cannot be projected."""

    comparison: Comparison
    trials: tuple[int, int]
    successes: tuple[int, int]
    difference: float | None
    low: float | None
    high: float | None
    p_value: float
    p_adjusted: float
    together: int
    verdict: Verdict
    winner: str | None
    needed_more: int | None
    split: Split | None


def evaluate_comparisons(connection: Connection, shop: Shop, day: date) -> None:
    """Replace the day's rows of ``adloom.comparison_days`` and ``adloom.verdicts`` (one per started comparison)."""
    started = [one for one in shop.evaluation.comparisons if one.started_on <= day]
    known = [read_comparison(connection, shop, one, day) for one in started]
    adjusted = holm([float(one.evidence.p_value) for one in known])
    rows = []
    for comparison, facts, p_adjusted in zip(started, known, adjusted, strict=True):
        split = _read_split(connection, shop, comparison, day, facts.carried_to)
        finding = judge(shop, comparison, facts, p_adjusted=p_adjusted, together=len(started), split=split)
        rows.append(_row(shop, day, facts, finding))
    strata = [row for one, facts in zip(started, known, strict=True) for row in facts.rows(shop, one, day)]
    ledger.replace_rows(connection, ledger.comparison_days, {"day": day}, strata)
    ledger.replace_rows(connection, ledger.verdicts, {"day": day}, rows)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment: the smallest of m is multiplied by m, the next by m − 1, …, and none overtakes another.

    Three lines here, because statsmodels' own takes 2 s to import and .15 s a call (it collects garbage each time).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(one) for one in adjusted]


def judge(
    shop: Shop,
    comparison: Comparison,
    facts: Known,
    *,
    p_adjusted: float,
    together: int = 1,
    split: Split | None = None,
) -> Finding:
    """The verdict on one of ``together`` comparisons."""
    evidence = facts.evidence
    alpha = 1 - shop.evaluation.confidence
    difference, rate = _finite(evidence.difference), _finite(evidence.rate)
    low, high = (_finite(bound) for bound in evidence.interval(alpha))
    margin = None if rate is None else comparison.margin * rate
    enough = evidence.successes >= sequences.MINIMUM_SUCCESSES

    verdict: Verdict = "needs_more"
    winner = needed_more = None
    if split is not None and split.p_value < shop.evaluation.sample_ratio_p:
        verdict = "split_broken"
    elif enough and None not in (low, high, margin) and -margin <= low and high <= margin:  # type: ignore[operator]
        verdict = "no_difference"
    elif difference is not None and p_adjusted <= alpha:
        verdict = "winner"
        winner = comparison.arms[int(difference > 0)]
    else:
        needed_more = _needed_more(evidence, difference, margin, int(facts.trials.sum()), alpha / together)

    trials, successes = facts.trials.sum(axis=0), facts.successes.sum(axis=0)
    return Finding(
        comparison=comparison,
        trials=(int(trials[0]), int(trials[1])),
        successes=(int(successes[0]), int(successes[1])),
        difference=difference,
        low=low,
        high=high,
        p_value=float(evidence.p_value),
        p_adjusted=p_adjusted,
        together=together,
        verdict=verdict,
        winner=winner,
        needed_more=needed_more,
        split=split,
    )


def _needed_more(
    evidence: sequences.Evidence, difference: float | None, margin: float | None, trials: int, alpha: float
) -> int | None:
    """Further trials of both arms until a verdict, with a chance of 80 %, if the difference stays what it is now.

    A difference beyond the margin has to be told from 0; a smaller one from 0 or from the margin, whichever is
    further. Rounded up to two digits, because it is a projection.
    """
    if difference is None or not margin:
        return None
    size = abs(difference)
    effect = size if size >= margin else max(size, margin - size)
    growth = sequences.projected_growth(float(evidence.weight), float(evidence.variance), effect, alpha)
    growth = max(growth, sequences.MINIMUM_SUCCESSES / float(evidence.successes))
    more = max(1, math.ceil(trials * (growth - 1)))
    step = 10 ** max(0, len(str(more)) - 2)
    return -(-more // step) * step


def _read_split(
    connection: Connection, shop: Shop, comparison: Comparison, day: date, carried_to: date | None
) -> Split | None:
    """The sample-ratio check, of impressions whatever the metric; None where no split was intended.

    Where early impressions are gone, the smaller of the p of those still there and the p stored when the early ones
    were, doubled, because either could have been called broken.
    """
    if comparison.intended_shares is None:
        return None
    reference, challenger, are_users = count_units(connection, shop, comparison, day, carried_to)
    p_value = float(sequences.split_p_value((reference, challenger), comparison.intended_shares))
    if carried_to is not None:
        stored = ledger.verdicts.c
        before = connection.scalar(
            select(stored.sample_ratio_p)
            .where(stored.comparison == comparison.id, stored.day <= carried_to, stored.sample_ratio_p.is_not(None))
            .order_by(stored.day.desc())
            .limit(1)
        )
        p_value = min(1.0, 2 * min(p_value, 1.0 if before is None else before))
    return Split((reference, challenger), are_users, p_value)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _row(shop: Shop, day: date, facts: Known, finding: Finding) -> dict[str, Any]:
    comparison = finding.comparison
    return {
        "day": day,
        "comparison": comparison.id,
        "metric": comparison.metric,
        "campaign_id": comparison.campaign_id,
        "arm_a": comparison.arms[0],
        "arm_b": comparison.arms[1],
        "started_on": comparison.started_on,
        "verdict": finding.verdict,
        "winner": finding.winner,
        "trials_a": finding.trials[0],
        "successes_a": finding.successes[0],
        "trials_b": finding.trials[1],
        "successes_b": finding.successes[1],
        "difference": finding.difference,
        "difference_low": finding.low,
        "difference_high": finding.high,
        "p_value": finding.p_value,
        "p_adjusted": finding.p_adjusted,
        "sample_ratio_p": finding.split.p_value if finding.split else None,
        "needed_more": finding.needed_more,
        "carried_to": facts.carried_to,
        "sentence": sentence(finding, shop.language, shop.evaluation.confidence),
    }


_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "ctr": "impressions",
        "cr": "clicks",
        "ctr_successes": "clicks",
        "cr_successes": "conversions",
        "users": "users",
        "impressions": "impressions",
        "arm": "{arm}: {successes} {success} in {trials} {unit} ({rate})",
        "empty_arm": "{arm} has no {unit} yet",
        "empty_cr_arm": "{arm} has no mature click cohort yet",
        "versus": "{b}; {a}.",
        "ahead": "{versus} {b} gets {difference} {successes} per 1,000 {unit}{within}; {range}. {end}",
        "level": "{versus} {b} and {a} get as many {successes} per 1,000 {unit} so far{within}; {range}. {end}",
        "more": "{count} more",
        "fewer": "{count} fewer",
        "within": ", compared within each day and placement",
        "possible": "anything from {low} to {high} is possible ({confidence} interval, valid however often you look)",
        "between": "the true difference is likely between {low} and {high} "
        "({confidence} interval, valid however often you look)",
        "apart": "{versus} Never enough of both on one day in one placement to compare them. {end}",
        "broken": "{versus} {end}",
        "winner": "{winner} wins.",
        "no_difference": "No difference that matters (less than {margin} of the rate counts as none).",
        "needs_more": "Not decided: about {more} more {unit} are needed, if the difference stays as it is.",
        "needs_more_together": "Not decided, as {together} comparisons are read together: about {more} more {unit} are "
        "needed, if the difference stays as it is.",
        "needs_unknown": "Not decided: too few {successes} to say how many more {unit} are needed.",
        "split_broken": (
            "The split is broken: {shares} was meant, {units} {unit} came, so nothing can be concluded from it."
        ),
    },
    "zh": {
        "ctr": "展示",
        "cr": "点击",
        "ctr_successes": "点击",
        "cr_successes": "转化",
        "users": "位用户",
        "impressions": "次展示",
        "arm": "{arm}：{trials} 次{unit}中 {successes} 次{success}（{rate}）",
        "empty_arm": "{arm} 尚无{unit}",
        "empty_cr_arm": "{arm} 尚无已成熟的点击批次",
        "versus": "{b}；{a}。",
        "ahead": "{versus}{b} 每千次{unit}{difference}{successes}{within}；{range}。{end}",
        "level": "{versus}目前 {b} 与 {a} 每千次{unit}的{successes}相同{within}；{range}。{end}",
        "more": "多 {count} 次",
        "fewer": "少 {count} 次",
        "within": "（按天与版位分别比较）",
        "possible": "从{low}到{high}都有可能（{confidence} 区间，每天查看也有效）",
        "between": "真实差别很可能在{low}与{high}之间（{confidence} 区间，每天查看也有效）",
        "apart": "{versus}两者从未在同一天同一版位有足够数据，无法比较。{end}",
        "broken": "{versus}{end}",
        "winner": "{winner} 胜出。",
        "no_difference": "没有差别（小于比率的 {margin} 视为无差别）。",
        "needs_more": "尚无定论：若差别保持不变，大约还需要 {more} 次{unit}。",
        "needs_more_together": "同时比较 {together} 项，尚无定论：若差别保持不变，大约还需要 {more} 次{unit}。",
        "needs_unknown": "尚无定论：{successes}太少，暂时无法估计还需要多少{unit}。",
        "split_broken": "分流异常：原定 {shares}，实际 {units} {unit}，因此不能下任何结论。",
    },
}


def sentence(finding: Finding, language: Literal["zh", "en"], confidence: float = 0.95) -> str:
    """The finding for a marketer: counts, difference and interval per 1,000, and what follows.

    A broken split gets counts only: a difference and an interval would look like a finding.
    """
    words = _WORDS[language]
    comparison = finding.comparison
    metric = comparison.metric
    rates = [x / n if n else None for x, n in zip(finding.successes, finding.trials, strict=True)]
    digits = 2 if max(rate or 0 for rate in rates) >= 0.001 else 4

    def arm(side: int) -> str:
        name, rate = comparison.arms[side], rates[side]
        if rate is None:
            return words["empty_cr_arm" if metric == "cr" else "empty_arm"].format(arm=name, unit=words[metric])
        return words["arm"].format(
            arm=name,
            rate=f"{rate * 100:.{digits}f} %",
            successes=f"{finding.successes[side]:,}",
            trials=f"{finding.trials[side]:,}",
            unit=words[metric],
            success=words[f"{metric}_successes"],
        )

    def per_thousand(value: float) -> str:
        rounded = round(value * 1000, digits - 1)
        return words["fewer" if rounded < 0 else "more"].format(count=f"{abs(rounded):,.{digits - 1}f}")

    versus = words["versus"].format(a=arm(0), b=arm(1))
    end = _ending(finding, words)
    if finding.verdict == "split_broken":
        return words["broken"].format(versus=versus, end=end)
    if finding.difference is None or finding.low is None or finding.high is None:
        return words["apart"].format(versus=versus, end=end)
    shown = per_thousand(finding.difference)
    is_plain = None not in rates and per_thousand(rates[1] - rates[0]) == shown  # type: ignore[operator]
    bounds = sorted((finding.low, finding.high), key=abs) if finding.high < 0 else (finding.low, finding.high)
    excludes_zero = finding.low > 0 or finding.high < 0
    return words["ahead" if round(finding.difference * 1000, digits - 1) else "level"].format(
        versus=versus,
        a=comparison.arms[0],
        b=comparison.arms[1],
        difference=shown,
        successes=words[f"{metric}_successes"],
        unit=words[metric],
        within="" if is_plain else words["within"],
        range=words["between" if excludes_zero else "possible"].format(
            low=per_thousand(bounds[0]), high=per_thousand(bounds[1]), confidence=f"{confidence * 100:g} %"
        ),
        end=end,
    )


def _ending(finding: Finding, words: dict[str, str]) -> str:
    comparison = finding.comparison
    unit, successes = words[comparison.metric], words[f"{comparison.metric}_successes"]
    if finding.verdict == "split_broken" and finding.split and comparison.intended_shares:
        return words["split_broken"].format(
            shares=" / ".join(f"{share * 100:g} %" for share in comparison.intended_shares),
            units=" / ".join(f"{count:,}" for count in finding.split.units),
            unit=words["users" if finding.split.are_users else "impressions"],
        )
    if finding.verdict == "winner":
        return words["winner"].format(winner=finding.winner)
    if finding.verdict == "no_difference":
        return words["no_difference"].format(margin=f"{comparison.margin * 100:g} %")
    if finding.needed_more is None:
        return words["needs_unknown"].format(unit=unit, successes=successes)
    excludes_zero = finding.low is not None and finding.high is not None and finding.low * finding.high > 0
    form = "needs_more_together" if excludes_zero and finding.together > 1 else "needs_more"
    return words[form].format(more=f"{finding.needed_more:,}", unit=unit, together=finding.together)
