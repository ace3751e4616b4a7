"""Teach a copy model the shop's voice: cross-entropy on the copy, given the prompt.

A plain loop instead of a trainer, for four things at once: a run killed at any step goes on at the same loss curve and
ends in the same weights, a cap in minutes holds over all its attempts, logits exist only where a loss is taken (of
Gemma's 270 M parameters 168 M are vocabulary), and its folder holds only what was written whole.

``folder/``: ``configuration.json`` (what this run is), ``metrics.jsonl`` (one figure set a line), ``checkpoint.pt``
and ``best.safetensors`` while it runs, then ``weights/`` (an adapter, or full weights) and ``result.json``.
Nothing here opens a warehouse: texts come in, files go out.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from adloom.copywriting.loss import CompletionLoss, Encoded
from adloom.copywriting.model import LocalModel, attach, load_local
from adloom.copywriting.starter import StarterVoice
from adloom.copywriting.weights import without_progress, write_manifest
from adloom.errors import AdloomError, Busy
from adloom.shop import FineTuning

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

CHECKPOINT, BEST, METRICS, RESULT, WEIGHTS = (
    "checkpoint.pt",
    "best.safetensors",
    "metrics.jsonl",
    "result.json",
    "weights",
)
LEARNING_RATES = {"lora": 5e-4, "full": 1e-4}
WARM_UP_STEPS = 5
CHECKPOINT_SECONDS = 20
"""A checkpoint is written at every evaluation, and when the last one is so old: a cap in minutes has few of them."""
MOST_VALIDATION_TEXTS = 256
"""Enough to tell losses .05 apart; a cap in minutes takes fewer (`_validation_size`)."""
EVALUATION_SHARE = 0.1
"""Of a cap in minutes, for asking the base: a slow machine then validates on fewer texts, not beyond the cap."""
_BUCKET_BATCHES = 8
"""Batches are cut from this many batches' worth of texts in order of length: little padding, still shuffled."""


Versions = tuple[Encoded, ...]
"""A text with each of its prompts: the first is validated with, the others are taken in turn."""


@dataclass(frozen=True)
class TrainingText:
    """One text to learn: the prompt is given, the completion is learnt; ``group`` (the item) is never split."""

    prompt: str
    completion: str
    group: str
    versions: tuple[str, ...] = ()
    """prompts that the completion answers as well: taken in turn, one an epoch; none: always ``prompt``"""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves behind: `ledger.models` holds it, ``result.json`` carries it there."""

    model_id: str
    base: str
    base_digest: str
    licence: str
    method: str
    weights_digest: str
    path: Path
    """folder to load as the adapter"""
    data_as_of: date
    data_digest: str
    pairs: int
    """learnt from"""
    validation_pairs: int
    left_out: dict[str, int]
    """reason → texts that were given and not used"""
    configuration: dict[str, Any]
    metrics: dict[str, Any]
    """losses per completion token on the same validation texts: loss_base, loss_starter (of the starter voice that the
    training began with; None without one), loss_live (None without one), loss_tuned"""


@dataclass(frozen=True)
class Progress:
    """Where a training stands, after a step."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        left = f"{self.seconds_left / 60:.1f} min" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s"
        return (
            f"fine-tuning: step {self.step} of {self.steps}, loss {self.loss:.3f}, "
            f"{self.tokens_per_second:,.0f} tokens/s, about {left} left"
        )


@dataclass
class _State:
    """Where the loop stands; with the weights and the optimizer's moments, all that a resumed run needs."""

    step: int = 0
    steps: int = 0
    """planned; fewer than max_steps where max_minutes will not take them"""
    loss_base: float = math.nan
    loss_starter: float | None = None
    loss_live: float | None = None
    best_loss: float = math.inf
    best_step: int = 0
    worse: int = 0
    """evaluations since the best one"""
    validation_texts: int = 0
    """of the plan's, those that are used"""
    evaluated_step: int = 0
    evaluation_seconds: float = 0.0
    """what the last evaluation took: a cap in minutes leaves room for another"""
    tokens: int = 0
    stopped: str = ""
    """why it ended: steps | patience | minutes"""


