"""A real shop of source ``files``, set up with nothing but the documented contract: behaviours and numbered categories.

No titles, no prices, no demographics, so its portraits speak of behaviour only. Nine days of 2017; 35 rows lie outside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import text

from adloom import pipeline
from adloom.audience.portraits import NOT_PERSONALISED, Portrait, read_portraits
from adloom.settings import CHECKOUT
from adloom.shop import Shop
from adloom.warehouse.engine import warehouse

EVENTS = CHECKOUT.parent / "shared" / "data" / "taobao_userbehavior" / "events.parquet"
FIRST, LAST = date(2017, 11, 25), date(2017, 12, 3)

pytestmark = pytest.mark.skipif(not EVENTS.is_file(), reason="the real behaviours are not on this machine")


def _land(shop: Shop, events: Path) -> None:
    """Bring the published file into the landing contract (docs/for_data_engineers.md, section 3)."""
    db = duckdb.connect()
    db.execute(
        """
        create view events as
        select *, greatest(cast(timezone('Asia/Shanghai', event_time) as date), $first) as known_date
        from read_parquet($events)
        """.replace("$events", f"'{events}'").replace("$first", f"date '{FIRST}'")
    )
    behaviours = """
        select
            -- From the row itself; the set holds no two equal rows that are not the same event.
            md5(concat_ws(' ', user_id, item_id, behavior_type, epoch_ms(event_time))) as event_id,
            cast(user_id as varchar) as user_id,
            case behavior_type
                when 'pv' then 'view' when 'fav' then 'favourite' when 'buy' then 'purchase' else 'cart'
            end as behaviour,
            event_time as occurred_at, cast(item_id as varchar) as item_id, known_date
        from events
    """
    items = """
        select
            cast(item_id as varchar) as item_id, cast(min(category_id) as varchar) as category,
            min(known_date) as known_date
        from events group by item_id
    """
    for table, query in {"behaviours": behaviours, "items": items}.items():
        (shop.landing / table).mkdir(parents=True)
        db.execute(f"copy ({query}) to '{shop.landing / table}' (format parquet, partition_by (known_date))")


def _query(shop: Shop, sql: str, **values: Any) -> list[Any]:
    with warehouse(shop) as engine, engine.connect() as connection:
        return list(connection.execute(text(sql), values))


def _portraits(shop: Shop, day: date) -> dict[str, Portrait]:
    with warehouse(shop) as engine, engine.connect() as connection:
        return {one.segment_id: one for one in read_portraits(connection, day)}


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    shop = make_shop(
        id="taobao", name="Taobao", language="zh", time_zone="Asia/Shanghai", start_day=str(FIRST), end_day=str(LAST)
    )
    _land(shop, EVENTS)
    return shop


def _speak_of_behaviour_only(shop: Shop, day: date) -> None:
    found = _portraits(shop, day)
    for name, one in found.items():
        assert re.fullmatch(r"all|not_personalised|(looks|keeps|buys)(__[a-z]+)?", name)
        assert one.users == 0 or one.users >= shop.min_segment_users
        assert not re.search(r"\d", "".join(one.words.values()))
        assert one.interests == () == one.recent_items
        if one.users and name != NOT_PERSONALISED:
            assert one.words["zh"].endswith("（只依据行为）")
            assert one.words["en"].endswith("(known by behaviour only)")


def test_two_days_of_a_shop_without_names_speak_of_behaviour_only(shop: Shop) -> None:
    day = FIRST + timedelta(days=1)
    pipeline.ingest("taobao", day)
    pipeline.build("taobao", day)
    report = pipeline.portraits("taobao", day)
    assert report.days == [FIRST, day]
    assert sum(one.users for one in _portraits(shop, day).values()) > 600
    _speak_of_behaviour_only(shop, day)
    words = {one.words["zh"] for one in _portraits(shop, day).values() if one.users}
    assert any("加购" in one for one in words)


@pytest.mark.proof
@pytest.mark.timeout(1800)
def test_all_nine_days_run_and_no_two_of_them_give_anybody_away(shop: Shop) -> None:
    days = [FIRST + timedelta(days=number) for number in range((LAST - FIRST).days + 1)]
    for day in days:
        pipeline.run_day("taobao", day)
        pipeline.portraits("taobao", day)
    rows = _query(shop, "select count(*) as behaviours, count(distinct user_hash) as users from raw.behaviours")
    assert (rows[0].behaviours, rows[0].users) == (84_475, 815)
    assert [row.status for row in pipeline.run_history("taobao")] == ["done"] * 9
    for day in days:
        _speak_of_behaviour_only(shop, day)
    counted = {(row.user_hash, row.day): row.counted_in for row in _query(shop, "from adloom.user_portraits")}
    users = {user for user, _ in counted}
    for before, after in pairwise(days):
        passed = Counter((counted.get((user, before), ""), counted.get((user, after), "")) for user in users)
        assert all(n >= shop.portraits.min_moved_users for (home, there), n in passed.items() if home != there), passed
    assert len(set(counted.values())) > 3
