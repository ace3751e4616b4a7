"""How much of what people wrote the law rules would block, and which planted words they find: `--data FILE…`.

    python benchmarks/review.py --data train.jsonl dev.jsonl …
    python benchmarks/review.py --data train.jsonl … --labels tests/review/law_labels.csv
    python benchmarks/review.py --labels unseen.jsonl --show

A file of `--data` holds JSON lines with a text (`summary`, `description` or `text`) and, if known, what the item's data
say (`content` as name#value*name#value, or `title`). Labels are a CSV about those texts (sha256, label, half), or JSON
lines that bring their texts: source, text, label (violation, harmless, unsure) and spans ({span, label}). Nothing is
written.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from adloom.creative import Brief, CopyLimits, ItemFacts
from adloom.evaluation.intervals import wilson
from adloom.review import law
from adloom.review.finding import Finding
from adloom.review.rules import rule_set

# What labels are about: an absolute term, its near-synonym, a superlative, a rank ("the first in the market").
TIERS = {"statutory", "near_synonym", "contextual"}
RANKS = {"law.ranking", "law.lowest_price"}
LABELLED = RANKS | {one.rule.id for one in rule_set("law", "zh").rules if one.rule.tier in TIERS}
# A list of words without context, as a baseline.
SUBSTRINGS = re.compile("最|第一|顶级|极致|绝无仅有|独一无二|唯一|首选|国家级|极品|无与伦比|100%|百分百|全网|冠军")
GAPS = ("", " ", "·", "*", "-", "\u200b", "\u3000", "/", "。", "❤")
CARRIERS = ("这款{}单品值得入手", "{}之选，轻松出门", "给你{}体验", "不愧是{}", "上身舒适，{}品质看得见")
TRADITIONAL = str.maketrans("国级极绝无独顶网领军", "國級極絕無獨頂網領軍")
LIMITS = CopyLimits(headline=100, body=2000, call_to_action=50)


@dataclass(frozen=True)
class Text:
    """A text that a person wrote, and what the item's data say."""

    file: str
    row: int
    text: str
    facts: dict[str, str]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read(paths: Iterable[Path]) -> Iterator[Text]:
    """The texts of the files, in order; lines without one are passed over."""
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            text = row.get("summary") or row.get("description") or row.get("text") or ""
            if text:
                pairs = [pair.partition("#") for pair in row.get("content", "").split("*") if pair]
                facts = {f"{name}{place}": value for place, (name, _, value) in enumerate(pairs)}
                if row.get("title"):
                    facts["title"] = row["title"]
                yield Text(f"{path.parent.name}/{path.stem}", number, text, facts)


def found(one: Text) -> list[Finding]:
    """What the law rules find in a text whose brief holds only the item's data: no offer, no price history."""
    title = one.facts.get("title") or "商品"
    item = ItemFacts(item_id="item", title=title, attributes=one.facts)
    brief = Brief(scenario="recommendation", language="zh", channel="feed", segment_id="all", item=item, limits=LIMITS)
    return law.found_in([("body", one.text)], brief)


def blocked_share(texts: list[Text]) -> str:
    """Texts blocked, texts that a person is asked about, and what a bare list of words would flag."""
    blocked, warned = 0, 0
    rules: Counter[str] = Counter()
    for one in texts:
        findings = found(one)
        by_rule = {finding.rule_id for finding in findings if finding.severity == "block"}
        rules.update(by_rule)
        blocked += bool(by_rule)
        warned += bool(findings) and not by_rule
    total = len(texts)
    listed = sum(bool(SUBSTRINGS.search(one.text)) for one in texts)
    lines = [
        f"texts                     {total:6}",
        f"blocked                   {_share(blocked, total)}",
        f"only warned               {_share(warned, total)}",
        f"a bare list would flag    {_share(listed, total)}",
        "blocked by rule           " + ", ".join(f"{name} {count}" for name, count in rules.most_common()),
    ]
    return "\n".join(lines)


