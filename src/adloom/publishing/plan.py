"""Hand a day's plan to the ad server: files that appear whole or not at all, behind the last door.

``published/plans/<valid_from>/<version>/`` holds a plan: ``plan.json`` (described by ``plan.schema.json``),
``plan.parquet`` and ``audience.parquet``, which only their owner may read; ``published/plans/CURRENT.json`` names the
live one and is swapped last. What goes out is what was decided (its digest is checked), sums to 1, keeps the floor, and
shows approved creatives only, as they were when they were approved, whatever held when the plan was made.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, inspect, select, text

from adloom.creative import ALL, NOT_PERSONALISED, Copy
from adloom.errors import GateFailed
from adloom.publishing import audience, labels
from adloom.publishing.content import changed_files, files_of
from adloom.shop import Shop
from adloom.strategy import approvals, holdout
from adloom.strategy.allocation import UNITS, floor_share
from adloom.strategy.blocks import blocked_on, known_blocks
from adloom.strategy.plan import PRODUCER, content_digest
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)

COLUMNS = ("policy_id", "segment_id", "placement", "creative_id", "share", "share_before", "sentence")
CURRENT, SCHEMA_FILE = "CURRENT.json", Path(__file__).with_name("plan.schema.json")
FORMAT = 2
"""Of ``plan.json``; raised when a reader of the one before could misread it."""


def publish(shop: Shop, day: date, producer: str = PRODUCER) -> Path:
    """Publish the plan that ``producer`` made on ``day`` and return its folder; without one, what is live stays.

    Without a plan the folder of all plans is returned. May be run again at any time. Raises `GateFailed` where the
    stored plan is not what was decided or shows a creative that is not approved; the live plan then stays.
    """
    plans = ledger.plans
    root = shop.published / "plans"
    root.mkdir(parents=True, exist_ok=True)
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        plan = connection.execute(
            select(plans).where(plans.c.day == day, plans.c.produced_by == producer)
        ).one_or_none()
        may_stay = partial(_may_stay, connection, shop, day=day)
        if plan is None:
            log.info("%s: %s made no plan on %s; what is live stays if it may", shop.id, producer, day)
            ordered = connection.execute(select(plans).order_by(plans.c.valid_from, plans.c.version)).all()
            left = (row for row in reversed(ordered) if _folder(root, row).is_dir() and may_stay(row))
            live = next(left, None)
            if live is None:
                (root / CURRENT).unlink(missing_ok=True)
            elif not _is_current(root, live):
                _swap_current(root, live)
            return root
        rows = _allocations(connection, plan)
        _check(connection, shop, plan, rows)
        document = _document(connection, shop, plan, rows)
        served = audience.audience(connection, shop, day)
        folder = _folder(root, plan)
        ordered = connection.execute(select(plans).order_by(plans.c.valid_from, plans.c.version)).all()
        there = [row for row in ordered if _folder(root, row) == folder or _folder(root, row).is_dir()]
        live = next(row for row in reversed(there) if row.version == plan.version or may_stay(row))
    _write(folder, document, rows, served)
    _swap_current(root, live)
    audience.forget_superseded(root, (_folder(root, row) for row in there[max(0, there.index(live) - 1) :]))
    log.info("%s: plan %s is published; live from %s: %s", shop.id, plan.version, live.valid_from, live.version)
    return folder


def _allocations(connection: Connection, plan: Row[Any]) -> Sequence[Row[Any]]:
    allocations = ledger.allocations
    return connection.execute(
        select(*(allocations.c[name] for name in COLUMNS))
        .where(allocations.c.plan_id == plan.plan_id)
        .order_by(*(allocations.c[name] for name in COLUMNS[:4]))
    ).all()


def _may_stay(connection: Connection, shop: Shop, plan: Row[Any], day: date) -> bool:
    """A plan that shows what was taken out since must not stay live; the one before it does, if it may.

    Neither must one that shows what is over after ``day``, or blocked by then: where no newer plan was made, an old one
    would go on.
    """
    rows = _allocations(connection, plan)
    now = max(plan.day, day)
    refused = approvals.unapproved(connection, shop, now, (row.creative_id for row in rows))
    if refused:
        log.warning("plan %s cannot be live any more: %s", plan.version, _listed(refused))
    blocked = {one for known in {plan.day, now} for one in blocked_on(known_blocks(connection, known), known)}
    skewed = blocked & {(row.placement, row.creative_id) for row in rows}
    if skewed:
        log.warning("plan %s cannot be live any more: fairness blocks %s", plan.version, sorted(skewed)[:5])
    return not refused and not skewed


def _folder(root: Path, plan: Row[Any]) -> Path:
    return root / plan.valid_from.isoformat() / plan.version


def _check(connection: Connection, shop: Shop, plan: Row[Any], rows: Sequence[Row[Any]]) -> None:
    """The last door; reads the rows, and the files they lead to, as they are now."""
    name = f"plan {plan.version} of {shop.id}"
    command = "adjust" if plan.produced_by == PRODUCER else "publish-approved"
    again = f"run `adloom {command} --shop {shop.id} --day {plan.day}` to make it again from the facts"
    shown = {row.creative_id for row in rows}
    refused = approvals.unapproved(connection, shop, plan.day, shown)
    if refused:
        raise GateFailed(f"{name} shows creatives that are not approved: {_listed(refused)}", again)
    changed = [path for files in files_of(connection, shown).values() for path in changed_files(shop, files)]
    if changed:
        raise GateFailed(
            f"{name} shows files that are not what was approved: {', '.join(changed[:5])}",
            f"run `adloom compose --shop {shop.id} --day …` for the day they were made, and ask for approval again",
        )
    blocked = blocked_on(known_blocks(connection, plan.day), plan.day)
    if kept_out := sorted({(row.placement, row.creative_id) for row in rows} & blocked):
        placement, creative_id = kept_out[0]
        raise GateFailed(f"{name} shows {creative_id} in {placement}, where fairness blocks it", again)
    decisions = approvals.Decisions(connection, shop)
    for row in rows:
        if row.segment_id == NOT_PERSONALISED and not decisions.fits(row.segment_id, row.creative_id):
            raise GateFailed(f"{name} shows {row.creative_id} to users who are not personalised", again)
    if content_digest(dict(row._mapping) for row in rows) != plan.content_digest:
        raise GateFailed(f"{name} is not what was decided: its stored shares were changed", again)
    groups: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for row in rows:
        groups[row.policy_id, row.segment_id, row.placement].append(row.share)
    for (policy_id, segment_id, placement), shares in groups.items():
        where = f"{name}: {policy_id}, segment {segment_id}, placement {placement}"
        if not math.isclose(math.fsum(shares), 1, rel_tol=0, abs_tol=1e-9):
            raise GateFailed(f"{where}: shares sum to {math.fsum(shares):.9f}, not 1", again)
        floor = floor_share(len(shares)) if policy_id == holdout.ADAPTIVE else 0.0
        if min(shares) < floor - 0.1 / UNITS:
            raise GateFailed(f"{where}: the least share is {min(shares):.6f}, below the floor {floor:.6f}", again)


def _listed(refused: Mapping[str, str], most: int = 5) -> str:
    named = [f"{creative_id} ({reason})" for creative_id, reason in list(refused.items())[:most]]
    return ", ".join(named) + (f" and {len(refused) - most} more" if len(refused) > most else "")


def _write(
    folder: Path, document: Mapping[str, Any], rows: Sequence[Row[Any]], served: Sequence[tuple[str, str, bool, bool]]
) -> None:
    """Write the plan beside its place, then rename it in.

    A version that is there already holds the same shares: of its files only those that differ are swapped, one by one,
    so that whoever reads it meanwhile finds every file whole.
    """
    import pyarrow as pa
    from pyarrow import parquet

    _validate(document)
    fresh = folder.with_name(f".{folder.name}.new")
    for left_over in (fresh, folder.with_name(f".{folder.name}.old")):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    hashes = {one: ours["content_hash"] for one, ours in document["creatives"].items()}
    columns["content_hash"] = [hashes.get(row.creative_id, approvals.MADE_ELSEWHERE) for row in rows]
    schema = pa.schema([(name, pa.float64() if name.startswith("share") else pa.string()) for name in columns])
    parquet.write_table(pa.table(columns, schema=schema), fresh / "plan.parquet")
    content = json.dumps(document, ensure_ascii=False, indent=1)
    (fresh / "plan.json").write_text(content + "\n", encoding="utf-8")
    audience.write(fresh / audience.FILE, served)
    if not folder.is_dir():
        fresh.rename(folder)
        return
    for made in sorted(fresh.iterdir()):
        there = folder / made.name
        if not (there.is_file() and there.read_bytes() == made.read_bytes()):
            os.replace(made, there)
    shutil.rmtree(fresh)


def _validate(document: Mapping[str, Any]) -> None:
    from jsonschema import Draft202012Validator

    error = next(iter(Draft202012Validator(schema()).iter_errors(document)), None)
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the document"
        raise GateFailed(f"plan.json would not be what plan.schema.json promises: {where}: {error.message}")


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of ``plan.json``."""
    found: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return found


