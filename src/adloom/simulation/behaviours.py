"""What the sample shop's users do on a day: sessions of looks, searches, favourites, carts and purchases.

Drawn from streams of the day alone, so a day needs no other day's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from adloom.simulation.catalogue import Campaign, catalogue
from adloom.simulation.shoppers import (
    NEVER,
    Flags,
    Floats,
    Ints,
    Population,
    pick,
    population,
    stream,
    traffic_on,
    visitors,
)

DAY_SECONDS = 86_400
LONGEST_TAIL = 1_500  # seconds between a session's last look and the last event that follows from it
FOCUS_SHARE = 0.4  # of the sessions: about what occupies a user these weeks, not what they have always liked
KEPT_SHARE = 0.8  # of a session's looks stay with its kind
SEARCHED_SHARE = 0.42  # of the sessions begin with a search
CHEAP = 120  # CNY: below it people decide more easily and take several
LED_EAGERNESS = 3.0  # how much apter to end in a purchase is a look an affinity led to
HOURS = (6, 3, 1.5, 1, 1, 1.5, 4, 9, 14, 18, 22, 24, 30, 26, 22, 21, 21, 22, 25, 32, 42, 46, 38, 18)
BIG_DAY = 2.0  # traffic from which on a day's offers are awaited at midnight


@dataclass(frozen=True)
class Affinity:
    """A planted truth: a look at ``looked_at`` leads, with this chance, to a look at ``bought`` that is apt to end in
    a purchase. Names are a department (``phones``) or one kind of it (``home/lamps``), as in `Kind.key`."""

    looked_at: str
    bought: str
    chance: float


AFFINITIES = (
    Affinity("phones", "headphones/earbuds", 0.12),
    Affinity("books/literary", "home/lamps", 0.07),
    Affinity("books/mystery", "home/lamps", 0.07),
    Affinity("shoes/running", "watches/smart", 0.07),
    Affinity("clothing/dresses", "beauty/lips", 0.08),
    Affinity("tea_coffee/coffee", "snacks/chocolate", 0.08),
    Affinity("sports/camping", "snacks/jerky", 0.08),
    Affinity("books/children", "toys/blocks", 0.08),
    Affinity("sports/fitness", "headphones/sport", 0.07),
)
"""What portraits and cross-category ads should find."""

UNRELATED = (
    ("phones", "pets/food"),
    ("pets/cat", "headphones/earbuds"),
    ("shoes/running", "home/bedding"),
    ("beauty/skincare", "toys/games"),
    ("tea_coffee/coffee", "watches/smart"),
)
"""Pairs (looked at, bought) between which nothing is planted and no persona stands: they should not be found."""


@dataclass(frozen=True)
class Behaviours:
    """The events of a day by time, one row each."""

    user: Ints
    behaviour: NDArray[np.str_]
    second: Floats  # of the local day
    item: Ints  # position in the catalogue; -1: none
    query: list[str | None]
    quantity: Ints  # 0: none

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class _Day:
    """What every part of a day's making needs."""

    seed: int
    users: int
    day: date
    prices: Floats

    @property
    def people(self) -> Population:
        return population(self.seed, self.users)

    @property
    def offset(self) -> int:
        return (self.day - catalogue().first_day).days

    def stream(self, name: str) -> np.random.Generator:
        return stream(self.seed, name, self.day)

    def campaigns(self) -> list[Campaign]:
        return [campaign for campaign in catalogue().campaigns if campaign.is_on(self.day)]


@dataclass(frozen=True)
class _Sessions:
    """The looks of a day, session by session."""

    session: Ints
    user: Ints
    kind: Ints
    is_led: Flags  # an affinity led to it

    def __len__(self) -> int:
        return len(self.user)

    @property
    def openings(self) -> Ints:
        """The first look of each session."""
        return np.flatnonzero(np.diff(self.session, prepend=-1) > 0)


@dataclass(frozen=True)
class _Looks(_Sessions):
    """The same, with what was looked at and when."""

    item: Ints
    second: Floats


