"""The word lists beside this file, read once and compiled: what is looked for, and what is taken out before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from adloom.creative import Language
from adloom.errors import AdloomError
from adloom.review.text import plain

HERE = Path(__file__).parent
LATIN = re.compile(r"[a-z0-9]")
# What replaces a phrase that is taken out: no rule matches it and it keeps every place where it was.
BLANK = "\0"


@cache
def words(name: str) -> dict[str, Any]:
    """The content of ``name``.yml; `AdloomError` names the file when it is not readable."""
    path = HERE / f"{name}.yml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AdloomError(f"review/{path.name} is not readable: {error}", "mend the word list") from error
    if not isinstance(content, dict):
        raise AdloomError(f"review/{path.name} must hold keys and values", "mend the word list")
    return content


def any_of(names: Iterable[str]) -> str:
    """A pattern for any of ``names``, longest first; Latin ones only as whole words."""
    ordered = sorted({plain(str(name)).text for name in names}, key=lambda name: (-len(name), name))
    return "|".join(_word(name) for name in ordered) or r"(?!)"


def _word(name: str) -> str:
    before = r"(?<![a-z0-9])" if LATIN.match(name) else ""
    after = r"(?![a-z0-9])" if LATIN.match(name[-1:]) else ""
    return before + re.escape(name).replace(r"\ ", r"[\s-]+") + after


def blanked(text: str, pattern: re.Pattern[str]) -> str:
    """``text`` with every match replaced by as many blanks."""
    return pattern.sub(lambda match: BLANK * len(match[0]), text)


@dataclass(frozen=True)
class Context:
    """Words around a span that make it no claim about the item."""

    pairing: re.Pattern[str]
    garment: re.Pattern[str] | None
    simile: re.Pattern[str]
    world: re.Pattern[str]

    def excuses(self, before: str, after: str) -> bool:
        """Is the span between ``before`` and ``after`` (of its clause) said of something else than the item?"""
        if self.simile.search(before) or self.world.search(after):
            return True
        paired = self.pairing.search(before)
        return bool(paired and (self.garment is None or self.garment.match(after)))


@cache
def context(name: str, language: Language) -> Context:
    """The contexts of list ``name``."""
    found = words(name)["contexts"].get(language, {})
    garments = found.get("garments")
    return Context(
        pairing=re.compile(found.get("pairing", r"(?!)")),
        # 搭配黑色的裤子 is another piece, 黑色裤身 is the item itself.
        garment=re.compile(rf".{{0,4}}?(?:{any_of(garments)})(?![身摆边脚腰领口袖])") if garments else None,
        simile=re.compile(found.get("simile", r"(?!)")),
        world=re.compile(found.get("world", r"(?!)")),
    )


@dataclass(frozen=True)
class Colours:
    """Colour words of one language."""

    pattern: re.Pattern[str]
    families: Mapping[str, frozenset[str]]
    """family or specific name → its families"""
    wide: frozenset[str]
    """names of families, which say no more than the family"""
    not_colours: re.Pattern[str]
    implied: Mapping[str, frozenset[str]]
    context: Context


@cache
def colours(language: Language) -> Colours:
    content = words("colours")
    families: dict[str, set[str]] = {}
    wide: set[str] = set()
    contextual: set[str] = set()
    for family, by_language in content["families"].items():
        own = by_language[language]
        if language == "zh":
            wide.update(own["names"])
            named = [*own["names"], *own["specific"]]
        else:
            contextual.update(own["in_context"])
            named = [*own["words"], *own["in_context"]]
            wide.update(named)
        for name in named:
            families.setdefault(name, set()).add(family)
    pattern = (
        _chinese_colours(families, wide, content)
        if language == "zh"
        else _english_colours(families, contextual, content)
    )
    return Colours(
        pattern=re.compile(pattern),
        families={name: frozenset(found) for name, found in families.items()},
        wide=frozenset(wide),
        not_colours=re.compile(any_of(content["not_colours"][language])),
        implied={plain(name).text: frozenset(found) for name, found in content["implied"].items()},
        context=context("colours", language),
    )


def _chinese_colours(families: Mapping[str, Any], wide: set[str], content: Mapping[str, Any]) -> str:
    modifiers = re.escape(content["modifiers"]["zh"])
    single = "".join(sorted(name for name in wide if len(name) == 1))
    specific = any_of(name for name in families if name not in wide)
    garments = any_of(content["contexts"]["zh"]["garments"])
    dyes = "红橙黄绿蓝紫粉白黑灰棕金银"
    return "|".join(
        (
            rf"(?P<specific>{specific})(?:色系|色调|色)?",
            rf"(?P<named>[{modifiers}]{{0,3}}(?P<base>{any_of(wide)}))(?:色系|色调|色)(?!情)",
            # 黑白, 红黑相间: both colours are claimed.
            rf"(?P<pair>[{dyes}][{dyes}])(?=相间|拼接|拼色|撞色|配色|格|条纹|两色|双色|色)|(?P<black_white>黑白|红白|蓝白)",
            # 黑裙, 红格子, 红的色调: without 色, only right before a piece of clothing, a pattern or a word for colour.
            rf"(?P<worn>[{single}])(?=(?:{garments})|格子|格纹|条纹|(?:的|作为|为)(?:色调|色彩|颜色|基调|底色|主色|主调|配色))",
        )
    )


def _english_colours(families: Mapping[str, Any], contextual: set[str], content: Mapping[str, Any]) -> str:
    modifiers = any_of(content["modifiers"]["en"])
    sure = any_of(name for name in families if name not in contextual)
    things = any_of(contextual)
    return "|".join(
        (
            rf"(?:(?:{modifiers})[\s-]+)?(?P<specific>{sure})",
            rf"(?<=\bin )(?:(?:{modifiers})[\s-]+)?(?P<named>{things})(?!\s+(?:shape|flavou?r|taste))",
            rf"(?P<worn>{things})(?=[\s-]+(?:colou?r|colou?red|tones?|toned|hues?|shades?|finish)\b)",
            rf"(?:(?:{modifiers})[\s-]+)(?P<base>{things})",
        )
    )


@dataclass(frozen=True)
class Materials:
    """Material words of one language."""

    pattern: re.Pattern[str]
    families: Mapping[str, frozenset[str]]
    loose: frozenset[str]
    fabrics: frozenset[str]
    """families that only partly name a material"""
    not_materials: re.Pattern[str]
    implied: Mapping[str, frozenset[str]]
    context: Context


@cache
def materials(language: Language) -> Materials:
    content = words("materials")
    families: dict[str, set[str]] = {}
    loose: set[str] = set()
    for family, by_language in content["families"].items():
        own = by_language[language]
        loose.update(own["loose"])
        for name in (*own["loose"], *own["specific"]):
            families.setdefault(name, set()).add(family)
    for family, by_language in content["fabrics"].items():
        loose.update(by_language[language])
        for name in by_language[language]:
            families.setdefault(name, set()).add(family)
    return Materials(
        pattern=re.compile(any_of(families)),
        families={plain(name).text: frozenset(found) for name, found in families.items()},
        loose=frozenset(loose),
        fabrics=frozenset(content["fabrics"]),
        not_materials=re.compile(any_of(content["not_materials"][language])),
        implied={plain(name).text: frozenset(found) for name, found in content["implied"].items()},
        context=context("materials", language),
    )


@dataclass(frozen=True)
class Slot:
    """The forms one part of an item can have."""

    name: str
    pattern: re.Pattern[str]
    forms: frozenset[str]
    same: tuple[frozenset[str], ...]
    """forms of one group do not contradict each other"""
    together: frozenset[str]
    """forms that stand beside any other of the slot"""
    only_warns: bool


@cache
def slots(language: Language) -> tuple[Slot, ...]:
    return tuple(
        Slot(
            name=name,
            pattern=re.compile(any_of(row[language])),
            forms=frozenset(row[language]),
            same=tuple(frozenset(group) for group in row.get("same", ())),
            together=frozenset(row.get("together", ())),
            only_warns=bool(row.get("warn_only", False)),
        )
        for name, row in words("attributes")["slots"].items()
    )


@cache
def implied_forms() -> Mapping[str, frozenset[str]]:
    return {plain(name).text: frozenset(found) for name, found in words("attributes")["implied"].items()}


@dataclass(frozen=True)
class Kind:
    """A kind of piece: what facts call it, and the parts only it has."""

    marks: re.Pattern[str]
    parts: re.Pattern[str]


@cache
def kinds(language: Language) -> tuple[Kind, ...]:
    return tuple(
        Kind(re.compile(any_of(row["marks"][language])), re.compile(any_of(row["parts"][language])))
        for row in words("attributes")["kinds"].values()
    )


@cache
def not_forms(language: Language) -> re.Pattern[str]:
    return re.compile(any_of(words("attributes")["not_forms"][language]))


@dataclass(frozen=True)
class Numbers:
    """Units, currencies, offers, days and brands of one language."""

    quantity: re.Pattern[str]
    units: Mapping[str, tuple[str, float]]
    """spelling → (what it measures, factor to that kind's first unit)"""
    idioms: re.Pattern[str]
    price: re.Pattern[str]
    currencies: Mapping[str, str]
    offers: tuple[re.Pattern[str], ...]
    events: re.Pattern[str]
    same_events: tuple[frozenset[str], ...]
    brands: re.Pattern[str]
    deals: tuple[re.Pattern[str], ...]
    """offers and promises whose figures must be those of a fact"""


@dataclass(frozen=True)
class Features:
    """What items can do and where they come from, in the words of one language."""

    pattern: re.Pattern[str]
    groups: Mapping[str, frozenset[str]]
    """spelling → its groups"""
    not_features: re.Pattern[str]
    none: re.Pattern[str]
    """a fact that ends like this says there is none"""
    denied: re.Pattern[str]
    origins: re.Pattern[str]
    """a country with a word that says the item comes from it; its group is named ``country``"""
    countries: Mapping[str, str]
    """spelling → country"""
    imported: re.Pattern[str]


@cache
def features(language: Language) -> Features:
    content = words("features")
    groups: dict[str, set[str]] = {}
    for group, row in content["features"].items():
        for name in row[language]:
            groups.setdefault(plain(str(name)).text.replace("-", " "), set()).add(group)
    countries = {plain(name).text: country for country, row in content["origins"].items() for name in row[language]}
    named = any_of(countries)
    if language == "zh":
        origins = rf"(?P<country>{named}){content['said']['zh']}|(?:产自|来自|源自)(?P<from>{named})"
    else:
        said = content["said"]["en"]
        origins = rf"{said['before']}(?P<country>{named})|(?P<from>{named}){said['after']}"
    return Features(
        pattern=re.compile(any_of(groups)),
        groups={name: frozenset(found) for name, found in groups.items()},
        not_features=re.compile(any_of(content["not_features"][language])),
        none=re.compile(rf"\s(?:{'|'.join(map(re.escape, content['none'][language]))})$"),
        denied=re.compile(content["denied"][language]),
        origins=re.compile(origins),
        countries=countries,
        imported=re.compile(content["imported"][language]),
    )


CHINESE_DIGITS = "零〇一二两三四五六七八九十百千万亿"
FIGURE = r"\d(?:[\d,]*\d)?(?:\.\d+)?"


@cache
def numbers(language: Language) -> Numbers:
    content = words("numbers")
    units = {
        plain(str(spelling)).text: (row["kind"], float(row["factor"]))
        for row in content["units"].values()
        for spelling in row[language]
    }
    # A unit in letters ends where its letters end: 5g in 5gb is no gram.
    spellings = "|".join(
        re.escape(name) + (r"(?![a-z])" if LATIN.match(name[-1]) else "")
        for name in sorted(units, key=lambda name: (-len(name), name))
    )
    before, after = {}, {}
    for code, row in content["currencies"].items():
        before.update({plain(sign).text: code for sign in row["before"]})
        after.update({plain(sign).text: code for sign in row["after"]})
    numeral = rf"{FIGURE}|[{CHINESE_DIGITS}]{{2,}}" if language == "zh" else FIGURE
    signs = "|".join(re.escape(sign) for sign in sorted(before, key=len, reverse=True))
    names = "|".join(
        re.escape(sign) + (r"(?![a-z])" if LATIN.match(sign[-1]) else "")
        for sign in sorted(after, key=len, reverse=True)
    )
    spelled = "|".join(sorted(ENGLISH_NUMBERS, key=len, reverse=True))
    figure = (
        rf"{FIGURE}|[{CHINESE_DIGITS}]+" if language == "zh" else rf"{FIGURE}|\b(?:{spelled})(?:[\s-](?:{spelled}))*"
    )
    return Numbers(
        quantity=re.compile(
            rf"百分之(?P<percent>{figure})|(?<![a-z0-9.])(?P<figure>{figure})(?:多|余|来|\+)?[\s-]?(?P<unit>{spellings})"
            if language == "zh"
            else rf"(?<![a-z0-9.])(?P<figure>{figure})\+?[\s-]?(?P<unit>{spellings})"
        ),
        units=units,
        idioms=re.compile(any_of(content["idioms"][language])),
        price=re.compile(
            rf"(?P<sign>{signs})\s?(?P<after>{FIGURE})(?:\s?(?:{names}))?|(?P<before>{numeral})\s?(?P<name>{names})"
        ),
        currencies=before | after,
        offers=tuple(re.compile(any_of(spelled_ways)) for spelled_ways in content["offers"][language]),
        events=re.compile(any_of(content["events"][language])),
        same_events=tuple(frozenset(plain(str(name)).text for name in group) for group in content["same_events"]),
        brands=re.compile(
            "|".join(
                [
                    any_of([*content["brands"]["zh"], *content["brands"]["en"]]),
                    *(pattern for one in content["brands"]["in_context"].values() for pattern in one),
                ]
            )
        ),
        deals=tuple(re.compile(pattern) for pattern in content["deals"][language]),
    )


ENGLISH_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "fifteen": 15, "eighteen": 18, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip


def value(numeral: str) -> float | None:
    """What a numeral says: 1,280 · 三十 · thirty-six; none where it is none."""
    compact = numeral.replace(",", "").strip()
    try:
        return float(compact)
    except ValueError:
        pass
    if compact and all(character in CHINESE_DIGITS for character in compact):
        return _chinese_value(compact)
    parts = [part for part in re.split(r"[\s-]+", compact) if part]
    if parts and all(part in ENGLISH_NUMBERS for part in parts):
        total = 0
        for part in parts:
            figure = ENGLISH_NUMBERS[part]
            total = max(total, 1) * figure if figure >= 100 else total + figure
        return float(total)
    return None


def _chinese_value(numeral: str) -> float:
    digits = {character: place for place, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
    powers = {"十": 10, "百": 100, "千": 1000}
    if not any(character in "十百千万亿" for character in numeral):
        return float("".join(str(digits[character]) for character in numeral))
    total, section, digit = 0, 0, 0
    for character in numeral:
        if character in digits:
            digit = digits[character]
        elif character in powers:
            section += max(digit, 1) * powers[character]
            digit = 0
        else:
            total = (total + max(section + digit, 1)) * (10_000 if character == "万" else 100_000_000)
            section = digit = 0
    return float(total + section + digit)