def _document(connection: Connection, shop: Shop, plan: Row[Any], rows: Sequence[Row[Any]]) -> dict[str, Any]:
    """The plan as an ad server reads it: policy → segment → placement → creative → share (tomorrow's propensity)."""
    policies: dict[str, Any] = {}
    for row in rows:
        segments = policies.setdefault(row.policy_id, {})
        segments.setdefault(row.segment_id, {}).setdefault(row.placement, {})[row.creative_id] = row.share
    ours = _ours(connection, shop, plan.day, {row.creative_id for row in rows})
    return {
        "format": FORMAT,
        "shop": shop.id,
        "plan_id": plan.plan_id,
        "version": plan.version,
        "valid_from": plan.valid_from.isoformat(),
        "day": plan.day.isoformat(),
        "produced_by": plan.produced_by,
        "algorithm": plan.algorithm,
        "content_digest": plan.content_digest,
        "simulated": shop.simulated,
        "holdout": {
            "share": shop.strategy.holdout_share if holdout.HOLDOUT in policies else 0.0,
            "salt": holdout.SALT,
            "unit": "user_hash, else impression_id",
            "rule": "first 8 bytes of SHA-256(salt + unit), big-endian, / 2^64 < share",
        },
        "audience": {
            "file": audience.FILE,
            "stranger": audience.served_as_stranger(shop),
            "fallback": {"personalised": [ALL, NOT_PERSONALISED], "not_personalised": []},
        },
        "limits": {
            "frequency_cap_per_day": shop.frequency_cap_per_day,
            "daily_budget": shop.daily_budget,
            "campaign_budgets": _campaign_budgets(connection, plan.day, {one["campaign_id"] for one in ours.values()}),
        },
        "creatives": ours,
        "policies": policies,
    }


