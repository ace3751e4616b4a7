"""The sample shop: a simulated Chinese and English shop with planted truth, written day by day through the landing
contract by a driver (``adloom simulate``), never by a production DAG.

A day is a function of (seed, number of users, day): any day can be made on its own, and making it again gives the
same bytes. `AFFINITIES` and `UNRELATED` are the planted truth; ad traffic is not made here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from filecmp import cmp
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adloom.errors import UsageError
from adloom.shop import Shop
from adloom.simulation.behaviours import AFFINITIES, UNRELATED, behave
from adloom.simulation.catalogue import Catalogue, catalogue
from adloom.simulation.pictures import file_name, write_pictures
from adloom.simulation.shoppers import AGE_BANDS, GENDERS, REGIONS, Floats, population, stream, visitors
from adloom.window import day_window

__all__ = ["AFFINITIES", "UNRELATED", "SimulatedDay", "prices_on", "tables", "write_day"]

KIND = "sample_shop"
FILE = "sample_shop.parquet"
DEFAULT_SEED = 1
DEFAULT_USERS = 6_000
FEWEST_USERS, MOST_USERS = 500, 200_000
CURRENCY = "CNY"

TIME = pa.timestamp("ms", tz="UTC")
SCHEMAS: dict[str, pa.Schema] = {
    "users": pa.schema(
        [
            (name, pa.string())
            for name in ("user_id", "gender", "age_band", "region", "interest_tags", "personalisation")
        ]
    ),
    "items": pa.schema(
        [(name, pa.string()) for name in ("item_id", "title", "category", "brand")]
        + [("price", pa.float64()), ("list_price", pa.float64())]
        + [("currency", pa.string()), ("attributes", pa.string()), ("image", pa.string()), ("stock", pa.int64())]
    ),
    "campaigns": pa.schema(
        [(name, pa.string()) for name in ("campaign_id", "scenario", "name")]
        + [("starts_at", TIME), ("ends_at", TIME)]
        + [(name, pa.string()) for name in ("offer", "items", "categories", "channels")]
        + [("budget", pa.float64()), ("translations", pa.string())]
    ),
    "hot_events": pa.schema(
        [(name, pa.string()) for name in ("event_id", "title", "keywords")]
        + [("starts_at", TIME), ("ends_at", TIME)]
        + [(name, pa.string()) for name in ("source", "translations")]
    ),
    "privacy_requests": pa.schema([("user_id", pa.string()), ("kind", pa.string()), ("requested_at", TIME)]),
    "behaviours": pa.schema(
        [(name, pa.string()) for name in ("event_id", "user_id", "behaviour")]
        + [("occurred_at", TIME), ("item_id", pa.string()), ("query", pa.string())]
        + [("quantity", pa.int64()), ("price", pa.float64())]
    ),
}
"""The tables of a day in the order in which they are put into place; behaviours last, so that a day whose behaviours
are there is whole."""


@dataclass(frozen=True)
class SimulatedDay:
    """What a day holds; ``written``: tables whose file was not there yet in these very bytes."""

    day: date
    rows: Mapping[str, int]
    written: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{rows:,} {table}" for table, rows in self.rows.items() if rows)
        return f"{self.day}: {counts} (simulated{'' if self.written else ', already there'})"


def write_day(shop: Shop, day: date) -> SimulatedDay:
    """Write the simulated ``day`` into the shop's landing folder, whole or not at all; safe to repeat.

    Raises `UsageError` for a shop of another source, options it does not know, or a day outside the season.
    """
    seed, users = options(shop)
    made = tables(shop, day, seed, users)
    write_pictures(shop.images, made["items"]["item_id"].to_pylist())
    targets = {name: shop.landing / name / f"known_date={day}" / FILE for name in made}
    fresh = {name: target.with_name(f".{FILE}.{os.getpid()}.tmp") for name, target in targets.items()}
    try:
        for name, content in made.items():
            targets[name].parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(content, fresh[name])
        written = [
            name for name in made if not (targets[name].is_file() and cmp(fresh[name], targets[name], shallow=False))
        ]
        if written:
            # Taken away first: a day cut off between two tables must not look whole.
            targets["behaviours"].unlink(missing_ok=True)
            for name in dict.fromkeys([*written, "behaviours"]):
                fresh[name].replace(targets[name])
    finally:
        for path in fresh.values():
            path.unlink(missing_ok=True)
    return SimulatedDay(day, {name: content.num_rows for name, content in made.items()}, tuple(written))


def options(shop: Shop) -> tuple[int, int]:
    """(seed, users) of ``source.options``, or a `UsageError` that names the key."""
    if shop.source.kind != KIND:
        raise UsageError(
            f"{shop.id} has the source {shop.source.kind}: only shops of source {KIND} are simulated",
            f"put its files into {shop.landing} (docs/landing_contract.md)",
        )
    given = shop.source.options
    unknown = sorted(set(given) - {"seed", "users"})
    if unknown:
        raise UsageError(
            f"{shop.id}.yml: source.options: {', '.join(unknown)} is not known", "known options: seed, users"
        )
    seed, users = given.get("seed", DEFAULT_SEED), given.get("users", DEFAULT_USERS)
    for name, value, least, most in (("seed", seed, 0, 2**31 - 1), ("users", users, FEWEST_USERS, MOST_USERS)):
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise UsageError(
                f"{shop.id}.yml: source.options.{name}: {value!r} is not a whole number from {least:,} to {most:,}",
                "mend the key",
            )
    if not shop.simulated:
        raise UsageError(
            f"{shop.id}.yml: simulated: must be true for source {KIND}, so that all it shows says so", "set it"
        )
    return seed, users


def tables(shop: Shop, day: date, seed: int, users: int) -> dict[str, pa.Table]:
    """Every landing table of ``day``, by name."""
    season = catalogue()
    if not season.first_day <= day <= season.last_day:
        raise UsageError(
            f"the sample shop's season runs from {season.first_day} to {season.last_day}; {day} is not in it",
            f"give --from and --to between {season.first_day} and {season.last_day}",
        )
    rows: dict[str, list[dict[str, Any]]] = {
        "users": _users(season, seed, users, day),
        "items": _item_rows(season, seed, day),
        "campaigns": _campaigns(season, shop, day),
        "hot_events": _hot_events(season, shop, day),
        "privacy_requests": _privacy_requests(season, shop, seed, users, day),
    }
    made = {name: pa.Table.from_pylist(content, schema=SCHEMAS[name]) for name, content in rows.items()}
    return made | {"behaviours": _behaviours(season, shop, seed, users, day)}


def user_id(number: int) -> str:
    """The id a user has in the simulated shop."""
    return f"shopper-{number:06d}"


# -- users -------------------------------------------------------------------------------------------------------


def _users(season: Catalogue, seed: int, users: int, day: date) -> list[dict[str, Any]]:
    """Users as they are at the end of the day: all known ones on the first day, then those who join, change or come.

    Those who come are among them so that a season begun in its middle knows its users, too.
    """
    people = population(seed, users)
    offset = (day - season.first_day).days
    delivered = people.profile_changes(offset) | (offset == 0)
    delivered[visitors(seed, users, day)] = True
    delivered &= people.joined <= offset
    focus, personalised, region = people.focus_on(offset), people.personalisation_on(offset), people.region_on(offset)
    liked = np.argsort(-people.interests, axis=1, kind="stable")[:, :2]
    rows = []
    for number in np.flatnonzero(delivered).tolist():
        tags = dict.fromkeys(season.kinds[kind].name["zh"] for kind in (*liked[number], focus[number]))
        rows.append(
            {
                "user_id": user_id(number),
                "gender": GENDERS[people.gender[number]][0],
                "age_band": AGE_BANDS[people.age_band[number]][0],
                "region": REGIONS[region[number]][0],
                "interest_tags": ";".join(tags) if people.declares_tags[number] else None,
                "personalisation": "on" if personalised[number] else "off",
            }
        )
    return rows


def _privacy_requests(season: Catalogue, shop: Shop, seed: int, users: int, day: date) -> list[dict[str, Any]]:
    people = population(seed, users)
    offset = (day - season.first_day).days
    start = day_window(day, shop.time_zone).start
    second = stream(seed, "requests", day).integers(8 * 3600, 23 * 3600, users)
    return [
        {"user_id": user_id(number), "kind": kind, "requested_at": start + timedelta(seconds=int(second[number]))}
        for kind, asked_on in (("opt_out", people.opts_out), ("opt_in", people.opts_in))
        for number in np.flatnonzero(asked_on == offset).tolist()
    ]


# -- items -------------------------------------------------------------------------------------------------------


def _item_rows(season: Catalogue, seed: int, day: date) -> list[dict[str, Any]]:
    """Every item on sale as of the day."""
    prices = prices_on(seed, day)
    offset = (day - season.first_day).days
    rng = stream(seed, "stock")
    full = rng.integers(80, 600, len(season.items))
    sold = rng.integers(2, 12, len(season.items)) * offset
    return [
        {
            "item_id": item.item_id,
            "title": item.title["zh"],
            "category": season.kinds[item.kind].category["zh"],
            "brand": item.brand["zh"],
            "price": float(price),
            "list_price": item.list_price,
            "currency": CURRENCY,
            "attributes": _json(
                item.attributes["zh"]
                | {
                    "translations": {
                        "en": {
                            "title": item.title["en"],
                            "category": season.kinds[item.kind].category["en"],
                            "brand": item.brand["en"],
                            "attributes": item.attributes["en"],
                        }
                    }
                }
            ),
            "image": file_name(item.item_id),
            # Filled up again before it runs out.
            "stock": int(full[number] - sold[number] % (full[number] - 20)),
        }
        for number, (item, price) in enumerate(zip(season.items, prices, strict=True))
        if price > 0
    ]


@lru_cache(maxsize=128)
def prices_on(seed: int, day: date) -> Floats:
    """CNY of every item of the catalogue on ``day``; 0 before it came on sale.

    A usual price moves a little every few weeks, never above the list price, and not while a campaign covers the item:
    what is reduced was not raised before. A campaign's reductions hold on its days only.
    """
    season = catalogue()
    rng = stream(seed, "prices")
    size = len(season.items)
    lasts, phase = rng.integers(18, 41, size), rng.integers(0, 40, size)
    moves = rng.choice([1.0, 1.0, 0.97, 0.94, 1.03], (size, 8))
    draws = rng.random((size, len(season.campaigns), 2))
    offset = (day - season.first_day).days
    prices = np.zeros(size)
    for number, item in enumerate(season.items):
        if item.since is not None and day < item.since:
            continue
        covering = [one.first for one in season.campaigns if one.is_on(day) and item.kind in one.kinds]
        eve = min([offset, *((first - season.first_day).days - 1 for first in covering)])
        move = moves[number, (eve + phase[number]) // lasts[number]]
        price = usual = item.price if move == 1 else min(_tidy(item.price * move), item.list_price)
        for column, campaign in enumerate(season.campaigns):
            if not campaign.is_on(day) or item.kind not in campaign.kinds:
                continue
            chance, depth = draws[number, column]
            if campaign.exact is not None:
                price = min(price, round(usual * campaign.exact, 1))
            elif chance < campaign.reduced:
                price = min(price, _tidy(usual * (1 - 0.05 - (campaign.depth - 0.05) * depth)))
        prices[number] = price
    prices.flags.writeable = False
    return prices


def _tidy(price: float) -> float:
    """As shops like their prices: 36.9, 129, 2,299."""
    if price < 60:
        return round(price, 1)
    return float(round(price)) if price < 300 else float(round(price / 10) * 10 - 1)


# -- season ------------------------------------------------------------------------------------------------------


def _campaigns(season: Catalogue, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Campaigns that have been announced and are not over."""
    return [
        {
            "campaign_id": one.campaign_id,
            "scenario": one.scenario,
            "name": one.name["zh"],
            "starts_at": _start(shop, one.first),
            "ends_at": _start(shop, one.last + timedelta(days=1)) - timedelta(seconds=1),
            "offer": one.offer["zh"],
            "items": ";".join(one.items) or None,
            "categories": ";".join(one.categories),
            "channels": ";".join(one.channels),
            "budget": one.budget,
            "translations": _json({"en": {"name": one.name["en"], "offer": one.offer["en"]}}),
        }
        for one in season.campaigns
        if one.announced <= day <= one.last
    ]


