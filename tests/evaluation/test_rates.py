"""Rates from the marts: counts by hand, users and strangers, late facts, empty shops."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text

from adloom.errors import AdloomError
from adloom.evaluation import evaluate, evaluate_rates, rates
from adloom.evaluation.intervals import Moments, wilson
from adloom.evaluation.rates import GRAINS, KEYS, WINDOWS, Key, sample_share, user_moments

DAY = date(2024, 3, 10)
HAND = [
    # campaign, policy, creative, segment, days ago, click known days ago, conversion known days ago
    ("a", "x", "c1", "s1", 0, None, None),
    ("a", "x", "c1", "s1", 0, 0, None),
    ("a", "y", "c1", "s2", 3, 2, 0),
    ("a", "y", "c2", "s2", 6, 6, None),
    ("b", "x", "c2", "s1", 7, 7, 5),
    ("b", "x", "c2", "s1", 27, None, None),
    ("b", "x", "c2", "s1", 28, 27, 26),
]


def _at(days_ago: int | None) -> Any:
    return None if days_ago is None else pd.Timestamp(DAY) - pd.Timedelta(days=days_ago) + pd.Timedelta(hours=12)


def _hand() -> list[dict[str, Any]]:
    return [
        {
            "campaign_id": campaign,
            "policy_id": policy,
            "creative_id": creative,
            "segment_id": segment,
            "impression_at": _at(shown),
            "click_at": _at(clicked),
            "conversion_at": _at(converted),
            "cost": "0.25",
            "value": None if converted is None else "9.99",
        }
        for campaign, policy, creative, segment, shown, clicked, converted in HAND
    ]


def _evaluated(marts: Any, day: date = DAY) -> dict[tuple[int, Key], dict[str, Any]]:
    with marts.connect() as connection:
        evaluate_rates(connection, marts.shop, day)
    rows = [row for row in marts.rows("adloom.evaluations") if row["day"] == day]
    return {(row["window_days"], Key(row["grain"], *(row[name] for name in KEYS))): row for row in rows}


def test_counts_by_hand(marts: Any) -> None:
    marts.add_impressions(_hand())
    found = _evaluated(marts)
    counts = {
        key: tuple(found[key][name] for name in ("impressions", "clicks", "cohort_clicks", "conversions"))
        for key in found
    }
    assert counts[1, Key("overall")] == (2, 1, 1, 0)
    assert counts[7, Key("overall")] == (4, 3, 3, 1)
    # The click of 27 days ago belongs to the cohorts, its impression of 28 days ago is outside the window.
    assert counts[28, Key("overall")] == (6, 4, 5, 3)
    assert counts[7, Key("policy", "a", "y")] == (2, 2, 2, 1)
    assert counts[28, Key("campaign", "b")] == (2, 1, 2, 2)
    assert counts[28, Key("creative", creative_id="c2")] == (3, 2, 3, 2)
    assert counts[7, Key("segment", segment_id="s2")] == (2, 2, 2, 1)
    assert counts[28, Key("creative_segment", creative_id="c2", segment_id="s1")] == (2, 1, 2, 2)
    assert (7, Key("campaign", "b")) not in counts
    assert {grain for _, (grain, *_) in counts} == set(GRAINS)
    row = found[28, Key("overall")]
    assert (float(row["cost"]), float(row["conversions_value"])) == (1.5, 29.97)


def test_ratio_of_sums_with_wilson_where_no_users_are_known(marts: Any) -> None:
    marts.add_impressions(_hand())
    row = _evaluated(marts)[7, Key("overall")]
    assert row["ctr"] == 3 / 4
    assert (row["ctr_interval"], row["users"]) == ("wilson", None)
    assert np.allclose((row["ctr_low"], row["ctr_high"]), wilson(3, 4, 0.95))


def test_facts_known_later_change_nothing(marts: Any) -> None:
    marts.add_impressions(_hand())
    before = _evaluated(marts)
    later = DAY + timedelta(days=1)
    hidden = [row | {"impression_known_date": later, "user_hash": "u"} for row in _hand()]
    slow = [{"impression_at": _at(0), "click_at": _at(0), "click_known_date": later}]
    marts.add_impressions(hidden)
    assert _evaluated(marts) == before
    marts.add_impressions(slow)
    row = _evaluated(marts)[1, Key("overall")]
    assert (row["impressions"], row["clicks"], row["cohort_clicks"]) == (3, 1, 1)
    assert _evaluated(marts, later)[7, Key("overall")]["users"] == 1


def test_invalid_traffic_does_not_count(marts: Any) -> None:
    marts.add_impressions([row | {"is_valid": False, "user_hash": "u"} for row in _hand()])
    row = _evaluated(marts)[28, Key("overall")]
    assert (row["impressions"], row["clicks"], row["cohort_clicks"], row["users"]) == (0, 0, 0, None)


def test_rerun_replaces_the_day(marts: Any) -> None:
    marts.add_impressions(_hand())
    _evaluated(marts)
    first = marts.rows("adloom.evaluations")
    _evaluated(marts, DAY - timedelta(days=1))
    _evaluated(marts)
    again = [row for row in marts.rows("adloom.evaluations") if row["day"] == DAY]
    assert again == first


def test_empty_shop_has_zero_counts_overall(marts: Any) -> None:
    found = _evaluated(marts)
    assert set(found) == {(window, Key("overall")) for window in WINDOWS}
    for row in found.values():
        assert (row["impressions"], row["clicks"], row["cohort_clicks"], row["conversions"]) == (0, 0, 0, 0)
        assert (row["ctr"], row["ctr_low"], row["cr"], row["completeness"]) == (None, None, None, None)
        assert not row["is_mature"]


def test_impressions_without_clicks_have_an_upper_bound(marts: Any) -> None:
    marts.add_impressions([{"impression_at": _at(0), "user_hash": f"u{number % 5}"} for number in range(20)])
    row = _evaluated(marts)[1, Key("overall")]
    assert (row["ctr"], row["ctr_low"], row["users"]) == (0, 0, 5)
    assert 0.1 < row["ctr_high"] < 0.2
    assert (row["cr"], row["cr_interval"], row["is_mature"]) == (None, None, False)


def _crowd(rows: int, seed: int) -> pd.DataFrame:
    """Impressions of 300 users of different eagerness and of strangers, over five weeks and many keys."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 300, rows)
    shown = pd.Timestamp(DAY) + pd.Timedelta(hours=12) - pd.to_timedelta(rng.integers(0, 35, rows), unit="D")
    clicked = rng.random(rows) < rng.beta(0.5, 2, 300)[user]
    click_at = (shown + pd.to_timedelta(rng.integers(0, 3, rows), unit="D")).where(clicked)
    converted = clicked & (rng.random(rows) < rng.beta(0.5, 1.5, 300)[user])
    frame = pd.DataFrame(
        {
            "impression_at": shown,
            "user_hash": [f"{number * 7919 % 65536:04x}{number:028x}" for number in user],
            "creative_id": [f"c{number}" for number in rng.integers(0, 3, rows)],
            "segment_id": [f"s{number % 2}" for number in user],
            "campaign_id": [f"k{number}" for number in rng.integers(0, 2, rows)],
            "policy_id": [f"p{number}" for number in rng.integers(0, 2, rows)],
            "click_at": click_at,
            "conversion_at": (click_at + pd.to_timedelta(rng.integers(0, 8, rows), unit="D")).where(converted),
        }
    )
    frame.loc[rng.random(rows) < 0.2, "user_hash"] = None
    return frame


