"""Bad input, one test for each way a delivery can be wrong."""

from __future__ import annotations

import gzip
import os
from datetime import date, datetime
from typing import Any

import pytest

from adloom.errors import GateFailed
from adloom.shop import Shop
from adloom.warehouse.loading import ingest

DAY = date(2024, 3, 1)
NEXT = date(2024, 3, 2)
HEADER = "event_id,event_type,occurred_at,creative_id,impression_id\n"
IDS = "select event_id from raw.ad_events order by all"


def line(event_id: str, **changes: str) -> str:
    values = {"type": "impression", "at": "2024-03-01T10:00:00Z", "creative": "c1", "impression": event_id} | changes
    return f"{event_id},{values['type']},{values['at']},{values['creative']},{values['impression']}\n"


def reasons(rejected: Any, shop: Shop, **where: Any) -> list[tuple[int | None, str]]:
    return [(row["line"], row["reason"]) for row in rejected(shop, **where)]


# Whole files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.csv.gz", "truncated", "is a truncated gzip file"),
        ("cut.jsonl.gz", "truncated", "is a truncated gzip file"),
        ("junk.csv.gz", b"no gzip at all", "is a damaged gzip file"),
        ("gbk.csv", (HEADER + line("e1", creative="红")).encode("gbk"), "is not UTF-8"),
        ("utf16.csv", (HEADER + line("e1")).encode("utf-16"), "is not UTF-8"),
        ("gbk.jsonl", '{"event_id": "红"}'.encode("gbk"), "is not UTF-8"),
        ("zero.csv", b"", "is empty (0 bytes)"),
        ("zero.jsonl", b"", "is empty (0 bytes)"),
        ("zero.parquet", b"", "is empty (0 bytes)"),
        ("zero.csv.gz", b"", "is empty (0 bytes)"),
        ("nothing.csv.gz", gzip.compress(b"", mtime=0), "holds nothing once unpacked"),
        ("junk.parquet", b"PAR1 this is not it PAR1", "is not readable Parquet"),
        ("cols.csv", "event_id,event_type\ne1,impression\n", "lacks the required column occurred_at"),
        ("semi.csv", HEADER.replace(",", ";"), "lacks the required columns event_id, event_type, occurred_at"),
        ("twice.csv", HEADER.strip() + ",event_id\n", "names a column twice"),
        ("near.csv", HEADER.strip() + ",User_ID\n", "has a column 'User_ID'"),
        ("blank.csv", "\n" + HEADER, "has an empty first line"),
        ("mac.csv", (HEADER + line("e1")).replace("\n", "\r"), "ends its lines with a bare carriage return"),
        ("control.jsonl", b'{"event_id": "e1"}\x01{}\n', "holds the control character U+0001"),
        ("events.xlsx", b"PK", "has an unknown ending"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.count(".") and len(value) < 20 else "",
)
def test_a_file_that_cannot_be_used_stops_the_run_and_says_why(
    *, make_shop: Any, put: Any, rejected: Any, raw: Any, name: str, content: Any, reason: str
) -> None:
    shop = make_shop()
    path = put(shop, name.replace(".gz", ""), b"")
    path.unlink()
    if content == "truncated":
        whole = gzip.compress((HEADER + "".join(line(f"e{i}") for i in range(20_000))).encode(), mtime=0)
        content = whole[: len(whole) // 2]
    path = path.with_name(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(GateFailed) as stopped:
        ingest(shop, DAY)
    assert name in stopped.value.message
    assert reason in stopped.value.message
    assert "take it out of the folder" in stopped.value.next_step
    (kept,) = rejected(shop)
    assert (kept["file"], kept["line"]) == (name, None)
    assert reason in kept["reason"]
    assert raw(shop, "select count(*) from adloom.landing_days") == [(0,)]


def test_a_rejected_file_is_written_down_where_the_shop_goes_on(
    lenient_shop: Shop, put: Any, raw: Any, impression: Any
) -> None:
    put(lenient_shop, "a.csv", [impression()])
    put(lenient_shop, "b.parquet", b"PAR1")
    ingest(lenient_shop, DAY)
    files = raw(lenient_shop, "select source_file, rows_loaded, rejected_reason from adloom.landing_files order by 1")
    assert files[0] == ("a.csv", 1, None)
    assert files[1][2].startswith("is not readable Parquet")


def test_parquet_damaged_inside_is_rejected_whole(lenient_shop: Shop, put: Any, raw: Any, impression: Any) -> None:
    put(lenient_shop, "good.csv", [impression("good")])
    path = put(lenient_shop, "bad.parquet", [impression(f"e{i}", creative_id=os.urandom(8).hex()) for i in range(5000)])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xab" * 400
    path.write_bytes(content)
    report = ingest(lenient_shop, DAY)
    assert [file.rejected_reason is None for file in report.days[0].files] == [False, True]
    assert raw(lenient_shop, IDS) == [("good",)]


def test_parquet_times_without_a_zone_reject_the_file(make_shop: Any, put: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.parquet", [impression(occurred_at=datetime(2024, 3, 1, 10))])
    with pytest.raises(GateFailed, match="says nothing about its offset"):
        ingest(shop, DAY)


def test_a_header_only_csv_and_empty_files_with_a_shape_are_a_quiet_day(make_shop: Any, put: Any, raw: Any) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    shop = make_shop()
    put(shop, "a.csv", HEADER)
    put(shop, "b.csv", HEADER.strip())
    put(shop, "c.jsonl", "\n\n")
    empty = io.BytesIO()
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in HEADER.strip().split(",")}), empty)
    put(shop, "d.parquet", empty.getvalue())
    report = ingest(shop, DAY)
    assert (report.rows_loaded, report.rows_rejected) == (0, 0)
    assert raw(shop, "select known_date from adloom.landing_days") == [(DAY,)]


