from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from adloom.strategy import adjust
from adloom.strategy.logged_policies import off_policy_rows
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)


def rows(marts: Any, day: date = DAY) -> dict[tuple[str, str], dict[str, Any]]:
    with warehouse(marts.shop) as engine, engine.connect() as connection:
        return {(row["change"], row["estimator"]): row for row in off_policy_rows(connection, marts.shop, day)}


def log(marts: Any, policy: str, shares: dict[str, float], count: int = 3000, propensity: float | None = None) -> None:
    """Impressions of one policy in one placement; creative b is clicked three times as often as the others."""
    rng = np.random.default_rng(len(policy))
    creatives = rng.choice(list(shares), count, p=list(shares.values()))
    marts.impressions(
        [
            {
                "impression_id": f"{policy}{number}",
                "impression_date": DAY,
                "policy_id": policy,
                "creative_id": creative,
                "propensity": shares[creative] if propensity is None else propensity,
                "click_known_date": DAY if rng.random() < (0.15 if creative == "b" else 0.05) else None,
            }
            for number, creative in enumerate(creatives.tolist())
        ]
    )
    marts.counts(DAY, dict.fromkeys(shares, (1, 0)), policy=policy)


def test_two_logged_policies_are_held_against_each_other(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    log(marts, "even", {"a": 0.5, "b": 0.5})
    log(marts, "clever", {"a": 0.1, "b": 0.9})
    adjust(marts.shop, DAY)
    found = {(row["change"], row["estimator"]): row for row in marts.table("off_policy")}
    assert len(found) == 4
    for estimator in ("snips", "doubly_robust"):
        better, worse = found["spring: even → clever", estimator], found["spring: clever → even", estimator]
        assert (better["decision"], worse["decision"]) == ("passed", "held")
        assert better["new_value"] == pytest.approx(0.14, rel=0.15)
        assert better["impressions"] == 3000
        # Its propensities never vary, so they are the target: exactly .5 / .1, whatever chance made of the counts.
        assert worse["largest_weight"] == pytest.approx(5)


def test_own_policies_and_campaigns_without_propensities_have_no_rows(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    log(marts, "adaptive", {"a": 0.5, "b": 0.5}, count=50)
    log(marts, "holdout", {"a": 0.5, "b": 0.5}, count=50)
    assert rows(marts) == {}
    marts.counts(DAY, {"a": (100, 1)}, policy="even", campaign="autumn")
    marts.counts(DAY, {"a": (100, 1)}, policy="clever", campaign="autumn")
    assert rows(marts) == {}


def test_what_is_known_later_or_long_ago_does_not_count(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    log(marts, "even", {"a": 0.5, "b": 0.5}, count=400)
    log(marts, "clever", {"a": 0.1, "b": 0.9}, count=400)
    assert rows(marts, DAY - timedelta(days=1)) == {}
    assert rows(marts, DAY + timedelta(days=28)) == {}
    assert len(rows(marts, DAY + timedelta(days=27))) == 4


def test_impressions_without_a_usable_propensity_are_left_out(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    for policy in ("even", "clever"):
        log(marts, policy, {"a": 0.5, "b": 0.5}, count=400)
        marts.impressions(
            [
                {"impression_id": f"{policy}-{bad}", "impression_date": DAY, "policy_id": policy, "propensity": bad}
                for bad in (None, 0.0, 1.5, float("nan"))
            ]
        )
    assert {row["impressions"] for row in rows(marts).values()} == {400}
