"""The gate: what it stores, shows and stops; what it does with little history, empty days and broken checks."""

# ruff: noqa: S608 -- the statements that spoil a world are put together from this file's own names

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import date
from subprocess import run

import pytest

from adloom.errors import AdloomError, GateFailed, UsageError
from adloom.quality import gate

TODAY = "known_date = date '2024-03-06'"
STORED = (
    "select door, check_id, severity, is_passed, rows_checked, rows_unexpected, observed, expected "
    "from adloom.quality_results where day = date '2024-03-06' order by door, check_id"
)


def test_results_are_stored_and_replaced_on_a_rerun(world):
    gate.check(world.shop, world.day, "raw")
    gate.check(world.shop, world.day, "marts")
    once = world.rows(STORED)
    gate.check(world.shop, world.day, "raw")
    assert world.rows(STORED) == once
    assert {row[0] for row in once} == {"raw", "marts"}
    # A check that is no longer in the suite leaves no row behind.
    world.do(f"delete from raw.hot_events where {TODAY}")
    world.relist()
    gate.check(world.shop, world.day, "raw")
    assert not [row for row in world.rows(STORED) if row[1].startswith("hot_events")]
    assert [row for row in world.rows(STORED) if row[0] == "marts"] == [row for row in once if row[0] == "marts"]


def test_a_warning_opens_the_door_and_says_so(world, caplog):
    caplog.set_level(logging.INFO, logger="adloom")
    world.do(f"insert into raw.users select * from raw.users where {TODAY} and user_hash = 'u1'")
    world.relist()
    report = gate.check(world.shop, world.day, "raw")
    assert report.is_open
    assert [(one.check.id, one.observed) for one in report.having("warned")] == [
        ("users.user_hash.unique", "1 repeated among 41 rows")
    ]
    assert "1 repeated among 41 rows" in caplog.text
    assert "0 failed, 1 warned" in caplog.text


def test_a_failure_names_check_observed_expected_and_next_step(world):
    world.do(f"update raw.ad_events set propensity = 1.5 where {TODAY} and source_line = 7")
    with pytest.raises(GateFailed) as caught:
        gate.check(world.shop, world.day, "raw")
    assert "raw door stays shut on 2024-03-06" in caught.value.message
    assert "ad_events.propensity.probability: 1 of 444 rows, such as 1.5" in caught.value.message
    assert "above 0 and at most 1" in caught.value.message
    assert "ad server" in caught.value.next_step
    assert ("raw", "ad_events.propensity.probability", "fail", False, 444, 1) in [row[:6] for row in world.rows(STORED)]


def test_a_day_without_a_folder_is_named(world):
    world.day = date(2024, 3, 7)
    with pytest.raises(GateFailed, match=r"no landing for 2024-03-07.*known_date=2024-03-07"):
        gate.check(world.shop, world.day, "raw")


def test_an_empty_day_is_a_warning(world):
    world.do(
        "insert into adloom.landing_days (known_date, manifest_digest) values (date '2024-03-07', 'm')",
    )
    world.day = date(2024, 3, 7)
    report = gate.check(world.shop, world.day, "raw")
    assert {one.check.id for one in report.having("warned")} == {
        "landing.rows.some",
        "ad_events.rows.volume_warn",
        "behaviours.rows.volume_warn",
    }


@pytest.mark.parametrize("kept", ["ad_events", "behaviours"])
def test_a_shop_may_have_one_kind_of_event_only(world, kept):
    for name in {"ad_events", "behaviours", "users", "items", "campaigns", "hot_events", "privacy_requests"} - {kept}:
        world.do(f"delete from raw.{name}")
    world.relist()
    report = gate.check(world.shop, world.day, "raw")
    assert {one.check.table for one in report.results} == {"landing", kept}
    assert not report.having("warned")


def test_with_little_history_a_comparison_is_skipped_with_its_reason(world):
    world.day = date(2024, 3, 3)
    raw = gate.check(world.shop, world.day, "raw")
    assert {one.check.id: one.observed for one in raw.having("skipped")} == {
        **{
            f"{name}.rows.volume_{severity}": "2 of the 3 days of history it needs"
            for name in ("ad_events", "behaviours", "users", "items")
            for severity in ("warn", "fail")
        },
        "ad_events.user_hash.usual": "2 of the 3 days of history it needs",
    }
    marts = gate.check(world.shop, world.day, "marts")
    assert {one.check.id for one in marts.having("skipped")} == {
        "fct_creative_daily.ctr.usual_warn",
        "fct_creative_daily.ctr.usual_fail",
        "fct_creative_daily.invalid_impressions.usual",
    }
    assert world.rows(
        "select observed, is_passed from adloom.quality_results where check_id = 'items.rows.volume_fail'"
    ) == [("skipped: 2 of the 3 days of history it needs", True)]


