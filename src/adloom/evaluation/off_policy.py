"""The gate for a change of policy or model: what would the new one have earned on the old one's logs?

Two estimates from logged propensities, self-normalised inverse propensity (SNIPS) and doubly robust, each with what
decides whether it may be believed: supported mass, effective sample size, largest weight and an interval. Impressions
are taken as independent. Daily updates of posteriors are not gated here: they are capped (`adloom.strategy`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Decision = Literal["passed", "held", "refused"]

LEAST_EFFECTIVE_SAMPLE = 100.0
LARGEST_WEIGHT = 100.0
MODEL_CLICKS = 5.0
"""The doubly robust model of a creative's CTR leans on its context's CTR as if on so many clicks."""


@dataclass(frozen=True)
class Log:
    """Logged choices; equal rows may be given once with their ``count``. All arrays have shape (rows,)."""

    context: NDArray[np.intp]
    """Number of the context the policy saw, such as the placement."""
    action: NDArray[np.intp]
    """Number of the creative shown."""
    propensity: Floats
    """Probability, as logged when serving, with which the creative was chosen in its context."""
    click: Floats
    count: Floats

    def __post_init__(self) -> None:
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            raise ValueError("propensities must lie in (0, 1]: an impression cannot have had no chance")

    def table(self, values: Floats, shape: tuple[int, int]) -> Floats:
        """Sum of ``values`` by context and action."""
        found = np.zeros(shape)
        np.add.at(found, (self.context, self.action), values)
        return found

    def empirical_policy(self, contexts: int, actions: int) -> Floats:
        """Share of each action in each context, shape (contexts, actions): what a policy did, as a target."""
        shown = self.table(self.count, (contexts, actions))
        return shown / np.maximum(shown.sum(-1, keepdims=True), 1)


@dataclass(frozen=True)
class Estimate:
    """What the new policy would earn, as CTR, and whether that may be believed."""

    estimator: Literal["snips", "doubly_robust"]
    impressions: int
    clicks: int
    supported_mass: float
    """Share of the new policy's traffic that the old one has tried; only that part is estimated."""
    effective_sample_size: float
    largest_weight: float
    old_value: float
    new_value: float
    new_low: float
    new_high: float
    difference: float
    difference_low: float
    difference_high: float
    decision: Decision


@dataclass(frozen=True)
class _Value:
    """A target's value on a log: by both estimators, each with its influence function, shape (rows,)."""

    supported_mass: float
    effective_sample_size: float
    largest_weight: float
    snips: tuple[float, Floats]
    doubly_robust: tuple[float, Floats]


def estimate_change(
    log: Log, target: Floats, confidence: float = 0.95, reference: Floats | None = None
) -> tuple[Estimate, Estimate]:
    """SNIPS and doubly robust estimates of replacing the logging policy by ``target`` (contexts, actions).

    With a ``reference`` target that one is replaced instead: both are estimated on the log, and sample size and weight
    are those of the worse founded of the two. Without it the old value is the log's own CTR.

    The value is that of the target's supported part: creatives never shown in a context have no evidence, enter only
    through exploration, and are counted in ``supported_mass``. The doubly robust model is the creative's own CTR in the
    context without the impression at hand, shrunk towards the context's.
    """
    impressions = log.count.sum()
    clicks = (log.count * log.click).sum()
    if not impressions:
        raise ValueError("the log has no impressions")
    value = _value(log, target)
    logged = float(clicks / impressions)
    before = (logged, log.click - logged)
    replaced = _Value(1.0, math.inf, 0.0, before, before) if reference is None else _value(log, reference)
    effective = min(value.effective_sample_size, replaced.effective_sample_size)
    largest = max(value.largest_weight, replaced.largest_weight)

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    found = []
    for name, (new, influence), (old, old_influence) in (
        ("snips", value.snips, replaced.snips),
        ("doubly_robust", value.doubly_robust, replaced.doubly_robust),
    ):
        error = _standard_error(influence, log.count)
        paired = _standard_error(influence - old_influence, log.count)
        difference = new - old
        found.append(
            Estimate(
                estimator=name,  # type: ignore[arg-type]
                impressions=int(impressions),
                clicks=int(clicks),
                supported_mass=value.supported_mass,
                effective_sample_size=effective,
                largest_weight=largest,
                old_value=old,
                new_value=new,
                new_low=new - z * error,
                new_high=new + z * error,
                difference=difference,
                difference_low=difference - z * paired,
                difference_high=difference + z * paired,
                decision=decide(effective, largest, difference + z * paired),
            )
        )
    return found[0], found[1]


