"""Why there is no copy, said to a Chinese reader in Chinese."""

from __future__ import annotations

import re

import pytest

from adloom.copywriting.prompts import STOP, Unparsable, parse
from adloom.copywriting.ranking import Candidate, choose
from adloom.copywriting.reasons import in_language
from adloom.creative import Brief, Copy, CopyLimits, HotEvent, ItemFacts, Offer

LIMITS = CopyLimits(headline=8, body_min=10, body=30, call_to_action=4, hashtags_min=1, hashtags=2)
BRIEF = Brief(
    scenario="promotion",
    language="zh",
    channel="feed",
    segment_id="all",
    item=ItemFacts(item_id="i", title="竹灯", attributes={"材质": "竹"}),
    offer=Offer(campaign_id="c", name="双11", text="满300减40"),
    forbidden_words=("万能",),
    limits=LIMITS,
)
EVENT = BRIEF.model_copy(
    update={"scenario": "hot_event", "offer": None, "event": HotEvent(event_id="e", title="流星雨")}
)
GOOD = {
    "headline": "竹灯一盏",
    "body": "竹做的灯，满300减40，今晚就亮起来",
    "call_to_action": "点亮",
    "hashtags": ("竹灯",),
}
FAULTS = [
    (BRIEF, {"headline": "竹灯一盏照亮整个屋子和院子"}),
    (BRIEF, {"body": GOOD["body"] * 2}),
    (BRIEF, {"body": "满300减40"}),
    (BRIEF, {"call_to_action": "今晚就去点亮"}),
    (BRIEF, {"hashtags": ()}),
    (BRIEF, {"body": "真丝做的灯，满300减40，今晚就亮起来"}),
    (BRIEF, {"headline": "万能竹灯"}),
    (BRIEF, {"body": "竹做的灯，今晚就把它点亮起来吧"}),
    (EVENT, {"body": "竹做的灯，今晚就把它点亮起来吧"}),
    (BRIEF, {"body": "a lamp made of bamboo 300 40"}),
]
ANSWERS = [
    "",
    "标题：竹灯",
    f"标题：竹灯\n{STOP['zh']}",
    f"标题：竹灯\n标题：竹灯\n{STOP['zh']}",
    f"标题：\n{STOP['zh']}",
    f"竹灯\n{STOP['zh']}",
    f"正文：灯\n标题：竹灯\n行动：点亮\n{STOP['zh']}",
    f"标题：竹灯 正文：灯\n{STOP['zh']}",
    f"标题：{'灯' * 3000}\n{STOP['zh']}",
    f"标题：竹灯\n正文：灯\n行动：点亮\n标签：竹灯\n{STOP['zh']}",
    f"标题：竹灯\n{STOP['zh']}\n标题",
]


def _english(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]{2,}", text)


@pytest.mark.parametrize(("brief", "changes"), FAULTS)
def test_every_fault_of_a_candidate_is_said_in_chinese(brief: Brief, changes: dict[str, object]) -> None:
    chosen, told = choose([Candidate(Copy.model_validate(GOOD | changes))], brief, 1)
    assert not chosen
    said = in_language(f"none of 1 candidates could be used: {told}", "zh")
    assert said.startswith("1 个候选都不能用：1 × ")
    assert not _english(said), said
    assert in_language(told, "en") == told


@pytest.mark.parametrize("answer", ANSWERS)
def test_every_malformed_answer_is_said_in_chinese(answer: str) -> None:
    with pytest.raises(Unparsable) as error:
        parse(answer, "zh")
    assert not _english(in_language(f"1 × malformed: {error.value.reason}", "zh"))