@dataclass(frozen=True)
class _Events:
    """Some events of one behaviour."""

    behaviour: str
    user: Ints
    second: Floats
    item: Ints
    quantity: Ints
    query: list[str] | None = None


def behave(seed: int, users: int, day: date, prices: Floats) -> Behaviours:
    """Everything users do on ``day``; ``prices``: of every item, 0 where it is not on sale yet."""
    now = _Day(seed, users, day, prices)
    sessions = _sessions(now)
    looks = _Looks(
        sessions.session, sessions.user, sessions.kind, sessions.is_led, _items(now, sessions), _times(now, sessions)
    )
    views = _Events("view", looks.user, looks.second, looks.item, np.zeros(len(looks), dtype=np.int64))
    parts = [views, *_decisions(now, looks), *_wishes(now, looks), _searches(now, looks)]
    user = np.concatenate([part.user for part in parts])
    second = np.clip(np.concatenate([part.second for part in parts]), 0, DAY_SECONDS - 1)
    item = np.concatenate([part.item for part in parts])
    query: list[str | None] = []
    for part in parts:
        query += part.query or [None] * len(part.user)
    order = np.lexsort((item, user, second))
    return Behaviours(
        user[order],
        np.concatenate([np.full(len(part.user), part.behaviour) for part in parts])[order],
        second[order],
        item[order],
        [query[row] for row in order],
        np.concatenate([part.quantity for part in parts])[order],
    )


def _sessions(now: _Day) -> _Sessions:
    """Sessions of the day's visitors and the kinds they look at, companions of an affinity included."""
    shop, people, rng = catalogue(), now.people, now.stream("looks")
    came = visitors(now.seed, now.users, now.day)
    owner = np.repeat(came, 1 + rng.poisson(0.16, len(came)))
    liked = people.interests[owner]
    on_focus = rng.random(len(owner)) < FOCUS_SHARE
    kind = np.where(on_focus, people.focus_on(now.offset)[owner], pick(liked, rng.random(len(owner))))
    for campaign in now.campaigns():
        if campaign.pull:
            kinds = np.array(campaign.kinds)
            drawn = kinds[pick(liked[:, kinds], rng.random(len(owner)))]
            kind = np.where(rng.random(len(owner)) < campaign.pull, drawn, kind)
    length = 1 + rng.negative_binomial(1.6, 1.6 / (1.6 + 4.4), len(owner))
    session = np.repeat(np.arange(len(owner)), length)
    user = owner[session]
    is_first = np.diff(session, prepend=-1) > 0
    strays = ~is_first & (rng.random(len(session)) > KEPT_SHARE)
    looked = np.where(strays, pick(people.interests[user], rng.random(len(session))), kind[session])

    sources, kinds_seen = [np.arange(len(session))], [looked]
    for affinity in AFFINITIES:
        looking = np.flatnonzero(np.isin(looked, shop.kind_numbers(affinity.looked_at)))
        led = looking[rng.random(len(looking)) < affinity.chance]
        targets = np.array(shop.kind_numbers(affinity.bought))
        sources.append(led)
        kinds_seen.append(targets[rng.integers(0, len(targets), len(led))])
    source = np.concatenate(sources)
    order = np.argsort(source, kind="stable")
    is_led = (np.arange(len(source)) >= len(session))[order]
    source = source[order]
    return _Sessions(session[source], user[source], np.concatenate(kinds_seen)[order], is_led)


@cache
def _shelf() -> tuple[Ints, Floats, Floats]:
    """Kinds × places: item (-1: none), popularity, and price against the kind's usual one (natural logarithm)."""
    shop = catalogue()
    members = [[n for n, item in enumerate(shop.items) if item.kind == kind] for kind in range(len(shop.kinds))]
    width = max(len(one) for one in members)
    item = np.full((len(members), width), -1)
    popularity, level = np.zeros(item.shape), np.zeros(item.shape)
    rng = stream(0, "popularity")  # how popular an item is has nothing to do with its place in the file
    for kind, one in enumerate(members):
        price = np.log([shop.items[n].price for n in one])
        item[kind, : len(one)] = one
        popularity[kind, : len(one)] = rng.permutation(1 / np.arange(1, len(one) + 1) ** 0.8)
        level[kind, : len(one)] = price - np.median(price)
    return item, popularity, level


