"""Starting, finding and stopping Airflow: refusals in words, private secrets, nothing left behind."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from adloom import local_airflow
from adloom.errors import AdloomError
from adloom.local_airflow import Installation

# Ends its own session's leader at once and leaves a child that does not listen to SIGTERM.
ORPHANING = """
import os, signal, sys, time
if os.fork():
    time.sleep(float(sys.argv[1]))
    os._exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(300)
"""


@pytest.fixture
def airflow(adloom_home: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("ADLOOM_AIRFLOW_PORT", str(probe.getsockname()[1]))
    found = local_airflow.installation()
    found.logs.mkdir(parents=True)
    return found


def _record(airflow: Installation, process: subprocess.Popen[bytes], keep: bool = False) -> None:
    created = psutil.Process(process.pid).create_time()
    processes = {"scheduler": {"pid": process.pid, "created": created}}
    airflow.record.write_text(json.dumps({"keep": keep, "processes": processes}))


@pytest.mark.parametrize("leader_lives_for", [0, 300], ids=["leader dead", "leader alive"])
def test_stop_ends_the_whole_session_also_orphans_that_ignore_sigterm(
    airflow: Installation, leader_lives_for: int
) -> None:
    program = [sys.executable, "-c", ORPHANING, str(leader_lives_for)]
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    leader = subprocess.Popen(program, start_new_session=True)
    _record(airflow, leader)
    expected = 2 if leader_lives_for else 1
    deadline = time.monotonic() + 20
    while len(local_airflow.running(airflow)) != expected and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        assert len(local_airflow.running(airflow)) == expected
        assert local_airflow.stop(airflow, patience_seconds=0.5) is True
        assert local_airflow.running(airflow) == []
        assert not airflow.record.exists()
        assert bystander.poll() is None
        assert local_airflow.stop(airflow) is False
    finally:
        for one in (bystander, leader):
            one.kill()
            one.wait()


def test_a_process_that_only_has_the_same_number_is_left_alone(airflow: Installation) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    try:
        long_ago = {"pid": stranger.pid, "created": time.time() - 86_400}
        airflow.record.write_text(json.dumps({"keep": True, "processes": {"scheduler": long_ago}}))
        assert local_airflow.stop(airflow) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_named_with_the_setting_that_moves_it(
    airflow: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind((airflow.host, airflow.port))
        other.listen()
        assert local_airflow.main(["up"]) == 1
    said = capsys.readouterr().out
    assert f"port {airflow.port}" in said
    assert "ADLOOM_AIRFLOW_PORT=" in said
    assert local_airflow.running(airflow) == []


def test_a_full_disk_is_named(
    airflow: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(psutil, "disk_usage", lambda path: SimpleNamespace(free=12_000_000))
    assert local_airflow.main(["up"]) == 1
    said = capsys.readouterr().out
    assert "12 MB are free" in said
    assert "ADLOOM_HOME" in said


def test_a_port_that_is_no_number_is_wrong_use(
    airflow: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADLOOM_AIRFLOW_PORT", "eighty")
    assert local_airflow.main(["up"]) == 2
    assert "eighty" in capsys.readouterr().out


def test_a_second_command_and_an_airflow_that_is_kept_up_are_not_disturbed(
    airflow: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_airflow._one_command_at_a_time(airflow):
        assert local_airflow.main(["up"]) == 1
    assert "another command" in capsys.readouterr().out
    kept = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    try:
        _record(airflow, kept, keep=True)
        with pytest.raises(AdloomError, match="already up"), local_airflow.up_for_a_while(airflow):
            pass
        assert kept.poll() is None
    finally:
        kept.kill()
        kept.wait()


def test_secrets_are_private_and_stay(airflow: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    local_airflow._write_secrets(airflow)
    kept = airflow.keys.read_text()
    generated = local_airflow.password(airflow)
    assert len(generated) >= 16
    local_airflow._write_secrets(airflow)
    assert airflow.keys.read_text() == kept
    assert local_airflow.password(airflow) == generated
    for path in (airflow.keys, airflow.passwords):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(airflow.home.stat().st_mode) == 0o700
    monkeypatch.setenv("ADLOOM_ADMIN_PASSWORD", "given by a person")
    local_airflow._write_secrets(airflow)
    assert local_airflow.password(airflow) == "given by a person"


def test_what_the_caller_has_set_for_airflow_wins(airflow: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://elsewhere/airflow")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "7")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = airflow.environment()
    assert environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql://elsewhere/airflow"
    assert environment["AIRFLOW__CORE__PARALLELISM"] == "7"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{airflow.url}/execution/"
    assert environment["AIRFLOW_HOME"] == str(airflow.home)
    assert "PYTHONDONTWRITEBYTECODE" not in environment


def test_an_early_death_is_reported_with_its_log(airflow: Installation) -> None:
    (airflow.logs / "scheduler.log").write_text("first line\nno such module\n")
    dead = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    _record(airflow, dead)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    with pytest.raises(AdloomError, match="scheduler ended:\nfirst line\nno such module"):
        local_airflow.wait_until_healthy(airflow, patience_seconds=20)


def test_the_days_of_a_range_are_whole_local_days(make_shop: object) -> None:
    shop = make_shop(time_zone="Asia/Shanghai")  # type: ignore[operator]
    day = local_airflow.parse_day("2024-03-10")
    assert local_airflow._span(shop, day, day) == {
        "logical_date_gte": "2024-03-09T16:00:00+00:00",
        "logical_date_lte": "2024-03-10T15:59:59+00:00",
    }


@pytest.mark.parametrize(
    ("states", "waits"),
    [
        ({"report": "success", "approve": "awaiting_input", "record_decision": None}, True),
        ({"report": "success", "fine_tune": "skipped", "approve": "awaiting_input"}, True),
        ({"report": "running", "approve": "awaiting_input"}, False),
        ({"report": None, "approve": "awaiting_input"}, False),
        ({"report": "success", "approve": "running"}, False),
        ({"report": "success", "approve": "skipped", "record_decision": "skipped"}, False),
    ],
)
def test_the_demo_ends_when_only_a_person_is_waited_for(states: dict[str, str | None], waits: bool) -> None:
    instances = [{"task_id": task, "state": state} for task, state in states.items()]
    assert local_airflow._waits_for_a_person(instances) is waits
