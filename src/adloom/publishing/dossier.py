"""A dossier per creative: all that was decided about it and why, in one page for people and one file for machines.

``published/dossiers/<creative_id>.{html,json}``, written from the ledger as of a day and from nothing else. It holds no
personal data: of the audience the portrait in words and a rounded count. The same ledger gives the same bytes, pictures
included, which are small labelled copies of the finished files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from pydantic import ValidationError
from sqlalchemy import Column, Connection, Row, and_, select

from adloom.copywriting.prompts import prompt
from adloom.creative import AI_LABEL, Brief
from adloom.errors import AdloomError, GateFailed
from adloom.publishing import labels
from adloom.shop import Shop
from adloom.strategy import approvals
from adloom.strategy.wording import ending_words
from adloom.warehouse import ledger
from adloom.window import years_later

FORMAT = 1
FOLDER = "dossiers"
WINDOWS = (28, 7, 1)
MOST_SHARES = 40
"""Rows of the newest plans that the page shows; the JSON file has all."""
PREVIEW = 420
"""Longest side of a picture on the page, in pixels."""

Outcome = Literal["running", "retired", "waiting", "approved", "rejected", "blocked", "expired", "erased", "unwritten"]


@dataclass(frozen=True)
class Written:
    """A dossier that was written."""

    creative_id: str
    outcome: Outcome
    page: Path
    digest: str
    """SHA-256 of the JSON file, hex"""

    def __str__(self) -> str:
        return f"{self.creative_id} ({self.outcome}): {self.page}"


def write(connection: Connection, shop: Shop, creative_id: str, day: date) -> Written:
    """Write a creative's dossier as of ``day`` and note it in the ledger; may be run again at any time.

    Raises `AdloomError` where the shop has not written such a creative by that day.
    """
    content = collect(connection, shop, creative_id, day)
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True, default=str) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    folder = shop.published / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"{creative_id}.html"
    _replace(folder / f"{creative_id}.json", text)
    _replace(page, render(shop, content, digest))
    row = {
        "creative_id": creative_id,
        "day": day,
        "digest": digest,
        "path": f"{FOLDER}/{page.name}",
        "keep_until": date.fromisoformat(content["keep_until"]),
    }
    ledger.replace_rows(connection, ledger.dossiers, {"creative_id": creative_id}, [row])
    return Written(creative_id, content["outcome"]["state"], page, digest)


def planned(connection: Connection, day: date) -> list[str]:
    """Our creatives in the plans made on ``day``: those whose dossier has news."""
    plans, shares, creatives = ledger.plans, ledger.allocations, ledger.creatives
    query = (
        select(creatives.c.creative_id)
        .join(shares, shares.c.creative_id == creatives.c.creative_id)
        .join(plans, plans.c.plan_id == shares.c.plan_id)
        .where(plans.c.day == day)
        .distinct()
        .order_by(creatives.c.creative_id)
    )
    return list(connection.scalars(query))


# --- what is known ------------------------------------------------------------------------------------------------


def collect(connection: Connection, shop: Shop, creative_id: str, day: date) -> dict[str, Any]:
    """All of a dossier as plain data, as it was known by the end of ``day``."""
    row = _creative(connection, shop, creative_id, day)
    brief = _brief(connection, row)
    decisions = approvals.Decisions(connection, shop)
    now = decisions.contents.get(creative_id)
    shares = _allocations(connection, creative_id, day)
    findings = _rows(connection, ledger.reviews, ledger.reviews.c.creative_id == creative_id, order=("rule_id", "span"))
    hashes = {row.creative_hash} | ({now.content_hash} if now else set())
    content: dict[str, Any] = {
        "format": FORMAT,
        "shop": shop.id,
        "shop_name": shop.name,
        "simulated": shop.simulated,
        "creative_id": creative_id,
        "as_of": day,
        "keep_until": years_later(day, shop.retention.dossier_years),
        "creative": {
            name: getattr(row, name)
            for name in (
                *(
                    "day",
                    "scenario",
                    "language",
                    "channel",
                    "variant",
                    "brief_id",
                    "item_id",
                    "campaign_id",
                    "event_id",
                ),
                *("creative_hash", "headline", "body", "call_to_action", "refused_reason"),
            )
        }
        | {"hashtags": json.loads(row.hashtags or "[]"), "content_hash": now.content_hash if now else None},
        "audience": _audience(connection, row, brief),
        "brief": None if brief is None else brief.model_dump(mode="json"),
        "facts": [] if brief is None else _facts(brief),
        "prompt": _prompt(row, brief),
        "model": _model(connection, row),
        "reviews": [
            {name: found[name] for name in ("rule_id", "rule_version", "part", "span", "severity", "reason")}
            | {"of_current_content": found["creative_hash"] in hashes}
            for found in findings
        ],
        "approvals": _approvals(connection, creative_id, now.content_hash if now else None, day),
        "label": {"text": AI_LABEL[row.language], "producer": shop.ai_label_producer_id},
        "assets": _assets(connection, shop, creative_id),
        "label_free_exports": _rows(
            connection,
            ledger.label_free_exports,
            ledger.label_free_exports.c.creative_id == creative_id,
            order=("day", "export_id"),
        ),
        "allocations": shares,
        "results": _results(connection, creative_id, day),
        "confidence": shop.evaluation.confidence,
        "fatigue": _newest(connection, ledger.fatigue, creative_id, day),
        "blocks": _newest(connection, ledger.allocation_blocks, creative_id, day),
    }
    content["outcome"] = _outcome(connection, shop, row, decisions, content, day)
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def _creative(connection: Connection, shop: Shop, creative_id: str, day: date) -> Row[Any]:
    known = ledger.creatives
    row = connection.execute(select(known).where(known.c.creative_id == creative_id)).one_or_none()
    # The id becomes a file's name.
    if row is None or row.day > day or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", creative_id):
        raise AdloomError(
            f"{shop.id} has written no creative {creative_id!r} by {day}",
            f"the report and `adloom review --shop {shop.id} --day DAY` name them",
        )
    return row


def _brief(connection: Connection, row: Row[Any]) -> Brief | None:
    briefs = ledger.briefs
    text = connection.execute(
        select(briefs.c.content).where(briefs.c.day == row.day, briefs.c.brief_id == row.brief_id)
    ).scalar()
    if text is None:
        return None
    try:
        return Brief.model_validate_json(text)
    except ValidationError:
        return None  # of an older format: the rest of the dossier still stands


def _audience(connection: Connection, row: Row[Any], brief: Brief | None) -> dict[str, Any]:
    portraits = ledger.portraits
    users = connection.execute(
        select(portraits.c.users).where(portraits.c.day == row.day, portraits.c.segment_id == row.segment_id)
    ).scalar()
    return {
        "segment_id": row.segment_id,
        "portrait": brief.segment_words if brief else "",
        "users_about": users or None,
    }


def _facts(brief: Brief) -> list[dict[str, str]]:
    """What the copy may claim: every fact of the brief, named as the brief names it."""
    item = brief.item
    named = [(f"item.{name}", getattr(item, name)) for name in ("title", "category", "brand", "price", "list_price")]
    named += [(f"item.attributes.{name}", value) for name, value in item.attributes.items()]
    if brief.related:
        named.append(("related", brief.related))
    if brief.offer:
        offer = brief.offer
        named += [("offer.name", offer.name), ("offer.text", offer.text)]
        named += [(f"offer.{name}", str(getattr(offer, name) or "")) for name in ("starts_on", "ends_on")]
    if brief.event:
        named += [("event.title", brief.event.title), ("event.keywords", ", ".join(brief.event.keywords))]
    return [{"fact": name, "value": value} for name, value in named if value]


def _prompt(row: Row[Any], brief: Brief | None) -> dict[str, Any]:
    """The prompt made again from the brief, and whether it is the one the model read."""
    if brief is None:
        return {"text": None, "digest": None, "recorded": row.prompt_digest, "is_same": False}
    text = prompt(brief)
    digest = hashlib.sha256(text.encode()).hexdigest()[: len(row.prompt_digest)]
    return {"text": text, "digest": digest, "recorded": row.prompt_digest, "is_same": digest == row.prompt_digest}


def _model(connection: Connection, row: Row[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: getattr(row, name) for name in ("model_id", "seed", "candidates", "candidates_parsed")
    }
    models = ledger.models
    trained = connection.execute(select(models).where(models.c.model_id == row.model_id)).one_or_none()
    # What is named by its weights, and not by the digest of a training, is a base or an endpoint.
    is_base = trained is None and ":" in row.model_id
    found["kind"] = "trained" if trained is not None else "base" if is_base else "unknown"
    if trained is not None:
        names = ("base", "base_digest", "weights_digest", "licence", "method", "data_as_of", "data_digest", "pairs")
        found |= {name: getattr(trained, name) for name in (*names, "promoted_on", "withdrawn_on", "withdrawn_reason")}
    return found


def _approvals(connection: Connection, creative_id: str, content_hash: str | None, day: date) -> list[dict[str, Any]]:
    """Decisions, oldest first. Which of them is about what the creative is now is told by the hash."""
    words = ledger.approvals
    rows = _rows(
        connection,
        words,
        and_(words.c.creative_id == creative_id, words.c.decided_on <= day),
        order=("decided_on", "decided_at"),
    )
    names = ("decision", "origin", "decided_on", "decided_by", "decided_at", "reason", "creative_hash")
    return [
        {name: row[name] for name in names} | {"of_current_content": row["creative_hash"] == content_hash}
        for row in rows
    ]


def _assets(connection: Connection, shop: Shop, creative_id: str) -> list[dict[str, Any]]:
    found = []
    for row in _rows(connection, ledger.assets, ledger.assets.c.creative_id == creative_id, order=("format",)):
        content = _content(shop, row["path"])
        is_same = content is not None and hashlib.sha256(content).hexdigest() == row["digest"]
        row["state"] = "gone" if content is None else "as_recorded" if is_same else "changed"
        row["label"], row["checks"] = _loaded(row["label"]), _loaded(row["checks"])
        found.append(row)
    return found


def _content(shop: Shop, path: str) -> bytes | None:
    """A file of the creatives folder; None: there is none, or the path leads out of it."""
    root = shop.creatives.resolve()
    file = (root / path).resolve()
    return file.read_bytes() if file.is_relative_to(root) and file.is_file() else None


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _allocations(connection: Connection, creative_id: str, day: date) -> list[dict[str, Any]]:
    """Its shares in every plan made by ``day``, newest first."""
    plans, shares = ledger.plans, ledger.allocations
    columns = [
        *(plans.c[name] for name in ("plan_id", "valid_from", "version", "day", "algorithm")),
        *(shares.c[name] for name in ("policy_id", "segment_id", "placement", "share", "share_before", "sentence")),
    ]
    query = (
        select(*columns)
        .join(shares, shares.c.plan_id == plans.c.plan_id)
        .where(shares.c.creative_id == creative_id, plans.c.day <= day)
        .order_by(
            plans.c.valid_from.desc(),
            plans.c.version.desc(),
            *(shares.c[name] for name in ("policy_id", "segment_id", "placement")),
        )
    )
    return [dict(row._mapping) for row in connection.execute(query)]


def _results(connection: Connection, creative_id: str, day: date) -> list[dict[str, Any]]:
    """Counts and rates with intervals, as of ``day``: the whole first, then by segment."""
    t = ledger.evaluations
    names = (
        *("window_days", "segment_id", "impressions", "clicks", "users", "ctr", "ctr_low", "ctr_high"),
        *("cohort_clicks", "conversions", "cr", "cr_low", "cr_high", "completeness", "is_mature", "cost"),
    )
    query = (
        select(*(t.c[name] for name in names))
        .where(t.c.day == day, t.c.creative_id == creative_id, t.c.grain.in_(("creative", "creative_segment")))
        .order_by(t.c.window_days.desc(), t.c.segment_id)
    )
    found = []
    for row in connection.execute(query):
        one = dict(row._mapping)
        one["has_ctr"] = bool(row.impressions) and row.ctr is not None
        one["has_cr"] = bool(row.cohort_clicks) and row.cr is not None
        found.append(one)
    return found


def _newest(connection: Connection, table: Any, creative_id: str, day: date) -> list[dict[str, Any]]:
    """The rows about the creative of ``day`` itself."""
    key = tuple(column.name for column in table.columns if column.info.get("key"))
    return _rows(connection, table, and_(table.c.creative_id == creative_id, table.c.day == day), order=key)


def _outcome(  # noqa: PLR0917 - all that is known
    connection: Connection,
    shop: Shop,
    row: Row[Any],
    decisions: approvals.Decisions,
    content: Mapping[str, Any],
    day: date,
) -> dict[str, Any]:
    """Whether it runs as of ``day``, and the reason why it was kept or retired."""
    if row.headline is None:
        return _state("unwritten", row.refused_reason or "")
    refusal = decisions.refusal(row.creative_id, day)
    standing = decisions.standing(row.creative_id, day)
    if refusal == "erased" or refusal.startswith("blocked"):
        return _state("erased" if refusal == "erased" else "blocked", refusal)
    if standing is None:
        return _state("waiting", refusal)
    if standing.decision != approvals.APPROVED:
        return _state("rejected", f"{refusal}: {standing.reason}" if standing.reason else refusal)
    if decisions.is_over(row.creative_id, day):
        ending = decisions.endings(row.creative_id, day)[0]
        planned = {"last_planned": content["allocations"][0]["valid_from"]} if content["allocations"] else {}
        return _state("retired", ending_words(ending, shop.language), ended_on=ending.on, **planned)
    return _of_approved(connection, content, refusal, day)


def _of_approved(connection: Connection, content: Mapping[str, Any], refusal: str, day: date) -> dict[str, Any]:
    """Whether the newest plan made by ``day`` holds it, and why or why not."""
    plans = ledger.plans
    live = connection.execute(
        select(plans.c.plan_id, plans.c.version, plans.c.valid_from)
        .where(plans.c.day <= day)
        .order_by(plans.c.valid_from.desc(), plans.c.version.desc())
        .limit(1)
    ).one_or_none()
    shares: Sequence[Mapping[str, Any]] = content["allocations"]
    current = [share for share in shares if live is not None and share["plan_id"] == live.plan_id]
    if current:
        told = [share["sentence"] for share in sorted(current, key=lambda one: -one["share"]) if share["sentence"]]
        return _state("running", told[0] if told else "", plan=current[0]["version"])
    if refusal:
        return _state("expired", refusal)
    why = [one["sentence"] for one in (*content["blocks"], *content["fatigue"]) if one.get("sentence")]
    if shares and live is not None:
        why.append(f"not in plan {live.version}, valid from {live.valid_from}")
        return _state("retired", "; ".join(why), last_planned=shares[0]["valid_from"])
    return _state("approved", "; ".join(why))


def _state(state: Outcome, reason: str, **more: Any) -> dict[str, Any]:
    return {"state": state, "reason": reason, **more}


def _rows(connection: Connection, table: Any, where: Any, order: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a table as plain data, without what the clock alone wrote down."""
    columns: list[Column[Any]] = [one for one in table.columns if one.name == "decided_at" or not _is_clock(one)]
    query = select(*columns).where(where).order_by(*(table.c[name] for name in order))
    return [dict(row._mapping) for row in connection.execute(query)]


