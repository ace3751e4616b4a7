"""A portrait as words: one clause a copywriter can use, in Chinese and in English.

Names of categories and items come from the shop and are untrusted text: they are cleaned and cut short, and a name that
is only a number or looks like an id is no name. Nothing is said that was not handed over, and what is handed over here
holds for at least k users.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LONGEST_TITLE = {"zh": 30, "en": 60}
LONGEST_CATEGORY = {"zh": 12, "en": 30}
OFTEN, SELDOM = 5, 2
"""Tenths of the segment's users: from OFTEN on it is a habit of most, up to SELDOM one of few."""

_HAN = re.compile(r"[\u3400-\u9fff]")
_MEDIA = re.compile(
    r"书|小说|文学|漫画|杂志|影视|电影|音乐|唱片"
    r"|\b(books?|fiction|novels?|comics?|magazines?|films?|movies?|music)\b",
    re.IGNORECASE,
)
_PASTIME = re.compile(
    r"运动|户外|健身|玩具|手工|摄影|旅行|园艺|零食|美食|茶|咖啡"
    r"|\b(sports?|outdoors?|fitness|toys?|crafts?|photography|travel|gardening|snacks?|food|tea|coffee)\b",
    re.IGNORECASE,
)
_PRICE = {
    "zh": {"value": "看重性价比", "middle": "多选中等价位", "premium": "偏爱高端款"},
    "en": {"value": "looks for good value", "middle": "shops in the middle price range", "premium": "prefers premium"},
}
_LIFE = {
    "zh": {
        "new": "最近才开始逛",
        "active": "近期活跃",
        "lapsing": "有一阵子没来了",
        "returning": "久别后又回来了",
        "lapsed": "很久没来了",
    },
    "en": {
        "new": "new to the shop",
        "active": "recently active",
        "lapsing": "has not been in for a while",
        "returning": "back after a long break",
        "lapsed": "has been away for long",
    },
}
_BEHAVIOUR_ONLY = {"zh": "（只依据行为）", "en": " (known by behaviour only)"}


@dataclass(frozen=True)
class Named:
    """A category path or an item title, per language; a language without a name is left out."""

    names: Mapping[str, str]
    is_media: bool = False
    is_pastime: bool = False


@dataclass(frozen=True)
class Content:
    """What holds for at least k users of a segment. Tenths: share of its users."""

    interests: Sequence[Named] = ()
    recent_items: Sequence[Named] = ()
    price_level: str = ""
    life_cycle: str = ""
    kept_tenths: int | None = None
    bought_tenths: int | None = None
    languages: Sequence[str] = field(default=("zh", "en"))


