from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pytest

from adloom.evaluation import sequences
from adloom.strategy.holdout import Sides, compare, in_holdout, lift_rows
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


def nights(rng: np.random.Generator, share: float, lift: float, users: int = 1500, days: int = 30) -> list[Sides]:
    """What 30 nights show of the last 7 days, and of all: users come back, differ in how often they look and click,
    and keep their side; days differ."""
    side = (rng.random(users) >= share).astype(int)
    taste = rng.beta(0.5, 9.5, users) * np.where(side == 1, 1 + lift, 1.0)
    views = rng.poisson(rng.gamma(0.5, 1.4, users)[:, None], (users, days))
    clicks = rng.binomial(views, np.clip(taste[:, None] * rng.gamma(10, 0.1, days), 0, 1))
    arms = np.stack([side == 0, side == 1]).astype(np.int64)
    trials, successes, clusters = (np.stack([arms @ counts]).squeeze(0).T for counts in (views, clicks, views > 0))
    hit, miss = sequences.cell_scores(trials, successes, clusters)
    scores = clicks * hit[:, side].T + (views - clicks) * miss[:, side].T
    seen = []
    for first, end in [(max(0, night - 7), night) for night in range(1, days + 1)] + [
        (0, night) for night in range(8, days + 1)
    ]:
        held, adaptive = arms * scores[:, first:end].sum(1)
        units = arms @ (views[:, first:end].sum(1) > 0)
        seen.append(
            Sides(
                trials[first:end],
                successes[first:end],
                clusters[first:end],
                (int(units[0]), int(units[1])),
                (float(held @ held), float(held @ adaptive), float(adaptive @ adaptive)),
            )
        )
    return seen


def missed(worlds: int, share: float, lift: float) -> float:
    """Share of worlds in which the interval misses the true lift on any of the nights; of the worse window."""
    rng = np.random.default_rng(12)
    wrong, judged = np.zeros((2, 2))
    for _ in range(worlds):
        found = [one.lift(0.05) for one in nights(rng, share, lift)]
        for window, looks in enumerate((found[:30], found[:7] + found[30:])):
            bounds = [one for one in looks if one is not None]
            judged[window] += bool(bounds)
            wrong[window] += any(not low <= lift <= high for _, low, high in bounds)
    assert judged.min() >= 0.99 * worlds
    return float(wrong.max()) / worlds


@pytest.mark.parametrize("lift", [0.0, 0.5])
def test_the_interval_holds_under_daily_looks(lift: float) -> None:
    assert missed(60, 0.2, lift) <= 0.1


@pytest.mark.proof
@pytest.mark.parametrize(("share", "lift"), [(0.2, 0.0), (0.5, 0.0), (0.2, 0.5)])
def test_the_interval_holds_under_daily_looks_in_a_thousand_worlds(share: float, lift: float) -> None:
    assert missed(1000, share, lift) <= 0.05


def test_too_few_clicks_to_bound_the_lift_are_told(make_marts: Callable[..., Any]) -> None:
    shop = make_marts(strategy={"holdout_share": 0.1}).shop
    counts = np.array([[1000, 9000]]), np.array([[10, 90]])
    hit, miss = sequences.cell_scores(*counts)
    held, adaptive = sequences.independent_variance(*counts, (hit, miss))[0].tolist()
    few = Sides(*counts, counts[0], (1000, 9000), (held, 0.0, adaptive))
    assert few.lift(0.05) is None
    assert compare(few, shop, 7)["sentence"].startswith("Not enough data (7 days: adaptive 90 clicks in 9,000")


def test_the_lift_compares_within_days_and_segments(make_marts: Callable[..., Any]) -> None:
    # In both segments the sides click alike; pooled, the holdout of the eager segment would look like a loss.
    marts = make_marts(strategy={"holdout_share": 0.0})
    for segment, every, sizes in (("eager", 5, (600, 200)), ("calm", 20, (200, 600))):
        for policy, size in zip(("holdout", "adaptive"), sizes, strict=True):
            marts.impressions(
                [
                    {
                        "impression_id": f"{segment} {policy} {number}",
                        "impression_date": DAY,
                        "segment_id": segment,
                        "policy_id": policy,
                        "user_hash": UNITS[number],
                        "click_known_date": DAY if number % every == 0 else None,
                    }
                    for number in range(size)
                ]
            )
    marts.counts(DAY, {"a": (4, 0)}, policy="adaptive")
    found = rows(marts)[7]
    assert found["lift"] == pytest.approx(0, abs=1e-9)
    assert found["lift_low"] < 0 < found["lift_high"]
