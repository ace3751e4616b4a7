"""The starter voice: who writes with it, what goes on from it, and that nothing it has learnt is held against it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from adloom.copywriting import handover, starter, weights
from adloom.copywriting.starter import StarterVoice, read_voice, starter_voice
from adloom.creative import Brief, CopyLimits, ItemFacts, write_rows
from adloom.errors import AdloomError
from adloom.shop import FineTuning, Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2026, 3, 1)
SETTINGS = FineTuning(max_steps=12, evaluate_every=4, batch_size=4, learning_rate=0.02, lora_rank=4)
STILL = SETTINGS.model_copy(update={"learning_rate": 1e-30, "max_steps": 2})
GOODS = ("coat", "kettle", "lamp", "book", "跑鞋", "耳机")


def texts(first: int = 0, items: int = 9) -> list[Any]:
    from adloom.copywriting.training import TrainingText

    return [
        TrainingText(
            prompt=f"Item: {GOODS[number % 6]} {number}\n\n",
            completion=f"Headline: a {GOODS[number % 6]} for you\nBody: {'warm and light ' * (number % 3 + 1)}\nEND",
            group=f"item-{first + number % items}",
            versions=(f"{GOODS[number % 6]}: {number}\n\n",),
        )
        for number in range(4 * items)
    ]


def tune(model: Path, folder: Path, settings: FineTuning, given: Any, **more: Any) -> Any:
    from adloom.copywriting.training import fine_tune

    name = f"path:{model}"
    return fine_tune(name, given, settings, folder, data_as_of=DAY, cache=folder.parent, device="cpu", **more)


@pytest.fixture(scope="module")
def voice(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StarterVoice, Any]:
    """A voice of the tiny model, and the training that made it."""
    result = tune(tiny_qwen3, tmp_path_factory.mktemp("voice") / "run", SETTINGS, texts())
    return read_voice(result.path), result


# --- going on from it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_training_goes_on_from_the_voice_and_says_what_each_of_the_weights_loses(
    tiny_qwen3: Path, voice: tuple[StarterVoice, Any], tmp_path: Path, method: str
) -> None:
    known, made = voice
    settings = STILL.model_copy(update={"method": method})
    given = [*texts(), *texts(first=100)]
    bare = tune(tiny_qwen3, tmp_path / "bare", settings, texts())
    result = tune(tiny_qwen3, tmp_path / "run", settings, given, starter=known)
    metrics = result.metrics
    assert metrics["loss_starter"] < metrics["loss_base"], "the voice is what the training began with"
    assert metrics["loss_tuned"] == pytest.approx(metrics["loss_starter"], rel=0.01), "nothing was learnt at that rate"
    assert metrics["loss_base"] == pytest.approx(bare.metrics["loss_base"], rel=0.05)
    assert result.configuration["starter_digest"] == known.digest
    assert result.base_digest == made.base_digest, "the base is still the base"
    if method == "lora":
        from safetensors.torch import load_file

        ours, its = (load_file(folder / "adapter_model.safetensors") for folder in (result.path, known.path))
        assert ours.keys() == its.keys()
        assert all(ours[name].equal(its[name]) for name in its)


def test_what_the_voice_has_learnt_is_never_validated_with(
    tiny_qwen3: Path, voice: tuple[StarterVoice, Any], tmp_path: Path
) -> None:
    from adloom.copywriting.model import load_local
    from adloom.copywriting.training import _Plan

    known, _ = voice
    loaded = load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu")
    held = {text.group for text in texts()} - known.learnt
    assert held, "the voice has validated, too"
    for seed in range(8):
        plan = _Plan.of(loaded, texts(), SETTINGS.model_copy(update={"seed": seed}), DAY, known)
        assert set(plan.learnt_items) >= known.learnt
        fitting = sum(text.group in held for text in texts())
        assert 0 < len(plan.validation) <= fitting
    everything = replace(known, learnt=frozenset(text.group for text in texts()))
    with pytest.raises(AdloomError, match="nothing is left to validate on"):
        _Plan.of(loaded, texts(), SETTINGS, DAY, everything)


def test_another_rank_begins_with_the_bare_base(
    tiny_qwen3: Path, voice: tuple[StarterVoice, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = STILL.model_copy(update={"lora_rank": 2})
    result = tune(tiny_qwen3, tmp_path / "run", settings, texts(), starter=voice[0])
    assert result.metrics["loss_starter"] is None
    assert "starter_digest" not in result.configuration
    assert "has rank 4" in caplog.text


def test_killed_it_goes_on_to_the_same_weights(
    tiny_qwen3: Path, voice: tuple[StarterVoice, Any], tmp_path: Path
) -> None:
    given = texts(first=100)

    def stop(step: Any) -> None:
        if step.step == 6:
            raise KeyboardInterrupt

    whole = tune(tiny_qwen3, tmp_path / "whole", SETTINGS, given, starter=voice[0])
    with pytest.raises(KeyboardInterrupt):
        tune(tiny_qwen3, tmp_path / "cut", SETTINGS, given, starter=voice[0], progress=stop)
    again = tune(tiny_qwen3, tmp_path / "cut", SETTINGS, given, starter=voice[0])
    assert (again.weights_digest, again.metrics["loss_starter"]) == (
        whole.weights_digest,
        whole.metrics["loss_starter"],
    )


def test_each_epoch_reads_another_version_of_a_prompt_and_validation_the_first(
    tiny_qwen3: Path, tmp_path: Path
) -> None:
    from adloom.copywriting.model import load_local
    from adloom.copywriting.training import _encode, _version

    loaded = load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu")
    given = replace(texts()[0], versions=("one\n\n", "two\n\n"))
    ((_, text),), _ = _encode(loaded.tokenizer, [given], 512)
    read = [loaded.tokenizer.decode(_version(text, epoch).prompt) for epoch in range(4)]
    assert read == ["one\n\n", "two\n\n", "one\n\n", "two\n\n"]
    assert loaded.tokenizer.decode(text[0].prompt) == given.prompt


# --- who writes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(language="zh")


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            yield opened


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], StarterVoice]:
    """Ships a made-up voice for a base, and nothing else."""

    def ship(base_digest: str) -> StarterVoice:
        folder = tmp_path / "voices" / "one"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps({"r": 16}))
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        weights.write_manifest(folder, base="b", base_digest=base_digest, learnt_items=["s-zh-001"])
        monkeypatch.setattr(starter, "VOICES", folder.parent)
        starter._voices.cache_clear()
        return read_voice(folder)

    return ship


def test_a_new_shop_writes_with_the_voice_of_its_base_and_rows_say_so(
    shop: Shop, make_shop: Callable[..., Shop], connection: Connection, shipped: Any
) -> None:
    voice = shipped(weights.weights_package("gemma-3-270m").sha256)
    writer = handover.choose_writer(connection, shop, DAY)
    assert writer.model_id == f"package:gemma-3-270m+starter:{voice.digest[:12]}"
    assert handover._adapter(shop, writer) == voice.path
    assert handover.order_training(connection, shop, DAY).starter == voice.digest
    for name in ("package:smollm2-135m", "path:/another"):
        other = make_shop(language="zh", copywriting={"model": name})
        assert handover.choose_writer(connection, other, DAY) == handover.Writer(name, name, None)
        assert handover.order_training(connection, other, DAY).starter is None


def test_another_voice_than_was_planned_with_is_refused(shop: Shop, connection: Connection, shipped: Any) -> None:
    """The scheduler and the GPU worker have different versions installed: rows would name the wrong weights."""
    shipped(weights.weights_package("gemma-3-270m").sha256)
    writer = handover.choose_writer(connection, shop, DAY)
    with pytest.raises(AdloomError, match="is not the one that is installed here"):
        handover._adapter(shop, replace(writer, starter="f" * 64))


def test_a_damaged_voice_is_named(shipped: Any) -> None:
    voice = shipped("b")
    (voice.path / "adapter_model.safetensors").write_bytes(b"others!")
    starter._voices.cache_clear()
    with pytest.raises(AdloomError, match=r"adapter_model\.safetensors: not the file"):
        starter_voice("b")


def test_finished_shards_load_no_model(
    make_shop: Callable[..., Shop], tiny_qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(
        language="zh",
        copywriting={"model": f"path:{tiny_qwen3}", "sampling": {"candidates": 1, "max_new_tokens": 8}},
    )
    brief = Brief(
        scenario="recommendation",
        language="zh",
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id="i", title="竹灯", attributes={"材质": "竹"}),
        limits=CopyLimits(headline=20, body=60, call_to_action=8),
    )
    write_rows(handover.folder_of(shop, DAY) / handover.BRIEFS, [brief])
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as connection:
            handover.choose_writer(connection, shop, DAY)
    names = handover.plan(shop, DAY)
    first = handover.generate(shop, DAY, names)
    monkeypatch.setattr(handover, "_model", lambda *_: pytest.fail("the model was loaded for nothing"))
    again = handover.generate(shop, DAY, names)
    assert [replace(one, was_finished=True) for one in first] == again


# --- what is shipped ------------------------------------------------------------------------------------------------


def test_every_voice_that_is_shipped_is_whole_small_licensed_and_of_this_corpus() -> None:
    folders = [path.parent for path in starter.VOICES.glob("*/manifest.json")]
    assert folders, "scripts/make_starter_voice.py makes it"
    for folder in folders:
        voice, manifest = read_voice(folder), weights.read_json(folder / "manifest.json")
        assert manifest["corpus_digest"] == starter.corpus_digest(), "the corpus has changed: make the voice again"
        package = weights.weights_package(manifest["base"].partition(":")[2])
        assert voice.base_digest == package.sha256
        assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
        words = " ".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
        assert package.licence in words
        assert package.notice in words
        assert voice.digest in words
        items = {pair.brief.item.item_id for language in ("zh", "en") for pair in starter.starter_pairs(language)}  # type: ignore[arg-type]
        assert 0 < len(items - voice.learnt) < len(items) / 4, "items held out for validation"
        assert voice.learnt <= items
        assert manifest["metrics"]["loss_tuned"] < manifest["metrics"]["loss_base"]


def test_the_script_makes_a_voice_of_a_package(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny model in a package's place."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import make_starter_voice as script

    monkeypatch.setattr(weights, "package_folder", lambda *_: tiny_qwen3)
    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    for language in ("zh", "en"):
        lines = (Path(starter.__file__).with_name("starter") / f"{language}.jsonl").read_text(encoding="utf-8")
        (tmp_path / f"{language}.jsonl").write_text("\n".join(lines.splitlines()[:8]) + "\n", encoding="utf-8")
    training = SETTINGS.model_copy(update={"max_tokens": 4000, "max_steps": 4})
    folder = script.make("package:gemma-3-270m", tmp_path / "work", tmp_path / "voices", training)
    voice = read_voice(folder)
    assert voice.base_digest == weights.weights_package("gemma-3-270m").sha256
    assert voice.digest in (folder / "README.md").read_text(encoding="utf-8")
    assert "Gemma Terms of Use" in (folder / "NOTICE.md").read_text(encoding="utf-8")
    before = (folder / "adapter_model.safetensors").read_bytes()
    assert script.make("package:gemma-3-270m", tmp_path / "again", tmp_path / "voices", training) == folder
    assert (folder / "adapter_model.safetensors").read_bytes() == before, "made again, it is the same"
    del sys.modules["make_starter_voice"]