def _items(now: _Day, sessions: _Sessions) -> Ints:
    """Which item of its kind each look falls on: popular ones, of the user's price level, and the same one again."""
    people, rng = now.people, now.stream("items")
    shelf, popularity, level = _shelf()
    user, kind = sessions.user, sessions.kind
    places = shelf[kind]
    distance = level[kind] - people.price_level[user][:, None]
    weights = popularity[kind] * np.exp(-(distance**2) / 0.9)
    # The one a user has in mind these weeks.
    period = people.period_on(now.offset)[user]
    in_mind = (user * 31 + kind * 17 + period * 7) % (places >= 0).sum(axis=1)
    weights[np.arange(len(places)), in_mind] *= 2.2
    for campaign in now.campaigns():
        if campaign.items:
            named = [n for n, item in enumerate(catalogue().items) if item.item_id in campaign.items]
            weights = np.where(np.isin(places, named), weights * 4, weights)
    weights = np.where((places >= 0) & (now.prices[places] > 0), weights, 0.0)
    found: Ints = places[np.arange(len(places)), pick(weights, rng.random(len(places)))]
    return found


def _times(now: _Day, sessions: _Sessions) -> Floats:
    """Second of the day of each look; what follows from it still falls on the day."""
    rng, opening, session = now.stream("times"), sessions.openings, sessions.session
    hours = np.array(HOURS, dtype=float)
    if now.day.weekday() >= 5:  # later mornings, busier days
        hours = np.roll(hours, 1) * np.where(np.arange(24) < 18, 1.25, 1.0)
    if traffic_on(now.day) > BIG_DAY:
        hours[:2] += 60
    start = (rng.choice(24, len(opening), p=hours / hours.sum()) + rng.random(len(opening))) * 3600
    elapsed = np.cumsum(rng.lognormal(3.6, 0.7, len(session)))
    since = elapsed - elapsed[opening][session]
    longest = since[np.append(opening[1:], len(session)) - 1]
    start = np.clip(start, 30, np.maximum(DAY_SECONDS - LONGEST_TAIL - longest, 30))
    found: Floats = start[session] + since
    return found


def _decisions(now: _Day, looks: _Looks) -> list[_Events]:
    """Favourites and carts that follow a look, purchases that follow a cart; each once per user, day and item."""
    rng, size = now.stream("decisions"), len(looks)
    saving_up = any(campaign.wished and now.day < campaign.last for campaign in now.campaigns())
    eager = now.people.eagerness[looks.user] * np.where(looks.is_led, LED_EAGERNESS, 1.0)
    cheap = np.array([item.price for item in catalogue().items])[looks.item] < CHEAP
    cart_chance = 0.075 * eager * np.where(cheap, 1.35, 0.9) * (1.3 if saving_up else 1.0)
    buy_chance = 0.36 * (0.55 if saving_up else 1.7 if traffic_on(now.day) > BIG_DAY else 1.0)
    favoured = rng.random(size) < np.minimum(0.045 * eager, 0.6)
    carted = rng.random(size) < np.minimum(cart_chance, 0.7)
    bought = carted & (rng.random(size) < buy_chance)
    pieces = 1 + (cheap & (rng.random(size) < 0.22)) + (cheap & (rng.random(size) < 0.05))
    cart_second = looks.second + rng.uniform(10, 60, size)
    chosen = {
        "favourite": (favoured, looks.second + rng.uniform(4, 30, size), np.zeros(size, dtype=np.int64)),
        "cart": (carted, cart_second, pieces),
        "purchase": (bought, cart_second + rng.uniform(45, 900, size), pieces),
    }
    keys = looks.user * len(catalogue().items) + looks.item
    parts = []
    for name, (flags, when, quantity) in chosen.items():
        rows = np.flatnonzero(flags)
        rows = rows[np.unique(keys[rows], return_index=True)[1]]
        parts.append(_Events(name, looks.user[rows], when[rows], looks.item[rows], quantity[rows]))
    return parts


