"""Landing → raw: what a good day becomes, and that repeating, replacing and removing files changes nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from adloom.errors import AdloomError
from adloom.settings import user_id_key
from adloom.shop import Shop
from adloom.warehouse import reading
from adloom.warehouse.contract import FORMATS, TABLES
from adloom.warehouse.loading import GONE, ingest

DAY = date(2024, 3, 1)
NEXT = date(2024, 3, 2)
EVERYTHING = "select * exclude (source_file, source_line) from raw.ad_events order by all"
LEDGER = "select * exclude (mtime_ns, loaded_at) from adloom.landing_files order by all"

FULL_ROW = {
    "event_id": "e1",
    "event_type": "impression",
    "occurred_at": "2024-03-01T19:30:00.123456+09:00",
    "creative_id": '红,色"的\n裙子',
    "impression_id": "e1",
    "user_id": "用户 1",
    "segment_id": "s1",
    "plan_id": "p1",
    "campaign_id": "spring",
    "policy_id": "bts",
    "channel": "home",
    "position": "1",
    "propensity": 0.25,
    "value": 0,
    "cost": 0.001,
    "currency": "CNY",
    "user_agent": 'Mozilla/5.0 (X11; "Linux")',
    "ip_prefix": "10.0.0",
    "campaign_note": "keep me",
}


def test_every_contract_table_exists_after_the_first_ingest(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression()])
    ingest(shop, DAY)
    found = raw(shop, "select table_name from information_schema.tables where table_schema = 'raw' order by 1")
    assert [name for (name,) in found] == sorted(TABLES)


def hash_of(key: bytes, user: str) -> str:
    """HMAC by the standard library, as a shop's ad server would compute it."""
    return base64.urlsafe_b64encode(hmac.digest(key, user.encode(), hashlib.sha256)[:9]).decode()


@pytest.mark.parametrize("ending", FORMATS)
def test_all_five_formats_give_the_same_raw_rows(make_shop: Any, put: Any, raw: Any, ending: str) -> None:
    shop = make_shop()
    bare = {"event_id": "e2", "event_type": "click", "occurred_at": "2024-03-01T10:31:00Z", "impression_id": "e1"}
    put(shop, f"events{ending}", [FULL_ROW, bare])
    report = ingest(shop, DAY)
    key = user_id_key()
    expected_hash = hash_of(key, "用户 1")
    rows = raw(
        shop,
        "select event_id, occurred_at, creative_id, user_hash, position, propensity, cost::varchar, user_agent, "
        "extra::varchar, known_date, source_file from raw.ad_events order by event_id",
    )
    assert rows == [
        (
            "e1", datetime(2024, 3, 1, 10, 30, 0, 123456), '红,色"的\n裙子', expected_hash, "1", 0.25, "0.001000",
            'Mozilla/5.0 (X11; "Linux")', '{"campaign_note":"keep me"}', DAY, f"events{ending}",
        ),
        ("e2", datetime(2024, 3, 1, 10, 31), None, None, None, None, None, None, None, DAY, f"events{ending}"),
    ]  # fmt: skip
    assert report.days[0].unknown_columns == {"ad_events": ("campaign_note",)}
    assert report.days[0].rows_rejected == 0


