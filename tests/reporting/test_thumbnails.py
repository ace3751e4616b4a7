"""Finished banners in the page: small, inside of it, one per shape, and a missing file is said."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from adloom.reporting import thumbnails
from adloom.shop import Shop


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop()


def asset(shop: Shop, width: int, height: int, kind: str = "image") -> Any:
    path = f"day=2024-03-07/images/files/k_{width}x{height}.jpg"
    (shop.creatives / path).parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((width, height), 60).convert("RGB").save(shop.creatives / path)
    label = json.dumps({"AIGC": {"ContentProducer": "shop-1"}})
    checks = json.dumps({"seconds": 8.2} if kind == "video" else {})
    form = f"x_{width}x{height}"
    return SimpleNamespace(path=path, width=width, height=height, kind=kind, format=form, label=label, checks=checks)


def test_one_small_picture_per_shape_inside_the_page(shop: Shop) -> None:
    assets = [asset(shop, 1080, 1080), asset(shop, 800, 800), asset(shop, 1080, 1920)]
    shown = thumbnails.maker(shop)([*assets, asset(shop, 540, 960, "video")])
    assert [one.format for one in shown.thumbnails] == ["x_1080x1080", "x_1080x1920"]
    assert (shown.images, shown.video_seconds, shown.thumbnails[0].producer) == (3, 8.2, "shop-1")
    head, _, content = shown.thumbnails[1].data.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as small:
        assert small.size == (2 * shown.thumbnails[1].shown_width + 1, 2 * shown.thumbnails[1].shown_height)


def test_a_banner_whose_file_is_gone_is_said_to_be(shop: Shop) -> None:
    gone = asset(shop, 1080, 1080)
    (shop.creatives / gone.path).unlink()
    (one,) = thumbnails.maker(shop)([gone]).thumbnails
    assert not one.data


def test_a_creative_without_images_shows_none(shop: Shop) -> None:
    assert not thumbnails.maker(shop)([]).thumbnails
