"""Shops whose marts are filled by hand, so that these tests stand on no loader and no daily build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from adloom.audience.making import PortraitReport, make_portraits
from adloom.shop import Shop
from adloom.warehouse.engine import warehouse
from adloom.warehouse.ledger import create_ledger, landing_days, replace_rows

DAY_ONE = date(2024, 3, 1)
TABLES = {
    "marts.fct_behaviours_daily": "user_hash varchar, item_id varchar, behaviour varchar, behaviour_date date, "
    "events bigint, quantity bigint, value decimal(38,6), known_date date",
    "marts.dim_items": "item_id varchar, title varchar, category varchar, brand varchar, price decimal(18,6), "
    "list_price decimal(18,6), currency varchar, attributes json, image varchar, stock bigint, known_date date",
    "intermediate.int_users__segmented": "user_hash varchar, segment_id varchar, previous_segment_id varchar, "
    "age_group varchar, is_personalisation_on boolean, last_request varchar, last_requested_at timestamp, "
    "known_date date",
}

Row = Mapping[str, Any]


def on(day: int) -> date:
    """Day 1 is 2024-03-01."""
    return DAY_ONE + timedelta(days=day - 1)


def item(
    item_id: str, category: str, price: float | None = 10, title: str | None = None, english: Row | None = None
) -> Row:
    attributes = json.dumps({"translations": {"en": english}}) if english else None
    title = f"Title of {item_id}" if title is None else title
    return {"item_id": item_id, "title": title, "category": category, "price": price, "attributes": attributes}


def did(user: str, item_id: str, behaviour: str = "view", day: int | None = None, events: int = 1) -> dict[str, Any]:
    """One user's behaviour; ``day``: when it happened, if not on the day it became known."""
    return {"user_hash": user, "item_id": item_id, "behaviour": behaviour, "day": day, "events": events}


@dataclass
class World:
    """A shop's marts by hand."""

    shop: Shop
    facts: dict[int, dict[str, list[Row]]] = field(default_factory=dict)

    def create(self) -> None:
        with warehouse(self.shop) as engine:
            create_ledger(engine)
            with engine.begin() as connection:
                for schema in ("marts", "intermediate"):
                    connection.execute(text(f"create schema {schema}"))
                for name, columns in TABLES.items():
                    connection.execute(text(f"create table {name} ({columns})"))

    def know(
        self, day: int, did: Iterable[Row] = (), items: Iterable[Row] = (), segments: Mapping[str, str] | None = None
    ) -> None:
        """Replace what became known on ``day``; ``segments``: users whose personalisation was decided on it."""
        known = {"known_date": on(day)}
        rows = {
            "marts.fct_behaviours_daily": [
                {key: value for key, value in one.items() if key != "day"}
                | {"behaviour_date": on(one.get("day") or day), "quantity": 0, "value": 0}
                | known
                for one in did
            ],
            "marts.dim_items": [dict(one) | known for one in items],
            "intermediate.int_users__segmented": [
                {"user_hash": user, "segment_id": segment} | known for user, segment in (segments or {}).items()
            ],
        }
        digest = hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()
        with warehouse(self.shop) as engine, engine.begin() as connection:
            for name, fresh in rows.items():
                connection.execute(text(f"delete from {name} where known_date = :known_date"), known)  # noqa: S608
                if fresh:
                    names = list(fresh[0])
                    values = ", ".join(f"unnest(:{key})" for key in names)
                    columns = {key: [one[key] for one in fresh] for key in names}
                    insert = f"insert into {name} ({', '.join(names)}) select {values}"
                    connection.execute(text(insert), columns)
            state = {"manifest_digest": digest, "marts_digest": digest}
            replace_rows(connection, landing_days, known, [known | state])

    def make(self, day: int) -> PortraitReport:
        return make_portraits(self.shop, on(day))

    def query(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        with warehouse(self.shop) as engine, engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql), values)]

    def sizes(self, day: int, *, is_exact: bool = False) -> dict[str, int]:
        """Segment → users as published, or as counted."""
        if is_exact:
            counted = "select counted_in from adloom.user_portraits where day = :day and counted_in != ''"
            sql = f"select counted_in, count(*) from ({counted}) group by 1"  # noqa: S608
        else:
            sql = "select segment_id, users from adloom.portraits where day = :day"
        return dict(self.query(sql, day=on(day)))


@pytest.fixture
def make_world(make_shop: Callable[..., Shop]) -> Callable[..., World]:
    """A shop without facts; k = 10, k' = 3. Overrides go into its YAML."""

    def make(portraits: Mapping[str, Any] | None = None, **overrides: Any) -> World:
        figures = {"min_moved_users": 3} | dict(portraits or {})
        world = World(make_shop(**({"language": "zh", "min_segment_users": 10, "portraits": figures} | overrides)))
        world.create()
        return world

    return make


@dataclass(frozen=True)
class Facts:
    """Builders of rows."""

    item = staticmethod(item)
    did = staticmethod(did)
    on = staticmethod(on)


@pytest.fixture
def facts() -> Facts:
    return Facts()
