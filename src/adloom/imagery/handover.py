"""What the task that opens the warehouse leaves for those that draw and compose, and what these find there: files.

``creatives/day=D/images/``: ``shards/`` (orders of banners in, what was made of them out), ``drawn.jsonl`` and
``drawn/`` (what a generator is to draw, and did), ``files/`` (finished banners and videos). Drawing and composing read
nothing else but the shop's file, its pictures and its models.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field
from sqlalchemy import Connection, and_, select, text

from adloom.creative import Brief, Copy, _Row, read_rows, write_rows
from adloom.errors import AdloomError
from adloom.imagery.catalogue import CatalogueItem, condition_of, read_items
from adloom.imagery.conditions import Condition
from adloom.imagery.pictures import drawn_name
from adloom.review.similarity import TEXT_PARTS
from adloom.shop import PictureKind, Shop
from adloom.warehouse import ledger

log = logging.getLogger(__name__)

ORDERS, MADE, DRAWN, FILES, SHARDS = "orders.jsonl", "images.jsonl", "drawn", "files", "shards"
VIDEO = "video_1080x1920"
TALL = 1.6
"""A channel that takes an image so much higher than wide takes a short video, too."""


class ImageOrder(_Row):
    """Everything a creative's images are made from. ``image``: the item's own picture, as its path is delivered."""

    model_config = ConfigDict(populate_by_name=True)

    creative_id: str
    creative_hash: str
    brief: Brief
    copy_: Copy = Field(alias="copy")
    formats: tuple[str, ...] = Field(min_length=1, description="of formats.yml, and video_1080x1920 for a video")
    source: PictureKind
    image: str = ""

    @property
    def picture_key(self) -> tuple[str, str, str]:
        """Equal for orders that show the same picture: they are worked off one after the other."""
        drawn = drawn_name(self.brief) if self.source == "gan" else ""
        return self.source, self.brief.item.item_id, drawn


class DrawOrder(_Row):
    """One picture for a generator to draw. ``name``: of its file, without suffix."""

    name: str
    condition: Condition
    seed: int = Field(ge=0)


def folder_of(shop: Shop, day: date) -> Path:
    """The files of one day's images."""
    return shop.creatives / f"day={day.isoformat()}" / "images"


# --- while the warehouse is open ----------------------------------------------------------------------------------


def plan_images(connection: Connection, shop: Shop, day: date) -> list[str]:
    """Write the day's orders in shards; their names, in order. Copies that a review blocks get no image.

    Also replaces the day's rows of ``image_orders``: what the creatives door holds the finished images against.
    """
    folder = folder_of(shop, day)
    orders = _orders(connection, shop, day) if shop.imagery.enabled else []
    names = _write_shards(folder / SHARDS, orders, shop.imagery.shard_images)
    drawn = _draw_orders(connection, day, [one for one in orders if one.source == "gan"])
    write_rows(folder / f"{DRAWN}.jsonl", drawn)
    _sweep(folder, orders, drawn)
    rows = [
        {"day": day, "creative_id": one.creative_id, "creative_hash": one.creative_hash, "format": name}
        for one in orders
        for name in one.formats
    ]
    ledger.replace_rows(connection, ledger.image_orders, {"day": day}, rows)
    log.info("%d images for %d creatives in %d shards", len(rows), len(orders), len(names))
    return names


def _orders(connection: Connection, shop: Shop, day: date) -> list[ImageOrder]:
    creatives, reviews, briefs = ledger.creatives, ledger.reviews, ledger.briefs
    blocked = (
        select(reviews.c.creative_id)
        .where(
            reviews.c.creative_id == creatives.c.creative_id,
            reviews.c.creative_hash == creatives.c.creative_hash,
            reviews.c.severity == "block",
            # What an earlier run found in the images is no reason not to make them again.
            reviews.c.part.in_(TEXT_PARTS),
            reviews.c.rule_id.not_like("image.%"),
        )
        .exists()
    )
    rows = connection.execute(
        select(creatives, briefs.c.content, briefs.c.position)
        .join(briefs, and_(briefs.c.day == creatives.c.day, briefs.c.brief_id == creatives.c.brief_id))
        .where(creatives.c.day == day, creatives.c.headline.is_not(None), ~blocked)
        .order_by(briefs.c.position, creatives.c.variant, creatives.c.creative_id)
    ).all()
    images = _images(connection, day, {row.item_id for row in rows})
    videos = shop.imagery.videos_per_day
    orders = []
    # First variants first: videos go to as many briefs as there are videos.
    for row in sorted(rows, key=lambda one: (one.variant, one.position, one.creative_id)):
        formats = _formats(row.channel)
        if videos and _takes_video(row.channel):
            formats, videos = (*formats, VIDEO), videos - 1
        copy = Copy(
            headline=row.headline,
            body=row.body,
            call_to_action=row.call_to_action,
            hashtags=tuple(json.loads(row.hashtags or "[]")),
        )
        orders.append(
            ImageOrder(
                creative_id=row.creative_id,
                creative_hash=row.creative_hash,
                brief=Brief.model_validate_json(row.content),
                copy=copy,
                formats=formats,
                source=shop.imagery.source_of(row.scenario),
                image=images.get(row.item_id) or "",
            )
        )
    return sorted(orders, key=lambda one: (one.picture_key, one.creative_id))


