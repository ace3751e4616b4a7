"""What a model may learn from: each way in which a copy may be refused, and a writer that lets nothing else through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Table

from adloom.copywriting import registry
from adloom.copywriting.pairs import (
    BLOCKED,
    ERASED,
    LATER,
    NO_BRIEF,
    REJECTED,
    UNAPPROVED,
    assert_allowed,
    origins,
    training_pairs,
    training_texts,
    write_training,
)
from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, ItemFacts, Pair, channels, read_rows
from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 5)
STARTER = len(starter_pairs("en"))


class Books:
    """A shop's ledger, with one approved copy called ``good`` that is refused for no reason."""

    def __init__(self, shop: Shop, connection: Connection) -> None:
        self.shop, self.connection = shop, connection
        self.write("good")
        self.decide("good")

    def add(self, table: Table, **row: Any) -> None:
        self.connection.execute(table.insert(), [row])

    def write(self, name: str, day: date = DAY, item: str | None = None, **changes: Any) -> None:
        channel = channels("en")["feed"]
        facts = ItemFacts(item_id=item or f"item-{name}", title=f"Kettle {name}")
        brief = Brief(
            scenario="recommendation",
            language="en",
            channel="feed",
            segment_id="s",
            item=facts,
            tone=channel.tone,
            limits=channel.limits,
        )
        common = {"scenario": brief.scenario, "language": "en", "channel": "feed", "segment_id": "s"}
        common |= {"item_id": facts.item_id, "brief_id": brief.brief_id, "day": day}
        if not changes.pop("brief_is_gone", False):
            content = {"position": 0, "chosen_for": "value", "content": brief.json_line()}
            self.add(ledger.briefs, **common, **content)
        row = {
            "creative_id": name,
            "creative_hash": f"hash of {name}",
            "variant": 0,
            "headline": f"Tea with {name}",
            "body": "Boils while you find the cup.",
            "call_to_action": "Put it on",
            "hashtags": json.dumps([]),
            "candidates": 4,
            "candidates_parsed": 4,
            "model_id": "base",
            "prompt_digest": "p",
            "seed": 0,
        }
        self.add(ledger.creatives, **common, **(row | changes))

    def decide(
        self, name: str, decision: str = "approved", on: date = DAY, origin: str = "person", content: str = ""
    ) -> None:
        self.add(
            ledger.approvals,
            creative_id=name,
            creative_hash=content or f"hash of {name}",
            decision=decision,
            origin=origin,
            decided_on=on,
        )

    def review(self, name: str, severity: str) -> None:
        about = {"rule_id": "facts.colour", "rule_version": "1", "part": "body", "span": "x", "reason": "x"}
        self.add(ledger.reviews, creative_id=name, creative_hash=f"hash of {name}", day=DAY, severity=severity, **about)

    def erase(self, kind: str, subject: str) -> None:
        self.add(ledger.erasures, kind=kind, subject=subject, requested_on=DAY, reason="asked for")

    def train(self, model_id: str, day: date, learnt: dict[str, int], base: str = "package:gemma-3-270m") -> None:
        words = dict.fromkeys(("base_digest", "licence", "method", "weights_digest", "path", "data_digest"), "x")
        numbers = {"pairs": 1, "validation_pairs": 1, "configuration": "{}", "metrics": "{}"}
        self.add(ledger.models, model_id=model_id, day=day, kind="copy", base=base, data_as_of=day, **words, **numbers)
        for origin, count in learnt.items():
            self.add(ledger.model_pairs, model_id=model_id, origin=origin, pairs=count)

    def select(self, day: date = DAY) -> Any:
        return training_pairs(self.connection, self.shop, day)

    def learnt(self, day: date = DAY) -> set[str]:
        return {pair.origin for pair in self.select(day).pairs} - {"starter"}


@pytest.fixture
def books(make_shop: Callable[..., Shop]) -> Iterator[Books]:
    shop = make_shop()
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            yield Books(shop, connection)


def test_a_new_shop_learns_from_the_starter_corpus_and_from_what_was_approved(books: Books) -> None:
    selection = books.select()
    assert origins(selection.pairs) == {"good": 1, "starter": STARTER}
    assert selection.new == STARTER + 1
    assert selection.refused == {}
    assert selection.reason_to_skip(50) is None


def decided(books: Books, name: str = "bad", day: date = DAY, item: str | None = None, **decision: Any) -> None:
    books.write(name, day, item)
    books.decide(name, **decision)


def without_its_brief(books: Books) -> None:
    books.write("bad", brief_is_gone=True)
    books.decide("bad")


