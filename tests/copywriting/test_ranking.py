"""Ranking: what may never be shown, and which of the rest is taken, worked out by hand."""

from __future__ import annotations

import math

import pytest

from adloom.copywriting.ranking import (
    Candidate,
    Known,
    choose,
    find_faults,
    fitted,
    forbidden,
    has_event,
    has_offer,
    is_in_language,
    names_item,
    pieces,
    repetition,
    score,
    similarity,
)
from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, CopyLimits, HotEvent, ItemFacts, Offer


def brief(**overrides) -> Brief:
    item = ItemFacts(
        item_id="i1", title="宝蓝色连衣裙", category="女装/连衣裙", attributes={"颜色": "宝蓝色", "风格": "复古"}
    )
    limits = CopyLimits(headline=20, body_min=10, body=60, call_to_action=8)
    content = {
        "scenario": "recommendation",
        "language": "zh",
        "channel": "feed",
        "segment_id": "all",
        "item": item,
        "limits": limits,
    }
    return Brief.model_validate(content | overrides)


def english(**overrides) -> Brief:
    item = ItemFacts(item_id="i2", title="Navy wool coat", category="Clothing", attributes={"colour": "navy"})
    limits = CopyLimits(headline=45, body_min=20, body=180, call_to_action=20)
    return brief(language="en", item=item, limits=limits, **overrides)


def copy(body="宝蓝色衬得人很精神，复古的样子周末穿正好", headline="周末就穿它", action="去看看", tags=()) -> Copy:
    return Copy(headline=headline, body=body, call_to_action=action, hashtags=tags)


CLEAN = copy()


def faults(text: Copy, order: Brief) -> list[str]:
    return list(find_faults(text, order))


def test_a_clean_copy_has_no_fault():
    assert faults(CLEAN, brief()) == []


@pytest.mark.parametrize(
    ("text", "order", "fault"),
    [
        (copy(body="大红色衬得人很精神，复古的样子周末穿正好"), brief(), "unsupported: 大红色"),
        (copy(headline="周" * 5 + "末就穿它去公园走一走看一看风景吧吧"), brief(), "headline too long"),
        (copy(body="宝蓝色，复古"), brief(), "body too short"),
        (
            copy(body="宝蓝色衬得人很精神，" * 2 + "复古的样子走到哪里都像老照片里的人，" * 2 + "周末穿正好"),
            brief(),
            "body too long",
        ),
        (copy(action="现在就点进来看一看吧"), brief(), "call to action too long"),
        (copy(), brief(forbidden_words=("精 神",)), "forbidden word: 精 神"),
        (copy(body="This coat looks good on a walk in the park at the weekend"), brief(), "another language"),
        (copy(body="穿正好周末" * 8), brief(), "repeats itself"),
        (
            copy(headline="宝蓝色衬得人很精神，复古", body="宝蓝色衬得人很精神，复古"),
            brief(),
            "headline and body are the same",
        ),
    ],
)
def test_each_fault_is_seen(text, order, fault):
    assert fault in faults(text, order)


def test_a_channel_of_hashtags_wants_enough_and_takes_no_more():
    limits = CopyLimits(headline=20, body=60, call_to_action=8, hashtags_min=2, hashtags=3)
    order = brief(scenario="social", limits=limits)
    assert "too few hashtags" in faults(copy(tags=("穿搭",)), order)
    # Twice the same tag is one tag; a fourth one goes, the copy stays.
    tags = ("穿搭", "穿搭", "连衣裙", "周末", "日常")
    assert fitted(copy(tags=tags), order).hashtags == ("穿搭", "连衣裙", "周末")
    assert fitted(copy(tags=tags), brief()).hashtags == ()


def test_forbidden_latin_words_are_words():
    order = english(forbidden_words=("best",))
    assert forbidden(copy(body="Bestow it on a friend"), order) == ""
    assert forbidden(copy(body="The BEST coat"), order) == "best"


def test_a_promotion_states_its_offer():
    order = brief(scenario="promotion", offer=Offer(campaign_id="c", name="双11", text="满300减40"))
    assert not has_offer(CLEAN, order)
    assert not has_offer(copy(body="满300减4，复古的样子周末穿正好"), order)
    assert has_offer(copy(body="满 300 立减 40 元，复古的样子周末穿正好"), order)
    # Of an offer without numbers, most of its words.
    free = english(scenario="promotion", offer=Offer(campaign_id="c", name="Week", text="free shipping on all orders"))
    assert has_offer(copy(body="Free shipping on all orders this week"), free)
    assert not has_offer(copy(body="Shipping is quick"), free)
    gift = brief(scenario="promotion", offer=Offer(campaign_id="c", name="周", text="买一送一"))
    assert has_offer(copy(body="这一周买一送一，周末穿正好"), gift)
    assert not has_offer(CLEAN, gift)
    # Elsewhere an offer is no duty.
    assert has_offer(CLEAN, brief(offer=Offer(campaign_id="c", name="双11", text="满300减40")))


def test_a_copy_for_a_hot_event_alludes_to_it():
    event = HotEvent(event_id="e", title="Meteor shower night", keywords=("stars",))
    order = english(scenario="hot_event", event=event)
    assert has_event(copy(body="Meteors tonight, a coat for the cold"), order)
    assert not has_event(copy(body="A coat for the cold"), order)
    order = brief(scenario="hot_event", event=HotEvent(event_id="e", title="中秋之夜", keywords=("赏月",)))
    assert has_event(copy(body="中秋穿它，赏心悦目"), order)
    assert "the event is missing" in faults(CLEAN, order)


