"""A day is the shop's local calendar day, 23 or 25 hours long when clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from adloom.errors import UsageError
from adloom.window import day_window, days_between, run_day


@pytest.mark.parametrize(
    ("day", "zone", "start", "hours"),
    [
        (date(2024, 3, 10), "America/New_York", datetime(2024, 3, 10, 5, tzinfo=UTC), 23),
        (date(2024, 11, 3), "America/New_York", datetime(2024, 11, 3, 4, tzinfo=UTC), 25),
        (date(2024, 11, 11), "Asia/Shanghai", datetime(2024, 11, 10, 16, tzinfo=UTC), 24),
        (date(2018, 11, 4), "America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC), 23),  # midnight does not exist
    ],
)
def test_a_day_in_its_zone(day: date, zone: str, start: datetime, hours: int) -> None:
    window = day_window(day, zone)
    assert window.start == start
    assert (window.end - window.start).total_seconds() == hours * 3600


def test_the_day_of_a_run_is_named_or_refused() -> None:
    midnight_in_shanghai = datetime(2024, 11, 10, 16, tzinfo=UTC)
    assert run_day({"day": "2024-11-01"}, "2024-11-02", midnight_in_shanghai, "Asia/Shanghai") == date(2024, 11, 1)
    assert run_day({"day": None}, "2024-11-02", midnight_in_shanghai, "Asia/Shanghai") == date(2024, 11, 2)
    assert run_day({}, None, midnight_in_shanghai, "Asia/Shanghai") == date(2024, 11, 11)
    with pytest.raises(UsageError, match="day=YYYY-MM-DD"):
        run_day({}, None, None, "Asia/Shanghai")


def test_a_range_the_wrong_way_round_is_an_error() -> None:
    assert list(days_between(date(2024, 2, 28), date(2024, 3, 1))) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]
    with pytest.raises(UsageError, match="starts on"):
        list(days_between(date(2024, 3, 2), date(2024, 3, 1)))
