"""What may be said of an item in one language: cleaned facts of the shop, or the reason why nothing is said.

A shop's catalogue is untrusted text of any shape. Nothing is translated, completed or cut so that it means something
else: a fact that cannot be used as it stands is left out; without title, category and an attribute there is no brief.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adloom.creative import ItemFacts, Language
from adloom.review.safety import personal_data

LONGEST_TITLE, LONGEST_CATEGORY, LONGEST_BRAND = 120, 80, 40
LONGEST_NAME, LONGEST_VALUE = 40, 120
"""Characters; a longer name or value is no fact a copy could state, and one that is cut may say the opposite."""
MOST_ATTRIBUTES = 16
DEEPEST = 3
TRANSLATIONS = "translations"
LANGUAGE_NAMES: Mapping[Language, str] = {"zh": "Chinese", "en": "English"}

_SIGNS = {
    "CNY": "¥",
    "JPY": "¥",
    "USD": "$",
    "EUR": "€",
    "GBP": "£",
    "KRW": "₩",
    "INR": "₹",
    "HKD": "HK$",
    "TWD": "NT$",
}
_WITHOUT_CENTS = {"JPY", "KRW"}
_YES_NO: Mapping[Language, tuple[str, str]] = {"zh": ("是", "否"), "en": ("yes", "no")}
_NOTHING = {"", "-", "none", "n/a", "na", "null", "unknown", "other", "无", "没有", "未知", "其他", "其它", "不详"}
_SCRIPT = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(r"</?[a-zA-Z!][^<>]*>")
_ADDRESS = re.compile(r"https?://|www\.", re.IGNORECASE)
_EAST_ASIAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")


class Refused(ValueError):
    """No brief can be written; the text says which fact is missing."""


@dataclass(frozen=True)
class Item:
    """An item as the shop delivered it last. ``was_asked``: its list price stands among its prices of late."""

    item_id: str
    title: str
    category: str
    brand: str = ""
    price: Decimal | None = None
    list_price: Decimal | None = None
    currency: str = ""
    attributes: str = ""
    """JSON as delivered"""
    was_asked: bool = False
    popularity: float = 1.0
    """1: an average item of the shop"""
    viewers: int = 0
    buyers: int = 0


def clean(text: str) -> str:
    """One line without markup, control characters, direction marks and invisible signs; letters of any script stay."""
    text = html.unescape(text)
    text = _MARKUP.sub(" ", _SCRIPT.sub(" ", text))
    text = "".join(" " if one.isspace() else one for one in unicodedata.normalize("NFC", text))
    text = "".join(one for one in text if unicodedata.category(one)[0] != "C")
    return " ".join(text.split())


def is_in_language(text: str, language: Language) -> bool:
    """Can a reader of the language read it? Chinese readers read Latin letters too, English readers no Han."""
    if text.isascii():
        return True
    if language == "en" and _EAST_ASIAN.search(text):
        return False
    letters = [one for one in text if one.isalpha()]
    return 2 * sum(_is_readable(one, language) for one in letters) >= len(letters)


def _is_readable(letter: str, language: Language) -> bool:
    name = unicodedata.name(letter, "")
    return name.startswith(("LATIN", "GREEK", "FULLWIDTH LATIN")) or (language == "zh" and name.startswith("CJK"))


def describe(item: Item, language: Language, main_language: Language) -> ItemFacts:
    """The facts of ``item`` in ``language``; raises `Refused`."""
    content = _content(item)
    known = content
    title, category, brand = item.title, item.category, item.brand
    if language != main_language:
        translated = _object(_object(content.get(TRANSLATIONS)).get(language))
        title, category, brand = (_text(translated.get(name)) for name in ("title", "category", "brand"))
        known = _object(translated.get("attributes"))
    return ItemFacts(
        item_id=item.item_id,
        title=_title(item, title, language),
        category=_category(item, category, language),
        brand=_optional(brand, LONGEST_BRAND, language),
        price=price_words(item.price, item.currency, language),
        list_price=_list_price(item, language),
        attributes=_attributes(item, known, language),
    )


def _content(item: Item) -> dict[str, Any]:
    if not item.attributes:
        return {}
    try:
        # Numbers stay as they are written: 1.50 is no 1.5.
        content = json.loads(item.attributes, parse_int=str, parse_float=str, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        raise Refused(f"item {item.item_id} has attributes that are no readable JSON") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Refused(f"item {item.item_id} has attributes that are no object of name → value")
    return content


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _title(item: Item, text: str, language: Language) -> str:
    title, name = clean(text), LANGUAGE_NAMES[language]
    if not title:
        raise Refused(f"item {item.item_id} has no {name} title")
    if len(title) > LONGEST_TITLE:
        raise Refused(
            f"item {item.item_id} has a title of {len(title):,} characters; {LONGEST_TITLE} is the most that is one"
        )
    if title == item.item_id or not any(one.isalnum() for one in title):
        raise Refused(f"item {item.item_id} has a title without words")
    if not is_in_language(title, language):
        raise Refused(f"item {item.item_id} has a title that is not {name}")
    if personal := personal_data(title, language):
        raise Refused(f"item {item.item_id} has a title with personal data: {', '.join(personal)}")
    return title


def _category(item: Item, text: str, language: Language) -> str:
    category = "/".join(part for part in (clean(one) for one in text.split("/")) if part)
    if not category:
        raise Refused(f"item {item.item_id} has no {LANGUAGE_NAMES[language]} category")
    if len(category) > LONGEST_CATEGORY:
        raise Refused(f"item {item.item_id} has a category of {len(category):,} characters")
    if not is_in_language(category, language):
        raise Refused(f"item {item.item_id} has a category that is not {LANGUAGE_NAMES[language]}")
    return category


def _optional(text: str, longest: int, language: Language) -> str:
    value = clean(text)
    return value if len(value) <= longest and is_in_language(value, language) else ""


def _attributes(item: Item, content: Mapping[str, Any], language: Language) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in _flat(content, language):
        if len(found) == MOST_ATTRIBUTES:
            break
        if name not in found and _is_fact(name, LONGEST_NAME, language) and _is_fact(value, LONGEST_VALUE, language):
            found[name] = value
    if not found:
        kind = "usable " if content.keys() - {TRANSLATIONS} else ""
        raise Refused(f"item {item.item_id} has no {kind}{LANGUAGE_NAMES[language]} attributes")
    return found


def _is_fact(text: str, longest: int, language: Language) -> bool:
    if text.casefold() in _NOTHING or len(text) > longest or not any(one.isalnum() for one in text):
        return False
    if _ADDRESS.search(text) or personal_data(text, language):
        return False
    return is_in_language(text, language)


def _flat(value: Any, language: Language, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(name, value) of an attribute of any shape: size: {width: 3 cm} → size width: 3 cm; a list is joined."""
    if isinstance(value, dict):
        if len(path) < DEEPEST:
            for name, inner in value.items():
                if path or name != TRANSLATIONS:
                    yield from _flat(inner, language, (*path, clean(name)))
    elif isinstance(value, list):
        separator = "、" if language == "zh" else ", "
        words = [_scalar(one, language) for one in value]
        # One that is no word, and the list would say less than it holds.
        if all(words):
            yield " ".join(path), separator.join(words)
    elif value is not None:
        yield " ".join(path), _scalar(value, language)


