"""The dbt project itself: documented throughout, its unit tests pass, it keeps to the run's window."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from adloom.errors import AdloomError
from adloom.settings import settings
from adloom.warehouse.dbt import _Project, run_dbt


@pytest.fixture
def manifest(make_shop):
    return _Project(make_shop()).manifest


def test_every_model_and_column_is_described_once(manifest):
    models = [node for node in manifest.nodes.values() if node.resource_type == "model"]
    assert len(models) >= 20
    for model in models:
        assert model.description.startswith("One row per "), model.name
        undescribed = [name for name, column in model.columns.items() if not column.description]
        assert model.columns, model.name
        assert not undescribed, f"{model.name}: {undescribed}"
        # Described by the docs block of its name: the same quantity has the same name and words everywhere.
        for name, column in model.columns.items():
            assert column.description == manifest.docs[f"doc.adloom.{name}"].block_contents.strip(), name
    used = {name for model in models for name in model.columns}
    blocks = {block.name for block in manifest.docs.values() if block.package_name == "adloom"}
    assert blocks == used


def test_every_table_has_a_tested_key_and_a_contract(manifest):
    keyed = {node.attached_node for node in manifest.nodes.values() if node.name.startswith("unique_key_")}
    for model_id, model in manifest.nodes.items():
        if model.resource_type == "model" and model.config.materialized != "view":
            assert model.config.materialized == "replace_known_date"
            assert model.config.contract.enforced
            assert model_id in keyed, model.name


def test_the_models_ask_no_clock_and_have_no_defaults():
    root = settings().dbt_project_dir
    for path in [*root.glob("models/**/*.sql"), *root.glob("macros/*.sql"), *root.glob("tests/**/*.sql")]:
        sql = Path(path).read_text(encoding="utf-8").lower()
        assert not re.search(r"current_date|current_timestamp|\bnow\(|\btoday\(|run_started_at|random\(", sql), path
        assert not re.search(r"var\([^)]*,", sql), f"{path}: a var with a default"


def test_unit_tests_pass(make_landing):
    shop = make_landing().shop
    run_dbt(shop, date(2024, 3, 1))
    ran = run_dbt(shop, date(2024, 3, 1), select="test_type:unit", command="test")
    assert len(ran) >= 6


def test_a_missing_var_is_an_error(make_landing, monkeypatch):
    project = _Project(make_landing().shop)
    monkeypatch.setattr("adloom.warehouse.dbt.run_vars", lambda *_: {"known_date": "2024-03-01"})
    with pytest.raises(AdloomError, match=r"model int_ad_events__duplicates: .*lookback_days"):
        project.build(date(2024, 3, 1), select="+int_ad_events__duplicates", command="run")
