"""What the rooms that make a creative hand to each other: a brief, the copy written for it, and a training pair.

A brief holds facts and nothing invented: whatever it does not hold, a copy must not claim. All of it is plain data,
written as JSON lines between tasks, so that a GPU worker needs no warehouse.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adloom.errors import AdloomError

Scenario = Literal["recommendation", "cross_category", "promotion", "social", "hot_event"]
Language = Literal["zh", "en"]
ALL = "all"
NOT_PERSONALISED = "not_personalised"
SCENARIOS: tuple[Scenario, ...] = ("recommendation", "cross_category", "promotion", "social", "hot_event")
# What a reader must be able to see on everything a model had a part in: copy, pictures, videos. The only place of it.
AI_LABEL: dict[Language, str] = {"zh": "AI生成", "en": "AI-generated"}


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def json_line(self) -> str:
        """Compact JSON with sorted keys: equal content has equal text."""
        return json.dumps(
            self.model_dump(mode="json", by_alias=True), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of the content."""
        return hashlib.sha256(self.json_line().encode()).hexdigest()[:16]


class ItemFacts(_Row):
    """What a copy may say of an item, in the brief's language."""

    item_id: str
    title: str = Field(min_length=1)
    category: str = ""
    brand: str = ""
    price: str = Field(default="", description="as it is to be written, with its currency: ¥199, $19.90")
    list_price: str = ""
    attributes: dict[str, str] = {}


class Offer(_Row):
    """A campaign's offer, in the brief's language."""

    campaign_id: str
    name: str
    text: str = Field(min_length=1, description="the offer itself: 满300减40, 20 % off headphones")
    starts_on: date | None = None
    ends_on: date | None = None


class HotEvent(_Row):
    """An event of public interest that a copy may allude to."""

    event_id: str
    title: str = Field(min_length=1)
    keywords: tuple[str, ...] = ()
    ends_on: date | None = Field(default=None, description="its last day: nobody is shown the copy after it")


class CopyLimits(_Row):
    """What a channel takes, in characters of the written text (not bytes)."""

    headline: int = Field(gt=0)
    body_min: int = Field(default=0, ge=0)
    body: int = Field(gt=0)
    call_to_action: int = Field(gt=0)
    hashtags_min: int = Field(default=0, ge=0)
    hashtags: int = Field(default=0, ge=0)


class Channel(_Row):
    """Where a copy is shown: how it sounds there and how long it may be."""

    name: str
    tone: str
    limits: CopyLimits

    @property
    def is_social(self) -> bool:
        return self.limits.hashtags > 0


@cache
def channels(language: Language) -> dict[str, Channel]:
    """Name → channel, for copy in ``language`` (``channels.yml``)."""
    rows = yaml.safe_load(Path(__file__).with_name("channels.yml").read_text(encoding="utf-8"))[language]
    found = {}
    for name, row in rows.items():
        least, most = row["body"]
        tags = row.get("hashtags", (0, 0))
        limits = CopyLimits(
            headline=row["headline"],
            body_min=least,
            body=most,
            call_to_action=row["call_to_action"],
            hashtags_min=tags[0],
            hashtags=tags[1],
        )
        found[name] = Channel(name=name, tone=row["tone"], limits=limits)
    return found


def voiced(tone: str, voice: str, language: Language) -> str:
    """A channel's tone and the shop's voice, as a brief has them."""
    if not voice:
        return tone
    return f"{tone}；{voice}" if language == "zh" else f"{tone}; {voice}"


class Brief(_Row):
    """One order to write: for whom, about what, where it is shown, within which limits."""

    scenario: Scenario
    language: Language
    channel: str
    segment_id: str
    segment_words: str = Field(default="", description="the portrait in words; empty where nothing is personalised")
    item: ItemFacts
    related: str = Field(default="", description="cross_category: the category the segment looked at")
    offer: Offer | None = None
    event: HotEvent | None = None
    tone: str = ""
    forbidden_words: tuple[str, ...] = ()
    limits: CopyLimits
    directives: tuple[str, ...] = Field(default=(), description="what the strategy asks for, in words")
    variants: int = Field(default=1, ge=1, le=50)
    seed: int = Field(default=0, ge=0)

    @property
    def brief_id(self) -> str:
        return self.digest


class Copy(_Row):
    """A finished ad text."""

    headline: str = Field(min_length=1)
    body: str = Field(min_length=1)
    call_to_action: str = Field(min_length=1)
    hashtags: tuple[str, ...] = Field(default=(), description="without #")

    @property
    def text(self) -> str:
        """Everything a reader sees, one part a line."""
        tags = " ".join(f"#{tag}" for tag in self.hashtags)
        return "\n".join(part for part in (self.headline, self.body, self.call_to_action, tags) if part)


def content_hash(copy_hash: str, asset_digests: Iterable[str] = ()) -> str:
    """What an approval is bound to: a copy's hash, and the digests of all pictures and videos made for it, if any."""
    digests = sorted(asset_digests)
    if not digests:
        return copy_hash
    return hashlib.sha256("\n".join([copy_hash, *digests]).encode()).hexdigest()[:16]


class Pair(_Row):
    """A brief and a copy that was approved for it: what a model learns from."""

    model_config = ConfigDict(populate_by_name=True)

    brief: Brief
    copy_: Copy = Field(alias="copy")
    origin: str = Field(description="starter, or the creative_id the copy came from")


def write_rows(path: Path, rows: Iterable[_Row]) -> int:
    """Write rows as JSON lines, whole or not at all; returns how many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    count = 0
    with fresh.open("w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(row.json_line() + "\n")
            count += 1
    fresh.replace(path)
    return count


Row = TypeVar("Row", bound=_Row)


def read_rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    """The rows of a file that `write_rows` wrote, one at a time; `AdloomError` names file, line and field."""
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "row"
                raise AdloomError(
                    f"{path.name}, line {number}: {where}: {first['msg']}",
                    "mend the line, or remove the file and run the step that writes it again",
                ) from error
