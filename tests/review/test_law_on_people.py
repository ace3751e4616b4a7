"""The law rules on texts that people wrote (../shared/data): planted words found, few texts blocked, labels kept.

``law_labels.csv``: hashes and verdicts of all 622 texts with 最, 第一, 顶级, 极致 and the like, judged one by one:
violation, person (a superlative of taste or fit that a person is to judge) or harmless. ``tune`` and ``held_out`` are
halves by hash of 240 drawn at random and judged before any rule was written; ``blind_1`` to ``blind_3`` are the rest,
each judged before the rules of that time were run on it, and learnt from afterwards.
"""

from __future__ import annotations

import csv
import importlib.util
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
LABELS = Path(__file__).with_name("law_labels.csv")
FILES = [DATA / "advertisegen" / "train.jsonl", DATA / "advertisegen" / "dev.jsonl", DATA / "kobe" / "dev.jsonl"]
pytestmark = pytest.mark.skipif(not all(path.exists() for path in FILES), reason="../shared/data is absent")

spec = importlib.util.spec_from_file_location("benchmark_of_review", ROOT / "benchmarks" / "review.py")
benchmark = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = benchmark
spec.loader.exec_module(benchmark)


@pytest.fixture(scope="module")
def texts():
    return list(benchmark.read(FILES))


def labels(*halves):
    with LABELS.open(encoding="utf-8", newline="") as stream:
        return {row["sha256"]: row["label"] for row in csv.DictReader(stream) if row["half"] in halves}


def judged(texts, verdicts):
    """(label, what the rules of words say) → texts"""
    counts = Counter()
    for one in texts:
        if one.digest in verdicts:
            findings = [finding for finding in benchmark.found(one) if finding.rule_id in benchmark.LABELLED]
            severities = {finding.severity for finding in findings}
            said = "blocked" if "block" in severities else "warned" if severities else "passed"
            counts[verdicts[one.digest], said] += 1
    return counts


def precision_and_recall(counts):
    right = counts["violation", "blocked"]
    said = sum(count for (_, got), count in counts.items() if got == "blocked")
    true = sum(count for (label, _), count in counts.items() if label == "violation")
    return right / said, right / true


def test_violations_of_the_half_held_out_are_blocked_and_nothing_else(texts):
    verdicts = labels("held_out")
    counts = judged(texts, verdicts)
    assert sum(counts.values()) == len(verdicts) >= 80
    precision, recall = precision_and_recall(counts)
    assert precision >= 0.85
    assert recall >= 0.9


def test_planted_words_are_found_in_some_texts(texts):
    found, planted, missed = benchmark.planted(random.Random(1).sample(texts, 60), words_taken=12)
    assert planted > 100
    assert found == planted, missed


def test_of_some_texts_few_are_blocked(texts):
    some = random.Random(2).sample(texts, 1200)
    blocked = sum(any(finding.severity == "block" for finding in benchmark.found(one)) for one in some)
    assert blocked / len(some) <= 0.03


@pytest.mark.proof
def test_every_planted_word_is_found_and_at_most_two_percent_of_peoples_texts_are_blocked(texts):
    found, planted, missed = benchmark.planted(texts)
    assert found == planted, missed
    blocked = sum(any(finding.severity == "block" for finding in benchmark.found(one)) for one in texts)
    assert blocked / len(texts) <= 0.02


@pytest.mark.proof
def test_all_labels_stay_kept(texts):
    counts = judged(texts, labels("tune", "held_out", "blind_1", "blind_2", "blind_3"))
    precision, recall = precision_and_recall(counts)
    assert precision >= 0.95
    assert recall >= 0.95
    asked = counts["person", "warned"] + counts["person", "blocked"]
    assert asked / sum(count for (label, _), count in counts.items() if label == "person") >= 0.8
