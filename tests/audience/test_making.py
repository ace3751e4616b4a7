"""Portraits of small worlds, computed by hand; what must never be in them; days in any order."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from adloom.audience import making
from adloom.audience.portraits import ALL, NOT_PERSONALISED, read_affinities, read_portraits
from adloom.audience.words import clean
from adloom.errors import AdloomError
from adloom.warehouse.content import digests
from adloom.warehouse.engine import warehouse


@pytest.fixture
def shelf(facts: Any) -> list[Any]:
    """Four science-fiction books from 10 to 40, four teas, and one book nobody else reads."""

    def make(item_id: str, category: str, price: int, title: str, in_english: tuple[str, str]) -> Any:
        english = dict(zip(("title", "category"), in_english, strict=True))
        return facts.item(item_id, category, price, title, english)

    prices = range(1, 5)
    fiction = "Books/Science fiction"
    books = [make(f"b{n}", "图书/科幻小说", 10 * n, f"《第{n}本》", (f"Volume {n}", fiction)) for n in prices]
    teas = [make(f"t{n}", "茶/绿茶", 10 * n, f"龙井 {n} 号", (f"Longjing {n}", "Tea/Green tea")) for n in prices]
    return [*books, *teas, make("odd", "图书/密码学", 15, "《只有一人读》", ("Read by One", "Books/Cryptography"))]


def _readers(facts: Any, count: int = 14, name: str = "reader") -> list[dict[str, Any]]:
    return [facts.did(f"{name}{n}", "b1") for n in range(count)]


def _drinkers(facts: Any, count: int = 14, item_id: str = "t4") -> list[dict[str, Any]]:
    return [facts.did(f"drinker{n}", item_id) for n in range(count)]


def _portraits(world: Any, day: int, facts: Any) -> dict[str, Any]:
    with warehouse(world.shop) as engine, engine.connect() as connection:
        return {one.segment_id: one for one in read_portraits(connection, facts.on(day))}


def _digests(world: Any, day: Any = None) -> dict[str, str]:
    with warehouse(world.shop) as engine:
        return digests(engine, day)


def test_a_portrait_says_what_its_segment_likes_saw_and_pays(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    world = make_world()
    world.know(1, [*_readers(facts), *_drinkers(facts)], shelf)
    world.make(1)
    found = _portraits(world, 1, facts)
    # 14 users each, rounded down to a multiple of 3; nobody is left for `all`; the reserved two are always there.
    assert {name: one.users for name, one in found.items()} == {
        "books_science_fiction__value__active": 12,
        "tea_green_tea__premium__active": 12,
        ALL: 0,
        NOT_PERSONALISED: 0,
    }
    readers = found["books_science_fiction__value__active"]
    assert readers.interests == (("图书/科幻小说", 1.0),)
    assert readers.recent_items == ("b1",)
    assert readers.words == {
        "zh": "喜欢科幻小说，最近浏览了《第1本》，看重性价比，近期活跃",
        "en": "into science fiction, recently looked at “Volume 1”, looks for good value, recently active",
    }
    assert found[NOT_PERSONALISED].words == {"zh": "", "en": ""}
    assert not found[NOT_PERSONALISED].is_personalised


def test_interests_weigh_by_recency_and_by_what_was_done(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    """Half-life 2 days. Tea: a cart (4) two days ago counts 2, a view today 1. Books: a purchase (6) 4 days ago 1.5."""
    world = make_world({"half_life_days": 2})
    world.know(1, [facts.did("ann", "b1", "purchase")], shelf)
    world.know(3, [facts.did("ann", "t1", "cart"), facts.did("ann", "t2", events=99, day=2)])
    world.know(5, [facts.did("ann", "t2"), facts.did("ann", "nobody knows this item")])
    world.make(5)
    weights = world.query(
        "select category_2, weight, views, carts, purchases from intermediate.int_users__interests "
        "where known_date = :day order by 1",
        day=facts.on(5),
    )
    # The 99 views of day 2 count as 5, three days ago: 5 × 0.5 ** 1.5.
    tea = 2_000_000 + 1_000_000 + 5 * round(1_000_000 * 0.5**1.5)
    assert weights == [("图书/科幻小说", 1_500_000, 0, 0, 1), ("茶/绿茶", tea, 100, 1, 0)]


def test_the_window_is_left_behind_and_the_life_cycle_told(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    days = {"window_days": 20, "active_days": 5, "lapsed_days": 12, "history_days": 40}
    world = make_world(days)
    world.know(1, [facts.did(user, "b1") for user in ("old", "returning", "lapsing", "lapsed", "stayed")], shelf)
    world.know(18, [facts.did("lapsing", "t1"), facts.did("lapsed", "t1", day=12)])
    world.know(25, [facts.did("new", "t1"), facts.did("returning", "t1"), facts.did("stayed", "t1", day=9)])
    world.know(26, [facts.did("stayed", "t1")])
    world.make(26)
    lives = dict(
        world.query(
            "select user_hash, life_cycle from intermediate.int_users__profiled where known_date = :day",
            day=facts.on(26),
        )
    )
    assert dict(lives) == {
        "new": "new",
        "returning": "returning",
        "lapsing": "lapsing",
        "lapsed": "lapsed",
        "stayed": "returning",
        "old": "lapsed",
    }
    # Books were looked at on day 1 only: outside the window of 20 days.
    interests = "select distinct category_1 from intermediate.int_users__interests where known_date = :day"
    assert world.query(interests, day=facts.on(26)) == [("茶",)]


def test_late_facts_and_later_deliveries_of_items_count_from_the_day_they_are_known(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    world = make_world()
    world.know(1, _readers(facts), shelf)
    world.know(2, [facts.did("late", "b1", day=1)], [facts.item("b1", "漫画/英雄", 10, "《第1本》")])
    world.make(2)
    categories = "select distinct category_2 from intermediate.int_users__interests where known_date = :day"
    assert world.query(categories, day=facts.on(1)) == [("图书/科幻小说",)]
    assert world.query(categories, day=facts.on(2)) == [("漫画/英雄",)]
    late = "select known_date from intermediate.int_users__profiled where user_hash = 'late'"
    assert world.query(late) == [(facts.on(2),)]


# --- who is in no portrait -----------------------------------------------------------------------------------------


def test_minors_and_opted_out_users_are_in_no_portrait_and_no_affinity(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    """Twelve of them read what nobody else does and buy tea: nothing of it is seen anywhere."""
    world = make_world()
    minors = [f"minor{n}" for n in range(12)]
    secrets = [facts.did(one, "odd") for one in minors] + [facts.did(one, "t4", "purchase") for one in minors]
    world.know(1, [*_readers(facts, 20), *secrets], shelf, dict.fromkeys(minors, NOT_PERSONALISED))
    world.know(2, [*_readers(facts, 20), *secrets])
    world.make(2)
    assert world.query("select count(*) from intermediate.int_users__interests where user_hash like 'minor%'") == [(0,)]
    assert world.query("select distinct segment_id from adloom.user_portraits where user_hash like 'minor%'") == [
        (NOT_PERSONALISED,)
    ]
    told = json.dumps(world.query("select * exclude (day, content_as_of) from adloom.portraits"), ensure_ascii=False)
    assert "密码学" not in told
    assert "只有一人读" not in told
    assert world.query("select count(*) from adloom.affinities") == [(0,)]
    assert world.sizes(2)[NOT_PERSONALISED] == 12


def test_users_of_unknown_age_are_not_described_where_the_shop_says_so(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    """No profile was ever delivered of these users: their age is unknown."""
    for is_minor, segment in ((False, "图书_科幻小说__value__active"), (True, NOT_PERSONALISED)):
        world = make_world(unknown_age_is_minor=is_minor, id="careful" if is_minor else "careless")
        world.know(1, _readers(facts, 15), [dict(one) | {"attributes": None} for one in shelf])
        world.make(1)
        assert world.sizes(1)[segment] == 15


def test_who_opts_out_is_served_so_at_once_and_the_count_does_not_tell(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    world = make_world()
    world.know(1, [*_readers(facts, 15), *_drinkers(facts)], shelf)
    world.know(2, _drinkers(facts), segments={"reader3": NOT_PERSONALISED})
    world.make(2)
    ann = "select segment_id, counted_in from adloom.user_portraits where user_hash = 'reader3' and day = :day"
    readers = "books_science_fiction__value__active"
    assert world.query(ann, day=facts.on(2)) == [(NOT_PERSONALISED, readers)]
    assert world.sizes(1, is_exact=True) == world.sizes(2, is_exact=True)
    # Two more, and the three of them may be seen to have left.
    world.know(3, _readers(facts, 3), segments={"reader4": NOT_PERSONALISED, "reader5": NOT_PERSONALISED})
    world.make(3)
    assert world.sizes(3, is_exact=True)[readers] == 12
    assert world.query(ann, day=facts.on(3)) == [(NOT_PERSONALISED, NOT_PERSONALISED)]


# --- what one user cannot change -----------------------------------------------------------------------------------

EVERYTHING = "select * exclude (day, content_as_of) from adloom.portraits where day = :day order by segment_id"


def test_a_newcomer_cannot_be_read_off_two_published_days(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    """Between the days only Ann comes. The naive counts name her interest; what was published says nothing."""
    world = make_world()
    world.know(1, [*_readers(facts, 14), *_drinkers(facts, 14)], shelf)
    world.know(2, [facts.did("ann", "t4"), facts.did("ann", "odd", events=5)])
    world.make(2)
    naive = "select interest_2, count(*) from intermediate.int_users__profiled where known_date = :day group by 1"
    first, second = (dict(world.query(naive, day=facts.on(day))) for day in (1, 2))
    assert [name for name in second if second[name] != first.get(name, 0)] == ["图书/密码学"]

    assert world.query(EVERYTHING, day=facts.on(1)) == world.query(EVERYTHING, day=facts.on(2))
    hers = "select segment_id, counted_in from adloom.user_portraits where user_hash = 'ann'"
    assert world.query(hers) == [(ALL, "")]


def test_a_newcomer_who_makes_a_group_full_is_not_betrayed_by_its_arrival(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    """k' = 3. On day 2 two tea drinkers and a reader come: too few for tea. On day 3 only Ann comes, tea's third."""
    world = make_world()
    world.know(1, [*_readers(facts, 14), *_drinkers(facts, 14)], shelf)
    world.know(2, [facts.did("x1", "t4"), facts.did("x2", "t4"), facts.did("x3", "b1")])
    world.know(3, [facts.did("ann", "t4")])
    world.know(4, [facts.did("x4", "b1"), facts.did("x5", "b1")])
    world.make(4)
    assert world.query(EVERYTHING, day=facts.on(2)) == world.query(EVERYTHING, day=facts.on(3))
    counted = [world.sizes(day, is_exact=True) for day in (1, 2, 3, 4)]
    # On day 2 the three are counted together, where nothing is said of them; whose doing day 4 is cannot be told.
    assert counted[1] == counted[2] == counted[0] | {ALL: 3}
    assert counted[3] != counted[2]


def test_one_odd_user_does_not_rename_the_segment_of_others(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    world = make_world()
    world.know(1, [*_readers(facts, 14), *_drinkers(facts, 14)], shelf)
    world.know(2, [facts.did("ann", "odd", events=5), *(facts.did(f"x{n}", "t4") for n in range(3))])
    world.make(2)
    assert set(world.sizes(1)) == set(world.sizes(2))


def test_what_a_single_user_did_does_not_change_what_is_said(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    """On day 2 only one of the readers is active, and turns to tea: shares computed anew would tell it."""
    world = make_world()
    world.know(1, [*_readers(facts, 14), *_drinkers(facts, 14)], shelf)
    world.know(2, [facts.did("reader0", "t4"), facts.did("reader0", "b2")])
    world.know(3, [facts.did(f"reader{n}", "t4") for n in range(1, 14)])
    world.make(3)
    said = "select content_as_of, interests from adloom.portraits where day = :day and segment_id like 'books%'"
    one, two, three = (world.query(said, day=facts.on(day)) for day in (1, 2, 3))
    assert one == two
    assert three != two


def test_an_item_that_fewer_than_k_looked_at_is_never_named(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    world = make_world()
    rare = [facts.did(f"reader{n}", "b4", events=5) for n in range(9)]
    world.know(1, [*_readers(facts, 14), *rare, facts.did("reader9", "odd", events=5)], shelf)
    world.make(1)
    assert world.query("select distinct recent_items from adloom.portraits where segment_id like 'books%'") == [
        ('[{"en":"Volume 1","item_id":"b1","zh":"第1本"}]',)
    ]
    told = json.dumps(world.query("select * exclude (day, content_as_of) from adloom.portraits"), ensure_ascii=False)
    assert "密码学" not in told
    assert "只有一人读" not in told
    assert "reader" not in told


@pytest.mark.parametrize("seed", [1, 2])
def test_in_a_random_world_nothing_is_named_that_fewer_than_k_saw(make_world: Any, facts: Any, seed: int) -> None:
    """Titles and categories that look like ids among others; every name in the words is checked against the facts."""
    chance, world = random.Random(seed), make_world()
    hexes = [f"{chance.getrandbits(64):016x}" for _ in range(6)]
    titles = {
        f"i{n}": chance.choice([f"Kettle {n}", f"《书 {n}》", hexes[n % 6], f"1380013{n:04}", ""]) for n in range(40)
    }
    paths = ["图书/小说", "厨房/水壶", f"{hexes[0]}/x", "4756105"]
    world.know(1, [], [facts.item(one, chance.choice(paths), chance.randrange(1, 90), titles[one]) for one in titles])
    items = sorted(titles)
    did = [
        facts.did(f"user-{chance.randrange(150):03}", chance.choices(items, range(1, 41))[0], day=chance.choice([2, 3]))
        for _ in range(1500)
    ]
    world.know(3, did)
    world.make(3)
    viewers: dict[str, set[str]] = {one: set() for one in titles}
    for row in did:
        viewers[row["item_id"]].add(row["user_hash"])
    common = {clean(titles[one], 30) for one in titles if len(viewers[one]) >= 10}
    named = 0
    for segment, items_named, zh, en in world.query(
        "select segment_id, recent_items, words_zh, words_en from adloom.portraits"
    ):
        told = f"{segment} {zh} {en}"
        assert not re.search(r"user-|\d{5}|[0-9a-f]{12}|\bi\d+\b", told), told
        for quoted in re.findall(r"[“《](.*?)[”》]", told):
            named += 1
            assert quoted in common
        assert all(len(viewers[one["item_id"]]) >= 10 for one in json.loads(items_named))
    assert named


# --- affinities ----------------------------------------------------------------------------------------------------


def _affinities(world: Any, day: int, facts: Any) -> dict[tuple[str, str], Any]:
    with warehouse(world.shop) as engine, engine.connect() as connection:
        return {(one.viewed_category, one.bought_category): one for one in read_affinities(connection, facts.on(day))}


def test_an_affinity_is_counted_by_hand_and_stands_until_the_next_block_is_over(
    make_world: Any, facts: Any, shelf: list[Any]
) -> None:
    """40 users. 20 look at books, 13 of them buy tea; of the 20 others 3 buy tea: lift 13 × 40 / (20 × 16) = 1.625."""
    world = make_world({"affinity_days": 7})
    rows = [facts.did(f"u{n}", "b1" if n < 20 else "odd2") for n in range(40)]
    rows += [facts.did(f"u{n}", "t1", "purchase") for n in [*range(13), 20, 21, 22]]
    world.know(1, rows[:30], [*shelf, facts.item("odd2", "玩具/积木")])
    world.know(7, rows[30:])
    late = [facts.did(f"u{n}", "t1", "purchase") for n in range(40)]
    for day in (8, 13):
        world.know(day, late)
    world.know(14, late)
    world.make(14)
    assert _affinities(world, 1, facts) == {}
    found = _affinities(world, 7, facts)
    assert set(found) == {("图书", "茶"), ("图书/科幻小说", "茶/绿茶")}
    one = found["图书", "茶"]
    # Rounded down to multiples of 3; toys → tea has three users only.
    assert (one.users_viewed, one.users_bought, one.users_both) == (18, 15, 12)
    assert one.lift == pytest.approx(1.625, abs=0.01)
    assert 1 < one.lift_low < one.lift < one.lift_high
    # What anybody did since is not seen before the block is over, and then it is seen alone.
    assert _affinities(world, 8, facts) == _affinities(world, 13, facts) == found
    assert _affinities(world, 14, facts) == {}


# --- a function of the facts ---------------------------------------------------------------------------------------


def _history_of(facts: Any, day: int) -> list[dict[str, Any]]:
    rows = _readers(facts, 10 + 2 * day) + _drinkers(facts, 18 - day, f"t{day % 4 + 1}")
    return [*rows, facts.did(f"guest{day}", "odd")]


def _history(world: Any, facts: Any, shelf: list[Any]) -> None:
    for day in (1, 2, 3, 4, 6, 7):
        world.know(day, _history_of(facts, day), shelf if day == 1 else ())


def test_whatever_the_order_cuts_portions_and_deliveries_the_end_is_the_same(
    make_world: Any, facts: Any, shelf: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, mixed = make_world(id="clean"), make_world(id="mixed")
    for world in (clean, mixed):
        _history(world, facts, shelf)
    for day in (7, 5):
        clean.make(day)

    note = making._note

    def cut_off(connection: Any, day: Any, *more: Any) -> None:
        if day == facts.on(6):
            raise RuntimeError("killed")
        note(connection, day, *more)

    mixed.make(1)
    with monkeypatch.context() as patch:
        patch.setattr(making, "_note", cut_off)
        patch.setattr(making, "DAYS_AT_ONCE", 2)
        with pytest.raises(RuntimeError, match="killed"):
            mixed.make(7)
    mixed.make(5)
    assert [one.day for one in mixed.make(7).days] == [6, 7]
    assert _digests(mixed) == _digests(clean)
    assert mixed.sizes(5) == mixed.sizes(4)
    assert not mixed.make(7).days

    # A day delivered otherwise is told again with all that stand on it, and so it is when that is taken back.
    mixed.know(3, [])
    assert mixed.make(7).days == [facts.on(day) for day in (3, 4, 6, 7)]
    assert mixed.sizes(7, is_exact=True) != clean.sizes(7, is_exact=True)
    mixed.know(3, _history_of(facts, 3))
    mixed.make(7)
    mixed.make(5)
    assert _digests(mixed) == _digests(clean)


def test_nothing_known_is_an_error_with_a_next_step(make_world: Any, facts: Any) -> None:
    world = make_world()
    with pytest.raises(AdloomError, match="nothing has landed up to 2024-03-01 → run `adloom run"):
        world.make(1)
    with pytest.raises(AdloomError, match="there are no portraits of 2024-03-01 → run: adloom portraits"):
        _portraits(world, 1, facts)


def test_a_shop_too_small_for_any_segment_says_nothing(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    world = make_world()
    world.know(1, _readers(facts, 9), shelf)
    world.make(1)
    found = _portraits(world, 1, facts)
    assert {name: (one.users, one.words["en"]) for name, one in found.items()} == {
        ALL: (0, ""),
        NOT_PERSONALISED: (0, ""),
    }


def test_a_left_out_category_is_never_looked_at(make_world: Any, facts: Any, shelf: list[Any]) -> None:
    world = make_world({"left_out_categories": ["图书"]})
    world.know(1, _readers(facts, 14), shelf)
    world.make(1)
    assert world.query("select count(*) from intermediate.int_users__interests") == [(0,)]
    told = json.dumps(world.query("select * exclude (day, content_as_of) from adloom.portraits"), ensure_ascii=False)
    assert "books" not in told
    assert "第1本" not in told
