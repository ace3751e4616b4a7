"""End to end: hand-made raw rows in, hand-computed marts out. Day n is 2024-03-0n, times are UTC."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import pytest

from adloom.errors import AdloomError, UsageError
from adloom.warehouse import dbt as dbt_module
from adloom.warehouse.dbt import build, run_dbt
from adloom.warehouse.engine import warehouse


def _days(report):
    return [known_date.day for known_date in report.known_dates]


def _outcomes(landing):
    return landing.query(
        "select impression_id, click_at, day(click_known_date), conversion_at, day(conversion_known_date), value "
        "from marts.fct_impressions where click_at is not null order by all"
    )


def _clicks(landing):
    return landing.query(
        "select click_id, invalid_reason, day(known_date) "
        "from intermediate.int_clicks__linked order by click_id, known_date"
    )


def _conversions(landing):
    return landing.query(
        "select conversion_id, uncounted_reason, click_id, day(known_date) "
        "from intermediate.int_conversions__attributed order by conversion_id, known_date"
    )


def _increments(landing, day=99):
    return landing.query(
        "select sum(impressions), sum(clicks), sum(conversions), sum(conversions_value), sum(cost), "
        "sum(invalid_impressions), sum(invalid_clicks) "
        "from marts.fct_creative_daily where known_date < date '2024-03-01' + cast(:day as integer)",
        day=day,
    )[0]


@pytest.fixture
def week(facts):
    """Two days of one small shop: every rule once."""
    f = facts
    return {
        1: {
            "ad_events": [
                f.impression("i1", "1 09:00", user_hash="ann", cost=2, campaign_id="spring", segment_id="s1"),
                f.impression("i2", "1 09:05", user_hash="ann", cost=2, creative_id="c2", policy_id="bts"),
                f.impression("i3", "1 09:06", user_agent="Googlebot/2.1", cost=2),
                f.impression("i1", "1 09:00", user_hash="ann", cost=2),  # i1 again: a duplicate
                f.click("k1", "i1", "1 09:01", cost=5),
                f.click("k2", "i1", "1 09:02", cost=5),  # second click on i1
                f.click("k3", "i3", "1 09:07"),  # on an invalid impression
                f.click("k4", "i2", "1 09:00"),  # before its impression
                f.click("k5", "i9", "1 23:00"),  # its impression comes on day 2
                f.conversion("v1", "1 10:00", impression_id="i1"),
                f.conversion("v2", "1 11:00", user_hash="ann"),  # the same click once more
            ],
            "behaviours": [
                {"event_id": "b1", "user_hash": "ann", "behaviour": "purchase", "occurred_at": f.at("1 08:00")}
                | {"item_id": "tea", "quantity": 2, "price": "1.25"},
                {"event_id": "b2", "user_hash": "ann", "behaviour": "purchase", "occurred_at": f.at("1 20:00")}
                | {"item_id": "tea", "quantity": 1, "price": "1.50"},
                {"event_id": "b1", "user_hash": "ann", "behaviour": "purchase", "occurred_at": f.at("1 08:00")}
                | {"item_id": "tea", "quantity": 2, "price": "1.25"},
                {"event_id": "b3", "user_hash": "bob", "behaviour": "search", "occurred_at": f.at("1 21:00")}
                | {"query": "tea pot"},
            ],
            "items": [{"item_id": "tea", "title": "Tea", "price": 1}, {"item_id": "tea", "title": "Green tea"}],
            "users": [
                {"user_hash": "ann", "age_band": "25-34", "personalisation": True},
                {"user_hash": "bob", "age_band": "13-17", "personalisation": True},
                {"user_hash": "cid", "age_band": "65+", "personalisation": False},
            ],
        },
        2: {
            "ad_events": [
                f.impression("i9", "1 22:59", cost=1, user_hash="dan"),
                f.impression("i2", "1 09:05", cost=9),  # a duplicate from the day before
                f.conversion("v3", "2 12:00", user_hash="dan", value="7.5"),
            ],
            "behaviours": [
                {"event_id": "b2", "user_hash": "ann", "behaviour": "purchase", "occurred_at": f.at("1 20:00")}
                | {"item_id": "tea", "quantity": 1, "price": "1.50"},
            ],
            "privacy_requests": [{"user_hash": "ann", "kind": "opt_out", "requested_at": f.at("2 10:00")}],
        },
    }


def test_two_days_give_the_marts_computed_by_hand(make_landing, week):
    landing = make_landing()
    for day, tables in week.items():
        landing.land(day, **tables)
    report = landing.build(2)
    assert _days(report) == [1, 2]
    first, second = date(2024, 3, 1), date(2024, 3, 2)

    assert landing.query(
        "select impression_id, impression_known_date, is_valid, invalid_reason, segment_id, campaign_id, policy_id, "
        "placement, cost from marts.fct_impressions order by all"
    ) == [
        ("i1", first, True, None, "s1", "spring", "default", "app:1", Decimal(2)),
        ("i2", first, True, None, "all", "none", "bts", "app:1", Decimal(2)),
        ("i3", first, False, "bot_user_agent", "all", "none", "default", "app:1", Decimal(2)),
        ("i9", second, True, None, "all", "none", "default", "app:1", Decimal(1)),
    ]
    assert _clicks(landing) == [
        ("k1", None, 1),
        ("k2", "repeat_click", 1),
        ("k3", "invalid_impression", 1),
        ("k4", "before_impression", 1),
        ("k5", "no_impression", 1),
        ("k5", None, 2),
    ]
    assert _conversions(landing) == [
        ("v1", None, "k1", 1),
        ("v2", "repeat_conversion", "k1", 1),
        ("v3", None, "k5", 2),
    ]
    assert _outcomes(landing) == [
        ("i1", datetime(2024, 3, 1, 9, 1), 1, datetime(2024, 3, 1, 10), 1, Decimal(10)),
        ("i9", datetime(2024, 3, 1, 23), 2, datetime(2024, 3, 2, 12), 2, Decimal("7.5")),
    ]
    # i1 and i2 cost 2 each, the click k1 costs 5; invalid ones cost nothing.
    assert _increments(landing, 1) == (2, 1, 1, 10, 9, 1, 3)
    assert _increments(landing, 2) == (3, 2, 2, Decimal("17.5"), 10, 1, 3)
    assert landing.query(
        "select creative_id, impression_date, click_date, conversion_lag_days, conversions "
        "from marts.fct_creative_daily where conversions > 0 order by known_date"
    ) == [("c1", first, first, 0, 1), ("c1", first, first, 1, 1)]
    assert landing.query("select * from marts.fct_behaviours_daily order by all") == [
        ("ann", "tea", "purchase", first, 2, 3, Decimal("4.0"), first),
        ("bob", None, "search", first, 1, 0, Decimal(0), first),
    ]
    assert landing.query("select item_id, title, known_date from marts.dim_items") == [("tea", "Green tea", first)]
    assert landing.query("select * from marts.dim_creatives order by all") == [
        ("c1", "spring", datetime(2024, 3, 1, 9), first),
        ("c2", "none", datetime(2024, 3, 1, 9, 5), first),
    ]
    assert landing.query("select * from marts.user_segments order by all") == [
        ("ann", "all", first),
        ("ann", "not_personalised", second),
        ("bob", "not_personalised", first),
        ("cid", "not_personalised", first),
    ]
    assert landing.query("select segment_id, users, day(known_date) from marts.dim_segments order by 3, 1") == [
        ("all", 1, 1),
        ("not_personalised", 2, 1),
        ("s1", 0, 1),
        ("all", 0, 2),
        ("not_personalised", 3, 2),
    ]
    assert report.rows["fct_impressions"] == 4


def test_any_order_of_loading_and_building_gives_the_same_rows(make_landing, week):
    at_once = make_landing(id="at_once")
    for day, tables in week.items():
        at_once.land(day, **tables)
    assert _days(at_once.build(2)) == [1, 2]
    assert _days(at_once.build(2)) == []

    filled = make_landing(id="filled")
    filled.land(2, **week[2])
    assert _days(filled.build(2)) == [2]
    filled.land(1, **week[1])
    assert _days(filled.build(2)) == [1, 2]
    assert filled.marts() == at_once.marts()
    for table in ("int_clicks__linked", "int_conversions__attributed", "int_users__segmented"):
        sql = f"select * from intermediate.{table} order by all"  # noqa: S608
        assert filled.query(sql) == at_once.query(sql)


def test_what_becomes_known_later_changes_nothing_as_of_an_earlier_day(make_landing, week, facts):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.build(1)
    before = landing.marts(1)
    planted = [
        facts.impression("i1", "1 08:00", creative_id="planted"),
        facts.click("k0", "i2", "1 09:10"),
        facts.conversion("v0", "1 09:30", impression_id="i1", value=1000),
    ]
    landing.land(2, ad_events=planted, users=[{"user_hash": "ann", "personalisation": False}])
    assert _days(landing.build(2)) == [2]
    assert _days(landing.build(1)) == []
    after = landing.marts(1)
    # The view shows outcomes known later beside their known_date; a reader as of day 1 leaves them out.
    as_of_one = "case when click_known_date <= date '2024-03-01' then click_at end, "
    as_of_one += "case when conversion_known_date <= date '2024-03-01' then value end"
    assert landing.query(
        f"select impression_id, {as_of_one} from marts.fct_impressions "  # noqa: S608
        "where impression_known_date <= date '2024-03-01' order by all"
    ) == [("i1", datetime(2024, 3, 1, 9, 1), Decimal(10)), ("i2", None, None), ("i3", None, None)]
    del before["fct_impressions"], after["fct_impressions"]
    assert before == after


def test_an_empty_or_vanished_known_date_leaves_no_rows(make_landing, week):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.land(2, **week[2])
    landing.land(3, ad_events=week[2]["ad_events"])
    landing.build(3)
    landing.land(1)
    landing.vanish(2)
    landing.vanish(3, without_trace=True)
    assert _days(landing.build(3)) == [1, 2, 3]
    assert not any(rows for rows in landing.marts().values())
    assert _days(landing.build(3)) == []


def test_a_vanished_known_date_is_as_if_it_had_never_been(make_landing, week):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.build(1)
    never = landing.query("select * from adloom.landing_days")
    landing.land(2, **week[2])
    landing.build(2)
    landing.vanish(2)
    landing.build(2)
    assert landing.query("select * from adloom.landing_days") == never


def test_a_known_date_that_a_run_beside_this_one_has_built_is_not_built_again(make_landing, week, monkeypatch):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.land(2, **week[2])
    # The other run comes between this one's look at what is stale and its first build.
    with warehouse(landing.shop) as engine, engine.connect() as connection:
        stale = dbt_module._stale_known_dates(connection, landing.shop, date(2024, 3, 2))
    build(landing.shop, date(2024, 3, 1))
    monkeypatch.setattr(dbt_module, "_stale_known_dates", lambda *_: stale)
    assert _days(build(landing.shop, date(2024, 3, 2))) == [2]


def test_an_earlier_delivery_filled_late_stands_before_later_known_dates_are_built_again(make_landing, facts):
    f = facts
    landing = make_landing()
    shown = f.impression("i1", "1 09:00")
    landing.land(1, ad_events=[shown])
    landing.land(3, ad_events=[f.click("k3", "i1", "3 09:00"), f.conversion("v3", "3 10:00", impression_id="i1")])
    landing.build(3)
    landing.land(1, ad_events=[shown, f.click("k1", "i1", "1 10:00")])
    landing.land(2, ad_events=[f.conversion("v2", "2 10:00", impression_id="i1")])
    landing.build(2)
    at = datetime(2024, 3, 1, 10)
    assert _outcomes(landing) == [("i1", at, 1, datetime(2024, 3, 2, 10), 2, Decimal(10))]
    landing.build(3)
    assert _outcomes(landing) == [("i1", at, 1, datetime(2024, 3, 2, 10), 2, Decimal(10))]


def test_an_impression_id_that_comes_again_after_the_lookback_is_clicked_anew(make_landing, facts):
    f = facts
    landing = make_landing(lookback_days=7)
    landing.land(1, ad_events=[f.impression("i1", "1 09:00")])
    landing.land(8, ad_events=[f.click("k1", "i1", "2 09:00")])
    landing.land(9, ad_events=[f.impression("i1", "9 09:00"), f.click("k2", "i1", "9 10:00")])
    landing.build(9)
    assert _clicks(landing) == [("k1", None, 8), ("k2", None, 9)]


def test_of_two_requests_of_one_instant_the_one_known_later_counts(make_landing, facts):
    landing = make_landing()
    for day, kind in enumerate(("opt_out", "opt_in"), start=1):
        landing.land(day, privacy_requests=[{"user_hash": "ann", "kind": kind, "requested_at": facts.at("1 08:00")}])
    landing.build(2)
    assert landing.query("select segment_id, day(known_date) from marts.user_segments order by known_date") == [
        ("not_personalised", 1),
        ("all", 2),
    ]


def test_a_build_killed_half_way_is_repaired(make_landing, week, monkeypatch):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.build(1)
    clean = landing.marts()
    landing.land(1, ad_events=week[2]["ad_events"])

    def killed(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adloom.warehouse.dbt._rows_of", killed)
        with pytest.raises(KeyboardInterrupt):
            landing.build(1)
    landing.land(1, **week[1])  # the delivery is taken back: its digest is the one that was built before
    assert _days(landing.build(1)) == [1]
    assert landing.marts() == clean


def test_a_changed_shop_setting_rebuilds(make_landing, week):
    landing = make_landing()
    landing.land(1, **week[1])
    landing.build(1)
    changed = landing.shop.model_copy(update={"bot_user_agents": "nothing's like this"})
    assert build(changed, date(2024, 3, 1)).known_dates == [date(2024, 3, 1)]
    assert landing.query("select count(*) from marts.fct_impressions where not is_valid") == [(0,)]


def test_attribution_is_decided_once_and_within_the_window(make_landing, facts):
    """v1 has no click until day 2; the earlier click that becomes known on day 3 does not take it over."""
    f = facts
    landing = make_landing()
    landing.land(
        1,
        ad_events=[
            f.impression("i1", "1 08:00", user_hash="ann"),
            f.impression("i2", "1 08:00", user_hash="ann"),
            f.conversion("v1", "1 12:00", user_hash="ann"),
            f.conversion("v2", "1 13:00", impression_id="i2"),
        ],
    )
    landing.land(2, ad_events=[f.click("k1", "i1", "1 09:00")])
    landing.land(3, ad_events=[f.click("k2", "i2", "1 11:00")])
    landing.build(3)
    assert _conversions(landing) == [
        ("v1", "no_click", None, 1),
        ("v1", None, "k1", 2),
        ("v2", "no_click", None, 1),
        ("v2", None, "k2", 3),
    ]


def test_attribution_takes_the_last_valid_click_within_the_window(make_landing, facts):
    f = facts
    landing = make_landing()
    events = [
        f.impression("i1", "1 08:00", user_hash="ann"),
        f.impression("i2", "1 08:00", user_hash="ann"),
        f.impression("i3", "1 08:00", user_hash="ann"),
        f.click("k1", "i1", "1 09:00"),
        f.click("k2", "i2", "1 10:00"),
        f.click("k3", "i3", "1 11:00", user_agent="some crawler"),
    ]
    landing.land(1, ad_events=events)
    landing.land(
        8,
        ad_events=[
            f.conversion("v1", "1 10:00", user_hash="ann"),  # at the instant of the click
            f.conversion("v2", "8 09:00", impression_id="i1"),  # exactly seven days later
            f.conversion("v3", "8 10:00:01", user_hash="ann"),  # a second too late
            f.conversion("v4", "1 08:59", impression_id="i1"),  # before the click
        ],
    )
    landing.build(8)
    assert _conversions(landing) == [
        ("v1", None, "k2", 8),
        ("v2", None, "k1", 8),
        ("v3", "no_click", None, 8),
        ("v4", "no_click", None, 8),
    ]


def test_invalid_traffic_and_duplicates_across_days(make_landing, facts):
    f = facts
    landing = make_landing(limits={"impressions_per_user_day": 2})
    landing.land(
        1,
        ad_events=[
            *(f.impression(f"a{hour}", f"1 0{hour}:00", user_hash="ann") for hour in (3, 1, 2)),
            *(f.impression(f"n{number}", "1 05:00") for number in range(4)),  # no user, no limit
        ],
    )
    # a0 happened first but becomes known when two are counted already: what was decided stays.
    landing.land(2, ad_events=[f.impression("a0", "1 00:30", user_hash="ann"), f.impression("n1", "1 05:00")])
    landing.land(
        9,
        ad_events=[
            f.impression("n2", "1 05:00"),  # beyond the look-back of seven days: it counts again
            f.impression("d", "9 08:00", source_file="b.csv"),
            f.impression("d", "9 09:00", source_file="a.csv"),
        ],
    )
    landing.build(9)
    assert landing.query(
        "select impression_id, invalid_reason from marts.fct_impressions where user_hash is not null order by all"
    ) == [("a0", "too_many_impressions"), ("a1", None), ("a2", None), ("a3", "too_many_impressions")]
    assert landing.query(
        "select source_file, source_line, repeated_key, day(known_date) "
        "from intermediate.int_ad_events__duplicates order by known_date"
    ) == [("part.csv", 2, "event_id", 2), ("b.csv", 2, "event_id", 9)]
    assert landing.query("select sum(impressions), sum(invalid_impressions) from marts.fct_creative_daily") == [(8, 2)]


def test_days_without_clicks_or_without_anything(make_landing, facts):
    landing = make_landing()
    landing.land(1, ad_events=[facts.impression("i1", "1 08:00")])
    landing.land(2)
    report = landing.build(2)
    assert _days(report) == [1, 2]
    assert _increments(landing) == (1, 0, 0, 0, 0, 0, 0)
    assert landing.query("select click_at, conversion_at, value from marts.fct_impressions") == [(None, None, None)]
    assert landing.query("select users from marts.dim_segments") == [(None,)]


def test_local_dates_where_clocks_change(make_landing, facts):
    """New York springs forward on 2024-03-10: its day lasts from 05:00 UTC to 04:00 UTC of the next."""
    f = facts
    landing = make_landing(time_zone="America/New_York")
    landing.land(
        10,
        ad_events=[
            f.impression("i1", "10 04:59:59"),
            f.impression("i2", "10 05:00"),
            f.impression("i3", "11 03:59:59", creative_id="c2"),
            f.impression("i4", "11 04:00", creative_id="c2"),
            f.impression("i5", "10 12:00", creative_id="c2"),
            f.impression("i6", "3 04:30"),
            f.click("k6", "i6", "3 04:30"),  # 23:30 on the 2nd; 168 hours later it is 00:30 on the 10th
            f.conversion("v6", "10 04:30", impression_id="i6"),
        ],
    )
    landing.build(10)
    assert landing.query("select impression_id, day(impression_date) from marts.fct_impressions order by all") == [
        ("i1", 9),
        ("i2", 10),
        ("i3", 10),
        ("i4", 11),
        ("i5", 10),
        ("i6", 2),
    ]
    assert landing.query("select conversion_lag_days from marts.fct_creative_daily where conversions > 0") == [(7,)]


def test_a_failing_model_and_a_failing_test_are_named(make_landing, facts):
    landing = make_landing()
    landing.land(1, ad_events=[facts.impression("i1", "1 08:00", creative_id=None)])
    with pytest.raises(AdloomError, match=r"model int_impressions__flagged: .*creative_id") as caught:
        landing.build(1)
    assert "dbt.log" in caught.value.next_step
    landing.land(1, ad_events=[facts.impression("i1", "1 08:00")])
    landing.build(1)
    with warehouse(landing.shop) as engine, engine.begin() as connection:
        connection.exec_driver_sql("insert into marts.fct_creative_daily select * from marts.fct_creative_daily")
    with pytest.raises(AdloomError, match=r"test unique_key_fct_creative_daily\S*: 1 failing rows"):
        run_dbt(landing.shop, date(2024, 3, 1), select="fct_creative_daily", command="test")


def test_a_selection_that_matches_nothing_is_an_error(make_landing):
    landing = make_landing()
    with pytest.raises(AdloomError, match="matches nothing"):
        run_dbt(landing.shop, date(2024, 3, 1), select="no_such_model")


def test_a_warehouse_in_memory_is_refused(make_shop):
    shop = make_shop(warehouse_url="duckdb:///:memory:")
    with pytest.raises(UsageError, match="needs a file"):
        run_dbt(shop, date(2024, 3, 1))
