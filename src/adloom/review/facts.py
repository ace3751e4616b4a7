"""Does a copy claim only what its brief says?

Colours, materials, figures, prices, offers, days, named parts, what the item can do, where it comes from, brands.

A claim is supported when it stands in any fact of the brief: the item's title, category, brand, prices and attributes,
the offer, the event, the related category. The words of a segment are no facts about the item. What is looked for, what
is exempt and why is data (``facts.yml`` and the word lists beside it); a finding names rule, part, span and reason.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import cast

from adloom.creative import Brief, Copy, Language
from adloom.review import lexicon
from adloom.review.finding import Finding, Part, Severity
from adloom.review.text import Plain, plain, squeezed

RULES_VERSION = str(lexicon.words("facts")["version"])
CLAUSE = re.compile(r"[,](?!\d)|[.](?!\d)|[。!?;:~…\n|]+")
LANGUAGES: tuple[Language, Language] = ("zh", "en")


@dataclass(frozen=True)
class Rule:
    """One row of ``facts.yml``."""

    id: str
    severity: Severity
    reason: Mapping[Language, str]
    source: str


@cache
def rules() -> Mapping[str, Rule]:
    """Rule id → rule."""
    return {
        row["id"]: Rule(row["id"], row["severity"], row["reason"], row["source"])
        for row in lexicon.words("facts")["rules"]
    }


# --- what others call ----------------------------------------------------------------------------------------------


def unsupported(copy: Copy, brief: Brief) -> list[Finding]:
    """What ``copy`` claims of the item or offer and ``brief`` does not say, in the order of the copy's parts."""
    known = facts_of(brief)
    parts: list[tuple[Part, str]] = [
        ("headline", copy.headline),
        ("body", copy.body),
        ("call_to_action", copy.call_to_action),
        *(("hashtags", tag) for tag in copy.hashtags),
    ]
    found = [finding for part, text in parts for finding in _find(text, part, known, brief.language)]
    return list(dict.fromkeys(found))


def text_unsupported(text: str, facts: Mapping[str, str] | Iterable[str], language: Language) -> list[Finding]:
    """The same for a plain text against plain facts (values, or key → value); every finding's part is ``body``."""
    values = [f"{key} {value}" for key, value in facts.items()] if isinstance(facts, Mapping) else list(facts)
    return list(dict.fromkeys(_find(text, "body", known_facts(tuple(map(str, values))), language)))


def amounts_said(text: str, language: Language) -> frozenset[str]:
    """Prices and discounts that a normalised text says, each as figure and currency or as the share left to pay."""
    words = lexicon.numbers(language)
    found = {f"{left:.0%} left to pay" for _, _, left in _discounts(text)}
    for match in words.price.finditer(text):
        amount = lexicon.value(match["after"] or match["before"])
        if amount is not None:
            found.add(f"{amount:g} {words.currencies.get(match['sign'] or match['name'] or '', '')}".strip())
    return frozenset(found)


def says_an_offer(text: str, language: Language) -> bool:
    """Does a normalised text promise anything of an offer: a discount, a gift, a deal?"""
    words = lexicon.numbers(language)
    patterns = (*words.offers, *words.deals, THRESHOLD, DISCOUNT)
    return any(pattern.search(text) for pattern in patterns)


def coverage(copy: Copy, brief: Brief) -> tuple[int, int]:
    """(attribute values that the copy works into a clause, attribute values of the item)."""
    values = list(brief.item.attributes.values())
    text = "\n".join((copy.headline, copy.body, copy.call_to_action))
    return sum(carried(text, values, brief.language, in_other_words=True)), len(values)


