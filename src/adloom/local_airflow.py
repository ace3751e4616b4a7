"""Airflow on this machine: what ``make demo``, ``make up``, ``make down`` and the containers run.

    python -m adloom.local_airflow demo      seven real days, then simulated ones that end in new ad copy
    python -m adloom.local_airflow up|down   start and stop api-server, scheduler and dag-processor
    python -m adloom.local_airflow prepare   metadata database, login and pools; safe to repeat
    python -m adloom.local_airflow run NAME  one process in the foreground (what a container does)
    python -m adloom.local_airflow healthy NAME

Everything lives under ``ADLOOM_HOME/airflow``. Any ``AIRFLOW__…`` variable that is already set wins over the
defaults here, which is how docker-compose.yml brings PostgreSQL.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib
import io
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from adloom.errors import AdloomError, UsageError
from adloom.settings import CHECKOUT, settings
from adloom.shop import Shop, load_shop, shop_ids
from adloom.window import day_window, days_between, parse_day

log = logging.getLogger(__name__)
console = Console(highlight=False, soft_wrap=True)

USER = "admin"
DEMO_SHOP = "zozotown"
CREATIVES_SHOP, CREATIVES_LAST = "sample_shop", date(2025, 11, 7)
"""The second half of the demo: days of the simulated shop before Double 11. On the day after the last one its sale is
on and two events are talked about, so that there is something to write for every scenario."""
SIMULATED_DAYS, CREATIVES_DAYS = 10, 3
"""So many days are delivered, and the last ones of them run: the first run catches up with those before it."""
STEPS_A_DAY = 8
FREE_MEGABYTES = 1000
# Imported once, before tasks are forked: Great Expectations alone would cost every task that needs it 3 seconds.
# Nothing of Adloom is among them, so that a task always runs the code that is on disk.
PRELOAD = (
    "airflow.sdk.execution_time.task_runner",
    "airflow.executors.local_executor",
    "airflow.providers.standard.decorators.python",
    "duckdb_sqlalchemy",
    "pandas",
    "pyarrow.parquet",
    "great_expectations",
    "great_expectations.expectations",
    "dbt.cli.main",
    "dbt.adapters.duckdb",
    "scipy.stats",
    "statsmodels.stats.proportion",
    "jinja2",
)


@dataclass(frozen=True)
class Installation:
    """One Airflow home, its address and the environment its processes get."""

    home: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def keys(self) -> Path:
        """What the processes sign and encrypt with: every one of them must have the same."""
        return self.home / "keys.json"

    @property
    def logs(self) -> Path:
        return self.home / "process_logs"

    @property
    def record(self) -> Path:
        """Which processes were started, so that a later command, also after a crash, can stop them."""
        return self.home / "processes.json"

    def environment(self) -> dict[str, str]:
        """``os.environ`` plus Adloom's defaults for Airflow; what the caller has set stays."""
        found = settings()
        defaults = {
            "AIRFLOW_HOME": str(self.home),
            "ADLOOM_HOME": str(found.home),
            "ADLOOM_SHOPS_DIR": str(found.shops_dir.resolve()),
            "ADLOOM_DBT_PROJECT_DIR": str(found.dbt_project_dir.resolve()),
            "AIRFLOW__CORE__DAGS_FOLDER": str(CHECKOUT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            # Three: a shop's warehouse takes one task at a time, so more would only wait in memory.
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            # Tasks are forks of the scheduler, which has imported `PRELOAD` before (Python 3.14 would not fork).
            **({"AIRFLOW__CORE__MP_START_METHOD": "fork"} if sys.platform == "linux" else {}),
            "AIRFLOW__API__HOST": self.host,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            "AIRFLOW__METRICS__STATSD_ON": "False",
            # A task that is killed with its worker is found after this long, not after five minutes.
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
            "GX_ANALYTICS_ENABLED": "False",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        }
        if self.keys.exists():
            defaults |= json.loads(self.keys.read_text())
        environment = {**defaults, **os.environ, "AIRFLOW_HOME": str(self.home), "ADLOOM_HOME": str(found.home)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment


def installation() -> Installation:
    """The installation the settings describe; ``ADLOOM_AIRFLOW_HOST`` and ``ADLOOM_AIRFLOW_PORT`` move it."""
    text = os.environ.get("ADLOOM_AIRFLOW_PORT", "8080")
    if not (text.isdigit() and 0 < int(text) < 65536):
        raise UsageError(f"ADLOOM_AIRFLOW_PORT is {text!r}", "set it to a port number such as 8080")
    return Installation(settings().home / "airflow", os.environ.get("ADLOOM_AIRFLOW_HOST", "127.0.0.1"), int(text))


# --- preparing -------------------------------------------------------------------------------------------------


def prepare(airflow: Installation) -> None:
    """Metadata database at its newest revision, a login, and a one-slot pool per shop. Safe to repeat."""
    _write_secrets(airflow)
    with _airflow_in_this_process(airflow):
        from airflow.configuration import conf
        from airflow.models.pool import Pool
        from airflow.utils import db
        from airflow.utils.session import create_session

        from adloom.orchestration import GPU_POOL, warehouse_pool

        _migrate(airflow, db)
        if conf.get("core", "auth_manager").endswith(".FabAuthManager"):
            _write_fab_user(airflow)
        with create_session() as session:
            for shop_id in shop_ids():
                Pool.create_or_update_pool(
                    warehouse_pool(shop_id),
                    slots=1,
                    description=f"held by every task that opens the warehouse of {shop_id}",
                    include_deferred=False,
                    session=session,
                )
            # How many trainings and generations may run at once is an operator's choice, made in Airflow: kept.
            if Pool.get_pool(GPU_POOL, session=session) is None:
                Pool.create_or_update_pool(
                    GPU_POOL,
                    slots=1,
                    description="held by every task that trains or generates; as many slots as there are GPUs",
                    include_deferred=False,
                    session=session,
                )


def _migrate(airflow: Installation, db: Any) -> None:
    from airflow import __version__
    from airflow.configuration import conf

    # Asking the database costs seconds; a stamp is enough where the database is a file of ours.
    address = conf.get("database", "sql_alchemy_conn")
    stamp = airflow.home / "migrated"
    ours = address == f"sqlite:///{airflow.home}/airflow.db" and (airflow.home / "airflow.db").exists()
    if ours and stamp.exists() and stamp.read_text() == __version__:
        return
    db.upgradedb()
    stamp.write_text(__version__)


def _write_fab_user(airflow: Installation) -> None:
    """The user of a team's installation; its password is the one given, also when it was another before."""
    given = ("--username", USER, "--password", password(airflow))
    airflow_command(
        airflow,
        *("users", "create", *given, "--role", "Admin"),
        *("--firstname", "Adloom", "--lastname", "Administrator", "--email", "admin@localhost"),
    )
    airflow_command(airflow, "users", "reset-password", *given)


def _write_secrets(airflow: Installation) -> None:
    """Airflow's home is private, and so are the keys its processes share and the generated password in it."""
    airflow.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    airflow.home.chmod(0o700)
    airflow.logs.mkdir(exist_ok=True)
    given = os.environ.get("ADLOOM_ADMIN_PASSWORD")
    if given or not airflow.passwords.exists():
        _write_private(airflow.passwords, {USER: given or secrets.token_urlsafe(12)})
    if not airflow.keys.exists():
        names = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY")
        fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        _write_private(
            airflow.keys,
            {name: secrets.token_hex(64) for name in names} | {"AIRFLOW__CORE__FERNET_KEY": fernet_key},
        )


def _write_private(path: Path, content: dict[str, str]) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content))


