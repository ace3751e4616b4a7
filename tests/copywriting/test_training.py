"""Fine-tuning on tiny random models: what is learnt, and what is left after a kill, a full disk, a cap in minutes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from adloom.errors import AdloomError
from adloom.shop import FineTuning

DAY = date(2026, 3, 1)
SETTINGS = FineTuning(max_steps=12, evaluate_every=4, batch_size=4, learning_rate=0.02, lora_rank=4)
GOODS = ("coat", "kettle", "lamp", "book", "跑鞋", "耳机")


def texts(count: int = 36, items: int = 9) -> list[Any]:
    from adloom.copywriting.training import TrainingText

    return [
        TrainingText(
            prompt=f"Item: {GOODS[number % 6]} {number}\n\n",
            completion=f"Headline: a {GOODS[number % 6]} for you\nBody: {'warm and light ' * (number % 3 + 1)}\nEND",
            group=f"item-{number % items}",
        )
        for number in range(count)
    ]


def tune(model: Path, folder: Path, settings: FineTuning = SETTINGS, given: Any = None, **more: Any) -> Any:
    from adloom.copywriting.training import fine_tune

    return fine_tune(
        f"path:{model}",
        texts() if given is None else given,
        settings,
        folder,
        data_as_of=DAY,
        cache=folder.parent,
        device="cpu",
        **more,
    )


def curve(folder: Path) -> list[tuple[str, int, float]]:
    from adloom.copywriting.training import read_metrics

    return [(one["kind"], one["step"], one["loss"]) for one in read_metrics(folder) if one["kind"] != "resumed"]


# --- what is learnt -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_lowers_the_validation_loss_and_leaves_weights_that_load(
    tiny_qwen3: Path, tmp_path: Path, method: str
) -> None:
    from adloom.copywriting.model import load_local
    from adloom.copywriting.training import CompletionLoss, _Plan

    settings = SETTINGS.model_copy(update={"method": method})
    result = tune(tiny_qwen3, tmp_path / "run", settings)
    assert result.metrics["loss_tuned"] < result.metrics["loss_base"]
    loaded = load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu", adapter=result.path)
    assert loaded.adapter_digest == result.weights_digest
    plan = _Plan.of(loaded, texts(), settings, DAY)
    again = CompletionLoss(loaded.model, loaded.device).mean(loaded.model, plan.validation)
    assert again == pytest.approx(result.metrics["loss_tuned"], rel=0.01), "the loaded model is the one measured"


@pytest.mark.proof
def test_the_real_model_learns_the_starter_corpus(model_cache: Path, tmp_path: Path) -> None:
    from adloom.copywriting.pairs import training_texts
    from adloom.copywriting.starter import starter_pairs
    from adloom.copywriting.training import fine_tune

    given = training_texts([*starter_pairs("zh")[:40], *starter_pairs("en")[:40]])
    result = fine_tune(
        "package:gemma-3-270m",
        given,
        FineTuning(max_steps=8),
        tmp_path / "run",
        data_as_of=DAY,
        cache=model_cache,
        device="cpu",
    )
    assert result.metrics["loss_tuned"] < result.metrics["loss_base"] - 0.3
    assert "Gemma" in result.licence


def test_only_the_copy_and_its_end_are_learnt(tiny_qwen3: Path, tmp_path: Path) -> None:
    import torch

    from adloom.copywriting.model import load_local
    from adloom.copywriting.training import CompletionLoss, _encode

    loaded = load_local(f"path:{tiny_qwen3}", tmp_path, device="cpu", dtype="float32")
    encoded = [text[0] for _, text in _encode(loaded.tokenizer, texts(6), 512)[0]]
    assert {text.completion[-1] for text in encoded} == {loaded.tokenizer.eos_token_id}
    expected = 0.0
    for text in encoded:  # one by one, as transformers itself computes it
        ids = torch.tensor([text.prompt + text.completion])
        labels = torch.tensor([[-100] * len(text.prompt) + text.completion])
        expected += float(loaded.model(input_ids=ids, labels=labels).loss.detach()) * len(text.completion)
    assert float(CompletionLoss(loaded.model, loaded.device)(encoded).detach()) == pytest.approx(expected, rel=1e-4)


def test_gradients_taken_in_chunks_are_the_usual_ones() -> None:
    import torch
    import torch.nn.functional as F

    from adloom.copywriting.loss import _HeadLoss

    torch.manual_seed(1)
    hidden, weight = torch.randn(7, 5, requires_grad=True), torch.randn(11, 5, requires_grad=True)
    wanted = torch.randint(0, 11, (7,))
    F.cross_entropy(hidden @ weight.T, wanted, reduction="sum").backward()
    usual = hidden.grad.clone(), weight.grad.clone()
    hidden.grad = weight.grad = None
    mass = torch.zeros(11)
    _HeadLoss.apply(hidden, weight, wanted, 3, mass).backward()
    torch.testing.assert_close((hidden.grad, weight.grad), usual)
    torch.testing.assert_close(mass, (hidden @ weight.T).softmax(-1).sum(0).detach())


def test_a_model_that_shapes_its_logits_is_trained_on_its_own_logits(tiny_qwen3: Path, tmp_path: Path) -> None:
    """Gemma 2 caps its logits: multiplying hidden state and output matrix would learn another model."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    from adloom.copywriting.loss import CompletionLoss, Encoded

    torch.manual_seed(0)
    shape = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.01,
        attn_implementation="eager",
    )
    model = Gemma2ForCausalLM(shape).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = float(model(input_ids=ids, labels=torch.tensor([[-100, -100, 7, 8]])).loss) * 2
    loss = CompletionLoss(model, torch.device("cpu"))([Encoded([5, 6], [7, 8])])
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_large_vocabulary_is_narrowed_without_losing_what_counts(tmp_path: Path) -> None:
    """A model of 40,000 tokens, nearly all of them unlikely: what is left out costs no more than it may."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from adloom.copywriting.loss import COVERED, CompletionLoss, Encoded

    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=40_000,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = Qwen3ForCausalLM(shape)
    with torch.no_grad():
        model.lm_head.weight[:100] *= 200
    model.lm_head.requires_grad_(False)
    device = torch.device("cpu")
    loss, given = CompletionLoss(model, device), [Encoded([1, 2, 3], [4, 39_999, 5])]
    mass = loss.no_mass()
    assert mass is not None
    whole = loss.mean(model, given, mass)
    loss.narrow(mass, given)
    assert loss.tokens is not None
    assert len(loss.tokens) < 40_000 / 2
    assert {4, 39_999, 5} <= set(loss.tokens.tolist()), "what is to be learnt is always among them"
    narrow = float(loss(given).detach()) / 3
    assert whole - narrow == pytest.approx(0, abs=3 * (1 - COVERED))
    assert loss.mean(model, given) == whole, "validation takes the whole vocabulary"


def test_an_item_is_on_one_side_of_the_split_and_more_data_never_moves_it_into_validation() -> None:
    from adloom.copywriting.training import Encoded, _split

    def sides(items: int) -> tuple[set[int], set[int]]:
        # The prompt is the item's number: it says whose text this is.
        given = [(f"item-{item}", (Encoded([item], [copy]),)) for item in range(items) for copy in range(3)]
        train, validation, _ = _split(given, FineTuning(max_minutes=2))
        return {one[0].prompt[0] for one in train}, {one.prompt[0] for one in validation}

    before, held_before = sides(60)
    after, held_after = sides(600)
    assert before
    assert held_before
    assert not before & held_before
    assert not after & held_after
    assert not before & held_after, "the model in use has not learnt what it is now held against"


# --- killed, capped, full -------------------------------------------------------------------------------------------

WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
import test_training as t
t.tune(t.Path({model!r}), t.Path({folder!r}), t.SETTINGS, progress=lambda step: time.sleep({pause}))
"""


