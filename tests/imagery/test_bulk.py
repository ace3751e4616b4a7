"""Images in bulk: who is ordered one, what a killed or broken shard leaves, and what the ledger is told."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sqlalchemy import Connection, select, text

from adloom import pipeline
from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts
from adloom.errors import AdloomError
from adloom.imagery import generating, handover
from adloom.imagery.formats import formats
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
COPY = Copy(
    headline="A lamp to read by", body="Warm light that does not flicker, for late books.", call_to_action="See it"
)
ITEMS = ("lamp", "vase", "kettle")


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    made = make_shop(ai_label_producer_id="corner-1", imagery={"videos_per_day": 0})
    made.images.mkdir(parents=True)
    for number, item in enumerate(ITEMS):
        image = Image.new("RGB", (500, 500), (240, 240, 238))
        ImageDraw.Draw(image).ellipse((140, 90, 360, 410), fill=(200 - 60 * number, 90 + 40 * number, 60))
        image.save(made.images / f"{item}.png")
    return made


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            opened.execute(text("create schema marts"))
            opened.execute(
                text(
                    "create table marts.dim_items "
                    "(item_id varchar, image varchar, category varchar, attributes varchar, known_date date)"
                )
            )
            for item in ITEMS:
                add_item(opened, item, f"{item}.png")
            yield opened


def add_item(connection: Connection, item: str, image: str | None, day: date = DAY) -> None:
    values = {"item": item, "image": image, "day": day}
    connection.execute(text("insert into marts.dim_items values (:item, :image, 'home', '{}', :day)"), values)


def brief(number: int, item: str, channel: str) -> Brief:
    return Brief(
        scenario="recommendation",
        language="en",
        channel=channel,
        segment_id="all",
        item=ItemFacts(item_id=item, title=item, brand="Roost", price="$20"),
        limits=CopyLimits(headline=45, body=180, call_to_action=20),
        seed=number,
    )


def add(connection: Connection, number: int, item: str, channel: str = "x", copy: Copy = COPY) -> str:
    """A written copy; returns its id."""
    order = brief(number, item, channel)
    common = {"day": DAY, "brief_id": order.brief_id, "scenario": order.scenario, "language": "en", "channel": channel}
    common |= {"segment_id": "all", "item_id": item}
    connection.execute(
        ledger.briefs.insert(), common | {"position": number, "chosen_for": "value", "content": order.json_line()}
    )
    creative = {
        "creative_id": f"{number:016x}",
        "creative_hash": copy.digest,
        "variant": 0,
        "headline": copy.headline,
        "body": copy.body,
        "call_to_action": copy.call_to_action,
        "hashtags": "[]",
        "candidates": 1,
        "candidates_parsed": 1,
        "model_id": "base",
        "prompt_digest": "p",
        "seed": 0,
    }
    connection.execute(ledger.creatives.insert(), common | creative)
    return creative["creative_id"]  # type: ignore[return-value]


def block(connection: Connection, creative_id: str, rule_id: str = "law.absolute") -> None:
    row = {
        "creative_id": creative_id,
        "creative_hash": COPY.digest,
        "day": DAY,
        "rule_id": rule_id,
        "rule_version": "1",
    }
    row |= {"part": "body", "span": "best", "severity": "block", "reason": "an absolute claim"}
    connection.execute(ledger.reviews.insert(), row)


def label(path: Path, creative_id: str, source: str) -> str:
    """As `pipeline.compose` labels, without opening a shop file each time."""
    from adloom.publishing import labels

    return labels.label_file(path, labels.Label("corner-1", creative_id, "compositeWithTrainedAlgorithmicMedia")).json()


def ordered(shop: Shop, names: list[str]) -> list[handover.ImageOrder]:
    return [one for name in names for one in handover.orders(shop, DAY, name)]


def made(shop: Shop) -> list[generating.Made]:
    return list(generating.made(shop, DAY, handover.planned(shop, DAY)))


def files(shop: Shop) -> dict[str, bytes]:
    folder = handover.folder_of(shop, DAY)
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


# --- orders ---------------------------------------------------------------------------------------------------------


def test_a_blocked_copy_gets_no_image_and_one_that_only_an_image_blocked_does(
    connection: Connection, shop: Shop
) -> None:
    good, blocked, again = (add(connection, number, "lamp") for number in range(3))
    block(connection, blocked)
    block(connection, again, "image.picture")
    names = handover.plan_images(connection, shop, DAY)
    assert {one.creative_id for one in ordered(shop, names)} == {good, again}
    stored = connection.execute(select(ledger.image_orders.c.creative_id, ledger.image_orders.c.format)).all()
    assert sorted(stored) == [(good, "link_1200x628"), (again, "link_1200x628")]


def test_orders_hold_every_format_of_the_channel_and_the_picture_of_the_day(connection: Connection, shop: Shop) -> None:
    add_item(connection, "lamp", "yesterday.png", DAY - timedelta(days=1))
    add_item(connection, "lamp", "tomorrow.png", DAY + timedelta(days=1))
    add(connection, 1, "lamp", "instagram")
    (order,) = ordered(shop, handover.plan_images(connection, shop, DAY))
    assert order.formats == ("feed_1080x1080", "story_1080x1920")
    assert order.image == "lamp.png"


def test_the_banners_of_an_item_stay_in_one_shard(connection: Connection, shop: Shop) -> None:
    for number in range(9):
        add(connection, number, ITEMS[number % 3])
    small = shop.model_copy(update={"imagery": shop.imagery.model_copy(update={"shard_images": 4})})
    names = handover.plan_images(connection, small, DAY)
    shards = [[one.brief.item.item_id for one in handover.orders(shop, DAY, name)] for name in names]
    assert shards == [["kettle"] * 3, ["lamp"] * 3, ["vase"] * 3]


def test_videos_are_ordered_for_tall_channels_up_to_the_days_number(connection: Connection, shop: Shop) -> None:
    for number, channel in enumerate(["x", "tiktok", "instagram", "tiktok"]):
        add(connection, number, "lamp", channel)
    two = shop.model_copy(update={"imagery": shop.imagery.model_copy(update={"videos_per_day": 2})})
    found = ordered(shop, handover.plan_images(connection, two, DAY))
    assert [one.creative_id[-1] for one in found if handover.VIDEO in one.formats] == ["1", "2"]


def test_the_generator_is_ordered_one_picture_per_item_and_segment(connection: Connection, shop: Shop) -> None:
    for number in range(4):
        add(connection, number, ITEMS[number % 2])
    drawn = shop.model_copy(update={"imagery": shop.imagery.model_copy(update={"source": "gan"})})
    handover.plan_images(connection, drawn, DAY)
    path = handover.folder_of(shop, DAY) / "drawn.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(found) == 2
    assert {one["condition"]["category"] for one in found} == {"home"}


# --- composing ------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(connection: Connection, shop: Shop) -> list[str]:
    for number in range(4):
        add(connection, number, ITEMS[number % 2])
    return handover.plan_images(connection, shop, DAY)


def test_every_banner_is_made_labelled_and_its_picture_opened_once(
    planned: list[str], shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (shard,) = generating.compose(shop, DAY, planned, label)
    assert (shard.creatives, shard.images, shard.refused, shard.opened) == (4, 4, 0, 2)
    for one in made(shop):
        assert one.asset is not None
        assert json.loads(one.asset.label)["AIGC"]["ProduceID"] == one.creative_id
        assert one.asset.checks["measured"]["contrast"][0] >= 4.5
        with Image.open(shop.creatives / one.asset.path) as image:
            assert image.size == (one.asset.width, one.asset.height) == (1200, 628)
    assert "4 images, 0 refused" in caplog.text
    # A finished shard is left alone; one whose file was changed is made again, with the same bytes.
    before = files(shop)
    assert generating.compose(shop, DAY, planned, label)[0].was_finished
    next(handover.folder_of(shop, DAY).glob("files/*")).write_bytes(b"changed")
    assert not generating.compose(shop, DAY, planned, label)[0].was_finished
    assert files(shop) == before


def test_a_killed_shard_goes_on_behind_its_last_order_and_ends_with_the_same_bytes(
    planned: list[str], shop: Shop
) -> None:
    calls: list[str] = []

    def killed(path: Path, creative_id: str, source: str) -> str:
        calls.append(creative_id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label(path, creative_id, source)

    with pytest.raises(KeyboardInterrupt):
        generating.compose(shop, DAY, planned, killed)
    partial = next(handover.folder_of(shop, DAY).glob("shards/.*.partial"))
    partial.write_bytes(partial.read_bytes() + b'{"half a line')
    assert len(list(handover.folder_of(shop, DAY).glob("files/*"))) == 2
    (handover.folder_of(shop, DAY) / "files" / f"..{calls[2]}_video_1080x1920.mp4.tmp.mp4").write_bytes(b"half a video")
    generating.compose(shop, DAY, planned, killed)
    assert len(calls) == 5  # two that stand, the one that was cut off, again, and the last
    resumed = files(shop)
    handover_folder = handover.folder_of(shop, DAY)
    for path in [*handover_folder.glob("files/*"), *handover_folder.glob("shards/*.images.jsonl*")]:
        path.unlink()
    generating.compose(shop, DAY, planned, label)
    assert files(shop) == resumed


def test_a_broken_picture_and_a_text_that_does_not_fit_leave_the_rest_unharmed(
    connection: Connection, shop: Shop
) -> None:
    (shop.images / "vase.png").write_bytes((shop.images / "vase.png").read_bytes()[:800])
    long = COPY.model_copy(update={"headline": "Really warm light for everybody " * 16})
    add(connection, 0, "lamp")
    add(connection, 1, "vase")
    add(connection, 2, "lamp", copy=long)
    add_item(connection, "pot", "../../secret.png")
    add(connection, 3, "pot")
    names = handover.plan_images(connection, shop, DAY)
    (shard,) = generating.compose(shop, DAY, names, label)
    assert (shard.images, shard.refused) == (1, 3)
    found = {one.creative_id[-1]: one for one in made(shop)}
    assert found["0"].asset is not None
    assert not found["0"].findings
    told = {key: (one.findings[0].rule_id, one.findings[0].reason) for key, one in found.items() if one.findings}
    assert told["1"][0] == told["3"][0] == "image.picture"
    assert told["1"][1].startswith("item vase: picture vase.png is damaged or cut short")
    assert told["3"][1].startswith("item pot: picture ../../secret.png leads out of the shop's picture folder")
    assert told["2"][0] == "image.text"
    assert "headline" in told["2"][1]


def test_a_label_that_cannot_be_read_back_keeps_the_image_out(planned: list[str], shop: Shop) -> None:
    def stripped(path: Path, creative_id: str, source: str) -> str:
        from adloom.publishing import labels

        return labels.verify(path, labels.Label("corner-1", creative_id, "trainedAlgorithmicMedia")).json()

    (shard,) = generating.compose(shop, DAY, planned, stripped)
    assert (shard.images, shard.refused) == (0, 4)
    assert {one.findings[0].rule_id for one in made(shop)} == {"image.label"}
    assert not list(handover.folder_of(shop, DAY).glob("files/*"))


def test_a_shop_that_cannot_label_composes_nothing(connection: Connection, make_shop: Callable[..., Shop]) -> None:
    add(connection, 0, "lamp")
    bare = make_shop()
    handover.plan_images(connection, bare, DAY)
    with pytest.raises(AdloomError, match="ai_label_producer_id: is not set"):
        pipeline.compose(bare.id, DAY)


def test_an_item_without_any_picture_is_said_to_have_none_and_its_copy_may_run_as_text(
    connection: Connection, shop: Shop
) -> None:
    add_item(connection, "pot", None)
    add(connection, 0, "pot")
    generating.compose(shop, DAY, handover.plan_images(connection, shop, DAY), label)
    (one,) = made(shop)
    assert one.asset is None
    assert [(found.rule_id, found.severity) for found in one.findings] == [("image.picture", "warn")]
    assert one.findings[0].reason.startswith("item pot has no picture")


# --- drawn pictures -------------------------------------------------------------------------------------------------


def untrained(folder: Path, seed: int) -> None:
    """A generator as a training leaves it, but for the training."""
    import hashlib

    import torch
    from safetensors.torch import save_file

    from adloom.imagery.conditions import ConditionSpace
    from adloom.imagery.gan import CONFIG, GENERATOR, Generator, Shape

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    shape = Shape(size=64, width=8, latent=8, embedding=8, space=ConditionSpace(category=("home",)))
    save_file(Generator(shape).state_dict(), folder / GENERATOR)
    digest = hashlib.sha256((folder / GENERATOR).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps({"shape": shape.model_dump(mode="json"), "digest": digest}))


def test_ordered_pictures_are_drawn_once_and_by_the_generator_of_the_day(connection: Connection, shop: Shop) -> None:
    drawing = shop.model_copy(update={"imagery": shop.imagery.model_copy(update={"source": "gan"})})
    for number in range(3):
        add(connection, number, ITEMS[number % 2])
    handover.plan_images(connection, drawing, DAY)
    with pytest.raises(AdloomError, match="has no generator of pictures trained by 2024-03-07"):
        generating.generate_images(drawing, DAY)
    untrained(shop.models / "images" / "2024-03-05-a", seed=1)
    untrained(shop.models / "images" / "2024-03-08-b", seed=2)
    assert str(generating.generate_images(drawing, DAY)) == "2 pictures drawn, 0 were there"
    first = {name: content for name, content in files(shop).items() if name.endswith(".png")}
    (handover.folder_of(shop, DAY) / sorted(first)[0]).unlink()
    assert str(generating.generate_images(drawing, DAY)) == "1 pictures drawn, 1 were there"
    assert {name: content for name, content in files(shop).items() if name.endswith(".png")} == first
    # Another generator draws all of them anew.
    untrained(shop.models / "images" / "2024-03-06-c", seed=3)
    assert str(generating.generate_images(drawing, DAY)) == "2 pictures drawn, 0 were there"
    # And what is composed says where its picture is from.
    names = handover.planned(shop, DAY)
    (shard,) = generating.compose(drawing, DAY, names, label)
    assert shard.opened == 2
    assert {one.asset.picture_source for one in made(shop) if one.asset} <= {"gan"}


# --- recording ------------------------------------------------------------------------------------------------------


def test_recording_replaces_the_days_images_and_keeps_other_findings(
    connection: Connection, shop: Shop, planned: list[str]
) -> None:
    from adloom.imagery import recording

    (shop.images / "vase.png").unlink()
    generating.compose(shop, DAY, planned, label)
    block(connection, "f" * 16)
    for _ in range(2):
        told = recording.record_images(connection, DAY, generating.made(shop, DAY, planned))
    assert (told.creatives, told.images, told.missing, told.blocked) == (4, 2, 2, 2)
    assert len(connection.execute(select(ledger.assets)).all()) == 2
    rules = sorted(connection.scalars(select(ledger.reviews.c.rule_id)))
    assert rules == ["image.picture", "image.picture", "law.absolute"]


def test_an_unfinished_shard_is_named(shop: Shop, planned: list[str]) -> None:
    with pytest.raises(AdloomError, match=r"shard-00000\.images\.jsonl is not there: its shard is not finished"):
        list(generating.made(shop, DAY, planned))


COMPOSER = """
    import json, resource, sys
    from datetime import date
    from adloom.imagery import generating, pictures
    from adloom.publishing import labels
    from adloom.shop import load_shop

    opened, decode = 0, pictures.decode

    def counted(*given):
        global opened
        opened += 1
        return decode(*given)

    def label(path, creative_id, source):
        kind = "compositeWithTrainedAlgorithmicMedia"
        return labels.label_file(path, labels.Label("corner-1", creative_id, kind)).json()

    pictures.decode = counted
    shop, day = load_shop(sys.argv[1]), date.fromisoformat(sys.argv[2])
    for name in sys.argv[3:]:
        (shard,) = generating.compose(shop, day, [name], label)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([shard.images, shard.refused, opened, peak]), flush=True)
