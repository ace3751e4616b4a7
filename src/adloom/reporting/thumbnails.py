"""Small pictures of a creative's finished banners, inside the page itself: it can be mailed, and nothing is fetched.

The implicit label of a file does not survive being made small, and need not: the page is for the shop alone, and the
visible label is part of the picture.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adloom.reporting.facts import Record
from adloom.shop import Shop

HEIGHT, WIDTH = 340, 516
"""Pixels of one among several, and of one that stands alone; shown at half of it, for fine screens."""
QUALITY = 72
MOST_PER_CREATIVE = 3


@dataclass(frozen=True)
class Thumbnail:
    """One banner, small. ``data``: a data URI; empty where the file is gone."""

    format: str
    width: int
    height: int
    """of the banner"""
    data: str
    shown_width: int
    shown_height: int
    producer: str
    """who its implicit label says made it, as read back from the file"""


@dataclass(frozen=True)
class Shown:
    """What the page shows of a creative's images."""

    thumbnails: Sequence[Thumbnail] = ()
    images: int = 0
    video_seconds: float | None = None


NOTHING = Shown()
Maker = Callable[[Sequence[Record]], Shown]


def maker(shop: Shop) -> Maker:
    """Makes the small pictures of a creative's assets, one per shape: a smaller square says nothing new."""

    def make(assets: Sequence[Record]) -> Shown:
        images = [one for one in assets if one.kind == "image"]
        by_shape: dict[float, Record] = {}
        for one in sorted(images, key=lambda row: (-row.width * row.height, row.format)):
            by_shape.setdefault(round(one.width / one.height, 1), one)
        chosen = sorted(by_shape.values(), key=lambda row: (-round(row.width / row.height, 1), row.format))
        seconds = [json.loads(one.checks).get("seconds") for one in assets if one.kind == "video"]
        is_alone = len(chosen) == 1 and chosen[0].width >= chosen[0].height
        thumbnails = [_thumbnail(shop, one, is_alone) for one in chosen[:MOST_PER_CREATIVE]]
        return Shown(thumbnails, len(images), next(iter(seconds), None))

    return make


def _thumbnail(shop: Shop, asset: Record, is_alone: bool) -> Thumbnail:
    width, height = round(HEIGHT * asset.width / asset.height), HEIGHT
    if is_alone:
        width, height = WIDTH, round(WIDTH * asset.height / asset.width)
    label = json.loads(asset.label).get("AIGC", {}) if asset.label else {}
    return Thumbnail(
        format=asset.format,
        width=asset.width,
        height=asset.height,
        data=_data(shop, asset, (width, height)),
        shown_width=width // 2,
        shown_height=height // 2,
        producer=str(label.get("ContentProducer", "")),
    )


def _data(shop: Shop, asset: Record, size: tuple[int, int]) -> str:
    from PIL import Image

    try:
        with Image.open(shop.creatives / asset.path, formats=("JPEG", "PNG", "WEBP")) as image:
            image.draft("RGB", (size[0] * 2, size[1] * 2))
            small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    except (OSError, SyntaxError, ValueError):
        return ""
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
