"""The sample shop: complete in both languages, the same bytes every time, like people, with the truth planted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop, load_shop
from adloom.simulation import sample_shop
from adloom.simulation.behaviours import behave
from adloom.simulation.catalogue import _both, catalogue
from adloom.simulation.shoppers import AGE_BANDS, population
from adloom.window import day_window, days_between

SEED, USERS = 1, 6000
DOUBLE_11 = date(2025, 11, 11)
CHINESE = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return simulated(make_shop)


def simulated(make_shop: Callable[..., Shop], **options: Any) -> Shop:
    return make_shop(
        id="sample_shop",
        language="zh",
        time_zone="Asia/Shanghai",
        simulated=True,
        source={"kind": "sample_shop", "options": {"seed": SEED, "users": USERS} | options},
    )


def landed_bytes(shop: Shop, day: date) -> dict[str, bytes]:
    return {path.parts[-3]: path.read_bytes() for path in shop.landing.glob(f"*/known_date={day}/*")}


def rows(table: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table.to_pylist()
    return found


# -- the catalogue -----------------------------------------------------------------------------------------------


def test_the_catalogue_is_wide_enough() -> None:
    items = catalogue().items
    departments = Counter(catalogue().kinds[item.kind].department for item in items)
    assert len(items) >= 240
    assert len(departments) >= 12
    assert min(departments.values()) >= 18
    assert len({item.item_id for item in items}) == len(items)
    for language in ("zh", "en"):
        assert len({item.title[language] for item in items}) == len(items)


def test_every_item_is_complete_in_both_languages(shop: Shop) -> None:
    for row in rows(sample_shop.tables(shop, DOUBLE_11, SEED, USERS)["items"]):
        facts = json.loads(row["attributes"])
        english = facts.pop("translations")["en"]
        said = [english["title"], english["category"], english["brand"], *english["attributes"]]
        said += english["attributes"].values()
        assert all(said), row["item_id"]
        assert not [text for text in said if CHINESE.search(text)], row["item_id"]
        assert 5 <= len(facts) <= 8
        assert len(english["attributes"]) == len(facts)
        assert row["category"].count("/") == english["category"].count("/") == 1
        assert 0 < row["price"] <= row["list_price"]


def test_a_brand_has_one_name_in_each_language_and_one_department() -> None:
    brands = {(item.brand["zh"], item.brand["en"]) for item in catalogue().items}
    assert len({zh for zh, _ in brands}) == len({en for _, en in brands}) == len(brands)
    homes = {(item.brand["zh"], catalogue().kinds[item.kind].department) for item in catalogue().items}
    assert len(homes) == len(brands)


def test_a_value_without_its_translation_is_an_error() -> None:
    with pytest.raises(KeyError):
        _both("云白", {})
    assert _both("32 小时|32 hours", {}) == {"zh": "32 小时", "en": "32 hours"}


def test_searches_campaigns_and_events_are_in_both_languages(shop: Shop) -> None:
    for kind in catalogue().kinds:
        assert kind.queries["zh"]
        assert kind.queries["en"]
    for day in days_between(catalogue().first_day, catalogue().last_day):
        for row in sample_shop._campaigns(catalogue(), shop, day) + sample_shop._hot_events(catalogue(), shop, day):
            english = json.loads(row["translations"])["en"]
            assert all(english.values())
            assert not CHINESE.search(json.dumps(english, ensure_ascii=False))


# -- a day -------------------------------------------------------------------------------------------------------


def test_a_day_alone_is_the_day_of_a_range(
    shop: Shop, make_shop: Callable[..., Shop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in days_between(date(2025, 11, 9), DOUBLE_11):
        sample_shop.write_day(shop, day)
    in_range = landed_bytes(shop, DOUBLE_11)
    # Nothing remembered, and another home.
    population.cache_clear()
    sample_shop.prices_on.cache_clear()
    monkeypatch.setenv("ADLOOM_HOME", str(tmp_path / "other"))
    alone = load_shop(shop.id)
    sample_shop.write_day(alone, DOUBLE_11)
    assert landed_bytes(alone, DOUBLE_11) == in_range
    assert set(in_range) == set(sample_shop.SCHEMAS)
    other_seed = simulated(make_shop, seed=2)
    sample_shop.write_day(other_seed, DOUBLE_11)
    assert landed_bytes(other_seed, DOUBLE_11)["behaviours"] != in_range["behaviours"]


def test_a_day_that_is_there_is_left_alone(shop: Shop) -> None:
    assert sample_shop.write_day(shop, DOUBLE_11).written
    before = {path: path.stat().st_mtime_ns for path in shop.landing.rglob("*.parquet")}
    again = sample_shop.write_day(shop, DOUBLE_11)
    assert again.written == ()
    assert "already there" in str(again)
    assert {path: path.stat().st_mtime_ns for path in shop.landing.rglob("*.parquet")} == before


@pytest.mark.parametrize("files_in_place", [0, 1, 3, 5])
def test_a_day_cut_off_does_not_look_whole_and_is_mended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, files_in_place: int
) -> None:
    sample_shop.write_day(shop, DOUBLE_11)
    whole = landed_bytes(shop, DOUBLE_11)
    for path in shop.landing.rglob("*.parquet"):
        path.write_bytes(b"damaged")
    replace, moved = Path.replace, []

    def dies(path: Path, target: Path) -> Path:
        if len(moved) == files_in_place:
            raise OSError("killed")
        moved.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(OSError, match="killed"):
        sample_shop.write_day(shop, DOUBLE_11)
    assert "behaviours" not in landed_bytes(shop, DOUBLE_11)
    monkeypatch.setattr(Path, "replace", replace)
    sample_shop.write_day(shop, DOUBLE_11)
    assert landed_bytes(shop, DOUBLE_11) == whole
    assert not [path for path in shop.landing.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize("day", [catalogue().first_day, date(2025, 10, 26), DOUBLE_11, catalogue().last_day])
def test_a_day_knows_nothing_of_later_days(shop: Shop, day: date) -> None:
    made = sample_shop.tables(shop, day, SEED, USERS)
    window = day_window(day, shop.time_zone)
    users = {row["user_id"]: row for row in rows(made["users"])}
    prices = {row["item_id"]: row["price"] for row in rows(made["items"])}
    first_day = population(SEED, USERS).joined + catalogue().first_day.toordinal()
    joined = {sample_shop.user_id(number): first for number, first in enumerate(first_day.tolist())}
    assert len(users) == made["users"].num_rows
    for row in rows(made["behaviours"]):
        assert window.start <= row["occurred_at"] < window.end
        assert row["user_id"] in users, "who comes is delivered on that day"
        assert joined[row["user_id"]] <= day.toordinal()
        if row["item_id"]:
            assert row["item_id"] in prices, "not on sale yet"
        if row["behaviour"] in {"cart", "purchase"}:
            assert row["price"] == prices[row["item_id"]]
            assert row["quantity"] >= 1
    for row in rows(made["privacy_requests"]):
        assert window.start <= row["requested_at"] < window.end
    announced = {one.campaign_id for one in catalogue().campaigns if one.announced <= day}
    assert {row["campaign_id"] for row in rows(made["campaigns"])} <= announced


def test_the_funnel_narrows(shop: Shop) -> None:
    counts: Counter[str] = Counter()
    for day in days_between(date(2025, 10, 6), date(2025, 10, 12)):
        events = rows(sample_shop.tables(shop, day, SEED, USERS)["behaviours"])
        assert 4_000 <= len(events) <= 10_000
        assert len({row["event_id"] for row in events}) == len(events)
        counts += Counter(row["behaviour"] for row in events)
        done = {
            name: {(row["user_id"], row["item_id"]) for row in events if row["behaviour"] == name} for name in counts
        }
        assert done["cart"] <= done["view"]
        assert done["purchase"] <= done["cart"]
        assert [row["occurred_at"] for row in events] == sorted(row["occurred_at"] for row in events)
    assert counts["view"] > 8 * counts["cart"] > 16 * counts["purchase"] > 0
    assert counts["view"] > 8 * counts["search"] > 0
    assert counts["favourite"] > counts["purchase"]


def test_double_11_is_a_rush_that_passes_the_door(shop: Shop) -> None:
    volumes = {
        day: len(behave(SEED, USERS, day, sample_shop.prices_on(SEED, day)))
        for day in days_between(DOUBLE_11 - timedelta(days=28), DOUBLE_11)
    }
    rush = volumes.pop(DOUBLE_11) / median(volumes.values())
    assert 2 < rush < 5 < shop.limits.volume_ratio_fail


def test_people_carry_over_what_they_put_aside_for_double_11() -> None:
    events = {
        day: behave(SEED, USERS, day, sample_shop.prices_on(SEED, day))
        for day in days_between(date(2025, 11, 1), DOUBLE_11)
    }
    last = events.pop(DOUBLE_11)
    carts = {
        pair
        for one in events.values()
        for pair in zip(one.user[one.behaviour == "cart"], one.item[one.behaviour == "cart"], strict=True)
    }
    here = set(zip(last.user[last.behaviour == "cart"], last.item[last.behaviour == "cart"], strict=True))
    bought = set(zip(last.user[last.behaviour == "purchase"], last.item[last.behaviour == "purchase"], strict=True))
    assert bought <= carts | here
    assert len(bought - here) > 100


# -- users -------------------------------------------------------------------------------------------------------


def test_enough_users_of_every_sort(shop: Shop) -> None:
    people = population(SEED, USERS)
    season = (catalogue().last_day - catalogue().first_day).days
    assert (people.joined <= season).sum() >= 5_000
    assert season + 1 >= 60
    first = rows(sample_shop.tables(shop, catalogue().first_day, SEED, USERS)["users"])
    assert len(first) == (people.joined <= 0).sum()
    share = Counter(row["age_band"] for row in first)
    assert share["13-17"] > 100
    assert share[None] > 200
    assert set(share) == {band for band, _ in AGE_BANDS}
    assert {row["gender"] for row in first} == {"female", "male", None}
    assert len({row["region"] for row in first}) > 15
    assert 0.02 < Counter(row["personalisation"] for row in first)["off"] / len(first) < 0.15
    tags = {tag for row in first for tag in (row["interest_tags"] or "").split(";") if tag}
    assert tags <= {kind.name["zh"] for kind in catalogue().kinds}


def test_users_are_delivered_when_they_join_or_change(shop: Shop) -> None:
    known: dict[str, dict[str, Any]] = {}
    for day in days_between(catalogue().first_day, catalogue().first_day + timedelta(days=20)):
        made = sample_shop.tables(shop, day, SEED, USERS)
        known |= {row["user_id"]: row for row in rows(made["users"])}
        offset = (day - catalogue().first_day).days
        # Whatever the shop could say of anyone at the end of the day, it has said.
        people = population(SEED, USERS)
        region, is_on = people.region_on(offset), people.personalisation_on(offset)
        for number in np.flatnonzero(people.joined <= offset).tolist():
            row = known[sample_shop.user_id(number)]
            assert row["region"] == sample_shop.REGIONS[region[number]][0]
            assert (row["personalisation"] == "on") == is_on[number]
        for row in rows(made["privacy_requests"]):
            wanted = "off" if row["kind"] == "opt_out" else "on"
            if row["user_id"] in known:
                assert known[row["user_id"]]["personalisation"] == wanted


# -- what is planted ---------------------------------------------------------------------------------------------


def lift(looked: np.ndarray, bought: np.ndarray, pair: tuple[str, str]) -> float:
    """How much more often those who looked at the first bought the second than everybody."""
    first, second = (list(catalogue().kind_numbers(name)) for name in pair)
    seen = looked.any(axis=1)
    looking, buying = looked[seen][:, first].any(axis=1), bought[seen][:, second].any(axis=1)
    return float(buying[looking].mean() / buying.mean())


@pytest.mark.parametrize("seed", [1, 7])
def test_planted_affinities_are_in_the_data_and_nothing_is_where_none_was_planted(seed: int) -> None:
    kind = np.array([item.kind for item in catalogue().items])
    looked = np.zeros((USERS, len(catalogue().kinds)), dtype=bool)
    bought = np.zeros_like(looked)
    for day in days_between(date(2025, 9, 15), date(2025, 11, 13)):
        events = behave(seed, USERS, day, sample_shop.prices_on(seed, day))
        views, purchases = events.behaviour == "view", events.behaviour == "purchase"
        looked[events.user[views], kind[events.item[views]]] = True
        bought[events.user[purchases], kind[events.item[purchases]]] = True
    planted = {
        (one.looked_at, one.bought): lift(looked, bought, (one.looked_at, one.bought)) for one in sample_shop.AFFINITIES
    }
    nothing = {pair: lift(looked, bought, pair) for pair in sample_shop.UNRELATED}
    assert min(planted.values()) > 1.6, planted
    assert max(nothing.values()) < 1.55, nothing
    assert min(planted.values()) > max(nothing.values())


def test_interests_last(shop: Shop) -> None:
    """What a user looked at in one fortnight tells what they look at in the next."""
    kind = np.array([item.kind for item in catalogue().items])
    looks = np.zeros((2, USERS, len(catalogue().kinds)))
    for half, first in enumerate((date(2025, 10, 8), date(2025, 10, 22))):
        for day in days_between(first, first + timedelta(days=13)):
            events = behave(SEED, USERS, day, sample_shop.prices_on(SEED, day))
            views = events.behaviour == "view"
            np.add.at(looks[half], (events.user[views], kind[events.item[views]]), 1)
    both = (looks.sum(axis=2) > 4).all(axis=0)
    before, after = looks[:, both] / looks[:, both].sum(axis=2, keepdims=True)
    alike = (np.minimum(before, after)).sum(axis=1).mean()
    strangers = (np.minimum(before, np.roll(after, 1, axis=0))).sum(axis=1).mean()
    assert alike > 2 * strangers


def test_prices_have_a_history() -> None:
    days = list(days_between(catalogue().first_day, catalogue().last_day))
    history = np.array([sample_shop.prices_on(SEED, day) for day in days])
    listed = np.array([item.list_price for item in catalogue().items])
    assert (history <= listed).all()
    ordinary = history[: days.index(date(2025, 9, 18)) + 1]
    changed = sum(len(set(prices[prices > 0])) > 1 for prices in history.T)
    assert changed > len(listed) / 2
    assert sum(len(set(prices)) > 1 for prices in ordinary.T) < len(listed) / 4, "from day to day little moves"
    black_friday = next(one for one in catalogue().campaigns if one.campaign_id == "black_friday_2025")
    running = next(one for one in catalogue().campaigns if one.campaign_id == "run_together_2025")
    kinds = set(black_friday.kinds) - set(running.kinds)  # those were reduced on the eve, too
    covered = [n for n, item in enumerate(catalogue().items) if item.kind in kinds]
    sale, eve = sample_shop.prices_on(SEED, date(2025, 11, 28)), sample_shop.prices_on(SEED, date(2025, 11, 23))
    assert np.allclose(sale[covered], 0.8 * eve[covered], atol=0.051), "20 % off, and nothing raised before"
    after = sample_shop.prices_on(SEED, date(2025, 11, 12))
    reduced = sample_shop.prices_on(SEED, DOUBLE_11) < after
    assert 0.4 < reduced.mean() < 0.8


# -- wrong use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"users": 12}, "source.options.users: 12"),
        ({"users": "many"}, "source.options.users: 'many'"),
        ({"seed": -1}, "source.options.seed: -1"),
        ({"seed": True}, "source.options.seed: True"),
        ({"sed": 1}, "sed is not known"),
    ],
)
def test_wrong_options_are_named(make_shop: Callable[..., Shop], options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sample_shop.write_day(simulated(make_shop, **options), DOUBLE_11)


def test_only_a_shop_that_says_it_is_simulated_is_simulated(make_shop: Callable[..., Shop]) -> None:
    with pytest.raises(UsageError, match="has the source files"):
        sample_shop.write_day(make_shop(), DOUBLE_11)
    with pytest.raises(UsageError, match="simulated: must be true"):
        sample_shop.write_day(make_shop(source={"kind": "sample_shop"}), DOUBLE_11)


@pytest.mark.parametrize("day", [date(2025, 9, 14), date(2025, 12, 1)])
def test_a_day_outside_the_season_is_refused(shop: Shop, day: date) -> None:
    with pytest.raises(AdloomError, match="season runs from 2025-09-15 to 2025-11-30"):
        sample_shop.write_day(shop, day)
    assert not shop.landing.exists()