def test_lines_point_into_the_file(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    rows = [impression("e1"), impression("e2", creative_id="two\nlines"), impression("e3")]
    put(shop, "a.csv", rows)
    put(shop, "b.jsonl", "\n".join(["", *(f'{{"event_id": "j{i}", "event_type": "click", "impression_id": "e1", '
                                          '"occurred_at": "2024-03-01T11:00:00Z"}' for i in (1, 2))]))  # fmt: skip
    put(shop, "c.parquet", [impression("p1")])
    ingest(shop, DAY)
    lines = raw(shop, "select event_id, source_line from raw.ad_events order by 1")
    assert lines == [("e1", 2), ("e2", 3), ("e3", 5), ("j1", 2), ("j2", 3), ("p1", 1)]


def test_every_table_takes_a_row_and_keeps_its_types(make_shop: Any, put: Any, raw: Any) -> None:
    shop = make_shop()
    put(shop, "b.jsonl", [{"event_id": "b1", "user_id": "u1", "behaviour": "purchase", "price": "9.90", "quantity": 2,
                           "occurred_at": "2024-03-01T10:00:00+08:00"}], table="behaviours")  # fmt: skip
    put(shop, "u.jsonl", [{"user_id": "u1", "interest_tags": ["tea", "hats"], "personalisation": "off", "city": "X"}],
        table="users")  # fmt: skip
    put(shop, "i.jsonl", [{"item_id": "i1", "attributes": {"colour": "red"}, "stock": 3, "price": 5}], table="items")
    put(shop, "c.csv", [{"campaign_id": "k", "scenario": "promotion", "starts_at": "2024-04-01T00:00:00Z"}],
        table="campaigns")  # fmt: skip
    put(shop, "h.csv", [{"event_id": "h", "title": "Festival"}], table="hot_events")
    put(shop, "p.csv", [{"user_id": "u1", "kind": "erase", "requested_at": "2024-03-01T00:00:00Z"}],
        table="privacy_requests")  # fmt: skip
    assert ingest(shop, DAY).rows_loaded == 6
    assert raw(shop, "select quantity, price::varchar from raw.behaviours") == [(2, "9.900000")]
    assert raw(shop, "select interest_tags, personalisation, extra::varchar from raw.users") == [
        ('["tea","hats"]', False, '{"city":"X"}')
    ]
    assert raw(shop, "select attributes->>'colour', stock from raw.items") == [("red", 3)]
    assert raw(shop, "select starts_at from raw.campaigns") == [(datetime(2024, 4, 1),)]


def test_the_sql_hmac_is_pythons_hmac(adloom_home: Any) -> None:
    import duckdb

    with duckdb.connect() as connection:
        for key in (b"k", b"x" * 64, b"y" * 65, bytes(range(256))):
            reading.bind_user_key(connection.execute, key)
            for user in ("u1", "", "用户", "a'b\"c", "z" * 300):
                found = connection.execute("select user_hash($user)", {"user": user}).fetchone()
                assert found == (hash_of(key, user),)


@pytest.mark.parametrize("big", ["a.parquet", "a.csv", "a.csv.gz", "a.jsonl"])
def test_a_big_file_hashes_each_user_once_and_the_same(
    *, make_shop: Any, put: Any, raw: Any, monkeypatch: pytest.MonkeyPatch, impression: Any, big: str
) -> None:
    shop = make_shop()
    monkeypatch.setattr(reading, "MANY_ROWS", 4)
    users = ["u1", "u2", None, ""]
    put(shop, big, [impression(f"e{i}", user_id=users[i % 4]) for i in range(40)])
    put(shop, "b.csv", [impression("small", user_id="u2")])
    ingest(shop, DAY)
    counts = dict(raw(shop, "select user_hash, count(*) from raw.ad_events group by 1"))
    expected = {user: hash_of(user_id_key(), user) for user in ("u1", "u2")}
    assert counts == {expected["u1"]: 10, expected["u2"]: 11, None: 20}


def test_the_key_and_user_ids_reach_no_log_no_error_and_no_file(
    *, make_shop: Any, put: Any, caplog: pytest.LogCaptureFixture, warehouse_bytes: Any,
    monkeypatch: pytest.MonkeyPatch, impression: Any,
) -> None:  # fmt: skip
    secret = "correct-horse-battery-staple-0123456789"
    monkeypatch.setenv("ADLOOM_USER_ID_KEY", secret)
    shop = make_shop()
    put(shop, "a.csv", [impression(user_id="a-user-id-nobody-may-see")])
    put(shop, "b.jsonl", [impression("e2", user_id="a-user-id-nobody-may-see", note="x")])
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "sqlalchemy.engine"):
        ingest(shop, DAY)
    assert "insert into" in caplog.text.lower()  # SQLAlchemy did log its statements
    inner = bytes(byte ^ 0x36 for byte in secret.encode().ljust(64, b"\0"))
    for needle in (secret.encode(), inner, b"a-user-id-nobody-may-see"):
        assert needle not in caplog.text.encode()
        assert not any(needle in content for content in warehouse_bytes(shop))


