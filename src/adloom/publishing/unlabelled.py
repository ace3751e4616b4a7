"""Exports without the visible AI label: only on request, and only after who, why and when are written down.

The labelling measures (Art. 9) let a producer hand out content without its explicit label to somebody who asks for it
and answers for the label from then on; the log of it must be kept for six months and is kept as long as a dossier. The
implicit label, in the file's metadata, stays. A picture is composed again without the label; nothing that carries one
is ever painted over.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from adloom.creative import Copy
from adloom.errors import AdloomError, UsageError
from adloom.publishing import labels
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.window import years_later

COPY = "copy"
"""The format of the ad text alone."""


@dataclass(frozen=True)
class Export:
    """What is about to be handed out. `record` first, `hand_out` then: no file without its line in the log."""

    creative_id: str
    format: str
    target: Path
    by: str
    reason: str
    day: date
    keep_until: date
    """the log; longer where the creative still runs (`adloom.privacy.retention`)"""
    content: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hex."""
        return hashlib.sha256(self.content).hexdigest()


def prepare(
    connection: Connection,
    shop: Shop,
    creative_id: str,
    format_name: str,
    target: Path,
    *,
    by: str,
    reason: str,
    day: date,
) -> Export:
    """Make the content without its visible label, in memory. Raises `UsageError` where who or why is missing."""
    if not by.strip() or not reason.strip():
        raise UsageError("an export without the AI label names who asks for it and why", "give --by and --reason")
    if target.exists():
        raise UsageError(f"{target} is there already", "name a file that is not")
    creatives = ledger.creatives
    row = connection.execute(select(creatives).where(creatives.c.creative_id == creative_id)).one_or_none()
    if row is None or row.headline is None:
        raise UsageError(
            f"{shop.id} has written no copy of a creative {creative_id!r}",
            "`adloom review` and the report show the ids",
        )
    if format_name == COPY:
        content = _text(row).encode("utf-8")
    else:
        content = _picture(connection, shop, creative_id, format_name)
    kept = years_later(day, shop.retention.dossier_years)
    return Export(creative_id, format_name, target, by.strip(), reason.strip(), day, kept, content)


def record(connection: Connection, export: Export, at: datetime) -> str:
    """Write the export down; returns its id. The same export again is the same line."""
    told = [str(export.day), export.creative_id, export.format, export.by, export.reason, export.target.name]
    export_id = hashlib.sha256(json.dumps([*told, export.digest]).encode()).hexdigest()[:16]
    row = {
        "export_id": export_id,
        "day": export.day,
        "creative_id": export.creative_id,
        "format": export.format,
        "exported_by": export.by,
        "reason": export.reason,
        "file_name": export.target.name,
        "digest": export.digest,
        "keep_until": export.keep_until,
        "exported_at": at,
    }
    ledger.replace_rows(connection, ledger.label_free_exports, {"export_id": export_id}, [row])
    return export_id


def hand_out(export: Export) -> Path:
    """Write the file, whole or not at all. Call it when the log is committed."""
    export.target.parent.mkdir(parents=True, exist_ok=True)
    fresh = export.target.with_name(f".{export.target.name}.tmp")
    fresh.write_bytes(export.content)
    os.replace(fresh, export.target)
    return export.target


def _text(row: Any) -> str:
    copy = Copy(
        headline=row.headline,
        body=row.body,
        call_to_action=row.call_to_action,
        hashtags=tuple(json.loads(row.hashtags or "[]")),
    )
    return copy.text + "\n"


def _picture(connection: Connection, shop: Shop, creative_id: str, format_name: str) -> bytes:
    """The banner or video composed once more without its visible label, with the implicit one."""
    from adloom.imagery import composing, formats, handover
    from adloom.imagery.pictures import GanPictures, OwnPhotos, PictureSource
    from adloom.imagery.video import compose_video

    assets = ledger.assets
    asset = connection.execute(
        select(assets).where(assets.c.creative_id == creative_id, assets.c.format == format_name)
    ).one_or_none()
    if asset is None:
        known = connection.scalars(select(assets.c.format).where(assets.c.creative_id == creative_id)).all()
        raise UsageError(
            f"creative {creative_id} has no {format_name}", f"its formats: {', '.join([COPY, *sorted(known)])}"
        )
    order = next(
        (
            one
            for shard in handover.planned(shop, asset.day)
            for one in handover.orders(shop, asset.day, shard)
            if one.creative_id == creative_id
        ),
        None,
    )
    if order is None:
        raise AdloomError(
            f"the order that {format_name} of {creative_id} was made from is gone",
            f"run `adloom plan-images --shop {shop.id} --day {asset.day}`",
        )
    folder = handover.folder_of(shop, asset.day)
    source: PictureSource = (
        GanPictures(folder / handover.DRAWN)
        if order.source == "gan"
        else OwnPhotos(shop.images, {order.brief.item.item_id: order.image})
    )
    picture = source.picture(order.brief)
    if format_name == handover.VIDEO:
        with tempfile.TemporaryDirectory(prefix="adloom-export-") as made:
            path = Path(made) / "video.mp4"
            compose_video(picture, order.copy_, order.brief, path, has_label=False)
            content = path.read_bytes()
    else:
        size = formats.image_format(format_name)
        composed = composing.compose(order.copy_, order.brief, picture, size, asset.template, label=None)
        content, _ = composing.encode(composed.image, formats.channel_images(order.brief.channel).most_bytes - 6000)
    label = labels.label_of(shop, creative_id, order.source)
    content = labels.labelled(content, label, format_name)
    labels.verify_bytes(content, label, format_name)
    return content
