"""A shop file that is wrong is refused with file, key and reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from adloom.errors import UsageError
from adloom.settings import CHECKOUT
from adloom.shop import Shop, load_shop


@pytest.mark.parametrize(
    ("overrides", "key", "reason"),
    [
        ({"time_zone": "Mars/Olympus"}, "time_zone", "IANA"),
        ({"attribution_window_day": 7}, "attribution_window_day", "Extra inputs"),
        ({"source": {"kind": "kafka"}}, "source.kind", "files"),
        ({"lookback_days": 3}, "lookback_days", "at least attribution_window_days"),
        ({"bot_user_agents": "("}, "bot_user_agents", "regular expression"),
        ({"strategy": {"holdout_share": 0.9}}, "strategy.holdout_share", "0.5"),
        (
            {"strategy": {"change": {"from": "thompson", "valid_from": "2024-03-08"}}},
            "strategy: ",
            "change.from: is thompson, as algorithm",
        ),
        ({"strategy": {"change": {"from": "ucb", "valid_from": "2024-03-08"}}}, "strategy.change.from", "top_two"),
        ({"strategy": {"change": {"from": "top_two"}}}, "strategy.change.valid_from", "required"),
        (
            {"strategy": {"change": {"from": "top_two", "valid_from": "soon"}}},
            "strategy.change.valid_from",
            "valid date",
        ),
        (
            {"evaluation": {"comparisons": [{"id": "x", "arms": ["a", "a"], "started_on": "2024-01-01"}]}},
            "evaluation.comparisons.0",
            "two different arms",
        ),
    ],
)
def test_a_wrong_key_is_named(make_shop: Callable[..., Shop], overrides: dict[str, Any], key: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_shop(**overrides)
    assert refused.value.message.startswith("corner_shop.yml: ")
    assert key in refused.value.message
    assert reason in refused.value.message


def test_a_change_of_algorithm_is_declared(make_shop: Callable[..., Shop]) -> None:
    declared = {"algorithm": "top_two", "change": {"from": "thompson", "valid_from": "2024-03-08"}}
    change = make_shop(strategy=declared).strategy.change
    assert change is not None
    assert (change.before, change.valid_from) == ("thompson", date(2024, 3, 8))


@pytest.mark.parametrize("shop_id", ["../zozotown", "no_such_shop", "Zozo", ""])
def test_an_unknown_or_hostile_id_is_refused(make_shop: Callable[..., Shop], shop_id: str) -> None:
    make_shop()
    with pytest.raises(UsageError, match="corner_shop"):
        load_shop(shop_id)


def test_a_file_must_carry_its_own_id(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    path = shop.home.parents[2] / "shops" / "corner_shop.yml"
    path.rename(path.with_name("other.yml"))
    with pytest.raises(UsageError, match=r"other.yml: id: is 'corner_shop'"):
        load_shop("other")


def test_the_shops_that_come_with_the_project_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLOOM_SHOPS_DIR", str(CHECKOUT / "shops"))
    for path in (CHECKOUT / "shops").glob("*.yml"):
        assert load_shop(path.stem).id == path.stem
