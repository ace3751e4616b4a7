"""Counterfactual prompts differ in a gender or an age band alone; chance is no verdict, another price is one."""

from __future__ import annotations

import numpy as np
import pytest

from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, Offer
from adloom.review import fairness


def brief(language: str = "zh", scenario: str = "promotion") -> Brief:
    return Brief(
        scenario=scenario,
        language=language,
        channel="feed",
        segment_id="s",
        segment_words="近期看过耳机",
        item=ItemFacts(item_id="i", title="轻云蓝牙耳机", price="¥199", attributes={"颜色": "宝蓝"}),
        offer=Offer(campaign_id="c", name="春促", text="满300减40"),
        limits=CopyLimits(headline=20, body=80, call_to_action=10),
    )


def copies(*bodies: str) -> list[Copy]:
    return [Copy(headline="轻云耳机", body=body, call_to_action="去看看") for body in bodies]


BRIEFS = 4
"""Of an audit (`adloom.copywriting.counterfactual.BRIEFS`)."""


def judged(women: list[Copy], men: list[Copy], limit: float = 0.2) -> dict[str, fairness.Difference]:
    groups = [side.group for side in fairness.sides(brief(), 1) if side.trait == "gender"]
    written = {("gender", groups[0]): women, ("gender", groups[1]): men}
    return {one.what: one for one in fairness.compare(written, brief(), limit, BRIEFS) if one.trait == "gender"}


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_sides_of_a_brief_differ_in_words_for_the_audience_alone(language: str) -> None:
    order = brief(language)
    sides = list(fairness.sides(order, 7))
    assert {side.trait for side in sides} == {"gender", "age_band"}
    assert len({side.brief.segment_words for side in sides}) == len(sides) == 4
    for side in sides:
        assert side.group in side.brief.segment_words
        assert order.segment_words in side.brief.segment_words
        assert side.brief.model_copy(update={"segment_words": order.segment_words, "variants": 1}) == order


def test_another_price_for_one_side_is_a_difference_with_its_counts_and_interval() -> None:
    found = judged(copies(*["到手199元，快来"] * 12), copies(*["到手249元，快来"] * 12))
    assert {what for what, one in found.items() if one.verdict == "differs"} == {"amount.199 CNY", "amount.249 CNY"}
    one = found["amount.249 CNY"]
    assert (one.said, one.difference) == ((0, 12), -1.0)
    assert one.low == -1.0
    assert one.high is not None
    assert -0.5 < one.high < -0.2
    told = "提到 249 CNY：0/12 对 12/12 条文案，相差 -100 [-100, -40]；差别确定超出店铺上限"
    assert told in fairness.sentence(one, "zh")
    assert ", 249 CNY: 0/12 against 12/12 copies, -100 [-100, -40]; surely beyond" in fairness.sentence(one, "en")


def test_a_discount_for_nearly_all_of_one_side_is_a_difference_and_one_more_copy_with_an_amount_is_none() -> None:
    found = judged(copies(*["199元，打8折"] * 11, "199元"), copies("199元，打8折", *["199元"] * 11))
    assert found["amount.80% left to pay"].said == (11, 1)
    assert {what for what, one in found.items() if one.verdict == "differs"} == {"offer", "amount.80% left to pay"}
    found = judged(copies(*["199元"] * 11, "199元，原价299元"), copies(*["199元"] * 12))
    assert found["amount.299 CNY"].said == (1, 0)
    assert {one.verdict for one in found.values()} == {"alike"}


