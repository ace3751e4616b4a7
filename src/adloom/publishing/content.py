"""What an approval is bound to: the content of a creative, its copy and every picture and video made for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select

from adloom.creative import content_hash
from adloom.shop import Shop
from adloom.strategy.approvals import Content, contents
from adloom.warehouse import ledger

__all__ = ["Content", "changed_files", "content_hash", "contents", "files_of"]


def files_of(connection: Connection, creatives: Iterable[str]) -> dict[str, list[Row[Any]]]:
    """creative_id → its rows of ``assets``, by format; creatives without a file are left out."""
    wanted = set(creatives)
    found: dict[str, list[Row[Any]]] = {}
    assets = ledger.assets
    for row in connection.execute(select(assets).order_by(assets.c.creative_id, assets.c.format)):
        if row.creative_id in wanted:
            found.setdefault(row.creative_id, []).append(row)
    return found


def changed_files(shop: Shop, files: Iterable[Row[Any]]) -> list[str]:
    """Those of the files that are gone, or are not what was recorded: what a person approved was something else."""
    return [row.path for row in files if _digest(shop.creatives / row.path) != row.digest]


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        return None
