"""The documents: their commands run as they stand, their links lead somewhere, their words are the code's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from adloom import cli, pipeline, sources
from adloom.shop import Shop

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(ROOT.glob("docs/*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """(language, content) of every fenced block, in order."""
    for match in FENCE.finditer(document.read_text(encoding="utf-8")):
        yield match[1], match[2]


@pytest.mark.timeout(900)
def test_the_walk_through_for_data_engineers_runs_as_it_stands(tmp_path: Path) -> None:
    """Every yaml and python block names its file in its first line; every sh block is run where they lie."""
    (tmp_path / "shops").mkdir()
    environment = os.environ | {
        "ADLOOM_HOME": str(tmp_path / "var"),
        "ADLOOM_SHOPS_DIR": str(tmp_path / "shops"),
        "ADLOOM_USER_ID_KEY": "a key for tests only",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    said = []
    for language, content in blocks(ROOT / "docs" / "for_data_engineers.md"):
        if language in {"yaml", "python"}:
            name = content.partition("\n")[0].removeprefix("# ")
            (tmp_path / name).write_text(content, encoding="utf-8")
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", content],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{content}\n{done.stdout}\n{done.stderr}"
            said.append(done.stdout)
        else:
            assert language == "text"
    assert (tmp_path / "var/shops/tea_shop/published/report.html").is_file()
    before, after = (dict(re.findall(r"(2024-03-0\d)\W+(\w+)", table)) for table in re.split(r"┏", said[-1])[1:3])
    assert before == {"2024-03-01": "done", "2024-03-02": "stale", "2024-03-03": "done"}
    assert after == dict.fromkeys(before, "done")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_named_in_documents_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    commands = set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"\badloom ([a-z-]+)\b(?= +--|`| *$)", text, re.MULTILINE)) <= commands
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets


def test_what_contributing_points_at_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:src|dbt_project|docs|shops|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    assert set(sources.LANDERS) == set(Shop.model_fields["source"].annotation.model_fields["kind"].annotation.__args__)


def test_every_step_of_a_day_has_its_row_in_the_table_of_red_tasks() -> None:
    text = (ROOT / "docs" / "for_data_engineers.md").read_text(encoding="utf-8")
    table = text.partition("## 6.")[2]
    for step in pipeline.STEPS:
        command = "check --door " + step.removeprefix("check_") if step.startswith("check_") else step
        if step != "report":
            assert f"`adloom {command}`" in table, step


def test_the_shop_of_the_walk_through_is_the_smallest_there_can_be() -> None:
    content = next(body for language, body in blocks(ROOT / "docs" / "for_data_engineers.md") if language == "yaml")
    keys = set(yaml.safe_load(content))
    assert keys == {name for name, field in Shop.model_fields.items() if field.is_required()}