# --- the run --------------------------------------------------------------------------------------------------------


def fine_tune(
    model: LocalModel | str,
    texts: Sequence[TrainingText],
    settings: FineTuning,
    folder: Path,
    *,
    data_as_of: date,
    cache: Path | None = None,
    device: str = "auto",
    live: Path | None = None,
    starter: StarterVoice | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingResult:
    """Train ``model`` (one that is loaded, or a name to load through ``cache``) on ``texts``; results go to ``folder``.

    A finished run there is returned as it is, one cut off goes on, one of other texts or settings is replaced.
    ``live``: weights of the model in use, held against the same validation texts (needs ``cache``). ``starter``: an
    adapter to go on from: its LoRA weights are trained on, or, in full, what it makes of the base; validation is about
    items that it has not learnt from.
    """
    if not texts:
        raise AdloomError("there is nothing to learn from: no training texts", "approve copies first")
    with _alone(folder):
        starter = _usable(starter, settings)
        whole = starter.path if starter is not None and settings.method == "full" else None
        if whole is not None and not isinstance(model, str):
            raise ValueError("a full training that goes on from a starter voice loads the model itself")
        loaded = load_local(model, _needed(cache), device, adapter=whole) if isinstance(model, str) else model
        clock = _Clock(settings.max_minutes)
        plan = _Plan.of(loaded, texts, settings, data_as_of, starter)
        if (finished := _finished(folder, plan)) is not None:
            return finished
        _begin(folder, plan)
        others: dict[str, Callable[[Sequence[Encoded]], float]] = {}
        if live is not None:
            others["live"] = partial(_loss_of_other, loaded, live, _needed(cache))
        if whole is not None:
            others["base"] = partial(_loss_of_other, loaded, None, _needed(cache))
        with (
            torch.random.fork_rng(devices=[loaded.device] if loaded.device.type == "cuda" else []),
            _clear_about_memory(),
        ):
            return _Run(loaded, plan, settings, folder, clock, progress or _log_about_every_second()).train(others)


def read_result(folder: Path) -> TrainingResult:
    """The result of a finished training in ``folder``."""
    try:
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        content |= {"path": folder / content["path"], "data_as_of": date.fromisoformat(content["data_as_of"])}
        return TrainingResult(**content)
    except FileNotFoundError as error:
        raise AdloomError(f"{folder}: no {RESULT}: the training did not finish", "run fine-tune again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AdloomError(f"{folder / RESULT}: {error}", "remove the folder and run fine-tune again") from error


def _usable(starter: StarterVoice | None, settings: FineTuning) -> StarterVoice | None:
    """The starter voice, if a training with these settings can go on from it."""
    if starter is not None and settings.method == "lora" and settings.lora_rank != starter.rank:
        log.warning(
            "fine-tuning begins with the bare base: the starter voice has rank %d, copywriting.fine_tuning.lora_rank "
            "is %d",
            *(starter.rank, settings.lora_rank),
        )
        return None
    return starter


def _needed(cache: Path | None) -> Path:
    if cache is None:
        raise ValueError("a model is loaded by name through a cache folder")
    return cache


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process trains in a folder at a time: a retry must not meet the attempt it replaces."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process is training in {folder}") from error
        yield


@contextmanager
def _clear_about_memory() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise AdloomError(
            f"the GPU's memory does not hold this training: {str(error).partition('.')[0]}",
            "lower copywriting.fine_tuning.batch_size or max_tokens, or take method lora",
        ) from error


@dataclass(frozen=True)
class _Plan:
    """What a run is: the same plan gives the same model, and only the same plan goes on from a checkpoint."""

    model_id: str
    configuration: dict[str, Any]
    data_as_of: date
    data_digest: str
    train: list[Versions]
    validation: list[Encoded]
    left_out: dict[str, int]
    starter: StarterVoice | None = None
    learnt_items: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: LocalModel,
        texts: Sequence[TrainingText],
        settings: FineTuning,
        data_as_of: date,
        starter: StarterVoice | None = None,
    ) -> _Plan:
        encoded, left_out = _encode(model.tokenizer, texts, settings.max_tokens)
        known = frozenset() if starter is None else starter.learnt
        train, validation, groups = _split(encoded, settings, known)
        if unused := len(encoded) - len(train) - len(validation):
            left_out["validation has enough"] = unused
        data = hashlib.sha256()
        for line in sorted(json.dumps(asdict(text), ensure_ascii=False, sort_keys=True) for text in texts):
            data.update(line.encode() + b"\n")
        chosen = settings.model_dump(mode="json", exclude={"min_new_pairs"})
        chosen["learning_rate"] = settings.learning_rate or LEARNING_RATES[settings.method]
        configuration = {**chosen, "base": model.base, "base_digest": model.base_digest}
        # A base is what its digest says, wherever it lies.
        identity = {**chosen, "base": model.base_digest, "data": data.hexdigest(), "data_as_of": str(data_as_of)}
        if starter is not None:
            configuration["starter_digest"] = identity["starter"] = starter.digest
        model_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        learnt = tuple(sorted(groups | known))
        return cls(model_id, configuration, data_as_of, data.hexdigest(), train, validation, left_out, starter, learnt)


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[TrainingText], most: int
) -> tuple[list[tuple[str, Versions]], dict[str, int]]:
    """(group, tokens) of the texts that can be learnt from, in an order of their own; reason → texts left out."""
    end = tokenizer.eos_token_id
    if end is None:
        raise AdloomError("the model's tokenizer has no end-of-text token", "choose another model")
    kept: list[tuple[str, Versions]] = []
    left_out = {"empty": 0, "too long": 0}
    for text in sorted(set(texts), key=lambda one: (one.group, one.prompt, one.completion)):
        if not text.completion.strip():
            left_out["empty"] += 1
            continue
        completion = [*tokenizer(text.completion, add_special_tokens=False)["input_ids"], end]
        versions = []
        for prompt in (text.prompt, *text.versions):
            before = list(tokenizer(prompt)["input_ids"])
            if before and before[-1] == end:
                before.pop()  # some tokenizers end every text; the completion comes first
            # A model without a start token must see something before the first token it is to write.
            versions.append(Encoded(before or [end], completion))
        if max(len(one) for one in versions) > most:
            left_out["too long"] += 1
        else:
            kept.append((text.group, tuple(versions)))
    left_out["twice"] = len(texts) - len(set(texts))
    if not kept:
        raise AdloomError(
            f"none of {len(texts)} training texts has between 1 and {most} tokens",
            "raise copywriting.fine_tuning.max_tokens, or look at the texts",
        )
    return kept, {reason: count for reason, count in left_out.items() if count}


