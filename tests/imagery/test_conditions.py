"""What a generator learns from and what it is asked for are said in the same words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import Connection, text

from adloom.creative import ALL, NOT_PERSONALISED, Brief, Copy, CopyLimits, ItemFacts
from adloom.imagery import gan, handover, selection, training
from adloom.imagery.catalogue import CatalogueItem, condition_of
from adloom.imagery.conditions import FIELDS, Condition, ConditionSpace
from adloom.imagery.training import GanSettings, PictureSet, train
from adloom.shop import Shop
from adloom.simulation import sample_shop
from adloom.simulation.catalogue import catalogue
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2025, 10, 1)
COPY = Copy(headline="早", body="一杯茶。", call_to_action="去看看")
PORTRAITS = {"tea": ("茶咖", "服饰/外套"), "coats": ("服饰",), "pets": ("宠物",)}


@pytest.fixture
def warehoused(make_shop: Callable[..., Shop]) -> Iterator[tuple[Connection, Shop]]:
    """The sample shop's catalogue and portraits, as a day's tasks find them."""
    shop = make_shop(language="zh")
    items = sample_shop._item_rows(catalogue(), 1, DAY)
    # One that says whom it is made for, and one for children.
    items[0]["attributes"] = json.dumps({"性别": "女", "适用年龄": "25-34", "风格": "极简"}, ensure_ascii=False)
    items[1]["attributes"] = json.dumps({"适用年龄": "6-12"}, ensure_ascii=False)
    empty = {"recent_items": "[]", "price_level": "", "life_cycle": "", "engagement": "{}", "words_zh": "x"}
    portraits = [
        empty
        | {"day": DAY, "segment_id": name, "users": 60, "words_en": "x"}
        | {"interests": json.dumps([{"category": one, "weight": 0.5} for one in interests])}
        for name, interests in {**PORTRAITS, ALL: ("茶咖",), NOT_PERSONALISED: ()}.items()
    ]
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            connection.execute(ledger.portraits.insert(), portraits)
            connection.execute(text("create schema marts"))
            connection.execute(
                text(
                    "create table marts.dim_items (item_id varchar, category varchar, attributes json, image varchar, "
                    "known_date date)"
                )
            )
            rows = [
                {name: one[name] for name in ("item_id", "category", "attributes", "image")} | {"known_date": DAY}
                for one in items
            ]
            insert = text("insert into marts.dim_items values (:item_id, :category, :attributes, :image, :known_date)")
            connection.execute(insert, rows)
            yield connection, shop


def order(item: str, segment: str) -> handover.ImageOrder:
    brief = Brief(
        scenario="recommendation",
        language="zh",
        channel="feed",
        segment_id=segment,
        segment_words="喜欢茶，看重性价比",
        item=ItemFacts(item_id=item, title=item),
        limits=CopyLimits(headline=20, body=90, call_to_action=8),
    )
    return handover.ImageOrder(
        creative_id="c", creative_hash="h", brief=brief, copy=COPY, formats=("feed_1080x1080",), source="gan"
    )


def test_what_is_asked_for_a_segment_of_the_sample_shop_was_taught(warehoused: tuple[Connection, Shop]) -> None:
    connection, shop = warehoused
    learnt = selection.select_images(connection, shop, DAY).images
    space = ConditionSpace.of([one.condition for one in learnt])
    items = sorted({one.name.split()[1].rstrip(":") for one in learnt})
    assert len(items) > 20
    orders = [order(item, segment) for item in items for segment in (*PORTRAITS, ALL, NOT_PERSONALISED)]
    asked = [one.condition for one in handover._draw_orders(connection, DAY, orders)]
    assert len(asked) == len(orders)
    for one in asked:
        for field in FIELDS:
            word = getattr(one, field)
            assert word in getattr(space, field) or (not word and field != "category")
        assert set(one.interests) <= set(space.interests)
    assert {one.interests for one in asked} == {*PORTRAITS.values(), ()}
    # What is said of an item is asked for as it was learnt, whomever it is for.
    said = {(one.category, one.style, one.age_band, one.gender) for one in asked}
    assert said == {(one.category, one.style, one.age_band, one.gender) for one in (row.condition for row in learnt)}
    assert space.style
    assert "" in {one.style for one in asked}


def test_a_condition_says_for_whom_an_item_is_made_but_never_a_minor() -> None:
    attributes = {"性别": "女", "适用年龄": "25-34", "风格": " 极简 "}
    made_for = CatalogueItem("a", "服饰", "a.png", attributes)
    found = condition_of(made_for, "tea", ["茶咖"])
    assert (found.style, found.age_band, found.gender, found.interests) == ("极简", "25-34", "女", ("茶咖",))
    for segment in (ALL, NOT_PERSONALISED):
        assert condition_of(made_for, segment, ["茶咖"]).interests == ()
    for band in ("6-12", "儿童", "13-17"):
        assert condition_of(CatalogueItem("b", "玩具", "", {"适用年龄": band}), "tea", ()).age_band == ""


def test_a_narrower_interest_counts_as_the_known_one_around_it() -> None:
    space = ConditionSpace(category=("茶咖",), interests=("服饰", "茶咖/绿茶"))
    assert space.numbers(Condition(category="茶咖", interests=("服饰/外套", "茶咖/红茶")))[1] == [1.0, 0.0]


def test_a_word_of_a_handful_of_pictures_is_unknown(tmp_path: Path) -> None:
    from PIL import Image

    from adloom.imagery.conditions import TrainingImage

    for one in range(64):
        Image.new("RGB", (40, 40), (one, 90, 90)).save(tmp_path / f"{one}.png")
    images = [
        TrainingImage(
            path=f"{one}.png",
            condition=Condition(category="coats", style="striped" if one < 7 else "plain", interests=(interest,)),
        )
        for one in range(64)
        for interest in ("a", "b")
    ]
    found = training.read_pictures(images, tmp_path, 28, tmp_path / "pictures.npy")
    assert {condition.style for _, condition in found.rows} == {"", "plain"}


def test_every_field_and_the_whole_portrait_are_left_unknown_now_and_then(tmp_path: Path) -> None:
    """Else a segment of which nothing is known would be something the generator never saw."""
    known = Condition(category="c", style="s", age_band="18-24", gender="g", interests=("a", "b"))
    data = PictureSet(np.zeros((64, 1, 28, 28), np.uint8), [(one, known) for one in range(64)])
    space = ConditionSpace.of([known])
    settings = GanSettings(size=28, width=8, batch_size=64, report_every=1)
    shape = gan.Shape(size=28, channels=1, width=8, space=space)
    run = training._Run(data, shape, settings, tmp_path, torch.device("cpu"), "id", print)
    seen = []
    for step in range(40):
        run.step = step
        numbers, interests = run._batch().of_fake
        seen.append(torch.cat((numbers > 0, interests.sum(1, keepdim=True) > 0), 1))
    shares = torch.cat(seen).float().mean(0).tolist()
    assert shares[0] == 1
    assert shares[1] == pytest.approx(0.9, abs=0.03)
    assert shares[2:] == pytest.approx([0.81] * 3, abs=0.03)
    # Nobody in particular: as often as a single field, not as seldom as three at once.
    assert (~torch.cat(seen)[:, 2:]).all(1).float().mean().item() == pytest.approx(0.1, abs=0.03)


def test_another_portrait_paints_another_picture_with_the_same_seed(tmp_path: Path) -> None:
    """One category; who likes gardens is shown it bright, who likes books dark."""
    chance = np.random.default_rng(1)
    pictures, rows = np.empty((80, 1, 28, 28), np.uint8), []
    for one in range(80):
        is_bright = one % 2 == 0
        pictures[one] = chance.integers(200, 256) if is_bright else chance.integers(0, 56)
        rows.append((one, Condition(category="lamps", interests=("Garden" if is_bright else "Books",))))
    settings = GanSettings(size=28, width=8, latent=8, batch_size=8, max_steps=150, report_every=50, augment=())
    painter = gan.Painter(train(PictureSet(pictures, rows), settings, tmp_path, device="cpu").path, "cpu")

    def painted(*interests: str) -> torch.Tensor:
        return painter.paint([Condition(category="lamps", interests=interests)] * 8, range(8))

    garden, books, nobody = painted("Garden"), painted("Books"), painted()
    assert torch.equal(garden, painted("Garden"))
    assert not torch.equal(garden, nobody)
    assert garden.float().mean() > books.float().mean() + 40
