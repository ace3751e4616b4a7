"""Absolute terms and ranks on sentences that were written before the rules: what they block, what they let pass."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from adloom.creative import Brief, CopyLimits, ItemFacts
from adloom.review import Evidence, law
from adloom.review.rules import rule_set
from adloom.rule import Claim

FAMILIES = yaml.safe_load(Path(__file__).with_name("law_cases_zh.yml").read_text(encoding="utf-8"))
TIERS = {"statutory", "near_synonym", "contextual"}
COUNTED = {"law.ranking", "law.lowest_price"} | {
    one.rule.id for one in rule_set("law", "zh").rules if one.rule.tier in TIERS
}
DAY = date(2025, 11, 5)


def blocked(text):
    found = law.text_violations(text, "zh")
    return {(one.rule_id, one.span) for one in found if one.severity == "block" and one.rule_id in COUNTED}


def cases(expected):
    return [pytest.param(text, id=f"{family}-{text}") for family, row in FAMILIES.items() for text in row[expected]]


@pytest.mark.parametrize("text", cases("blocked"))
def test_a_superlative_or_rank_of_the_goods_is_blocked(text):
    assert blocked(text)


@pytest.mark.parametrize("text", cases("passed"))
def test_what_ranks_no_goods_passes(text):
    assert not blocked(text)


@pytest.mark.parametrize("word", ["国家级", "最高级", "最佳", "国 家 级", "最·佳"])
@pytest.mark.parametrize("aim", ["致力于为您提供{}的睡眠", "力求{}的品质", "只为给你{}的享受", "追求{}的音质"])
def test_an_aim_excuses_none_of_the_words_that_the_law_names(aim, word):
    assert "law.absolute" in {rule for rule, _ in blocked(aim.format(word))}


@pytest.mark.parametrize(
    "text",
    [
        "致力于环保的我们选用顶级面料",
        "只为懂你，顶级羊绒",
        "追求品质的你值得拥有最柔软的毛巾",
        "力求完美。最舒适的枕头",
    ],
)
def test_an_aim_excuses_no_claim_on_the_goods_beside_it(text):
    assert blocked(text)


def test_an_excused_aim_is_put_before_a_person_with_its_reason():
    found = law.text_violations("致力于为宝宝提供最舒适的睡眠", "zh")
    assert {one.severity for one in found} == {"warn"}
    assert all("表达经营目标" in one.exemption for one in found)


@pytest.mark.parametrize(
    "text", ["中国保温杯第一品牌", "全球最轻的保温杯", "中国最大的保温杯品牌之一", "行业领先的保温杯品牌"]
)
def test_a_rank_in_a_market_stands_with_its_source_and_not_without(text):
    claim = Claim(text=text, source="云数咨询", date=DAY - timedelta(days=60), scope="保温杯，2025年上半年销售额")
    order = Brief(
        scenario="recommendation",
        language="zh",
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id="cup", title="保温杯", attributes={}),
        limits=CopyLimits(headline=60, body=300, call_to_action=30),
    )
    told = f"{text}（来源：云数咨询，2025年）"
    proved = law.found_in([("body", told)], order, Evidence(day=DAY, claims=(claim,)))
    assert not [one for one in proved if one.severity == "block"]
    assert blocked(told), "a source that only the copy names proves nothing"