def password(airflow: Installation) -> str:
    """The password of `USER`."""
    return str(json.loads(airflow.passwords.read_text())[USER])


@contextlib.contextmanager
def _airflow_in_this_process(airflow: Installation) -> Iterator[None]:
    """Airflow reads its configuration when it is imported, so the environment is set before."""
    if "airflow.settings" in sys.modules and os.environ.get("AIRFLOW_HOME") != str(airflow.home):
        raise AdloomError("another Airflow is already loaded in this process", "start a new process")
    if "airflow.settings" not in sys.modules:
        os.environ.update(airflow.environment())
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        level = os.environ.get("AIRFLOW__LOGGING__LOGGING_LEVEL")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = level or "CRITICAL"
        importlib.import_module("airflow.settings").initialize()
        if level is None:
            del os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"]
    yield


# --- processes -------------------------------------------------------------------------------------------------

COMMANDS: dict[str, tuple[str, ...]] = {
    "api-server": ("api-server",),
    # Logs are read from the shared folder: no log server, no further port.
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}


def become(airflow: Installation, name: str) -> None:
    """Turn this process into one of Airflow's and do not return."""
    os.environ.update(airflow.environment())
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if name == "scheduler" and sys.platform == "linux":
        for module in PRELOAD:
            # Only for speed: a task that needs what is not there says so itself.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(module)
    from airflow.__main__ import main as airflow_main

    sys.argv = ["airflow", *COMMANDS[name]]
    airflow_main()


