"""Approval without Airflow: what a person types and what comes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from adloom import pipeline
from adloom.cli import app


@pytest.fixture
def adloom(planned: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command for day 7 of the planned shop; its marts are written by hand and therefore as new as can be."""
    monkeypatch.setattr(pipeline, "_require_marts", lambda shop, day: None)

    def run(*arguments: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, [*arguments, "--shop", planned.shop.id, "--day", "2024-03-07"])
        assert done.exit_code == code, done.output
        return done.output

    return run


def live(planned: Any) -> set[str]:
    root = planned.shop.published / "plans"
    folder = root / json.loads((root / "CURRENT.json").read_text())["path"]
    return set(json.loads((folder / "plan.json").read_text())["creatives"])


def test_a_shop_without_airflow_reviews_approves_and_takes_out_again(planned: Any, adloom: Any) -> None:
    planned.write("tea", headline="[bold]Tea[/bold] for two")
    planned.review("milk", planned.write("milk"), "warn")
    planned.write("soda")
    said = json.loads(adloom("review", "--json"))
    assert [one["creative_id"] for one in said["waiting"]] == ["milk", "soda", "tea"], "findings first"
    assert said["waiting"][0]["notes"][0]["reason"] == "a reason"
    assert "[bold]Tea[/bold]" in adloom("review").replace("\n", "")
    assert "1 approved, 0 rejected" in adloom("approve", "--creative", "tea", "--by", "Li", "--reason", "fine")
    assert live(planned) == {"tea"}
    adloom("reject", "--creative", "soda", "--by", "Li", "--reason", "not our voice")
    adloom("approve", "--all", "--by", "Wang")
    assert live(planned) == {"tea", "milk"}
    assert json.loads(adloom("review", "--json"))["waiting"] == []
    # Taken out again on the spot, from the plan that is live.
    adloom("reject", "--creative", "tea", "--by", "Wang", "--reason", "a complaint")
    assert live(planned) == {"milk"}
    kept = planned.execute("select creative_id, decision, decided_by, reason from adloom.approvals where reason <> ''")
    assert ("tea", "rejected", "Wang", "a complaint") in kept
    assert ("tea", "approved", "Li", "fine") in kept


def test_wrong_decisions_say_why(planned: Any, adloom: Any) -> None:
    digest = planned.write("tea")
    planned.review("tea", digest, "block")
    assert "which creatives?" in adloom("approve", "--by", "Li", code=2)
    assert "which creatives?" in adloom("approve", "--all", "--creative", "tea", "--by", "Li", code=2)
    assert "has written no creative cake" in adloom("approve", "--creative", "cake", "--by", "Li", code=2)
    assert "blocked by law.absolute" in adloom("approve", "--creative", "tea", "--by", "Li", code=1)
    assert "--by is empty" in adloom("approve", "--all", "--by", " ", code=2)
    assert "nothing of 2024-03-07 waits" in adloom("reject", "--all", "--by", "Li", "--reason", "x")
    assert not planned.execute("select 1 from adloom.approvals where origin = 'person'")