def evasions(word: str, generator: random.Random) -> Iterator[str]:
    """The word itself and ways of writing it so that a list does not find it."""
    yield word
    for gap in GAPS[1:]:
        yield gap.join(word)
    yield word.translate(TRADITIONAL)
    yield "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in word)
    yield "\u200d".join(word.translate(TRADITIONAL))
    mixed = [generator.choice(GAPS) for _ in word]
    yield "".join(one + gap for one, gap in zip(word, mixed, strict=True))


def planted(
    texts: list[Text], count: int = 400, seed: int = 20251124, words_taken: int | None = None
) -> tuple[int, int, list[str]]:
    """(found, planted, what was missed) of statutory and near-synonymous words in texts that people wrote."""
    generator = random.Random(seed)  # noqa: S311 -- a sample, no secret
    words = [
        word
        for one in rule_set("law", "zh").rules
        if one.rule.tier in {"statutory", "near_synonym"}
        for word in one.rule.words
    ]
    right, total, missed = 0, 0, []
    if words_taken is not None:
        words = generator.sample(words, words_taken)
    carriers = generator.sample(texts, min(count, len(texts)))
    spellings = [spelling for word in words for spelling in evasions(word, generator)]
    for number, spelling in enumerate(spellings):
        host = carriers[number % len(carriers)].text
        sentence = CARRIERS[number % len(CARRIERS)].format(spelling)
        place = host.find("，") + 1
        text = f"{host[:place]}{sentence}，{host[place:]}"
        start = len(host[:place])
        told = law.text_violations(text, "zh")
        total += 1
        if any(one.severity == "block" and start <= one.start < start + len(sentence) for one in told):
            right += 1
        else:
            missed.append(spelling)
    return right, total, missed