def _ours(connection: Connection, shop: Shop, day: date, shown: set[str]) -> dict[str, dict[str, Any]]:
    """creative_id → what is to be shown, of those that were made here; the others the ad server knows itself."""
    decisions = approvals.Decisions(connection, shop)
    contents = decisions.contents
    files = files_of(connection, shown)
    creatives = ledger.creatives
    found = {}
    for row in connection.execute(select(creatives).order_by(creatives.c.creative_id)):
        if row.creative_id not in shown or row.creative_id not in contents:
            continue
        copy = Copy(
            headline=row.headline,
            body=row.body,
            call_to_action=row.call_to_action,
            hashtags=tuple(json.loads(row.hashtags or "[]")),
        )
        found[row.creative_id] = {
            "content_hash": contents[row.creative_id].content_hash,
            "channel": row.channel,
            "language": row.language,
            "personalised": contents[row.creative_id].is_personalised,
            "item_id": row.item_id,
            "campaign_id": row.campaign_id,
            "last_day": next((one.on.isoformat() for one in decisions.endings(row.creative_id, day)), None),
            **copy.model_dump(mode="json"),
            "ai_label": labels.text_label(row.language),
            "text": labels.labelled_text(copy, row.language),
            "files": [
                {name: getattr(file, name) for name in ("format", "kind", "path", "digest", "width", "height")}
                for file in files.get(row.creative_id, ())
            ],
        }
    return found


def _campaign_budgets(connection: Connection, day: date, campaigns: set[str | None]) -> dict[str, float]:
    """campaign_id → its budget as known by ``day``, as the shop states it; campaigns without one are left out."""
    if not campaigns - {None} or not inspect(connection).has_table("stg_landing__campaigns", schema="staging"):
        return {}
    stated = text(
        "select campaign_id, budget from staging.stg_landing__campaigns where known_date <= :day order by known_date"
    )
    latest = {row[0]: row[1] for row in connection.execute(stated, {"day": day}) if row[0] in campaigns}
    return {one: float(budget) for one, budget in sorted(latest.items()) if budget is not None}


def _is_current(root: Path, plan: Row[Any]) -> bool:
    try:
        return bool(json.loads((root / CURRENT).read_text(encoding="utf-8"))["version"] == plan.version)
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _swap_current(root: Path, plan: Row[Any]) -> None:
    """Name the live plan: the greatest (valid_from, version) that is published."""
    content = {
        "plan_id": plan.plan_id,
        "version": plan.version,
        "valid_from": plan.valid_from.isoformat(),
        "path": f"{plan.valid_from.isoformat()}/{plan.version}",
    }
    fresh = root / f".{CURRENT}.new"
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(fresh, root / CURRENT)