BAD: dict[str, tuple[str, Callable[[Books], object]]] = {
    "never decided about": (UNAPPROVED, lambda books: books.write("bad")),
    "approved with other content": (UNAPPROVED, lambda books: decided(books, content="hash of an earlier one")),
    "rejected": (REJECTED, lambda books: decided(books, decision="rejected")),
    "rejected after the day": (REJECTED, lambda books: decided(books, decision="rejected", on=DAY + timedelta(30))),
    "rejected by a person in another wording": (
        REJECTED,
        lambda books: (decided(books), books.decide("bad", "rejected", DAY + timedelta(1), content="another wording")),
    ),
    "approved by the shop's policy, read by nobody": (UNAPPROVED, lambda books: decided(books, origin="policy")),
    "blocked": (BLOCKED, lambda books: (decided(books), books.review("bad", "block"))),
    "erased": (ERASED, lambda books: (decided(books), books.erase("creative", "bad"))),
    "of an erased item": (ERASED, lambda books: (decided(books, item="gone"), books.erase("item", "gone"))),
    "approved later": (LATER, lambda books: decided(books, on=DAY + timedelta(1))),
    "written later": (LATER, lambda books: decided(books, day=DAY + timedelta(1))),
    "without its brief": (NO_BRIEF, without_its_brief),
}


@pytest.mark.parametrize("case", BAD)
def test_a_copy_that_must_not_be_learnt_from_is_left_out_and_counted(books: Books, case: str) -> None:
    reason, happen = BAD[case]
    happen(books)
    assert books.learnt() == {"good"}
    assert books.select().refused == {reason: 1}


@pytest.mark.parametrize("case", BAD)
def test_nobody_can_write_such_a_copy_into_a_training_file(books: Books, tmp_path: Path, case: str) -> None:
    good = books.select().pairs
    BAD[case][1](books)
    smuggled = good[-1].model_copy(update={"origin": "bad"})
    with pytest.raises(AdloomError, match=r"training refused: the copy of bad"):
        write_training(books.connection, books.shop, DAY, tmp_path / "training.jsonl", [*good, smuggled])
    assert not (tmp_path / "training.jsonl").exists()


def test_a_changed_copy_is_not_the_one_that_was_approved(books: Books) -> None:
    *starter, good = books.select().pairs
    for pair, reason in ((good, "not the copy that was approved"), (starter[0], "not in the starter corpus")):
        changed = pair.model_copy(update={"copy_": pair.copy_.model_copy(update={"headline": "Best ever"})})
        with pytest.raises(AdloomError, match=reason):
            assert_allowed(books.connection, books.shop, DAY, [changed])


def test_what_is_selected_can_be_written_and_read(books: Books, tmp_path: Path) -> None:
    pairs = books.select().pairs
    path = tmp_path / "training.jsonl"
    assert write_training(books.connection, books.shop, DAY, path, pairs) == STARTER + 1
    assert list(read_rows(path, Pair)) == pairs
    texts = training_texts(pairs)
    assert texts[-1].group == "item-good"
    assert "Kettle good" in texts[-1].prompt
    assert "Tea with good" in texts[-1].completion


def test_a_warning_of_a_review_keeps_no_approved_copy_out(books: Books) -> None:
    decided(books, "warned")
    books.review("warned", "warn")
    assert books.learnt() == {"good", "warned"}


def test_an_erased_item_leaves_the_starter_corpus_too(books: Books) -> None:
    item = starter_pairs("en")[0].brief.item.item_id
    about = sum(pair.brief.item.item_id == item for pair in starter_pairs("en"))
    books.erase("item", item)
    assert books.select().refused == {ERASED: about}
    with pytest.raises(AdloomError, match=r"starter .*erased"):
        assert_allowed(books.connection, books.shop, DAY, starter_pairs("en"))


def test_pairs_are_new_until_a_model_of_an_earlier_day_has_learnt_them(books: Books) -> None:
    books.train("first", DAY, {"starter": STARTER, "good": 1})
    assert books.select(DAY).new == STARTER + 1, "the day run again trains again"
    tomorrow = DAY + timedelta(1)
    assert books.select(tomorrow).new == 0
    assert "fewer than" in str(books.select(tomorrow).reason_to_skip(1))
    books.write("fresh", tomorrow)
    books.decide("fresh", on=tomorrow)
    assert books.select(tomorrow).new == 1
    assert books.select(tomorrow).reason_to_skip(1) is None


def test_another_base_has_learnt_nothing_yet(books: Books) -> None:
    books.train("other", DAY - timedelta(1), {"starter": STARTER}, base="hub:someone/model@abc")
    assert books.select().new == STARTER + 1


def test_an_erasure_of_what_the_live_model_learnt_makes_a_training_due(books: Books) -> None:
    before = DAY - timedelta(2)
    books.train("first", before, {"starter": STARTER, "good": 1})
    registry.promote(books.connection, "first", before, "someone")
    assert not books.select().must_retrain
    books.erase("creative", "good")
    assert books.select().new == 0
    assert books.select().reason_to_skip(50) is None
