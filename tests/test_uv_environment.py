"""What pip knows about mirrors and certificates reaches uv."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from adloom.settings import CHECKOUT


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("uv_environment", CHECKOUT / "scripts" / "uv_environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_environment_wins_over_files_and_uvs_own_variables_win_over_pip(script: ModuleType) -> None:
    listing = "\n".join(
        [
            "global.index-url='https://mirror.example/simple'",
            "global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'",
            "global.find-links='/from/file'",
            ":env:.find-links='/wheels /more'",
            "install.trusted-host='mirror.example'",
            "global.cert='/etc/ssl/ca.crt'",
            "global.timeout='60'",
        ]
    )
    assert script.uv_environment(script.pip_settings(listing), {"SSL_CERT_FILE": "/mine.crt"}) == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INSECURE_HOST": "mirror.example",
    }


def test_a_machine_without_settings_of_its_own_changes_nothing(script: ModuleType) -> None:
    assert script.uv_environment(script.pip_settings(""), {}) == {}
