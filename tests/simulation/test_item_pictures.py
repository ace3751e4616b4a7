"""The sample shop's product pictures: one for every item, the same bytes every time, fit to be set into a banner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adloom.creative import Brief, CopyLimits, ItemFacts
from adloom.errors import AdloomError
from adloom.imagery.pictures import OwnPhotos
from adloom.simulation import pictures
from adloom.simulation.catalogue import catalogue

# A symbol, a recoloured one, several, a shape with a motif, a symbol that only OpenMoji has.
SOME = ("sp012", "sh002", "be011", "bk021", "wt014")


def test_every_item_of_the_catalogue_has_a_picture_that_can_be_drawn() -> None:
    found = pictures.recipes()
    assert set(found) == {item.item_id for item in catalogue().items}
    known = pictures._data()
    for recipe in found.values():
        for text in (recipe.subject, recipe.motif):
            if text and text not in known["shapes"] and text not in known["extras"]:
                for symbol in pictures._split(text):
                    pictures._inked(symbol)


def test_an_item_without_a_picture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {key: value for key, value in pictures._data()["items"].items() if key != "bk021"}
    monkeypatch.setattr(pictures, "_data", lambda: {"items": kept, "colours": {}})
    with pytest.raises(AdloomError, match="item bk021 has no picture"):
        pictures.recipes.__wrapped__()


def test_pictures_are_large_credited_and_the_same_every_time(tmp_path: Path) -> None:
    assert pictures.write_pictures(tmp_path / "one", SOME) == len(SOME)
    pictures._jpeg.cache_clear()
    pictures.write_pictures(tmp_path / "two", SOME)
    for item in SOME:
        name = pictures.file_name(item)
        content = (tmp_path / "one" / name).read_bytes()
        assert content == (tmp_path / "two" / name).read_bytes()
        assert b"OpenMoji" in content
        with Image.open(tmp_path / "one" / name) as image:
            assert min(image.size) >= 800
    assert pictures.write_pictures(tmp_path / "one", SOME) == 0


def test_the_article_stands_free_on_a_plain_backdrop_and_has_its_colour(tmp_path: Path) -> None:
    pictures.write_pictures(tmp_path, SOME)
    source = OwnPhotos(tmp_path, {item: pictures.file_name(item) for item in SOME})
    for item in SOME:
        brief = Brief(
            scenario="recommendation",
            language="zh",
            channel="feed",
            segment_id="all",
            item=ItemFacts(item_id=item, title="x"),
            limits=CopyLimits(headline=9, body=9, call_to_action=9),
        )
        picture = source.picture(brief)
        assert picture.backdrop is not None
        assert picture.subject is not None
        left, top, right, bottom = picture.subject
        assert 0 < left < right < pictures.SIZE
        assert 0 < top < bottom < pictures.SIZE
        assert max(right - left, bottom - top) >= 0.55 * pictures.SIZE
    shoe = source.picture(brief.model_copy(update={"item": ItemFacts(item_id="sh002", title="x")}))
    pixels = np.asarray(shoe.image.crop(shoe.subject)).reshape(-1, 3).astype(int)
    flame_orange = np.abs(pixels - (0xF4, 0x70, 0x3A)).max(axis=1) < 12
    assert flame_orange.mean() > 0.3
