"""Nothing vulgar, nothing of a person, nothing that is meant for a model: in copy, and in what a prompt is made from.

Phone numbers are told by Google's number plans (phonenumbers), identity and bank numbers by their check digits
(python-stdnum), profanity by a maintained list in both languages (glin-profanity) less the words this trade needs
(``profanity.yml``). Everything else is rules: ``safety_zh.yml``, ``safety_en.yml``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adloom.creative import Brief, Copy, Language
from adloom.errors import AdloomError
from adloom.review.finding import Finding, Part, Severity
from adloom.review.rules import Hit, Reading, any_word, hits, parts_of, rule_set, version_of
from adloom.review.text import plain
from adloom.rule import Wording
from adloom.shop import Shop

PROFANITY = Path(__file__).with_name("profanity.yml")
LANGUAGES: Mapping[Language, str] = {"zh": "chinese", "en": "english"}
REGIONS: Mapping[Language, tuple[str, ...]] = {"zh": ("CN",), "en": ("US", "GB", "CN")}
CHINESE_DIGITS = str.maketrans("零〇一二三四五六七八九幺两", "0012345678912")
# What every text that breaks a rule of personal data has: most texts are done after one look.
_WORTH_A_LOOK = re.compile(
    r"[@＠]|\d(?:\D{0,3}\d){6}|[零〇一二三四五六七八九幺两]{7}|[路街巷弄号號栋棟幢座室道]|先生|女士|小姐|同学|同學|老师|老師|太太"
    r"|姓名|件人|系人|繫人|买家|買家|用户|用戶|微|薇|威|客服|店主|street|avenue|boulevard|lane|square|\b(?:st|ave|rd|road|blvd|drive)\b"
    r"|whatsapp|telegram|snapchat|line|signal|\b(?:mr|mrs|ms|miss|dm|text|call|message)\b|v信|vx|wx|qq|扣|企鹅|旺|钉",
    re.IGNORECASE,
)
PERSONAL = {
    "safety.phone", "safety.identity_number", "safety.bank_number", "safety.email", "safety.address", "safety.contact",
    "safety.person",
}  # fmt: skip


def unsafe(copy: Copy, brief: Brief, shop: Shop) -> list[Finding]:
    """What no copy may hold, in the order of its parts."""
    found: list[Finding] = []
    for part, text in parts_of(copy):
        found += text_unsafe(text, brief.language, part, shop.review.allowed_words)
    return list(dict.fromkeys(found))


def text_unsafe(text: str, language: Language, part: Part = "body", allowed: tuple[str, ...] = ()) -> list[Finding]:
    """The same for one text."""
    rules = rule_set("safety", language)
    reading = Reading(text, language, rules.stand_ins)
    found = [
        Finding(
            rule_id=hit.rule.id,
            part=part,
            span=reading.span(hit.spot),
            severity=hit.rule.severity,
            reason=f"{hit.rule.reason.in_language(language)} ({hit.rule.source})",
            start=hit.spot[0],
            rule_version=rules.version,
            source=hit.rule.source,
        )
        for hit in hits(reading, rules)
        if hit.exemption is None and _is_so(hit, language)
    ]
    return [*found, *_profanity(text, language, part, allowed)]


def personal_data(text: str, language: Language) -> list[str]:
    """Names of the rules of personal data that a text breaks: phone, email …; empty for nearly every text."""
    if not _WORTH_A_LOOK.search(unicodedata.normalize("NFKC", text)):
        return []
    rules = rule_set("safety", language)
    reading = Reading(text, language, rules.stand_ins)
    found = {hit.rule.id for hit in hits(reading, rules) if hit.rule.id in PERSONAL and _is_so(hit, language)}
    return sorted(one.partition(".")[2] for one in found)


# --- numbers -------------------------------------------------------------------------------------------------------


def _is_so(hit: Hit, language: Language) -> bool:
    """Is a number what its form suggests?"""
    if hit.rule.check == "phone":
        return _is_phone(hit.text, language)
    if hit.rule.check == "identity_number":
        return _is_identity(hit.text)
    if hit.rule.check == "bank_number":
        return _is_bank_number(hit.text)
    return True


def _is_phone(text: str, language: Language) -> bool:
    import phonenumbers

    digits = text.translate(CHINESE_DIGITS)
    for region in REGIONS[language]:
        try:
            number = phonenumbers.parse(digits, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return True
    return False


def _is_identity(text: str) -> bool:
    from stdnum.cn import ric
    from stdnum.us import ssn

    return bool(ric.is_valid(text.upper()) if len(text) == 18 else ssn.is_valid(text))


def _is_bank_number(text: str) -> bool:
    from stdnum import iban, luhn

    compact = re.sub(r"[ -]", "", text)
    return bool(luhn.is_valid(compact) if compact.isdigit() else iban.is_valid(compact))


# --- profanity -----------------------------------------------------------------------------------------------------


@cache
def profanity() -> dict[str, Any]:
    """The content of ``profanity.yml``; `AdloomError` names the key that is wrong."""
    try:
        content = yaml.safe_load(PROFANITY.read_text(encoding="utf-8"))
        Wording.model_validate(content["reason"])
        if content["severity"] not in ("block", "warn"):
            raise ValueError("severity: block or warn")
        for name in ("allowed", "inside"):
            for language in LANGUAGES:
                if not all(isinstance(word, str) for word in content[name][language]):
                    raise ValueError(f"{name}: {language}: words in quotes where YAML reads a number")
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValidationError, KeyError, TypeError, ValueError) as error:
        raise AdloomError(f"{PROFANITY.name}: {error}", "mend the word list") from error
    found: dict[str, Any] = content
    return found


@lru_cache(maxsize=64)
def _filter(language: Language, allowed: tuple[str, ...]) -> Any:
    from glin_profanity import Filter  # type: ignore[import-untyped,unused-ignore]

    own = profanity()["allowed"][language]
    return Filter({"languages": [LANGUAGES[language]], "ignore_words": [*own, *allowed]})


@cache
def _innocent(language: Language) -> re.Pattern[str]:
    return re.compile(any_word(profanity()["inside"][language]))


def _profanity(text: str, language: Language, part: Part, allowed: tuple[str, ...]) -> Iterator[Finding]:
    content = profanity()
    normal = plain(text)
    looked_at = _innocent(language).sub(lambda match: " " * len(match[0]), normal.text)
    # Its version is what the package lists and what is taken out of it.
    version = version_of([_package_version(), content, list(allowed)])
    reason = Wording.model_validate(content["reason"]).in_language(language)
    severity: Severity = content["severity"]
    for match in _filter(language, allowed).check_profanity(looked_at).get("matches", ()):
        start = int(match["index"])
        end = start + len(match["word"])
        span = normal.span(start, min(end, len(normal.text))) or match["word"]
        yield Finding(
            rule_id="safety.profanity",
            part=part,
            span=span,
            severity=severity,
            reason=f"{reason} ({content['source']})",
            start=normal.origins[start] if start < len(normal.origins) else 0,
            rule_version=version,
            source=content["source"],
        )


@cache
def _package_version() -> str:
    from importlib.metadata import version

    return version("glin-profanity")
