"""Make the starter voice: a LoRA adapter that learns from the starter corpus and from nothing else.

    .venv/bin/python scripts/make_starter_voice.py                        half an hour on two cores
    .venv/bin/python scripts/make_starter_voice.py --base package:NAME    for another weights package

The result, ``src/adloom/copywriting/starter/voices/<name>/``, is part of the repository: a new shop with that base
writes with it on day one, and its first training goes on from it. Make it again after a change of the corpus
(``tests/copywriting/test_starter.py`` says when). The same corpus, settings and machine give the same bytes; killed, it
goes on from its last checkpoint. About a tenth of the items is held out for validation and never learnt.
"""

from __future__ import annotations

import os

# Read when torch loads: threads that wait by spinning slow each other down wherever a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from adloom.copywriting import starter, weights
from adloom.copywriting.model import pinned_digest
from adloom.copywriting.pairs import training_texts
from adloom.copywriting.training import TrainingResult, fine_tune
from adloom.creative import Language, channels
from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.shop import FineTuning

LANGUAGES: tuple[Language, ...] = ("zh", "en")
CORPUS_AS_OF = date(2026, 11, 24)
"""When the corpus was last written to: a fact of the result, so the clock is not asked."""
TRAINING = FineTuning(
    max_steps=240, batch_size=8, learning_rate=8e-4, lora_rank=16, evaluate_every=80, patience=2, validation_share=0.1
)
SHOPS: Mapping[Language, Sequence[str]] = {
    "zh": (
        "像懂行的朋友聊天：真诚、具体、有画面感；只说商品真有的特点，不夸张，不催促。",
        "专业可靠，用词克制，先说事实。",
        "轻松俏皮，像在群里和闺蜜聊天。",
        "温柔细腻，写生活里的小场景。",
        "干脆利落，一句话说清好在哪里。",
        "年轻有活力，敢玩，不端着。",
    ),
    "en": (
        "Like a friend who knows the subject: honest, concrete, vivid; no hype, no hurry.",
        "Expert and calm; facts first.",
        "Playful and quick, never loud.",
        "Warm and attentive, at home in small everyday scenes.",
        "Crisp: one sentence that says what is good about it.",
        "Young and curious, does not take itself too seriously.",
    ),
}
"""How shops may sound: every second time a prompt is read, it names one of these; a shop's own is then nothing new."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="package:gemma-3-270m", help="a weights package")
    parser.add_argument("--work", type=Path, help="where it trains; default: under ADLOOM_HOME")
    parser.add_argument("--voices", type=Path, default=starter.VOICES, help="where the result goes")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        folder = make(given.base, given.work or settings().home / "starter_voice", given.voices)
    except AdloomError as error:
        sys.stderr.write(f"{error.message}\n{error.next_step}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


def make(base: str, work: Path, voices: Path, training: FineTuning = TRAINING) -> Path:
    """Train, and put the voice of ``base`` into ``voices``; returns its folder."""
    if pinned_digest(base) is None:
        raise AdloomError(f"{base}: a voice belongs to a base whose digest is pinned", "take a weights package")
    pairs = [pair for language in LANGUAGES for pair in starter.starter_pairs(language)]
    result = fine_tune(
        base, training_texts(pairs, SHOPS), training, work, data_as_of=CORPUS_AS_OF, cache=settings().home / "weights"
    )
    folder = voices / base.partition(":")[2]
    fresh = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(result.path, fresh)
    package = weights.weights_package(base.partition(":")[2])
    for text in package.licence_files:
        if (source := text.find()) is not None:
            shutil.copy(source, fresh)
    if package.notice:
        (fresh / "NOTICE.md").write_text(f"{package.notice}\n", encoding="utf-8")
    known = weights.check_manifest(fresh)
    digest = weights.write_manifest(
        fresh,
        base=result.base,
        base_digest=result.base_digest,
        licence=result.licence,
        corpus_digest=starter.corpus_digest(),
        learnt_items=known["learnt_items"],
        configuration=result.configuration,
        metrics={name: value for name, value in result.metrics.items() if name != "seconds"},
    )
    (fresh / "README.md").write_text(readme(result, digest), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return folder


def readme(result: TrainingResult, digest: str) -> str:
    """What lies there, of what and how good it is."""
    metrics, chosen = result.metrics, result.configuration
    places = " and ".join(f"{len(channels(language))} channels in {language}" for language in LANGUAGES)
    return f"""# Starter voice for `{result.base}`

A LoRA adapter that lets a new shop write on day one ({places}). It learnt from
this project's own starter corpus (`../../zh.jsonl`, `../../en.jsonl`) and from nothing else: no shop's data.
It is used only on the base it was trained on, and replaced by the shop's own model once that is better.

| | |
|---|---|
| base | `{result.base}`, SHA-256 `{result.base_digest}` |
| adapter digest | `{digest}` |
| corpus digest | `{starter.corpus_digest()}` |
| learnt from | {result.pairs} pairs; validated on {result.validation_pairs} pairs of items it never learnt from |
| LoRA | rank {chosen["lora_rank"]} on all linear layers, bfloat16 |
| training | {metrics["steps"]} steps of {chosen["batch_size"]} pairs ({metrics["tokens"]:,} tokens), learning rate \
{chosen["learning_rate"]}, seed {chosen["seed"]}; best at step {metrics["best_step"]}, stopped by {metrics["stopped"]} |
| validation loss per token | base {metrics["loss_base"]:.3f}, with the voice {metrics["loss_tuned"]:.3f} \
({metrics["validation_tokens"]:,} tokens) |

Made by `.venv/bin/python scripts/make_starter_voice.py --base {result.base}`.

## Licence

{result.licence}. This adapter is a Model Derivative of the base: whoever passes it on passes on
the terms beside this file and their use restrictions. The base's own files are not part of this repository.
"""


if __name__ == "__main__":
    sys.exit(main())