def _formats(channel: str) -> tuple[str, ...]:
    from adloom.imagery.formats import channel_images

    return tuple(one.name for one in channel_images(channel).formats)


def _takes_video(channel: str) -> bool:
    from adloom.imagery.formats import channel_images

    return any(one.height >= TALL * one.width for one in channel_images(channel).formats)


_IMAGES = text(
    """
    select item_id, arg_max(struct_pack(image := image), known_date) as found
    from marts.dim_items
    where known_date <= :day
    group by item_id
    """
)


def _images(connection: Connection, day: date, wanted: set[str]) -> dict[str, str | None]:
    """item_id → path of its picture, as of the day."""
    if not wanted:
        return {}
    return {
        row.item_id: row.found["image"]
        for row in connection.execute(_IMAGES, {"day": day})
        if row.item_id in wanted and row.found["image"]
    }


def _write_shards(folder: Path, orders: Sequence[ImageOrder], size: int) -> list[str]:
    """Files of about ``size`` images; those of one picture stay together where they fit into a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[ImageOrder]] = []
    room = 0
    for _, group in groupby(orders, key=lambda one: one.picture_key):
        rest = list(group)
        while rest:
            images = sum(len(one.formats) for one in rest)
            if not shards or (images > room and room < size):
                shards.append([])
                room = size
            taken = 0
            while taken < len(rest) and (room > 0 or not shards[-1]):
                room -= len(rest[taken].formats)
                taken += 1
            shards[-1] += rest[:taken]
            rest = rest[taken:]
            if rest:
                room = 0
    names = []
    for number, shard in enumerate(shards):
        names.append(f"shard-{number:05d}")
        write_rows(folder / f"{names[-1]}.{ORDERS}", shard)
    for path in folder.glob("shard-*.*"):
        if path.name.partition(".")[0] not in names:
            path.unlink()
    return names


def _draw_orders(connection: Connection, day: date, orders: Sequence[ImageOrder]) -> list[DrawOrder]:
    """One per item and segment, in the words that the generator was taught (`catalogue.condition_of`)."""
    if not orders:
        return []
    items = {one.item_id: one for one in read_items(connection, day)}
    interests = _interests(connection, day)
    found: dict[str, DrawOrder] = {}
    for order in orders:
        brief, name = order.brief, drawn_name(order.brief)
        if name in found:
            continue
        facts = brief.item
        item = items.get(facts.item_id) or CatalogueItem(facts.item_id, facts.category, order.image, {})
        condition = condition_of(item, brief.segment_id, interests.get(brief.segment_id, ()))
        found[name] = DrawOrder(name=name, condition=condition, seed=int(name[:10], 16))
    return [found[name] for name in sorted(found)]


def _interests(connection: Connection, day: date) -> dict[str, tuple[str, ...]]:
    portraits = ledger.portraits
    rows = connection.execute(select(portraits.c.segment_id, portraits.c.interests).where(portraits.c.day == day))
    return {row.segment_id: tuple(one["category"] for one in json.loads(row.interests)) for row in rows}


def _sweep(folder: Path, orders: Sequence[ImageOrder], drawn: Sequence[DrawOrder]) -> None:
    """Remove finished files that nobody orders any more."""
    kept = {file_name(one.creative_id, name) for one in orders for name in one.formats}
    for path in (folder / FILES).glob("*"):
        if path.name not in kept and not path.name.startswith("."):
            path.unlink()
    names = {f"{one.name}.png" for one in drawn}
    for path in (folder / DRAWN).glob("*.png"):
        if path.name not in names:
            path.unlink()


def file_name(creative_id: str, format_name: str) -> str:
    """Of a finished banner or video."""
    return f"{creative_id}_{format_name}.{'mp4' if format_name.startswith('video') else 'jpg'}"


# --- files only ---------------------------------------------------------------------------------------------------


def planned(shop: Shop, day: date) -> list[str]:
    """Names of the shards that `plan_images` wrote, in order."""
    folder = folder_of(shop, day)
    if not (folder / f"{DRAWN}.jsonl").is_file():
        raise AdloomError(
            f"no images are planned for {day}: {folder} holds no orders",
            f"run `adloom plan-images --shop {shop.id} --day {day}`",
        )
    return sorted(path.name.partition(".")[0] for path in (folder / SHARDS).glob(f"shard-*.{ORDERS}"))


def orders(shop: Shop, day: date, shard: str) -> Iterator[ImageOrder]:
    """The orders of one shard."""
    path = orders_path(shop, day, shard)
    if not path.is_file():
        raise AdloomError(f"there is no {path.name}", f"run `adloom plan-images --shop {shop.id} --day {day}`")
    return read_rows(path, ImageOrder)


def orders_path(shop: Shop, day: date, shard: str) -> Path:
    """The file of a shard's orders."""
    return folder_of(shop, day) / SHARDS / f"{shard}.{ORDERS}"


def made_path(shop: Shop, day: date, shard: str) -> Path:
    """The file that says what was made of a shard's orders."""
    return folder_of(shop, day) / SHARDS / f"{shard}.{MADE}"


def digest_of(content: Any) -> str:
    """SHA-256 over plain data, hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def pages(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The rows, so many at a time."""
    left = iter(rows)
    while page := list(islice(left, size)):
        yield page


def remove(shop: Shop, day: date) -> None:
    """Take away a day's images and their orders."""
    shutil.rmtree(folder_of(shop, day), ignore_errors=True)
