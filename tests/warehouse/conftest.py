"""Fixtures for the warehouse: write landing files, look at raw tables."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from adloom.shop import Shop

DAY = date(2024, 3, 1)


@pytest.fixture
def lenient_shop(make_shop: Callable[..., Shop]) -> Shop:
    """A shop that goes on whatever is rejected, so that a test sees what was kept."""
    return make_shop(limits={"rejected_share": 1.0})


@pytest.fixture
def impression() -> Callable[..., dict[str, Any]]:
    """A good impression row, with changes."""

    def make(event_id: str = "e1", **changes: Any) -> dict[str, Any]:
        row = {
            "event_id": event_id,
            "event_type": "impression",
            "occurred_at": "2024-03-01T10:00:00+00:00",
            "creative_id": "c1",
            "impression_id": event_id,
        }
        return row | changes

    return make


@pytest.fixture
def put() -> Callable[..., Path]:
    """Write ``content`` (bytes, text, or a list of rows) as one landing file; the name's ending decides the format."""

    def write(shop: Shop, name: str, content: Any, *, table: str = "ad_events", day: date = DAY) -> Path:
        folder = shop.landing / table / f"known_date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / name
        if isinstance(content, list):
            content = _encoded(name, content)
        elif isinstance(content, str):
            content = content.encode()
        path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)
        return path

    return write


def _encoded(name: str, rows: list[dict[str, Any]]) -> bytes:
    if ".jsonl" in name:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if ".csv" in name:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({column: [row.get(column) for row in rows] for column in columns})
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


@pytest.fixture
def raw() -> Callable[..., list[tuple[Any, ...]]]:
    """Run a query on a shop's warehouse."""

    def query(shop: Shop, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(shop.home / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    return query


@pytest.fixture
def rejected() -> Callable[..., list[dict[str, Any]]]:
    """The kept rejected rows of a known_date."""

    def read(shop: Shop, *, table: str = "ad_events", day: date = DAY) -> list[dict[str, Any]]:
        path = shop.rejected / table / f"known_date={day}" / "rejected.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    return read


@pytest.fixture
def warehouse_bytes() -> Callable[[Shop], Iterator[bytes]]:
    """The bytes of every file under a shop's home but its landing folder."""

    def read(shop: Shop) -> Iterator[bytes]:
        for path in shop.home.rglob("*"):
            if path.is_file() and shop.landing not in path.parents:
                yield path.read_bytes()

    return read
