from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from adloom.strategy.holdout import Side, compare, in_holdout, lift_rows
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
UNITS = [hashlib.md5(str(number).encode()).hexdigest() for number in range(20_000)]  # noqa: S324


def test_the_holdout_is_stable_and_has_its_share() -> None:
    # Written down once: an ad server in another language must agree, and a release must not move users.
    assert [number for number in range(20) if in_holdout(f"user {number}", 0.3)] == [0, 1, 2, 4, 5, 6, 10, 13]
    held = sum(in_holdout(unit, 0.05) for unit in UNITS) / len(UNITS)
    assert held == pytest.approx(0.05, abs=0.005)
    assert not any(in_holdout(unit, 0.0) for unit in UNITS)
    assert all(in_holdout(unit, 1.0) for unit in UNITS)
    assert all(in_holdout(unit, 0.10) for unit in UNITS if in_holdout(unit, 0.05)), "a larger holdout keeps its users"


def rows(marts: Any, day: date = DAY) -> dict[int, dict[str, Any]]:
    with warehouse(marts.shop) as engine, engine.connect() as connection:
        return {row["window_days"]: row for row in lift_rows(connection, marts.shop, day)}


def traffic(marts: Any, adaptive_ctr: float, holdout_ctr: float, users: int = 3000, share: float = 0.3) -> None:
    """Every user sees four ads on one day; policies by the real hash; clicks at the CTRs, evenly spread."""
    rng = np.random.default_rng(11)
    impressions = []
    for user in UNITS[:users]:
        policy = "holdout" if in_holdout(user, share) else "adaptive"
        ctr = holdout_ctr if policy == "holdout" else adaptive_ctr
        impressions += [
            {
                "impression_id": f"{user}-{number}",
                "impression_date": DAY,
                "user_hash": user,
                "policy_id": policy,
                "click_known_date": DAY if rng.random() < ctr else None,
            }
            for number in range(4)
        ]
    marts.impressions(impressions)
    marts.counts(DAY, {"a": (4, 0)}, policy="adaptive")


def test_a_shop_without_these_policies_is_told_so(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    marts.counts(DAY, {"a": (1000, 50)}, policy="random")
    found = rows(marts)
    assert sorted(found) == [7, 28]
    assert found[7]["lift"] is None
    assert "no impressions of the policies 'adaptive' and 'holdout'" in found[7]["sentence"]


def test_lift_with_interval_and_counts(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"holdout_share": 0.3})
    traffic(marts, 0.3, 0.2)
    found = rows(marts)[7]
    assert found["adaptive_impressions"] + found["holdout_impressions"] == 12_000
    assert found["lift_low"] < 0.5 < found["lift_high"]
    assert found["lift_low"] > 0.2
    assert f"adaptive {found['adaptive_clicks']:,} clicks" in found["sentence"]
    # Clicks known later have not happened yet; the impressions were known by then.
    assert rows(marts, date(2024, 3, 6))[7]["adaptive_impressions"] == 0


def test_few_clicks_are_not_enough_data(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"holdout_share": 0.3})
    traffic(marts, 0.3, 0.2, users=20)
    found = rows(marts)[7]
    assert found["lift"] is None
    assert found["sentence"].startswith("Not enough data (7 days: adaptive ")


def test_a_broken_split_reports_no_lift(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"holdout_share": 0.05})
    traffic(marts, 0.3, 0.2)
    found = rows(marts)[7]
    assert found["lift"] is None
    assert found["sentence"].startswith("Split broken")


def test_without_users_an_impression_is_its_own_unit(make_marts: Callable[..., Any]) -> None:
    marts = make_marts(strategy={"holdout_share": 0.5}, language="zh")
    marts.impressions(
        [
            {
                "impression_id": f"{policy}{number}",
                "impression_date": DAY,
                "policy_id": policy,
                "click_known_date": DAY if number % 5 == 0 else None,
            }
            for policy in ("adaptive", "holdout")
            for number in range(500)
        ]
    )
    marts.counts(DAY, {"a": (4, 0)}, policy="adaptive")
    found = rows(marts)[7]
    assert found["lift"] == pytest.approx(0)
    assert found["sentence"].startswith("自适应投放的 CTR 比对照组")


def sides(rng: np.random.Generator, share: float, users: int = 4000) -> tuple[Side, Side]:
    """Users differ in how often they look and how often they click: impressions of one user are alike."""
    made = []
    for count in (round(users * (1 - share)), round(users * share)):
        views = rng.geometric(0.2, count)
        clicks = rng.binomial(views, rng.beta(0.5, 9.5, count))
        made.append(
            Side(
                int(views.sum()),
                int(clicks.sum()),
                count,
                int((clicks**2).sum()),
                int((views**2).sum()),
                int((views * clicks).sum()),
            )
        )
    return made[0], made[1]


def test_the_interval_holds_when_users_see_several_ads(make_marts: Callable[..., Any]) -> None:
    shop = make_marts(strategy={"holdout_share": 0.1}).shop
    rng = np.random.default_rng(12)
    covered = 0
    for _ in range(400):
        found = compare(*sides(rng, 0.1), shop, 7)
        covered += found["lift_low"] <= 0 <= found["lift_high"]
    assert 0.92 <= covered / 400 <= 0.98
