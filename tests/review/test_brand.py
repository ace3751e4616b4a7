"""The shop's own words and messages: what the brand excludes, never says and must say, where and in which spelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts
from adloom.review import Evidence, brand, review_copy
from adloom.rule import ShopReview
from adloom.shop import load_shop

LIMITS = CopyLimits(headline=60, body=300, call_to_action=60, hashtags=5)
SHOPS = Path(__file__).resolve().parents[2] / "shops"


def brief(language="zh", **changes):
    values = {
        "scenario": "recommendation",
        "language": language,
        "channel": "feed",
        "segment_id": "all",
        "item": ItemFacts(item_id="i", title="灯"),
        "limits": LIMITS,
    } | changes
    return Brief(**values)


def copy(body, headline="一二三", call_to_action="看看", hashtags=()):
    return Copy(headline=headline, body=body, call_to_action=call_to_action, hashtags=hashtags)


def found(shop, body, order=None, **more):
    return [(one.rule_id, one.part, one.span) for one in brand.off_brand(copy(body, **more), order or brief(), shop)]


@pytest.fixture
def sample_shop(monkeypatch):
    monkeypatch.setenv("ADLOOM_SHOPS_DIR", str(SHOPS))
    return load_shop("sample_shop")


def test_an_excluded_word_is_found_in_any_spelling_and_only_as_a_word(make_shop):
    shop = make_shop(forbidden_words=["绝绝子", "hack"], review={"exclusions": ["must-have"]})
    assert found(shop, "真的絕·絕·子") == [("brand.exclusion", "body", "絕·絕·子")]
    assert found(shop, "A Must have", brief("en")) == [("brand.exclusion", "body", "Must have")]
    assert found(shop, "h-a-c-k", brief("en"), hashtags=("hack",))[-1] == ("brand.exclusion", "hashtags", "hack")
    assert not found(shop, "The hackney coat", brief("en"))


def test_a_briefs_own_forbidden_words_count(make_shop):
    assert found(make_shop(), "很便宜", brief(forbidden_words=("便宜",)))


def test_competitors_are_not_named(make_shop):
    shop = make_shop(review={"competitors": ["Bargainly", "好集市"]})
    assert found(shop, "比ＢＡＲＧＡＩＮＬＹ划算，也比好 集市近") == [
        ("brand.competitor", "body", "ＢＡＲＧＡＩＮＬＹ"),
        ("brand.competitor", "body", "好 集市"),
    ]


NEVER = {"id": "no_push", "kind": "never", "pattern": "快抢", "reason": "r", "example": "快抢"}
MUST = {"id": "says_code", "kind": "must", "pattern": r"\d+折", "reason": "r", "example": "来了"}


def test_a_message_rule_holds_where_it_is_meant(make_shop):
    scoped = NEVER | {"channels": ["weibo"], "scenarios": ["promotion"], "languages": ["zh"], "parts": ["headline"]}
    shop = make_shop(review={"messages": [scoped]})
    order = brief(channel="weibo", scenario="promotion")
    assert found(shop, "好", order, headline="快·抢") == [("brand.no_push", "headline", "快·抢")]
    assert not found(shop, "快抢", order)
    for other in ({"channel": "feed"}, {"scenario": "social"}, {"language": "en"}):
        assert not found(shop, "好", order.model_copy(update=other), headline="快抢"), other


def test_what_must_be_said_is_missed_anywhere_in_the_copy(make_shop):
    shop = make_shop(review={"messages": [MUST]})
    assert found(shop, "来了") == [("brand.says_code", "body", "")]
    assert not found(shop, "来了", call_to_action="８折带走")


def test_the_version_follows_the_shops_words(make_shop):
    first = make_shop(review={"exclusions": ["一"]})
    second = make_shop(id="other", review={"exclusions": ["一", "二"]})
    third = make_shop(id="third", review={"exclusions": ["一"]})
    versions = [brand.rules_version(shop) for shop in (first, second, third)]
    assert versions[0] == versions[2] != versions[1]
    assert brand.off_brand(copy("一"), brief(), first)[0].rule_version == versions[0]


def test_two_message_rules_may_not_share_an_id():
    with pytest.raises(ValueError, match="share an id"):
        ShopReview.model_validate({"messages": [NEVER, NEVER]})


def test_the_sample_shop_has_its_exclusions_and_messages_and_each_goes_red(sample_shop):
    assert len(sample_shop.review.exclusions) >= 25
    assert len(sample_shop.review.messages) >= 40
    for rule in sample_shop.review.messages:
        language = rule.languages[0] if rule.languages else "en" if rule.example.isascii() else "zh"
        order = brief(
            language,
            channel=rule.channels[0] if rule.channels else "feed",
            scenario=rule.scenarios[0] if rule.scenarios else "recommendation",
        )
        part = rule.parts[0] if rule.parts else "body"
        text = (rule.example,) if part == "hashtags" else rule.example
        written = copy("好").model_copy(update={part: text})
        told = {one.rule_id for one in brand.off_brand(written, order, sample_shop)}
        assert f"brand.{rule.id}" in told, rule.id


def test_what_people_wrote_for_the_sample_shop_is_not_blocked(sample_shop):
    pairs = [pair for language in ("zh", "en") for pair in starter_pairs(language)[::16]]
    for pair in pairs:
        told = review_copy(pair.copy_, pair.brief, sample_shop, Evidence())
        stopped = [one for one in told if one.severity == "block" and not one.rule_id.startswith("facts.")]
        assert not stopped, (pair.copy_.text, stopped)


@pytest.mark.proof
def test_no_copy_of_the_starter_corpus_is_blocked_by_law_brand_or_safety(sample_shop):
    for language in ("zh", "en"):
        for pair in starter_pairs(language):
            told = review_copy(pair.copy_, pair.brief, sample_shop, Evidence())
            stopped = [one for one in told if one.severity == "block" and not one.rule_id.startswith("facts.")]
            assert not stopped, (pair.copy_.text, stopped)
