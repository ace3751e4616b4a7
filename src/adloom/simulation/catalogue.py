"""What the sample shop sells: the files of ``catalogue/`` as items in two languages, and its season as data.

Brands, books and offers are invented. A value is written ``Chinese|English``, as a word of the file's ``words``, or
plain where both languages write it alike; a word without its translation is an error, so no item is half translated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from adloom.errors import AdloomError

Words = dict[str, str]
"""The same thing in both languages: ``zh`` → …, ``en`` → …"""

OWN_KEYS = ("kind", "zh", "en", "brand", "price", "list")


@dataclass(frozen=True)
class Kind:
    """The second level of a category: what people look for, and how they search for it."""

    key: str  # "headphones/earbuds": how campaigns, shoppers and affinities name it
    category: Words  # the whole path
    name: Words
    queries: dict[str, tuple[str, ...]]

    @property
    def department(self) -> str:
        return self.key.partition("/")[0]


@dataclass(frozen=True)
class Item:
    """One article; prices in CNY."""

    item_id: str
    kind: int  # position in `Catalogue.kinds`
    title: Words
    brand: Words
    attributes: dict[str, dict[str, str]]  # language → name → value
    price: float
    list_price: float
    since: date | None = None


@dataclass(frozen=True)
class Campaign:
    """A campaign of the season; `first` and `last` are its local days."""

    campaign_id: str
    scenario: str
    announced: date
    first: date
    last: date
    name: Words
    offer: Words
    kinds: tuple[int, ...]
    categories: tuple[str, ...]
    items: tuple[str, ...]
    channels: tuple[str, ...]
    budget: float
    traffic: float = 1.0
    peaks: dict[date, float] = field(default_factory=dict)
    pull: float = 0.0
    exact: float | None = None
    reduced: float = 0.0
    depth: float = 0.0
    wished: bool = False

    def is_on(self, day: date) -> bool:
        return self.first <= day <= self.last

    def traffic_on(self, day: date) -> float:
        """Factor on the visits of ``day``."""
        return self.peaks.get(day, self.traffic) if self.is_on(day) else 1.0


@dataclass(frozen=True)
class HotEvent:
    """Something people talk about from `first` to `last`."""

    event_id: str
    announced: date
    first: date
    last: date
    title: Words
    keywords: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Persona:
    """A kind of people: what they look at, how common they are, and among which genders and ages more so."""

    likes: dict[str, float]
    share: float
    among: dict[str, float]


@dataclass(frozen=True)
class Catalogue:
    """Everything the sample shop is made of."""

    kinds: tuple[Kind, ...]
    items: tuple[Item, ...]
    personas: tuple[Persona, ...]
    first_day: date
    last_day: date
    campaigns: tuple[Campaign, ...] = ()
    hot_events: tuple[HotEvent, ...] = ()

    def kind_numbers(self, name: str) -> tuple[int, ...]:
        """Positions of the kinds ``name`` stands for: ``books`` (a department) or ``books/scifi``."""
        found = tuple(number for number, kind in enumerate(self.kinds) if name in (kind.key, kind.department))
        if not found:
            raise AdloomError(f"the sample shop has no category {name!r}", "mend simulation/sample_shop.yml")
        return found

    def category(self, name: str, language: str = "zh") -> str:
        """The path of ``books/scifi`` (图书/科幻小说), or the first part of it for a department."""
        path = self.kinds[self.kind_numbers(name)[0]].category[language]
        return path if "/" in name else path.partition("/")[0]


@cache
def catalogue() -> Catalogue:
    """The catalogue and the season that come with the package; `AdloomError` names file and entry."""
    folder = Path(__file__).parent
    season = _yaml(folder / "sample_shop.yml")
    kinds: list[Kind] = []
    items: list[Item] = []
    for path in sorted((folder / "catalogue").glob("*.yml")):
        content = _yaml(path)
        numbers = {}
        for key, kind in content["kinds"].items():
            numbers[key] = len(kinds)
            name = {"zh": kind["zh"], "en": kind["en"]}
            category = {one: f"{content['category'][one]}/{name[one]}" for one in ("zh", "en")}
            queries = {one: tuple(kind["queries"][one]) for one in ("zh", "en")}
            kinds.append(Kind(f"{path.stem}/{key}", category, name, queries))
        items += _items(path.name, content, numbers, season["launches"])
    personas = tuple(Persona(one["likes"], one["share"], one.get("among", {})) for one in season["personas"].values())
    shop = Catalogue(tuple(kinds), tuple(items), personas, season["first_day"], season["last_day"])
    return replace(
        shop,
        campaigns=tuple(_campaign(shop, row) for row in season["campaigns"]),
        hot_events=tuple(_event(row) for row in season["hot_events"]),
    )


def _yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def _items(file: str, content: dict[str, Any], kinds: dict[str, int], launches: dict[str, date]) -> Iterator[Item]:
    for number, row in enumerate(content["items"], start=1):
        try:
            names = [name for name in row if name not in OWN_KEYS]
            values = {name: _both(str(row[name]), content["words"]) for name in names}
            yield Item(
                item_id=f"{content['id']}{number:03d}",
                kind=kinds[row["kind"]],
                title={"zh": row["zh"], "en": row["en"]},
                brand={"zh": row["brand"], "en": content["brands"][row["brand"]]},
                attributes={
                    "zh": {name: values[name]["zh"] for name in names},
                    "en": {content["attributes"][name]: values[name]["en"] for name in names},
                },
                price=float(row["price"]),
                list_price=float(row["list"]),
                since=launches.get(row["zh"]),
            )
        except KeyError as error:
            raise AdloomError(f"{file}: {row.get('zh')}: {error} is not known there", "mend the catalogue") from error


def _both(value: str, words: dict[str, str]) -> Words:
    chinese, bar, english = value.partition("|")
    if bar:
        return {"zh": chinese, "en": english}
    return {"zh": value, "en": value if value.isascii() and value not in words else words[value]}


def _campaign(shop: Catalogue, row: dict[str, Any]) -> Campaign:
    by_title = {item.title["zh"]: item.item_id for item in shop.items}
    return Campaign(
        campaign_id=row["id"],
        scenario=row["scenario"],
        announced=row["announced"],
        first=row["starts"],
        last=row["ends"],
        name=row["name"],
        offer=row["offer"],
        kinds=tuple(number for name in row["categories"] for number in shop.kind_numbers(name)),
        categories=tuple(shop.category(name) for name in row["categories"]),
        items=tuple(by_title[title] for title in row.get("items", ())),
        channels=tuple(row["channels"]),
        budget=float(row["budget"]),
        **{key: row[key] for key in ("traffic", "peaks", "pull", "exact", "reduced", "depth", "wished") if key in row},
    )


def _event(row: dict[str, Any]) -> HotEvent:
    keywords = {one: tuple(row["keywords"][one]) for one in ("zh", "en")}
    return HotEvent(row["id"], row["announced"], row["starts"], row["ends"], row["title"], keywords)
