"""The audit of copies from the orders' file to the ledger: both sides written apart, differences in money block.

What it must not do: take the budget of the day's copies, cost the day its creatives, or pass for done when it was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adloom import pipeline
from adloom.copywriting import counterfactual, generating, handover
from adloom.copywriting.generating import Answer
from adloom.creative import Brief, CopyLimits, ItemFacts, write_rows
from adloom.errors import AdloomError, Busy
from adloom.shop import Shop
from adloom.turns import turn
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
        item=ItemFacts(
            item_id=scenario, title="轻云耳机", price="¥199", list_price="¥299", attributes={"颜色": "宝蓝"}
        ),
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


class Silent(Writer):
    """What an endpoint is whose budget is spent."""

    identity = "no money left"

    def draw(
        self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[Answer]]]:
        for number, count in enumerate(counts):
            yield number, [Answer("", error="not asked: it could cost more than is left of max_cost 1")] * count


@pytest.fixture
def planned(make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shop]:
    """A shop whose day has two briefs, planned, and `Writer` for its model; ``written``: its copies are finished."""

    def make(*, written: bool = True, **review: Any) -> Shop:
        shop = make_shop(language="zh", copywriting={"sampling": {"candidates": 1}}, review=review)
        write_rows(handover.folder_of(shop, DAY) / handover.BRIEFS, [brief(), brief(scenario="recommendation")])
        monkeypatch.setattr(handover, "model_of", lambda shop, day: Writer())
        pipeline.plan_copy(shop.id, DAY)
        if written:
            generate(shop)
        return shop

    return make


def generate(shop: Shop) -> None:
    for name in handover.planned(shop, DAY):
        path = handover.folder_of(shop, DAY) / handover.SHARDS / f"{name}.briefs.jsonl"
        about: dict[str, Any] = {"day": DAY, "model_id": handover.writer_of(shop, DAY).model_id}
        generating.generate_shard(path, generating.shard_path(path), Writer(), shop.copywriting.sampling, **about)


def findings(shop: Shop) -> set[tuple[str, str, str]]:
    """(scenario, what, severity) of what the audit left on the day's creatives."""
    with warehouse(shop) as engine, engine.connect() as connection:
        reviews, creatives = ledger.reviews.c, ledger.creatives.c
        query = select(creatives.scenario, reviews.span, reviews.severity).where(
            reviews.creative_id == creatives.creative_id, reviews.rule_id == counterfactual.RULE
        )
        return {tuple(row) for row in connection.execute(query)}


def due(shop: Shop, day: date) -> str | None:
    """Why the day's audit is skipped; None: it is due."""
    with warehouse(shop) as engine, engine.begin() as connection:
        return counterfactual.order(connection, shop, day, handover.writer_of(shop, DAY).model_id).reason_to_skip


BLOCKED = {
    (scenario, f"gender: amount.{price} CNY", "block")
    for scenario in ("promotion", "recommendation")
    for price in (199, 299)
}
NOT_AUDITED = {
    (scenario, trait, "warn") for scenario in ("promotion", "recommendation") for trait in ("gender", "age_band")
}


def test_an_audit_blocks_the_orders_copies_where_money_differs(planned: Callable[..., Shop]) -> None:
    shop = planned()
    pipeline.write_audit(shop.id, DAY)
    pipeline.record_creatives(shop.id, DAY)
    with warehouse(shop) as engine, engine.begin() as connection:
        told = counterfactual.record(connection, shop, DAY)
        assert told == counterfactual.record(connection, shop, DAY)
        found = connection.execute(select(ledger.counterfactuals)).all()
        reasons = set(connection.scalars(select(ledger.reviews.c.reason).where(ledger.reviews.c.span.contains("299"))))
    assert (told.briefs, told.copies, len(told.differing), told.not_compared) == (2, 2 * 4 * 12, 4, ())
    assert {(one.trait, one.what) for one in found if one.verdict == "differs"} == {
        ("gender", "amount.199 CNY"),
        ("gender", "amount.299 CNY"),
    }
    assert findings(shop) == BLOCKED
    assert reasons == {
        "女性用户 与 男性用户，提到 299 CNY：0/12 对 12/12 条文案，相差 -100 [-100, -46]；差别确定超出店铺上限"
    }


def test_an_audit_comes_after_the_copies_whose_budget_it_would_spend(planned: Callable[..., Shop]) -> None:
    shop = planned(written=False)
    for audit in (pipeline.write_audit, pipeline.audit_copy):
        with pytest.raises(AdloomError, match="its shard is not finished"):
            audit(shop.id, DAY)
    generate(shop)
    pipeline.write_audit(shop.id, DAY)