def _hot_events(season: Catalogue, shop: Shop, day: date) -> list[dict[str, Any]]:
    """What people talk about, from the day it is known of until it is over."""
    return [
        {
            "event_id": one.event_id,
            "title": one.title["zh"],
            "keywords": ";".join(one.keywords["zh"]),
            "starts_at": _start(shop, one.first),
            "ends_at": _start(shop, one.last + timedelta(days=1)) - timedelta(seconds=1),
            "source": "simulated",
            "translations": _json({"en": {"title": one.title["en"], "keywords": list(one.keywords["en"])}}),
        }
        for one in season.hot_events
        if one.announced <= day <= one.last
    ]


def _start(shop: Shop, day: date) -> datetime:
    return day_window(day, shop.time_zone).start


# -- behaviours --------------------------------------------------------------------------------------------------


def _behaviours(season: Catalogue, shop: Shop, seed: int, users: int, day: date) -> pa.Table:
    prices = prices_on(seed, day)
    done = behave(seed, users, day, prices)
    start = int(_start(shop, day).timestamp() * 1000)
    item_ids = np.array([item.item_id for item in season.items])
    priced = np.isin(done.behaviour, ("cart", "purchase"))
    return pa.table(
        {
            "event_id": [f"{day:%Y%m%d}-{number:06d}" for number in range(len(done))],
            "user_id": [user_id(number) for number in done.user.tolist()],
            "behaviour": done.behaviour.tolist(),
            "occurred_at": pa.array(start + (done.second * 1000).astype(np.int64)).cast(TIME),
            "item_id": _unless(done.item < 0, item_ids[done.item].tolist()),
            "query": done.query,
            "quantity": _unless(done.quantity == 0, done.quantity.tolist()),
            "price": _unless(~priced, prices[done.item].tolist()),
        },
        schema=SCHEMAS["behaviours"],
    )


def _unless(missing: Any, values: Iterable[Any]) -> list[Any]:
    return [None if gone else value for gone, value in zip(missing, values, strict=True)]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
