"""The audit of copies from the orders' file to the ledger: both sides written apart, differences in money block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from adloom.copywriting import counterfactual, generating, handover
from adloom.copywriting.generating import Answer
from adloom.creative import Brief, CopyLimits, ItemFacts, write_rows
from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)


def brief(scenario: str = "promotion") -> Brief:
    return Brief(
        scenario=scenario,
        language="zh",
        channel="feed",
        segment_id="s",
        segment_words="近期看过耳机",
        item=ItemFacts(item_id="i", title="轻云蓝牙耳机", price="¥199", list_price="¥299", attributes={"颜色": "宝蓝"}),
        limits=CopyLimits(headline=20, body=80, call_to_action=10),
    )


class Writer:
    """Tells men of another price, and everybody the same tone."""

    identity = "a writer for tests"
    page = 4

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        for number, (order, count) in enumerate(zip(briefs, counts, strict=True)):
            price = "299元" if "男性" in order.segment_words else "199元"
            about = f"轻云耳机，{price}"
            tails = "春夏秋冬晨昏早晚远近高低东西南北天地山海"
            yield number, [
                Answer(f"标题：轻云耳机{tails[n % 20]}\n正文：宝蓝色的{about}，{tails[n % 20]}日好听\n行动：去看看\n完")
                for n in range(count)
            ]  # fmt: skip


def test_an_audit_blocks_the_orders_copies_where_money_differs(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop(language="zh", copywriting={"sampling": {"candidates": 1}})
    orders = [brief(), brief(scenario="recommendation")]
    with pytest.raises(AdloomError, match="write-briefs"):
        counterfactual.write(shop, DAY, writer=Writer())
    write_rows(handover.folder_of(shop, DAY) / handover.BRIEFS, orders)
    counterfactual.write(shop, DAY, copies=6, writer=Writer())
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            row: dict[str, Any] = {
                "creative_id": "k", "creative_hash": "h", "day": DAY, "brief_id": orders[0].brief_id, "variant": 0,
                "scenario": "promotion", "language": "zh", "channel": "feed", "segment_id": "s", "item_id": "i",
                "headline": "a", "body": "b", "candidates": 1, "candidates_parsed": 1, "model_id": "m",
                "prompt_digest": "p", "seed": 0,
            }  # fmt: skip
            connection.execute(ledger.creatives.insert(), row)
            told = counterfactual.record(connection, shop, DAY, copies=6)
            again = counterfactual.record(connection, shop, DAY, copies=6)
            found = connection.execute(select(ledger.counterfactuals)).all()
            reviews = connection.execute(select(ledger.reviews)).all()
    assert told == again
    assert told.briefs == 2
    assert {(one.trait, one.what) for one in found if one.verdict == "differs"} == {("gender", "amounts")}
    assert [(one.creative_id, one.rule_id, one.severity) for one in reviews] == [
        ("k", "fairness.counterfactual", "block")
    ]
    assert "299 CNY" in reviews[0].reason


@pytest.mark.parametrize(
    ("back", "model_id", "every", "reason"),
    [
        (None, "m", 7, None),
        (3, "m", 7, "the same model was audited on 2024-03-04, less than 7 days ago"),
        (7, "m", 7, None),
        (3, "another", 7, None),
        (None, "m", None, "the shop asks for no audit"),
        (0, "m", None, None),
        (-2, "m", 7, None),
    ],
)
def test_an_audit_is_due_for_a_new_model_and_now_and_then(
    back: int | None, model_id: str, every: int | None, reason: str | None, make_shop: Callable[..., Shop]
) -> None:
    """``back``: days since the last audit; one of the day itself stays one, one of a later day is not known yet."""
    shop = make_shop(language="zh", review={"audit_every_days": every})
    assert "no audit was ordered" in (counterfactual.reason_to_skip(shop, DAY) or "")
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            if back is not None:
                row: dict[str, Any] = {
                    "day": DAY - timedelta(days=back), "brief_id": "b", "trait": "gender", "first": "f", "second": "s",
                    "what": "price", "copies_first": 6, "copies_second": 6, "said_first": 0, "said_second": 0,
                    "verdict": "alike", "sentence": "s", "model_id": model_id,
                }  # fmt: skip
                connection.execute(ledger.counterfactuals.insert(), row)
            counterfactual.order(connection, shop, DAY, "m")
            found = counterfactual.reason_to_skip(shop, DAY)
            assert (found is None) if reason is None else (found or "").startswith(reason)
            counterfactual.order(connection, shop, DAY, "m", asked=True)
            assert counterfactual.reason_to_skip(shop, DAY) is None


def test_the_day_records_its_audit_last_and_a_second_run_keeps_what_it_found(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording the day's copies replaces the day's findings: those of the audit must come back."""
    from adloom import pipeline

    shop = make_shop(language="zh", copywriting={"sampling": {"candidates": 1}, "briefs_per_day": 1})
    order = brief()
    folder = handover.folder_of(shop, DAY)
    write_rows(folder / handover.BRIEFS, [order])
    shards = pipeline.plan_copy(shop.id, DAY)
    paths = [folder / handover.SHARDS / f"{name}.briefs.jsonl" for name in shards]
    about: dict[str, Any] = {"day": DAY, "model_id": "tests"}
    for path in paths:
        generating.generate_shard(path, generating.shard_path(path), Writer(), shop.copywriting.sampling, **about)
    with pytest.raises(AdloomError, match="write-audit"):
        pipeline.record_creatives(shop.id, DAY)
    monkeypatch.setattr(handover, "model_of", lambda shop, day: ("tests", Writer()))
    pipeline.write_audit(shop.id, DAY)
    for _ in range(2):
        pipeline.record_creatives(shop.id, DAY)
        with warehouse(shop) as engine, engine.connect() as connection:
            rules = set(connection.scalars(select(ledger.reviews.c.rule_id)))
            models = set(connection.scalars(select(ledger.counterfactuals.c.model_id)))
        assert counterfactual.RULE in rules
        assert models == {"tests"}
        pipeline.plan_copy(shop.id, DAY)