def carried(text: str, values: Iterable[str], language: Language = "zh", *, in_other_words: bool = False) -> list[bool]:
    """For each of ``values``: does it stand in a clause with other words?

    A clause that is little more than a list of values carries none of them, the last one of a text least of all
    (that is where missing values get appended), nor does a row of three or more clauses of a value and next to
    nothing. ``in_other_words``: figures count in any spelling, values of several words in any order.
    """
    wanted = [squeezed(value) for value in values]
    clauses = [clause for clause in CLAUSE.split(plain(text).text) if clause.strip()]
    held = [{value for value in wanted if value and value in re.sub(r"\s+", "", clause)} for clause in clauses]
    others = [_other_words(clause, held[number], language) for number, clause in enumerate(clauses)]
    is_thin = [bool(values) and words <= 2 for values, words in zip(held, others, strict=True)]
    carrying: set[int] = set()
    for number, found in enumerate(held):
        listed = _run_length(is_thin, number) >= 3
        is_last = number == len(held) - 1
        enough = max(2, len(found)) if is_last else max(1, len(found) - 3)
        if not listed and others[number] >= enough:
            carrying.add(number)
    supported = {value for number in carrying for value in held[number]}
    if in_other_words:
        whole = [clauses[number] for number in sorted(carrying)]
        supported |= {
            squeezed(value)
            for value in values
            if squeezed(value) not in supported and any(_says(clause, value, language) for clause in whole)
        }
    return [value in supported for value in wanted]


def _run_length(flags: list[bool], place: int) -> int:
    """How many flags around ``place`` are true without a gap."""
    if not flags[place]:
        return 0
    start, end = place, place
    while start and flags[start - 1]:
        start -= 1
    while end + 1 < len(flags) and flags[end + 1]:
        end += 1
    return end - start + 1


FILLERS = {
    "zh": re.compile(r"[\s、和与及的了等·/&+\-“”\"'「」《》()（）]|以及|还有"),
    "en": re.compile(r"\b(?:and|with|the|an?|of|in|plus|or|its?|is)\b"),
}


def _other_words(clause: str, values: set[str], language: Language) -> int:
    """Characters (zh) or words (en) of a clause beside ``values`` and what only joins them."""
    if language == "zh":
        rest = re.sub(r"\s+", "", clause)
        for value in sorted(values, key=len, reverse=True):
            rest = rest.replace(value, "")
        return len(FILLERS["zh"].sub("", rest))
    held = "".join(sorted(values))
    rest = FILLERS["en"].sub(" ", clause)
    return sum(1 for word in re.findall(r"[a-z0-9']+", rest) if word not in held)


def _says(clause: str, value: str, language: Language) -> bool:
    """Does the clause say ``value`` in other words: the same figures, or all its words in any order?"""
    figures = list(_quantities(plain(value).text, language))
    if figures:
        said = {(kind, amount) for _, kind, amount in _quantities(clause, language)}
        return all((kind, amount) in said for _, kind, amount in figures)
    compact = re.sub(r"\s+", "", clause)
    if language == "zh":
        parts = [word for word in _chinese_words(plain(value).text) if len(word) > 1]
        return len(parts) > 1 and all(word in compact for word in parts)
    stems = [_stem(word) for word in re.findall(r"[a-z0-9]+", plain(value).text) if len(word) > 2]
    said_stems = {_stem(word) for word in re.findall(r"[a-z0-9]+", clause)}
    return bool(stems) and all(stem in said_stems for stem in stems)


def _chinese_words(text: str) -> list[str]:
    import jieba  # type: ignore[import-untyped,unused-ignore]

    # It tells every process on standard error that it read its dictionary.
    jieba.setLogLevel(logging.WARNING)
    return [str(word) for word in jieba.cut(text)]


