"""How fast is copy written? Adloom's decoding against the usual script, with the same model on the same machine.

    .venv/bin/python benchmarks/generation.py                       the default model, on what the machine has
    .venv/bin/python benchmarks/generation.py --adapter FOLDER      with the shop's own weights: a run as in real life
    .venv/bin/python benchmarks/generation.py --shape qwen3-0.6b    random weights of that shape: speed needs no others

The usual script is transformers' ``pipeline("text-generation")``, one prompt at a time. Both read the prompts of the
same briefs (starter corpus, both languages), draw one text each at the same temperature and top-p and write the same
number of tokens: the end of a text is ignored. The usual script takes the first ``--baseline-prompts`` briefs only;
its tokens per second are compared, and it would take the others as long. Then, with candidates and ends as a shop has
them, how many candidates are written a second.

What the memory would allow: every step of decoding reads the weights once, and the keys and values of every sequence.
Those bytes by the time of the decoding (prefill subtracted), as a share of the rate at which this machine copies.
Fine-tuning: tokens a second, and its floating-point operations (6 per parameter and token, attention not counted) as a
share of the rate of a large matrix product in the same precision. Both rates are measured in the same run.
Elapsed time means little beside other load: then compare the CPU seconds, which the report gives beside it.
"""

from __future__ import annotations

import os

# Read when torch loads: threads that wait by spinning slow each other down wherever a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import math
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from adloom.copywriting.decoding import Decoder
from adloom.copywriting.model import LocalModel, load_local
from adloom.copywriting.prompts import STOP, Unparsable, completion, parse, prompt
from adloom.copywriting.starter import starter_pairs
from adloom.copywriting.training import TrainingText, fine_tune
from adloom.creative import Brief, Language, Pair
from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.shop import FineTuning, Sampling

LANGUAGES: tuple[Language, Language] = ("zh", "en")
RATIOS = {"cpu": 5.0, "cuda": 20.0}
BANDWIDTH_SHARE = 0.5
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 4096,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}
"""Qwen3 shapes; ``tiny`` is for the tests."""


# --- models and texts -----------------------------------------------------------------------------------------------


