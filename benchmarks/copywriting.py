"""How good are the texts? A fine-tuned model beside people, a template, neighbours and the model as it came.

    .venv/bin/python benchmarks/copywriting.py --train train.jsonl --data dev.jsonl --keep var/benchmarks/copy
    .venv/bin/python benchmarks/copywriting.py --kobe kobe.jsonl --keep var/benchmarks/kobe     (a report, no gates)
    .venv/bin/python benchmarks/copywriting.py --train train.jsonl --data dev.jsonl --stages score --keep …

Rows hold ``content`` (类型#裤*颜色#…) and ``summary`` (what a person wrote). Stages: ``train`` (at most ``--minutes``),
``generate`` (``--candidates`` texts per row, of which one is chosen), ``untuned`` (the same with the weights as they
came) and ``score``. What a stage has finished lies in ``--keep`` and is not done again: a run that was killed goes on
from there. Training texts and prompts never see the data file, and a candidate is chosen by its content, the training
data and the other candidates, never by the reference. The exit code is 1 when a gate is missed.

A training prompt names what its text says, no more and no less: values that a text leaves out are left out of its
prompt, so that the model learns to work in all it is given.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from statistics import mean, median
from typing import Any

import copy_metrics as metrics
from copy_metrics import Row, clean
from copy_vocabulary import cut

from adloom.review import facts

MODEL = "package:gemma-3-270m"
STOP = "\n"
LONGEST = 200
"""Characters of a training text; the longest ones are listings."""
STAGES = ("train", "generate", "untuned", "score")
HUMAN_COPIED_MARGIN = 0.02
SET_ON = 250
"""The weights below were set on so many first rows of the dev set; the figures of the others stand beside."""
WORN = 20.0
"""What a candidate loses by phrases that the texts chosen before it hold already."""
AGREEMENT = {"bleu": 12.0, "rouge": 36.0}
"""What a candidate wins by what it shares with the others: minimum Bayes risk (Kumar and Byrne 2004)."""
SEED = 20261124
DATA_AS_OF = date(2026, 1, 1)
"""The data sets are older than any day of a shop."""


@dataclass(frozen=True)
class Gate:
    """A figure of the tuned model and what it must be."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    why: str = ""

    def holds(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def words(self) -> str:
        return f"≥ {self.at_least:.4g}" if self.at_least is not None else f"≤ {self.at_most:.4g}"


def gates(table: dict[str, dict[str, float]]) -> list[Gate]:
    """What the tuned model must reach, given the baselines of the same run."""
    human, plain_ones = table["human"], ("template", "nearest")
    return [
        Gate("coverage", at_least=0.90),
        Gate("unsupported_colour", at_most=0.033),
        Gate("distinct_4", at_least=0.40),
        Gate("self_bleu_4", at_most=0.55),
        Gate("bleu_4", at_least=6.6),
        Gate("rouge_l", at_least=23.3),
        Gate("copied", at_most=human["copied"] + HUMAN_COPIED_MARGIN, why="people's share + 2 points"),
        Gate("bleu_4", at_least=max(table[name]["bleu_4"] for name in plain_ones), why="template and nearest"),
        Gate("rouge_l", at_least=max(table[name]["rouge_l"] for name in plain_ones), why="template and nearest"),
    ]


# --- data --------------------------------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """The rows of a JSON-lines file, cleaned; a bad line is named."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            raw = json.loads(line)
            row = Row(str(raw["content"]), clean(str(raw["summary"])))
        except (ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path.name}, line {number}: no row with content and summary ({error})") from error
        if row.summary and row.values:
            rows.append(row)
    return rows


def read_kobe(path: Path) -> tuple[list[Row], list[Row]]:
    """(train, data) of a KOBE file, 80/20 by title, so that no product stands on both sides.

    The title's words are the values; those that people sell with but do not describe stay in it, so that coverage here
    is only to be compared within the table.
    """
    import jieba

    texts: dict[str, list[Row]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        words = dict.fromkeys(word for word in jieba.cut(raw["title"]) if len(word) > 1 and not word.isdigit())
        content = "*".join(f"词#{word}" for word in words)
        row = Row(content, clean(raw["description"]))
        if row.values and row.summary:
            texts.setdefault(raw["title"], []).append(row)
    titles = sorted(texts)
    random.Random(SEED).shuffle(titles)  # noqa: S311 - a split, not a secret
    boundary = round(0.8 * len(titles))
    return [row for title in titles[:boundary] for row in texts[title]], [
        texts[title][0] for title in titles[boundary:]
    ]


# --- prompts -----------------------------------------------------------------------------------------------------


class Lengths:
    """How long people write for so many attributes: what the prompt asks for."""

    def __init__(self, rows: Sequence[Row]) -> None:
        by_count: dict[int, list[int]] = {}
        for row in rows:
            by_count.setdefault(self._count(row), []).append(len(row.summary))
        self.medians = {count: median(lengths) for count, lengths in by_count.items() if len(lengths) >= 20}
        self.overall = median(len(row.summary) for row in rows)

    @staticmethod
    def _count(row: Row) -> int:
        return min(len(row.values), 14)

    def wanted(self, row: Row) -> int:
        return round(self.medians.get(self._count(row), self.overall))


def prompt(values: Sequence[str], length: int) -> str:
    """What the model reads: the values and a length in tens of characters. Short, because every token costs."""
    return f"{'、'.join(dict.fromkeys(values))}\n约{10 * round(length / 10)}字："


def few_shot_prompt(examples: Sequence[Row], values: Sequence[str], length: int) -> str:
    """The same prompt after two finished ones: without them the untuned model does not know what is wanted."""
    shown = "".join(f"{prompt(row.values, len(row.summary))}{row.summary}{STOP}{STOP}" for row in examples)
    return shown + prompt(values, length)


def training_texts(rows: Sequence[Row]) -> Iterator[tuple[str, str, str]]:
    """(prompt, completion, group) of the rows worth learning from; a group is a product's attributes."""
    for row in rows:
        if len(row.summary) > LONGEST or not metrics.ends_properly(row.summary):
            continue
        said = [
            value for value, is_said in zip(row.values, facts.carried(row.summary, row.values), strict=True) if is_said
        ]
        if len(set(said)) < 2 or is_unsupported(row.summary, row):
            continue
        yield prompt(said, len(row.summary)), row.summary.replace("\n", "") + STOP, row.content


def is_unsupported(text: str, row: Row) -> bool:
    """Does the text claim a colour, material, form or part that its attributes do not give?"""
    return any(one.severity == "block" or one.rule_id == "facts.part" for one in metrics.findings(text, row))


# --- choosing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """One text the model wrote for a row."""

    text: str
    is_finished: bool
    log_probability: float


class Chooser:
    """Picks one of a row's candidates by its content and the training data; it never sees a reference."""

    def __init__(self, train: Sequence[Row], copied: metrics.Copied, neighbours: int = 4) -> None:
        self.lengths = Lengths(train)
        self.copied = copied
        self.nearest = metrics.Neighbours(train)
        self.neighbours = neighbours
        self.written: Counter[object] = Counter()
        """4-grams of the texts chosen so far: how many texts hold them"""
        self.count = 0

    def choose(self, candidates: Sequence[Candidate], row: Row) -> Candidate:
        """The candidate with the best score, the first of equals; later ones are held against it."""
        texts = [candidate.text for candidate in candidates]
        near = [one.summary for one in self.nearest.nearest(row, self.neighbours)]
        scores = [
            self._merit(candidate, row) + self._agreement(number, texts, near) - WORN * self._worn(candidate.text)
            for number, candidate in enumerate(candidates)
        ]
        best = candidates[scores.index(max(scores))]
        self.written.update(set(metrics.ngrams(best.text, 4)))
        self.count += 1
        return best

    def _worn(self, text: str) -> float:
        """How worn a text's phrases are: the mean, over its 4-grams, of a share that grows with texts that hold it."""
        grams = set(metrics.ngrams(text, 4))
        return mean(min(1.0, self.written[gram] / 3) for gram in grams) if grams else 0.0

    def _merit(self, candidate: Candidate, row: Row) -> float:
        """Faults weigh more than any gain in likeness; among sound texts coverage comes first."""
        text = candidate.text
        if not text:
            return -100.0
        covered = mean(facts.carried(text, row.values))
        wanted = self.lengths.wanted(row)
        return (
            6.0 * covered
            - 4.0 * is_unsupported(text, row)
            - 4.0 * (not metrics.ends_properly(text) or not candidate.is_finished)
            - 3.0 * self.copied(text)
            - 2.0 * abs(len(text) - wanted) / wanted
            - 15.0 * repeated(text)
            - 2.0 * says_twice(text)
            + 0.3 * max(candidate.log_probability, -4.0)
        )

    def _agreement(self, number: int, texts: Sequence[str], near: Sequence[str]) -> float:
        """Expected likeness to what could be written here: to the other candidates and to the neighbours' texts."""
        own = texts[number]
        others = [text for place, text in enumerate(texts) if place != number and text]
        if not own or not others:
            return 0.0
        to_others = mean(agreement(own, other) for other in others)
        to_near = mean(agreement(own, other) for other in near) if near else 0.0
        return 0.7 * to_others + 0.3 * to_near


@lru_cache(maxsize=1_000_000)
def agreement(text: str, other: str) -> float:
    """What ``text`` would score if ``other`` were the reference, weighed as in `AGREEMENT`."""
    rouge = metrics.rouge(text, other)["rouge-l"] / 100
    return AGREEMENT["bleu"] * likeness(text, other) + AGREEMENT["rouge"] * rouge


def likeness(text: str, other: str) -> float:
    """Character BLEU-4 in [0, 1] of ``text`` against ``other``, smoothed as in the metric."""
    fractions = []
    for size in range(1, 5):
        own, target = metrics.ngrams(text, size), metrics.ngrams(other, size)
        hits = sum(min(count, target[gram]) for gram, count in own.items() if gram in target)
        fractions.append((hits, max(1, own.total())))
    return metrics._method3(fractions, len(text), len(other))


def repeated(text: str) -> float:
    """Share of a text's character 4-grams that stand in it before."""
    counts = metrics.ngrams(text, 4)
    return 1 - len(counts) / counts.total() if counts else 0.0


def says_twice(text: str) -> bool:
    """Does a clause of four characters or more stand in the text twice?"""
    clauses = [clause for clause in facts.CLAUSE.split(text.replace("，", ",")) if len(clause) > 3]
    return len(set(clauses)) < len(clauses)


# --- stages ------------------------------------------------------------------------------------------------------


class Work:
    """The folder in which stages leave what they finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        folder.mkdir(parents=True, exist_ok=True)

    def candidates(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def read(self, name: str) -> dict[int, list[Candidate]]:
        """Row number → candidates, of the rows that are finished; a torn last line counts as not finished."""
        found = {}
        path = self.candidates(name)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                raw = json.loads(line)
                found[int(raw["row"])] = [Candidate(**one) for one in raw["candidates"]]
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def remember(self, step: str, **figures: float) -> None:
        path = self.folder / "seconds.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        known[step] = figures
        path.write_text(json.dumps(known, indent=1))

    def figures(self) -> dict[str, Any]:
        path = self.folder / "seconds.json"
        return json.loads(path.read_text()) if path.exists() else {}


def train_model(rows: Sequence[Row], work: Work, arguments: argparse.Namespace) -> None:
    """Fine-tune on the training rows; goes on from the last checkpoint, and does nothing when it is finished."""
    from adloom.copywriting.training import TrainingText, fine_tune
    from adloom.shop import FineTuning

    texts = [TrainingText(*one) for one in training_texts(rows)]
    say(f"training on {len(texts)} of {len(rows)} texts, at most {arguments.minutes:g} minutes …")
    settings = FineTuning(
        method=arguments.method,
        max_steps=arguments.max_steps,
        max_minutes=arguments.minutes,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        lora_rank=arguments.lora_rank,
        max_tokens=320,
        validation_share=0.012,
        evaluate_every=arguments.evaluate_every,
        patience=20,
        min_new_pairs=0,
        seed=SEED,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    result = fine_tune(
        load(rows, work, arguments), texts, settings, work.folder / "model", data_as_of=DATA_AS_OF, progress=tell
    )
    used = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - cpu, "pairs": result.pairs}
    if "train" not in work.figures():
        work.remember("train", **used, **{name: one for name, one in result.metrics.items() if name != "seconds"})


def tell(progress: Any) -> None:
    if progress.step % 10 == 0:
        say(f"  {progress}")


def load(train: Sequence[Row], work: Work, arguments: argparse.Namespace, adapter: Path | None = None) -> Any:
    """The model, untuned or with what training left; its vocabulary cut to the training data's unless told not to."""
    from adloom.copywriting.model import load_local

    name = arguments.model
    if not arguments.whole_vocabulary:
        folder = work.folder / "base"
        if not folder.exists():
            texts = [text for one in training_texts(train) for text in one[:2]]
            cut(load_local(name, work.cache), texts, folder)
        name = f"path:{folder}"
    return load_local(name, work.cache, adapter=adapter)


def generate(name: str, rows: Sequence[Row], train: Sequence[Row], work: Work, arguments: argparse.Namespace) -> None:
    """Write the candidates of every row that has none yet, a batch of rows at a time."""
    from adloom.copywriting.decoding import Decoder
    from adloom.shop import Sampling

    finished = work.read(name)
    waiting = [number for number in range(len(rows)) if number not in finished]
    if not waiting:
        return
    lengths = Lengths(train)
    adapter = work.folder / "model" / "weights" if name == "tuned" else None
    decoder = Decoder(load(train, work, arguments, adapter), language="zh", stop=STOP)
    samplings = [
        Sampling(
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=arguments.max_new_tokens,
            candidates=arguments.candidates if name == "tuned" else 1,
            batch_size=arguments.sequences,
        )
        for temperature, top_p in arguments.sampling[: None if name == "tuned" else 1]
    ]
    begun, tokens = time.perf_counter(), 0
    path = work.candidates(name)
    with path.open("a", encoding="utf-8") as stream:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            stream.write("\n")
        for start in range(0, len(waiting), arguments.rows_at_a_time):
            batch = waiting[start : start + arguments.rows_at_a_time]
            wanted = [(rows[number].values, lengths.wanted(rows[number])) for number in batch]
            if name == "untuned":
                prompts = [few_shot_prompt(train[:2], *one) for one in wanted]
            else:
                prompts = [prompt(*one) for one in wanted]
            seeds = [SEED + number for number in batch]
            found: dict[int, list[Candidate]] = {}
            for sampling in samplings:
                for place, draws in decoder.decode(prompts, sampling, seeds):
                    found.setdefault(batch[place], []).extend(
                        Candidate(tidy(draw.text), draw.is_finished, draw.log_probability) for draw in draws
                    )
                    tokens += sum(draw.tokens for draw in draws)
            for number, candidates in found.items():
                line = {"row": number, "candidates": [asdict(one) for one in candidates]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
            passed = time.perf_counter() - begun
            done = start + len(batch)
            left = passed / done * (len(waiting) - done)
            say(f"  {name}: {done} of {len(waiting)} rows, {tokens / passed:.0f} tokens/s, {left / 60:.0f} min left")
    work.remember(name, seconds=time.perf_counter() - begun, tokens=tokens, rows=len(waiting))


def tidy(text: str) -> str:
    return clean(text.partition(STOP)[0].strip())


def score(rows: Sequence[Row], train: Sequence[Row], work: Work | None) -> dict[str, dict[str, float]]:
    """Output → its figures."""
    copied = metrics.Copied(row.summary for row in train)
    neighbours = metrics.Neighbours(train)
    nearest = [neighbours.nearest(row)[0].summary for row in rows]
    outputs: dict[str, list[str]] = {
        "human": [row.summary for row in rows],
        "template": [metrics.template(row) for row in rows],
        "nearest": nearest,
        "nearest_and_missing": [metrics.with_missing(text, row) for text, row in zip(nearest, rows, strict=True)],
    }
    table = {name: metrics.score(texts, rows, copied) for name, texts in outputs.items()}
    if work is None:
        return table
    for name in ("untuned", "tuned"):
        chooser = Chooser(train, copied)
        found = work.read(name)
        numbers = [number for number in sorted(found) if number < len(rows)]
        if not numbers:
            continue
        wanted = [rows[number] for number in numbers]
        first = [found[number][0] for number in numbers]
        parsed = mean(one.is_finished and metrics.ends_properly(one.text) for one in first)
        chosen = [chooser.choose(found[number], row).text for number, row in zip(numbers, wanted, strict=True)]
        table[name] = metrics.score(chosen, wanted, copied, parsed=parsed)
        table[name]["rows"] = len(numbers)
        if len(found[numbers[0]]) > 1:
            table[f"{name}_first"] = metrics.score([one.text for one in first], wanted, copied, parsed=parsed)
        if name == "tuned" and len(numbers) > SET_ON:
            table["tuned_rest"] = metrics.score(chosen[SET_ON:], wanted[SET_ON:], copied)
            table["template_rest"] = metrics.score(
                [metrics.template(row) for row in wanted[SET_ON:]], wanted[SET_ON:], copied
            )
        lines = [
            json.dumps({"row": number, "content": row.content, "text": text}, ensure_ascii=False)
            for number, row, text in zip(numbers, wanted, chosen, strict=True)
        ]
        (work.folder / f"{name}_chosen.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


# --- report ------------------------------------------------------------------------------------------------------

COLUMNS = {
    "bleu_4": "BLEU-4",
    "rouge_1": "R-1",
    "rouge_2": "R-2",
    "rouge_l": "R-L",
    "coverage": "coverage",
    "named": "(named)",
    "unsupported_colour": "colour",
    "solid_colour": "(…色)",
    "unsupported_material": "material",
    "distinct_4": "dist-4",
    "self_bleu_4": "self-BLEU",
    "copied": "copied",
    "parsed": "parsed",
    "characters": "chars",
}
NAMES = {
    "human": "people (reference)",
    "template": "one template",
    "nearest": "nearest neighbour",
    "nearest_and_missing": "… and what is missing",
    "untuned": "the model, untuned",
    "tuned_first": "tuned, first candidate",
    "tuned": "tuned, chosen",
    "tuned_rest": f"… rows from {SET_ON + 1} on",
    "template_rest": "one template, those rows",
}


def show(table: dict[str, dict[str, float]], checked: list[dict[str, Any]]) -> None:
    """The table, and which gates hold."""
    print(f"{'':<24}" + "".join(f"{title:>10}" for title in COLUMNS.values()))
    for name, title in NAMES.items():
        if name in table:
            cells = (cell(column, table[name][column]) for column in COLUMNS)
            print(f"{title:<24}" + "".join(f"{text:>10}" for text in cells))
    for one in checked:
        mark = "ok    " if one["holds"] else "MISSED"
        why = f" ({one['why']})" if one["why"] else ""
        print(
            f"{mark} {COLUMNS[one['figure']]:<10} {cell(one['figure'], one['value']):>8}  wanted {one['wanted']}{why}"
        )


def cell(column: str, value: float) -> str:
    percent = column in ("bleu_4", "rouge_1", "rouge_2", "rouge_l", "characters")
    return f"{value:.1f}" if column == "characters" else f"{value:.2f}" if percent else f"{value:.3f}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pairs(text: str) -> list[tuple[float, float]]:
    """0.7:0.9,0.9:0.95 as numbers."""
    return [(float(one), float(other)) for one, _, other in (part.partition(":") for part in text.split(","))]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = found.add_argument
    add("--train", type=Path, help="rows to learn from")
    add("--data", type=Path, help="rows to write and score")
    add("--kobe", type=Path, help="a KOBE file instead of --train and --data; a report without gates")
    add("--json", action="store_true")
    add("--keep", type=Path, help="folder of the stages; without it only the baselines are scored")
    add("--stages", default=",".join(STAGES), help="of " + ",".join(STAGES))
    add("--minutes", type=float, default=60, help="cap of fine-tuning")
    add("--candidates", type=int, default=6)
    add("--limit", type=int, help="score and write only the first rows of the data")
    add("--untuned-rows", type=int, default=100, help="rows that the untuned model writes")
    add("--model", default=MODEL)
    add("--whole-vocabulary", action="store_true", help="do not cut it to the training data's words")
    add("--method", default="full", choices=("lora", "full"))
    add("--lora-rank", type=int, default=32)
    add("--learning-rate", type=float, default=1.5e-4)
    add("--batch-size", type=int, default=8)
    add("--max-steps", type=int, default=1000)
    add("--evaluate-every", type=int, default=100)
    add("--sampling", type=pairs, default="0.9:0.95,0.75:0.95", help="temperature:top-p, with --candidates of each")
    add("--max-new-tokens", type=int, default=120)
    add("--sequences", type=int, default=48, help="decoded together")
    add("--rows-at-a-time", type=int, default=25)
    return found


def read_data(arguments: argparse.Namespace, usage: argparse.ArgumentParser) -> tuple[list[Row], list[Row]]:
    """(train, data) as asked for."""
    if arguments.kobe:
        train, rows = read_kobe(arguments.kobe)
    elif arguments.train and arguments.data:
        train, rows = read(arguments.train), read(arguments.data)
    else:
        usage.error("name --train and --data, or --kobe")
    return train, rows[: arguments.limit] if arguments.limit else rows


def write(train: list[Row], rows: list[Row], work: Work, stages: list[str], arguments: argparse.Namespace) -> None:
    """The stages that need a model."""
    # Two threads spinning on one contended core decode ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "train" in stages:
        train_model(train, work, arguments)
    if "generate" in stages:
        generate("tuned", rows, train, work, arguments)
    if "untuned" in stages:
        generate("untuned", rows[: arguments.untuned_rows], train, work, arguments)


def check(table: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Every gate with the tuned model's figure and whether it holds."""
    return [
        {
            "figure": gate.figure,
            "value": table["tuned"][gate.figure],
            "wanted": gate.words(),
            "why": gate.why,
            "holds": gate.holds(table["tuned"][gate.figure]),
        }
        for gate in gates(table)
    ]


def main() -> None:
    usage = parser()
    arguments = usage.parse_args()
    stages = arguments.stages.split(",")
    if unknown := set(stages) - set(STAGES):
        usage.error(f"--stages: {', '.join(sorted(unknown))}: none of {', '.join(STAGES)}")
    train, rows = read_data(arguments, usage)
    work = Work(arguments.keep) if arguments.keep else None
    if work is not None:
        write(train, rows, work, stages, arguments)
    if "score" not in stages:
        return
    table = score(rows, train, work)
    checked = check(table) if "tuned" in table and not arguments.kobe else []
    if arguments.json:
        report = {"rows": len(rows), "train": len(train), "table": table, "gates": checked}
        print(json.dumps(report | {"stages": work.figures() if work else {}}, ensure_ascii=False))
    else:
        show(table, checked)
    if not all(one["holds"] for one in checked):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
