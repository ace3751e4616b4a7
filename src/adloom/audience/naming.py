"""What the shop calls its categories and items, per language, as of a day."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy import Connection, text

from adloom.audience.segments import slug
from adloom.audience.words import Named, is_name, named_category, named_item
from adloom.shop import Shop

# attributes.translations.<language> = {"title": …, "category": …}
_CATEGORIES = text(
    """
    with latest as (
        select
            item_id,
            arg_max(
                struct_pack(own := category, other := json_extract_string(attributes, :category_path)), known_date
            ) as path
        from marts.dim_items
        where known_date <= :day
        group by item_id
    )
    select path.own as own, path.other as other, count(*) as items
    from latest
    where path.own is not null and path.other is not null
    group by all
    order by all
    """
)


@dataclass
class Names:
    """Names of category paths (one level or two) and of items; both may lack one in some or all languages."""

    language: str
    other: str
    paths: dict[str, str | None] = field(default_factory=dict)
    """category path → the same path in the other language"""
    _slugs: dict[str, str] = field(default_factory=dict)
    _categories: dict[str, Named] = field(default_factory=dict)

    @property
    def title_path(self) -> str:
        """Where in an item's attributes its title in the other language stands."""
        return f"$.translations.{self.other}.title"

    def category(self, path: str) -> Named:
        if path not in self._categories:
            self._categories[path] = named_category({self.language: path, self.other: self.paths.get(path)})
        return self._categories[path]

    def item(self, item_id: str, title: str | None, other_title: str | None, category: str | None) -> Named:
        if item_id in {title, other_title}:
            return Named({})
        levels = split_path(category or "")
        titles = {self.language: title, self.other: other_title}
        return named_item(titles, self.category("/".join(levels[:2])) if levels else Named({}))

    def slug(self, path: str) -> str:
        """The category as part of a segment's id, in English where there is; empty where it has no name."""
        if path not in self._slugs:
            english = path if self.language == "en" else self.paths.get(path) or path
            is_named = bool(path) and all(is_name(part) for part in path.split("/"))
            self._slugs[path] = slug(english.replace("/", " ")) if is_named else ""
        return self._slugs[path]


def split_path(category: str) -> list[str]:
    """The named levels of a category path: what comes before an empty one."""
    levels = []
    for part in category.split("/"):
        if not part.strip():
            break
        levels.append(part.strip())
    return levels


def read_names(connection: Connection, shop: Shop, day: date) -> Names:
    """The names as of ``day``; of several translations of a category the most frequent one counts."""
    names = Names(shop.language, "en" if shop.language == "zh" else "zh")
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    values = {"day": day, "category_path": f"$.translations.{names.other}.category"}
    for row in connection.execute(_CATEGORIES, values):
        own, other = split_path(row.own), split_path(row.other)
        for depth in (1, 2):
            if len(own) >= depth and len(other) >= depth:
                votes["/".join(own[:depth])]["/".join(other[:depth])] += row.items
    for path, found in votes.items():
        names.paths[path] = min(found, key=lambda name: (-found[name], name))
    return names