def start(model: Path, folder: Path, pause: float) -> subprocess.Popen[bytes]:
    code = WORKER.format(tests=str(Path(__file__).parent), model=str(model), folder=str(folder), pause=pause)
    return subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "random"})


def test_killed_in_training_it_goes_on_at_the_same_curve_to_the_same_weights(tiny_gpt2: Path, tmp_path: Path) -> None:
    """GPT-2 has dropout: what it draws must not depend on where the process began."""
    whole = tune(tiny_gpt2, tmp_path / "whole")
    folder = tmp_path / "killed"
    process = start(tiny_gpt2, folder, pause=0.2)
    try:
        deadline = time.monotonic() + 120
        while not any(step >= 6 for _, step, _ in curve(folder)):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "result.json").exists()
    seen: list[int] = []
    resumed = tune(tiny_gpt2, folder, progress=lambda step: seen.append(step.step))
    assert seen[0] == 5, "it goes on after the checkpoint of step 4"
    assert curve(folder) == curve(tmp_path / "whole")
    assert resumed.weights_digest == whole.weights_digest
    assert resumed.metrics["seconds"] > 6 * 0.2, "the first attempt's time counts"


def test_resumed_it_chooses_among_the_same_tokens(
    tiny_qwen3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom.copywriting import loss

    monkeypatch.setattr(loss, "LARGE_VOCABULARY", 10)
    monkeypatch.setattr(loss, "COVERED", 0.3)
    whole = tune(tiny_qwen3, tmp_path / "whole")

    def stop(step: Any) -> None:
        if step.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_qwen3, tmp_path / "cut", progress=stop)
    # The base, asked again, would choose other ones now.
    monkeypatch.setattr(loss, "COVERED", 0.9)
    assert tune(tiny_qwen3, tmp_path / "cut").weights_digest == whole.weights_digest