def start(airflow: Installation, keep: bool) -> None:
    """Start every process in a session of its own and write down what was started.

    ``keep``: they are meant to outlive this command, until `stop`.
    """
    started: dict[str, dict[str, float]] = {}
    for name in COMMANDS:
        with (airflow.logs / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - our own command lines
                [sys.executable, "-m", "adloom.local_airflow", "run", name],
                env=airflow.environment(),
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started[name] = {"pid": process.pid, "created": psutil.Process(process.pid).create_time()}
        # Written process by process: should this command be killed, the next one still finds them.
        fresh = airflow.record.with_suffix(".new")
        fresh.write_text(json.dumps({"keep": keep, "processes": started}))
        fresh.replace(airflow.record)


def _recorded(airflow: Installation) -> dict[str, int]:
    """Name → pid of the processes that were started, leaving out pids that now belong to something else."""
    if not airflow.record.exists():
        return {}
    recorded = {}
    for name, one in json.loads(airflow.record.read_text())["processes"].items():
        try:
            if abs(psutil.Process(one["pid"]).create_time() - one["created"]) < 1:
                recorded[name] = one["pid"]
        except psutil.NoSuchProcess:
            recorded[name] = one["pid"]
    return recorded


def running(airflow: Installation) -> list[psutil.Process]:
    """Every live process of this installation, also those whose parents are dead: they share a session."""
    sessions = set(_recorded(airflow).values())
    found = []
    for process in psutil.process_iter() if sessions else ():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) in sessions and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(airflow: Installation, patience_seconds: float = 8) -> bool:
    """Stop every process of this installation; returns whether there was one. None is left afterwards."""
    alive = running(airflow)
    mains = set(_recorded(airflow).values())
    for process in alive:
        if process.pid in mains:
            with contextlib.suppress(psutil.Error):
                process.terminate()
    psutil.wait_procs(alive, timeout=patience_seconds)
    for _ in range(10):
        remaining = running(airflow)
        for process in remaining:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(remaining, timeout=2)
        if not remaining:
            break
    else:
        raise AdloomError(f"processes {[one.pid for one in running(airflow)]} do not end", "look at them with ps")
    airflow.record.unlink(missing_ok=True)
    return bool(alive)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_kept_up(airflow: Installation) -> bool:
    return bool(running(airflow)) and json.loads(airflow.record.read_text())["keep"]


def _require_port(airflow: Installation) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((airflow.host, airflow.port))
        except OSError as error:
            raise AdloomError(
                f"port {airflow.port} on {airflow.host} cannot be used ({error.strerror})",
                f"stop what uses it, or choose another: ADLOOM_AIRFLOW_PORT={airflow.port + 1} make …",
            ) from error


def _require_space(airflow: Installation) -> None:
    usage = psutil.disk_usage(str(airflow.home.parent))
    if usage.free < FREE_MEGABYTES * 1_000_000:
        raise AdloomError(
            f"{usage.free // 1_000_000} MB are free in {airflow.home.parent}, {FREE_MEGABYTES} are needed",
            "free some space or set ADLOOM_HOME to a folder on another disk",
        )


