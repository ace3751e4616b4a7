"""Candidates that a review keeps from being chosen: thrown away as copy, kept as evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from adloom import pipeline
from adloom.copywriting import generating, recording
from adloom.copywriting.generating import Answer, Generated, Stopped, generate_shard
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, read_rows, write_rows
from adloom.shop import Sampling, Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
CLEAN = "宝蓝色的耳机，戴上出门走一走"
FALSE = {
    "红": "大红色的耳机，戴上出门走一走",
    "丝": "真丝裹着耳机，戴上出门走一走",
    "价": "耳机只要99元，戴上出门走一走",
    "禁": "耳机神器来了，戴上出门走一走",
    "红二": "大红色的耳机，路上安静地听",
    "短": "耳机",
}


def brief(number: int = 0, variants: int = 1) -> Brief:
    return Brief(
        scenario="recommendation",
        language="zh",
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id=f"i{number}", title="轻云耳机", price="¥199", attributes={"颜色": "宝蓝色"}),
        limits=CopyLimits(headline=20, body_min=8, body=60, call_to_action=8),
        forbidden_words=("神器",),
        variants=variants,
        seed=number,
    )


class Writer:
    """Draws the given bodies, each with a likelihood; the brief's number goes into the headline."""

    identity = "a writer for tests"
    page = 2

    def __init__(self, bodies: Sequence[tuple[str, float | None]]) -> None:
        self.bodies = bodies

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        for number, (order, count) in enumerate(zip(briefs, counts, strict=True)):
            drawn = [self.bodies[n % len(self.bodies)] for n in range(count)]
            yield number, [Answer(f"标题：轻云{order.seed}\n正文：{body}\n行动：去看看\n完", p) for body, p in drawn]


def write(tmp_path: Path, bodies: Sequence[tuple[str, float | None]], count: int = 1, variants: int = 1) -> Path:
    briefs, path = tmp_path / "b.briefs.jsonl", tmp_path / "b.copies.jsonl"
    write_rows(briefs, (brief(number, variants) for number in range(count)))
    generate_shard(briefs, path, Writer(bodies), Sampling(candidates=len(bodies)), day=DAY, model_id="m")
    return path


def rows(path: Path) -> list[Generated]:
    return list(read_rows(path, Generated))


def test_the_likeliest_three_different_ones_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    bodies = [(FALSE[name], -1.0 - n) for n, name in enumerate(("禁", "丝", "红二", "红", "价", "短"))]
    row = rows(write(tmp_path, [*bodies, (CLEAN, -9.0)]))[0]
    assert row.copy_ is not None
    assert row.copy_.body == CLEAN
    assert [(one.rule_id, one.fault) for one in row.stopped] == [
        ("brand.exclusion", "forbidden word: 神器"),
        ("facts.material", "unsupported: 真丝"),
        ("facts.colour", "unsupported: 大红色"),
    ]
    assert row.stopped[2].copy_.body == FALSE["红二"], "of two that name the colour, the likelier one"
    # Too short is no finding of a review: it is in no count.
    assert row.stopped_by == {"brand.exclusion": 1, "facts.colour": 2, "facts.material": 1, "facts.price": 1}


def test_without_likelihoods_they_are_kept_as_drawn_and_with_the_first_variant_alone(tmp_path: Path) -> None:
    drawn = [(FALSE["价"], None), (FALSE["禁"], None), (CLEAN, None), ("宝蓝色真好，安静听完一本书再回家", None)]
    found = rows(write(tmp_path, drawn, variants=2))
    assert [one.rule_id for one in found[0].stopped] == ["facts.price", "brand.exclusion"]
    assert (found[1].stopped, found[1].stopped_by) == ((), {})


def test_further_rounds_count_no_candidate_twice(tmp_path: Path) -> None:
    row = rows(write(tmp_path, [(FALSE["红"], -1.0), (FALSE["短"], -1.0)]))[0]
    assert row.copy_ is None
    assert row.candidates == 2 * generating.ROUNDS
    assert row.stopped_by == {"facts.colour": generating.ROUNDS}
    assert len(row.stopped) == 1


def test_a_shard_that_was_cut_off_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [(FALSE["红"], -1.0), (FALSE["禁"], -2.0), (CLEAN, -3.0)]
    (tmp_path / "whole").mkdir()
    whole = write(tmp_path / "whole", bodies, count=5).read_bytes()
    append, pages = generating._Partial.append, iter([False, True])

    def cut_off(self: Any, page: Any) -> None:
        if next(pages):
            raise KeyboardInterrupt
        append(self, page)

    with monkeypatch.context() as patched:
        patched.setattr(generating._Partial, "append", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, bodies, count=5)
    assert write(tmp_path, bodies, count=5).read_bytes() == whole
    assert b"unsupported: " in whole


