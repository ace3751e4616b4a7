"""The route of pictures: behind a login, behind the right to see the DAG, and never outside its folder."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adloom.settings import CHECKOUT

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="adloom-airflow-"))


@pytest.fixture
def shop(make_shop: Any) -> Any:
    made = make_shop()
    folder = made.creatives / "day=2024-03-07" / "images"
    folder.mkdir(parents=True)
    (folder / "tea.png").write_bytes(b"a picture")
    (folder / "asked.json").write_text("{}")
    (made.home / "secret.png").write_bytes(b"elsewhere")
    (folder / "link.png").symlink_to(made.home / "secret.png")
    return made


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call the application as somebody who may see the DAGs named in ``allowed``; None: as nobody."""
    from airflow.api_fastapi.core_api import security
    from fastapi.testclient import TestClient

    spec = importlib.util.spec_from_file_location("creative_files", CHECKOUT / "plugins" / "creative_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def get(path: str, allowed: set[str] | None) -> Any:
        app = module.make_app()
        manager = SimpleNamespace(is_authorized_dag=lambda *, details=None, **_: details.id in (allowed or set()))
        monkeypatch.setattr(security, "get_auth_manager", lambda: manager)
        monkeypatch.setattr(security.DagModel, "get_team_name", lambda dag_id: None)  # would ask the database
        if allowed is not None:
            app.dependency_overrides[security.get_user] = lambda: SimpleNamespace(get_name=lambda: "Li")
        return TestClient(app, raise_server_exceptions=False).get(path)

    return get


MINE = {"creatives_daily__corner_shop"}


@pytest.mark.parametrize(
    ("path", "allowed", "status"),
    [
        ("creatives_daily__corner_shop/day=2024-03-07/images/tea.png", MINE, 200),
        ("creatives_daily__corner_shop/day%3D2024-03-07/images/tea.png", MINE, 200),
        ("creatives_daily__corner_shop/day=2024-03-07/images/tea.png", None, 401),
        ("creatives_daily__corner_shop/day=2024-03-07/images/tea.png", {"another"}, 403),
        ("creatives_daily__corner_shop/day=2024-03-07/images/none.png", MINE, 404),
        ("creatives_daily__corner_shop/day=2024-03-07/images/asked.json", MINE, 404),
        ("creatives_daily__corner_shop/day=2024-03-07/images/link.png", MINE, 404),
        ("creatives_daily__corner_shop/%2e%2e/secret.png", MINE, 404),
        ("creatives_daily__corner_shop/day=2024-03-07/..%2f..%2fsecret.png", MINE, 404),
        ("creatives_daily__corner_shop//etc/hostname.png", MINE, 404),
        ("creatives_daily__nobody/day=2024-03-07/images/tea.png", {"creatives_daily__nobody"}, 404),
        ("another/day=2024-03-07/images/tea.png", {"another"}, 404),
    ],
)
def test_a_picture_is_for_who_may_see_the_dag(
    path: str, allowed: set[str] | None, status: int, shop: Any, client: Any
) -> None:
    answer = client(f"/{path}", allowed)
    assert answer.status_code == status
    if status == 200:
        assert answer.content == b"a picture"
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["x-content-type-options"] == "nosniff"
    else:
        assert Path(shop.home / "secret.png").read_bytes() not in answer.content
