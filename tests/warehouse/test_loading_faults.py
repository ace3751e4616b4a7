"""A killed load and its repetition leave what one undisturbed load leaves."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from typing import Any

import pytest

CHILD = """
import os, signal, sys
from datetime import date
from adloom.shop import load_shop
from adloom.warehouse import loading

def killed_after(name, times):
    whole, left = getattr(loading, name), [times]
    def run(*arguments, **named):
        found = whole(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    setattr(loading, name, run)

if len(sys.argv) > 2:
    killed_after(sys.argv[2], int(sys.argv[3]))
loading.ingest(load_shop(sys.argv[1]), date(2024, 3, 3))
"""
CONTENT = (
    "from raw.ad_events order by all",
    "select * exclude (mtime_ns, loaded_at) from adloom.landing_files order by all",
    "from adloom.landing_days order by all",
)


@pytest.fixture
def three_days(make_shop: Any, put: Any, impression: Any) -> Any:
    """Make a shop with three days of files, one bad row among them; returns the shop."""

    def make(shop_id: str, rows: int = 50) -> Any:
        from datetime import date

        shop = make_shop(id=shop_id, limits={"rejected_share": 0.5})
        for number in (1, 2, 3):
            good = [impression(f"{number}-{i}", occurred_at=f"2024-03-0{number}T01:00:00Z") for i in range(rows)]
            put(shop, "a.csv", [*good, impression("bad", event_type="x")], day=date(2024, 3, number))
            put(shop, "b.parquet", good, day=date(2024, 3, number))
        return shop

    return make


def content(raw: Any, shop: Any) -> tuple[list[Any], ...]:
    rejected = [(path.parent.name, path.read_text()) for path in sorted(shop.rejected.rglob("rejected.jsonl"))]
    assert rejected
    return (*(raw(shop, sql) for sql in CONTENT), rejected)


def test_a_load_killed_at_any_step_and_repeated_equals_a_clean_one(three_days: Any, raw: Any) -> None:
    clean, hurt = three_days("clean"), three_days("hurt")
    subprocess.run([sys.executable, "-c", CHILD, clean.id], check=True)
    # In this order each load still has something to do when it dies.
    for name, times in (("_insert", 1), ("_keep_rejected", 1), ("_record", 1), ("_record", 2), ("_insert", 2)):
        killed = subprocess.run([sys.executable, "-c", CHILD, hurt.id, name, str(times)], check=False)
        assert killed.returncode == -9, name
    subprocess.run([sys.executable, "-c", CHILD, hurt.id], check=True)
    assert content(raw, hurt) == content(raw, clean)


@pytest.mark.proof
def test_a_load_killed_at_random_moments_and_repeated_equals_a_clean_one(three_days: Any, raw: Any) -> None:
    clean, hurt = three_days("clean", 20_000), three_days("hurt", 20_000)
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", CHILD, clean.id], check=True)
    whole = time.monotonic() - begun
    dice = random.Random(7)
    for _ in range(30):
        with subprocess.Popen([sys.executable, "-c", CHILD, hurt.id]) as child:
            time.sleep(dice.uniform(0.2, 1.0) * whole)
            child.kill()
        if dice.random() < 0.3:  # a new delivery in between, so that there is work again
            path = hurt.landing / "ad_events" / "known_date=2024-03-02" / "b.parquet"
            os.utime(path)
            (hurt.home / "warehouse.duckdb").unlink(missing_ok=True)
            (hurt.home / "warehouse.duckdb.wal").unlink(missing_ok=True)
    subprocess.run([sys.executable, "-c", CHILD, hurt.id], check=True)
    assert content(raw, hurt) == content(raw, clean)