def require_healthy(name: str) -> None:
    """Raises `AdloomError` unless the named process is healthy as the api-server sees it (a container's check)."""
    address = os.environ.get("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{installation().url}/execution/")
    try:
        state = httpx.get(address.replace("/execution/", "/api/v2/monitor/health"), timeout=8).json()
    except (httpx.HTTPError, ValueError) as error:
        raise AdloomError(f"the api-server does not answer: {error}", "look at its log") from error
    part = {"api-server": "metadatabase", "dag-processor": "dag_processor"}.get(name, name)
    status = (state.get(part) or {}).get("status")
    if status != "healthy":
        raise AdloomError(f"{part} is {status}", f"look at the log of {name}")


def wait_until_healthy(airflow: Installation, patience_seconds: float = 180) -> None:
    """Until the api-server answers and scheduler and dag-processor beat; an early death is reported with its log."""
    deadline = time.monotonic() + patience_seconds
    state: dict[str, Any] = {}
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            state = httpx.get(f"{airflow.url}/api/v2/monitor/health", timeout=5).json()
            if all((state.get(part) or {}).get("status") == "healthy" for part in ("scheduler", "dag_processor")):
                return
        _require_processes(airflow)
        time.sleep(0.25)
    waiting = [part for part, value in state.items() if (value or {}).get("status") != "healthy"] or ["api-server"]
    raise AdloomError(
        f"Airflow is not healthy after {patience_seconds:.0f} s: {', '.join(waiting)}",
        f"see the files in {airflow.logs}",
    )


def _require_processes(airflow: Installation) -> None:
    for name, pid in _recorded(airflow).items():
        if not _is_alive(pid):
            raise AdloomError(f"the {name} ended:\n{_tail(airflow, name)}", f"see {airflow.logs / name}.log")


def _tail(airflow: Installation, name: str, lines: int = 15) -> str:
    return "\n".join((airflow.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])


# --- runs ------------------------------------------------------------------------------------------------------


