"""Why a share changed, in a sentence a marketer understands, in the shop's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    """For example ``creative 17: 12 % → 19 %; 3.1 clicks per 1,000 more than its family, 96 % sure (…)``."""
    return _chinese(change) if language == "zh" else _english(change)


def holdout_sentence(creative_id: str, share: float, language: Language) -> str:
    """Why the holdout does not change."""
    if language == "zh":
        return f"创意 {creative_id}：对照组 {percent(share)}，所有创意相同，作为衡量标准不随数据调整"
    return f"creative {creative_id}: {percent(share)} of the holdout, as every creative; the yardstick does not adapt"


def _english(change: Change) -> str:
    after = percent(change.after)
    if change.before is None:
        moved = f"new → {after}"
    elif percent(change.before) == after:
        moved = f"stays at {after}"
    else:
        moved = f"{percent(change.before)} → {after}"
    if change.impressions == 0:
        why = "no impressions here yet, so it starts from its family"
    elif change.sure < CLEAR:
        why = "no clear difference from its family yet"
    else:
        direction = "more" if change.per_thousand > 0 else "fewer"
        why = f"{abs(change.per_thousand):.1f} clicks per 1,000 {direction} than its family, {sure(change.sure)} sure"
    counts = f"({_counted(change.clicks, 'click')} in {_counted(change.impressions, 'impression')})"
    return f"creative {change.creative_id}: {moved}; {why} {counts}{_limit(change, 'en')}"


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _chinese(change: Change) -> str:
    after = percent(change.after)
    if change.before is None:
        moved = f"新增 → {after}"
    elif percent(change.before) == after:
        moved = f"维持 {after}"
    else:
        moved = f"{percent(change.before)} → {after}"
    if change.impressions == 0:
        why = "在此尚无展示，先按同系列的水平投放"
    elif change.sure < CLEAR:
        why = "与同系列尚无明显差别"
    else:
        direction = "多" if change.per_thousand > 0 else "少"
        why = f"每千次展示比同系列{direction} {abs(change.per_thousand):.1f} 次点击，把握 {sure(change.sure)}"
    counts = f"（{change.impressions:,} 次展示，{change.clicks:,} 次点击）"
    return f"创意 {change.creative_id}：{moved}；{why}{counts}{_limit(change, 'zh')}"


def _limit(change: Change, language: Language) -> str:
    if change.is_capped:
        return "；单日变动已达上限" if language == "zh" else "; held back by the daily cap"
    if change.after <= change.floor:
        return "；保留最低探索份额" if language == "zh" else "; at the least share, which keeps it in the race"
    return ""
