"""What the creatives door judges of a day's images: is every ordered one there, checked, labelled, and still itself?

From the stored rows and the files alone, with rules of their own: what composing promises is looked at again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from adloom.quality.facts import Facts, Measured, skipped

SHOWN = 3
ELEMENTS = ("Label", "ContentProducer", "ProduceID", "ReservedCode1")
"""Of the label's seven those that the producer fills in."""
SIZE = re.compile(r"_(\d+)x(\d+)$")


def missing(facts: Facts) -> Measured:
    """Ordered images that are not there, and no review says why; and images nobody ordered."""
    orders, made = _orders(facts), {(row["creative_id"], row["format"]) for row in _assets(facts)}
    if not orders:
        return skipped("no images were ordered on the day")
    told = {(row["creative_id"], row["part"]) for row in _findings(facts)}
    wrong = [f"{one} {name}: not made" for one, name in orders if (one, name) not in made | told]
    wrong += [f"{one} {name}: not ordered" for one, name in sorted(made - set(orders))]
    return _counted(wrong, len(orders))


def refused(facts: Facts) -> Measured:
    """Share of the creatives with images that a finding about an image blocks."""
    creatives = {one for one, _ in _orders(facts)}
    if not creatives:
        return skipped("no images were ordered on the day")
    blocked = {row["creative_id"] for row in _findings(facts) if row["severity"] == "block"} & creatives
    share = len(blocked) / len(creatives)
    return Measured(share, f"{share:.0%} ({len(blocked)} of {len(creatives)} creatives)", len(creatives), len(blocked))


def unchecked(facts: Facts) -> Measured:
    """Images of another size than their format's, without measurements, or with one that fails and no finding."""
    told = {(row["creative_id"], row["part"]) for row in _findings(facts)}

    def fault(row: Mapping[str, Any]) -> str:
        size = SIZE.search(row["format"])
        if size is None or (row["width"], row["height"]) != (int(size[1]), int(size[2])) or row["bytes"] <= 0:
            return f"{row['width']} × {row['height']} px, {row['bytes']} bytes"
        checks = json.loads(row["checks"] or "{}")
        if row["kind"] == "video":
            return "" if checks.get("seconds") else "no measurements"
        measured = checks.get("measured", {})
        if not measured:
            return "no measurements"
        low = [
            name for name in ("contrast", "label_height", "subject_size", "subject_inside") if _below(measured, name)
        ]
        is_told = (row["creative_id"], row["format"]) in told
        return f"{low[0]} too low" if low and not is_told else ""

    return _those(facts, fault)


def unlabelled(facts: Facts) -> Measured:
    """Images whose label, as it was read back from the file, is not this creative's and this shop's."""

    def fault(row: Mapping[str, Any]) -> str:
        try:
            label = json.loads(row["label"])
            elements = label["AIGC"]
            is_whole = all(elements[name] for name in ELEMENTS) and elements["Label"] == "1" and label["places"]
        except (ValueError, KeyError, TypeError):
            return "no label"
        if not is_whole:
            return "half a label"
        if elements["ProduceID"] != row["creative_id"]:
            return f"labelled as {elements['ProduceID']}"
        if elements["ContentProducer"] != (facts.shop.ai_label_producer_id or "").strip():
            return f"labelled as made by {elements['ContentProducer']}"
        return ""

    return _those(facts, fault)


def changed(facts: Facts) -> Measured:
    """Files that are gone, or are not the ones that were checked and labelled."""

    def fault(row: Mapping[str, Any]) -> str:
        path = facts.shop.creatives / row["path"]
        if not path.resolve().is_relative_to(facts.shop.creatives.resolve()):
            return "outside the shop's folder"
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError:
            return "its file is gone"
        return "" if found == row["digest"] else "its file was changed"

    return _those(facts, fault)


# -- building blocks ---------------------------------------------------------------------------------------------


def _orders(facts: Facts) -> list[tuple[str, str]]:
    found = facts.rows(
        "select creative_id, format from adloom.image_orders where day = :day order by creative_id, format"
    )
    return [(row["creative_id"], row["format"]) for row in found]


def _assets(facts: Facts) -> list[Mapping[str, Any]]:
    return facts.rows("select * from adloom.assets where day = :day order by creative_id, format")


def _findings(facts: Facts) -> list[Mapping[str, Any]]:
    return facts.rows("select * from adloom.reviews where day = :day and rule_id like 'image.%'")


def _below(measured: Mapping[str, Any], name: str) -> bool:
    value, required = measured.get(name, (0, 0))
    return bool(value < required * 0.999)


def _those(facts: Facts, fault: Callable[[Mapping[str, Any]], str]) -> Measured:
    assets = _assets(facts)
    if not assets:
        return skipped("no images on the day")
    return _counted(
        [f"{row['creative_id']} {row['format']}: {said}" for row in assets if (said := fault(row))], len(assets)
    )


def _counted(found: Iterable[str], total: int) -> Measured:
    names = list(found)
    named = f", such as {'; '.join(names[:SHOWN])}" if names else ""
    return Measured(float(len(names)), f"{len(names)} of {total} images{named}", total, len(names))