def test_an_empty_day_is_a_known_day_without_rows(make_shop: Any, raw: Any) -> None:
    shop = make_shop()
    (shop.landing / "ad_events" / f"known_date={DAY}").mkdir(parents=True)
    report = ingest(shop, DAY)
    assert (report.newest_day, report.rows_loaded) == (DAY, 0)
    assert ingest(shop, DAY).days == ()


def test_an_extra_column_is_kept_aside_and_reported(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression(**{"weather; drop table": 'sun"ny', "": "7"})])
    report = ingest(shop, DAY)
    assert report.days[0].unknown_columns == {"ad_events": ("column_7", "weather; drop table")}
    assert raw(shop, "select extra->>'weather; drop table' from raw.ad_events") == [('sun"ny',)]


def test_a_json_key_that_is_nearly_user_id_is_rejected(
    lenient_shop: Shop, put: Any, rejected: Any, impression: Any
) -> None:
    put(lenient_shop, "a.jsonl", [impression(), impression("e2", User_Id="u1")])
    ingest(lenient_shop, DAY)
    assert reasons(rejected, lenient_shop) == [(2, "has a key that differs from the contract only in case or spaces")]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_user_ids_are_not_kept_aside_in_a_table_without_users(
    lenient_shop: Shop, put: Any, raw: Any, rejected: Any, name: str
) -> None:
    put(lenient_shop, name, [{"item_id": "i1", "user_id": "u1"}], table="items")
    ingest(lenient_shop, DAY)
    assert raw(lenient_shop, "select * from raw.items") == []
    [(_, reason)] = reasons(rejected, lenient_shop, table="items")
    assert reason.endswith("but items may not hold user ids")


# Rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_id": ""}, "event_id is missing"),
        ({"event_type": "view"}, "event_type is not one of impression, click, conversion"),
        ({"occurred_at": ""}, "occurred_at is missing"),
        ({"occurred_at": "2024-03-01T10:00:00"}, "occurred_at is not a time in ISO 8601 with an offset"),
        ({"occurred_at": "2024-03-01"}, "occurred_at is not a time in ISO 8601 with an offset"),
        ({"occurred_at": "2024-02-30T10:00:00Z"}, "occurred_at is not a time in ISO 8601 with an offset"),
        ({"occurred_at": "yesterday"}, "occurred_at is not a time in ISO 8601 with an offset"),
        ({"occurred_at": "2024-03-02T00:00:00Z"}, "occurred_at lies after the end of known_date"),
        ({"creative_id": ""}, "an impression needs creative_id"),
        ({"event_type": "click", "impression_id": ""}, "a click needs impression_id"),
        ({"event_type": "conversion", "impression_id": ""}, "a conversion needs impression_id or user_id"),
        ({"propensity": "often"}, "propensity is not a number"),
        ({"propensity": "0"}, "propensity must be above 0 and at most 1"),
        ({"propensity": "1.01"}, "propensity must be above 0 and at most 1"),
        ({"propensity": "nan"}, "propensity must be above 0 and at most 1"),
        ({"cost": "-1"}, "cost must not be negative"),
        ({"value": "12 euros"}, "value is not a number"),
    ],
)
def test_a_row_that_breaks_a_rule_is_kept_apart_with_its_reason(
    *, lenient_shop: Shop, put: Any, raw: Any, rejected: Any, impression: Any, changes: Any, reason: str
) -> None:
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        put(lenient_shop, name, [impression("good"), impression(**{"event_id": "bad"} | changes)])
    report = ingest(lenient_shop, DAY)
    assert (report.rows_loaded, report.rows_rejected) == (3, 3)
    assert raw(lenient_shop, IDS) == [("good",)] * 3
    kept = rejected(lenient_shop)
    assert [(row["file"], row["line"]) for row in kept] == [("a.csv", 3), ("b.jsonl", 2), ("c.parquet", 2)]
    assert {row["reason"] for row in kept} == {reason}
    assert {row["row"]["impression_id"] for row in kept} <= {"bad", "e1", "", None}


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        ("behaviours", {"quantity": "2.5"}, "quantity is not a whole number"),
        ("behaviours", {"quantity": "-1"}, "quantity must be from 0 to 1,000,000,000"),
        ("behaviours", {"quantity": "1000000001"}, "quantity must be from 0 to 1,000,000,000"),
        ("behaviours", {"price": "-0.01"}, "price must not be negative"),
        ("behaviours", {"behaviour": "stare"}, "behaviour is not one of view, search, favourite, cart, purchase"),
        ("behaviours", {"user_id": ""}, "user_id is missing"),
        ("users", {"personalisation": "maybe"}, "personalisation is not on or off"),
        ("items", {"attributes": "{not json"}, "attributes is not JSON"),
        ("items", {"stock": "many"}, "stock is not a whole number"),
        ("privacy_requests", {"kind": "forget"}, "kind is not one of erase, opt_out, opt_in"),
        ("privacy_requests", {"requested_at": "2024-03-05T00:00:00Z"}, "requested_at lies after the end of known_date"),
        ("campaigns", {"starts_at": "soon"}, "starts_at is not a time in ISO 8601 with an offset"),
    ],
)
def test_rules_of_the_other_tables(
    *, lenient_shop: Shop, put: Any, rejected: Any, table: str, row: dict[str, str], reason: str
) -> None:
    good = {
        "behaviours": {"event_id": "b", "user_id": "u", "behaviour": "cart", "occurred_at": "2024-03-01T01:00:00Z"},
        "users": {"user_id": "u"},
        "items": {"item_id": "i"},
        "privacy_requests": {"user_id": "u", "kind": "erase", "requested_at": "2024-03-01T01:00:00Z"},
        "campaigns": {"campaign_id": "c", "scenario": "promotion"},
    }[table]
    put(lenient_shop, "a.csv", [good | row, good], table=table)
    assert ingest(lenient_shop, DAY).rows_loaded == 1
    assert reasons(rejected, lenient_shop, table=table) == [(2, reason)]