@pytest.fixture
def crowd(marts: Any) -> Any:
    marts.add_impressions(_crowd(6_000, seed=3))
    return marts


@pytest.mark.parametrize("of_clicks", [False, True])
def test_sql_sums_equal_those_of_the_formula(crowd: Any, of_clicks: bool) -> None:
    """What one scan sums for every grain and window equals `Moments.of` over users counted in Python."""
    with crowd.connect() as connection:
        found = user_moments(connection, crowd.shop, DAY, 1.0, of_clicks=of_clicks)
        rows = connection.execute(text("select * from marts.fct_impressions order by impression_id")).mappings().all()
    tally: dict[Any, dict[Any, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for row in rows:
        clicked = row["click_known_date"] is not None and row["click_known_date"] <= DAY
        converted = row["conversion_known_date"] is not None and row["conversion_known_date"] <= DAY
        if of_clicks and not clicked:
            continue
        day = row["click_date"] if of_clicks else row["impression_date"]
        for place, window in enumerate(WINDOWS):
            if day < DAY - timedelta(days=window - 1):
                continue
            for grain, names in GRAINS.items():
                key = Key(grain, *(row[name] if name in names else "" for name in KEYS))
                user = tally[key, place][row["user_hash"] or row["impression_id"]]
                user[0] += 1
                user[1] += converted if of_clicks else clicked
    assert len(tally) == sum(int((sums.moments[:, 0] > 0).sum()) for sums in found.values())
    for (key, place), users in tally.items():
        expected = Moments.of(*np.array(list(users.values())).T)
        assert found[key].moments[place].tolist() == [
            getattr(expected, name) for name in ("n", "c", "nn", "nc", "cc", "c4")
        ]
        assert found[key].users[place] == sum(len(user) == 32 for user in users)


def test_users_widen_the_interval(crowd: Any) -> None:
    row = _evaluated(crowd)[28, Key("overall")]
    assert (row["ctr_interval"], row["cr_interval"], row["users"]) == ("user_clustered", "user_clustered", 300)
    naive = wilson(row["clicks"], row["impressions"], 0.95)
    assert row["ctr_high"] - row["ctr_low"] > 1.3 * (naive[1] - naive[0])


def test_a_sample_of_users_gives_nearly_the_same_interval(crowd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _evaluated(crowd)[28, Key("overall")]
    monkeypatch.setattr(rates, "MAX_USER_IMPRESSIONS", 2_500)
    part = _evaluated(crowd)[28, Key("overall")]
    for name in ("impressions", "clicks", "ctr", "conversions", "cost"):
        assert part[name] == whole[name]
    assert part["users"] == pytest.approx(300, rel=0.15)
    assert part["ctr_high"] - part["ctr_low"] == pytest.approx(whole["ctr_high"] - whole["ctr_low"], rel=0.15)


def test_sample_share_is_a_whole_number_of_hash_steps() -> None:
    assert sample_share(rates.MAX_USER_IMPRESSIONS) == 1
    share = sample_share(rates.MAX_USER_IMPRESSIONS * 70)
    assert share == pytest.approx(1 / 70, rel=0.01)
    assert float(share * 16**rates.HASH_DIGITS).is_integer()
    assert sample_share(10**15) > 0


def test_local_days_of_the_shop(make_marts: Callable[..., Any]) -> None:
    """Half past four in the afternoon in London is already tomorrow in Shanghai."""
    marts = make_marts(time_zone="Asia/Shanghai")
    marts.add_impressions([{"impression_at": "2024-03-09 16:30"}, {"impression_at": "2024-03-09 15:30"}])
    assert _evaluated(marts)[1, Key("overall")]["impressions"] == 1


def test_marts_that_are_not_built_stop_the_day(marts: Any) -> None:
    marts.add_impressions(_hand())
    with marts.connect() as connection:
        connection.execute(
            text("insert into adloom.landing_days (known_date, manifest_digest) values (:day, 'new')"),
            {"day": DAY - timedelta(days=1)},
        )
    with pytest.raises(AdloomError, match=r"not built, the first is 2024-03-09.*adloom build --shop corner_shop"):
        evaluate(marts.shop, DAY)
    assert marts.rows("adloom.evaluations") == []


def test_a_warehouse_without_marts_says_what_to_do(make_shop: Callable[..., Any]) -> None:
    with pytest.raises(AdloomError, match="there are no marts yet → run: adloom build"):
        evaluate(make_shop(), DAY)


def test_evaluate_writes_everything_or_nothing(marts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    marts.add_impressions(_hand())
    verdicts = importlib.import_module("adloom.evaluation.verdicts")
    evaluate(marts.shop, DAY)
    written = marts.rows("adloom.evaluations")
    assert written

    def fail(*_: object) -> None:
        raise AdloomError("planted")

    monkeypatch.setattr(verdicts, "evaluate_comparisons", fail)
    with pytest.raises(AdloomError, match="planted"):
        evaluate(marts.shop, DAY + timedelta(days=1))
    assert marts.rows("adloom.evaluations") == written
