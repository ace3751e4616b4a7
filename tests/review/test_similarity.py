"""Near-duplicates: the later of two is named, whatever the order of days; the account's figure counts them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from adloom.errors import AdloomError
from adloom.review import similarity
from adloom.review.similarity import Text, letter_groups, near_duplicates, shared
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 9, 1)
DRESS = "红色连衣裙轻盈透气，周末约会穿它刚刚好，显瘦又百搭"
DRESS_AGAIN = "红色连衣裙轻盈透气！周末约会穿它刚刚好 —— 显瘦又百搭哦"
DRESS_ALIKE = "红色连衣裙轻盈透气，周末约会穿它刚刚好，出门旅行也合适"
KETTLE = "三分钟烧开一壶水，早晨多睡一会儿，咖啡照样喝得上"


def text(name: str, body: str, day: date = DAY) -> Text:
    return Text(day, name, f"hash of {name}", "", body)


def alike(texts: list[Text], earlier: list[Text] | None = None, **more: Any) -> dict[str, str]:
    found = near_duplicates(texts, lambda: earlier or [], 0.5, 0.85, **more)
    return {name: likeness.original.creative_id for name, likeness in found.items()}


def test_signs_width_and_script_do_not_hide_a_copy() -> None:
    again = "紅色連衣裙輕盈透氣。週末約會穿牠剛剛好"
    assert shared(letter_groups("红色连衣裙轻盈透气"), letter_groups("紅 色 連\u200b衣 裙，輕 盈 透 氣")) == 1
    assert shared(letter_groups(DRESS), letter_groups(again)) > 0.4
    assert shared(letter_groups(DRESS), letter_groups(KETTLE)) == 0


def test_the_later_of_two_resembles_the_earlier_of_the_day_or_of_days_before() -> None:
    yesterday = [text("old", DRESS_ALIKE, DAY - timedelta(days=1))]
    assert alike([text("b", DRESS_AGAIN), text("a", DRESS), text("c", KETTLE)]) == {"b": "a"}
    assert alike([text("a", DRESS)], yesterday) == {"a": "old"}
    assert alike([text("x", KETTLE)], yesterday) == {}


def test_what_is_blocked_is_no_original_for_others() -> None:
    """`b` copies `a` and never runs; what resembles only `b` stands by itself. What facts block never runs either."""
    chain = [text("a", "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未"), text("b", "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳午未申")]
    assert alike(chain) == {"b": "a"}
    assert alike(chain, never=frozenset({"a"})) == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="红裙轻透周末约会好看wear it", max_size=24), max_size=12))
def test_bands_find_what_comparing_all_pairs_finds(bodies: list[str]) -> None:
    """Every pair that shares at least .85 is proposed; of the rest nothing is claimed that is not so."""
    texts = [text(f"c{number:02d}", body) for number, body in enumerate(bodies)]
    found = near_duplicates(texts, list, 0.5, 2.0)
    for later, one in enumerate(texts):
        shares = [shared(other.groups, one.groups) for other in texts[:later]]
        if max(shares, default=0.0) >= 0.85:
            assert found[one.creative_id].shared == max(shares)
        elif one.creative_id in found:
            assert found[one.creative_id].shared in shares
            assert found[one.creative_id].shared >= 0.5


def test_a_day_in_parts_is_the_day_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [
        text(f"c{number}", body) for number, body in enumerate([DRESS, KETTLE, DRESS_AGAIN, DRESS_ALIKE, KETTLE] * 2)
    ]
    whole = alike(texts)
    monkeypatch.setattr(similarity, "PART_ROWS", 3)
    assert alike(texts) == whole
    assert len(whole) >= 6


# --- in the ledger -------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop(language="zh")


@pytest.fixture
def connection(shop: Shop) -> Iterator[Connection]:
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            yield opened


def record(connection: Connection, day: date, bodies: dict[str, str]) -> None:
    """As the copywriting room does: the day's creatives and reviews replaced."""
    rows = [
        {
            "creative_id": name,
            "creative_hash": f"hash of {name}",
            "day": day,
            "brief_id": name,
            "variant": 0,
            "scenario": "recommendation",
            "language": "zh",
            "channel": "feed",
            "segment_id": "all",
            "item_id": "i",
            "headline": "好物",
            "body": body,
            "call_to_action": "看看",
            "hashtags": "[]",
            "candidates": 1,
            "candidates_parsed": 1,
            "model_id": "m",
            "prompt_digest": "p",
            "seed": 0,
        }
        for name, body in bodies.items()
    ]
    ledger.replace_rows(connection, ledger.creatives, {"day": day}, rows)
    ledger.replace_rows(connection, ledger.reviews, {"day": day}, [])