def test_what_is_usual_is_the_shops_median_and_the_limits_are_its_own(make_world: Callable):
    world = make_world(limits={"volume_ratio_warn": 1.05})
    # One wild day of the past moves no median; 427 of 444 rows is within 1.05, 420 is not.
    world.do("delete from raw.ad_events where known_date = date '2024-03-02' and source_line > 5")
    world.do(f"delete from raw.ad_events where {TODAY} and event_type = 'impression' and source_line >= 383")
    world.relist()
    assert world.knock("raw")["ad_events.rows.volume_warn"] == (True, "427 rows, usually 444 (× 0.96)")
    world.do(f"delete from raw.ad_events where {TODAY} and event_type = 'impression' and source_line >= 376")
    world.relist()
    assert world.knock("raw")["ad_events.rows.volume_warn"] == (False, "420 rows, usually 444 (× 0.95)")


def test_what_is_known_later_changes_nothing(world):
    for door in ("raw", "marts"):
        world.knock(door)
    before = world.rows(STORED)
    later = "date '2024-03-07'"
    for table in ("raw.ad_events", "raw.behaviours", "raw.users", "marts.fct_creative_daily"):
        world.do(f"insert into {table} select * replace ({later} as known_date) from {table} where {TODAY}")
    world.do(
        f"insert into marts.user_segments values ('late', {later}, 'all')",
        f"insert into adloom.landing_days (known_date, manifest_digest) values ({later}, 'm')",
        f"insert into marts.fct_impressions select * replace ({later} as impression_known_date) "
        "from marts.fct_impressions where impression_known_date = date '2024-03-06'",
    )
    world.relist()
    for door in ("raw", "marts"):
        world.knock(door)
    assert world.rows(STORED) == before


def test_hostile_values_are_data(world):
    hostile = "x'; drop table raw.users; -- [bold] {batch} $HOME %s :day"
    with world.open() as connection:
        connection.execute(
            f"update raw.ad_events set event_type = $1, creative_id = $1 where {TODAY} and source_line = 1", [hostile]
        )
    is_passed, observed = world.knock("raw")["ad_events.event_type.in_set"]
    assert not is_passed
    assert observed == "1 of 444 rows, such as x'; drop table raw.users; -- [bold] {ba…"
    assert world.rows("select count(*) from raw.users") == [(240,)]


def test_a_check_that_cannot_be_evaluated_is_red(world):
    world.do("alter table raw.ad_events drop propensity", "drop table marts.dim_segments")
    found = world.knock("raw")
    is_passed, observed = found["ad_events.propensity.probability"]
    assert not is_passed
    assert "could not be evaluated" in observed
    assert "propensity" in observed
    is_passed, observed = world.knock("marts")["dim_segments.users.as_members"]
    assert not is_passed
    assert "dim_segments does not exist" in observed


def test_an_expectation_that_raises_is_red(world, monkeypatch):
    from great_expectations.expectations import ExpectColumnValuesToBeInSet

    def explode(*_args, **_kwargs):
        raise ZeroDivisionError("a planted fault")

    monkeypatch.setattr(ExpectColumnValuesToBeInSet, "_validate", explode)
    found = world.knock("raw")
    red = {check_id: observed for check_id, (is_passed, observed) in found.items() if not is_passed}
    assert red == dict.fromkeys(
        ("ad_events.event_type.in_set", "behaviours.behaviour.in_set", "privacy_requests.kind.in_set"),
        "could not be evaluated: a planted fault",
    )


def test_wrong_use_is_said(world, make_shop):
    with pytest.raises(UsageError, match="there is no door 'side'"):
        gate.check(world.shop, world.day, "side")
    with pytest.raises(AdloomError, match="ingest"):
        gate.check(make_shop(id="new_shop"), world.day, "raw")


def test_importing_the_gate_does_not_import_great_expectations():
    code = "import sys, adloom.quality.gate; sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
