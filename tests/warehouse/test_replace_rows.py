"""`replace_rows` keeps every value exactly, replaces by key, and is quick."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from adloom.shop import Shop
from adloom.warehouse.engine import warehouse
from adloom.warehouse.ledger import create_ledger, evaluations, replace_rows, runs

DAY = date(2024, 3, 1)


def _row(creative: str, **more: Any) -> dict[str, Any]:
    keys = {"day": DAY, "window_days": 1, "grain": "creative", "campaign_id": "", "policy_id": "", "segment_id": ""}
    counts = {"impressions": 3, "clicks": 1, "cohort_clicks": 1, "conversions": 0, "is_mature": False}
    return keys | counts | {"creative_id": creative} | more


def test_values_come_back_as_they_were(make_shop: Callable[..., Shop]) -> None:
    hostile = "a'); drop table x; -- :day %s [1,2] \n 创意"
    rows = [
        _row(hostile, ctr=0.1 + 0.2, conversions_value=Decimal("123456789012.123456"), cost=Decimal("1E+3")),
        _row("", ctr=None, conversions_value=Decimal("0.000001"), cost=0),
        _row("numpy", ctr=np.float64(1 / 3), impressions=np.int64(2**40), is_mature=np.bool_(True), users=7),
    ]
    with warehouse(make_shop()) as engine, engine.begin() as connection:
        create_ledger(engine)
        assert replace_rows(connection, evaluations, {"day": DAY}, rows) == 3
        found = {row.creative_id: row for row in connection.execute(select(evaluations))}
    assert (found[hostile].ctr, found[hostile].conversions_value) == (0.1 + 0.2, Decimal("123456789012.123456"))
    assert (found[hostile].cost, found[hostile].users) == (1000, None)
    assert (found[""].ctr, found[""].conversions_value, found[""].cost) == (None, Decimal("0.000001"), 0)
    assert (found["numpy"].ctr, found["numpy"].impressions, found["numpy"].is_mature) == (1 / 3, 2**40, True)
    assert found["numpy"].users == 7


def test_only_the_key_is_replaced(make_shop: Callable[..., Shop]) -> None:
    other = date(2024, 3, 2)
    began = datetime(2024, 3, 1, 4, 5, 6, 789012)
    with warehouse(make_shop()) as engine, engine.begin() as connection:
        create_ledger(engine)
        replace_rows(connection, runs, {"day": DAY}, [{"day": DAY, "status": "running", "started_at": began}])
        replace_rows(connection, runs, {"day": other}, [{"day": other, "status": "done"}])
        replace_rows(connection, runs, {"day": DAY}, [{"day": DAY, "status": "done", "started_at": began}])
        rows = connection.execute(select(runs.c.day, runs.c.status, runs.c.started_at).order_by(runs.c.day)).all()
        assert rows == [(DAY, "done", began), (other, "done", None)]
        assert replace_rows(connection, runs, {"day": DAY}, []) == 0
        assert connection.scalars(select(runs.c.day)).all() == [other]


def test_an_unknown_column_or_a_missing_value_is_an_error(make_shop: Callable[..., Shop]) -> None:
    with warehouse(make_shop()) as engine:
        create_ledger(engine)
        with pytest.raises(KeyError, match="stauts"), engine.begin() as connection:
            replace_rows(connection, runs, {"day": DAY}, [{"day": DAY, "stauts": "done"}])
        with pytest.raises(IntegrityError), engine.begin() as connection:
            replace_rows(connection, runs, {"day": DAY}, [{"day": DAY}])