def _validation_size(settings: FineTuning) -> int:
    if settings.max_minutes is None:
        return MOST_VALIDATION_TEXTS
    # Two passes over 12 texts a minute take about a tenth of the cap on two cores.
    return min(MOST_VALIDATION_TEXTS, max(16, int(12 * settings.max_minutes)))


def _split(
    texts: Sequence[tuple[str, Versions]], settings: FineTuning, learnt: frozenset[str] = frozenset()
) -> tuple[list[Versions], list[Encoded], frozenset[str]]:
    """(training, validation, the groups of training), split by group; ``learnt``: groups the starting weights know.

    An item's side follows from its own hash: more data only ever moves an item from validation to training, so the
    live model, trained on less, has not learnt what it is now held against.
    """
    groups: dict[str, list[Versions]] = {}
    for group, text in texts:
        groups.setdefault(group, []).append(text)
    if len(groups) < 2:
        raise AdloomError(
            "all training texts are about one item: nothing is left to validate on", "approve copies of a second item"
        )
    hashes = {group: _share_of(f"{settings.seed}:{group}") for group in groups}
    unknown = sorted(set(groups) - learnt, key=lambda one: hashes[one])
    if not unknown:
        raise AdloomError(
            "the starter voice has learnt from every item of the training texts: nothing is left to validate on",
            "approve copies of another item",
        )
    held: set[str] = set()
    validation: list[Encoded] = []
    for group in unknown:
        has_room = len(validation) + len(groups[group]) <= _validation_size(settings)
        if held and not (has_room and hashes[group] < settings.validation_share):
            break
        if len(held) == len(groups) - 1:
            break
        held.add(group)
        validation += [text[0] for text in groups[group]]
    rest = [group for group in sorted(groups, key=lambda one: hashes[one]) if group not in held]
    train = [text for group in rest for text in groups[group]]
    return train, validation[:MOST_VALIDATION_TEXTS], frozenset(rest)


