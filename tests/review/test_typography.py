"""Typography is no way around an English rule: its own example is found in every disguise a keyboard or font offers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from adloom.review import law, safety
from adloom.review.rules import rule_set

RULES = [(room, one.rule) for room in ("law", "safety") for one in rule_set(room, "en").rules]
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
BOLD = {ord("a") + place: 0x1D41A + place for place in range(26)} | {
    ord("A") + place: 0x1D400 + place for place in range(26)
}


def within_words(sign: str) -> Callable[[str], str]:
    """The sign in the middle of every word of at least four letters."""
    return lambda text: re.sub(r"[A-Za-z]{4,}", lambda word: word[0][:2] + sign + word[0][2:], text)


DISGUISES: dict[str, Callable[[str], str]] = {
    "soft hyphen": within_words("\u00ad"),
    "zero-width space": within_words("\u200b"),
    "zero-width joiner": within_words("\u200d"),
    "word joiner": within_words("\u2060"),
    "byte-order mark": within_words("\ufeff"),
    "combining mark": within_words("\u0301"),
    "curly apostrophe": lambda text: text.replace("'", "’"),
    "modifier apostrophe": lambda text: text.replace("'", "ʼ"),
    "prime": lambda text: text.replace("'", "′"),
    "non-breaking hyphen": lambda text: text.replace("-", "\u2011"),
    "hyphen": lambda text: text.replace("-", "\u2010"),
    "en dash": lambda text: text.replace("-", "–"),
    "minus": lambda text: text.replace("-", "−"),
    "no-break space": lambda text: text.replace(" ", "\u00a0"),
    "thin space": lambda text: text.replace(" ", "\u2009"),
    "full width": lambda text: text.translate(FULL_WIDTH).replace(" ", "\u3000"),
    "mathematical bold": lambda text: text.translate(BOLD),
    "accents": lambda text: text.translate(str.maketrans("aeou", "äéôü")),
}


def found(room: str, text: str) -> set[str]:
    if room == "law":
        return {one.rule_id for one in law.text_violations(text, "en")}
    return {one.rule_id for one in safety.text_unsafe(text, "en")}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_no_disguise_hides_what_a_rule_is_about(disguise: str) -> None:
    written = {rule.id: (room, rule.example.text, DISGUISES[disguise](rule.example.text)) for room, rule in RULES}
    changed = {key: (room, text) for key, (room, before, text) in written.items() if text != before}
    assert changed, "the disguise changes nothing: it proves nothing"
    assert {key: text for key, (room, text) in changed.items() if key not in found(room, text)} == {}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("The world’s best shoe", "law.absolute"),
        ("Our best‑selling lamp", "law.ranking"),
        ("An eco–friendly bottle", "law.content"),
        ("Sóftness guarántéed for years", "law.guarantee"),
    ],
)
def test_the_finding_quotes_what_the_copy_says(text: str, rule: str) -> None:
    (hit,) = [one for one in law.text_violations(text, "en") if one.rule_id == rule]
    assert hit.span in text
    assert text[hit.start : hit.start + len(hit.span)] == hit.span
