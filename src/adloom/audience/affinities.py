"""Which category is bought by those who looked at another: counts, lift and its interval.

Affinities are counted in blocks of ``affinity_days`` days that do not overlap, and stand until the next block is over:
a block holds the facts that became known on its days. Two published tables are therefore the same, or made of different
facts altogether, and their difference is no user's doing: what somebody did lately is in neither, or only in one.
Within one table every set has at least k users, the parts of a table of four are 0 or at least k', and numbers
are rounded down (`adloom.audience.segments` says what for).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from sqlalchemy import text

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Block:
    """The days ``(after, until]`` of a block that is over."""

    after: date
    until: date


def last_block(first: date, day: date, length: int) -> Block | None:
    """The last block that is over by the end of ``day``; the first one begins on ``first``."""
    whole = ((day - first).days + 1) // length
    if whole < 1:
        return None
    until = first + timedelta(days=whole * length - 1)
    return Block(until - timedelta(days=length), until)


# Sets of at least :smallest users. A pair is of one level each, and never within one first level.
SETS = text(
    """
    with touched as (
        select
            behaviours.user_hash, items.category_1, items.category_2,
            bool_or(behaviours.behaviour = 'view') as has_viewed,
            bool_or(behaviours.behaviour = 'purchase') as has_bought
        from marts.fct_behaviours_daily as behaviours
        inner join intermediate.int_items__described as items
            on behaviours.item_id = items.item_id and items.known_date = :as_of
        inner join intermediate.int_users__profiled as users
            on behaviours.user_hash = users.user_hash and users.known_date = :as_of
        where
            behaviours.known_date > :after
            and behaviours.known_date <= :until
            and users.segment_id != 'not_personalised'
            and items.category_1 is not null
        group by behaviours.user_hash, items.category_1, items.category_2
    ),

    levels as (
        select user_hash, category_1 as category, '' as parent, has_viewed, has_bought from touched
        union all
        select user_hash, category_2, category_1, has_viewed, has_bought from touched where category_2 != category_1
    ),

    categories as (
        select user_hash, category, parent, bool_or(has_viewed) as has_viewed, bool_or(has_bought) as has_bought
        from levels
        group by user_hash, category, parent
    ),

    viewed as (
        select category, parent, count(*) as users from categories where has_viewed
        group by category, parent having count(*) >= :smallest
    ),

    bought as (
        select category, parent, count(*) as users from categories where has_bought
        group by category, parent having count(*) >= :smallest
    ),

    viewers as (
        select categories.* from categories semi join viewed using (category) where has_viewed
    ),

    buyers as (
        select categories.* from categories semi join bought using (category) where has_bought
    ),

    pairs as (
        select viewers.category as viewed_category, buyers.category as bought_category, count(*) as users
        from viewers
        inner join buyers on viewers.user_hash = buyers.user_hash
        where
            (viewers.parent = '') = (buyers.parent = '')
            and viewers.category != buyers.category
            and (viewers.parent = '' or viewers.parent != buyers.parent)
        group by viewers.category, buyers.category
        having count(*) >= :smallest
    )

    select
        pairs.viewed_category, pairs.bought_category,
        viewed.users as viewed, bought.users as bought, pairs.users as both,
        (select count(distinct user_hash) from categories) as everybody
    from pairs
    inner join viewed on pairs.viewed_category = viewed.category
    inner join bought on pairs.bought_category = bought.category
    order by all
    """
)


def lift(both: int, viewed: int, bought: int, everybody: int) -> tuple[float, float, float]:
    """P(bought | viewed) / P(bought) and its 95 % interval, in hundredths.

    The interval is that of the logarithm, by the delta method over the multinomial table of four.
    """
    value = both * everybody / (viewed * bought)
    variance = 1 / both - 1 / viewed - 1 / bought + 2 * both / (viewed * bought) - 1 / everybody
    spread = math.exp(Z_95 * math.sqrt(max(variance, 0.0)))
    return round(value, 2), math.floor(100 * value / spread) / 100, math.ceil(100 * value * spread) / 100


def rows(found: Iterable[Any], day: date, together: int) -> Iterator[dict[str, Any]]:
    """Rows of ``adloom.affinities`` from those of `SETS`; counts of users are rounded down to multiples of k'."""
    for row in found:
        parts = (row.viewed - row.both, row.bought - row.both, row.everybody - row.viewed - row.bought + row.both)
        if any(0 < part < together for part in parts):
            continue
        value, low, high = lift(row.both, row.viewed, row.bought, row.everybody)
        yield {
            "day": day,
            "viewed_category": row.viewed_category,
            "bought_category": row.bought_category,
            "users_viewed": row.viewed // together * together,
            "users_bought": row.bought // together * together,
            "users_both": row.both // together * together,
            "users": row.everybody // together * together,
            "lift": value,
            "lift_low": low,
            "lift_high": high,
        }
