"""The audit of copies across groups: a few of the day's briefs written again for other genders and ages, and compared.

`order` decides whether the day is one for it, `write` writes and `record` compares. In between there are files only:
``creatives/day=D/counterfactual/`` holds one file of orders per trait and group, so that no side sees what was written
for the other, written by the day's model with the same settings. None of these copies is a creative: they are stored
nowhere else and shown to nobody.

An audit must not cost the day its copies: it is written after them, and has of an endpoint's ``max_cost`` what they
left. What it has no answers for is not compared, the copies of such a brief say so to whoever approves them, and an
audit that could not compare every trait is none: the next day is one for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from adloom.copywriting import handover
from adloom.creative import Brief, Copy, _Row, read_rows, write_rows
from adloom.errors import AdloomError
from adloom.review import fairness
from adloom.shop import Shop
from adloom.warehouse import ledger

FOLDER, ORDER = "counterfactual", "order.jsonl"
BRIEFS, COPIES = 4, 12
"""Orders that are audited a day, and copies per side of each."""
RULE = "fairness.counterfactual"


@dataclass(frozen=True)
class Audited:
    """What an audit found."""

    briefs: int
    copies: int
    differing: tuple[str, ...]
    """sentences of what differs surely beyond the shop's limit"""
    not_compared: tuple[str, ...] = ()
    """a sentence per brief and trait without enough answers"""

    def __str__(self) -> str:
        found = f"{len(self.differing)} differences" if self.differing else "no sure difference"
        return "\n".join((f"{self.briefs} briefs, {self.copies} copies: {found}", *self.differing, *self.not_compared))


class Order(_Row):
    """Whether a day's copy is audited."""

    reason_to_skip: str | None = None


def order(connection: Connection, shop: Shop, day: date, model_id: str, *, asked: bool = False) -> Order:
    """Note whether the copy of ``day``, which ``model_id`` writes, is to be audited; ``asked``: somebody wants it.

    A day that was audited stays one, were it in part, so that running it again ends the same. For later days one on
    which a trait could not be compared, for any brief, was no audit.
    """
    known = ledger.counterfactuals.c
    is_audited = connection.execute(select(known.day).where(known.day == day).limit(1)).first() is not None
    last = connection.execute(
        select(known.day, func.max(known.model_id).label("model_id"))
        .where(known.day < day, known.verdict != "needs_more")
        .group_by(known.day)
        .having(func.count(known.trait.distinct()) == len(fairness.traits()))
        .order_by(known.day.desc())
        .limit(1)
    ).one_or_none()
    every = shop.review.audit_every_days
    reason = None
    if asked or is_audited:
        pass
    elif every is None:
        reason = "the shop asks for no audit (review.audit_every_days)"
    elif last is not None and last.model_id == model_id and (day - last.day).days < every:
        reason = f"the same model was audited on {last.day}, less than {every} days ago"
    found = Order(reason_to_skip=reason)
    write_rows(_order_path(shop, day), [found])
    return found


def reason_to_skip(shop: Shop, day: date) -> str | None:
    """What `order` noted; None: audit."""
    path = _order_path(shop, day)
    if not path.is_file():
        return f"no audit was ordered for {day}"
    return next(read_rows(path, Order)).reason_to_skip


def _order_path(shop: Shop, day: date) -> Path:
    return handover.folder_of(shop, day) / FOLDER / ORDER


def chosen(shop: Shop, day: date) -> list[Brief]:
    """The orders to audit: the day's first of every scenario and language, as far as `BRIEFS` reaches."""
    path = handover.folder_of(shop, day) / handover.BRIEFS
    if not path.is_file():
        raise AdloomError(f"{path} is not there", f"run `adloom write-briefs --shop {shop.id} --day {day}`")
    found: dict[tuple[str, str], Brief] = {}
    for brief in read_rows(path, Brief):
        found.setdefault((brief.scenario, brief.language), brief)
    return list(found.values())[:BRIEFS]


def write(shop: Shop, day: date) -> None:
    """Write both sides of every chosen order; files only, goes on where it was killed.

    `AdloomError` before the day's copies are finished: of an endpoint's ``max_cost`` an audit has what they left.
    """
    from adloom.copywriting import generating

    handover.require_finished(shop, day)
    orders: dict[Path, list[Brief]] = {}
    for brief in chosen(shop, day):
        for side in fairness.sides(brief, COPIES):
            orders.setdefault(_path(shop, day, side.trait, side.group), []).append(side.brief)
    if not orders:
        return
    model_id, model = handover.writer_of(shop, day).model_id, handover.model_of(shop, day)
    for path, briefs in orders.items():
        write_rows(path, briefs)
        generating.generate_shard(
            path, generating.shard_path(path), model, shop.copywriting.sampling, day=day, model_id=model_id
        )