def labelled(texts: list[Text], path: Path, half: str) -> str:
    """Precision and recall of blocking on the labelled texts of one half (column ``half``)."""
    by_digest = {one.digest: one for one in texts}
    counts: Counter[tuple[str, str]] = Counter()
    absent = 0
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["half"] != half:
                continue
            one = by_digest.get(row["sha256"])
            if one is None:
                absent += 1
                continue
            findings = [finding for finding in found(one) if finding.rule_id in LABELLED]
            severities = {finding.severity for finding in findings}
            got = "blocked" if "block" in severities else "warned" if severities else "passed"
            counts[row["label"], got] += 1
    right = counts["violation", "blocked"]
    said = sum(count for (_, got), count in counts.items() if got == "blocked")
    true = sum(count for (label, _), count in counts.items() if label == "violation")
    person = sum(count for (label, _), count in counts.items() if label == "person")
    lines = [
        f"{half}: {sum(counts.values())} labelled texts, {absent} absent",
        f"  precision of blocking   {_share(right, said)}",
        f"  recall of violations    {_share(right, true)}",
        f"  put before a person     {_share(counts['person', 'warned'] + counts['person', 'blocked'], person)}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Labelled:
    """A text with its verdict, as somebody gave it who had not seen the rules."""

    source: str
    text: str
    label: str
    violations: tuple[str, ...]
    """the words that the verdict is about"""

    @property
    def kind(self) -> str:
        """Which kind of source: how sure it is that a person wrote the text."""
        if "not verified" in self.source:
            return "authorship not verified"
        return "AdvertiseGen" if "AdvertiseGen" in self.source else "other, written by people"


def read_labelled(path: Path) -> list[Labelled]:
    """The texts of a file of JSON lines with their labels."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [
        Labelled(
            row["source"],
            row["text"],
            row["label"],
            tuple(one["span"] for one in row.get("spans", ()) if one["label"] == "violation"),
        )
        for row in rows
    ]


def absolute_blocks(text: str) -> list[Finding]:
    """What the rules of absolute terms, ranks and lowest prices block in a text of which no evidence is known."""
    return [one for one in law.text_violations(text, "zh") if one.severity == "block" and one.rule_id in LABELLED]


def unseen(rows: list[Labelled], *, show: bool = False) -> str:
    """Precision and recall of blocking by text, in all and by kind of source; ``show``: what was wrong."""
    blocks = [absolute_blocks(one.text) for one in rows]
    kinds = ["", *sorted({one.kind for one in rows})]
    lines = []
    for kind in kinds:
        chosen = [(one, got) for one, got in zip(rows, blocks, strict=True) if not kind or one.kind == kind]
        lines += _kind_lines(kind or "all", chosen)
    lines += _span_lines(rows, blocks)
    harmless = [one for one in rows if one.label == "harmless"]
    by_any = sum(any(hit.severity == "block" for hit in law.text_violations(one.text, "zh")) for one in harmless)
    lines.append(f"harmless, by any rule   {_share(by_any, len(harmless))}")
    if show:
        for one, got in zip(rows, blocks, strict=True):
            if one.label == "violation" and not got:
                lines.append(f"missed  {' / '.join(one.violations)}\n    {one.text}")
            if one.label == "harmless" and got:
                lines.append(f"blocked {', '.join(f'{hit.rule_id} {hit.span}' for hit in got)}\n    {one.text}")
    return "\n".join(lines)


def _kind_lines(name: str, chosen: list[tuple[Labelled, list[Finding]]]) -> list[str]:
    counts = Counter((one.label, bool(got)) for one, got in chosen)
    right, wrong = counts["violation", True], counts["harmless", True]
    missed, left = counts["violation", False], counts["harmless", False]
    unsure = counts["unsure", True] + counts["unsure", False]
    return [
        f"{name}: {right + missed} violations, {wrong + left} harmless; {unsure} unsure, left out",
        f"  precision of blocking   {_share(right, right + wrong)}",
        f"  recall of violations    {_share(right, right + missed)}",
        f"  harmless texts blocked  {_share(wrong, wrong + left)}",
    ]


def _span_lines(rows: list[Labelled], blocks: list[list[Finding]]) -> list[str]:
    """Of the words that violate, how many does a block meet: a text may be blocked for other words than its own."""
    met, total = 0, 0
    for one, got in zip(rows, blocks, strict=True):
        for words in one.violations:
            start = one.text.find(words)
            total += 1
            met += any(hit.start < start + len(words) and start < hit.start + len(hit.span) for hit in got)
    return [f"violating words met     {_share(met, total)}"]


def _share(part: int, whole: int) -> str:
    if not whole:
        return "none"
    low, high = wilson(part, whole, 0.95)
    return f"{part / whole:6.1%} ({part} of {whole}, 95 % {low:.1%}-{high:.1%})"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", type=Path, help="JSON lines with texts")
    parser.add_argument("--labels", type=Path, help="CSV about --data (sha256, label, half) or JSON lines with texts")
    parser.add_argument("--show", action="store_true", help="name what was missed and what was blocked wrongly")
    chosen = parser.parse_args(arguments)
    brings_texts = chosen.labels is not None and chosen.labels.suffix == ".jsonl"
    if not chosen.data and not brings_texts:
        parser.error("--data FILE… is needed, or --labels FILE.jsonl")
    print(f"rules {rule_set('law', 'zh').version}")
    if brings_texts:
        print(unseen(read_labelled(chosen.labels), show=chosen.show))
    if not chosen.data:
        return
    texts = list(read(chosen.data))
    print(blocked_share(texts))
    right, total, missed = planted(texts)
    print(f"planted words found       {_share(right, total)}" + (f", missed: {missed[:10]}" if missed else ""))
    if chosen.labels and not brings_texts:
        with chosen.labels.open(encoding="utf-8", newline="") as stream:
            halves = sorted({row["half"] for row in csv.DictReader(stream)})
        for half in halves:
            print(labelled(texts, chosen.labels, half))


if __name__ == "__main__":
    main(sys.argv[1:])
