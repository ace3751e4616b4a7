"""The sample shop's users: who they are, what they like and when they come. All simulated.

The state of a user on a day is a function of (seed, number of users, user, day): nothing is carried over from the day
before, so any day can be made on its own. What lasts (interests, price level, life cycle) is drawn once for the whole
season; who comes on a day is drawn from a stream of that day.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from adloom.simulation.catalogue import catalogue

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

GENDERS = (("female", 0.52), ("male", 0.44), (None, 0.04))
AGE_BANDS = (
    ("13-17", 0.04),
    ("18-24", 0.21),
    ("25-34", 0.32),
    ("35-44", 0.21),
    ("45-54", 0.10),
    ("55+", 0.05),
    (None, 0.07),
)
REGIONS = tuple(
    (name, float(weight))
    for weight, names in (
        (12, "广东"),
        (9, "江苏 浙江"),
        (7, "山东"),
        (6, "上海 北京 四川"),
        (5, "河南 湖北"),
        (4, "福建 湖南 安徽 河北"),
        (3, "辽宁 陕西 重庆"),
        (2, "江西 广西 云南 天津"),
        (1, "黑龙江 海南"),
    )
    for name in names.split()
)
SEASON_LOOKBACK = 400  # days before the season over which its older users joined
SHORTEST_FOCUS, LONGEST_FOCUS = 14, 35  # days something occupies a user
NEVER = 10**6
WEEK = (1.0, 0.97, 0.96, 0.98, 0.97, 1.15, 1.2)  # visits, Monday first


def stream(seed: int, name: str, day: date | None = None) -> np.random.Generator:
    """The random numbers of one purpose, and of one day where given; streams do not depend on each other."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode()), day.toordinal() if day else 0]))


def pick(weights: Floats, chance: Floats) -> Ints:
    """For each row of ``weights`` the column in which ``chance`` (in [0, 1)) falls; never one of weight 0."""
    edges = np.cumsum(weights, axis=1)
    found: Ints = (edges <= (chance * edges[:, -1])[:, None]).sum(axis=1)
    return np.minimum(found, weights.shape[1] - 1)


def _choose(rng: np.random.Generator, options: Sequence[tuple[str | None, float]], size: int) -> Ints:
    weights = np.array([weight for _, weight in options])
    return rng.choice(len(options), size, p=weights / weights.sum()).astype(np.int64)


@dataclass(frozen=True)
class Population:
    """What lasts of every user; arrays over users. Days are offsets from the season's first day."""

    gender: Ints
    age_band: Ints
    home: Ints  # region at first …
    next_home: Ints  # … and from `moves_on` on
    moves_on: Ints
    searches_in_english: Flags
    declares_tags: Flags
    interests: Floats  # users × kinds, rows sum to 1: what they have always liked
    focus_days: Ints  # how long something occupies them
    focus_phase: Ints
    focus: Ints  # users × periods: the kind that occupies them
    price_level: Floats  # natural logarithm of price against the usual one of a kind
    eagerness: Floats  # factor on carts and purchases
    rate: Floats  # chance of a visit on an ordinary day
    joined: Ints
    lapses: Ints
    returns: Ints
    off_from_start: Flags
    opts_out: Ints
    opts_in: Ints

    def __len__(self) -> int:
        return len(self.joined)

    def period_on(self, offset: int) -> Ints:
        """Which period of its focus each user is in."""
        return (offset + self.focus_phase) // self.focus_days

    def focus_on(self, offset: int) -> Ints:
        """The kind that occupies each user on the day."""
        found: Ints = self.focus[np.arange(len(self)), self.period_on(offset)]
        return found

    def personalisation_on(self, offset: int) -> Flags:
        """As it stands at the end of the day, requests of the day included."""
        return ~self.off_from_start & ~((self.opts_out <= offset) & (offset < self.opts_in))

    def region_on(self, offset: int) -> Ints:
        return np.where(offset >= self.moves_on, self.next_home, self.home)

    def is_lapsed(self, offset: int) -> Flags:
        """Has stopped coming, and has not come back yet."""
        return (self.lapses <= offset) & (offset < self.returns)

    def profile_changes(self, offset: int) -> Flags:
        """Is what the shop knows of the user another than the day before?"""
        before = offset - 1
        tags = self.declares_tags & (self.focus_on(offset) != self.focus_on(before))
        moved = (self.moves_on == offset) & (self.home != self.next_home)
        return tags | moved | (self.personalisation_on(offset) != self.personalisation_on(before))