def record(connection: Connection, shop: Shop, day: date) -> Audited:
    """Replace the day's rows of ``counterfactuals``, and the findings on creatives of the orders that differ.

    What was not written, by the model that writes on the day, is not compared; that is found on creatives, too.
    """
    rows: list[dict[str, Any]] = []
    reviews: list[dict[str, Any]] = []
    differing: list[str] = []
    not_compared: list[str] = []
    briefs = chosen(shop, day)
    model_id = handover.writer_of(shop, day).model_id
    total = 0
    for brief in briefs:
        written = {
            (side.trait, side.group): list(_written(shop, day, side, model_id))
            for side in fairness.sides(brief, COPIES)
        }
        total += sum(map(len, written.values()))
        found = fairness.compare(written, brief, shop.limits.counterfactual_difference, len(briefs))
        for one in found:
            told = fairness.sentence(one, shop.language)
            rows.append(_row(day, brief, one, told) | {"model_id": model_id})
            if one.verdict == "differs":
                differing.append(told)
                severity = "warn" if one.what.startswith("tone.") else "block"
                reviews += _findings(connection, day, brief, f"{one.trait}: {one.what}", severity, told)
        for trait in fairness.traits():
            if all(one.verdict == "needs_more" for one in found if one.trait == trait):
                told = _NOT_COMPARED[shop.language].format(trait=_TRAITS[shop.language].get(trait, trait))
                not_compared.append(f"{brief.brief_id}: {told}")
                reviews += _findings(connection, day, brief, trait, "warn", told)
    ledger.replace_rows(connection, ledger.counterfactuals, {"day": day}, rows)
    known = ledger.reviews
    connection.execute(known.delete().where(known.c.day == day, known.c.rule_id == RULE))
    if reviews:
        connection.execute(known.insert(), reviews)
    return Audited(len(briefs), total, tuple(differing), tuple(not_compared))


_NOT_COMPARED = {
    "zh": "应做而未完成的对照：不同{trait}的用户是否会得到另一种文案，尚无足够结果",
    "en": "not audited though it was due: too few answers to say whether another {trait} would be told otherwise",
}
_TRAITS = {"zh": {"gender": "性别", "age_band": "年龄"}, "en": {"age_band": "age"}}


def _path(shop: Shop, day: date, trait: str, group: str) -> Path:
    name = hashlib.sha256(group.encode()).hexdigest()[:8]
    return handover.folder_of(shop, day) / FOLDER / f"{trait}-{name}.briefs.jsonl"


def _written(shop: Shop, day: date, side: fairness.Side, model_id: str) -> Iterator[Copy]:
    """The copies of a side; none of another model's, or of a brief as it was before."""
    from adloom.copywriting import generating

    path = generating.shard_path(_path(shop, day, side.trait, side.group))
    for row in read_rows(path, generating.Generated) if path.is_file() else ():
        if row.brief == side.brief and row.model_id == model_id and row.copy_ is not None:
            yield row.copy_


def _row(day: date, brief: Brief, one: fairness.Difference, told: str) -> dict[str, Any]:
    return {
        "day": day,
        "brief_id": brief.brief_id,
        "trait": one.trait,
        "first": one.first,
        "second": one.second,
        "what": one.what,
        "copies_first": one.copies[0],
        "copies_second": one.copies[1],
        "said_first": one.said[0],
        "said_second": one.said[1],
        "difference": one.difference,
        "difference_low": one.low,
        "difference_high": one.high,
        "verdict": one.verdict,
        "sentence": told,
    }


def _findings(  # noqa: PLR0917
    connection: Connection, day: date, brief: Brief, span: str, severity: str, reason: str
) -> Iterator[dict[str, Any]]:
    """One on every copy of the order: where money differs it is blocked, of the rest a person is warned."""
    creatives = ledger.creatives.c
    query = ledger.creatives.select().where(
        creatives.day == day, creatives.brief_id == brief.brief_id, creatives.headline.is_not(None)
    )
    for creative in connection.execute(query.order_by(creatives.creative_id)):
        yield {
            "creative_id": creative.creative_id,
            "creative_hash": creative.creative_hash,
            "day": day,
            "rule_id": RULE,
            "rule_version": fairness.version(),
            "part": "body",
            "span": span,
            "severity": severity,
            "reason": reason,
        }
