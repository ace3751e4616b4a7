"""Who asked to be erased is gone, everywhere and for good; who opted out is left alone; nothing is kept too long."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import duckdb
import pytest
from sqlalchemy import select, text

from adloom import pipeline
from adloom.errors import AdloomError
from adloom.settings import user_id_key
from adloom.shop import Shop
from adloom.warehouse import ledger, reading
from adloom.warehouse.content import digests
from adloom.warehouse.engine import warehouse

FIRST = date(2024, 3, 1)
GONE = "user-to-be-erased-77"
STAYS = "user-0"
RARE = "a query nobody else would type"
RARE_REGION = "Ultima Thule"
USERS = [f"user-{number}" for number in range(8)]


def moment(day: date, hour: int) -> str:
    return datetime.combine(day, time(hour), UTC).isoformat()


def put(shop: Shop, table: str, day: date, name: str, rows: list[dict[str, Any]], *, extra: str = "") -> None:
    """Write rows as one landing file; ``extra``: text appended as it is (a line that is no record)."""
    folder = shop.landing / table / f"known_date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if name.endswith(".parquet"):
        import pyarrow as pa
        from pyarrow import parquet

        names = list(dict.fromkeys(key for row in rows for key in row))
        parquet.write_table(pa.table({key: [row.get(key) for row in rows] for key in names}), path)
        return
    lines = io.StringIO()
    if ".csv" in name:
        writer = csv.DictWriter(lines, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        lines.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    content = (lines.getvalue() + extra).encode()
    path.write_bytes(gzip.compress(content, mtime=0) if name.endswith(".gz") else content)


def ad_events(day: date, user: str, number: int) -> list[dict[str, Any]]:
    """An impression, its click and its conversion; the outcomes name the impression and nobody."""
    key = f"{day}-{number}"
    shown = {"event_id": f"i-{key}", "event_type": "impression", "occurred_at": moment(day, 9), "creative_id": "c1"}
    return [
        shown | {"user_id": user, "impression_id": f"i-{key}", "channel": "feed"},
        {
            "event_id": f"c-{key}",
            "event_type": "click",
            "occurred_at": moment(day, 10),
            "impression_id": f"i-{key}",
            "ip_prefix": f"10.9.{number}.0",
        },
        {
            "event_id": f"o-{key}",
            "event_type": "conversion",
            "occurred_at": moment(day, 11),
            "impression_id": f"i-{key}",
        },
    ]


def behaviours(day: date, user: str, number: int) -> list[dict[str, Any]]:
    query = RARE if user == GONE else "tea"
    return [
        {
            "event_id": f"b-{day}-{number}",
            "user_id": user,
            "behaviour": "search",
            "occurred_at": moment(day, 8),
            "query": query,
        }
    ]


def deliver(shop: Shop, day: date, people: list[str]) -> None:
    """Land a day: users, behaviours and ad events of everybody, in the day's format."""
    ending = ("parquet", "csv", "jsonl", "csv.gz", "jsonl.gz")[day.toordinal() % 5]
    torn = f'"{GONE},not,closed\n' if ending == "csv" and GONE in people else ""
    everybody = list(enumerate(people))
    put(shop, "ad_events", day, f"a.{ending}", [r for n, one in everybody for r in ad_events(day, one, n)])
    put(
        shop, "behaviours", day, f"b.{ending}", [r for n, one in everybody for r in behaviours(day, one, n)], extra=torn
    )
    region = {GONE: RARE_REGION}
    rows = [{"user_id": one, "age_band": "30-39", "region": region.get(one, "North")} for one in people]
    put(shop, "users", day, f"u.{ending}", rows)


def ask(shop: Shop, day: date, user: str, kind: str = "erase", hour: int = 20) -> None:
    row = {"user_id": user, "kind": kind, "requested_at": moment(day, hour)}
    put(shop, "privacy_requests", day, f"{kind}-{hour}.jsonl", [row])


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(limits={"rejected_share": 1.0}, unknown_age_is_minor=False)


def days(count: int) -> list[date]:
    return [FIRST + timedelta(days=offset) for offset in range(count)]


# --- looking everywhere ------------------------------------------------------------------------------------------


