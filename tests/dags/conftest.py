"""An Airflow of the test process's own: configured before anything imports it, its database made on first use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adloom.settings import CHECKOUT

DAGS = CHECKOUT / "dags"
_HOME = tempfile.mkdtemp(prefix="adloom-airflow-")
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(CHECKOUT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
}


@pytest.fixture
def dag_bag() -> Callable[[], Any]:
    """Parse ``dags/`` with the shops the settings name now."""

    def parse() -> Any:
        from airflow.dag_processing.dagbag import DagBag

        return DagBag(dag_folder=str(DAGS))

    return parse


@pytest.fixture
def metadata_database() -> Path:
    """A migrated metadata database (once per test process) with a pool per shop."""
    from airflow.models.pool import Pool
    from airflow.utils import db
    from airflow.utils.session import create_session

    from adloom.orchestration import GPU_POOL, warehouse_pool
    from adloom.shop import shop_ids

    file = Path(_HOME) / "airflow.db"
    if not file.exists() or file.stat().st_size == 0:
        db.upgradedb()
    with create_session() as session:
        for pool in (GPU_POOL, *map(warehouse_pool, shop_ids())):
            Pool.create_or_update_pool(pool, slots=1, description="", include_deferred=False, session=session)
    return file