def _stem(word: str) -> str:
    """Enough to see cushion in cushioned and cushioning."""
    for ending in ("ingly", "ings", "ing", "ied", "ies", "ly", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


# --- facts ---------------------------------------------------------------------------------------------------------


def facts_of(brief: Brief) -> Facts:
    """Everything ``brief`` states; prices and the offer as amounts too."""
    item = brief.item
    texts = [item.title, item.category, item.brand, brief.related]
    texts += [f"{key} {value}" for key, value in sorted(item.attributes.items())]
    if brief.offer is not None:
        texts += [brief.offer.name, brief.offer.text]
        for day in (brief.offer.starts_on, brief.offer.ends_on):
            if day is not None:
                texts.append(f"{day.year}年{day.month}月{day.day}日")
                texts.append(f"{MONTHS[day.month - 1]} {day.day}, {day.year}")
    if brief.event is not None:
        texts += [brief.event.title, *brief.event.keywords]
    prices = tuple(price for price in (item.price, item.list_price) if price)
    return known_facts(tuple(text for text in texts if text), prices)


@lru_cache(maxsize=4096)
def known_facts(texts: tuple[str, ...], prices: tuple[str, ...] = ()) -> Facts:
    """Facts as texts, and the item's own price and list price."""
    return Facts(texts, prices)


@dataclass(frozen=True)
class Facts:
    """What a copy may say, and what its rules need of it, each found once."""

    texts: tuple[str, ...]
    prices: tuple[str, ...] = ()

    @cached_property
    def plain(self) -> str:
        return "\n".join(plain(text).text for text in (*self.texts, *self.prices))

    @cached_property
    def compact(self) -> str:
        return "\n".join(re.sub(r"\s+", "", line) for line in self.plain.split("\n"))

    @cached_property
    def without_idioms(self) -> str:
        """`compact`, words taken out in which a colour's name is no colour: Black Friday gives no black."""
        text = self.plain
        for language in LANGUAGES:
            text = lexicon.blanked(text, lexicon.colours(language).not_colours)
        return re.sub(r"[^\S\n]+", "", text)

    @cached_property
    def colours(self) -> tuple[frozenset[str], frozenset[str]]:
        """(names, families) of the colours the facts name or imply."""
        names: set[str] = set()
        families: set[str] = set()
        for language in LANGUAGES:
            words = lexicon.colours(language)
            for _, _, found in _colours(self.plain, language):
                names.update(found)
                families.update(family for name in found for family in words.families.get(name, ()))
            for name, implied in words.implied.items():
                if name in self.plain:
                    families |= implied
        return frozenset(names), frozenset(families)

    @cached_property
    def materials(self) -> tuple[frozenset[str], frozenset[str]]:
        """(names, families) of the materials the facts name or imply."""
        names: set[str] = set()
        families: set[str] = set()
        for language in LANGUAGES:
            words = lexicon.materials(language)
            for match in words.pattern.finditer(lexicon.blanked(self.plain, words.not_materials)):
                name = _spelled(match[0], words.families)
                names.add(name)
                families |= words.families[name]
            for name, implied in words.implied.items():
                if name in self.plain:
                    families |= implied
        return frozenset(names), frozenset(families)

    @cached_property
    def quantities(self) -> frozenset[tuple[str, float]]:
        return frozenset(
            (kind, amount) for language in LANGUAGES for _, kind, amount in _quantities(self.plain, language)
        )

    @cached_property
    def figures(self) -> frozenset[float]:
        """Every number that stands in the facts, whatever it counts."""
        found = (lexicon.value(match[0]) for match in re.finditer(lexicon.FIGURE, self.plain))
        return frozenset(number for number in found if number is not None)

    @cached_property
    def amounts(self) -> frozenset[float]:
        """Numbers a price in the copy may have: the facts' own, and the saving from list price to price."""
        own = [amount for price in self.prices for amount in _figures(price)]
        saved = {round(high - low, 2) for high in own for low in own if high > low}
        shares = {float(int(100 * (1 - low / high))) for high in own for low in own if high > low}
        shares |= {float(round(100 * (1 - low / high))) for high in own for low in own if high > low}
        return frozenset(self.figures | saved | shares | {amount for _, _, amount in _discounts(self.plain)})

    @cached_property
    def discounts(self) -> frozenset[float]:
        """What is left to pay, as a share: 8折 and 20% off are both .8."""
        own = [amount for price in self.prices for amount in _figures(price)]
        ratios = {round(low / high, 2) for high in own for low in own if high > low}
        return frozenset({amount for _, _, amount in _discounts(self.plain)} | ratios)

    @cached_property
    def days(self) -> frozenset[tuple[int, int]]:
        return frozenset(day for _, day in _dates(self.plain))

    @cached_property
    def months(self) -> frozenset[int]:
        return frozenset(month for month, _ in self.days)

    @cached_property
    def features(self) -> tuple[frozenset[str], frozenset[str]]:
        """(groups of features the facts give, groups they say the item has none of)."""
        given: set[str] = set()
        denied: set[str] = set()
        for line in self.plain.split("\n"):
            for language in LANGUAGES:
                words = lexicon.features(language)
                is_none = bool(words.none.search(line))
                for match in words.pattern.finditer(lexicon.blanked(line, words.not_features)):
                    groups = words.groups[_spelled(match[0], words.groups)]
                    (denied if is_none or words.denied.search(line[: match.start()]) else given).update(groups)
        return frozenset(given), frozenset(denied - given)

    @cached_property
    def countries(self) -> frozenset[str]:
        """Countries that stand in the facts, in whatever role."""
        return frozenset(
            country
            for language in LANGUAGES
            for name, country in lexicon.features(language).countries.items()
            if re.search(lexicon.any_of([name]), self.plain)
        )

    @cached_property
    def forms(self) -> Mapping[str, frozenset[str]]:
        """Slot → forms the facts name or imply."""
        implied = {form for name, forms in lexicon.implied_forms().items() if name in self.plain for form in forms}
        found: dict[str, frozenset[str]] = {}
        for language in LANGUAGES:
            for slot in lexicon.slots(language):
                named = {_spelled(match[0], slot.forms) for match in slot.pattern.finditer(self.plain)}
                found[slot.name] = frozenset(found.get(slot.name, frozenset()) | named)
        return found | {"": frozenset(implied)}

    def say(self, span: str) -> bool:
        """Does the span stand in a fact as it is?"""
        return re.sub(r"\s+", "", span) in self.compact


# --- rules ---------------------------------------------------------------------------------------------------------

Claim = tuple[str, int, int]
"""(rule id, start, end) in the normalised text"""


def _find(text: str, part: Part, known: Facts, language: Language) -> Iterator[Finding]:
    normal = plain(text)
    claims: list[Claim] = []
    for look in CHECKS:
        claims += look(normal.text, known, language)
    for rule_id, start, end in sorted(claims, key=lambda claim: (claim[1], claim[2], claim[0])):
        rule = rules()[rule_id]
        yield Finding(
            rule_id, part, normal.span(start, end), rule.severity, rule.reason[language], start=_origin(normal, start)
        )


def _origin(normal: Plain, place: int) -> int:
    return normal.origins[place] if place < len(normal.origins) else 0


def _around(text: str, start: int, end: int) -> tuple[str, str]:
    """What stands in the same clause before and after a span."""
    before = text[max(0, start - 40) : start]
    breaks = list(CLAUSE.finditer(before))
    after = text[end : end + 40]
    stop = CLAUSE.search(after)
    return before[breaks[-1].end() :] if breaks else before, after[: stop.start()] if stop else after


def _spelled(span: str, names: Container[str] = ()) -> str:
    """A matched word as its list spells it: a text may have a hyphen or a line end where the list has a space."""
    spaced = re.sub(r"\s+", " ", span)
    if spaced in names:
        return spaced
    joined = re.sub(r"[\s-]+", " ", span)
    return joined if joined in names else spaced


def _colours(text: str, language: Language) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """(start, end, names) of the colours in a normalised text; a pair such as 黑白 names two."""
    words = lexicon.colours(language)
    for match in words.pattern.finditer(lexicon.blanked(text, words.not_colours)):
        groups = {name: found for name, found in match.groupdict().items() if found}
        if language == "zh" and (pair := groups.get("pair") or groups.get("black_white")):
            yield match.start(), match.end(), tuple(pair)
        elif language == "zh" and "named" in groups:
            whole, base = groups["named"], groups["base"]
            yield match.start(), match.end(), (whole if whole in words.families else base,)
        else:
            name = _spelled(next(iter(groups.values())), words.families)
            yield match.start(), match.end(), (name,)


def _look_for_colours(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    words = lexicon.colours(language)
    names, families = known.colours
    for start, end, found in _colours(text, language):
        is_said = re.sub(r"\s+", "", text[start:end]) in known.without_idioms
        if is_said or words.context.excuses(*_around(text, start, end)):
            continue
        for name in found:
            own = words.families.get(name, frozenset())
            if name in names or (name in words.wide and own & families):
                continue
            yield "facts.colour_narrower" if own & families else "facts.colour", start, end


def _look_for_materials(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    words = lexicon.materials(language)
    names, families = known.materials
    for match in words.pattern.finditer(lexicon.blanked(text, words.not_materials)):
        name = _spelled(match[0], words.families)
        own = words.families.get(name, frozenset())
        if name in names or known.say(name) or words.context.excuses(*_around(text, *match.span())):
            continue
        if name in words.loose and own & families:
            continue
        if own <= words.fabrics:
            rule = "facts.fabric"
        else:
            rule = "facts.material_narrower" if own & families else "facts.material"
        yield rule, *match.span()


def _quantities(text: str, language: Language) -> Iterator[tuple[tuple[int, int], str, float]]:
    """(place, what it measures, amount in that kind's first unit) of every figure with a unit."""
    words = lexicon.numbers(language)
    for match in words.quantity.finditer(lexicon.blanked(text, words.idioms)):
        groups = match.groupdict()
        if groups.get("percent"):
            figure, kind, factor = groups["percent"], "percent", 1.0
        else:
            figure = groups["figure"]
            kind, factor = words.units[re.sub(r"\s+", " ", groups["unit"])]
        # 一层, 百米: a numeral alone that is "one" or only a magnitude is a manner of speaking.
        if figure in {"一", "百", "千", "万", "亿", "十", "千万", "hundred", "thousand"}:
            continue
        number = lexicon.value(figure)
        if number is not None:
            yield match.span(), kind, round(number * factor, 6)


def _figures(text: str) -> list[float]:
    found = (lexicon.value(match[0]) for match in re.finditer(lexicon.FIGURE, plain(text).text))
    return [number for number in found if number is not None]


DISCOUNT = re.compile(
    r"(?P<fold>\d(?:\.\d)?|[一二三四五六七八九]{1,2})折(?![叠伞页扇])"
    r"|(?P<off>\d{1,2})\s?(?:%|percent|per cent)\s?(?:off|discount)"
    r"|(?:save|up to|省|降|减|off)(?: up to| as much as)?\s?(?P<save>\d{1,2})\s?%"
    r"(?!\s?(?:off|cotton|wool|linen|silk|of\b))"
)


def _discounts(text: str) -> Iterator[tuple[int, int, float]]:
    """(start, end, share of the price left to pay): 8折, 八五折, 20% off."""
    for match in DISCOUNT.finditer(text):
        if fold := match["fold"]:
            digits = "".join(
                str("一二三四五六七八九".find(one) + 1) if one in "一二三四五六七八九" else one for one in fold
            )
            left = float(digits) / (10 if "." in digits or len(digits) == 1 else 100)
        else:
            left = 1 - float(match["off"] or match["save"]) / 100
        yield match.start(), match.end(), round(left, 3)


THRESHOLD = re.compile(r"满\s?(?P<full>\d+)\s?元?\s?(?:立?减|送|返)\s?(?P<less>\d+)\s?元?")
NAKED_PRICE = re.compile(
    r"(?:(?:立减|直降|立省|只要|仅需|仅售|仅|只卖|低至|到手价?|券后价?|折后价?|一口价|活动价|会员价|首发价|秒杀价|特价|返现|立返|优惠|便宜|定金|抵"
    r"|save up to|save|only|just|for only|now at|starting at)\s?"
    r"(?P<amount>\d[\d,]*(?:\.\d+)?)(?![\d%]|\s?[a-z一-鿿])"
    # 抵100 may go on in Chinese, and 99起, 9.9包邮 is a price by what follows it.
    r"|(?:定金|抵)\s?(?P<deposit>\d[\d,]*(?:\.\d+)?)(?=抵|元?$)"
    r"|(?<![\d.])(?P<bought>\d[\d,]*(?:\.\d+)?)(?=起(?![码来初点床飞跑步跳伏])|带走|带回家|拿下|到手|入手|包邮|(?:[一/每])[件双条个盒瓶]|秒杀|开抢))"
)
BARE_NUMBER = re.compile(r"[a-z]*\d[a-z0-9]*(?:[.,]\d+)*")
AT_MOST = re.compile(r"(?:不到|低于|不足|不超过|under|less than|below)\s?$")


class _Figures:
    """Reads dates, days, prices, quantities and bare numbers: what one has read the next does not read again."""

    def __init__(self, text: str, known: Facts, language: Language) -> None:
        self.text, self.rest, self.known, self.language = text, text, known, language
        self.words = lexicon.numbers(language)

    def take(self, place: tuple[int, int]) -> tuple[int, int]:
        start, end = place
        self.rest = self.rest[:start] + lexicon.BLANK * (end - start) + self.rest[end:]
        return place

    def dates(self) -> Iterator[Claim]:
        for place, day in list(_dates(self.rest)):
            self.take(place)
            if day not in self.known.days and not (day[1] == 0 and day[0] in self.known.months):
                yield "facts.date", *place
        for match in list(RELATIVE_DATE.finditer(self.rest)):
            self.take(match.span())
            if not self.known.say(match[0]):
                yield "facts.date_relative", *match.span()

    def events(self) -> Iterator[Claim]:
        for match in list(self.words.events.finditer(self.rest)):
            self.take(match.span())
            if not _event_is_known(match[0], self.known, self.words):
                yield "facts.event", *match.span()

    def discounts(self) -> Iterator[Claim]:
        for match in list(THRESHOLD.finditer(self.rest)):
            self.take(match.span())
            if not {float(match["full"]), float(match["less"])} <= self.known.amounts:
                yield "facts.price", *match.span()
        for start, end, left in list(_discounts(self.rest)):
            self.take((start, end))
            if not {left, round(left, 2)} & self.known.discounts:
                yield "facts.price", start, end

    def prices(self) -> Iterator[Claim]:
        for match in list(self.words.price.finditer(self.rest)):
            self.take(match.span())
            amount = lexicon.value(match["after"] or match["before"])
            if amount is not None and not _price_is_known(amount, match, self.text, self.known, self.words):
                yield "facts.price", *match.span()
        for match in list(NAKED_PRICE.finditer(self.rest)):
            name = next(group for group in ("amount", "deposit", "bought") if match[group])
            place = self.take(match.span(name))
            if lexicon.value(match[name]) not in self.known.amounts:
                yield "facts.price", *place

    def quantities(self) -> Iterator[Claim]:
        for place, kind, amount in list(_quantities(self.rest, self.language)):
            start, end = self.take(place)
            if (kind, amount) not in self.known.quantities and not self.known.say(self.text[start:end]):
                yield "facts.number", start, end

    def bare(self) -> Iterator[Claim]:
        for match in BARE_NUMBER.finditer(lexicon.blanked(self.rest, self.words.idioms)):
            number = lexicon.value(match[0])
            if len(match[0]) > 1 and not self.known.say(match[0]) and number not in self.known.figures:
                yield "facts.bare_number", *match.span()


def _look_for_figures(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    reader = _Figures(text, known, language)
    for read in (reader.dates, reader.events, reader.discounts, reader.prices, reader.quantities, reader.bare):
        yield from read()


def _price_is_known(amount: float, match: re.Match[str], text: str, known: Facts, words: lexicon.Numbers) -> bool:
    said = {code for price, code in _priced(known) if price == amount}
    if said or amount in known.amounts:
        # The same figure in another currency is another price.
        return not said or words.currencies.get(match["sign"] or match["name"] or "") in said
    limit = AT_MOST.search(text[max(0, match.start() - 12) : match.start()])
    return bool(limit) and any(price < amount <= 1.15 * price for price, _ in _priced(known))


def _priced(known: Facts) -> list[tuple[float, str | None]]:
    """(amount, currency code) of the facts' own prices."""
    found = []
    for language in LANGUAGES:
        words = lexicon.numbers(language)
        for match in words.price.finditer(known.plain):
            amount = lexicon.value(match["after"] or match["before"])
            if amount is not None:
                found.append((amount, words.currencies.get(match["sign"] or match["name"] or "")))
    return found


def _event_is_known(name: str, known: Facts, words: lexicon.Numbers) -> bool:
    spelled = _spelled(name, {one for group in words.same_events for one in group})
    others = next((group for group in words.same_events if spelled in group), frozenset({spelled}))
    return any(known.say(other) for other in others)


MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = rf"(?:{'|'.join(MONTHS)}|{'|'.join(month[:3] for month in MONTHS if month != 'may')}|sept)\.?"
_UNTIL = r"截止|截至|截至到|直到|只到|until|till|by|ends?(?: on)?|through|before"
DATE = re.compile(
    r"(?P<month>\d{1,2}|十[一二]?|[一二三四五六七八九])月(?P<day>\d{1,2}|[一二三四五六七八九十]{1,3})[日号]?"
    rf"|\b(?P<name>{_MONTH})\s+(?P<on>\d{{1,2}})(?:st|nd|rd|th)?\b(?!\s?(?:%|percent|hours?|days?))"
    rf"|\b(?P<of>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<long>{_MONTH})(?![a-z])"
    r"|(?<!\d)(?P<year>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})(?!\d)"
    rf"|(?:{_UNTIL})\s?(?P<until_m>\d{{1,2}})[/.](?P<until_d>\d{{1,2}})(?![\d%])"
    r"|(?<![\d.])(?P<to_m>\d{1,2})[/.](?P<to_d>\d{1,2})(?=日?(?:截止|结束|止|开抢|开售|开启|前下单|上新))"
    # A month alone is a date where something begins or ends with it.
    r"|(?P<only>\d{1,2}|十[一二]?|[一二三四五六七八九])月(?:底|末|初)?(?=截止|结束|开抢|开售|前下单)"
    rf"|\b(?:until|till|through|ends in|all)\s+(?P<whole>{_MONTH})(?![a-z]|\s+\d)"
)
RELATIVE_DATE = re.compile(
    r"(?:今[天日晚]|明[天日晚]|后天|本?周[一二三四五六日天末]|这周末|月[底末]|年底)(?:24点|零点)?(?:就|将|即将|前)?(?:要)?"
    r"(?:截止|结束|收官|恢复原价|涨价|下架)"
    r"|(?:截止|截至|仅限|只限|限|只到|最后)(?:到|于)?(?:今[天日晚]|明[天日晚]|后天|本?周[一二三四五六日天末]|月[底末]|年底)"
    r"|最后[一1](?:天|晚|小时)"
    r"|\b(?:ends?|until|till|through|by|expires?|only)\s+(?:tonight|today|tomorrow|midnight|(?:this\s+)?(?:weekend|week\b)"
    r"|(?:this\s+)?(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
    r"|\b(?:tonight|today|tomorrow|this\s+weekend|this\s+week)\s+only\b|\blast\s+(?:day|chance|call)\b"
)


def _dates(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """(place, (month, day)) of every day of the year; day 0: the month as a whole."""
    for match in DATE.finditer(text):
        found = match.groupdict()
        month = next((found[name] for name in ("month", "m", "until_m", "to_m", "only") if found[name]), None)
        day = next((found[name] for name in ("day", "d", "until_d", "to_d", "on", "of") if found[name]), "")
        if month:
            numbers = lexicon.value(month), lexicon.value(day) if day else 0.0
        else:
            named = found["name"] or found["long"] or found["whole"]
            place = next(number for number, name in enumerate(MONTHS, start=1) if name.startswith(named[:3]))
            numbers = float(place), lexicon.value(day) if day else 0.0
        if numbers[0] and numbers[1] is not None and numbers[0] <= 12 and numbers[1] <= 31:
            yield match.span(), (int(numbers[0]), int(numbers[1]))


def _look_for_offers(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    for offer in lexicon.numbers(language).offers:
        for match in offer.finditer(text):
            if not offer.search(known.plain):
                yield "facts.offer", *match.span()


def _look_for_deals(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    for deal in lexicon.numbers(language).deals:
        said = {_numerals(match[0]) for match in deal.finditer(known.plain)}
        for match in deal.finditer(text):
            if _numerals(match[0]) not in said:
                yield "facts.offer", *match.span()


NUMERAL = re.compile(
    rf"{lexicon.FIGURE}|[{lexicon.CHINESE_DIGITS}]+|\b(?:one|{'|'.join(lexicon.ENGLISH_NUMBERS)})\b", re.ASCII
)


def _numerals(text: str) -> tuple[float | None, ...]:
    return tuple(1.0 if one == "one" else lexicon.value(one) for one in NUMERAL.findall(text))


def _look_for_features(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    words = lexicon.features(language)
    given, denied = known.features
    for match in words.pattern.finditer(lexicon.blanked(text, words.not_features)):
        groups = words.groups[_spelled(match[0], words.groups)]
        if groups & given or words.denied.search(text[: match.start()]):
            continue
        yield "facts.feature_denied" if groups & denied else "facts.feature", *match.span()


def _look_for_origins(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    words = lexicon.features(language)
    taken: list[tuple[int, int]] = []
    for match in words.origins.finditer(text):
        taken.append(match.span())
        if words.countries[match["country"] or match["from"]] not in known.countries:
            yield "facts.origin", *match.span()
    for match in words.imported.finditer(text):
        inside = any(start <= match.start() < end for start, end in taken)
        if not inside and not any(lexicon.features(one).imported.search(known.plain) for one in LANGUAGES):
            yield "facts.origin", *match.span()


def _look_for_brands(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    for match in lexicon.numbers(language).brands.finditer(text):
        if not known.say(match[0]):
            yield "facts.brand", *match.span()


def _look_for_forms(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    excuse = lexicon.context("attributes", language)
    implied = known.forms[""]
    for slot in lexicon.slots(language):
        facts = known.forms[slot.name]
        for match in slot.pattern.finditer(lexicon.blanked(text, lexicon.not_forms(language))):
            form = _spelled(match[0], slot.forms)
            if form in facts or form in implied or known.say(form) or _is_alike(form, facts, slot):
                continue
            if excuse.excuses(*_around(text, *match.span())):
                continue
            contradicts = bool(facts - slot.together) and form not in slot.together and not slot.only_warns
            yield "facts.attribute" if contradicts else "facts.attribute_silent", *match.span()


def _is_alike(form: str, facts: frozenset[str], slot: lexicon.Slot) -> bool:
    """立领 and 小立领, wide leg and wide-leg: one holds the other, or both are of one group."""
    if any(form in fact or fact in form for fact in facts):
        return True
    return any(form in group and facts & group for group in slot.same)


def _look_for_parts(text: str, known: Facts, language: Language) -> Iterator[Claim]:
    kinds = lexicon.kinds(language)
    if not any(kind.marks.search(known.plain) for kind in kinds):
        return
    excuse = lexicon.context("attributes", language)
    for kind in kinds:
        if kind.marks.search(known.plain):
            continue
        for match in kind.parts.finditer(text):
            if not excuse.excuses(*_around(text, *match.span())):
                yield "facts.part", *match.span()


CHECKS = cast(
    "tuple[Callable[[str, Facts, Language], Iterable[Claim]], ...]",
    (
        _look_for_colours,
        _look_for_materials,
        _look_for_figures,
        _look_for_offers,
        _look_for_deals,
        _look_for_forms,
        _look_for_parts,
        _look_for_features,
        _look_for_origins,
        _look_for_brands,
    ),
)