def test_a_cap_in_minutes_holds_over_all_attempts_and_leaves_a_model(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"max_steps": 10_000, "max_minutes": 0.1})

    class Killed(Exception):
        pass

    def stop(step: Any) -> None:
        time.sleep(0.1)
        if step.step == 9:
            raise Killed

    began = time.monotonic()
    with pytest.raises(Killed):
        tune(tiny_gpt2, tmp_path / "run", settings, progress=stop)
    result = tune(tiny_gpt2, tmp_path / "run", settings, progress=lambda step: time.sleep(0.1))
    assert time.monotonic() - began < 6 + 4, "6 seconds, and a step and an evaluation on a busy machine"
    assert result.metrics["stopped"] == "minutes"
    assert 0 < result.metrics["steps"] < 60
    assert (result.path / "adapter_model.safetensors").is_file()


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(tiny_gpt2: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def fill(step: Any) -> None:
        if step.step == 6:
            # The next checkpoint is written into a device that is always full.
            (folder / ".checkpoint.pt.tmp").symlink_to("/dev/full")

    with pytest.raises(AdloomError, match=r"checkpoint\.pt cannot be written: No space left on device") as error:
        tune(tiny_gpt2, folder, progress=fill)
    assert "free some space" in error.value.next_step
    whole = tune(tiny_gpt2, tmp_path / "whole")
    seen: list[int] = []
    resumed = tune(tiny_gpt2, folder, progress=lambda step: seen.append(step.step))
    assert seen[0] == 5, "the checkpoint of step 4 was still whole"
    assert resumed.weights_digest == whole.weights_digest


def test_it_stops_when_nothing_improves_and_keeps_the_best(tiny_gpt2: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e-30, "max_steps": 40, "evaluate_every": 2, "patience": 2})
    result = tune(tiny_gpt2, tmp_path / "run", settings)
    assert result.metrics["stopped"] == "patience"
    assert result.metrics["steps"] == 4, "two evaluations without improvement"
    assert result.metrics["loss_tuned"] <= result.metrics["loss_base"]


