"""What every DAG shares: its tags, its documentation, the day of a task and how a failure reads.

Imported while DAG files are parsed, so nothing heavy is imported here: a task imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from adloom.errors import AdloomError, Busy, UsageError
from adloom.settings import settings
from adloom.shop import Shop, load_shop, shop_ids
from adloom.window import run_day

log = logging.getLogger(__name__)

TAGS = {
    "behaviour": "reads what people did and adjusts the strategy",
    "creatives": "writes ad copy from the day's strategy",
    "privacy": "does what people ask of their own data, and forgets in time",
    "broken": "the shop's file must be mended before anything can run",
    "simulated": "made by a simulator, not by a shop",
}
GPU_POOL = "gpu"
"""The pool of every task that trains or generates; as many slots as there are GPUs, one on a laptop."""
END_WITH_PARENT = "ADLOOM_END_WITH_PARENT"
"""Set for a command that a task started: it ends when its standard input is closed, so also when the task is killed."""
DOC_SECTIONS = ("What", "Reads", "Writes", "When not to run", "How to repair")


def warehouse_pool(shop_id: str) -> str:
    """The pool every task holds while it has the shop's warehouse open; one slot, made at set-up."""
    return f"warehouse__{shop_id}"


def strategy_asset(shop_id: str) -> str:
    """Name of the asset that says a day's strategy is published; its partition key is the day."""
    return f"strategy__{shop_id}"


def plan_asset(shop_id: str) -> str:
    """Name of the asset that says a plan with new creatives is published; its partition key is the run's day."""
    return f"plan__{shop_id}"


def defaults(shop: Shop) -> dict[str, Any]:
    """``default_args`` of every DAG of a shop: its tasks hold the warehouse's pool unless they say otherwise."""
    return {
        "owner": shop.id,
        "pool": warehouse_pool(shop.id),
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
    }


def day_param(shop: Shop, question: str) -> dict[str, Param]:
    """The form's field for the day; ``question``: what the day decides, as in "Which day to run"."""
    description = f"{question}, in {shop.time_zone}; a run started by hand must name one."
    return {"day": Param(None, type=["null", "string"], format="date", title="Day", description=description)}


def generate_param() -> dict[str, Param]:
    """The form's field that makes or skips new creatives whatever the day."""
    description = "Left open: only when this is the newest day in landing."
    return {"generate": Param(None, type=["null", "boolean"], title="Make new creatives", description=description)}


def gpu_task() -> dict[str, Any]:
    """What every GPU task has in common, for ``@task(**gpu_task())``: pool, queue and executor by setting.

    An executor that Airflow does not know is an import error, so one is named only where the setting names one.
    """
    found = settings()
    arguments: dict[str, Any] = {"pool": GPU_POOL, "queue": found.gpu_queue}
    return arguments if found.gpu_executor is None else arguments | {"executor": found.gpu_executor}


def run_command(*arguments: str) -> None:
    """``adloom ARGUMENTS`` in an interpreter of its own, its lines in the task's log; it ends with the task.

    A task is a fork of a process that may have CUDA or threads of its own: neither survives a fork. A failure that
    Adloom explains is raised as the same `AdloomError`; anything else, a kill too, as `RuntimeError`, to be retried.
    """
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"} | os.environ
    process = subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-m", "adloom", *arguments],
        env=environment | {END_WITH_PARENT: "1", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        # A group of its own, so that nothing of it outlives it; the same session, so that `make down` finds it.
        process_group=0,
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    lines: list[str] = []
    try:
        for line in process.stdout:
            log.info("%s", line.rstrip())
            lines = [*lines[-19:], line.rstrip()]
        code = process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code == 0:
        return
    said = [number for number, line in enumerate(lines) if line.startswith("✗ ")]
    if code > 0 and said:
        message, rest = lines[said[-1]].removeprefix("✗ "), lines[said[-1] + 1 :]
        next_step = rest[0].strip().removeprefix("next: ") if rest else ""
        raise Busy(message) if next_step.startswith(Busy.WAIT) else AdloomError(message, next_step)
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    raise RuntimeError(f"`adloom {' '.join(arguments)}` {how}: {lines[-1] if lines else 'it said nothing'}")


def shops() -> tuple[dict[str, Shop], dict[str, UsageError]]:
    """Shops that can run, and why the others cannot."""
    sound: dict[str, Shop] = {}
    broken: dict[str, UsageError] = {}
    for shop_id in shop_ids():
        try:
            sound[shop_id] = load_shop(shop_id)
        except UsageError as error:
            broken[shop_id] = error
    return sound, broken


def documentation(**sections: str) -> str:
    """``doc_md`` with the sections of `DOC_SECTIONS`, in order; leaving one out is an error."""
    keys = [section.lower().replace(" ", "_") for section in DOC_SECTIONS]
    if list(sections) != keys:
        raise ValueError(f"doc_md needs the sections {keys}, not {list(sections)}")
    return "\n\n".join(f"**{title}.** {sections[key]}" for title, key in zip(DOC_SECTIONS, keys, strict=True))


@contextmanager
def the_day(shop: Shop) -> Iterator[date]:
    """The day this task is for. A failure Adloom explains fails the task at once; any other one is retried.

    Another run that is at the same is no failure to be explained but to be waited for: such a task is retried, too.
    A historical shop (``end_day``) has nothing to do on later days: those runs end as skipped, with the reason.
    """
    context = get_current_context()
    try:
        day = run_day(
            context["params"],
            context["dag_run"].partition_key,
            context.get("data_interval_start"),
            shop.time_zone,
        )
        if shop.end_day is not None and day > shop.end_day:
            raise AirflowSkipException(f"the logs of {shop.id} end on {shop.end_day}; there is no {day}")
        log.info("shop %s, day %s", shop.id, day)
        yield day
    except Busy:
        raise
    except AdloomError as error:
        raise AirflowFailException(str(error)) from error


def broken_dag(dag_id: str, shop_id: str, error: UsageError) -> DAG:
    """What stands in for a DAG whose shop file cannot be read: its page and its only task say why.

    Other shops are not touched, the history of the DAG stays, and nothing is scheduled until the file is mended.
    """
    from airflow.sdk import task

    with DAG(
        dag_id,
        schedule=None,
        tags={"broken"},
        default_args={"owner": shop_id},
        doc_md=documentation(
            what=f"Nothing: the shop's file is broken. **{error.message}**",
            reads=f"`shops/{shop_id}.yml`.",
            writes="Nothing.",
            when_not_to_run="Until the file is mended.",
            how_to_repair=f"{error.next_step or 'Mend the file'}; `adloom shops` shows when it can be read again.",
        ),
    ) as dag:

        @task
        def read_shop() -> None:
            """Fail with what is wrong in the shop's file."""
            raise AirflowFailException(str(error))

        read_shop()
    return dag
