"""What a comparison reads: which impressions, as of which day, and what it keeps when they are gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

from adloom.evaluation import sequences
from adloom.evaluation.comparisons import Known, count_units, read_comparison
from adloom.evaluation.verdicts import evaluate_comparisons

START = date(2024, 3, 1)
AB = {"id": "ab", "arms": ["a", "b"], "started_on": str(START)}


def day_of(number: int) -> date:
    return START + timedelta(days=number)


def at(number: int, hour: int = 12) -> datetime:
    return datetime(2024, 3, 1, hour) + timedelta(days=number)


def comparing(*comparisons: dict[str, Any], **evaluation: Any) -> dict[str, Any]:
    return {"evaluation": {"comparisons": list(comparisons or [AB])} | evaluation}


def known(marts: Any, number: int, which: int = 0) -> Known:
    comparison = marts.shop.evaluation.comparisons[which]
    with marts.connect() as connection:
        return read_comparison(connection, marts.shop, comparison, day_of(number))


def evaluate(marts: Any, *numbers: int) -> None:
    with marts.connect() as connection:
        for number in numbers:
            evaluate_comparisons(connection, marts.shop, day_of(number))


def counts(facts: Known) -> dict[tuple[int, str], list[tuple[int, int]]]:
    """{(day number, placement): [(trials, successes) of a, of b]}."""
    return {
        ((when - START).days, placement): list(zip(trials.tolist(), successes.tolist(), strict=True))
        for (when, placement), trials, successes in zip(facts.strata, facts.trials, facts.successes, strict=True)
    }


def show(number: int, arm: str, impressions: int = 1, clicks: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """Impressions of one arm on one day, the first ``clicks`` of them clicked at once."""
    clicked = {"click_at": columns.pop("click_at", at(number, 13))}
    shown = {"impression_at": at(number), "policy_id": arm} | columns
    return [shown | (clicked if row < clicks else {}) for row in range(impressions)]


def returning_users(days: int, users: int = 40, seed: int = 5) -> pd.DataFrame:
    """Users who come most days, keep their arm and differ in how readily they click; a tenth has no user id."""
    rng = np.random.default_rng(seed)
    per_day = rng.poisson(3, (users, days))
    rate = rng.beta(0.6, 4, users)
    user, number = (index.repeat(per_day.ravel()) for index in (axis.ravel() for axis in np.indices(per_day.shape)))
    is_clicked = rng.random(len(user)) < rate[user]
    impression_at = pd.Timestamp(at(0)) + pd.to_timedelta(number, unit="D")
    return pd.DataFrame(
        {
            "impression_at": impression_at,
            "policy_id": np.where(user % 2, "b", "a"),
            "user_hash": np.where(user % 10 == 9, None, [f"u{one:03d}" for one in user]),
            "position": rng.choice(["top", "side"], len(user)),
            "click_at": pd.Series(impression_at).where(is_clicked),
        }
    )


def brute_force_variance(facts: Known, frame: pd.DataFrame, days: int) -> float:
    """Clustered variance, one trial after the other, from the definition in `sequences`."""
    cells = {}
    seen = frame[frame["impression_at"] < pd.Timestamp(day_of(days))]
    for (when, position), stratum in seen.groupby([seen["impression_at"].dt.date, "position"]):
        arms = {}
        for arm, cell in stratum.groupby("policy_id"):
            clusters = cell["user_hash"].nunique() + int(cell["user_hash"].isna().sum())
            arms[arm] = (len(cell), cell["click_at"].notna().mean(), clusters)
        if len(arms) == 2 and min(clusters for *_, clusters in arms.values()) >= 2:
            total = arms["a"][0] + arms["b"][0]
            for arm, other, sign in (("a", "b", -1), ("b", "a", 1)):
                stretch = np.sqrt(arms[arm][2] / (arms[arm][2] - 1))
                cells[when, position, arm] = (sign * arms[other][0] / total * stretch, arms[arm][1])
    scores: dict[Any, float] = {}
    for row, one in enumerate(seen.itertuples()):
        g, rate = cells.get((one.impression_at.date(), one.position, one.policy_id), (0.0, 0.0))
        user = row if pd.isna(one.user_hash) else one.user_hash
        scores[user] = scores.get(user, 0.0) + g * ((not pd.isna(one.click_at)) - rate)
    return sum(score**2 for score in scores.values())


def test_strata_are_day_and_placement_of_the_campaigns_valid_impressions_since_the_start(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"campaign_id": "spring"}))
    spring = {"campaign_id": "spring"}
    marts.add_impressions(
        show(0, "a", 5, 1, **spring)
        + show(0, "b", 4, 2, **spring)
        + show(0, "b", 3, 1, position="top", **spring)
        + show(1, "a", 2, **spring)
        + show(-1, "a", 9, 9, **spring)
        + show(0, "a", 9, 9, campaign_id="autumn")
        + show(0, "c", 9, 9, **spring)
        + show(0, "b", 9, 9, is_valid=False, **spring)
    )

    assert counts(known(marts, 1)) == {
        (0, "web:top"): [(0, 0), (3, 1)],
        (0, "web:unknown"): [(5, 1), (4, 2)],
        (1, "web:unknown"): [(2, 0), (0, 0)],
    }


def test_equal_creatives_with_other_shares_in_each_segment_stay_equal(make_marts: Callable) -> None:
    """A plan has its own shares per segment: pooled, b would look three times as good as a."""
    marts = make_marts(**comparing())
    eager, calm = {"segment_id": "eager"}, {"segment_id": "calm"}
    marts.add_impressions(
        show(0, "a", 100, 20, **eager)
        + show(0, "b", 400, 80, **eager)
        + show(0, "a", 400, 8, **calm)
        + show(0, "b", 100, 2, **calm)
        + show(0, "a", 10, 1)
    )
    found = known(marts, 0)

    assert counts(found) == {
        (0, "web:unknown"): [(10, 1), (0, 0)],
        (0, "web:unknown · calm"): [(400, 8), (100, 2)],
        (0, "web:unknown · eager"): [(100, 20), (400, 80)],
    }
    assert found.evidence.difference == pytest.approx(0, abs=1e-12)


def test_what_is_known_later_changes_nothing_as_of_an_earlier_day(make_marts: Callable) -> None:
    marts = make_marts(**comparing())
    marts.add_impressions(show(0, "a", 30, 4) + show(0, "b", 30, 9))
    evaluate(marts, 1)
    before = marts.rows("adloom.verdicts"), marts.rows("adloom.comparison_days")

    marts.add_impressions(
        show(0, "b", 20, 20, click_known_date=day_of(2))
        + show(0, "a", 20, 20, impression_known_date=day_of(2))
        + show(2, "a", 20, 20)
    )
    # The twenty impressions of b are known on day 0, so they do count; their clicks do not.
    evaluate(marts, 1)
    assert counts(known(marts, 1)) == {(0, "web:unknown"): [(30, 4), (50, 9)]}
    assert counts(known(marts, 2))[0, "web:unknown"] == [(50, 24), (50, 29)]

    with marts.connect() as connection:
        connection.execute(text("delete from marts.fct_impressions where click_known_date = date '2024-03-03'"))
    evaluate(marts, 1)
    assert (marts.rows("adloom.verdicts"), marts.rows("adloom.comparison_days")) == before


def test_days_may_be_evaluated_in_any_order_and_again(make_marts: Callable) -> None:
    comparisons = [AB, AB | {"id": "later", "started_on": str(day_of(3))}, AB | {"id": "cr", "metric": "cr"}]
    marts = make_marts(**comparing(*comparisons, retention_days=3), attribution_window_days=2)
    marts.add_impressions(returning_users(5))
    evaluate(marts, *range(5))
    in_order = marts.rows("adloom.verdicts"), marts.rows("adloom.comparison_days")

    for order in ([4, 3, 2, 1, 0], [3, 0, 3, 1, 2, 4, 1]):
        with marts.connect() as connection:
            connection.execute(text("delete from adloom.verdicts"))
            connection.execute(text("delete from adloom.comparison_days"))
        evaluate(marts, *order)
        assert (marts.rows("adloom.verdicts"), marts.rows("adloom.comparison_days")) == in_order


def test_a_comparison_that_starts_later_has_no_row_before_and_reads_nothing_earlier(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB, AB | {"id": "later", "started_on": str(day_of(2))}))
    marts.add_impressions([row for number in range(4) for arm in "ab" for row in show(number, arm, 10, 1)])
    evaluate(marts, 1, 3)

    trials = {(row["day"], row["comparison"]): row["trials_a"] for row in marts.rows("adloom.verdicts")}
    assert trials == {(day_of(1), "ab"): 20, (day_of(3), "ab"): 40, (day_of(3), "later"): 20}


def test_an_absent_arm_makes_a_row_that_says_so(make_marts: Callable) -> None:
    marts = make_marts(**comparing())
    marts.add_impressions(show(0, "a", 100, 30))
    evaluate(marts, 0)

    (row,) = marts.rows("adloom.verdicts")
    assert (row["verdict"], row["winner"], row["difference"], row["needed_more"]) == ("needs_more", None, None, None)
    assert row["p_value"] == 1
    assert "b has no impressions yet" in row["sentence"]


def test_arms_that_never_meet_are_not_compared(make_marts: Callable) -> None:
    marts = make_marts(**comparing())
    marts.add_impressions(show(0, "a", 1000, 5) + show(1, "b", 1000, 500))
    evaluate(marts, 1)

    (row,) = marts.rows("adloom.verdicts")
    assert (row["verdict"], row["difference"], row["p_value"]) == ("needs_more", None, 1)
    assert "Never enough of both on one day in one placement" in row["sentence"]


def test_creatives_can_be_the_arms(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"dimension": "creative_id", "arms": ["c1", "c2"]}))
    marts.add_impressions(show(0, "a", 7, 2, creative_id="c2") + show(0, "b", 5, 1))

    assert counts(known(marts, 0)) == {(0, "web:unknown"): [(5, 1), (7, 2)]}


def test_conversion_rates_use_mature_click_cohorts_and_the_window_only(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"metric": "cr"}), attribution_window_days=2, time_zone="Asia/Shanghai")
    shanghai_midnight = datetime(2024, 3, 3, 16)  # the end of day 2 there: cohort 0 closes with it
    clicked = {"impression_at": at(0, 2), "click_at": at(0, 3)}
    just_in = {"conversion_at": shanghai_midnight - timedelta(seconds=1)}
    just_out = {"conversion_at": shanghai_midnight}
    marts.add_impressions(
        [
            clicked | {"policy_id": "a"} | just_in,
            clicked | {"policy_id": "a"} | just_out,
            clicked | {"policy_id": "b"} | just_in | {"conversion_known_date": day_of(3)},
            clicked | {"policy_id": "b", "click_at": at(1, 3), "conversion_at": at(1, 4)},
            {"impression_at": at(0, 2), "policy_id": "b"},
        ]
    )

    assert counts(known(marts, 1)) == {}
    assert counts(known(marts, 2)) == {(0, "web:unknown"): [(2, 1), (1, 0)]}
    assert counts(known(marts, 3)) == {(0, "web:unknown"): [(2, 1), (1, 1)], (1, "web:unknown"): [(0, 0), (1, 1)]}
    evaluate(marts, 1)
    assert "no mature click cohort yet" in marts.rows("adloom.verdicts")[0]["sentence"]


def test_the_warehouse_sums_users_across_days_and_strata_as_the_definition_says(make_marts: Callable) -> None:
    frame = returning_users(6)
    marts = make_marts(**comparing())
    marts.add_impressions(frame)

    facts = known(marts, 4)
    variance = sum(facts.own.values()) + 2 * sum(facts.cross.values())
    assert variance == pytest.approx(brute_force_variance(facts, frame, 5), rel=1e-6)
    independent = float(sequences.stratified(facts.trials, facts.successes).variance)
    assert variance > 1.5 * independent
    assert float(facts.evidence.variance) == variance
    assert facts.users.sum() < facts.clusters.sum() < facts.trials.sum()


def test_without_users_every_impression_stands_alone(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=7))
    marts.add_impressions(show(0, "a", 60, 5) + show(0, "b", 40, 6) + show(1, "a", 50, 1) + show(1, "b", 50, 4))

    facts = known(marts, 1)
    alone = sequences.stratified(facts.trials, facts.successes)
    assert float(facts.evidence.variance) == pytest.approx(float(alone.variance), rel=1e-12)
    evaluate(marts, 1)
    assert {row["users"] for row in marts.rows("adloom.comparison_days")} == {None}


def forget(marts: Any, up_to: int) -> None:
    with marts.connect() as connection:
        connection.execute(
            text("delete from marts.fct_impressions where impression_date <= :last"), {"last": day_of(up_to)}
        )


def without_evidence_of_age(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "carried_to"}


def test_impressions_beyond_retention_may_go_and_the_verdict_stays(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=4))
    marts.add_impressions(
        [row for number in range(10) for arm in "ab" for row in show(number, arm, 40, (number + ord(arm)) % 5)]
    )
    evaluate(marts, *range(10))
    whole = marts.rows("adloom.verdicts where day = date '2024-03-10'")[0]
    assert whole["carried_to"] is None

    with marts.connect() as connection:  # Day 9 itself was never evaluated: day 8 carries.
        connection.execute(text("delete from adloom.comparison_days where day > date '2024-03-09'"))
    forget(marts, 5)
    evaluate(marts, 9)
    carried = marts.rows("adloom.verdicts where day = date '2024-03-10'")[0]
    assert carried["carried_to"] == day_of(5)
    assert without_evidence_of_age(carried) == without_evidence_of_age(whole)

    evaluate(marts, 9)  # And now day 9 carries itself.
    assert marts.rows("adloom.verdicts where day = date '2024-03-10'")[0] == carried


def test_the_covariance_of_users_reaches_beyond_retention_by_extrapolation(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=7))
    marts.add_impressions(returning_users(16, users=60))
    evaluate(marts, 9, 15)
    whole = marts.rows("adloom.verdicts where day = date '2024-03-16'")[0]
    with marts.connect() as connection:
        connection.execute(text("delete from adloom.comparison_days where day > date '2024-03-10'"))

    # Each of the last days is evaluated with seven days of impressions and what the day before stored.
    with marts.connect() as connection:
        connection.execute(text("create table marts.everything as select * from marts.fct_impressions"))
    for number in range(10, 16):
        with marts.connect() as connection:
            connection.execute(
                text(
                    "create or replace table marts.fct_impressions as"
                    " select * from marts.everything where impression_date > cast(:gone as date)"
                ),
                {"gone": day_of(number - 7)},
            )
        evaluate(marts, number)
    carried = marts.rows("adloom.verdicts where day = date '2024-03-16'")[0]

    assert carried["carried_to"] == day_of(8)
    for name in ("verdict", "winner", "trials_a", "successes_a", "trials_b", "successes_b"):
        assert carried[name] == whole[name]
    assert carried["difference"] == pytest.approx(whole["difference"], rel=1e-12)
    width = whole["difference_high"] - whole["difference_low"]
    assert carried["difference_high"] - carried["difference_low"] == pytest.approx(width, rel=0.10)


def test_within_retention_the_store_is_never_read(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=30))
    marts.add_impressions(show(0, "a", 20, 2) + show(0, "b", 20, 2) + show(1, "a", 20, 2) + show(1, "b", 20, 2))
    evaluate(marts, 1)
    forget(marts, 0)
    evaluate(marts, 2)

    (row,) = marts.rows("adloom.verdicts where day = date '2024-03-03'")
    assert (row["trials_a"], row["carried_to"]) == (20, None)


def test_the_store_grows_by_a_stratum_only_around_the_age_at_which_it_is_needed(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=100))
    marts.add_impressions(show(0, "a", 20, 2) + show(0, "b", 20, 2))
    evaluate(marts, 0, 69, 70, 100, 130, 131)

    assert {(row["day"] - START).days for row in marts.rows("adloom.comparison_days")} == {70, 100, 130}


def test_the_store_holds_every_stratum_with_its_moments(make_marts: Callable) -> None:
    marts = make_marts(**comparing(retention_days=7))
    marts.add_impressions(show(0, "a", 3, 1, user_hash="u1") + show(0, "a", 1) + show(0, "b", 4, 1, user_hash="u2"))
    evaluate(marts, 0)

    rows = marts.rows("adloom.comparison_days", order_by="arm")
    assert [(row["arm"], row["trials"], row["successes"], row["users"]) for row in rows] == [
        ("a", 4, 1, 1),
        ("b", 4, 1, 1),
    ]
    assert [json.loads(row["moments"])["clusters"] for row in rows] == [2, 1]


def test_a_user_counts_once_for_the_split_in_the_first_arm_seen(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"intended_shares": [0.5, 0.5]}))
    marts.add_impressions(
        show(0, "a", 50, user_hash="u1")
        + show(1, "b", 50, user_hash="u1")
        + show(1, "b", 2, user_hash="u2")
        + show(1, "b", 3)
        + show(3, "a", 1, user_hash="u3")
    )
    comparison = marts.shop.evaluation.comparisons[0]
    with marts.connect() as connection:
        assert count_units(connection, marts.shop, comparison, day_of(2), None) == (1, 4, True)


@pytest.mark.parametrize("by_user", [True, False])
def test_a_broken_split_goes_red_and_nothing_is_concluded(make_marts: Callable, by_user: bool) -> None:
    marts = make_marts(**comparing(AB | {"intended_shares": [0.5, 0.5]}))
    ids = {"a": 600, "b": 1_000}
    marts.add_impressions(
        [
            {"impression_at": at(0), "policy_id": arm, "user_hash": f"{arm}{one}" if by_user else None}
            | ({"click_at": at(0)} if arm == "b" and one < 200 else {})
            for arm, users in ids.items()
            for one in range(users)
        ]
    )
    evaluate(marts, 0)

    (row,) = marts.rows("adloom.verdicts")
    assert row["verdict"] == "split_broken"
    assert row["winner"] is None
    assert row["sample_ratio_p"] < 1e-3
    assert f"50 % / 50 % was meant, 600 / 1,000 {'users' if by_user else 'impressions'} came" in row["sentence"]


def test_many_impressions_of_few_users_do_not_break_a_split(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"intended_shares": [0.5, 0.5]}))
    marts.add_impressions(show(0, "a", 900, user_hash="heavy") + show(0, "b", 300, user_hash="light"))
    evaluate(marts, 0)

    (row,) = marts.rows("adloom.verdicts")
    assert (row["verdict"], row["sample_ratio_p"] > 0.5) == ("needs_more", True)


def test_a_split_once_broken_stays_broken_when_the_impressions_are_gone(make_marts: Callable) -> None:
    marts = make_marts(**comparing(AB | {"intended_shares": [0.5, 0.5]}, retention_days=3))
    marts.add_impressions(
        show(0, "a", 600)
        + show(0, "b", 1_000)
        + [row for number in range(1, 6) for arm in "ab" for row in show(number, arm, 20)]
    )
    evaluate(marts, *range(6))
    forget(marts, 2)
    evaluate(marts, 5)

    (row,) = marts.rows("adloom.verdicts where day = date '2024-03-06'")
    assert (row["verdict"], row["carried_to"]) == ("split_broken", day_of(2))


def test_a_shop_without_comparisons_has_no_rows(make_marts: Callable) -> None:
    marts = make_marts()
    evaluate(marts, 0)
    assert marts.rows("adloom.verdicts") == []