# --- from shards to rows --------------------------------------------------------------------------------------------


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(language="zh", forbidden_words=["神器"])


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            yield opened


def row(number: int, *stopped: Stopped, day: date = DAY) -> Generated:
    order = brief(number)
    return Generated(
        creative_id=generating.creative_id(day, order, 0),
        brief=order,
        variant=0,
        copy=Copy(headline="轻云", body=(CLEAN, "路上安静，听完一本书再回家")[number % 2], call_to_action="去看看"),
        candidates=6,
        candidates_parsed=6,
        model_id="m",
        prompt_digest="p",
        seed=1,
        stopped=stopped,
        stopped_by={one.rule_id: 2 for one in stopped},
    )


def thrown(body: str, rule_id: str, fault: str) -> Stopped:
    return Stopped(copy=Copy(headline="轻云", body=body, call_to_action="去看看"), rule_id=rule_id, fault=fault)


RED = thrown("大红色的耳机，国家级品质", "facts.colour", "unsupported: 大红色")


def _all(connection: Connection, table: Any) -> list[Any]:
    return list(connection.execute(select(table).order_by(*table.c)))


def test_every_room_of_the_review_reads_what_was_stopped(shop: Shop, connection: Connection) -> None:
    told = recording.record_creatives(connection, DAY, [row(1, RED), row(2)], shop)
    assert "2 of 12 candidates stopped by a review, 1 of them kept" in str(told)
    assert (told.findings, told.blocked) == (0, 0), "a thrown-away text blocks no creative"
    assert not _all(connection, ledger.reviews)
    found = _all(connection, ledger.stopped_copies)
    assert {(one.rule_id, one.span) for one in found} >= {("facts.colour", "大红色"), ("law.absolute", "国家级")}
    assert {(one.stopped_by, one.item_id, one.body, one.model_id) for one in found} == {
        ("facts.colour", "i1", RED.copy_.body, "m")
    }
    assert all(one.rule_version and one.reason and one.severity == "block" for one in found)
    counts = _all(connection, ledger.stopped_counts)
    assert [(one.brief_id, one.rule_id, one.candidates) for one in counts] == [(brief(1).brief_id, "facts.colour", 2)]


def test_recording_again_replaces_the_day_alone(shop: Shop, connection: Connection) -> None:
    tables = ledger.stopped_copies, ledger.stopped_counts
    before = DAY - timedelta(days=1)
    recording.record_creatives(connection, before, [row(1, RED, day=before)], shop)
    recording.record_creatives(connection, DAY, [row(1, RED)], shop)
    first = [_all(connection, table) for table in tables]
    recording.record_creatives(connection, DAY, [row(1, RED)], shop)
    assert [_all(connection, table) for table in tables] == first
    recording.record_creatives(connection, DAY, [row(1)], shop)
    assert [{one.day for one in _all(connection, table)} for table in tables] == [{before}] * 2


def test_what_a_changed_rule_finds_no_more_keeps_the_reason_it_was_stopped_for(
    shop: Shop, connection: Connection
) -> None:
    recording.record_creatives(connection, DAY, [row(1, thrown(CLEAN, "facts.gone", "unsupported: 宝蓝色"))], shop)
    found = [one for one in _all(connection, ledger.stopped_copies) if one.severity == "block"]
    assert [(one.rule_id, one.reason, one.rule_version) for one in found] == [
        ("facts.gone", "unsupported: 宝蓝色", "before")
    ]


def test_the_terminal_shows_what_was_stopped_with_its_total(shop: Shop) -> None:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            recording.record_creatives(connection, DAY, [row(1, RED), row(2)], shop)
    told = pipeline.blocked_table(shop.id, DAY)
    assert "2 × candidate" in told
    assert "大红色" in told
    assert "candidates that broke a rule and were not chosen: 2 of 12" in told
    assert "creatives blocked by a review: 0" in told
    nothing = pipeline.blocked_table(shop.id, DAY + timedelta(days=1))
    assert nothing.splitlines() == [
        "creatives blocked by a review: 0",
        "candidates that broke a rule and were not chosen: 0 of 0",
    ]