def test_a_second_process_in_the_same_folder_is_refused(tiny_gpt2: Path, tmp_path: Path) -> None:
    caught: list[AdloomError] = []

    def intrude(step: Any) -> None:
        if step.step == 1:
            try:
                tune(tiny_gpt2, tmp_path / "run")
            except AdloomError as error:
                caught.append(error)

    tune(tiny_gpt2, tmp_path / "run", progress=intrude)
    assert "another process" in caught[0].message


# --- run again ------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_not_trained_again_and_other_texts_are(tiny_gpt2: Path, tmp_path: Path) -> None:
    steps: list[int] = []

    def told(step: Any) -> None:
        steps.append(step.step)

    first = tune(tiny_gpt2, tmp_path / "run", progress=told)
    steps.clear()
    reordered = list(reversed(texts()))
    assert tune(tiny_gpt2, tmp_path / "run", given=reordered, progress=told) == first
    assert not steps
    more = [*texts(), replace(texts()[0], completion="Headline: other\nEND")]
    assert tune(tiny_gpt2, tmp_path / "run", given=more, progress=told).model_id != first.model_id
    assert steps[0] == 1


def test_the_live_model_is_held_against_the_same_validation_texts(tiny_gpt2: Path, tmp_path: Path) -> None:
    live = tune(tiny_gpt2, tmp_path / "live")
    fresh = tune(tiny_gpt2, tmp_path / "next", SETTINGS.model_copy(update={"max_steps": 2}), live=live.path)
    assert fresh.metrics["loss_live"] == pytest.approx(live.metrics["loss_tuned"], rel=0.01)
    assert fresh.metrics["loss_base"] == live.metrics["loss_base"]


def test_what_lies_in_the_folder_names_no_path_of_this_machine(tiny_gpt2: Path, tmp_path: Path) -> None:
    from adloom.copywriting.training import read_result

    result = tune(tiny_gpt2, tmp_path / "run")
    assert read_result(tmp_path / "run") == result
    assert str(tmp_path) not in (tmp_path / "run" / "result.json").read_text()
    adapter = json.loads((result.path / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == f"path:{tiny_gpt2}", "the base as the shop's setting names it"
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")) == [
        "configuration.json",
        "metrics.jsonl",
        "result.json",
        "weights",
    ], "no checkpoints are left"


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (lambda: [], SETTINGS, "nothing to learn from"),
        (texts, SETTINGS.model_copy(update={"max_tokens": 3}), "none of 36 training texts has between 1 and 3 tokens"),
        (lambda: texts(items=1), SETTINGS, "about one item"),
        (lambda: [replace(one, completion=" ") for one in texts()], SETTINGS, "none of 36 training texts"),
    ],
)
def test_texts_that_cannot_be_learnt_from_are_a_clear_error(
    tiny_gpt2: Path, tmp_path: Path, given: Callable[[], Any], settings: FineTuning, message: str
) -> None:
    with pytest.raises(AdloomError, match=message):
        tune(tiny_gpt2, tmp_path / "run", settings, given=given())


def test_texts_left_out_are_counted(tiny_gpt2: Path, tmp_path: Path) -> None:
    long = replace(texts()[0], completion="very " * 2000)
    result = tune(tiny_gpt2, tmp_path / "run", given=[*texts(), texts()[1], long])
    assert result.left_out == {"too long": 1, "twice": 1}
    assert result.pairs + result.validation_pairs == 36


def test_a_damaged_checkpoint_is_named(tiny_gpt2: Path, tmp_path: Path) -> None:
    def stop(step: Any) -> None:
        if step.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tiny_gpt2, tmp_path / "run", progress=stop)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(AdloomError, match=r"checkpoint\.pt: unreadable") as error:
        tune(tiny_gpt2, tmp_path / "run")
    assert "remove it" in error.value.next_step