def pairs(count: int) -> list[Pair]:
    """``count`` pairs of the starter corpus, half of them in each language; over again where it has fewer."""
    chinese, english = starter_pairs("zh"), starter_pairs("en")
    half = [chinese[n % len(chinese)] for n in range((count + 1) // 2)]
    return half + [english[n % len(english)] for n in range(count // 2)]


def random_model(shape: str, device: str) -> LocalModel:
    """A Qwen3 of that shape with random weights, and a tokenizer trained on the starter corpus."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    # Few merges would make prompts of several times the usual tokens.
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(
        (prompt(pair.brief) + completion(pair.copy_, pair.brief.language) for pair in pairs(700)), trainer
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")  # noqa: S106
    tokenizer.padding_side = "left"
    torch.manual_seed(0)
    configuration = Qwen3Config(**SHAPES[shape], pad_token_id=0, eos_token_id=1)
    where = torch.device(device)
    with torch.device(where):
        model = Qwen3ForCausalLM._from_config(configuration, dtype=torch.bfloat16)
    return LocalModel(model.eval(), tokenizer, where, f"random:{shape}", "0" * 64, "none: random weights")


# --- what the machine can do ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and of the processors."""

    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Any], device: torch.device) -> Took:
    """How long it takes until the device has done it."""
    _wait(device)
    began, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return Took(time.perf_counter() - began, time.process_time() - cpu)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second, read and written, of copying one large tensor to another; the best of several."""
    size = 2**30 if device.type == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    repeats = 20 if device.type == "cuda" else 3

    def work() -> None:
        for _ in range(repeats):
            target.copy_(source)

    return max(2 * size * repeats / timed(work, device).seconds for _ in range(4))


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product; the best of several."""
    size = 8192 if device.type == "cuda" else 2048
    one = torch.randn(size, size, device=device, dtype=dtype)
    repeats = 10 if device.type == "cuda" else 1

    def work() -> None:
        for _ in range(repeats):
            one @ one

    return max(2 * size**3 * repeats / timed(work, device).seconds for _ in range(4))


# --- generation -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """Tokens written, in how many seconds."""

    tokens: int
    took: Took

    @property
    def seconds(self) -> float:
        return self.took.seconds

    @property
    def rate(self) -> float:
        return self.tokens / self.took.seconds

    def as_dict(self) -> dict[str, float]:
        took = self.took
        return {"tokens": self.tokens, "seconds": took.seconds, "cpu_seconds": took.cpu_seconds, "rate": self.rate}


def usual_script(local: LocalModel, prompts: Sequence[str], sampling: Sampling) -> Speed:
    """transformers' pipeline, a prompt at a time."""
    from transformers import GenerationConfig, pipeline

    writes = pipeline("text-generation", model=local.model, tokenizer=local.tokenizer, device=local.device)
    chosen = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=None,
        pad_token_id=local.tokenizer.pad_token_id,
    )
    # The model's own configuration would fill in the end-of-text token that is to be ignored.
    own, local.model.generation_config = local.model.generation_config, chosen
    written: list[int] = []

    def work(texts: Sequence[str]) -> None:
        for text in texts:
            found = writes(text, generation_config=chosen, return_tensors=True)
            read = len(local.tokenizer(text).input_ids)
            written.append(len(found[0]["generated_token_ids"]) - read)

    try:
        torch.manual_seed(0)
        work(prompts[:1])
        written.clear()
        took = timed(lambda: work(prompts), local.device)
    finally:
        local.model.generation_config = own
    if set(written) != {sampling.max_new_tokens}:
        raise AdloomError(f"the usual script wrote {sorted(set(written))} tokens, not {sampling.max_new_tokens}")
    return Speed(sum(written), took)


class Ours:
    """Adloom's decoding of briefs, made ready before the time is taken: a decoder per language, as a shop has them, or
    one for both where every word may be written (``cut``: not)."""

    def __init__(self, local: LocalModel, cut: bool) -> None:
        self.local = local
        self.decoders: dict[tuple[Language, ...], Decoder] = {("zh", "en"): Decoder(local)}
        if cut:
            self.decoders = {(one,): Decoder(local, one, "\n" + STOP[one]) for one in LANGUAGES}

    def draw(self, briefs: Sequence[Brief], sampling: Sampling, ignore_end: bool) -> tuple[Speed, float]:
        """How fast, and the share of the texts that parse."""
        written, parsed, count = 0, 0, 0

        def work() -> None:
            nonlocal written, parsed, count
            for languages, decoder in self.decoders.items():
                own = [brief for brief in briefs if brief.language in languages]
                prompts = [prompt(brief) for brief in own]
                for number, draws in decoder.decode(prompts, sampling, range(len(own)), ignore_end=ignore_end):
                    written += sum(draw.tokens for draw in draws)
                    count += len(draws)
                    parsed += sum(_parses(draw.text, own[number].language) for draw in draws)

        took = timed(work, self.local.device)
        return Speed(written, took), parsed / max(count, 1)

    def bytes_read(self, briefs: Sequence[Brief], sampling: Sampling) -> float:
        """Bytes of weights, keys and values that decoding these briefs, ends ignored, has to read."""
        total = 0.0
        for languages, decoder in self.decoders.items():
            lengths = [len(decoder.encode(prompt(brief))) for brief in briefs if brief.language in languages]
            rows = len(lengths) * sampling.candidates
            if not rows:
                continue
            slots = decoder.slots(max(lengths) + sampling.max_new_tokens, sampling)
            steps = math.ceil(rows / slots) * sampling.max_new_tokens
            total += steps * self._weights(decoder)
            read = sum(length * sampling.max_new_tokens for length in lengths) * sampling.candidates
            read += rows * sampling.max_new_tokens * (sampling.max_new_tokens - 1) / 2
            total += read * decoder.token_bytes
        return total

    def _weights(self, decoder: Decoder) -> int:
        """Bytes of a step's weights: every layer's, and the rows of the last matrix that are used."""
        model = self.local.model
        full = model.get_output_embeddings().weight
        apart = {full.data_ptr(), model.get_input_embeddings().weight.data_ptr()}
        layers = sum(one.nbytes for one in model.parameters() if one.data_ptr() not in apart)
        head = decoder.head()
        return layers + (full if head is None else head.weight).nbytes


def _parses(text: str, language: Language) -> bool:
    try:
        parse(text, language)
    except Unparsable:
        return False
    return True


# --- fine-tuning ----------------------------------------------------------------------------------------------------


def training_speed(local: LocalModel, steps: int, batch: int) -> dict[str, float]:
    """Tokens and floating-point operations a second of full fine-tuning, first steps and validation left out."""
    texts = [
        TrainingText(prompt(pair.brief), completion(pair.copy_, pair.brief.language), pair.brief.item.item_id)
        for pair in pairs(700)
    ]
    chosen = FineTuning(
        method="full", max_steps=steps, batch_size=batch, validation_share=0.02, evaluate_every=10_000, patience=1000
    )
    with tempfile.TemporaryDirectory() as folder:
        fine_tune(local, texts, chosen, Path(folder), data_as_of=date(2026, 1, 1), progress=lambda _: None)
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
    first = min(2, len(rows) - 1)
    seconds = rows[-1]["seconds"] - rows[first - 1]["seconds"] if first else rows[-1]["seconds"]
    tokens = sum(row["tokens"] for row in rows[first:])
    learnt = sum(len(local.tokenizer(text.completion).input_ids) for text in texts)
    read = sum(len(local.tokenizer(text.prompt).input_ids) for text in texts)
    head = local.model.get_output_embeddings().weight.numel()
    apart = {
        local.model.get_output_embeddings().weight.data_ptr(),
        local.model.get_input_embeddings().weight.data_ptr(),
    }
    layers = sum(one.numel() for one in local.model.parameters() if one.data_ptr() not in apart)
    each = 6 * (layers + head * learnt / (learnt + read))
    return {"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "operations": each * tokens / seconds}


# --- the report -----------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one run."""
    local = _model(options)
    device = local.device
    sampling = Sampling(max_new_tokens=options.new_tokens, candidates=1, batch_size=options.batch_size)
    briefs = [pair.brief for pair in pairs(options.briefs)]
    few = [prompt(brief) for brief in _spread(briefs, options.baseline_prompts)]
    ours = Ours(local, cut=not (options.full_vocabulary or options.shape))
    lengths = sorted(len(local.tokenizer(prompt(brief)).input_ids) for brief in briefs)
    found: dict[str, Any] = {
        "model": local.base,
        "dtype": str(local.model.dtype).removeprefix("torch."),
        "machine": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} cores",
        "device": device.type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "briefs": len(briefs),
        "new_tokens": options.new_tokens,
        "batch_size": options.batch_size,
        "prompt_tokens": {"median": lengths[len(lengths) // 2], "most": lengths[-1]},
        "words": {
            "+".join(languages): decoder.config.vocab_size if decoder.words is None else len(decoder.words)
            for languages, decoder in ours.decoders.items()
        },
        "copy_bytes_per_second": copy_rate(device),
        "matmul_flops": matmul_rate(device, local.model.dtype),
    }
    ours.draw(briefs[:1] + briefs[-1:], sampling.model_copy(update={"max_new_tokens": 4}), ignore_end=True)
    usual = usual_script(local, few, sampling)
    whole, _ = ours.draw(briefs, sampling, ignore_end=True)
    # One token each: the prompts and next to nothing else.
    prefill, _ = ours.draw(briefs, sampling.model_copy(update={"max_new_tokens": 1}), ignore_end=True)
    decode = max(whole.seconds - prefill.seconds, 1e-9)
    read = ours.bytes_read(briefs, sampling) / decode
    found |= {
        "usual": {"prompts": len(few)} | usual.as_dict(),
        "ours": whole.as_dict(),
        "ratio": whole.rate / usual.rate,
        "cpu_ratio": usual.took.cpu_seconds / usual.tokens / (whole.took.cpu_seconds / whole.tokens),
        "prefill_seconds": prefill.seconds,
        "decode_rate": whole.tokens / decode,
        "bytes_read_per_second": read,
        "bandwidth_share": read / found["copy_bytes_per_second"],
    }
    found["shop"] = _as_a_shop(ours, briefs, options)
    if options.train_steps:
        speed = training_speed(local, options.train_steps, options.train_batch)
        found["training"] = speed | {"share": speed["operations"] / found["matmul_flops"]}
    found["peak_memory_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return found


def _spread(briefs: Sequence[Brief], count: int) -> list[Brief]:
    """``count`` briefs from all over the list: both languages, like lengths."""
    return [briefs[n * len(briefs) // count] for n in range(count)]


def _model(options: argparse.Namespace) -> LocalModel:
    if options.shape:
        device = "cuda" if torch.cuda.is_available() and options.device != "cpu" else "cpu"
        return random_model(options.shape, device)
    cache = settings().home / "models"
    return load_local(options.model, cache, options.device, adapter=options.adapter, dtype=options.dtype)


def _as_a_shop(ours: Ours, briefs: Sequence[Brief], options: argparse.Namespace) -> dict[str, float]:
    """Candidates as a shop draws them, ends and stop line observed."""
    sampling = Sampling(batch_size=options.batch_size)
    some = _spread(briefs, max(1, min(len(briefs), options.shop_briefs)))
    speed, parsed = ours.draw(some, sampling, ignore_end=False)
    drawn = len(some) * sampling.candidates
    return {
        "briefs": len(some),
        "candidates": drawn,
        "rate": speed.rate,
        "candidates_per_second": drawn / speed.seconds,
        "tokens_per_candidate": speed.tokens / drawn,
        "parsed": parsed,
    }


def report(found: dict[str, Any]) -> str:
    """The figures for a person."""
    wanted = RATIOS[found["device"]]
    lines = [
        f"{found['model']}, {found['dtype']}, {found['machine']}, torch {found['torch']}: {found['briefs']} briefs × "
        f"{found['new_tokens']} tokens, {found['batch_size']} together",
        "",
        f"usual script      {found['usual']['rate']:>12,.1f} tokens/s   ({found['usual']['prompts']} prompts, one at "
        "a time)",
        f"Adloom            {found['ours']['rate']:>12,.1f} tokens/s   (prefill {found['prefill_seconds']:.0f} of "
        f"{found['ours']['seconds']:.0f} s)",
        f"ratio             {found['ratio']:>12.1f} ×          (wanted: {wanted:.0f} ×; in CPU seconds "
        f"{found['cpu_ratio']:.1f} ×)",
        f"decoding alone    {found['decode_rate']:>12,.1f} tokens/s",
        f"  reads           {found['bytes_read_per_second'] / 1e9:>12,.1f} GB/s",
        f"  machine copies  {found['copy_bytes_per_second'] / 1e9:>12,.1f} GB/s       share "
        + f"{found['bandwidth_share']:.0%}"
        + (f" (wanted: {BANDWIDTH_SHARE:.0%})" if found["device"] == "cuda" else ""),
        f"as a shop draws   {found['shop']['rate']:>12,.1f} tokens/s   ({found['shop']['candidates_per_second']:.1f} "
        f"candidates/s of {found['shop']['tokens_per_candidate']:.0f} tokens; {found['shop']['parsed']:.0%} parse)",
    ]
    if "training" in found:
        training = found["training"]
        lines += [
            f"fine-tuning       {training['rate']:>12,.1f} tokens/s   ({training['operations'] / 1e12:.2f} of "
            f"{found['matmul_flops'] / 1e12:.2f} TFLOP/s, {training['share']:.0%})",
        ]
    lines.append(f"peak memory       {found['peak_memory_gb']:>12.1f} GB")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="package:gemma-3-270m")
    parser.add_argument("--adapter", type=Path, help="weights of a fine-tuning")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="random weights of this shape instead of a model")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="default: what is faster here")
    parser.add_argument("--briefs", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--batch-size", type=int, help="default: 64 on a CPU, 256 on a card")
    parser.add_argument("--baseline-prompts", type=int, default=8)
    parser.add_argument("--shop-briefs", type=int, default=32)
    parser.add_argument("--full-vocabulary", action="store_true", help="write every word, whatever its script")
    parser.add_argument("--train-steps", type=int, default=0, help="measure fine-tuning, too")
    parser.add_argument("--train-batch", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    on_card = torch.cuda.is_available() and options.device != "cpu"
    options.batch_size = options.batch_size or (256 if on_card else 64)
    try:
        found = measure(options)
    except AdloomError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1) if options.json else report(found))
    is_slow = found["ratio"] < RATIOS[found["device"]]
    is_wasteful = found["device"] == "cuda" and found["bandwidth_share"] < BANDWIDTH_SHARE
    return int(is_slow or is_wasteful)


if __name__ == "__main__":
    sys.exit(main())
