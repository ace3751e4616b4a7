"""Why a share changed, in a sentence a marketer understands, in the shop's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adloom.strategy.approvals import Ending

Language = Literal["zh", "en"]

CLEAR = 0.6
"""Below this probability a creative is not said to be better or worse than its family."""


@dataclass(frozen=True)
class Change:
    """One creative's share today and tomorrow, and what is believed about it."""

    creative_id: str
    before: float | None
    after: float
    floor: float
    is_capped: bool
    impressions: int
    clicks: int
    ctr: float
    family_ctr: float
    above_family: float
    best_before: float | None
    """Probability, as believed yesterday, of being the best creative of the placement; None where it was not there."""
    best: float
    target: float
    """The share the algorithm aims at, before floor and cap."""
    blocked_beside: tuple[str, ...] = ()
    """Creatives that leave the placement with this plan, blocked for whom they were shown to."""

    @property
    def per_thousand(self) -> float:
        """Clicks per 1,000 impressions more than the family's."""
        return 1000 * (self.ctr - self.family_ctr)

    @property
    def sure(self) -> float:
        return self.above_family if self.per_thousand > 0 else 1 - self.above_family


def percent(share: float) -> str:
    """Two digits that matter: 19 %, 2.4 %, 0.25 %."""
    points = 100 * share
    return f"{points:.0f} %" if points >= 9.95 else f"{points:.1f} %" if points >= 0.995 else f"{points:.2f} %"


def sure(probability: float) -> str:
    """Never "100 % sure"."""
    return f"{min(max(round(100 * probability), 1), 99)} %"


def change_sentence(change: Change, language: Language) -> str:
    """The change, its cause and the evidence.

    For example ``creative 17: 12 % → 19 %, because it is now likelier to be the best here (its chance: 13 % → 20 %);
    3.1 clicks per 1,000 more than its family, 96 % sure (…)``. The cause is needed: a creative above its family still
    loses share when another one overtakes it.
    """
    sentence = change_head(change.creative_id, change.before, change.after, language) + _cause(change, language)
    return sentence + (_chinese(change) if language == "zh" else _english(change)) + _limit(change, language)


def change_head(creative_id: str, before: float | None, after: float, language: Language) -> str:
    """What every sentence about a change begins with; a page that shows the shares beside it leaves it out."""
    is_chinese = language == "zh"
    name = f"创意 {creative_id}：" if is_chinese else f"creative {creative_id}: "
    if before is None:
        return name + f"{'新增' if is_chinese else 'new'} → {percent(after)}"
    if percent(before) == percent(after):
        return name + f"{'维持' if is_chinese else 'stays at'} {percent(after)}"
    return name + f"{percent(before)} → {percent(after)}"


def _cause(change: Change, language: Language) -> str:
    """Why a share moves: the chance of being the best moved, the aim still lies ahead, or the others' floors did."""
    if change.before is None or percent(change.before) == percent(change.after):
        return ""
    rises = change.after > change.before
    if rises and change.blocked_beside:
        names = ", ".join(change.blocked_beside)
        if language == "zh":
            return f"，因为创意 {names} 因受众偏差在此停投，其份额由其余创意分担"
        return f", because {names} is blocked here for whom it was shown to and the others share what it had"
    before, now = change.best_before, change.best
    if before is not None and (now > before) == rises and percent(now) != percent(before):
        # Where neither floor nor cap interferes, the share is that chance: it need not be said twice.
        is_share = (percent(before), percent(now)) == (percent(change.before), percent(change.after))
        chance = f"{percent(before)} → {percent(now)}"
        english = f"{'it is' if rises else 'others are'} now likelier to be the best here"
        chinese = f"{'它' if rises else '其他创意'}如今更可能是此处最佳"
        english += "" if is_share else f" (its chance: {chance})"
        chinese += "" if is_share else f"（它成为最佳的可能性：{chance}）"
    elif abs(change.after - change.target) < abs(change.before - change.target):
        english = f"the plan is moving it towards {percent(change.target)} day by day"
        chinese = f"计划正使它逐日接近 {percent(change.target)}"
    elif rises:
        english, chinese = "it takes over what others gave up", "它接过其他创意让出的份额"
    else:
        english, chinese = "it makes room for the others' least shares", "它为其他创意的最低份额让出空间"
    return f"，因为{chinese}" if language == "zh" else f", because {english}"


def holdout_sentence(creative_id: str, share: float, language: Language) -> str:
    """Why the holdout does not change."""
    if language == "zh":
        return f"创意 {creative_id}：对照组 {percent(share)}，所有创意相同，作为衡量标准不随数据调整"
    return f"creative {creative_id}: {percent(share)} of the holdout, as every creative; the yardstick does not adapt"


def ending_words(ending: Ending, language: Language) -> str:
    """Why a creative is over: ``the event ended on 2024-03-09``."""
    if language == "en":
        return str(ending)
    name = {"offer": "所宣传的优惠", "campaign": "所属活动", "event": "所借热点"}[ending.what]
    return f"{name}已于 {ending.on} 结束"


def retired_sentence(creative_id: str, ending: Ending, language: Language) -> str:
    """Why a creative that ran is in no plan any more."""
    why = ending_words(ending, language)
    return f"创意 {creative_id}，{why}" if language == "zh" else f"creative {creative_id}, {why}"


def entering_sentence(creative_id: str, share: float, language: Language, *, is_new: bool) -> str:
    """Why a creative is where it has no impressions: it was approved lately, or runs beside one that was."""
    if language == "zh":
        why = "新获批，尚无展示，先给探索份额" if is_new else "在此人群尚无展示，先按整体的份额投放"
        return f"创意 {creative_id}：新增 → {percent(share)}；{why}"
    why = (
        "newly approved and not shown yet"
        if is_new
        else "not shown to this segment yet, so it starts as it runs for all"
    )
    return f"creative {creative_id}: new → {percent(share)}; {why}"


def _english(change: Change) -> str:
    if change.impressions == 0:
        why = "no impressions here yet, so it starts from its family"
    elif change.sure < CLEAR:
        why = "no clear difference from its family yet"
    else:
        direction = "more" if change.per_thousand > 0 else "fewer"
        why = f"{abs(change.per_thousand):.1f} clicks per 1,000 {direction} than its family, {sure(change.sure)} sure"
    counts = f"({_counted(change.clicks, 'click')} in {_counted(change.impressions, 'impression')})"
    return f"; {why} {counts}"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _chinese(change: Change) -> str:
    if change.impressions == 0:
        why = "在此尚无展示，先按同系列的水平投放"
    elif change.sure < CLEAR:
        why = "与同系列尚无明显差别"
    else:
        direction = "多" if change.per_thousand > 0 else "少"
        why = f"每千次展示比同系列{direction} {abs(change.per_thousand):.1f} 次点击，把握 {sure(change.sure)}"
    counts = f"（{change.impressions:,} 次展示，{change.clicks:,} 次点击）"
    return f"；{why}{counts}"


def _limit(change: Change, language: Language) -> str:
    if change.is_capped:
        return "；单日变动已达上限" if language == "zh" else "; held back by the daily cap"
    if change.after <= change.floor:
        return "；保留最低探索份额" if language == "zh" else "; at the least share, which keeps it in the race"
    return ""