def _share_of(text: str) -> float:
    """A number in [0, 1) that is a text's own."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _finished(folder: Path, plan: _Plan) -> TrainingResult | None:
    if not (folder / RESULT).is_file():
        return None
    result = read_result(folder)
    return result if result.model_id == plan.model_id else None


def _begin(folder: Path, plan: _Plan) -> None:
    """Clear the folder of another run, and write what this one is."""
    config = folder / "configuration.json"
    content = {**plan.configuration, "model_id": plan.model_id, "data_digest": plan.data_digest}
    text = json.dumps(content | {"data_as_of": str(plan.data_as_of)}, indent=1, sort_keys=True)
    if config.is_file() and config.read_text(encoding="utf-8") == text:
        return
    for path in (*(folder / name for name in (RESULT, CHECKPOINT, METRICS)), config, *folder.glob(f"*.{BEST}")):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / WEIGHTS, ignore_errors=True)
    _write_whole(config, lambda path: path.write_text(text, encoding="utf-8"))


class _Clock:
    """Seconds this run has taken over all its attempts, against its cap."""

    def __init__(self, minutes: float | None) -> None:
        self.cap = math.inf if minutes is None else minutes * 60
        self._began = time.monotonic()
        self._before = 0.0

    def add(self, seconds: float) -> None:
        self._before += seconds

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    @property
    def left(self) -> float:
        return self.cap - self.seconds


class _Run:
    """One training from its first step, or its last checkpoint, to its result."""

    def __init__(  # noqa: PLR0917
        self,
        loaded: LocalModel,
        plan: _Plan,
        settings: FineTuning,
        folder: Path,
        clock: _Clock,
        told: Callable[[Progress], None],
    ) -> None:
        self.loaded, self.plan, self.settings, self.folder, self.clock = loaded, plan, settings, folder, clock
        self.told = told
        self._epoch, self._batches = -1, list[list[Encoded]]()
        self._written_at, self._writing_took = clock.seconds, 0.0
        self.state = _State(steps=settings.max_steps)
        self.metrics = _Metrics(folder / METRICS)
        self.model = _trainable(loaded, settings, plan.starter)
        self.device = loaded.device
        self.loss = CompletionLoss(_causal(self.model), self.device)
        self.parameters = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        # Updates are smaller than what bfloat16 resolves: they are added up in float32 and rounded into the model.
        self.masters = {name: one.detach().float().clone() for name, one in self.parameters.items()}
        peak = settings.learning_rate or LEARNING_RATES[settings.method]
        decay = 0.0 if settings.method == "lora" else 0.01
        self.peak = peak
        self.optimizer = torch.optim.AdamW(list(self.masters.values()), lr=peak, weight_decay=decay)

    def train(self, others: Mapping[str, Callable[[Sequence[Encoded]], float]]) -> TrainingResult:
        """``others``: losses of models that have to be loaded for it (live, base)."""
        self._resume()
        state = self.state
        if state.step == 0:
            self._ask_start()
            self._keep_best()
            if self.plan.starter is not None:
                state.loss_starter = state.best_loss
                with self._without_adapter() as model:
                    ask = others.get("base") or partial(self.loss.mean, model)
                    state.loss_base = ask(self._validation)
            if "live" in others:
                state.loss_live = others["live"](self._validation)
        elif self.clock.left < 1.2 * state.evaluation_seconds:
            state.stopped = state.stopped or "minutes"
        seconds: list[float] = []
        while not state.stopped:
            began, rate = self.clock.seconds, self._learning_rate()
            loss, tokens = self._step(rate)
            state.step += 1
            state.tokens += tokens
            seconds = [*seconds[-19:], self.clock.seconds - began]
            self._tell(loss, rate, tokens, seconds)
            self._plan_steps(seconds)
            if self._is_over(seconds) or state.step % self.settings.evaluate_every == 0:
                self._evaluate()
            elif self.clock.seconds - self._written_at > max(CHECKPOINT_SECONDS, 20 * self._writing_took):
                self._write_checkpoint()
        if state.evaluated_step < state.step:
            self._evaluate()
        return self._finish()

    def _plan_steps(self, seconds: list[float]) -> None:
        """Under a cap in minutes: how many steps it takes, once some are measured, so that the rate can decay in time.

        Looked at again at twice as many steps, then at four times as many: texts differ in length, and the first steps
        are slow ones. Kept in a checkpoint at once: a resumed run decays the same.
        """
        state = self.state
        times = state.step / WARM_UP_STEPS
        if math.isinf(self.clock.cap) or times < 1 or not math.log2(times).is_integer():
            return
        room = 0.9 * (self.clock.left - state.evaluation_seconds)
        each = sum(seconds) / len(seconds) + state.evaluation_seconds / self.settings.evaluate_every
        state.steps = min(self.settings.max_steps, state.step + max(0, int(room / each)))
        self._write_checkpoint()

    def _is_over(self, seconds: list[float]) -> bool:
        state = self.state
        if state.step >= state.steps:
            state.stopped = "steps" if state.steps == self.settings.max_steps else "minutes"
        elif self.clock.left < max(seconds[-1], 1.5 * sum(seconds) / len(seconds)) + 1.2 * state.evaluation_seconds:
            state.stopped = "minutes"
        return bool(state.stopped)

    def _step(self, rate: float) -> tuple[float, int]:
        """One optimizer step at a learning rate; (mean loss per completion token, tokens seen)."""
        settings, state = self.settings, self.state
        # Whatever a model draws (dropout) depends on the step alone: a resumed run draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + state.step)
        batch = self._batch(state.step)
        wanted = sum(len(text.completion) for text in batch)
        total = 0.0
        self.model.train()
        for part in self.loss.parts(batch):
            loss = self.loss(part) / wanted
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise AdloomError(
                f"the loss is {total} at step {state.step + 1}", "lower copywriting.fine_tuning.learning_rate"
            )
        for name, one in self.parameters.items():
            self.masters[name].grad = None if one.grad is None else one.grad.float()
            one.grad = None
        torch.nn.utils.clip_grad_norm_(list(self.masters.values()), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._round_into_model()
        return total, sum(len(text) for text in batch)

    def _learning_rate(self) -> float:
        """Up over the first steps, then down a cosine to a tenth."""
        step, steps = self.state.step, self.state.steps
        if step < WARM_UP_STEPS:
            return self.peak * (step + 1) / WARM_UP_STEPS
        done = min(1.0, (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS))
        return self.peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def _batch(self, step: int) -> list[Encoded]:
        size = self.settings.batch_size
        per_epoch = math.ceil(len(self.plan.train) / size)
        epoch, position = divmod(step, per_epoch)
        if self._epoch != epoch:
            texts = [_version(text, epoch) for text in self.plan.train]
            self._epoch, self._batches = epoch, _batches(texts, size, f"{self.settings.seed}:{epoch}")
        return self._batches[position]

    @torch.no_grad()
    def _round_into_model(self) -> None:
        for name, one in self.parameters.items():
            one.copy_(self.masters[name])

    @property
    def _validation(self) -> list[Encoded]:
        return self.plan.validation[: self.state.validation_texts]

    @contextmanager
    def _without_adapter(self) -> Iterator[Any]:
        """The bare base, where an adapter is trained."""
        if self.settings.method == "lora":
            with self.model.disable_adapter():
                yield self.model
        else:
            yield self.model

    def _ask_start(self) -> None:
        """The loss of what the training begins with, and the tokens it finds likely; under a cap in minutes, on as
        many texts as time allows."""
        state, began, mass = self.state, self.clock.seconds, self.loss.no_mass()
        total, tokens = 0.0, 0
        for start in range(0, len(self.plan.validation), 4):
            some = self.plan.validation[start : start + 4]
            count = sum(len(text.completion) for text in some)
            total += self.loss.mean(self.model, some, mass) * count
            tokens += count
            state.validation_texts += len(some)
            if self.clock.seconds - began > EVALUATION_SHARE * self.clock.cap:
                break
        state.loss_base = state.best_loss = total / tokens
        self._note_evaluation(state.loss_base, began)
        if mass is not None:
            self.loss.narrow(mass, [text[0] for text in self.plan.train])

    def _note_evaluation(self, loss: float, began: float) -> None:
        state = self.state
        state.evaluated_step, state.evaluation_seconds = state.step, self.clock.seconds - began
        self.metrics.add(kind="validation", step=state.step, loss=loss, seconds=self.clock.seconds)

    def _evaluate(self) -> None:
        """Validate, keep what is best, see whether it still pays, and write a checkpoint."""
        state, began = self.state, self.clock.seconds
        loss = self.loss.mean(self.model, self._validation)
        self._note_evaluation(loss, began)
        before = f"base {state.loss_base:.3f}"
        before += "" if state.loss_starter is None else f", starter voice {state.loss_starter:.3f}"
        log.info("fine-tuning: step %d, validation loss %.3f (%s)", state.step, loss, before)
        if loss < state.best_loss:
            state.best_loss, state.best_step, state.worse = loss, state.step, 0
            self._keep_best()
        else:
            state.worse += 1
            if state.worse >= self.settings.patience:
                state.stopped = state.stopped or "patience"
        self._write_checkpoint()

    def _tell(self, loss: float, rate: float, tokens: int, seconds: list[float]) -> None:
        state = self.state
        self.metrics.add(
            kind="train", step=state.step, loss=loss, learning_rate=rate, tokens=tokens, seconds=self.clock.seconds
        )
        left = max(0.0, min((state.steps - state.step) * sum(seconds) / len(seconds), self.clock.left))
        self.told(Progress(state.step, state.steps, loss, tokens / max(seconds[-1], 1e-9), left))

    # --- checkpoints ---

    def _keep_best(self) -> None:
        """The weights of the best evaluation so far, under its step's name: a checkpoint names the one it means."""
        tensors = {name: one.detach().cpu().contiguous() for name, one in self.parameters.items()}
        _write_whole(self._best_path(), lambda path: save_file(tensors, path))

    def _best_path(self) -> Path:
        return self.folder / f"{self.state.best_step:06d}.{BEST}"

    def _write_checkpoint(self) -> None:
        began = self.clock.seconds
        content = {
            "model_id": self.plan.model_id,
            "state": asdict(self.state),
            "masters": self.masters,
            "optimizer": self.optimizer.state_dict(),
            "tokens": self.loss.tokens,
        }
        _write_whole(self.folder / CHECKPOINT, lambda path: _save(content, path))
        for path in self.folder.glob(f"*.{BEST}"):
            if path != self._best_path():
                path.unlink()
        self._written_at = self.clock.seconds
        self._writing_took = self._written_at - began

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if path.is_file():
            try:
                content = torch.load(path, map_location=self.device, weights_only=True)
            except Exception as error:
                raise AdloomError(f"{path}: unreadable ({error})", "remove it; the training starts anew") from error
            known = {one.name for one in fields(_State)}
            self.state = _State(**{name: value for name, value in content["state"].items() if name in known})
            with torch.no_grad():
                for name, one in self.masters.items():
                    one.copy_(content["masters"][name])
            self.optimizer.load_state_dict(content["optimizer"])
            if content["tokens"] is not None:
                self.loss.narrow_to(content["tokens"])
            self._round_into_model()
            log.info("fine-tuning: goes on after step %d", self.state.step)
        self.clock.add(self.metrics.seconds())
        self.metrics.cut_after(self.state.step if path.is_file() else -1, self.clock.seconds)

    # --- the end ---

    def _finish(self) -> TrainingResult:
        state, plan = self.state, self.plan
        best = load_file(self._best_path(), device=str(self.device))
        with torch.no_grad():
            for name, one in self.parameters.items():
                one.copy_(best[name])
        self.model.eval()
        digest = self._write_weights()
        seconds = self.clock.seconds
        metrics = {
            "loss_base": state.loss_base,
            "loss_starter": state.loss_starter,
            "loss_live": state.loss_live,
            "loss_tuned": state.best_loss,
            "validation_tokens": sum(len(text.completion) for text in self._validation),
            "steps": state.step,
            "best_step": state.best_step,
            "stopped": state.stopped,
            "tokens": state.tokens,
            "seconds": round(seconds, 1),
        }
        result = TrainingResult(
            model_id=plan.model_id,
            base=self.loaded.base,
            base_digest=self.loaded.base_digest,
            licence=self.loaded.licence,
            method=self.settings.method,
            weights_digest=digest,
            path=self.folder / WEIGHTS,
            data_as_of=plan.data_as_of,
            data_digest=plan.data_digest,
            pairs=len(plan.train),
            validation_pairs=len(self._validation),
            left_out=plan.left_out,
            configuration=plan.configuration,
            metrics=metrics,
        )
        content = asdict(replace(result, path=Path(WEIGHTS))) | {"path": WEIGHTS, "data_as_of": str(plan.data_as_of)}
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
        _write_whole(self.folder / RESULT, lambda path: path.write_text(text, encoding="utf-8"))
        for path in (self.folder / CHECKPOINT, *self.folder.glob(f"*.{BEST}")):
            path.unlink(missing_ok=True)
        return result

    def _write_weights(self) -> str:
        """Write ``weights/`` whole and return its digest."""
        fresh, target = self.folder / f".{WEIGHTS}.tmp", self.folder / WEIGHTS
        shutil.rmtree(fresh, ignore_errors=True)
        with _clear_about_disk(target), without_progress():
            if self.settings.method == "lora":
                self.model.save_pretrained(fresh, save_embedding_layers=False)
                # Where the base lay on this machine is nobody's business; the manifest says what it was.
                path = fresh / "adapter_config.json"
                content = json.loads(path.read_text(encoding="utf-8")) | {"base_model_name_or_path": self.loaded.base}
                content["target_modules"] = sorted(content["target_modules"])  # PEFT writes a set in any order
                path.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
                (fresh / "README.md").unlink(missing_ok=True)
            else:
                self.model.save_pretrained(fresh)
                self.loaded.tokenizer.save_pretrained(fresh)
            for path in fresh.iterdir():
                path.chmod(0o644)  # safetensors are private as written; the worker that generates may be another user
            facts = {"base": self.loaded.base, "base_digest": self.loaded.base_digest, "licence": self.loaded.licence}
            learnt = list(self.plan.learnt_items)
            digest = write_manifest(fresh, model_id=self.plan.model_id, learnt_items=learnt, **facts)
            shutil.rmtree(target, ignore_errors=True)
            fresh.replace(target)
        return digest


