"""How much of what people wrote the law rules would block, and which planted words they find: `--data FILE…`.

    python benchmarks/review.py --data train.jsonl dev.jsonl …
    python benchmarks/review.py --data train.jsonl … --labels tests/review/law_labels.csv

A file holds JSON lines with a text (`summary`, `description` or `text`) and, if known, what the item's data say
(`content` as name#value*name#value, or `title`). Nothing is written.
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

# What the labels are about: an absolute term, its near-synonym, a superlative.
LABELLED = {"law.absolute", "law.near_absolute", "law.superlative", "law.superlative_person"}
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


def _share(part: int, whole: int) -> str:
    if not whole:
        return "none"
    low, high = wilson(part, whole, 0.95)
    return f"{part / whole:6.1%} ({part} of {whole}, 95 % {low:.1%}-{high:.1%})"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--labels", type=Path, help="CSV: sha256, label, half")
    chosen = parser.parse_args(arguments)
    texts = list(read(chosen.data))
    print(f"rules {rule_set('law', 'zh').version}")
    print(blocked_share(texts))
    right, total, missed = planted(texts)
    print(f"planted words found       {_share(right, total)}" + (f", missed: {missed[:10]}" if missed else ""))
    if chosen.labels:
        with chosen.labels.open(encoding="utf-8", newline="") as stream:
            halves = sorted({row["half"] for row in csv.DictReader(stream)})
        for half in halves:
            print(labelled(texts, chosen.labels, half))


if __name__ == "__main__":
    main(sys.argv[1:])