def clean(text: str, longest: int) -> str:
    """One line without control characters, markup signs and quotation marks, cut at ``longest`` characters."""
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if character.isspace() else character for character in text)
    text = "".join(character for character in text if unicodedata.category(character)[0] != "C")
    text = re.sub(r"<[^<>]*>", " ", text)
    text = re.sub(r"[<>{}\[\]\\`\"“”„「」『』《》|]", "", text)
    text = re.sub(r"\s+", " ", text).strip(" ,，.。;；:：")
    if len(text) <= longest:
        return text
    cut = text[: longest - 1]
    # Between words where there are any; Chinese has none.
    if " " in cut[longest // 2 :]:
        cut = cut[: cut.rindex(" ")]
    return cut.rstrip(" ,，.。;；:：") + "…"


def is_name(text: str) -> bool:
    """Is this a name for people? Numbers, keys and hashes are not."""
    letters = sum(character.isalpha() for character in text)
    digits = sum(character.isdigit() for character in text)
    if letters < 1 or (digits >= 6 and digits > letters) or re.search(r"\d{7}", text):
        return False
    return not re.search(r"\b(?=\w*\d)[0-9a-f]{12,}\b", text, re.IGNORECASE)


def named_category(paths: Mapping[str, str | None]) -> Named:
    """Language → category path, as a name: the last part of each path, where that is in the language."""
    names = {}
    for language, path in paths.items():
        parts = [clean(part, LONGEST_CATEGORY[language]) for part in (path or "").split("/")]
        name = _category_name(language, parts[0], parts[-1])
        if is_name(parts[-1]) and _is_in(language, name):
            names[language] = name
    everything = " ".join(path or "" for path in paths.values())
    departments = " ".join((path or "").partition("/")[0] for path in paths.values())
    return Named(names, bool(_MEDIA.search(everything)), bool(_PASTIME.search(departments)))


def _category_name(language: str, first: str, leaf: str) -> str:
    """A leaf that needs its first level to be understood gets it: 生活方式类图书, lifestyle books, things for dogs."""
    needs_it = first != leaf and bool(_MEDIA.search(first)) and not _MEDIA.search(leaf)
    if language == "zh":
        return f"{leaf}类{first}" if needs_it else leaf
    leaf = _lower(leaf)
    if leaf.startswith("for "):
        return f"things {leaf}"
    return f"{leaf} {_lower(first)}" if needs_it else leaf


def named_item(titles: Mapping[str, str | None], category: Named) -> Named:
    """Language → title, as a name; a work of its category is set in the marks of one."""
    names = {}
    for language, title in titles.items():
        name = clean(title or "", LONGEST_TITLE[language])
        if is_name(name) and _is_in(language, name):
            names[language] = name
    return Named(names, category.is_media)


def _is_in(language: str, text: str) -> bool:
    """Chinese readers read Latin letters too; English readers no Han."""
    return language == "zh" or not _HAN.search(text)


def _lower(text: str) -> str:
    """Science Fiction → science fiction; TVs and USB-C stay."""
    return " ".join(word.lower() if word[:1].isupper() and word[1:].islower() else word for word in text.split())


def words(content: Content) -> dict[str, str]:
    """Language → one clause; empty where nothing can be said."""
    return {"zh": _chinese(content), "en": _english(content)}


def _chinese(content: Content) -> str:
    parts = []
    interests = _names(content.interests[:2], "zh")
    if interests:
        first = content.interests[0]
        verb = "喜欢" if first.is_media or first.is_pastime else "关注"
        parts.append(verb + "和".join(interests))
    items = [item for item in content.recent_items if "zh" in item.names][:1]
    parts += [
        "最近浏览了" + (f"《{item.names['zh']}》" if item.is_media else f"“{item.names['zh']}”") for item in items
    ]
    if not interests:
        parts += _behaviour(content, "zh")
    parts += _manner(content, "zh")
    text = "，".join(parts)
    return text + _BEHAVIOUR_ONLY["zh"] if text and not interests and not items else text


def _english(content: Content) -> str:
    parts = []
    interests = _names(content.interests[:2], "en")
    if interests:
        first = content.interests[0]
        verb = "into " if first.is_media or first.is_pastime else "interested in "
        parts.append(verb + (" and " if " and " not in " ".join(interests) else " as well as ").join(interests))
    items = [item for item in content.recent_items if "en" in item.names][:1]
    parts += [f"recently looked at “{item.names['en']}”" for item in items]
    if not interests:
        parts += _behaviour(content, "en")
    parts += _manner(content, "en")
    text = ", ".join(parts)
    return text + _BEHAVIOUR_ONLY["en"] if text and not interests and not items else text


def _names(found: Sequence[Named], language: str) -> list[str]:
    return list(dict.fromkeys(one.names[language] for one in found if language in one.names))


def _manner(content: Content, language: str) -> list[str]:
    said = (_PRICE[language].get(content.price_level), _LIFE[language].get(content.life_cycle))
    return [one for one in said if one]


def _behaviour(content: Content, language: str) -> list[str]:
    """What most of them do: the shop has no names for what they look at."""
    if content.kept_tenths is None or content.bought_tenths is None:
        return []
    keeps, buys = content.kept_tenths, content.bought_tenths
    if buys >= OFTEN:
        chosen = (
            ("下单爽快", "buys readily") if keeps < OFTEN else ("常加购，也常下单", "often adds to cart and often buys")
        )
    elif keeps >= OFTEN:
        chosen = ("常加购，很少下单", "often adds to cart, rarely buys")
        if buys > SELDOM:
            chosen = ("常加购，偶尔下单", "often adds to cart, sometimes buys")
    elif buys <= SELDOM:
        chosen = ("看得多，买得少", "looks around more than it buys")
    else:
        chosen = ("偶尔下单", "sometimes buys")
    return [chosen[0] if language == "zh" else chosen[1]]
