"""The sizes ad images come in, and which of them each channel takes (``formats.yml``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from adloom.errors import UsageError

Shape = Literal["square", "wide", "tall"]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are the first ones outside"""


@dataclass(frozen=True)
class Format:
    """One size. ``safe``: the box that text stays in."""

    name: str
    width: int
    height: int
    safe: Box

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)

    @property
    def shape(self) -> Shape:
        ratio = self.width / self.height
        return "square" if 0.8 <= ratio <= 1.25 else "wide" if ratio > 1 else "tall"


@dataclass(frozen=True)
class ChannelImages:
    """What a channel takes. ``most_bytes``: its largest file."""

    name: str
    formats: tuple[Format, ...]
    most_bytes: int


def image_format(name: str) -> Format:
    """The format of that name; `UsageError` lists the names there are."""
    if name not in _formats():
        raise UsageError(f"there is no image format {name}", f"one of {', '.join(_formats())}")
    return _formats()[name]


def formats() -> tuple[Format, ...]:
    """All formats, in the order of the file."""
    return tuple(_formats().values())


def channel_images(channel: str) -> ChannelImages:
    """Formats and file limit of a channel; `UsageError` if ``formats.yml`` does not name it."""
    rows = _file()["channels"]
    if channel not in rows:
        raise UsageError(f"channel {channel} has no image formats", "add it to channels in imagery/formats.yml")
    row = rows[channel]
    return ChannelImages(channel, tuple(image_format(name) for name in row["formats"]), row["kilobytes"] * 1000)


@cache
def _file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("formats.yml").read_text(encoding="utf-8"))
    return found


@cache
def _formats() -> dict[str, Format]:
    found = {}
    for name, row in _file()["formats"].items():
        left, top, right, bottom = row["safe"]
        safe = (left, top, row["width"] - right, row["height"] - bottom)
        found[name] = Format(name, row["width"], row["height"], safe)
    return found