def test_wrong_types_of_parquet_reject_the_file_when_nested_and_the_row_when_not(
    lenient_shop: Shop, put: Any, rejected: Any, impression: Any
) -> None:
    put(lenient_shop, "nested.parquet", [impression(creative_id={"id": "c1"})])
    put(lenient_shop, "text.parquet", [impression(cost="cheap")])
    put(lenient_shop, "numbers.parquet", [impression(creative_id=17, position=2)])
    assert ingest(lenient_shop, DAY).rows_loaded == 1
    found = reasons(rejected, lenient_shop)
    assert found[0][0] is None
    assert "in column creative_id, where the contract wants text" in found[0][1]
    assert found[1] == (1, "cost is not a number")


def test_malformed_csv_lines_are_rejected_and_the_rest_kept_with_true_lines(
    lenient_shop: Shop, put: Any, raw: Any, rejected: Any
) -> None:
    content = HEADER + line("e2") + "few,fields\n" + line("e4") + line("e5").strip() + ",too,many\n" + line("e6")
    content += 'e7,impression,"2024-03-01T10:00:00Z"x,c1,\n' + line("e8") + line("e9", type="nonsense")
    put(lenient_shop, "a.csv", content)
    report = ingest(lenient_shop, DAY)
    assert raw(lenient_shop, "select event_id, source_line from raw.ad_events order by all") == [
        ("e2", 2), ("e4", 4), ("e6", 6), ("e8", 8),
    ]  # fmt: skip
    assert reasons(rejected, lenient_shop) == [
        (3, "has too few fields"),
        (5, "has too many fields"),
        (7, "has a quote that is not closed or not doubled"),
        (9, "event_type is not one of impression, click, conversion"),
    ]
    assert report.rows_rejected == 4


def test_an_open_quote_at_the_end_loses_no_line_silently(lenient_shop: Shop, put: Any, raw: Any, rejected: Any) -> None:
    put(
        lenient_shop,
        "a.csv",
        HEADER + line("e1") + 'e2,impression,"2024-03-01T10:00:00Z,c1,\n' + line("e3") + line("e4"),
    )
    report = ingest(lenient_shop, DAY)
    assert raw(lenient_shop, IDS) == [("e1",)]
    assert report.rows_rejected == 3
    ((number, reason),) = reasons(rejected, lenient_shop)
    assert number == 3
    assert reason.startswith("3 lines from about here on were not read")


def test_malformed_json_lines_are_rejected_with_their_text(
    lenient_shop: Shop, put: Any, rejected: Any, impression: Any
) -> None:
    good = '{"event_id": "e1", "event_type": "click", "impression_id": "i", "occurred_at": "2024-03-01T10:00:00Z"}'
    put(lenient_shop, "a.jsonl", "\n".join([good, '{"event_id": ', "[1]", "", '"text"', good]))
    assert ingest(lenient_shop, DAY).rows_loaded == 2
    assert [(row["line"], row["reason"], row["row"]) for row in rejected(lenient_shop)] == [
        (2, "is not a JSON object", '{"event_id": '),
        (3, "is not a JSON object", "[1]"),
        (5, "is not a JSON object", '"text"'),
    ]


