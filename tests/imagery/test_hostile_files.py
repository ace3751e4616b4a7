"""Damaged pictures, paths that lead to what never ends, labels that changed: one banner's trouble, nobody else's."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, write_rows
from adloom.imagery import generating, handover
from adloom.imagery.conditions import Condition
from adloom.imagery.pictures import PictureError, decode
from adloom.shop import Shop

DAY = date(2024, 3, 7)
COPY = Copy(
    headline="A lamp to read by", body="Warm light that does not flicker, for late books.", call_to_action="See it"
)
SHARD = "shard-00000"


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail where the block takes longer: a pipe or an endless device would be waited for without end."""

    def too_long(*_: Any) -> None:
        pytest.fail(f"still reading after {seconds} s")  # nothing that code under test catches

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    made = make_shop(ai_label_producer_id="corner-1", imagery={"videos_per_day": 0})
    made.images.mkdir(parents=True)
    image = Image.new("RGB", (500, 500), (240, 240, 238))
    ImageDraw.Draw(image).ellipse((140, 90, 360, 410), fill=(200, 90, 60))
    image.save(made.images / "lamp.png")
    return made


def order(number: int, image: str) -> handover.ImageOrder:
    brief = Brief(
        scenario="recommendation",
        language="en",
        channel="x",
        segment_id="all",
        item=ItemFacts(item_id=f"item{number}", title="Lamp", brand="Roost", price="$20"),
        limits=CopyLimits(headline=45, body=180, call_to_action=20),
    )
    return handover.ImageOrder(
        creative_id=f"{number:016x}",
        creative_hash=COPY.digest,
        brief=brief,
        copy=COPY,
        formats=("link_1200x628",),
        source="own_photo",
        image=image,
    )


def composed(shop: Shop, *images: str) -> tuple[generating.ImageShard, dict[str, str]]:
    """The shard of a banner per image, and image → what is wrong with it (empty: made)."""
    orders = [order(number, image) for number, image in enumerate(images)]
    write_rows(handover.orders_path(shop, DAY, SHARD), orders)
    (shard,) = generating.compose(shop, DAY, [SHARD], label)
    made = list(generating.made(shop, DAY, [SHARD]))
    return shard, {one.image: "; ".join(f.reason for f in row.findings) for one, row in zip(orders, made, strict=True)}


def label(path: Path, creative_id: str, source: str) -> str:
    from adloom.publishing import labels

    return labels.label_file(path, labels.Label("corner-1", creative_id, "compositeWithTrainedAlgorithmicMedia")).json()


# --- damaged --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AVIF", "WEBP", "JPEG", "PNG", "GIF", "TIFF"])
def test_whatever_is_broken_in_a_file_it_is_a_picture_or_a_clear_error(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    refused = []
    for place in range(0, len(content), max(1, len(content) // 120)):
        for broken in (content[:place], content[:place] + b"\0" * 16 + content[place + 16 :]):
            try:
                decode(broken, "item i: picture p")
            except PictureError as error:
                refused.append(error)
    assert refused
    assert all(one.message.startswith("item i: picture p ") and one.next_step for one in refused)
    if kind == "AVIF":
        causes = {type(one.__cause__) for one in refused}
        assert RuntimeError in causes, "this decoder has an error of its own"


def test_a_damaged_avif_costs_its_own_banner_only(shop: Shop) -> None:
    photo = Image.open(shop.images / "lamp.png")
    sound = encoded(photo, "AVIF")
    start = sound.index(b"mdat") + 8
    (shop.images / "sound.avif").write_bytes(sound)
    (shop.images / "broken.avif").write_bytes(sound[:start] + b"\0" * 64 + sound[start + 64 :])
    (shop.images / "short.avif").write_bytes(sound[: len(sound) // 2])
    shard, told = composed(shop, "lamp.png", "broken.avif", "sound.avif", "short.avif")
    assert (shard.images, shard.refused) == (2, 2)
    assert told["lamp.png"] == told["sound.avif"] == ""
    assert told["broken.avif"].startswith("item item1: picture broken.avif is damaged or cut short")
    assert told["broken.avif"].endswith("deliver it again")
    assert told["short.avif"].startswith("item item3: picture short.avif is")


# --- paths ----------------------------------------------------------------------------------------------------------


def test_what_never_ends_or_lies_elsewhere_is_refused_unread(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the picture nor for the digest that says whether a shard is still what it was."""
    outside = shop.home / "secret.png"
    outside.write_bytes((shop.images / "lamp.png").read_bytes())
    os.mkfifo(shop.home / "pipe.png")
    os.mkfifo(shop.images / "pipe.png")
    (shop.images / "link.png").symlink_to(outside)
    (shop.images / "zero.png").symlink_to("/dev/zero")
    (shop.images / "folder.png").mkdir()
    hostile = ("/dev/zero", "../../secret.png", "../../pipe.png", "pipe.png", "link.png", "zero.png", "folder.png")
    opened: list[str] = []
    read = Path.open

    def watched(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(self))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", watched)
    with within(20):
        shard, told = composed(shop, "lamp.png", *hostile)
        again, _ = composed(shop, "lamp.png", *hostile)
    assert (shard.images, shard.refused) == (1, len(hostile))
    assert again.was_finished
    assert {image for image, said in told.items() if not said} == {"lamp.png"}
    elsewhere = [one for one in opened if one.endswith((*hostile, "secret.png", "/dev/zero"))]
    assert elsewhere == []


# --- labels and redrawn pictures -------------------------------------------------------------------------------------


@pytest.fixture
def fresh_digest() -> Iterator[None]:
    generating._code_digest.cache_clear()
    yield
    generating._code_digest.cache_clear()


@pytest.mark.usefixtures("fresh_digest")
def test_another_label_text_makes_every_image_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = composed(shop, "lamp.png")
    before = next(handover.folder_of(shop, DAY).glob("files/*")).read_bytes()
    assert not first.was_finished
    assert composed(shop, "lamp.png")[0].was_finished
    monkeypatch.setitem(generating.AI_LABEL, "en", "Made with AI")
    generating._code_digest.cache_clear()
    assert not composed(shop, "lamp.png")[0].was_finished
    assert next(handover.folder_of(shop, DAY).glob("files/*")).read_bytes() != before


@pytest.mark.usefixtures("fresh_digest")
@pytest.mark.parametrize("name", ["labels.py", "metadata.py"])
def test_so_does_another_way_to_write_the_label_into_the_file(
    name: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed(shop, "lamp.png")
    read = Path.read_bytes

    def changed(self: Path) -> bytes:
        return read(self) + (b"\n# changed" if self.name == name else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    generating._code_digest.cache_clear()
    assert not composed(shop, "lamp.png")[0].was_finished


def test_an_item_that_is_filed_elsewhere_is_drawn_again(tmp_path: Path) -> None:
    """The same name, another order: the old picture is none of the new order's, so what was approved with it is not."""
    before = handover.DrawOrder(name="p", condition=Condition(category="Home/Lamps"), seed=1)
    path = tmp_path / "p.png"
    generating._write_png(path, np.zeros((3, 8, 8), np.uint8), before)
    assert generating._is_drawn(path, before)
    assert not generating._is_drawn(path, before.model_copy(update={"condition": Condition(category="Toys")}))
    assert not generating._is_drawn(tmp_path / "gone.png", before)
