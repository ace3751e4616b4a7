"""The commands as a person uses them: exit codes, one line of reason, JSON for machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adloom.shop import Shop


def adloom(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adloom", *arguments], capture_output=True, text=True, check=False, env=dict(os.environ)
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--shop", "corner_shop"), "which days?"),
        (("run", "--shop", "corner_shop", "--from", "2024-03-02", "--to", "2024-03-01"), "starts on"),
        (("run", "--shop", "corner_shop", "--day", "yesterday"), "is not a day"),
        (("run", "--shop", "nobody", "--day", "2024-03-01"), "there is no shop 'nobody'"),
        (("evaluate", "--shop", "corner_shop"), "Missing option"),
        (("check", "--shop", "corner_shop", "--day", "2024-03-01", "--door", "back"), "back"),
    ],
)
def test_wrong_use_exits_2_and_says_why(make_shop: Callable[..., Shop], arguments: tuple[str, ...], said: str) -> None:
    make_shop()
    done = adloom(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_day_without_landing_is_stopped_at_the_door(make_shop: Callable[..., Shop]) -> None:
    make_shop()
    done = adloom("run", "--shop", "corner_shop", "--day", "2024-03-01")
    assert done.returncode == 1
    assert "2024-03-01" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(adloom("status", "--shop", "corner_shop", "--json").stdout)
    assert [(row["day"], row["status"]) for row in told] == [("2024-03-01", "failed")]


def test_shops_show_a_broken_file_beside_the_good_ones(make_shop: Callable[..., Shop]) -> None:
    shop = make_shop()
    (Path(os.environ["ADLOOM_SHOPS_DIR"]) / "broken.yml").write_text("id: broken\nlanguage: fr\n", encoding="utf-8")
    told = {row["shop"]: row["state"] for row in json.loads(adloom("shops", "--json").stdout)}
    assert told[shop.id] == "ok"
    assert "language" in told["broken"]