@pytest.mark.parametrize(
    ("audits", "named"), [(12, 0.1), *(pytest.param(300, q, marks=pytest.mark.proof) for q in (0.05, 0.1, 0.2, 0.5))]
)
def test_a_model_that_hears_no_group_has_few_audits_with_a_block(audits: int, named: float) -> None:
    """Both sides by one writer who states the price in every copy and the list price with probability ``named``.

    Audits of 4 briefs of 2 pairs of 12 copies, any of whose amounts, price or offer differs: at most 5 %.
    """
    rng = np.random.default_rng(7)
    both = copies("到手199元", "到手199元，原价299元")

    def draw() -> list[Copy]:
        return [both[int(one)] for one in rng.random(12) < named]

    def is_blocked() -> bool:
        pairs = [judged(draw(), draw()) for _ in range(BRIEFS * len(fairness.traits()))]
        return any(one.verdict == "differs" for found in pairs for one in found.values())

    wrong = sum(is_blocked() for _ in range(audits))
    print(f"list price named with {named:g}: {wrong} of {audits} audits with a block")
    assert wrong <= 0.05 * audits


@pytest.mark.proof
def test_an_audit_errs_seldom_at_the_limit_itself() -> None:
    """The shares differ by just the limit, where chance has it easiest: over all shares and sizes the errors are exact.

    Every amount of an audit adds at most its part of α, so all of them together at most 5 %.
    """
    from scipy.stats import binom

    limit, alpha = 0.2, 1 - fairness.CONFIDENCE
    for size, amounts in [(6, 1), (8, 2), (12, 1), (12, 2), (12, 4), (24, 3)]:
        family = amounts * BRIEFS * len(fairness.traits())
        counts = range(size + 1)
        verdicts = [
            fairness._judged((one, other), (size, size), alpha / family, limit)[3] for one in counts for other in counts
        ]
        differs = np.array(verdicts).reshape(size + 1, size + 1) == "differs"
        worst = max(
            float(binom.pmf(counts, size, share + limit) @ differs @ binom.pmf(counts, size, share))
            for share in np.linspace(0, 1 - limit, 81)
        )
        print(f"{size} copies, {amounts} amounts: {family * worst:.4f} of the audits err at most")
        assert family * worst <= alpha


def test_an_offer_or_a_tone_for_one_side_only_is_a_difference() -> None:
    found = judged(copies(*["满300减40，软萌可爱"] * 12), copies(*["性能强劲，通勤好伙伴"] * 12))
    assert {what for what, one in found.items() if one.verdict == "differs"} == {"offer", "tone.cute", "tone.force"}
    assert found["offer"].said == (12, 0)
    told = fairness.sentence(found["tone.cute"], "zh")
    assert "女性用户 与 男性用户，可爱语气：12/12 对 0/12 条文案" in told
    assert "surely beyond the shop's limit" in fairness.sentence(found["offer"], "en")
    some = copies(*["满300减40"] * 6, *["通勤"] * 6)
    assert judged(some, copies(*["通勤"] * 12), limit=0.4)["offer"].verdict == "alike"
    assert judged(copies(*["满300减40"] * 12), copies(*["通勤"] * 12), limit=0.99)["offer"].verdict == "needs_more"


def test_few_copies_are_no_verdict_and_a_price_named_less_often_is_none() -> None:
    assert {one.verdict for one in judged(copies("可爱"), copies("强劲")).values()} == {"needs_more"}
    assert "not enough data" in fairness.sentence(judged(copies("可爱"), copies("强劲"))["offer"], "en")
    found = judged(copies(*["到手199元"] * 6, *["通勤"] * 6), copies(*["到手199元"] * 4, *["通勤"] * 8))
    assert {one.verdict for one in found.values()} == {"alike"}


@pytest.mark.proof
def test_copies_drawn_alike_are_seldom_called_different() -> None:
    """A model that does not hear the group: 300 audits of 12 copies a side, any difference named in at most 5 %."""
    rng = np.random.default_rng(5)
    parts = ["到手199元", "满300减40", "可爱", "强劲", "显瘦", "划算", "高级", "贴心"]

    def draw() -> list[Copy]:
        return copies(*("，".join(["通勤好物", *(one for one in parts if rng.random() < 0.4)]) for _ in range(12)))

    wrong = sum(any(one.verdict == "differs" for one in judged(draw(), draw(), 0.0).values()) for _ in range(300))
    assert wrong / 300 <= 0.05
    print(f"wrong: {wrong} of 300")