def _value(log: Log, target: Floats) -> _Value:
    if target.min() < 0 or not np.allclose(target.sum(-1), 1):
        raise ValueError("the target must be shares that sum to 1 in every context")
    impressions = log.count.sum()
    shown, clicked = log.table(log.count, target.shape), log.table(log.count * log.click, target.shape)
    supported = np.where(shown > 0, target, 0.0)
    context_share = shown.sum(-1) / impressions
    mass = float((context_share * supported.sum(-1)).sum())
    weight = target[log.context, log.action] / log.propensity
    weight_sum = (log.count * weight).sum()
    squares = (log.count * weight**2).sum()
    effective = float(weight_sum**2 / squares) if squares else 0.0
    old = float((log.count * log.click).sum() / impressions)

    mean_weight = weight_sum / impressions
    value = float((log.count * weight * log.click).sum() / weight_sum) if weight_sum else math.nan
    snips = (value, weight * (log.click - value) / mean_weight if weight_sum else np.full_like(weight, math.nan))

    base = ((clicked.sum(-1) + 1) / (shown.sum(-1) + 1 / max(old, 1e-6)))[:, None]
    model = (clicked + MODEL_CLICKS) / (shown + MODEL_CLICKS / base)
    place = (log.context, log.action)
    without = (clicked[place] - log.click + MODEL_CLICKS) / (shown[place] - 1 + MODEL_CLICKS / base[log.context, 0])
    direct = (supported * model).sum(-1)[log.context] - supported[place] * (model[place] - without)
    robust_terms = (direct + weight * (log.click - without)) / mass if mass else np.full_like(weight, math.nan)
    robust_value = float((log.count * robust_terms).sum() / impressions)
    robust = (robust_value, robust_terms - robust_value)
    return _Value(mass, effective, float(weight.max()), snips, robust)


def decide(effective_sample_size: float, largest_weight: float, difference_high: float) -> Decision:
    """Refused: the log cannot answer. Held: the new policy is worse beyond doubt. Else passed."""
    if not (effective_sample_size >= LEAST_EFFECTIVE_SAMPLE and largest_weight <= LARGEST_WEIGHT):
        return "refused"
    if not difference_high >= 0:
        return "held"
    return "passed"


def gate(estimates: Sequence[Estimate]) -> Decision:
    """One decision for the change: the strictest of its estimates."""
    severity: tuple[Decision, ...] = ("passed", "held", "refused")
    return max((estimate.decision for estimate in estimates), key=severity.index)


def sentence(change: str, estimate: Estimate, language: Literal["zh", "en"]) -> str:
    """The estimate for someone who decides about the change."""
    counts = f"{estimate.impressions:,}", f"{estimate.effective_sample_size:,.0f}", f"{estimate.largest_weight:,.0f}"
    if estimate.decision == "refused":
        return (
            f"{change}：拒绝。{counts[0]} 次展示的日志只相当于 {counts[1]} 次有效展示"
            f"（最大权重 {counts[2]}），无法判断新策略"
            if language == "zh"
            else f"{change}: refused. The log of {counts[0]} impressions is worth {counts[1]} of the new policy's "
            f"(largest weight {counts[2]}): it cannot tell what the new policy would do"
        )
    values = f"{100 * estimate.old_value:.2f} %", f"{100 * estimate.new_value:.2f} %"
    bounds = (estimate.difference_low, estimate.difference_high)
    interval = [f"{1000 * bound:+.1f}".replace("-", "−") for bound in bounds]
    untried = f"{100 * (1 - estimate.supported_mass):.1f} %"
    has_untried = untried != "0.0 %"
    if language == "zh":
        unproven = "，也没有证据表明更好" if estimate.difference_low <= 0 else ""
        verdict = "暂缓：新策略更差" if estimate.decision == "held" else f"通过：没有证据表明新策略更差{unproven}"
        rest = f"；新策略有 {untried} 的流量从未试过，只能通过探索进入" if has_untried else ""
        return (
            f"{change}：{verdict}。CTR 由 {values[0]} 变为估计的 {values[1]}，"
            f"每千次展示相差 {interval[0]} 至 {interval[1]} 次点击"
            f"（{counts[0]} 次展示，{estimate.clicks:,} 次点击{rest}）"
        )
    unproven = ", nor that it is better" if estimate.difference_low <= 0 else ""
    passed = f"passed, nothing says it is worse{unproven}"
    verdict = "held, the new policy is worse" if estimate.decision == "held" else passed
    rest = f"; {untried} of the new policy's traffic was never tried and enters only through exploration"
    rest = rest if has_untried else ""
    return (
        f"{change}: {verdict}. CTR {values[0]}, estimated {values[1]} with the new policy, a difference of "
        f"{interval[0]} to {interval[1]} clicks per 1,000 impressions "
        f"({counts[0]} impressions, {estimate.clicks:,} clicks{rest})"
    )


def _standard_error(influence: Floats, count: Floats) -> float:
    return float(math.sqrt((count * influence**2).sum()) / count.sum())