def test_a_second_ingest_is_a_no_op(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression()])
    assert [day.known_date for day in ingest(shop, DAY).days] == [DAY]
    before = raw(shop, EVERYTHING), raw(shop, LEDGER)
    assert ingest(shop, DAY).days == ()
    assert (raw(shop, EVERYTHING), raw(shop, LEDGER)) == before


def test_an_unchanged_old_file_is_not_read_again(
    make_shop: Any, put: Any, monkeypatch: pytest.MonkeyPatch, impression: Any
) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression()])
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    ingest(shop, DAY)

    def read(*_: Any) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", read)
    assert ingest(shop, DAY).days == ()


def test_a_file_rewritten_at_once_with_the_same_size_is_noticed(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression("e1")])
    stamp = path.stat().st_mtime_ns
    ingest(shop, DAY)
    put(shop, "a.csv", [impression("e9")])
    os.utime(path, ns=(stamp, stamp))  # the file system's clock did not tick in between
    ingest(shop, DAY)
    assert raw(shop, "select event_id from raw.ad_events") == [("e9",)]


def test_a_touched_file_is_hashed_once_and_then_trusted(
    make_shop: Any, put: Any, raw: Any, monkeypatch: pytest.MonkeyPatch, impression: Any
) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression()])
    ingest(shop, DAY)
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    assert ingest(shop, DAY).days == ()
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
    assert ingest(shop, DAY).days == ()


def test_a_file_replaced_on_redelivery_replaces_its_day_only(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression("e1"), impression("e2")])
    put(shop, "b.csv", [impression("e3", occurred_at="2024-03-02T00:00:00Z")], day=NEXT)
    ingest(shop, NEXT)
    put(shop, "a.csv", [impression("e1", creative_id="mended")])
    report = ingest(shop, NEXT)
    assert [day.known_date for day in report.days] == [DAY]
    assert raw(shop, "select event_id, creative_id from raw.ad_events order by 1") == [("e1", "mended"), ("e3", "c1")]


def test_a_removed_file_takes_its_rows_with_it(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression("e1")])
    put(shop, "b.csv", [impression("e2")]).chmod(0o644)
    ingest(shop, DAY)
    (shop.landing / "ad_events" / f"known_date={DAY}" / "b.csv").unlink()
    ingest(shop, DAY)
    assert raw(shop, "select event_id from raw.ad_events") == [("e1",)]
    assert raw(shop, "select source_file from adloom.landing_files") == [("a.csv",)]


