"""Metrics of ad texts and the baselines they are read beside; nothing here knows a model.

BLEU-4 on characters and ROUGE on jieba words are computed as in the published ChatGLM-6B run on AdvertiseGen (nltk's
`sentence_bleu` with smoothing method 3, `rouge_chinese`, both averaged over texts and given in percent), so that the
figures can stand beside it. Shares lie in [0, 1]. A text is scored after `clean`.
"""

from __future__ import annotations

import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from statistics import mean

from adloom.review import facts
from adloom.review.finding import Finding

COPIED_CHARACTERS = 13
SELF_BLEU_ROWS, SELF_BLEU_BLOCK = 500, 125
ENDINGS = tuple("。！？!?~～…”」』")
PLACEHOLDERS = re.compile(r"<UNK>|<?BRAND>?", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One product: its attributes as (slot, value) pairs, and what a person wrote about it."""

    content: str
    summary: str

    @cached_property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        pairs = (part.partition("#") for part in self.content.split("*"))
        return tuple((slot.strip(), value.strip()) for slot, _, value in pairs if value.strip())

    @cached_property
    def values(self) -> tuple[str, ...]:
        return tuple(value for _, value in self.attributes)


def clean(text: str) -> str:
    """The text without the data set's placeholders and without the empty quotes and doubled marks they leave."""
    text = PLACEHOLDERS.sub("", text).strip()
    text = re.sub(r"[“\"「『《(（]\s*[”\"」』》)）]", "", text)
    text = re.sub(r"([，。、；：！？,;])(?:[，、；：,;])+", r"\1", text)
    return re.sub(r"^[，。、；：！？,.;:!?的]+", "", text)


def bleu4(text: str, reference: str) -> float:
    """Character BLEU-4 in percent; 0 for an empty text."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    if not text:
        return 0.0
    # nltk divides by zero for texts shorter than four characters only without smoothing; method 3 is the published one.
    return 100 * float(sentence_bleu([list(reference)], list(text), smoothing_function=SmoothingFunction().method3))


def rouge(text: str, reference: str) -> dict[str, float]:
    """F of ROUGE-1, ROUGE-2 and ROUGE-L over jieba words, in percent; 0 for an empty text."""
    import jieba
    from rouge_chinese import Rouge

    jieba.setLogLevel(logging.WARNING)
    hypothesis, target = (" ".join(jieba.cut(one)) for one in (text, reference))
    if not hypothesis.strip() or not target.strip():
        return {"rouge-1": 0.0, "rouge-2": 0.0, "rouge-l": 0.0}
    scores = Rouge().get_scores(hypothesis, target)[0]
    return {name: 100 * values["f"] for name, values in scores.items()}


def ngrams(text: Sequence[str] | str, size: int) -> Counter[object]:
    """How often every run of ``size`` characters stands in ``text``."""
    return Counter(text[start : start + size] for start in range(len(text) - size + 1))


def distinct(texts: Iterable[str], size: int = 4) -> float:
    """Different character n-grams over all n-grams of all texts; falls as the number of texts grows."""
    counts: Counter[object] = Counter()
    for text in texts:
        counts.update(ngrams(text, size))
    return len(counts) / counts.total() if counts else 0.0


def fixed_rows(count: int, most: int = SELF_BLEU_ROWS) -> list[int]:
    """Which rows self-BLEU is computed on: the same ones for every output of the same data."""
    return sorted(random.Random(0).sample(range(count), most)) if count > most else list(range(count))  # noqa: S311


def likeness(texts: Sequence[str]) -> float:
    """Self-BLEU-4 in fixed blocks: of 500 rows each text against the 124 others of its block.

    Self-BLEU grows with the number of references; with blocks of this size human texts have the .371 of the
    reference table (all 499 others: .54), so that a limit stated beside that figure keeps its meaning.
    """
    count = max(1, round(len(texts) / SELF_BLEU_BLOCK))
    blocks = [texts[start::count] for start in range(count)]
    blocks = [block for block in blocks if len(block) > 1]
    return sum(self_bleu4(block) * len(block) for block in blocks) / max(1, sum(map(len, blocks)))


def self_bleu4(texts: Sequence[str]) -> float:
    """Mean BLEU-4 in [0, 1] of every text against all others as references; high where all texts are alike.

    Equal to nltk's `sentence_bleu` with method 3 and len(texts) − 1 references, but computed from the two highest
    counts of every n-gram instead of a comparison of all pairs.
    """
    if len(texts) < 2:
        return 0.0
    counts = [[ngrams(text, size) for size in range(1, 5)] for text in texts]
    highest = [_two_highest([of_text[size] for of_text in counts]) for size in range(4)]
    lengths = sorted(len(text) for text in texts)
    scores = []
    for number, text in enumerate(texts):
        fractions = []
        for size in range(4):
            own = counts[number][size]
            hits = sum(
                min(count, second if owner == number else first)
                for gram, count in own.items()
                for first, owner, second in (highest[size][gram],)
            )
            fractions.append((hits, max(1, own.total())))
        closest = _closest_other(lengths, len(text))
        scores.append(_method3(fractions, len(text), closest))
    return mean(scores)


def _two_highest(counts: Sequence[Counter[object]]) -> dict[object, tuple[int, int, int]]:
    """n-gram → (highest count in a text, that text, highest count in any other text)."""
    found: dict[object, tuple[int, int, int]] = {}
    for number, of_text in enumerate(counts):
        for gram, count in of_text.items():
            first, owner, second = found.get(gram, (0, -1, 0))
            if count > first:
                found[gram] = (count, number, first)
            elif count > second:
                found[gram] = (first, owner, count)
    return found


def _closest_other(lengths: list[int], own: int) -> int:
    """The reference length nearest to ``own`` (the shorter of two equally near ones), one text of ``own`` left out."""
    others = list(lengths)
    others.remove(own)
    return min(others, key=lambda length: (abs(length - own), length))


def _method3(fractions: Sequence[tuple[int, int]], length: int, reference_length: int) -> float:
    """BLEU with NIST geometric smoothing: the k-th n-gram order without a hit counts 1 / (2^k · n-grams)."""
    if length == 0 or fractions[0][0] == 0:
        return 0.0
    zeros, total = 0, 0.0
    for hits, grams in fractions:
        if hits == 0:
            zeros += 1
            total += log(1 / (2**zeros * grams))
        else:
            total += log(hits / grams)
    penalty = 1.0 if length > reference_length else exp(1 - reference_length / length)
    return penalty * exp(total / 4)


class Copied:
    """Finds texts that repeat a run of ``COPIED_CHARACTERS`` or more of any training text."""

    def __init__(self, training: Iterable[str]) -> None:
        self.runs = {run for text in training for run in ngrams(text, COPIED_CHARACTERS)}

    def __call__(self, text: str) -> bool:
        return any(run in self.runs for run in ngrams(text, COPIED_CHARACTERS))


def ends_properly(text: str) -> bool:
    """Not empty, and its last character ends a sentence."""
    return text.rstrip().endswith(ENDINGS)


def attribute_coverage(texts: Sequence[str], rows: Sequence[Row]) -> float:
    """Attribute values that stand in a clause with other words, over all attribute values."""
    hits = sum(sum(facts.carried(text, row.values)) for text, row in zip(texts, rows, strict=True))
    return hits / max(1, sum(len(row.values) for row in rows))


def named_share(texts: Sequence[str], rows: Sequence[Row]) -> float:
    """The looser figure that the reference table gives: attribute values that stand anywhere in the text."""
    hits = sum(value.lower() in text.lower() for text, row in zip(texts, rows, strict=True) for value in row.values)
    return hits / max(1, sum(len(row.values) for row in rows))


def unsupported_share(texts: Sequence[str], rows: Sequence[Row], rule: str, spelled: str = "") -> float:
    """Share of texts with a claim of ``rule`` that their attributes do not support.

    ``spelled``: only claims that hold these characters count; colours written as …色 are what the reference table
    counted, without 蓝白条纹, 宝蓝 and the like.
    """
    return mean(
        any(finding.rule_id == rule and spelled in finding.span for finding in findings(text, row))
        for text, row in zip(texts, rows, strict=True)
    )


def findings(text: str, row: Row) -> list[Finding]:
    """What the fact rules find in a text about ``row``."""
    return facts.text_unsupported(text, row.values, "zh")


def score(
    texts: Sequence[str], rows: Sequence[Row], copied: Copied, *, parsed: float | None = None
) -> dict[str, float]:
    """Every figure of one output. ``parsed``: the share parsed at first try where the writer knows it."""
    references = [row.summary for row in rows]
    rouges = [rouge(text, reference) for text, reference in zip(texts, references, strict=True)]
    sample = [texts[number] for number in fixed_rows(len(texts))]
    return {
        "bleu_4": mean(map(bleu4, texts, references)),
        "rouge_1": mean(one["rouge-1"] for one in rouges),
        "rouge_2": mean(one["rouge-2"] for one in rouges),
        "rouge_l": mean(one["rouge-l"] for one in rouges),
        "coverage": attribute_coverage(texts, rows),
        "named": named_share(texts, rows),
        "unsupported_colour": unsupported_share(texts, rows, "facts.colour"),
        "solid_colour": unsupported_share(texts, rows, "facts.colour", "色"),
        "unsupported_material": unsupported_share(texts, rows, "facts.material"),
        "distinct_4": distinct(texts),
        "self_bleu_4": likeness(sample),
        "self_bleu_4_all": self_bleu4(sample),
        "copied": mean(map(copied, texts)),
        "parsed": mean(map(ends_properly, texts)) if parsed is None else parsed,
        "characters": mean(map(len, texts)),
    }


# --- baselines ---------------------------------------------------------------------------------------------------


class Neighbours:
    """Training rows by likeness of attributes: common (slot, value) pairs over all pairs of both (Jaccard)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.pairs = [frozenset(row.attributes) for row in rows]
        self.holders: dict[tuple[str, str], list[int]] = {}
        for number, pairs in enumerate(self.pairs):
            for pair in pairs:
                self.holders.setdefault(pair, []).append(number)

    def nearest(self, row: Row, count: int = 1) -> list[Row]:
        """The ``count`` training rows most like ``row``, the first in the file among equals; any where none is."""
        own = frozenset(row.attributes)
        common = Counter(number for pair in own for number in self.holders.get(pair, ()))
        ranked = sorted(common.items(), key=lambda one: (-one[1] / (len(own | self.pairs[one[0]])), one[0]))
        return [self.rows[number] for number, _ in ranked[:count]] or list(self.rows[:count])


def with_missing(text: str, row: Row) -> str:
    """``text`` with the attributes it does not name appended as a list: what a naive repair does."""
    missing = [value for value in dict.fromkeys(row.values) if value.lower() not in text.lower()]
    return text + "、".join(missing) + "。" if missing else text


def template(row: Row) -> str:
    """One fixed sentence that names every attribute: what rules alone can do."""
    by_slot: dict[str, list[str]] = {}
    for slot, value in row.attributes:
        by_slot.setdefault(slot, []).append(value)
    kind = "、".join(by_slot.pop("类型", ["单品"]))
    clauses = [f"{'、'.join(values)}的{slot}设计" for slot, values in by_slot.items()]
    return f"这款{kind}采用{'，'.join(clauses)}。"