def test_blank_lines_are_nothing_at_all(make_shop: Any, put: Any, raw: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", HEADER + "\n" + line("e1") + "\n\n" + line("e2") + "\n")
    put(shop, "u.csv", "user_id\n\nu1\n\n", table="users")
    put(shop, "u.jsonl", '\n{"user_id": "u2"}\n \t\n\r\n', table="users")
    report = ingest(shop, DAY)
    assert (report.rows_loaded, report.rows_rejected) == (4, 0)


def test_columns_of_nulls_have_no_type_to_be_wrong(make_shop: Any, put: Any, impression: Any) -> None:
    shop = make_shop()
    row = {"campaign_id": "c", "scenario": "social", "starts_at": None, "items": None, "budget": None}
    put(shop, "a.parquet", [row], table="campaigns")
    assert ingest(shop, DAY).rows_loaded == 1


def test_quotes_and_newlines_in_fields_arrive_as_written(make_shop: Any, put: Any, raw: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", (HEADER + 'e1,impression,2024-03-01T10:00:00Z,"a ""b"", c\n\nd",e1\n').replace("\n", "\r\n"))
    ingest(shop, DAY)
    assert raw(shop, "select creative_id from raw.ad_events") == [('a "b", c\r\n\r\nd',)]


def test_duplicate_events_within_and_across_files_and_days_stay_in_raw(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression(), impression()])
    put(shop, "b.jsonl", [impression()])
    put(shop, "a.csv", [impression()], day=NEXT)
    ingest(shop, NEXT)
    assert raw(shop, "select known_date, source_file, source_line from raw.ad_events order by all") == [
        (DAY, "a.csv", 2), (DAY, "a.csv", 3), (DAY, "b.jsonl", 1), (NEXT, "a.csv", 2),
    ]  # fmt: skip


def test_a_click_without_its_impression_stays_in_raw(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression("k1", event_type="click", impression_id="never seen", creative_id="")])
    ingest(shop, DAY)
    assert raw(shop, "select event_id, impression_id from raw.ad_events") == [("k1", "never seen")]


