"""Fixtures every room shares: a home of its own per test and shops made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from adloom.shop import Shop, load_shop


@pytest.fixture
def adloom_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ADLOOM_HOME and ADLOOM_SHOPS_DIR inside the test's own folder."""
    home = tmp_path / "home"
    shops = tmp_path / "shops"
    home.mkdir()
    shops.mkdir()
    monkeypatch.setenv("ADLOOM_HOME", str(home))
    monkeypatch.setenv("ADLOOM_SHOPS_DIR", str(shops))
    monkeypatch.setenv("ADLOOM_USER_ID_KEY", "a key for tests only")
    monkeypatch.setenv("ADLOOM_LOCK_TIMEOUT_SECONDS", "30")
    return home


@pytest.fixture
def make_shop(adloom_home: Path) -> Callable[..., Shop]:
    """Write ``shops/<id>.yml`` with defaults and the given overrides; returns the loaded shop."""

    def make(**overrides: Any) -> Shop:
        content: dict[str, Any] = {
            "id": "corner_shop",
            "name": "Corner shop",
            "language": "en",
            "time_zone": "UTC",
            "start_day": "2024-03-01",
            "source": {"kind": "files"},
        } | overrides
        path = adloom_home.parent / "shops" / f"{content['id']}.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_shop(content["id"])

    return make
