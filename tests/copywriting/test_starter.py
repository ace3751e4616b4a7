"""The starter corpus is what a new shop's model learns from: what is wrong in it, every shop would repeat."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from adloom.copywriting import starter
from adloom.copywriting.starter import starter_pairs
from adloom.creative import SCENARIOS, Language, Pair, channels
from adloom.errors import AdloomError
from adloom.review.facts import unsupported

LANGUAGES: tuple[Language, ...] = ("zh", "en")
# Two copies of one corpus share no longer run than this, apart from what their briefs say (characters; in English,
# where a character says less, words).
LONGEST_SHARED_RUN = {"zh": 12, "en": 6}
ABSOLUTE = {
    "zh": r"最(?!近)|第一|顶级|国家级|极致|极品|绝无|绝对|唯一|100%|百分百|永久|万能|首选|独家|全网|爆款|热销|销量|"
    r"治疗|治愈|美白|祛斑|抗皱|减肥|疗效|保证|原价|只剩|仅剩|最后",
    "en": r"\b(best|number one|no\. ?1|#1|top-rated|best-?sell\w*|unbeatable|perfect|guaranteed?|100 ?%|"
    r"cures?|heals?|miracle|only \d+ left|last chance|hurry|world-class|ultimate|permanent\w*)\b",
}
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


@pytest.fixture
def pairs(language: Language) -> list[Pair]:
    return starter_pairs(language)


def _facts(pair: Pair) -> list[str]:
    """Every text that a claim may rest on: the words of a segment say nothing about the item."""
    brief, item = pair.brief, pair.brief.item
    words = [brief.related, item.title, item.category, item.brand, item.price, item.list_price]
    words += [*item.attributes.keys(), *item.attributes.values()]
    words += [brief.offer.name, brief.offer.text] if brief.offer else []
    words += [brief.event.title, *brief.event.keywords] if brief.event else []
    return [word for word in words if word]


def _says(text: str, value: str) -> bool:
    """Literally or nearly: all the words of the value, in the singular or the plural."""
    return all(word.removesuffix("s") in text for word in re.findall(r"\w+", value.casefold()))


def _named(pairs: list[Pair], wrong: object) -> list[str]:
    return [f"{pair.brief.item.item_id} {pair.copy_.headline}: {what}" for pair in pairs if (what := wrong(pair))]  # type: ignore[operator]


def test_every_scenario_channel_and_kind_of_goods_is_well_represented(language: Language, pairs: list[Pair]) -> None:
    scenarios = Counter(pair.brief.scenario for pair in pairs)
    assert len(pairs) >= 310
    assert all(scenarios[scenario] >= 55 for scenario in SCENARIOS), scenarios
    assert {pair.brief.channel for pair in pairs} == set(channels(language))
    assert len({re.split("[/>]", pair.brief.item.category)[0].strip() for pair in pairs}) >= 16
    assert len({pair.brief.item.title for pair in pairs}) >= 220
    assert any(not pair.brief.segment_words for pair in pairs), "a brief that is not personalised has to be learnt too"


def test_each_brief_holds_what_its_scenario_is_about(language: Language, pairs: list[Pair]) -> None:
    for pair in pairs:
        brief = pair.brief
        assert (brief.offer is not None) == (brief.scenario == "promotion"), brief
        assert (brief.event is not None) == (brief.scenario == "hot_event"), brief
        assert bool(brief.related) == (brief.scenario == "cross_category"), brief
        assert brief.scenario != "social" or channels(language)[brief.channel].is_social, brief


def test_lengths_fit_the_channel(pairs: list[Pair]) -> None:
    def too_long(pair: Pair) -> list[str]:
        copy, limits = pair.copy_, pair.brief.limits
        fits = {
            "headline": 0 < len(copy.headline) <= limits.headline,
            "body": limits.body_min <= len(copy.body) <= limits.body,
            "call to action": 0 < len(copy.call_to_action) <= limits.call_to_action,
            "hashtags": limits.hashtags_min <= len(copy.hashtags) <= limits.hashtags,
            "hash sign": not any(tag.startswith("#") for tag in copy.hashtags),
        }
        return [part for part, fit in fits.items() if not fit]

    assert not _named(pairs, too_long)


def test_a_copy_uses_four_of_five_attributes(pairs: list[Pair]) -> None:
    def left_out(pair: Pair) -> list[str]:
        text = pair.copy_.text.casefold()
        values = list(pair.brief.item.attributes.values())
        missing = [value for value in values if not _says(text, value)]
        return missing if len(missing) > 0.2 * len(values) else []

    assert not _named(pairs, left_out)


def test_no_number_price_or_offer_that_is_not_in_the_brief(pairs: list[Pair]) -> None:
    def invented(pair: Pair) -> list[str]:
        text, item = pair.copy_.text, pair.brief.item
        known = set(NUMBER.findall(" ".join(_facts(pair))))
        found = [number for number in NUMBER.findall(text) if number not in known]
        prices = {item.price, item.list_price, *re.findall(r"[¥$]\d[\d.,]*\d|[¥$]\d", " ".join(_facts(pair)))}
        found += [price for price in re.findall(r"[¥$]\d[\d.,]*\d|[¥$]\d", text) if price not in prices]
        if pair.brief.offer and pair.brief.offer.text.casefold() not in text.casefold():
            found.append(f"offer not said: {pair.brief.offer.text}")
        return found

    assert not _named(pairs, invented)


def test_the_review_of_facts_blocks_nothing(pairs: list[Pair]) -> None:
    """What the corpus claims without ground, every shop's model would learn to claim."""
    assert not _named(
        pairs, lambda pair: [one.span for one in unsupported(pair.copy_, pair.brief) if one.severity == "block"]
    )


def test_no_word_that_the_law_forbids(language: Language, pairs: list[Pair]) -> None:
    rule = re.compile(ABSOLUTE[language], re.IGNORECASE)
    assert not _named(pairs, lambda pair: rule.findall(pair.copy_.text))


def test_no_two_copies_share_a_phrase(language: Language, pairs: list[Pair]) -> None:
    """A model learns whatever repeats, and then every shop's advertisements would say it."""
    length = LONGEST_SHARED_RUN[language] + 1
    seen: dict[tuple[str, ...], int] = {}
    shared = []
    for number, pair in enumerate(pairs):
        text = "\n".join([pair.copy_.headline, pair.copy_.body, pair.copy_.call_to_action])
        for fact in sorted(_facts(pair), key=len, reverse=True):
            text = re.sub(re.escape(fact), "\0", text, flags=re.IGNORECASE)
        units = list(text) if language == "zh" else re.findall(r"[\w'’-]+|\0|\n", text.casefold())
        for start in range(len(units) - length + 1):
            run = tuple(units[start : start + length])
            if "\0" not in run and "\n" not in run and seen.setdefault(run, number) != number:
                shared.append(f"{pairs[seen[run]].copy_.headline} / {pair.copy_.headline}: {run}")
    assert not shared


def test_a_broken_line_is_named(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "zh.jsonl").write_text('{"scenario":"social"}\n', encoding="utf-8")
    monkeypatch.setattr(starter, "FOLDER", tmp_path)
    with pytest.raises(AdloomError, match=r"zh\.jsonl, line 1"):
        starter_pairs("zh")