"""
"""Composes shards and says of each: images, refused ones, pictures decoded so far, peak of memory so far in kB."""


def composed_apart(shop: Shop, names: list[str]) -> list[list[int]]:
    """By a fresh interpreter, so that memory is that of composing alone."""
    command = [sys.executable, "-c", textwrap.dedent(COMPOSER), shop.id, DAY.isoformat(), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_ten_thousand_banners_of_200_items_open_200_pictures(shop: Shop) -> None:
    """No picture is opened twice, memory stays flat, and shards made again have the same bytes.

    Real copies in both languages and all formats. ADLOOM_PROOF_BANNERS makes it smaller.
    """
    banners = int(os.environ.get("ADLOOM_PROOF_BANNERS", "10000"))
    items, each = max(1, banners // 50), banners // 10
    chance = np.random.default_rng(5)
    for number in range(items):
        grain = chance.normal(0, 3, (800, 800, 1)).astype(np.int16)
        image = Image.fromarray((np.full((800, 800, 3), (238, 238, 236), np.int16) + grain).astype(np.uint8))
        ImageDraw.Draw(image).ellipse((170, 150, 630, 650), fill=(number % 200, 90, 160))
        image.save(shop.images / f"{number}.png")
    pairs = [pair for both in zip(starter_pairs("zh"), starter_pairs("en"), strict=False) for pair in both]
    names = [one.name for one in formats()]
    orders: list[Any] = []
    for number in range(banners):
        pair, item = pairs[number * 37 % len(pairs)], number % items
        facts = pair.brief.item.model_copy(update={"item_id": str(item)})
        orders.append(
            handover.ImageOrder(
                creative_id=f"{number:016x}",
                creative_hash="h",
                brief=pair.brief.model_copy(update={"item": facts, "seed": number}),
                copy=pair.copy_,
                formats=(names[number // items % len(names)],),
                source="own_photo",
                image=f"{item}.png",
            )
        )
    orders.sort(key=lambda one: (one.picture_key, one.creative_id))
    folder = handover.folder_of(shop, DAY)
    shards = handover._write_shards(folder / "shards", orders, each)
    handover.write_rows(folder / "drawn.jsonl", [])
    told = composed_apart(shop, shards)
    peaks = [peak for *_, peak in told]
    print(
        f"{banners} banners of {items} items: {told[-1][2]} pictures opened, {each} at a time:",
        end=" ",
    )
    print(f"peaks {[one >> 10 for one in peaks]} MB; refused: {sum(one[1] for one in told)}")
    assert [sum(column) for column in zip(*told, strict=True)][:2] == [banners, 0]
    assert told[-1][2] == items
    # What is kept of fonts and lines is bounded, and not yet full after the first tenth.
    if banners >= 10_000:
        assert peaks[-1] < 1.25 * peaks[0]
        assert peaks[-1] < 1.05 * peaks[len(peaks) // 2]
    again = {shards[1], shards[-1]}
    paths = [
        *(handover.made_path(shop, DAY, name) for name in again),
        *(shop.creatives / one.asset.path for one in generating.made(shop, DAY, again) if one.asset),
    ]
    first = {path: path.read_bytes() for path in paths}
    assert len(first) >= 2 * each
    for path in (*paths, *(generating._manifest(handover.made_path(shop, DAY, name)) for name in again)):
        path.unlink()
    composed_apart(shop, sorted(again))
    assert {path: path.read_bytes() for path in paths} == first
