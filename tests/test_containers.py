"""docker-compose.yml and Dockerfile agree with the code they start, and hold no secret and no root."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adloom.local_airflow import COMMANDS, Installation
from adloom.settings import CHECKOUT, Settings


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def test_the_services_are_the_processes_of_make_up_and_each_is_watched(services: dict[str, Any]) -> None:
    assert {name: service["command"] for name, service in services.items() if "command" in service} == {
        "prepare": ["prepare"],
        **{name: ["run", name] for name in COMMANDS},
    }
    for name in COMMANDS:
        assert services[name]["healthcheck"]["test"][-2:] == ["healthy", name]
    assert set(services) == {"postgres", "prepare", *COMMANDS}


def test_no_secret_has_a_default_and_nothing_is_open_to_the_network(services: dict[str, Any]) -> None:
    example = (CHECKOUT / ".env.example").read_text(encoding="utf-8")
    for service in services.values():
        for name, value in service["environment"].items():
            for variable, rest in re.findall(r"\$\{(\w+)([^}]*)\}", str(value)):
                assert f"{variable}=\n" in example, f"{variable} is not in .env.example"
                assert rest.startswith(":?") or "URL" in variable, f"{name} has a default"
            if re.search("PASSWORD|KEY|SECRET", name):
                assert str(value).startswith("${")
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_every_setting_is_one_that_adloom_or_airflow_reads(services: dict[str, Any], tmp_path: Path) -> None:
    containers = services["scheduler"]["environment"]
    ours = {f"ADLOOM_{field.upper()}" for field in Settings.model_fields}
    ours |= {"ADLOOM_AIRFLOW_HOST", "ADLOOM_AIRFLOW_PORT", "ADLOOM_ADMIN_PASSWORD"}
    local = Installation(tmp_path, "127.0.0.1", 8080).environment()
    names = {*containers, *local} - {name for name in os.environ if name not in containers}
    assert {name for name in names if name.startswith("ADLOOM_")} <= ours
    program = (
        "import sys; from airflow.configuration import retrieve_configuration_description as read\n"
        "options = {(s, o) for s, part in read(include_providers=False).items() for o in part['options']}\n"
        "print([name for name in sys.argv[1:] if tuple(name.lower().split('__')[1:]) not in options])\n"
    )
    options = [name for name in names if name.startswith("AIRFLOW__")]
    assert len(options) > 15
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        check=True,
        capture_output=True,
        text=True,
        env=environment | {"AIRFLOW_HOME": str(tmp_path)},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_image_is_not_root_and_copies_only_what_the_builder_is_sent() -> None:
    lines = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER adloom"]
    sent = {
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"
    }
    copied = {
        name
        for line in lines
        if line.startswith("COPY ")
        for name in [part for part in line.split()[1:-1] if not part.startswith("--")]
    }
    assert copied == sent
    assert [name for name in copied if not (CHECKOUT / name).exists()] == []
