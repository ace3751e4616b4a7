"""Which of the shop's catalogue pictures a generator learns from: chosen by the portraits of the day.

An item is chosen by a portrait whose interests hold its category, or whose users looked at it lately; it is learnt
once for every such portrait, with the portrait's interests as condition. Portraits are of at least k adults each and
say nothing of age or gender; what a condition says of those is what the item itself says (`catalogue`).
Segments that are not personalised (minors, opt-outs, unknown age where the shop says so) choose nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from sqlalchemy import Connection

from adloom.audience.portraits import ALL, NOT_PERSONALISED, Portrait, read_portraits
from adloom.creative import read_rows, write_rows
from adloom.errors import AdloomError
from adloom.imagery.catalogue import CatalogueItem, condition_of, read_items
from adloom.imagery.conditions import TrainingImage, age_group
from adloom.imagery.handover import folder_of
from adloom.shop import Shop

ORDERED = "training.jsonl"


@dataclass(frozen=True)
class Selection:
    """``images``: what is learnt from; ``left_out``: reason → items."""

    images: list[TrainingImage]
    left_out: dict[str, int]

    def __str__(self) -> str:
        items = len({one.path for one in self.images})
        left = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return f"{items} pictures, {len(self.images)} pairs of picture and portrait" + (
            f" (left out: {left})" * bool(left)
        )


def select_images(connection: Connection, shop: Shop, day: date) -> Selection:
    """The pictures to learn from as of ``day``. Raises `AdloomError` where the day's portraits were never made."""
    try:
        portraits = read_portraits(connection, day)
    except AdloomError as error:
        raise AdloomError(
            f"{shop.id}: {error.message}", f"run: adloom portraits --shop {shop.id} --day {day}"
        ) from error
    items = read_items(connection, day)
    return choose(items, portraits, unknown_age_is_minor=shop.unknown_age_is_minor)


def order_training(connection: Connection, shop: Shop, day: date) -> Selection:
    """Write what a generator may learn from as of ``day`` to ``training.jsonl`` of the day's images."""
    found = select_images(connection, shop, day)
    write_rows(folder_of(shop, day) / ORDERED, found.images)
    return found


def ordered_training(shop: Shop, day: date) -> list[TrainingImage]:
    """What `order_training` wrote; `AdloomError` where it wrote nothing to learn from."""
    path = folder_of(shop, day) / ORDERED
    if not path.is_file():
        raise AdloomError(f"{path} is not there", f"run `adloom select-images --shop {shop.id} --day {day}`")
    images = list(read_rows(path, TrainingImage))
    if not images:
        raise AdloomError(
            f"{shop.id}: no picture of the catalogue was chosen by a portrait of {day}",
            f"deliver items.image, or see `adloom select-images --shop {shop.id} --day {day}` for what is left out",
        )
    return images


def choose(items: Sequence[CatalogueItem], portraits: Sequence[Portrait], *, unknown_age_is_minor: bool) -> Selection:
    """The pictures that the portraits choose; ``unknown_age_is_minor``: an item's unclear age band counts as such."""
    allowed = [
        one for one in portraits if one.is_personalised and one.segment_id not in (NOT_PERSONALISED, ALL) and one.users
    ]
    images: list[TrainingImage] = []
    left_out: Counter[str] = Counter()
    for item in items:
        group = age_group(item.age_band) if item.age_band else "adult"
        by = [one for one in allowed if _is_chosen(item, one)]
        if not item.image.strip():
            left_out["without a picture"] += 1
        elif group == "minor" or (group == "unknown" and unknown_age_is_minor):
            left_out["made for minors"] += 1
        elif not by:
            left_out["chosen by no portrait"] += 1
        else:
            images += [_image(item, one) for one in by]
    return Selection(sorted(set(images), key=lambda one: one.json_line()), dict(sorted(left_out.items())))


def _is_chosen(item: CatalogueItem, portrait: Portrait) -> bool:
    if item.item_id in portrait.recent_items:
        return True
    return any(item.category == path or item.category.startswith(f"{path}/") for path, _ in portrait.interests)


def _image(item: CatalogueItem, portrait: Portrait) -> TrainingImage:
    condition = condition_of(item, portrait.segment_id, (path for path, _ in portrait.interests))
    return TrainingImage(path=item.image, condition=condition, name=f"item {item.item_id}: picture {item.image}")