def _scalar(value: Any, language: Language) -> str:
    if isinstance(value, bool):
        return _YES_NO[language][0 if value else 1]
    return clean(_text(value))


def price_words(price: Decimal | None, currency: str, language: Language) -> str:
    """¥199, ¥36.9 (Chinese), $19.90, ¥2,299, SEK 199; empty where there is no price or it cannot be written exactly."""
    currency = currency.strip().upper()
    if price is None or price <= 0 or not re.fullmatch(r"[A-Z]{3}", currency):
        return ""
    cents = 0 if currency in _WITHOUT_CENTS else 2
    exact = price.quantize(Decimal(1).scaleb(-cents))
    if exact != price:
        return ""
    if exact == exact.to_integral_value():
        exact = exact.to_integral_value()
    digits = f"{exact:f}".rstrip("0").rstrip(".") if language == "zh" and "." in f"{exact:f}" else f"{exact:,f}"
    if language == "zh":
        digits = digits.replace(",", "")
        if currency == "JPY":
            return f"{digits}日元"
    sign = _SIGNS.get(currency, f"{currency} ")
    return f"{sign}{digits}"


def _list_price(item: Item, language: Language) -> str:
    """The price before the reduction; only where the shop really asked it."""
    if item.price is None or item.list_price is None or not item.was_asked or item.list_price <= item.price:
        return ""
    return (
        price_words(item.list_price, item.currency, language)
        if price_words(item.price, item.currency, language)
        else ""
    )
