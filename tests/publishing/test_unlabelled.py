"""Exports without the visible label: written down first, whoever asks; the label in the file stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sqlalchemy import select
from typer.testing import CliRunner, Result

from adloom.cli import app
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, write_rows
from adloom.imagery import handover
from adloom.imagery.handover import ImageOrder
from adloom.publishing import labels, unlabelled
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 5)
ID = "c0ffee0123456789"
COPY = Copy(headline="Slow mornings, warm hands", body="Thick walls keep the heat.", call_to_action="See the mug")


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """A shop with one creative whose banner was made."""
    made = make_shop(ai_label_producer_id="P-1", channels=["feed"])
    brief = Brief(
        scenario="promotion",
        language="en",
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id="mug", title="Stoneware mug", brand="Harrow", price="$14.90"),
        limits=CopyLimits(headline=60, body=240, call_to_action=30),
    )
    made.images.mkdir(parents=True, exist_ok=True)
    photo = Image.new("RGB", (800, 800), "white")
    ImageDraw.Draw(photo).rounded_rectangle((200, 200, 600, 640), 60, fill=(190, 60, 40))
    photo.save(made.images / "mug.png")
    folder = handover.folder_of(made, DAY)
    (folder / handover.SHARDS).mkdir(parents=True)
    (folder / f"{handover.DRAWN}.jsonl").touch()
    order = ImageOrder(
        **{"creative_id": ID, "creative_hash": COPY.digest, "brief": brief, "copy": COPY, "source": "own_photo"},
        formats=("feed_1080x1080",),
        image="mug.png",
    )
    write_rows(handover.orders_path(made, DAY, "shard-0000"), [order])
    creative = {
        **{"creative_id": ID, "creative_hash": COPY.digest, "day": DAY, "brief_id": brief.brief_id, "variant": 0},
        **{"scenario": "promotion", "language": "en", "channel": "feed", "segment_id": "all", "item_id": "mug"},
        **{"headline": COPY.headline, "body": COPY.body, "call_to_action": COPY.call_to_action, "hashtags": "[]"},
        **{"candidates": 1, "candidates_parsed": 1, "model_id": "m", "prompt_digest": "p", "seed": 0},
    }
    asset = {
        **{"creative_id": ID, "format": "feed_1080x1080", "day": DAY, "kind": "image", "path": "x", "digest": "x"},
        **{"width": 1080, "height": 1080, "bytes": 1, "template": "card", "picture_source": "own_photo"},
        **{"picture_digest": "p", "checks": "{}", "label": "{}"},
    }
    with warehouse(made) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            connection.execute(ledger.creatives.insert(), [creative])
            connection.execute(ledger.assets.insert(), [asset])
    return made


def _export(shop: Shop, to: Path, *more: str, by: str = "Li Na, agency", reason: str = "print proof") -> Result:
    options = ["--shop", shop.id, "--day", "2024-03-09", "--to", str(to), "--by", by, "--reason", reason]
    return CliRunner().invoke(app, ["export-unlabelled", ID, *options, *more])


def _log(shop: Shop) -> list[dict[str, object]]:
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        return [dict(row._mapping) for row in connection.execute(select(ledger.label_free_exports))]


def test_who_why_and_when_are_written_down_and_kept(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "copy.txt"
    told = _export(shop, target)
    assert told.exit_code == 0
    assert target.read_text("utf-8") == f"{COPY.text}\n"
    (row,) = _log(shop)
    assert (row["exported_by"], row["reason"], row["day"]) == ("Li Na, agency", "print proof", date(2024, 3, 9))
    assert row["digest"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert row["exported_at"] is not None
    kept = row["keep_until"]
    assert isinstance(kept, date)
    assert (kept - date(2024, 3, 9)).days >= 184


def test_a_banner_loses_the_visible_label_and_keeps_the_one_in_the_file(shop: Shop, tmp_path: Path) -> None:
    target = tmp_path / "banner.jpg"
    told = _export(shop, target, "--format", "feed_1080x1080")
    assert told.exit_code == 0, told.output
    assert labels.verify(target, labels.label_of(shop, ID, "own_photo")).is_intact
    from adloom.imagery import composing, formats
    from adloom.imagery.pictures import OwnPhotos

    order = next(iter(handover.orders(shop, DAY, "shard-0000")))
    picture = OwnPhotos(shop.images, {"mug": "mug.png"}).picture(order.brief)
    size = formats.image_format("feed_1080x1080")
    with_label = composing.compose(COPY, order.brief, picture, size, "card", label="AI-generated")
    without = composing.compose(COPY, order.brief, picture, size, "card", label=None)
    assert with_label.of("label")
    assert not without.of("label")
    with Image.open(target) as image:
        drawn = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(drawn - np.asarray(without.image).astype(int)).mean() < 2


@pytest.mark.parametrize(("by", "reason"), [("  ", "print proof"), ("Li Na", " ")])
def test_an_export_that_does_not_say_who_or_why_is_refused(shop: Shop, tmp_path: Path, by: str, reason: str) -> None:
    target = tmp_path / "copy.txt"
    assert _export(shop, target, by=by, reason=reason).exit_code == 2
    assert not target.exists()
    assert not _log(shop)


def test_nothing_is_handed_out_without_its_line_in_the_log(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> str:
        raise OSError("the warehouse is gone")

    monkeypatch.setattr(unlabelled, "record", fails)
    target = tmp_path / "copy.txt"
    assert _export(shop, target).exit_code != 0
    assert not target.exists()


def test_what_is_not_there_is_wrong_use(shop: Shop, tmp_path: Path) -> None:
    told = _export(shop, tmp_path / "x.jpg", "--format", "link_1200x628")
    assert told.exit_code == 2
    assert not _log(shop)
    (tmp_path / "there.txt").write_text("mine")
    assert _export(shop, tmp_path / "there.txt").exit_code == 2
    assert (tmp_path / "there.txt").read_text() == "mine"


def test_the_dossier_tells_of_it(shop: Shop, tmp_path: Path) -> None:
    _export(shop, tmp_path / "copy.txt")
    told = CliRunner().invoke(app, ["dossier", ID, "--shop", shop.id, "--day", "2024-03-09"])
    assert told.exit_code == 0, told.output
    content = json.loads((shop.published / "dossiers" / f"{ID}.json").read_text("utf-8"))
    assert [one["exported_by"] for one in content["label_free_exports"]] == ["Li Na, agency"]
    assert "exported_at" not in content["label_free_exports"][0]