def test_an_event_days_late_is_loaded_under_the_day_that_brought_it(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    put(shop, "a.csv", [impression(occurred_at="2024-02-20T10:00:00Z")])
    ingest(shop, DAY)
    assert raw(shop, "select occurred_at, known_date from raw.ad_events") == [(datetime(2024, 2, 20, 10), DAY)]


@pytest.mark.parametrize(
    "name",
    [
        "it's.csv",
        '"; drop table raw.ad_events; --.csv',
        "'; drop table raw.ad_events; --.parquet",
        "two\nlines.csv",
        "红色 裙子 👗.jsonl",
        "--threads=9.csv",
        "*.csv",
        "[a-z]?{b}.parquet",
        "..csv.csv.gz",
        "known_date=1999-01-01.jsonl",
        "$path.csv",
        "%s %(x)s :y.csv",
    ],
)
def test_hostile_file_names_are_only_names(make_shop: Any, put: Any, raw: Any, impression: Any, name: str) -> None:
    shop = make_shop()
    name = name.lstrip(".")
    put(shop, "innocent.csv", [impression("innocent")])
    put(shop, name, [impression("hostile")])
    ingest(shop, DAY)
    assert raw(shop, "select event_id, source_file, known_date from raw.ad_events order by 1") == [
        ("hostile", name, DAY),
        ("innocent", "innocent.csv", DAY),
    ]
    assert ingest(shop, DAY).days == ()


def test_a_file_name_that_is_not_utf8_is_shown_escaped(make_shop: Any, put: Any, raw: Any, impression: Any) -> None:
    shop = make_shop()
    path = put(shop, "a.csv", [impression()])
    os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/b\xff.csv")
    ingest(shop, DAY)
    assert raw(shop, "select source_file from raw.ad_events") == [("b\\xff.csv",)]


def test_a_parquet_column_with_an_engines_own_name_does_no_harm(
    make_shop: Any, put: Any, raw: Any, impression: Any
) -> None:
    shop = make_shop()
    odd = {"filename": "x", "#line": "7", "known_date": "1999-01-01", "source_line": "9", "reason": "y"}
    put(shop, "a.parquet", [impression(**odd)])
    put(shop, "b.csv", [impression(**odd)])
    put(shop, "c.jsonl", [impression(**odd)])
    ingest(shop, DAY)
    rows = raw(
        shop, "select known_date, source_file, source_line, extra->>'#line', extra->>'filename' from raw.ad_events"
    )
    assert sorted(rows) == [
        (DAY, "a.parquet", 1, "7", "x"), (DAY, "b.csv", 2, "7", "x"), (DAY, "c.jsonl", 1, "7", "x"),
    ]  # fmt: skip


def test_links_out_of_the_landing_folder_are_not_followed(
    *, make_shop: Any, put: Any, rejected: Any, raw: Any, tmp_path: Any, impression: Any
) -> None:
    shop = make_shop()
    folder = put(shop, "a.csv", [impression()]).parent
    (tmp_path / "secret.csv").write_text(HEADER + line("stolen"))
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(GateFailed, match="link that leads out of the landing folder"):
        ingest(shop, DAY)
    (folder / "link.csv").unlink()
    (folder / "link.csv").symlink_to(folder / "nowhere")
    with pytest.raises(GateFailed, match="link that leads nowhere"):
        ingest(shop, DAY)
    (folder / "link.csv").unlink()
    os.mkfifo(folder / "pipe.csv")
    with pytest.raises(GateFailed, match="not a regular file"):
        ingest(shop, DAY)


# The limit ------------------------------------------------------------------------------------------------------------


def test_a_run_stops_past_the_shops_limit_and_leaves_the_day_as_it_was(
    make_shop: Any, put: Any, raw: Any, rejected: Any, impression: Any
) -> None:
    shop = make_shop(limits={"rejected_share": 0.25})
    put(shop, "a.csv", [impression("old")])
    ingest(shop, DAY)
    put(shop, "a.csv", [impression("e1"), impression("e2"), impression("e3", event_type="x"), impression("")])
    put(shop, "a.csv", [impression("n", occurred_at="2024-03-02T01:00:00Z")], day=NEXT)
    with pytest.raises(GateFailed, match="2 of 4 rows rejected") as stopped:
        ingest(shop, NEXT)
    assert str(shop.rejected) in stopped.value.next_step
    assert raw(shop, IDS) == [("old",)]
    assert raw(shop, "select rows_loaded from adloom.landing_files") == [(1,)]
    assert len(rejected(shop)) == 2


def test_a_run_goes_on_at_the_limit_and_says_how_many(
    make_shop: Any, put: Any, raw: Any, caplog: pytest.LogCaptureFixture, impression: Any
) -> None:
    shop = make_shop(limits={"rejected_share": 0.25})
    put(shop, "a.csv", [impression("e1"), impression("e2"), impression("e3"), impression("e4", event_type="x")])
    with caplog.at_level("INFO"):
        report = ingest(shop, DAY)
    assert report.days[0].rows_rejected == 1
    assert "3 rows loaded from 1 files, 1 rejected" in caplog.text
    assert raw(shop, "select rows_loaded, rows_rejected from adloom.landing_files") == [(3, 1)]


def test_the_limit_holds_for_each_table_by_itself(make_shop: Any, put: Any, impression: Any) -> None:
    shop = make_shop(limits={"rejected_share": 0.1})
    put(shop, "a.csv", [impression(f"e{i}") for i in range(100)])
    put(shop, "u.csv", [{"user_id": "u1", "personalisation": "maybe"}], table="users")
    with pytest.raises(GateFailed, match=r"users/known_date=2024-03-01: 1 of 1 rows"):
        ingest(shop, DAY)


def test_rejected_rows_go_when_the_day_is_delivered_again(
    lenient_shop: Shop, put: Any, rejected: Any, impression: Any
) -> None:
    put(lenient_shop, "a.csv", [impression("bad", event_type="x")])
    ingest(lenient_shop, DAY)
    assert len(rejected(lenient_shop)) == 1
    put(lenient_shop, "a.csv", [impression("good")])
    ingest(lenient_shop, DAY)
    assert rejected(lenient_shop) == []