def _loss_of_other(loaded: LocalModel, adapter: Path | None, cache: Path, texts: Sequence[Encoded]) -> float:
    """Loss of the base, or of the weights in ``adapter``, on the validation texts, beside the model in training."""
    other = load_local(loaded.base, cache, loaded.device.type, adapter=adapter)
    return CompletionLoss(_causal(other.model), other.device).mean(other.model, texts)


# --- batches --------------------------------------------------------------------------------------------------------


def _version(text: Versions, epoch: int) -> Encoded:
    """The text with the prompt of an epoch's turn."""
    return text[1 + epoch % (len(text) - 1)] if len(text) > 1 else text[0]


def _batches(texts: Sequence[Encoded], size: int, seed: str) -> list[list[Encoded]]:
    """An epoch: shuffled, of about equal lengths within a batch, the batches shuffled again."""
    chance = random.Random(seed)  # noqa: S311 - an order, not a secret
    order = list(range(len(texts)))
    chance.shuffle(order)
    batches: list[list[Encoded]] = []
    for start in range(0, len(order), size * _BUCKET_BATCHES):
        bucket = sorted(order[start : start + size * _BUCKET_BATCHES], key=lambda one: len(texts[one]))
        batches += [[texts[one] for one in bucket[at : at + size]] for at in range(0, len(bucket), size)]
    chance.shuffle(batches)
    return batches