@lru_cache(maxsize=4)
def population(seed: int, users: int) -> Population:
    """Everyone who joins by the end of the season."""
    shop = catalogue()
    days = (shop.last_day - shop.first_day).days + 1
    rng = stream(seed, "population")
    gender, age_band = _choose(rng, GENDERS, users), _choose(rng, AGE_BANDS, users)
    home, next_home = _choose(rng, REGIONS, users), _choose(rng, REGIONS, users)
    interests = _interests(rng, gender, age_band)
    periods = (days + LONGEST_FOCUS) // SHORTEST_FOCUS + 2
    drifting = np.repeat(0.75 * interests + 0.25 / interests.shape[1], periods, axis=0)
    focus = pick(drifting, rng.random(users * periods)).reshape(users, periods)

    is_new = rng.random(users) < 0.27
    joined = np.where(is_new, rng.integers(1, days, users), -rng.integers(1, SEASON_LOOKBACK, users))
    lapses = np.where(rng.random(users) < 0.35, np.maximum(joined, 0) + rng.integers(5, days, users), NEVER)
    long_gone = (joined < -60) & (rng.random(users) < 0.18)
    lapses = np.where(long_gone, -rng.integers(1, 60, users), lapses)
    returns = np.where(rng.random(users) < 0.4, np.maximum(lapses, 0) + rng.integers(14, 45, users), NEVER)

    off_from_start = rng.random(users) < 0.06
    opting_out = ~off_from_start & (rng.random(users) < 0.035)
    opts_out = np.where(opting_out, np.maximum(joined, 0) + rng.integers(0, days, users), NEVER)
    opts_in = np.where(opting_out & (rng.random(users) < 0.3), opts_out + rng.integers(3, 30, users), NEVER)
    return Population(
        gender=gender,
        age_band=age_band,
        home=home,
        next_home=next_home,
        moves_on=np.where(rng.random(users) < 0.03, rng.integers(0, days, users), NEVER),
        searches_in_english=rng.random(users) < 0.12,
        declares_tags=rng.random(users) < 0.8,
        interests=interests,
        focus_days=rng.integers(SHORTEST_FOCUS, LONGEST_FOCUS + 1, users),
        focus_phase=rng.integers(1, LONGEST_FOCUS + 1, users),
        focus=focus,
        price_level=rng.normal(0, 0.5, users),
        eagerness=rng.lognormal(-0.1, 0.45, users),
        rate=np.clip(0.14 * rng.lognormal(0, 0.75, users), 0.01, 0.8),
        joined=joined,
        lapses=lapses,
        returns=returns,
        off_from_start=off_from_start,
        opts_out=opts_out,
        opts_in=opts_in,
    )


@cache
def persona_likes() -> Floats:
    """Personas × kinds: the share of its looks a persona gives to each kind."""
    shop = catalogue()
    weights = np.zeros((len(shop.personas), len(shop.kinds)))
    for row, persona in enumerate(shop.personas):
        for name, weight in persona.likes.items():
            weights[row, list(shop.kind_numbers(name))] = weight
    return weights / weights.sum(axis=1, keepdims=True)


def _interests(rng: np.random.Generator, gender: Ints, age_band: Ints) -> Floats:
    """Two personas a user, the first one stronger, with each user's own emphasis and a little of everything."""
    users = len(gender)
    chances = np.ones((users, len(catalogue().personas)))
    for column, persona in enumerate(catalogue().personas):
        by_gender = np.array([persona.among.get(str(name), 1.0) for name, _ in GENDERS])
        by_age = np.array([persona.among.get(str(name), 1.0) for name, _ in AGE_BANDS])
        chances[:, column] = persona.share * by_gender[gender] * by_age[age_band]
    likes = persona_likes()
    first, second = pick(chances, rng.random(users)), pick(chances, rng.random(users))
    mixed = 0.58 * likes[first] + 0.3 * likes[second] + 0.12 / likes.shape[1]
    mixed *= rng.gamma(2.0, 0.5, mixed.shape)
    interests: Floats = mixed / mixed.sum(axis=1, keepdims=True)
    return interests


def traffic_on(day: date) -> float:
    """Factor of all campaigns on the visits of ``day``."""
    return float(np.prod([campaign.traffic_on(day) for campaign in catalogue().campaigns]))


def visitors(seed: int, users: int, day: date) -> Ints:
    """Who comes on ``day``, ascending: everyone who joins on it, and others as their life goes."""
    people = population(seed, users)
    offset = (day - catalogue().first_day).days
    traffic = traffic_on(day)
    since_joined = offset - people.joined
    chance = people.rate * traffic * WEEK[day.weekday()]
    chance *= np.where(since_joined < 5, 1.7, 1.0)
    # A big campaign brings back some of those who had stopped coming.
    chance *= np.where(people.is_lapsed(offset), 0.3 if traffic > 2 else 0.02, 1.0)
    chance *= np.where((people.returns <= offset) & (offset < people.returns + 4), 2.0, 1.0)
    chance = np.where(since_joined < 0, 0.0, np.where(since_joined == 0, 1.0, np.minimum(chance, 0.92)))
    found: Ints = np.flatnonzero(stream(seed, "visits", day).random(users) < chance)
    return found