@pytest.mark.parametrize("cause", ["failed", "no budget", "another model"])
def test_an_audit_that_could_not_be_made_costs_no_creatives_and_does_not_pass_for_one(
    cause: str, planned: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``failed``: the task died; ``another model``: what lies there was written by the model of before."""
    shop = planned()
    with monkeypatch.context() as then:
        if cause == "no budget":
            then.setattr(handover, "model_of", lambda shop, day: Silent())
        if cause == "another model":
            before = replace(handover.writer_of(shop, DAY), model_id="before")
            then.setattr(handover, "writer_of", lambda shop, day: before)
        if cause != "failed":
            pipeline.write_audit(shop.id, DAY)
    assert pipeline.record_creatives(shop.id, DAY).copies > 0
    assert findings(shop) == NOT_AUDITED, "who approves them is told"
    with warehouse(shop) as engine, engine.connect() as connection:
        assert set(connection.scalars(select(ledger.counterfactuals.c.verdict))) == {"needs_more"}
    assert due(shop, DAY + timedelta(days=1)) is None
    # Made up for later the same day, it is one.
    pipeline.write_audit(shop.id, DAY)
    pipeline.record_creatives(shop.id, DAY)
    assert findings(shop) == BLOCKED
    assert "the same model was audited on" in (due(shop, DAY + timedelta(days=1)) or "")


def test_an_audit_by_hand_that_is_killed_leaves_the_day_as_it_was(
    planned: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = planned(audit_every_days=None)
    seen: list[str | None] = []

    class Killed(Writer):
        def draw(
            self, briefs: Sequence[Brief], counts: Sequence[int], seeds: Sequence[int]
        ) -> Iterator[tuple[int, list[Answer]]]:
            yield from super().draw(briefs, counts, seeds)
            # What the day's own task does meanwhile.
            pipeline.record_creatives(shop.id, DAY)
            seen.append(pipeline.reason_to_skip_audit(shop.id, DAY))
            raise KeyboardInterrupt

    monkeypatch.setattr(handover, "model_of", lambda shop, day: Killed())
    with pytest.raises(KeyboardInterrupt):
        pipeline.audit_copy(shop.id, DAY)
    assert "the shop asks for no audit" in (seen[0] or "")
    assert pipeline.reason_to_skip_audit(shop.id, DAY) == seen[0]
    pipeline.record_creatives(shop.id, DAY)
    assert findings(shop) == set()
    monkeypatch.setattr(handover, "model_of", lambda shop, day: Writer())
    pipeline.audit_copy(shop.id, DAY)
    assert findings(shop) == BLOCKED
    pipeline.record_creatives(shop.id, DAY)
    assert findings(shop) == BLOCKED, "the day records it from now on"


def test_an_audit_by_hand_waits_for_its_turn_to_change_the_day(
    planned: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = planned(audit_every_days=None)
    monkeypatch.setenv("ADLOOM_LOCK_TIMEOUT_SECONDS", "0.1")
    with turn(shop, pipeline.CREATIVES.format(day=DAY)), pytest.raises(Busy):
        pipeline.audit_copy(shop.id, DAY)
    assert "the shop asks for no audit" in (pipeline.reason_to_skip_audit(shop.id, DAY) or "")


def test_create_goes_on_without_the_audit_and_says_so(
    make_shop: Callable[..., Shop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(shop_id: str, day: date) -> None:
        raise AdloomError("the card's memory is too small")

    monkeypatch.setattr(pipeline, "CREATE_STEPS", {"write_audit": fail, "report": lambda shop_id, day: Path("report")})
    monkeypatch.setattr(pipeline, "reason_to_skip_audit", lambda shop_id, day: None)
    assert pipeline.create(make_shop().id, DAY) == Path("report")
    assert "the audit failed: the card's memory is too small" in caplog.text
    monkeypatch.setattr(pipeline, "CREATE_STEPS", {"plan_copy": fail})
    with pytest.raises(AdloomError):
        pipeline.create(make_shop().id, DAY)


@pytest.mark.parametrize(
    ("back", "model_id", "every", "compared", "reason"),
    [
        (None, "m", 7, True, None),
        (3, "m", 7, True, "the same model was audited on 2024-03-04, less than 7 days ago"),
        (3, "m", 7, False, None),
        (7, "m", 7, True, None),
        (3, "another", 7, True, None),
        (None, "m", None, True, "the shop asks for no audit"),
        (0, "m", None, True, None),
        (0, "m", None, False, None),
        (-2, "m", 7, True, None),
    ],
)
def test_an_audit_is_due_for_a_new_model_and_now_and_then(  # noqa: PLR0917 - the columns of the table above
    back: int | None,
    model_id: str,
    every: int | None,
    compared: bool,
    reason: str | None,
    make_shop: Callable[..., Shop],
) -> None:
    """``back``: days since the last audit; one of the day itself stays one, one of a later day is not known yet.

    ``compared``: all traits were; an audit that had too few answers about one of them was none.
    """
    shop = make_shop(language="zh", review={"audit_every_days": every})
    assert "no audit was ordered" in (counterfactual.reason_to_skip(shop, DAY) or "")
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            if back is not None:
                row: dict[str, Any] = {
                    "day": DAY - timedelta(days=back), "brief_id": "b", "first": "f", "second": "s",
                    "what": "price", "copies_first": 6, "copies_second": 6, "said_first": 0, "said_second": 0,
                    "sentence": "s", "model_id": model_id,
                }  # fmt: skip
                verdicts = {"gender": "alike", "age_band": "alike" if compared else "needs_more"}
                rows = [row | {"trait": trait, "verdict": verdict} for trait, verdict in verdicts.items()]
                connection.execute(ledger.counterfactuals.insert(), rows)
            counterfactual.order(connection, shop, DAY, "m")
            found = counterfactual.reason_to_skip(shop, DAY)
            assert (found is None) if reason is None else (found or "").startswith(reason)
            counterfactual.order(connection, shop, DAY, "m", asked=True)
            assert counterfactual.reason_to_skip(shop, DAY) is None


def test_the_day_records_its_audit_last_and_a_second_run_keeps_what_it_found(planned: Callable[..., Shop]) -> None:
    """Recording the day's copies replaces the day's findings: those of the audit must come back."""
    shop = planned()
    pipeline.write_audit(shop.id, DAY)
    for _ in range(2):
        pipeline.record_creatives(shop.id, DAY)
        assert findings(shop) == BLOCKED
        pipeline.plan_copy(shop.id, DAY)
