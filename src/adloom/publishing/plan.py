"""Hand a day's plan to the ad server: files that appear whole or not at all, behind the last door.

``published/plans/<valid_from>/<version>/plan.{json,parquet}`` hold a plan; ``published/plans/CURRENT.json`` names the
live one and is swapped last. What goes out is what was decided (its digest is checked), sums to 1, keeps the floor, and
shows approved creatives only, whatever was approved when the plan was made.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from adloom.errors import GateFailed
from adloom.shop import Shop
from adloom.strategy import approvals, holdout
from adloom.strategy.allocation import UNITS, floor_share
from adloom.strategy.plan import PRODUCER, content_digest
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)

COLUMNS = ("policy_id", "segment_id", "placement", "creative_id", "share", "share_before", "sentence")
CURRENT = "CURRENT.json"


def publish(shop: Shop, day: date) -> Path:
    """Publish the plan of ``day`` and return its folder; on a day without a plan what is live stays.

    Without a plan the folder of all plans is returned. May be run again at any time. Raises `GateFailed` where the
    stored plan is not what was decided or shows a creative that is not approved; the live plan then stays.
    """
    plans, allocations = ledger.plans, ledger.allocations
    root = shop.published / "plans"
    root.mkdir(parents=True, exist_ok=True)
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        plan = connection.execute(
            select(plans).where(plans.c.day == day, plans.c.produced_by == PRODUCER)
        ).one_or_none()
        if plan is None:
            log.info("%s: no plan was made on %s; the live plan stays", shop.id, day)
            return root
        rows = connection.execute(
            select(*(allocations.c[name] for name in COLUMNS))
            .where(allocations.c.plan_id == plan.plan_id)
            .order_by(*(allocations.c[name] for name in COLUMNS[:4]))
        ).all()
        _check(connection, shop, day, plan, rows)
        ordered = connection.execute(select(plans).order_by(plans.c.valid_from, plans.c.version)).all()
    folder = _folder(root, plan)
    _write(folder, shop, plan, rows)
    live = [row for row in ordered if _folder(root, row).is_dir()][-1]
    _swap_current(root, live)
    log.info("%s: plan %s is published; live from %s: %s", shop.id, plan.version, live.valid_from, live.version)
    return folder


def _folder(root: Path, plan: Row[Any]) -> Path:
    return root / plan.valid_from.isoformat() / plan.version


def _check(connection: Connection, shop: Shop, day: date, plan: Row[Any], rows: Sequence[Row[Any]]) -> None:
    """The last door; reads the rows as they are stored now."""
    name = f"plan {plan.version} of {shop.id}"
    again = f"run `adloom adjust --shop {shop.id} --day {day}` to make it again from the facts"
    refused = approvals.unapproved(connection, day, (row.creative_id for row in rows))
    if refused:
        raise GateFailed(f"{name} shows creatives that are not approved: {', '.join(refused)}", again)
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


def _write(folder: Path, shop: Shop, plan: Row[Any], rows: Sequence[Row[Any]]) -> None:
    """Write the plan beside its place, then rename it in; an identical plan that is there already is left alone."""
    import pyarrow as pa
    from pyarrow import parquet

    fresh = folder.with_name(f".{folder.name}.new")
    old = folder.with_name(f".{folder.name}.old")
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh.mkdir(parents=True)
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    schema = pa.schema([(name, pa.float64() if name.startswith("share") else pa.string()) for name in COLUMNS])
    parquet.write_table(pa.table(columns, schema=schema), fresh / "plan.parquet")
    text = json.dumps(_document(shop, plan, rows), ensure_ascii=False, indent=1)
    (fresh / "plan.json").write_text(text + "\n", encoding="utf-8")
    if folder.is_dir():
        if all(
            (folder / made.name).is_file() and (folder / made.name).read_bytes() == made.read_bytes()
            for made in fresh.iterdir()
        ):
            shutil.rmtree(fresh)
            return
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _document(shop: Shop, plan: Row[Any], rows: Sequence[Row[Any]]) -> dict[str, Any]:
    """The plan as an ad server reads it: policy → segment → placement → creative → share (tomorrow's propensity)."""
    policies: dict[str, Any] = {}
    for row in rows:
        segments = policies.setdefault(row.policy_id, {})
        segments.setdefault(row.segment_id, {}).setdefault(row.placement, {})[row.creative_id] = row.share
    return {
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
        "policies": policies,
    }


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
