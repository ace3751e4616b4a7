"""Portraits as other rooms read them: the segments of a day and the words that describe them.

`read_portraits` and `read_affinities` read what `adloom portraits` published for a day. Nothing here holds a user.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection, select

from adloom import creative
from adloom.errors import AdloomError
from adloom.warehouse import ledger

ALL = creative.ALL
"""Everybody who fits no narrower segment; also who is not known at all."""
NOT_PERSONALISED = creative.NOT_PERSONALISED
"""Minors, users who opted out, and users of unknown age where the shop says so: never described."""


@dataclass(frozen=True)
class Portrait:
    """One segment of a day.

    ``users`` is rounded down and 0 where there are too few to say. ``interests``: (category path as the shop writes it,
    share of the segment's interest, 0 to 1), strongest first. ``recent_items``: item ids that at least k users of the
    segment looked at lately, most users first. ``price_level`` and ``life_cycle`` are empty where mixed or unknown.
    ``words``: language → one clause, empty where nothing can or may be said.
    """

    segment_id: str
    users: int
    is_personalised: bool
    interests: tuple[tuple[str, float], ...]
    recent_items: tuple[str, ...]
    price_level: str
    life_cycle: str
    words: dict[str, str]


@dataclass(frozen=True)
class Affinity:
    """Of the users who looked at one category, how many more than usual bought from another.

    ``lift`` = P(bought | viewed) / P(bought), with its 95 % interval. Categories are paths or first levels of paths.
    """

    viewed_category: str
    bought_category: str
    users_viewed: int
    users_bought: int
    users_both: int
    lift: float
    lift_low: float
    lift_high: float


def read_portraits(connection: Connection, day: date) -> list[Portrait]:
    """Every segment of ``day``, largest first; `all` and `not_personalised` are always among them.

    Raises `AdloomError` where the day's portraits were never made.
    """
    t = ledger.portraits
    rows = connection.execute(select(t).where(t.c.day == day).order_by(t.c.users.desc(), t.c.segment_id)).all()
    if not rows:
        raise AdloomError(f"there are no portraits of {day}", f"run: adloom portraits --shop SHOP --day {day}")
    return [
        Portrait(
            segment_id=row.segment_id,
            users=row.users,
            is_personalised=row.segment_id != NOT_PERSONALISED,
            interests=tuple((one["category"], one["weight"]) for one in json.loads(row.interests)),
            recent_items=tuple(one["item_id"] for one in json.loads(row.recent_items)),
            price_level=row.price_level,
            life_cycle=row.life_cycle,
            words={"zh": row.words_zh, "en": row.words_en},
        )
        for row in rows
    ]


def read_affinities(connection: Connection, day: date) -> list[Affinity]:
    """Pairs of different categories with enough users, most certain lift first; empty where there are none."""
    t = ledger.affinities
    query = select(t).where(t.c.day == day)
    rows = connection.execute(query.order_by(t.c.lift_low.desc(), t.c.viewed_category, t.c.bought_category)).all()
    return [
        Affinity(
            row.viewed_category,
            row.bought_category,
            row.users_viewed,
            row.users_bought,
            row.users_both,
            row.lift,
            row.lift_low,
            row.lift_high,
        )
        for row in rows
    ]
