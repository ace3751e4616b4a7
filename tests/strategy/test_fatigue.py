"""Fatigue: the same users early and late; who comes often and never clicks makes no creative look tired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection

from adloom.strategy import fatigue
from adloom.strategy.fatigue import Exposures, declined
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 20)


@contextmanager
def fatigue_connection(marts: Any) -> Iterator[Connection]:
    with warehouse(marts.shop) as engine, engine.begin() as connection:
        yield connection


def shown(users: int, exposures: int, chance: Callable[[int, int], float], seed: int = 1) -> list[dict[str, Any]]:
    """One impression a day per user of creative a; ``chance(user, nth)`` of a click."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        for nth in range(exposures):
            when = DAY - timedelta(days=exposures - 1 - nth)
            rows.append(
                {
                    "impression_id": f"{user}-{nth}",
                    "impression_date": when,
                    "impression_at": datetime(when.year, when.month, when.day, 12),
                    "user_hash": f"u{user}",
                    "click_known_date": when if rng.random() < chance(user, nth) else None,
                }
            )
    return rows


@pytest.mark.parametrize(
    ("chance", "verdict", "words"),
    [
        (lambda user, nth: 0.2 if nth < 3 else 0.04, "tired", "it tires: let it rest, or order a variant of it"),
        (lambda user, nth: 0.6, "fresh", "it does not tire"),
        (lambda user, nth: 0.001, "needs_more", "not enough data"),
    ],
)
def test_a_creative_is_tired_fresh_or_undecided(
    make_marts: Callable[..., Any], chance: Callable[[int, int], float], verdict: str, words: str
) -> None:
    marts = make_marts()
    rows = shown(300, 8, chance)
    late = DAY + timedelta(days=1)
    rows.append(rows[-1] | {"impression_id": "tomorrow", "impression_date": late, "click_known_date": late})
    marts.impressions(rows)
    with fatigue_connection(marts) as connection:
        [row] = fatigue.fatigue_rows(connection, marts.shop, DAY)
    assert (row["verdict"], row["users"], row["early_impressions"], row["late_impressions"]) == (
        verdict,
        300,
        600,
        1200,
    )
    assert words in row["sentence"]
    if verdict == "tired":
        assert row["decline_low"] < row["decline"] < row["decline_high"]
        assert f"{row['late_clicks']:,} in 1,200 from the fifth on" in row["sentence"]


def test_users_who_come_often_and_never_click_are_no_fatigue(make_marts: Callable[..., Any]) -> None:
    """Half the users come 8 times with a CTR of .1, half twice with .5: pooled, the late CTR is a third."""
    marts = make_marts()
    often = shown(300, 8, lambda user, nth: 0.1, seed=2)
    seldom = [row | {"user_hash": f"x{row['user_hash']}", "impression_id": f"x{row['impression_id']}"}
              for row in shown(300, 2, lambda user, nth: 0.5, seed=3)]  # fmt: skip
    marts.impressions(often + seldom)
    with fatigue_connection(marts) as connection:
        [row] = fatigue.fatigue_rows(connection, marts.shop, DAY)
    assert row["users"] == 300
    assert row["verdict"] != "tired"


@pytest.mark.proof
def test_what_does_not_tire_is_seldom_called_tired_under_daily_looks() -> None:
    """200 worlds of 30 looks, users of very different CTR: at most 5 % are called tired on any day."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rate = rng.beta(0.5, 4.5, 300)
        early = rng.binomial(2, rate)
        late = np.zeros(300, dtype=int)
        for look in range(1, 31):
            late += rng.random(300) < rate
            rows = np.stack([np.full(300, 2), early, np.full(300, look), late, np.ones(300)], axis=1).astype(float)
            decline, low, _ = declined(Exposures("a", rows), 0.05)
            if decline is not None and low is not None and low > 0 and decline >= fatigue.TIRED:
                wrong += 1
                break
    assert wrong / 200 <= 0.05
    print(f"called tired: {wrong} of 200")


def test_a_shop_without_users_has_none(make_marts: Callable[..., Any]) -> None:
    marts = make_marts()
    marts.impressions([{"impression_id": "i", "impression_date": DAY, "impression_at": datetime(2024, 3, 20, 9)}])
    with fatigue_connection(marts) as connection:
        assert fatigue.fatigue_rows(connection, marts.shop, DAY) == []