def _wishes(now: _Day, looks: _Looks) -> list[_Events]:
    """Some put an item into the cart in the days before the great last day of a campaign, and buy it on that day."""
    parts: list[_Events] = []
    came, opening = np.unique(looks.user, return_index=True)
    first_look = np.zeros(now.users)
    first_look[came] = looks.second[opening]
    for campaign in now.campaigns():
        if not campaign.wished:
            continue
        wisher, item, carted_on = _wish_list(now.seed, now.users, campaign.campaign_id)
        rng = now.stream(f"wishes {campaign.campaign_id}")
        when = first_look[wisher] + rng.uniform(5, 300, len(wisher))
        decided = rng.random(len(wisher)) < 0.6
        here = np.isin(wisher, came) & (now.prices[item] > 0)
        today = (now.day - campaign.first).days
        if now.day == campaign.last:
            looking = here & (carted_on < today)
            name, deciding = "purchase", looking & decided
        else:
            looking = here & (carted_on == today)
            name, deciding = "cart", looking
        one = np.ones(len(wisher), dtype=np.int64)
        parts.append(_Events("view", wisher[looking], when[looking], item[looking], 0 * one[looking]))
        parts.append(_Events(name, wisher[deciding], when[deciding] + 40, item[deciding], one[deciding]))
    return parts


@lru_cache(maxsize=8)
def _wish_list(seed: int, users: int, campaign_id: str) -> tuple[Ints, Ints, Ints]:
    """Who saves up, for which item, and on which day of the campaign it goes into the cart: at their first visit."""
    shop, people = catalogue(), population(seed, users)
    campaign = next(one for one in shop.campaigns if one.campaign_id == campaign_id)
    rng = stream(seed, f"wish list {campaign_id}")
    wisher = np.flatnonzero(rng.random(users) < 0.4)
    kinds = np.array(campaign.kinds)
    kind = kinds[pick(people.interests[wisher][:, kinds], rng.random(len(wisher)))]
    shelf, popularity, _ = _shelf()
    item = shelf[kind, pick(popularity[kind], rng.random(len(wisher)))]
    carted_on = np.full(len(wisher), NEVER)
    for later in reversed(range((campaign.last - campaign.first).days)):
        carted_on[np.isin(wisher, visitors(seed, users, campaign.first + timedelta(days=later)))] = later
    return wisher, item, carted_on


def _searches(now: _Day, looks: _Looks) -> _Events:
    """What was typed before some sessions: a usual query of the kind, or brand and kind of what is then looked at."""
    shop, rng = catalogue(), now.stream("searches")
    opening = looks.openings
    asked = opening[rng.random(len(opening)) < SEARCHED_SHARE]
    english = now.people.searches_in_english[looks.user[asked]] & (rng.random(len(asked)) < 0.8)
    by_brand = rng.random(len(asked)) < 0.15
    chance = rng.random(len(asked))
    typed = []
    for number, row in enumerate(asked):
        language = "en" if english[number] else "zh"
        kind = shop.kinds[looks.kind[row]]
        usual = kind.queries[language]
        brand = f"{shop.items[looks.item[row]].brand[language]} {kind.name[language]}"
        typed.append(brand.lower() if by_brand[number] else usual[int(chance[number] * len(usual))])
    none = np.full(len(asked), -1)
    before = looks.second[asked] - rng.uniform(4, 25, len(asked))
    return _Events("search", looks.user[asked], before, none, np.zeros(len(asked), dtype=np.int64), typed)