def test_a_vanished_folder_deletes_its_rows_and_keeps_what_its_marts_were_built_from(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    import duckdb

    shop = make_shop()
    path = put(shop, "a.csv", [impression()])
    ingest(shop, DAY)
    with duckdb.connect(str(shop.home / "warehouse.duckdb")) as connection:
        connection.execute("update adloom.landing_days set marts_digest = 'built'")
    path.unlink()
    path.parent.rmdir()
    report = ingest(shop, DAY)
    assert [(day.known_date, day.deleted) for day in report.days] == [(DAY, True)]
    assert report.newest_day is None
    assert raw(shop, "select count(*) from raw.ad_events") == [(0,)]
    assert raw(shop, "select manifest_digest, marts_digest from adloom.landing_days") == [(GONE, "built")]
    assert ingest(shop, DAY).days == ()


def test_reloading_keeps_what_the_marts_were_built_from(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    import duckdb

    shop = make_shop()
    put(shop, "a.csv", [impression()])
    ingest(shop, DAY)
    with duckdb.connect(str(shop.home / "warehouse.duckdb")) as connection:
        connection.execute("update adloom.landing_days set marts_digest = 'built'")
    put(shop, "b.csv", [impression("e2")])
    ingest(shop, DAY)
    assert raw(shop, "select marts_digest from adloom.landing_days") == [("built",)]


def test_the_order_of_days_does_not_matter(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    contents = []
    days = [DAY + timedelta(days=offset) for offset in range(3)]
    for number, order in enumerate(([0, 1, 2], [2, 0, 1])):
        shop = make_shop(id=f"shop_{number}")
        for position in order:
            day = days[position]
            put(shop, "a.csv", [impression(f"e{position}", occurred_at=f"{day}T10:00:00Z", user_id="u")], day=day)
            ingest(shop, days[position])
        contents.append((raw(shop, EVERYTHING), raw(shop, LEDGER), raw(shop, "from adloom.landing_days order by all")))
    assert contents[0] == contents[1]


def test_only_days_up_to_the_runs_day_are_read(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression()])
    put(shop, "broken.csv", b"", day=NEXT)
    report = ingest(shop, DAY)
    assert [day.known_date for day in report.days] == [DAY]
    assert report.newest_day == NEXT


def test_work_in_progress_is_ignored(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression()])
    for name in (".hidden.csv", "_SUCCESS", "half.csv.tmp"):
        put(shop, name, b"\xff")
    put(shop, "x.csv", b"\xff", table="_old_events")
    assert ingest(shop, DAY).days[0].files[0].name == "a.csv"
    assert raw(shop, "select count(*) from adloom.landing_files") == [(1,)]


def test_misspelt_folders_are_named(make_shop: Any, put: Any, impression: Any) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression()], table="ad_event")
    with pytest.raises(AdloomError, match="ad_event is not a table"):
        ingest(shop, DAY)
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    (shop.landing / "ad_events" / "known_date=2024-3-1").mkdir(parents=True)
    with pytest.raises(AdloomError, match="known_date=2024-3-1"):
        ingest(shop, DAY)


def test_a_day_ends_where_the_shops_clocks_say(
    make_shop: Callable[..., Shop], put: Any, raw: Any, rejected: Any, impression: Any
) -> None:
    # New York puts its clocks forward on 2024-03-10: the day ends at 04:00 UTC on the 11th, not 05:00.
    shop = make_shop(time_zone="America/New_York", limits={"rejected_share": 1.0})
    day = date(2024, 3, 10)
    times = {
        "last": "2024-03-10T23:59:59.999999-04:00",
        "late": "2024-03-11T04:00:00Z",
        "wrong": "2024-03-11T04:30:00Z",
    }
    put(shop, "a.csv", [impression(name, occurred_at=moment) for name, moment in times.items()], day=day)
    ingest(shop, day)
    assert raw(shop, "select event_id, occurred_at from raw.ad_events") == [
        ("last", datetime(2024, 3, 11, 3, 59, 59, 999999))
    ]
    assert {row["row"]["event_id"] for row in rejected(shop, day=day)} == {"late", "wrong"}


def test_nothing_is_stored_when_a_file_changes_while_it_is_read(
    make_shop: Any, put: Any, raw: Any, monkeypatch: pytest.MonkeyPatch, impression: Any
) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression()])
    read = reading.reader

    def swap(*arguments: Any) -> Any:
        found = read(*arguments)
        path.write_text("event_id\nother\n")
        return found

    monkeypatch.setattr(reading, "reader", swap)
    with pytest.raises(AdloomError, match="changed while it was being loaded"):
        ingest(shop, DAY)
    assert raw(shop, "select count(*) from raw.ad_events") == [(0,)]
    assert raw(shop, "select count(*) from adloom.landing_days") == [(0,)]


def test_parquet_times_with_a_zone_are_instants(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    moment = datetime(2024, 3, 1, 10, 0, 0, 7, tzinfo=UTC)
    put(shop, "a.parquet", [impression(occurred_at=moment)])
    ingest(shop, DAY)
    assert raw(shop, "select occurred_at from raw.ad_events") == [(moment.replace(tzinfo=None),)]
