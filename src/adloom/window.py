"""The day of a run: which instants it covers in the shop's time zone. Nothing here asks the clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from adloom.errors import UsageError


@dataclass(frozen=True)
class Window:
    """``[start, end)`` of one local calendar day, as UTC instants; 23 or 25 hours long when clocks change."""

    day: date
    start: datetime
    end: datetime


def day_window(day: date, time_zone: str) -> Window:
    """The instants of ``day`` in ``time_zone``."""
    zone = ZoneInfo(time_zone)
    start = datetime.combine(day, time.min, zone).astimezone(UTC)
    end = datetime.combine(day + timedelta(days=1), time.min, zone).astimezone(UTC)
    return Window(day, start, end)


def parse_day(text: str) -> date:
    """``YYYY-MM-DD`` → date, or a `UsageError` that shows the form."""
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a day", "write it as YYYY-MM-DD, for example 2019-11-24") from error


def days_between(first: date, last: date) -> Iterator[date]:
    """Every day from ``first`` to ``last``, both included; an error if they are the wrong way round."""
    if first > last:
        raise UsageError(f"the range starts on {first} and ends on {last}", "give --from before --to")
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def years_later(day: date, years: int) -> date:
    """The same date so many years on; the end of February stays the end of February."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return day.replace(year=day.year + years, day=28)


def run_day(
    params: Mapping[str, Any],
    partition_key: str | None,
    data_interval_start: datetime | None,
    time_zone: str,
) -> date:
    """Which day an orchestrator's run is for: ``params.day``, else its partition key, else its data interval.

    A manual run of a scheduler carries the interval of the day before or none at all, so it must name its day.
    """
    if params.get("day"):
        return parse_day(str(params["day"]))
    if partition_key:
        return parse_day(partition_key[:10])
    if data_interval_start is not None:
        return data_interval_start.astimezone(ZoneInfo(time_zone)).date()
    raise UsageError("this run has no day", "trigger it with the parameter day=YYYY-MM-DD")