class Client:
    """The few calls of Airflow's REST API that are needed here, logged in as `USER`."""

    def __init__(self, airflow: Installation) -> None:
        self._http = httpx.Client(base_url=airflow.url, timeout=30)
        answer = self._http.post("/auth/token", json={"username": USER, "password": password(airflow)})
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer's JSON, or an `AdloomError` with what Airflow said."""
        answer = self._http.request(method, f"/api/v2{path}", **arguments)
        if answer.is_error:
            raise AdloomError(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def close(self) -> None:
        self._http.close()


def create_backfill(airflow: Installation, shop: Shop, first: date, last: date, *, begin: bool = True) -> None:
    """``airflow backfill create`` for the days: one run at a time, and days that ran before run again.

    Done before the scheduler starts: SQLite lets one process write, and `airflow backfill create` gives up when
    the scheduler happens to hold the database. Without ``begin`` the runs wait until the DAG is unpaused.
    """
    dag_id = f"behaviour_daily__{shop.id}"
    airflow_command(airflow, "dags", "reserialize")
    airflow_command(airflow, "dags", "unpause" if begin else "pause", dag_id, "--yes")
    span = _span(shop, first, last)
    # The DAG's own max_active_runs does not hold for backfills.
    airflow_command(
        airflow,
        *("backfill", "create", "--dag-id", dag_id, "--max-active-runs", "1", "--reprocess-behavior", "completed"),
        *("--from-date", span["logical_date_gte"], "--to-date", span["logical_date_lte"]),
    )


def _span(shop: Shop, first: date, last: date) -> dict[str, str]:
    """Logical dates of the days: from the first to the last second, wherever in the day the schedule ticks."""
    start, end = day_window(first, shop.time_zone).start, day_window(last, shop.time_zone).end
    return {
        "logical_date_gte": start.isoformat(),
        "logical_date_lte": (end - timedelta(seconds=1)).isoformat(),
    }


def follow(airflow: Installation, shop: Shop, first: date, last: date, on_change: Callable[[Any], None]) -> None:
    """Wait until every run of the days has succeeded.

    ``on_change`` hears the task instances whenever they were read. Raises `AdloomError` with the first failed
    task and its message, or with the process that died.
    """
    dag_id, span = f"behaviour_daily__{shop.id}", _span(shop, first, last)
    with contextlib.closing(Client(airflow)) as client:
        while True:
            runs = client.call("GET", f"/dags/{dag_id}/dagRuns", params=span)["dag_runs"]
            found = client.call("GET", f"/dags/{dag_id}/dagRuns/~/taskInstances", params=span | {"limit": "1000"})
            on_change(found["task_instances"])
            for one in found["task_instances"]:
                if one["state"] == "failed":
                    raise AdloomError(*_why_it_failed(airflow, shop, client, one))
            states = {one["state"] for one in runs}
            if "failed" in states:
                raise AdloomError(f"a run of {dag_id} failed without a failed task", f"see the files in {airflow.logs}")
            if states == {"success"}:
                return
            _require_processes(airflow)
            time.sleep(0.5)


def _why_it_failed(
    airflow: Installation, shop: Shop, client: Client, instance: dict[str, Any], day: date | None = None
) -> tuple[str, str]:
    """What the failed task said, and where its log is; ``day``: of a run without a logical date."""
    run, task = instance["dag_run_id"], instance["task_id"]
    path = f"/dags/{instance['dag_id']}/dagRuns/{run}/taskInstances/{task}/logs/{instance['try_number']}"
    index = {"map_index": instance["map_index"]} if instance.get("map_index", -1) >= 0 else {}
    ours = {"AdloomError", "GateFailed", "UsageError", "AirflowFailException"}
    reasons = [
        detail["exc_value"] if detail["exc_type"] in ours else f"{detail['exc_type']}: {detail['exc_value']}"
        for line in client.call("GET", path, params={"full_content": "true"} | index)["content"]
        if isinstance(line, dict)
        for detail in line.get("error_detail") or []
    ]
    if day is None:
        day = datetime.fromisoformat(instance["logical_date"]).astimezone(shop.zone).date()
    folder = airflow.home / "logs" / f"dag_id={instance['dag_id']}" / f"run_id={run}" / f"task_id={task}"
    said = reasons[-1] if reasons else "its log gives no reason"
    return f"{task} of {day} failed: {said}", f"mend that and run this again; the task's whole log is in {folder}"


def airflow_command(airflow: Installation, *arguments: str) -> None:
    """``airflow ARGUMENTS`` in this process: the same parser and function, without starting an interpreter."""
    with _airflow_in_this_process(airflow), contextlib.redirect_stdout(io.StringIO()) as said:
        from airflow.cli.cli_parser import get_parser

        parsed = get_parser().parse_args(arguments)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            parsed.func(parsed)
        except (SystemExit, Exception) as error:
            if isinstance(error, SystemExit) and not error.code:
                return
            reason = said.getvalue().strip() or str(error)
            raise AdloomError(f"`airflow {' '.join(arguments[:2])}` failed: {reason}") from error
        finally:
            # Some of its commands take SIGTERM for themselves and would end this process quietly, with code 0.
            signal.signal(signal.SIGTERM, handler)


def forget_interrupted_runs(airflow: Installation, waiting_of: str | None = None) -> None:
    """Close what a killed command left open. Only while nothing of this installation runs.

    A run that waits for a person is not interrupted and stays; only those of the DAG ``waiting_of`` are closed too.
    """
    with _airflow_in_this_process(airflow):
        from airflow.models import DagRun, TaskInstance
        from airflow.models.backfill import Backfill
        from airflow.utils.session import create_session
        from sqlalchemy import func, select, update

        with create_session() as session:
            waiting = (
                select(TaskInstance.dag_id, TaskInstance.run_id)
                .where(TaskInstance.state == "awaiting_input", TaskInstance.dag_id != (waiting_of or ""))
                .distinct()
            )
            kept = {tuple(row) for row in session.execute(waiting)}
            found = session.execute(
                select(DagRun.dag_id, DagRun.run_id).where(DagRun.state.in_(("queued", "running")))
            ).all()
            for dag_id, run_id in (row for row in found if tuple(row) not in kept):
                unfinished = ("scheduled", "queued", "running", "awaiting_input")
                session.execute(
                    update(TaskInstance)
                    .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
                    .where(TaskInstance.state.in_(unfinished))
                    .values(state="failed")
                    .execution_options(synchronize_session=False)
                )
                session.execute(
                    update(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id).values(state="failed")
                )
            session.execute(update(Backfill).where(Backfill.completed_at.is_(None)).values(completed_at=func.now()))


# --- commands --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def up_for_a_while(airflow: Installation, before_start: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Airflow while the block runs; whatever ends the block, also Ctrl-C or a closed terminal, nothing is left running.

    ``before_start`` is called when Airflow is prepared and no process of it runs yet.
    """

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    ends = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in ends}
    try:
        with _one_command_at_a_time(airflow):
            _make_ready(airflow)
            before_start()
            try:
                start(airflow, keep=False)
                wait_until_healthy(airflow)
                yield
            finally:
                # A second Ctrl-C must not interrupt the stopping.
                for number in ends:
                    signal.signal(number, signal.SIG_IGN)
                stop(airflow)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _one_command_at_a_time(airflow: Installation) -> Iterator[None]:
    airflow.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with FileLock(airflow.home / "command.lock", timeout=0):
            yield
    except Timeout as error:
        raise AdloomError(f"another command is using {airflow.home}", "wait for it, or stop it first") from error


def _make_ready(airflow: Installation) -> None:
    """Nothing of ours runs, there is room and the port is free, Airflow is prepared."""
    if _is_kept_up(airflow):
        raise AdloomError(f"Airflow is already up at {airflow.url}", "stop it first with `make down`")
    if stop(airflow):
        console.print("stopped what an earlier command had left running")
    _require_space(airflow)
    _require_port(airflow)
    prepare(airflow)
    forget_interrupted_runs(airflow)


def demo(airflow: Installation, shop_id: str, first: date, last: date, *, with_creatives: bool = False) -> None:
    """The days through a real Airflow, then the summary and where the report is.

    ``with_creatives``: then the simulated shop's days, whose newest one ends in new ad copy.
    """
    shop = load_shop(shop_id)
    days = list(days_between(first, last))
    writing = load_shop(CREATIVES_SHOP) if with_creatives else None
    began = time.monotonic()
    console.print(f"starting Airflow (log files in {airflow.logs})")

    def before_start() -> None:
        if writing is not None:
            # The day is written anew and asked about again: what an earlier demo left waiting would be asked twice.
            # Before any backfill is created: what it leaves queued would be taken for interrupted.
            forget_interrupted_runs(airflow, waiting_of=f"creatives_daily__{writing.id}")
        create_backfill(airflow, shop, first, last)
        if writing is not None:
            create_backfill(airflow, writing, _last_days(CREATIVES_DAYS)[0], CREATIVES_LAST, begin=False)
            # Its runs come from the strategy's event; while it was paused, the event would pass unheard.
            airflow_command(airflow, "dags", "unpause", f"creatives_daily__{writing.id}", "--yes")

    with up_for_a_while(airflow, before_start=before_start):
        console.print(f"Airflow is up after {time.monotonic() - began:.0f} s; running {len(days)} days of {shop.id}")
        with _bars() as progress:
            follow(airflow, shop, first, last, _show(progress, shop, days))
        _print_result(shop, last, began)
        waiting = None if writing is None else _demo_creatives(airflow, writing)
    if writing is not None:
        from adloom import pipeline

        console.print()
        console.print(pipeline.copies_table(writing.id, CREATIVES_LAST), markup=False)
        _print_decisions(airflow, writing, waiting)
        console.print(
            f"\nsimulated: shop, items and offers above are invented\nreport: {shop.published / 'report.html'}\n"
            f"report: {writing.published / 'report.html'}\n{time.monotonic() - began:.0f} s",
            markup=False,
        )


def _last_days(count: int) -> list[date]:
    return list(days_between(CREATIVES_LAST - timedelta(days=count - 1), CREATIVES_LAST))


def _print_result(shop: Shop, day: date, began: float) -> None:
    from adloom import pipeline

    console.print()
    console.print(pipeline.summary_table(shop.id, day), markup=False)
    console.print(f"\nreport: {shop.published / 'report.html'}\n{time.monotonic() - began:.0f} s")


def _print_decisions(airflow: Installation, shop: Shop, waiting: str | None) -> None:
    """Which creatives are blocked and why, how many are published, and where a person answers about the others."""
    from adloom import pipeline

    day = CREATIVES_LAST
    console.print(f"\n{pipeline.blocked_table(shop.id, day)}\n\n{pipeline.settled(shop.id, day)}", markup=False)
    console.print(f"plan for {day + timedelta(days=1)}: {shop.published / 'plans'}", markup=False)
    if waiting is not None:
        page = f"{airflow.url}/dags/creatives_daily__{shop.id}/runs/{quote(waiting)}/tasks/approve/required_actions"
        console.print(f"a person is waited for: `make up`, then {page}", markup=False)


def _demo_creatives(airflow: Installation, shop: Shop) -> str | None:
    """Simulate the days, run them, and follow the newest one's creatives: their run comes from the strategy's event.

    Returns the id of that run if it waits for a person.
    """
    from adloom import pipeline

    days = _last_days(CREATIVES_DAYS)
    began = time.monotonic()
    console.print(
        f"\nsimulating {SIMULATED_DAYS} days of {shop.id}, a shop that does not exist; running the last {len(days)}"
    )
    for day in _last_days(SIMULATED_DAYS):
        pipeline.simulate(shop.id, day)
    before = creatives_runs(airflow, shop, CREATIVES_LAST)
    with contextlib.closing(Client(airflow)) as client:
        client.call("PATCH", f"/dags/behaviour_daily__{shop.id}", json={"is_paused": False})
    with _bars() as progress:
        follow(airflow, shop, days[0], CREATIVES_LAST, _show(progress, shop, days))
        console.print(f"{len(days)} days after {time.monotonic() - began:.0f} s; now briefs, training, copies")
        return follow_creatives(airflow, shop, CREATIVES_LAST, before, progress)


def creatives_runs(airflow: Installation, shop: Shop, day: date) -> set[str]:
    """Ids of the runs of ``creatives_daily`` for ``day`` that there are."""
    with contextlib.closing(Client(airflow)) as client:
        return {run["dag_run_id"] for run in _creatives_runs(client, shop, day)}


def _creatives_runs(client: Client, shop: Shop, day: date) -> list[dict[str, Any]]:
    path = f"/dags/creatives_daily__{shop.id}/dagRuns"
    found = client.call("GET", path, params={"order_by": "-run_after", "limit": "100"})["dag_runs"]
    return [run for run in found if (run["partition_key"] or "")[:10] == day.isoformat()]


def follow_creatives(
    airflow: Installation, shop: Shop, day: date, before: set[str], progress: Progress, *, patience_seconds: float = 120
) -> str | None:
    """Wait until the run of ``creatives_daily`` for ``day`` that is not among ``before`` has come and succeeded.

    A run in which nothing is left to do but to wait for a person is not waited for: its id is returned. Raises
    `AdloomError` with the first failed task and its message, or when no run comes in time.
    """
    bar, plain = progress.add_task("waiting", total=None), not progress.console.is_terminal
    deadline, told = time.monotonic() + patience_seconds, set[str]()
    with contextlib.closing(Client(airflow)) as client:
        while True:
            runs = [run for run in _creatives_runs(client, shop, day) if run["dag_run_id"] not in before]
            if runs:
                run = runs[0]
                path = f"/dags/creatives_daily__{shop.id}/dagRuns/{run['dag_run_id']}/taskInstances"
                found = client.call("GET", path)["task_instances"]
                for one in found:
                    if one["state"] == "failed":
                        raise AdloomError(*_why_it_failed(airflow, shop, client, one, day))
                    if plain and one["state"] in {"success", "skipped"} and one["id"] not in told:
                        told.add(one["id"])
                        seconds = f" in {one['duration']:.0f} s" if one["duration"] else ""
                        progress.console.print(f"{day} {one['task_id']}: {one['state']}{seconds}")
                done = sum(one["state"] in {"success", "skipped"} for one in found)
                now = next((one["task_id"] for one in found if one["state"] == "running"), "…")
                progress.update(bar, total=len(found), completed=done, description=f"{day} {now}".ljust(28))
                if run["state"] == "success":
                    return None
                if _waits_for_a_person(found):
                    return str(run["dag_run_id"])
                if run["state"] == "failed":
                    raise AdloomError(
                        f"the run of creatives_daily__{shop.id} failed without a failed task",
                        f"see the files in {airflow.logs}",
                    )
            elif time.monotonic() > deadline:
                raise AdloomError(
                    f"no run of creatives_daily__{shop.id} came for {day} in {patience_seconds:.0f} s",
                    f"see {airflow.logs / 'scheduler.log'}",
                )
            _require_processes(airflow)
            time.sleep(0.5)


def _waits_for_a_person(instances: list[dict[str, Any]]) -> bool:
    """Is a task waiting, and has everything come to its end that does not come after it?"""
    after_the_answer = {"approve", "record_decision", "publish_approved", "report_approved"}
    others = {one["state"] for one in instances if one["task_id"] not in after_the_answer}
    is_asked = any(one["task_id"] == "approve" and one["state"] == "awaiting_input" for one in instances)
    return is_asked and others <= {"success", "skipped"}


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )


def _show(progress: Progress, shop: Shop, days: list[date]) -> Callable[[Any], None]:
    bar = progress.add_task("waiting", total=len(days) * STEPS_A_DAY)
    plain = not progress.console.is_terminal
    finished: set[date] = set()

    def show(instances: list[dict[str, Any]]) -> None:
        done: dict[date, int] = dict.fromkeys(days, 0)
        now = "…"
        for one in instances:
            day = datetime.fromisoformat(one["logical_date"]).astimezone(shop.zone).date()
            done[day] += one["state"] == "success"
            if one["state"] == "running":
                now = f"{day} {one['task_id']}"
        progress.update(bar, completed=sum(done.values()), description=now.ljust(28))
        for day in days:
            if plain and done[day] == STEPS_A_DAY and day not in finished:
                finished.add(day)
                progress.console.print(f"{day} done")

    return show


def up(airflow: Installation) -> None:
    """Start Airflow and leave it up; prints where it is and how to log in."""
    with _one_command_at_a_time(airflow):
        if _is_kept_up(airflow):
            console.print("Airflow is up already")
        else:
            _make_ready(airflow)
            try:
                start(airflow, keep=True)
                wait_until_healthy(airflow)
            except BaseException:
                stop(airflow)
                raise
    console.print(f"{airflow.url}\nlogin {USER}, password {password(airflow)}\nstop it with `make down`", markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 done, 1 failed (one line why, next step), 2 wrong use, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="python -m adloom.local_airflow", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo_parser = commands.add_parser("demo")
    demo_parser.add_argument("--shop", default=DEMO_SHOP)
    demo_parser.add_argument("--from", dest="first", default="2019-11-24")
    demo_parser.add_argument("--to", dest="last", default="2019-11-30")
    commands.add_parser("up")
    commands.add_parser("down")
    commands.add_parser("prepare")
    commands.add_parser("run").add_argument("name", choices=sorted(COMMANDS))
    commands.add_parser("healthy").add_argument("name", choices=sorted(COMMANDS))
    chosen = parser.parse_args(arguments)
    try:
        airflow = installation()
        if chosen.command == "demo":
            with_creatives = chosen.shop == DEMO_SHOP
            demo(airflow, chosen.shop, parse_day(chosen.first), parse_day(chosen.last), with_creatives=with_creatives)
        elif chosen.command == "up":
            up(airflow)
        elif chosen.command == "down":
            console.print("Airflow is stopped" if stop(airflow) else "Airflow was not running")
        elif chosen.command == "prepare":
            prepare(airflow)
        elif chosen.command == "healthy":
            require_healthy(chosen.name)
        else:
            become(airflow, chosen.name)
    except AdloomError as error:
        console.print(f"[red]failed:[/red] {error.message}\n[bold]next:[/bold] {error.next_step or 'see above'}")
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        console.print("interrupted; nothing is left running")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