def stored(connection: Connection) -> list[list[Any]]:
    return [
        [tuple(row) for row in connection.execute(select(table).order_by(*table.c))]
        for table in (ledger.reviews, ledger.account_similarity)
    ]


DAYS = {
    DAY: {"a1": DRESS, "a2": KETTLE},
    DAY + timedelta(days=1): {"b1": DRESS_AGAIN, "b2": "一杯好茶，从选对茶叶开始，清香久久不散"},
    DAY + timedelta(days=3): {"c1": DRESS_ALIKE, "c2": KETTLE},
    DAY + timedelta(days=181): {"d1": DRESS, "d2": "一杯好茶，从选对茶叶开始，清香久久不散呀"},
}


def test_in_whatever_order_days_are_recorded_the_rows_are_the_same(shop: Shop) -> None:
    told = []
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        for order in itertools.permutations(DAYS):
            with engine.connect() as connection:
                for day in (*order, order[0]):  # and the first once more
                    record(connection, day, DAYS[day])
                    similarity.review_day(connection, shop, day)
                told.append(stored(connection))
                connection.rollback()
    assert all(one == told[0] for one in told)
    reviews = {row[0]: row for row in told[0][0]}
    severities = {name: row[7] for name, row in reviews.items()}
    assert severities == {"b1": "block", "c1": "warn", "c2": "block", "d1": "warn", "d2": "block"}
    assert "creative c1 of 2024-09-04" in reviews["d1"][8]  # a1 says the same, but 181 days ago
    assert "creative a1 of 2024-09-01" in reviews["b1"][8]
    assert reviews["b1"][6] in DRESS_AGAIN


def test_the_accounts_figure_warns_and_stops(connection: Connection, shop: Shop) -> None:
    originals = {f"o{number}": "".join(chr(0x4E00 + 40 * number + place) for place in range(30)) for number in range(8)}
    record(connection, DAY, originals)
    similarity.review_day(connection, shop, DAY)
    verdicts = []
    for copies in (0, 1, 4):
        later = DAY + timedelta(days=1)
        record(connection, later, {f"p{number}": originals[f"o{number}"] for number in range(copies)})
        similarity.review_day(connection, shop, later)
        row = connection.execute(
            select(ledger.account_similarity).where(ledger.account_similarity.c.day == later)
        ).one()
        verdicts.append((row.copies, row.originals, row.verdict))
    assert verdicts == [(8, 8, "fine"), (9, 8, "warn"), (12, 8, "stop")]
    assert row.sentence.startswith("账号相似度 33%：最近 7 天 12 条文案中 4 条")
    late = DAY + timedelta(days=20)
    record(connection, late, {})
    similarity.review_day(connection, shop, late)
    assert connection.execute(
        select(ledger.account_similarity.c.verdict).where(ledger.account_similarity.c.day == late)
    ).scalar_one() == "none"  # fmt: skip


def test_pictures_that_look_alike_are_named(connection: Connection, shop: Shop) -> None:
    from PIL import Image, ImageDraw

    record(connection, DAY, {"a": DRESS, "b": KETTLE, "c": "茶"})
    shop.creatives.mkdir(parents=True)

    def draw(name: str, seed: int, tint: int = 0) -> None:
        rng = np.random.default_rng(seed)
        picture = Image.new("RGB", (160, 160), (230, 230, 230 - tint))
        for _ in range(12):
            x, y = rng.integers(0, 120, 2)
            ImageDraw.Draw(picture).rectangle((x, y, x + 40, y + 30), fill=tuple(rng.integers(0, 255, 3)))
        picture.save(shop.creatives / name)
        connection.execute(
            ledger.assets.insert(),
            {
                "creative_id": Path(name).stem, "format": "feed_1080x1080", "day": DAY, "kind": "image", "path": name,
                "digest": name, "width": 160, "height": 160, "bytes": 1, "template": "t", "picture_source": "own_photo",
                "picture_digest": "p", "checks": "{}", "label": "{}",
            },
        )  # fmt: skip

    draw("a.png", 1)
    draw("b.jpg", 1, tint=6)
    draw("c.png", 2)
    assert [row["creative_id"] for row in similarity.review_images(connection, shop, DAY)] == ["b"]
    [row] = connection.execute(select(ledger.reviews)).all()
    assert (row.rule_id, row.part, row.severity) == (
        "similarity.near_duplicate_image",
        "image:feed_1080x1080",
        "warn",
    )
    assert "picture of creative a of 2024-09-01" in row.reason
    before = stored(connection)
    similarity.review_images(connection, shop, DAY)
    similarity.review_day(connection, shop, DAY)
    assert stored(connection)[0] == before[0]
    (shop.creatives / "c.png").unlink()
    with pytest.raises(AdloomError, match=r"c\.png cannot be read"):
        similarity.review_images(connection, shop, DAY)