def traces(shop: Shop, *needles: str) -> list[str]:
    """Every file and table under the shop's home that holds one of ``needles``; the registry is not looked into."""
    found = []
    for path in sorted(shop.home.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.name.endswith(".gz") else content
            if path.suffix == ".parquet":
                with duckdb.connect() as engine:
                    content += str(engine.execute("select * from read_parquet(?)", [str(path)]).fetchall()).encode()
            found += [f"{path.relative_to(shop.home)}: {one}" for one in needles if one.encode() in content]
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        names = connection.execute(text("select table_schema, table_name from information_schema.tables")).all()
        for schema, name in names:
            if (schema, name) == ("adloom", "privacy_registry"):
                continue
            rows = str(connection.execute(text(f'select * from "{schema}"."{name}"')).all())  # noqa: S608
            found += [f"{schema}.{name}: {one}" for one in needles if one in rows]
    return found


def registry_only(found: list[str], user: str) -> list[str]:
    """Without what the registry's own pages say: it holds the hash and nothing else."""
    return [one for one in found if one != f"warehouse.duckdb: {hashed(user)}"]


def hashed(user: str) -> str:
    return reading.user_hash(user, user_id_key())


def content(shop: Shop) -> dict[str, str]:
    """Digest of every table but those that remember the request itself."""
    with warehouse(shop, read_only=True) as engine:
        found = digests(engine)
    # Reports of loading and of the doors tell what the files and raw held when they were looked at.
    others = ("adloom.privacy", "adloom.landing", "adloom.quality_results")
    return {name: one for name, one in found.items() if not name.startswith(others)}


def run_days(shop: Shop, which: list[date]) -> None:
    for day in which:
        pipeline.run_day(shop.id, day)


# --- erasure -----------------------------------------------------------------------------------------------------


def _erase_and_search(shop: Shop, count: int) -> None:
    """Erase somebody in the middle of ``count`` days, backfill all of them in shuffled order, look everywhere."""
    for day in days(count):
        deliver(shop, day, [*USERS, GONE])
    asked = FIRST + timedelta(days=count - 1)
    ask(shop, asked, GONE)
    run_days(shop, days(count))
    assert traces(shop, GONE)
    assert traces(shop, hashed(GONE))
    assert traces(shop, RARE)
    pipeline.privacy(shop.id, asked)
    order = days(count)
    random.Random(5).shuffle(order)
    run_days(shop, order)
    assert registry_only(traces(shop, GONE, hashed(GONE), RARE, RARE_REGION), GONE) == []
    # The outcomes that named nobody went with their impression, those of the others stayed.
    lost, kept = f"c-{FIRST}-{len(USERS)}", f"c-{FIRST}-0"
    assert traces(shop, lost) == []
    assert traces(shop, kept)


def test_an_erased_user_is_nowhere_after_a_shuffled_backfill(shop: Shop) -> None:
    _erase_and_search(shop, 2)


@pytest.mark.proof
def test_an_erased_user_is_nowhere_after_a_shuffled_backfill_of_thirty_days(shop: Shop) -> None:
    _erase_and_search(shop, 30)


@pytest.mark.proof
def test_the_shop_is_what_it_would_be_had_the_user_never_come(shop: Shop) -> None:
    for day in days(4):
        deliver(shop, day, USERS)
    run_days(shop, days(4))
    never = content(shop)
    shutil.rmtree(shop.landing)
    shutil.rmtree(shop.home)  # the same shop again, as plans carry its name
    for day in days(4):
        deliver(shop, day, [*USERS, GONE])
    ask(shop, FIRST + timedelta(days=3), GONE)
    run_days(shop, days(4))
    assert content(shop) != never
    pipeline.privacy(shop.id, FIRST + timedelta(days=3))
    assert content(shop) == never


def test_what_happens_after_the_request_is_accepted(shop: Shop) -> None:
    before, asked, after = days(3)
    for day in (before, asked, after):
        deliver(shop, day, [*USERS, GONE])
    ask(shop, asked, GONE, hour=12)
    run_days(shop, days(3))
    pipeline.privacy(shop.id, after)
    with warehouse(shop) as engine, engine.connect() as connection:
        rows = connection.execute(
            text("select known_date, count(*) from raw.behaviours where user_hash = :user group by all"),
            {"user": hashed(GONE)},
        ).all()
        impressions = connection.execute(
            text("select distinct impression_known_date from marts.fct_impressions where user_hash = :user"),
            {"user": hashed(GONE)},
        ).all()
    assert rows == [(after, 1)]
    assert impressions == [(after,)]


@pytest.mark.proof
def test_an_old_file_that_is_delivered_again_brings_nobody_back(shop: Shop) -> None:
    first, second = days(2)
    for day in (first, second):
        deliver(shop, day, [*USERS, GONE])
    ask(shop, second, GONE)
    run_days(shop, days(2))
    pipeline.privacy(shop.id, second)
    deliver(shop, first, [*USERS, GONE])
    run_days(shop, days(2))
    # Landing and raw hold the delivery until the next privacy run; nothing that is made from them does.
    assert {one.partition(":")[0].partition(".")[0] for one in traces(shop, RARE, hashed(GONE))} <= {
        "raw",
        "landing/behaviours/known_date=2024-03-01/b",
        "warehouse",
    }
    pipeline.privacy(shop.id, second)
    assert registry_only(traces(shop, GONE, hashed(GONE), RARE, RARE_REGION), GONE) == []


@pytest.mark.proof
@pytest.mark.parametrize("step", list(pipeline.PRIVACY_STEPS))
def test_an_erasure_that_was_cut_off_is_finished_by_the_next_run(
    shop: Shop, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in days(2):
        deliver(shop, day, [*USERS, GONE])
    ask(shop, FIRST + timedelta(days=1), GONE)
    run_days(shop, days(2))
    steps = dict(pipeline.PRIVACY_STEPS)

    def killed(shop_id: str, day: date) -> None:
        steps[step](shop_id, day)
        raise KeyboardInterrupt

    monkeypatch.setitem(pipeline.PRIVACY_STEPS, step, killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.privacy(shop.id, FIRST + timedelta(days=1))
    monkeypatch.setitem(pipeline.PRIVACY_STEPS, step, steps[step])
    pipeline.privacy(shop.id, FIRST + timedelta(days=1))
    assert registry_only(traces(shop, GONE, hashed(GONE), RARE, RARE_REGION), GONE) == []
    assert len(receipts(shop)) == 1


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_clean(shop: Shop) -> None:
    for day in days(2):
        deliver(shop, day, [*USERS, GONE])
    ask(shop, FIRST, GONE)
    run_days(shop, days(2))
    broken = shop.landing / "users" / f"known_date={FIRST}" / "torn.parquet"
    broken.write_bytes(b"PAR1 nothing")
    with pytest.raises(AdloomError, match=r"torn\.parquet"):
        pipeline.privacy(shop.id, FIRST)
    broken.unlink()
    assert [one for one in traces(shop, GONE) if one.startswith(f"landing/behaviours/known_date={FIRST}")] == []
    assert receipts(shop) == []


@pytest.mark.parametrize("name", ["u.parquet", "u.csv", "u.jsonl.gz"])
def test_a_file_that_few_may_read_is_rewritten_for_as_few(name: str, shop: Shop) -> None:
    from adloom.privacy import erasing
    from adloom.privacy.registry import Request

    put(shop, "users", FIRST, name, [{"user_id": one, "age_band": "30-39"} for one in (*USERS, GONE)])
    path = shop.landing / "users" / f"known_date={FIRST}" / name
    path.chmod(0o600)
    request = Request(hashed(GONE), "erase", datetime(2024, 3, 1, 20), FIRST, "r")
    assert erasing.clean_files(shop, [request], []).rows == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_database_written_anew_is_for_as_few_as_before(shop: Shop) -> None:
    from adloom.privacy import erasing

    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
    path = shop.home / "warehouse.duckdb"
    path.chmod(0o600)
    erasing.compact(shop)
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_open_quote_hides_nobody_and_takes_nobody_else_along(shop: Shop) -> None:
    """The quote swallows the lines after it into the last field of a row that then looks sound."""
    from adloom.privacy import erasing
    from adloom.privacy.registry import Request

    head = "event_id,user_id,behaviour,occurred_at,query"
    at = moment(FIRST, 8)
    lines = [f'b1,user-1,view,{at},"abc', f"b2,{GONE},view,{at},tea", f"b3,user-2,view,{at},tea"]
    folder = shop.landing / "behaviours" / f"known_date={FIRST}"
    folder.mkdir(parents=True)
    (folder / "b.csv").write_text("\n".join([head, *lines]) + "\n")
    request = Request(hashed(GONE), "erase", datetime(2024, 3, 1, 20), FIRST, "r")
    assert erasing.clean_files(shop, [request], []).rows == 1
    assert (folder / "b.csv").read_text().splitlines() == [head, lines[0], lines[2]]


# --- receipts, opt-outs ------------------------------------------------------------------------------------------


def receipts(shop: Shop) -> list[Any]:
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        return list(connection.execute(select(ledger.privacy_receipts)).all())


def test_every_request_has_one_receipt_that_names_nobody(shop: Shop) -> None:
    deliver(shop, FIRST, [*USERS, GONE])
    ask(shop, FIRST, GONE)
    ask(shop, FIRST, STAYS, "opt_out")
    run_days(shop, days(1))
    pipeline.privacy(shop.id, FIRST)
    first = receipts(shop)
    pipeline.privacy(shop.id, FIRST)
    assert receipts(shop) == first
    assert sorted(row.kind for row in first) == ["erase", "opt_out"]
    assert len({row.receipt for row in first}) == 2
    assert not any(hashed(user) in str(row) or user in str(row) for row in first for user in (GONE, STAYS))
    _, names = pipeline.query(shop.id, "select table_name from information_schema.tables")
    assert not [name for (name,) in names if "privacy" in name or "erased" in name]


def test_who_opts_out_is_not_personalised_from_the_next_plan_on_and_back_after_opting_in(shop: Shop) -> None:
    for day in days(3):
        deliver(shop, day, USERS)
    ask(shop, FIRST + timedelta(days=1), STAYS, "opt_out")
    ask(shop, FIRST + timedelta(days=2), STAYS, "opt_in")
    segment = []
    for day in days(3):
        run_days(shop, [day])
        pipeline.privacy(shop.id, day)
        with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
            newest = text(
                "select segment_id from marts.user_segments where user_hash = :user and known_date <= :day "
                "order by known_date desc limit 1"
            )
            segment.append(connection.execute(newest, {"user": hashed(STAYS), "day": day}).scalar_one())
    assert segment == ["all", "not_personalised", "all"]


# --- retention ---------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(retention={"raw_days": 30, "feature_days": 60}, limits={"rejected_share": 1.0})


def test_a_day_past_raw_retention_keeps_its_marts_and_is_not_rebuilt(forgetful: Shop) -> None:
    shop, late = forgetful, FIRST + timedelta(days=31)
    for day in (FIRST, late):
        deliver(shop, day, USERS)
    run_days(shop, [FIRST, late])
    before = content(shop)
    purged = pipeline.privacy(shop.id, late)["apply_retention"]
    assert purged.known_dates == (FIRST,)
    assert not list(shop.landing.glob(f"*/known_date={FIRST}"))
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        assert (
            connection.execute(text("select count(*) from raw.ad_events where known_date = '2024-03-01'")).scalar() == 0
        )
    with pytest.raises(AdloomError, match="older than raw retention"):
        pipeline.run_day(shop.id, FIRST)
    deliver(shop, FIRST, USERS[:2])
    run_days(shop, [late])
    assert content(shop) == before
    pipeline.privacy(shop.id, late)
    assert not list(shop.landing.glob(f"*/known_date={FIRST}"))
    assert content(shop) == before


def test_a_day_whose_marts_are_not_built_is_kept(forgetful: Shop) -> None:
    shop, late = forgetful, FIRST + timedelta(days=31)
    for day in (FIRST, late):
        deliver(shop, day, USERS)
    pipeline.ingest(shop.id, late)
    purged = pipeline.apply_retention(shop.id, late)
    assert (purged.known_dates, purged.waiting) == ((), (FIRST,))
    assert list(shop.landing.glob(f"*/known_date={FIRST}"))


@pytest.mark.proof
def test_an_erasure_reaches_days_that_are_past_raw_retention(forgetful: Shop) -> None:
    shop, late = forgetful, FIRST + timedelta(days=31)
    for day in (FIRST, late):
        deliver(shop, day, [*USERS, GONE])
    run_days(shop, [FIRST, late])
    pipeline.privacy(shop.id, late)
    ask(shop, late, GONE)
    pipeline.privacy(shop.id, late)
    assert registry_only(traces(shop, GONE, hashed(GONE), RARE, RARE_REGION), GONE) == []
    with warehouse(shop, read_only=True) as engine, engine.connect() as connection:
        shown = text("select count(*) from marts.fct_impressions where impression_known_date = '2024-03-01'")
        assert connection.execute(shown).scalar() == len(USERS) + 1  # counted in aggregates that are kept
        clicked = text("select count(click_at) from marts.fct_impressions where impression_known_date = '2024-03-01'")
        assert connection.execute(clicked).scalar() == len(USERS) + 1
