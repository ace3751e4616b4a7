"""Two days of a small shop through api-server, scheduler and dag-processor, after a first attempt was killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adloom import local_airflow
from adloom.shop import Shop
from adloom.window import days_between

FIRST, LAST = date(2024, 3, 1), date(2024, 3, 2)


def _land(shop: Shop, day: date) -> None:
    """300 impressions of four creatives over the day, every 25th clicked."""
    lines = [
        "event_id,event_type,occurred_at,creative_id,impression_id,campaign_id,policy_id,channel,position,propensity"
    ]
    for number in range(300):
        at = datetime.combine(day, datetime.min.time()) + timedelta(minutes=4 * number)
        impression = f"{day}-{number}"
        rest = f"creative_{number % 4},{impression},spring,{('uniform', 'learned')[number % 2]},home,top,0.25"
        lines.append(f"v{impression},impression,{at.isoformat()}+00:00,{rest}")
        if number % 25 == 0:
            lines.append(f"c{impression},click,{(at + timedelta(minutes=1)).isoformat()}+00:00,{rest}")
    folder = shop.landing / "ad_events" / f"known_date={day}"
    folder.mkdir(parents=True)
    (folder / "events.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _demo(shop: Shop, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command behind ``make demo`` for the two days."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            f"{sys.executable} -m adloom.local_airflow demo --shop {shop.id} --from {FIRST} --to {LAST}".split(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def _rows(airflow: local_airflow.Installation, statement: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{airflow.home}/airflow.db?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def _processes_that_use(home: Path) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            files = [one.path for one in process.open_files()]
            if process.pid != os.getpid() and str(home) in " ".join([*process.cmdline(), *files]):
                found.append(f"{process.pid} {process.cmdline()}")
    return found


@pytest.mark.airflow
def test_a_killed_run_then_a_whole_one(make_shop: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shop: Shop = make_shop()
    for day in days_between(FIRST, LAST):
        _land(shop, day)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ADLOOM_AIRFLOW_PORT", str(probe.getsockname()[1]))
    # This process has an Airflow of its own; the command must not inherit it.
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    airflow = local_airflow.installation()
    log = tmp_path / "demo.log"

    with _demo(shop, log) as process:
        started = "select count(*) from task_instance where state in ('running', 'success')"
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(sqlite3.Error):
                if _rows(airflow, started) != [(0,)]:
                    break
            time.sleep(0.2)
        assert process.poll() is None, log.read_text()
        assert httpx.get(f"{airflow.url}/api/v2/monitor/health").status_code == 200
        for path in ("dags", f"dags/behaviour_daily__{shop.id}/dagRuns", "pools", "assets/events"):
            assert httpx.get(f"{airflow.url}/api/v2/{path}").status_code == 401
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert local_airflow.running(airflow), "what a killed command leaves is what the next one must find"

    with _demo(shop, log) as process:
        code = process.wait(480)
    said = log.read_text()
    assert code == 0, said
    assert "stopped what an earlier command had left running" in said
    assert str(shop.published / "report.html") in said
    assert "spring" in said

    states = _rows(
        airflow, "select run_id, state, count(*) from task_instance where run_id like 'backfill%' group by 1, 2"
    )
    assert [row[1:] for row in states] == [("success", 8), ("success", 8)]
    events = _rows(airflow, "select partition_key, extra from asset_event order by id")
    extras = {key: json.loads(extra) for key, extra in events}
    assert [key for key, _ in events][-2:] == ["2024-03-01", "2024-03-02"]
    assert [extra["generate"] for extra in extras.values()] == [False, True]
    for extra in extras.values():
        assert extra["quality"]["passed"] > 0
        assert extra["quality"]["failed"] == 0

    assert local_airflow.running(airflow) == []
    assert _processes_that_use(airflow.home) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((airflow.host, airflow.port))
