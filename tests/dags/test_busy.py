"""Two runs of one day at once: the one that finds the other at work is tried again and not failed for good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from adloom.errors import AdloomError, Busy
from adloom.shop import Shop

DAY = "2024-03-07"


@pytest.mark.parametrize(("error", "is_final"), [(Busy("another run is at it"), False), (AdloomError("x", "y"), True)])
def test_a_task_that_finds_another_run_at_work_is_tried_again(
    error: AdloomError, is_final: bool, make_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from adloom import orchestration

    context = {"params": {"day": DAY}, "dag_run": SimpleNamespace(partition_key=None)}
    monkeypatch.setattr(orchestration, "get_current_context", lambda: context)
    with pytest.raises(Exception, match=r"at it|x") as raised, orchestration.the_day(make_shop()):
        raise error
    assert isinstance(raised.value, AirflowFailException) is is_final


def test_a_command_says_it_is_busy_and_its_task_is_tried_again(make_shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from adloom.orchestration import run_command

    shop: Shop = make_shop()
    monkeypatch.setenv("ADLOOM_LOCK_TIMEOUT_SECONDS", "0.1")
    (shop.home / "locks").mkdir(parents=True)
    with (
        FileLock(shop.home / "locks" / f"pictures-{DAY}.lock"),
        pytest.raises(Busy, match=f"another run of corner_shop is at this: pictures-{DAY}"),
    ):
        run_command("generate-images", "--shop", shop.id, "--day", DAY)