# --- the model ------------------------------------------------------------------------------------------------------


def _trainable(loaded: LocalModel, settings: FineTuning, starter: StarterVoice | None) -> Any:
    """The model with what is to learn set to learn: a LoRA adapter (a fresh one is on every linear layer), or all."""
    model = loaded.model
    if loaded.device.type == "cuda":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if settings.method == "full":
        model.requires_grad_(True)
        return model
    if starter is not None:
        return attach(model, starter.path, is_trainable=True)
    from peft import LoraConfig, get_peft_model

    shape = LoraConfig(
        r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, lora_dropout=0.0, target_modules="all-linear"
    )
    torch.manual_seed(settings.seed)
    # The adapter has the model's own dtype: float32 ones cost a cast of every activation.
    return get_peft_model(model, shape, autocast_adapter_dtype=False)


def _causal(model: Any) -> PreTrainedModel:
    """The language model inside a PEFT wrapper, or the model itself; an adapter lives in its layers."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner


# --- files ----------------------------------------------------------------------------------------------------------


@dataclass
class _Metrics:
    """``metrics.jsonl``: a line per step and per evaluation."""

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **values: Any) -> None:
        rounded = {name: round(one, 6) if isinstance(one, float) else one for name, one in values.items()}
        with _clear_about_disk(self.path), self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(rounded) + "\n")

    def seconds(self) -> float:
        """What earlier attempts took."""
        return max((line["seconds"] for line in self._read()), default=0.0)

    def cut_after(self, step: int, seconds: float) -> None:
        """Forget steps after the checkpoint: they are taken again. The time they took is not forgotten."""
        kept = [line for line in self._read() if line["step"] <= step]
        if seconds and self.path.is_file():
            kept.append({"kind": "resumed", "step": max(step, 0), "seconds": round(seconds, 6)})
        text = "".join(json.dumps(line) + "\n" for line in kept)
        _write_whole(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def _read(self) -> list[dict[str, Any]]:
        found = []
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    continue  # the line that was being written when the process was killed
        return found


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``: kind (train | validation | resumed), step, loss, seconds …"""
    return _Metrics(folder / METRICS)._read()


def _save(content: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as stream:
        torch.save(content, stream)


def _write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write through a temporary name: what was there stays until the new file is whole and on the disk."""
    fresh = path.with_name(f".{path.name}.tmp")
    with _clear_about_disk(path):
        try:
            write(fresh)
            with fresh.open("rb") as stream:
                os.fsync(stream.fileno())
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        fresh.replace(path)


@contextmanager
def _clear_about_disk(path: Path) -> Iterator[None]:
    """A write that failed (disk full, read-only) as an `AdloomError` that says what is still there."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise AdloomError(
            f"{path} cannot be written: {reason}; the last good checkpoint is kept",
            "free some space and run fine-tune again: it goes on from there",
        ) from error


def _log_about_every_second() -> Callable[[Progress], None]:
    last = 0.0

    def told(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 1 or progress.step == progress.steps:
            last = now
            log.info("%s", progress)

    return told
