"""From shards to rows: what was written and refused, what a review found, and nothing of other days touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from adloom.copywriting import handover, recording
from adloom.copywriting.generating import Generated, creative_id
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts
from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
ITEM = ItemFacts(item_id="dress", title="红色连衣裙", attributes={"材质": "棉"})
TRUE = Copy(headline="红色连衣裙", body="红色的裙子配棉的质地，春天就穿它", call_to_action="看看")
FALSE = Copy(headline="蓝色连衣裙", body="蓝色的裙子配真丝，蓝色真好看", call_to_action="看看")


def row(number: int, copy: Copy | None, day: date = DAY) -> Generated:
    limits = CopyLimits(headline=20, body=60, call_to_action=8)
    brief = Brief(
        scenario="recommendation",
        language="zh",
        channel="feed",
        segment_id="all",
        item=ITEM,
        limits=limits,
        seed=number,
    )
    return Generated(
        creative_id=creative_id(day, brief, 0),
        brief=brief,
        variant=0,
        copy=copy,
        refused_reason=None if copy else "none of 4 candidates could be used",
        candidates=4,
        candidates_parsed=2,
        scores={"coverage": 1.0},
        model_id="base",
        prompt_digest="p",
        seed=number,
    )


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(language="zh")


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            yield opened


def _all(connection: Connection, table: Any) -> list[Any]:
    return list(connection.execute(select(table).order_by(*table.c)))


def test_a_claim_without_a_fact_is_recorded_as_a_blocking_finding(shop: Shop, connection: Connection) -> None:
    rows = [row(1, TRUE), row(2, FALSE), row(3, None)]
    told = recording.record_creatives(connection, DAY, rows, shop)
    assert (told.briefs, told.copies, told.refused, told.blocked) == (3, 2, 1, 1)
    by_id = {one.creative_id: one for one in _all(connection, ledger.creatives)}
    assert by_id[rows[2].creative_id].headline is None
    assert "none of 4" in by_id[rows[2].creative_id].refused_reason
    reviews = _all(connection, ledger.reviews)
    assert {one.creative_id for one in reviews} == {rows[1].creative_id}
    assert {one.creative_hash for one in reviews} == {by_id[rows[1].creative_id].creative_hash}
    found = [(one.rule_id, one.part, one.span) for one in reviews if one.severity == "block"]
    assert ("facts.colour", "headline", "蓝色") in found
    assert ("facts.material", "body", "真丝") in found
    assert len(found) == len(set(found)), "the same words twice in a part are one finding"


def test_every_room_of_the_review_is_asked_and_all_its_verdicts_are_kept(
    make_shop: Callable[..., Shop], connection: Connection
) -> None:
    shop = make_shop(language="zh", review={"exclusions": ["绝绝子"]})
    body = "最佳搭配红色连衣裙，绝绝子，原价399，给你最佳的棉"
    bad = Copy(headline="红色连衣裙", body=body, call_to_action="加微信 abc12345")
    recording.record_creatives(connection, DAY, [row(1, bad)], shop)
    reviews = _all(connection, ledger.reviews)
    told = {(one.rule_id, one.span): one.severity for one in reviews}
    assert told["brand.exclusion", "绝绝子"] == "block"
    assert told["law.reference_price", "原价399"] == "block", "nobody knows a price of this item"
    assert told["safety.contact", "微信 abc12345"] == "block"
    assert told["law.absolute", "最佳"] == "block", "exempted where it stands first, not where it stands again"
    assert all(one.rule_version and one.reason for one in reviews)


def test_recording_again_replaces_the_day_and_leaves_other_days_alone(shop: Shop, connection: Connection) -> None:
    before = DAY - timedelta(days=1)
    recording.record_creatives(connection, before, [row(1, FALSE, before)], shop)
    recording.record_creatives(connection, DAY, [row(1, FALSE), row(2, TRUE)], shop)
    first = _all(connection, ledger.creatives), _all(connection, ledger.reviews)
    recording.record_creatives(connection, DAY, [row(1, FALSE), row(2, TRUE)], shop)
    assert (_all(connection, ledger.creatives), _all(connection, ledger.reviews)) == first
    # Mended: the old finding must not hang on the new text.
    recording.record_creatives(connection, DAY, [row(1, TRUE)], shop)
    assert {one.day for one in _all(connection, ledger.reviews)} == {before}
    assert [one.day for one in _all(connection, ledger.creatives)].count(DAY) == 1


def test_a_shard_that_is_not_finished_is_named(shop: Shop) -> None:
    with pytest.raises(AdloomError, match=r"shard-00000\.copies\.jsonl is not there"):
        list(handover.generated(shop, DAY, ["shard-00000"]))


def test_a_model_trained_from_another_base_does_not_write(
    shop: Shop, make_shop: Callable[..., Shop], connection: Connection
) -> None:
    values = {
        "model_id": "tuned",
        "day": DAY,
        "kind": "copy",
        "base": "package:gemma-3-270m",
        "base_digest": "b",
        "licence": "l",
        "method": "lora",
        "weights_digest": "w",
        "path": "run/weights",
        "data_as_of": DAY,
        "data_digest": "d",
        "pairs": 9,
        "validation_pairs": 3,
        "configuration": "{}",
        "metrics": "{}",
        "promoted_on": DAY,
        "promoted_by": "adloom",
    }
    connection.execute(ledger.models.insert(), [values])
    assert handover.choose_writer(connection, shop, DAY).adapter == "run/weights"
    before = handover.choose_writer(connection, shop, DAY - timedelta(days=1))
    assert (before.base, before.adapter) == ("package:gemma-3-270m", None)
    other = make_shop(language="zh", copywriting={"model": "path:/another"})
    assert handover.choose_writer(connection, other, DAY) == handover.Writer("path:/another", "path:/another", None)


def test_a_shop_that_writes_by_endpoint_is_not_trained(make_shop: Callable[..., Shop], connection: Connection) -> None:
    endpoint = {"url": "http://127.0.0.1:1/v1", "model": "some-model"}
    other = make_shop(language="zh", copywriting={"model": "endpoint", "endpoint": endpoint})
    assert "endpoint" in str(handover.order_training(connection, other, DAY).reason_to_skip)
    assert handover.choose_writer(connection, other, DAY).model_id == "endpoint:some-model"
    assert handover.train(other, DAY) is None
