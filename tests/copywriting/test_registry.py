"""The models table: candidates, promotion by loss, roll-back, and which model was live on a day."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from typer.testing import CliRunner

from adloom.cli import app
from adloom.copywriting import registry
from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 5)


def after(days: int) -> date:
    return DAY + timedelta(days)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop()


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            yield connection


def result(shop: Shop, model_id: str, tuned: float = 3.0, live: float | None = None, day: date = DAY) -> Any:
    from adloom.copywriting.training import TrainingResult

    return TrainingResult(
        model_id=model_id,
        base="package:gemma-3-270m",
        base_digest="b",
        licence="Gemma Terms of Use",
        method="lora",
        weights_digest=f"weights of {model_id}",
        path=shop.models / model_id / "weights",
        data_as_of=day,
        data_digest="d",
        pairs=300,
        validation_pairs=32,
        left_out={},
        configuration={"lora_rank": 16},
        metrics={"loss_base": 4.0, "loss_live": live, "loss_tuned": tuned, "steps": 20},
    )


@pytest.fixture
def record(connection: Connection, shop: Shop) -> Callable[..., None]:
    def recorded(model_id: str, day: date = DAY, learnt: dict[str, int] | None = None, **losses: float | None) -> None:
        trained = result(shop, model_id, day=day, **losses)  # type: ignore[arg-type]
        registry.record(connection, day, trained, learnt or {"starter": 300}, shop.models)

    return recorded


def live(connection: Connection, day: date) -> str | None:
    row = registry.live_model(connection, day)
    return None if row is None else row.model_id


def test_a_recorded_model_is_a_candidate_with_what_it_learnt_from(connection: Connection, record: Any) -> None:
    record("a", learnt={"starter": 300, "c1": 1})
    assert live(connection, DAY) is None
    (row,) = registry.all_models(connection)
    assert row.path == "a/weights"
    assert registry.learnt_from(connection, [row]) == {"starter": 300, "c1": 1}


def test_recorded_again_it_keeps_what_was_decided(connection: Connection, record: Any) -> None:
    record("a")
    registry.promote(connection, "a", DAY, "Wang")
    before = registry.all_models(connection)
    record("a")
    assert registry.all_models(connection) == before


def test_weights_outside_the_shops_folder_are_refused(connection: Connection, shop: Shop, tmp_path: Path) -> None:
    elsewhere = replace(result(shop, "a"), path=tmp_path)
    with pytest.raises(AdloomError, match="is not inside"):
        registry.record(connection, DAY, elsewhere, {}, shop.models)


@pytest.mark.parametrize("order", list(permutations(("a", "b", "c"))))
def test_the_live_model_of_a_day_does_not_depend_on_the_order_of_runs(
    connection: Connection, record: Any, order: tuple[str, ...]
) -> None:
    days = {"a": DAY, "b": after(3), "c": after(6)}
    for model in order:
        record(model, days[model])
        registry.promote(connection, model, days[model], registry.BY_LOSS)
    assert [live(connection, after(day)) for day in (-1, 0, 2, 3, 5, 6, 99)] == [None, "a", "a", "b", "b", "c", "c"]


def test_a_candidate_is_promoted_only_if_it_beats_base_and_live_model(connection: Connection, record: Any) -> None:
    record("bad", tuned=4.0)
    assert "no better than its base" in registry.promote_if_better(connection, "bad", DAY)
    assert live(connection, DAY) is None
    record("first", tuned=3.0)
    said = registry.promote_if_better(connection, "first", DAY)
    assert said == f"model first is live from {DAY} (validation loss 3.000, base 4.000, on 32 pairs)"
    record("same", after(1), tuned=3.0, live=3.0)
    assert "no better than the live first" in registry.promote_if_better(connection, "same", after(1))
    record("blind", after(1), tuned=2.0)
    assert "was not compared" in registry.promote_if_better(connection, "blind", after(1))
    record("better", after(1), tuned=2.9, live=3.0)
    registry.promote_if_better(connection, "better", after(1))
    assert live(connection, after(1)) == "better"
    assert live(connection, DAY) == "first"


def test_a_training_that_does_not_better_the_starter_voice_is_not_promoted(connection: Connection, shop: Shop) -> None:
    """Better than the bare base is not enough: the voice is what would write otherwise."""
    for model_id, tuned in (("worse", 3.1), ("better", 2.9)):
        trained = result(shop, model_id, tuned=tuned)
        metrics = {**trained.metrics, "loss_starter": 3.0}
        registry.record(connection, DAY, replace(trained, metrics=metrics), {"starter": 300}, shop.models)
    assert "no better than the starter voice" in registry.promote_if_better(connection, "worse", DAY)
    assert "starter voice 3.000" in registry.promote_if_better(connection, "better", DAY)
    assert live(connection, DAY) == "better"


def test_a_live_model_of_another_base_is_no_bar(connection: Connection, shop: Shop, record: Any) -> None:
    record("old", tuned=2.0)
    registry.promote(connection, "old", DAY, registry.BY_LOSS)
    other = replace(result(shop, "new", day=after(1)), base="hub:someone/other@1", base_digest="another")
    registry.record(connection, after(1), other, {}, shop.models)
    assert "is live from" in registry.promote_if_better(connection, "new", after(1))


def test_roll_back_brings_the_model_before_and_then_the_base(connection: Connection, record: Any) -> None:
    for model, day in (("a", DAY), ("b", after(3))):
        record(model, day)
        registry.promote(connection, model, day, registry.BY_LOSS)
    assert registry.roll_back(connection, after(4), "writes about prices") == ("b", "a")
    assert registry.roll_back(connection, after(4), "writes about prices") == ("b", "a"), "once, however often asked"
    assert [live(connection, after(day)) for day in (2, 3, 4)] == ["a", "b", "a"], "the past stays as it was"
    assert "was rolled back" in registry.promote_if_better(connection, "b", after(5))
    assert registry.roll_back(connection, after(5), "this one too") == ("a", None)
    with pytest.raises(UsageError, match="no model is live"):
        registry.roll_back(connection, after(6), "and again")


def test_a_person_may_promote_what_was_rolled_back_or_lost_on_loss(connection: Connection, record: Any) -> None:
    record("a")
    record("b", tuned=2.0)
    registry.promote(connection, "b", DAY, registry.BY_LOSS)
    registry.promote(connection, "a", DAY, "Wang")
    assert live(connection, DAY) == "a", "a person's word outranks a loss on the same day"
    registry.roll_back(connection, after(1), "too dry")
    registry.promote(connection, "a", after(2), "Wang")
    assert [live(connection, after(day)) for day in (1, 2)] == ["b", "a"]


@pytest.mark.parametrize(
    ("model", "day", "message"),
    [
        ("none", DAY, "there is no model"),
        ("a", DAY - timedelta(1), "was trained on"),
        ("a", DAY + timedelta(9), "is not the live one"),
    ],
)
def test_a_wrong_promotion_says_why(connection: Connection, record: Any, model: str, day: date, message: str) -> None:
    record("a")
    registry.promote(connection, "a", DAY, "Wang")
    record("b", after(3))
    registry.promote(connection, "b", after(3), "Wang")
    with pytest.raises(UsageError, match=message):
        registry.promote(connection, model, day, "Wang")


def test_an_erasure_flags_every_model_that_learnt_from_it_and_lowers_the_bar_to_replace_it(
    connection: Connection, record: Any
) -> None:
    record("old", learnt={"c1": 1, "c2": 1}, tuned=2.0)
    record("clean", learnt={"c3": 1})
    registry.promote(connection, "old", DAY, registry.BY_LOSS)
    common = {"creative_hash": "h", "day": DAY, "brief_id": "b", "variant": 0, "scenario": "social", "language": "en"}
    common |= {"channel": "x", "segment_id": "s", "candidates": 1, "candidates_parsed": 1, "model_id": "base"}
    common |= {"prompt_digest": "p", "seed": 0}
    connection.execute(ledger.creatives.insert(), [common | {"creative_id": "c2", "item_id": "kettle"}])
    assert registry.flag_retrain(connection) == []
    asked = {"kind": "item", "subject": "kettle", "requested_on": after(2), "reason": "recalled"}
    connection.execute(ledger.erasures.insert(), [asked])
    assert registry.flag_retrain(connection) == ["old"]
    due = {row.model_id: row.retrain_by for row in registry.all_models(connection)}
    assert due == {"old": after(2 + registry.RETRAIN_WITHIN_DAYS), "clean": None}
    record("new", after(3), tuned=2.5, live=2.0)
    assert "is live from" in registry.promote_if_better(connection, "new", after(3)), "worse, and yet it must go in"


def test_a_person_lists_promotes_and_rolls_back_models_with_commands(shop: Shop) -> None:
    def adloom(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--shop", shop.id])
        assert done.exit_code == 0, done.output
        return done.output

    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            registry.record(connection, DAY, result(shop, "a"), {"starter": 300}, shop.models)
    (listed,) = json.loads(adloom("models", "--json"))
    assert (listed["state"], listed["loss before"], listed["loss after"]) == ("candidate", 4.0, 3.0)
    assert "writes from 2024-03-05 on" in adloom("promote", "a", "--day", "2024-03-05", "--by", "Wang")
    assert json.loads(adloom("models", "--json"))[0]["state"] == "live since 2024-03-05"
    assert "the base writes" in adloom("roll-back", "--day", "2024-03-06", "--reason", "too dry")
    assert json.loads(adloom("models", "--json"))[0]["state"] == "rolled back on 2024-03-06: too dry"
    wrong = CliRunner().invoke(app, ["promote", "b", "--day", "2024-03-05", "--by", "Wang", "--shop", shop.id])
    assert wrong.exit_code == 2
