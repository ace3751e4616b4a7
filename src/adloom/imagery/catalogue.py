"""What a generator is told of an item, in one vocabulary: the same when it learns from a picture and when it draws one.

Category and style are the item's own; age band and gender are those the item says it is made for, because segments are
made of interests and never of age or gender. Interests are those of the segment's portrait. What is not said is
unknown (an empty field), which is a value of its own: every training leaves fields open now and then (`training`), so
that an item without a style and a segment without a portrait are nothing new to the generator.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import Connection, text

from adloom.creative import ALL, NOT_PERSONALISED
from adloom.imagery.conditions import Condition, age_group

STYLE = ("style", "风格", "pattern", "图案")
GENDER = ("gender", "性别", "适用性别")
AGE_BAND = ("age_band", "age", "适用年龄", "年龄段")
"""What attributes are called that say what an item looks like and whom it is made for; the first one found counts."""

_ITEMS = text(
    """
    select item_id, category, attributes, image
    from (
        select *, row_number() over (partition by item_id order by known_date desc) as newest
        from marts.dim_items
        where known_date <= :day
    ) as items
    where newest = 1 and category is not null and category != ''
    order by item_id
    """
)


@dataclass(frozen=True)
class CatalogueItem:
    """What is needed of an item. ``attributes``: name → value."""

    item_id: str
    category: str
    image: str
    attributes: dict[str, str]

    @property
    def age_band(self) -> str:
        """Whom it is made for, as it says; empty where it says nothing."""
        return _first(self.attributes, AGE_BAND)


def read_items(connection: Connection, day: date) -> list[CatalogueItem]:
    """Every item that has a category, as known by the end of ``day``."""
    rows = connection.execute(_ITEMS, {"day": day})
    return [CatalogueItem(row.item_id, row.category, row.image or "", _attributes(row.attributes)) for row in rows]


def condition_of(item: CatalogueItem, segment_id: str, interests: Iterable[str]) -> Condition:
    """What a picture of the item for a segment is conditioned on.

    ``interests``: category paths of the segment's portrait. Who is not personalised or fits no narrower segment is
    nobody in particular. An age band that is not clearly one of adults is left unknown.
    """
    is_described = segment_id not in (ALL, NOT_PERSONALISED)
    return Condition(
        category=item.category,
        style=_first(item.attributes, STYLE),
        age_band=item.age_band if age_group(item.age_band) == "adult" else "",
        gender=_first(item.attributes, GENDER),
        interests=tuple(interests) if is_described else (),
    )


def _first(attributes: dict[str, str], names: Iterable[str]) -> str:
    return next((attributes[name].strip() for name in names if attributes.get(name, "").strip()), "")


def _attributes(value: Any) -> dict[str, str]:
    """Name → value of an item's attributes; those of a language of its own are not looked at."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: one for name, one in found.items() if isinstance(one, str)}