def _is_clock(column: Column[Any]) -> bool:
    return bool(column.info.get("wall_clock"))


# --- the page -----------------------------------------------------------------------------------------------------


def render(shop: Shop, content: Mapping[str, Any], digest: str) -> str:
    """The page as HTML, in the shop's language. Whatever came from data is escaped by the template."""
    words = _words()[shop.language]

    def say(key: str, **values: object) -> str:
        return words[key].format(**values)

    results = [row for row in content["results"] if not row["segment_id"]]
    return _template().render(
        shop=shop,
        d=content,
        say=say,
        # A word of data that the page has no word for is shown as it is.
        term=lambda prefix, value: words.get(f"{prefix}_{value}", value),
        tag="zh-CN" if shop.language == "zh" else "en",
        confidence=f"{content['confidence']:.0%}",
        digest=digest,
        totals=results,
        segments=[row for row in content["results"] if row["segment_id"] and row["window_days"] == max(WINDOWS)],
        shares=content["allocations"][:MOST_SHARES],
        shares_left_out=len(content["allocations"][MOST_SHARES:]),
        pictures=[(asset, _preview(shop, asset)) for asset in content["assets"]],
    )


def _preview(shop: Shop, asset: Mapping[str, Any]) -> str:
    """A small labelled copy of a finished file as a data URI; empty where the file is not what was recorded."""
    content = _content(shop, asset["path"])
    if content is None or asset["state"] != "as_recorded":
        return ""
    try:
        small = labels.preview(content, PREVIEW, Path(asset["path"]).name)
    except GateFailed:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"


@cache
def _words() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = yaml.safe_load(
        Path(__file__).with_name("dossier.yml").read_text(encoding="utf-8")
    )
    return found


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    filters: dict[str, Callable[[Any], str]] = {
        "count": lambda value: "–" if value is None else f"{value:,}",
        "rate": lambda value: f"{value:.3%}" if 0 < value < 0.0001 else f"{value:.2%}",
        "percent": lambda value: f"{value:.1%}",
    }
    environment.filters |= filters
    return environment.get_template("dossier.html.j2")


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)
