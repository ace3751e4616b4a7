"""The training pictures: chosen by portraits, never by those of minors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date

import pytest
from sqlalchemy import insert, text

from adloom.audience.portraits import ALL, NOT_PERSONALISED, Portrait
from adloom.errors import AdloomError
from adloom.imagery.selection import CatalogueItem, choose, order_training, ordered_training
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse


def portrait(segment_id: str, *interests: str, is_personalised: bool = True, recent: tuple[str, ...] = ()) -> Portrait:
    return Portrait(
        segment_id=segment_id,
        users=60,
        is_personalised=is_personalised,
        interests=tuple((one, 0.5) for one in interests),
        recent_items=recent,
        price_level="",
        life_cycle="",
        words={},
    )


def item(item_id: str, category: str, **attributes: str) -> CatalogueItem:
    return CatalogueItem(item_id, category, f"{item_id}.png", attributes)


COAT, BAG = item("coat", "Clothing/Coats", style="plain", gender="women"), item("bag", "Bags")


def test_portraits_choose_by_interest_and_by_what_was_looked_at() -> None:
    found = choose(
        [COAT, BAG, item("scarf", "Clothing/Coats and scarves"), CatalogueItem("x", "Clothing/Coats", " ", {})],
        [portrait("coats", "Clothing/Coats"), portrait("bags", "Shoes", recent=("bag",))],
        unknown_age_is_minor=False,
    )
    chosen = {(one.path, one.condition.interests) for one in found.images}
    assert chosen == {("coat.png", ("Clothing/Coats",)), ("bag.png", ("Shoes",))}
    assert found.left_out == {"chosen by no portrait": 1, "without a picture": 1}
    condition = next(one.condition for one in found.images if one.path == "coat.png")
    assert (condition.category, condition.style, condition.gender) == ("Clothing/Coats", "plain", "women")


def test_who_is_not_personalised_chooses_nothing() -> None:
    minors = [portrait(NOT_PERSONALISED, "Bags", is_personalised=False), portrait(ALL, "Bags")]
    assert choose([BAG], minors, unknown_age_is_minor=False).images == []
    # one that says it is personalised is not believed under that name
    assert choose([BAG], [portrait(NOT_PERSONALISED, "Bags")], unknown_age_is_minor=False).images == []


def test_items_made_for_minors_are_left_out_and_unclear_ages_where_the_shop_says_so() -> None:
    items = [item("teen", "Bags", age_band="13-17"), item("unclear", "Bags", age_band="all"), item("adult", "Bags")]
    by = [portrait("bags", "Bags")]
    lenient, strict = (choose(items, by, unknown_age_is_minor=one) for one in (False, True))
    assert {one.path for one in lenient.images} == {"unclear.png", "adult.png"}
    assert {one.path for one in strict.images} == {"adult.png"}
    assert strict.left_out == {"made for minors": 2}


def test_the_newest_facts_known_by_the_day_are_ordered_as_files(make_shop: Callable[..., Shop]) -> None:
    shop, day = make_shop(), date(2024, 3, 2)
    row = {"day": day, "users": 60, "recent_items": "[]", "price_level": "", "life_cycle": "", "engagement": "{}"}
    row |= {"words_zh": "", "words_en": "", "interests": json.dumps([{"category": "Bags", "weight": 0.5}])}
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            with pytest.raises(AdloomError, match="adloom portraits"):
                order_training(connection, shop, day)
            connection.execute(insert(ledger.portraits), [row | {"segment_id": "bags"}])
            connection.execute(text("create schema if not exists marts"))
            connection.execute(
                text(
                    """
                    create table marts.dim_items as
                    select * from (values
                        ('a', 'Bags', '{"style": "plain"}', 'old.png', date '2024-03-01'),
                        ('a', 'Bags', '{"style": "plain"}', 'new.png', date '2024-03-02'),
                        ('a', 'Bags', '{"style": "plain"}', 'later.png', date '2024-03-03'),
                        ('b', 'Bags', 'no json', null, date '2024-03-01')
                    ) as items (item_id, category, attributes, image, known_date)
                    """
                )
            )
            found = order_training(connection, shop, day)
    assert found.left_out == {"without a picture": 1}
    (image,) = ordered_training(shop, day)
    assert (image.path, image.condition.style, image.condition.interests) == ("new.png", "plain", ("Bags",))