def test_the_starter_corpus_is_clean():
    """Rules that a person's good copy breaks would refuse a model's, too."""
    for language in ("zh", "en"):
        for pair in starter_pairs(language):
            assert faults(pair.copy_, pair.brief) == [], pair.copy_


def test_what_the_brief_spells_otherwise_is_no_other_language():
    item = ItemFacts(item_id="i", title="AirWave Pro 降噪耳机", brand="AirWave")
    assert is_in_language(
        copy(headline="AirWave Pro 到了", body="AirWave Pro 降噪耳机，通勤路上很安静"), brief(item=item)
    )
    assert not is_in_language(copy(body="Тёплое пальто для прогулок"), brief())
    event = HotEvent(event_id="e", title="流浪地球 premiere", keywords=("流浪地球",))
    ours = english(event=event)
    assert is_in_language(copy(headline="For 流浪地球 night", body="A coat for the queue"), ours)
    assert not is_in_language(copy(headline="For the night", body="一件 coat for the queue"), ours)


def test_repetition_by_hand():
    """abcd|abcd|ab (the parts are one text): pieces abcd bcda cdab dabc abcd bcda cdab, 4 of 7 new."""
    assert repetition(copy(headline="ab", body="cdab", action="cdab")) == pytest.approx(3 / 7)
    assert repetition(copy(headline="穿得舒服", body="穿得好看", action="穿得久")) == 0


def test_a_copy_that_names_its_item():
    assert names_item(copy(body="这条裙子衬得人很精神，周末穿正好", headline="连衣裙"), brief())
    assert not names_item(copy(body="走到哪里都像老照片里的人"), brief())
    assert names_item(copy(headline="Two COATS", body="for the weekend"), english())
    assert not names_item(copy(headline="Warm", body="for the weekend", action="Go"), english())


def test_similarity_by_hand():
    """abcde and bcdef: pieces {abcd, bcde} and {bcde, cdef} share one of two."""
    assert similarity(pieces("abcde"), pieces("bcdef")) == 0.5
    assert similarity(pieces("a b c d e"), pieces("ABCDE")) == 1
    assert similarity(pieces("abc"), pieces("abd")) == 0


def test_a_score_by_hand():
    """One of two attributes .5, half like a sibling .3, fluency 2.5 e^-1, value .25; 宝蓝色 is in the title: .3."""
    half = copy(body="宝蓝色衬得人很精神，周末出门穿它正好")
    found = score(half, brief(), nearest=0.5, log_probability=-1.0, value=lambda *_: 0.25)
    assert found == {
        "copied": 0,
        "coverage": 0.5,
        "diversity": 0.5,
        "fluency": pytest.approx(math.exp(-1), abs=1e-4),
        "named": 1,
        "repetition": 0,
        "value": 0.25,
        "warnings": 0,
        "total": pytest.approx(0.5 + 0.3 + 2.5 * math.exp(-1) + 0.25 + 0.3, abs=1e-4),
    }


def test_thirteen_characters_of_a_training_text_are_copied():
    known = Known(["宝蓝色衬得人很精神，复古的样子"])
    assert known.holds_part_of("它的宝蓝色衬得人很精神，复古的！")
    assert not known.holds_part_of("它的宝蓝色衬得人很精神，复古，呀")
    assert score(copy(body="宝蓝色衬得人很精神，复古的样子周末穿"), brief(), known=known)["copied"] == 1


def test_the_best_clean_candidate_is_chosen_and_an_unclean_one_never():
    both, one = CLEAN, copy(body="宝蓝色衬得人很精神，周末出门穿它正好")
    invented = copy(body="宝蓝色的真丝，复古的样子周末穿正好，衬得人很精神")
    chosen, reason = choose([Candidate(invented, 0.0), Candidate(one, -0.1), Candidate(both, -0.1)], brief(), 1)
    assert [choice.copy for choice in chosen] == [both]
    assert reason == ""
    chosen, reason = choose([Candidate(invented), Candidate(invented), Candidate(copy(body="短"))], brief(), 1)
    assert chosen == []
    assert reason == "2 × unsupported: 真丝; 1 × body too short"


def test_fluency_decides_between_equals_and_order_between_the_same():
    other = copy(body="宝蓝色衬得人特别好看，复古的味道出门正好")
    chosen, _ = choose([Candidate(CLEAN, -2.0), Candidate(other, -0.5)], brief(), 1)
    assert chosen[0].copy == other
    chosen, _ = choose([Candidate(CLEAN, -1.0), Candidate(other, -1.0)], brief(), 1)
    assert chosen[0].copy == CLEAN


def test_variants_differ_from_each_other_and_from_the_items_other_copies():
    near = copy(body="宝蓝色衬得人很精神，复古的样子周末穿正合适")
    far = copy(headline="老照片里的人", body="复古的裙摆走过街角，宝蓝色像傍晚的天", action="试一试")
    chosen, reason = choose([Candidate(CLEAN), Candidate(near), Candidate(far)], brief(), 3)
    assert [choice.copy for choice in chosen] == [CLEAN, far]
    assert reason == "1 × the text of another copy for this item"
    chosen, _ = choose([Candidate(CLEAN), Candidate(far)], brief(), 1, siblings=[near.text])
    assert chosen[0].copy == far
