"""The time model, held against a second opinion: random worlds, landed as files, whose marts are told again in Python.

`Told` derives every answer from the delivered rows alone, straight from the words of the design, with no increments,
no state and no SQL. A world is many small independent ones landed together, because a build's cost is in its days.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import json
import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from adloom.shop import Shop
from adloom.warehouse import dbt, loading
from adloom.warehouse.content import digests
from adloom.warehouse.engine import warehouse

Row = dict[str, Any]
ZONE = ZoneInfo("Europe/Berlin")  # its clocks go forward on the fourth day
DAYS = [date(2024, 3, 28) + timedelta(days=number) for number in range(4)]
LOOKBACK, WINDOW, MOST_IMPRESSIONS = 2, 1, 2
KEY = "a key for tests only"


def _world(seed: int, parts: int) -> dict[tuple[date, str], list[Row]]:
    """(known_date, file of ad_events) → rows; every id begins with its part, so that the parts cannot meet."""
    files: dict[tuple[date, str], list[Row]] = {(day, name): [] for day in DAYS for name in ("a.csv", "b.jsonl")}
    for part in range(parts):
        chance = random.Random(f"{seed} {part}")
        for row in _events(chance, f"w{part}-"):
            day = row.pop("known_date")
            files[day, chance.choice(["a.csv", "b.jsonl"])].append(row)
            again = DAYS.index(day) + chance.choice([0, 0, 1, 2, 3])
            if chance.random() < 0.2 and again < len(DAYS):  # the same event once more, perhaps told differently
                told = row | {"creative_id": "other", "value": "77", "cost": "9"}
                files[DAYS[again], chance.choice(["a.csv", "b.jsonl"])].append(chance.choice([row, told]))
    return files


def _events(chance: random.Random, prefix: str) -> Iterable[Row]:
    """A handful of events of two users, mostly about each other, at few different hours so that ties happen."""

    def event(kind: str, number: int, **more: Any) -> Row:
        happened = chance.choice({"impression": [0, 0, 1, 2], "click": [0, 1, 2, 3], "conversion": [1, 2, 3, 3]}[kind])
        known = min(happened + chance.choice([0, 0, 0, 1, 2, 3]), len(DAYS) - 1)
        local = datetime.combine(DAYS[happened], datetime.min.time(), ZONE)
        at = local.astimezone(UTC) + timedelta(hours=chance.choice([0, 1, 2, 9, 12, 21, 22]), minutes=30)
        row = {"event_id": f"{prefix}{kind}{number}", "event_type": kind, "known_date": DAYS[known]}
        shown = at.astimezone(chance.choice([UTC, ZONE, ZoneInfo("Asia/Tokyo")]))
        row |= {"occurred_at": shown.isoformat(), "user_agent": chance.choice(["Firefox"] * 9 + ["Googlebot"])}
        return row | {name: value for name, value in more.items() if value is not None}

    def user() -> str | None:
        return chance.choice([f"{prefix}SECRET-ann", f"{prefix}SECRET-bob", None])

    impressions = [f"{prefix}i{number}" for number in range(4)]
    for number, impression in enumerate(impressions):
        arm = {"creative_id": f"c{chance.randrange(2)}", "policy_id": chance.choice(["bts", None]), "cost": "0.3"}
        yield event("impression", number, impression_id=impression, user_id=user(), position="1", **arm)
    for number in range(chance.randrange(9)):
        named = chance.choice([*impressions, f"{prefix}nobody"])
        yield event("click", number, impression_id=named, user_id=chance.choice([user(), None]), cost="0.05")
    for number in range(chance.randrange(9)):
        named, who = chance.choice([*impressions, None, None]), user()
        who = who if named or who else f"{prefix}SECRET-ann"
        yield event("conversion", number, impression_id=named, user_id=who, value=f"{chance.randrange(1, 9)}.25")


def _land(shop: Shop, files: dict[tuple[date, str], list[Row]]) -> None:
    for (day, name), rows in files.items():
        folder = shop.landing / "ad_events" / f"known_date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("w", encoding="utf-8", newline="") as target:
            if name.endswith(".jsonl"):
                target.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                names = ["event_id", "event_type", "occurred_at", "impression_id", "user_id", "creative_id"]
                writer = csv.DictWriter(target, [*names, "policy_id", "position", "cost", "value", "user_agent"])
                writer.writeheader()
                writer.writerows(rows)


def _hash(user_id: str | None) -> str | None:
    digest = hmac.digest(KEY.encode(), (user_id or "").encode(), hashlib.sha256)
    return user_id and base64.urlsafe_b64encode(digest[:9]).decode()


class Told:
    """What is true as of each known_date, from the delivered rows."""

    def __init__(self, files: dict[tuple[date, str], list[Row]]) -> None:
        self.rows = [
            row | {"known": day, "place": (name, line), "at": datetime.fromisoformat(row["occurred_at"])}
            for (day, name), rows in sorted(files.items())
            for line, row in enumerate(rows)
        ]
        for row in self.rows:
            row["at"], row["date"] = row["at"].astimezone(UTC), row["at"].astimezone(ZONE).date()
        # By impression_id and known_date: an id that comes again after the look-back is another impression.
        self.impressions: dict[tuple[str, date], Row] = {}
        self.clicks: dict[tuple[str, date], Row] = {}  # counted, by impression
        self.conversions: dict[tuple[str, date], Row] = {}  # counted, by impression
        kept = self._kept()
        for day in sorted({row["known"] for row in self.rows}):
            self._show([row for row in kept if row["event_type"] == "impression" and row["known"] == day])
            self._click([row for row in kept if row["event_type"] == "click" and _within(row["known"], day)], day)
            waiting = [row for row in kept if row["event_type"] == "conversion" and _within(row["known"], day)]
            self._convert(waiting, day)

    def _kept(self) -> list[Row]:
        """Each id counts once: by (known_date, file, line), as far back as the look-back goes."""
        last: dict[Any, date] = {}
        kept = []
        for row in self.rows:
            ids = [("event", row["event_id"])]
            if row["event_type"] == "impression":
                ids.append(("impression", row["impression_id"]))
            if not any(one in last and _within(last[one], row["known"]) for one in ids):
                kept.append(row)
            last |= dict.fromkeys(ids, row["known"])
        return kept

    def _show(self, today: list[Row]) -> None:
        for row in sorted(today, key=lambda row: (row["at"], row["impression_id"])):
            mine = [
                other
                for other in self.impressions.values()
                if row.get("user_id") and (other.get("user_id"), other["date"]) == (row["user_id"], row["date"])
            ]
            mine = [other for other in mine if _within(other["known"], row["known"])]
            row["reason"] = "too_many_impressions" if len(mine) >= MOST_IMPRESSIONS else None
            row["reason"] = "bot_user_agent" if "bot" in row["user_agent"] else row["reason"]
            self.impressions[row["impression_id"], row["known"]] = row

    def _click(self, clicks: list[Row], day: date) -> None:
        """A click is decided when its impression is known; the first valid one of an impression counts."""
        for row in sorted(clicks, key=lambda row: (row["at"], row["event_id"])):
            recent = (day - timedelta(days=number) for number in range(LOOKBACK + 1))
            shown = next(filter(None, (self.impressions.get((row["impression_id"], known)) for known in recent)), None)
            if "decided" in row or shown is None:
                continue
            row |= {"decided": day, "shown": shown}
            bad = shown["reason"] or "bot" in row["user_agent"] or row["at"] < shown["at"]
            key = (row["impression_id"], shown["known"])
            row["counts"] = not bad and key not in self.clicks
            if row["counts"]:
                self.clicks[key] = row

    def _convert(self, conversions: list[Row], day: date) -> None:
        """A conversion is decided when a click it can belong to is known; the first of a click counts."""
        for row in sorted(conversions, key=lambda row: (row["at"], row["event_id"])):
            if "decided" in row:
                continue
            mine = [click for click in self.clicks.values() if _within(click["decided"], day)]
            if row.get("impression_id"):
                mine = [click for click in mine if click["impression_id"] == row["impression_id"]]
            else:
                mine = [c for c in mine if (c.get("user_id") or c["shown"].get("user_id")) == row["user_id"]]
            mine = [
                click
                for click in mine
                if click["at"] <= row["at"] <= click["at"] + timedelta(days=WINDOW)
                and (row["date"] - click["date"]).days <= WINDOW
            ]
            if mine:
                row["decided"] = day
                click = max(mine, key=lambda click: (click["at"], click["event_id"]))
                row["click"] = click
                self.conversions.setdefault((click["impression_id"], click["shown"]["known"]), row)

    def impressions_as_of(self, day: date) -> set[tuple[Any, ...]]:
        """One row per impression known by the day, with the outcomes known by the day."""
        found = set()
        for key, row in self.impressions.items():
            if row["known"] <= day:
                click, conversion = self.clicks.get(key), self.conversions.get(key)
                clicked = (_utc(click), click["decided"]) if click and click["decided"] <= day else (None, None)
                value = (None, None, None)
                if conversion and conversion["decided"] <= day:
                    value = (_utc(conversion), conversion["decided"], Decimal(conversion["value"]))
                who = _hash(row.get("user_id"))
                found.add(
                    (row["impression_id"], _utc(row), row["date"], row["known"], row["reason"], who, *clicked, *value)
                )
        return found

    def sums_as_of(self, day: date) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """(creative, policy, impression date, click date, lag) → the measures of `fct_creative_daily`."""
        sums: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [0, 0, 0, Decimal(0), Decimal(0), 0, 0])

        def of(shown: Row, *more: Any) -> list[Any]:
            return sums[shown["creative_id"], shown.get("policy_id") or "default", shown["date"], *more]

        for row in self.impressions.values():
            if row["known"] <= day:
                mine = of(row, None, None)
                mine[5 if row["reason"] else 0] += 1
                mine[4] += 0 if row["reason"] else Decimal(row["cost"])
        for row in self.rows:
            if row["event_type"] == "click" and row.get("decided", date.max) <= day:
                mine = of(row["shown"], row["date"], None)
                mine[1 if row["counts"] else 6] += 1
                mine[4] += Decimal(row["cost"]) if row["counts"] else 0
        for row in self.conversions.values():
            if row["decided"] <= day:
                click = row["click"]
                mine = of(click["shown"], click["date"], (row["date"] - click["date"]).days)
                mine[2] += 1
                mine[3] += Decimal(row["value"])
        return {key: tuple(values) for key, values in sums.items()}


def _within(known: date, day: date) -> bool:
    return day - timedelta(days=LOOKBACK) <= known <= day


def _utc(row: Row | None) -> datetime | None:
    return row and row["at"].replace(tzinfo=None)


def _query(shop: Shop, sql: str, **values: Any) -> list[tuple[Any, ...]]:
    with warehouse(shop) as engine, engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql), values)]


def _impressions(shop: Shop, day: date) -> Counter[tuple[Any, ...]]:
    """What a reader of ``fct_impressions`` takes for true as of the day."""
    rows = _query(
        shop,
        "select impression_id, impression_at, impression_date, impression_known_date, invalid_reason, user_hash, "
        "case when click_known_date <= :day then click_at end, case when click_known_date <= :day then "
        "click_known_date end, case when conversion_known_date <= :day then conversion_at end, "
        "case when conversion_known_date <= :day then conversion_known_date end, "
        "case when conversion_known_date <= :day then value end "
        "from marts.fct_impressions where impression_known_date <= :day",
        day=day,
    )
    return Counter(rows)


def _sums(shop: Shop, day: date) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    measures = "impressions, clicks, conversions, conversions_value, cost, invalid_impressions, invalid_clicks"
    rows = _query(
        shop,
        "select creative_id, policy_id, impression_date, click_date, conversion_lag_days, "  # noqa: S608 -- our names
        + ", ".join(f"sum({name})" for name in measures.split(", "))
        + " from marts.fct_creative_daily where known_date <= :day group by all",
        day=day,
    )
    return {row[:5]: row[5:] for row in rows}


def _run(shop: Shop, day: date) -> None:
    loading.ingest(shop, day)
    dbt.build(shop, day)


def _agrees(shop: Shop, told: Told, day: date) -> None:
    assert _impressions(shop, day) == Counter(told.impressions_as_of(day))
    assert _sums(shop, day) == told.sums_as_of(day)


def _digests(shop: Shop, day: date | None = None) -> dict[str, str]:
    with warehouse(shop) as engine:
        return digests(engine, day)


@pytest.fixture
def make_random_shop(make_shop: Callable[..., Shop]) -> Callable[..., Shop]:
    def make(**more: Any) -> Shop:
        limits = {"impressions_per_user_day": MOST_IMPRESSIONS}
        days = {"lookback_days": LOOKBACK, "attribution_window_days": WINDOW, "start_day": str(DAYS[0])}
        return make_shop(time_zone=ZONE.key, limits=limits, **days, **more)

    return make


def test_marts_are_what_a_second_telling_says_whatever_the_history(make_random_shop: Callable[..., Shop]) -> None:
    """In order; then with a day missing, two delivered otherwise, the last day run first, and all mended late."""
    files, otherwise = _world(1, 150), _world(2, 150)
    told = Told(files)
    clean, mended = make_random_shop(id="clean"), make_random_shop(id="mended")
    _land(clean, files)
    _run(clean, DAYS[-1])
    for day in DAYS:
        _agrees(clean, told, day)

    first = {key: otherwise[key] if key[0] in DAYS[:2] else rows for key, rows in files.items() if key[0] != DAYS[2]}
    _land(mended, first)
    _run(mended, DAYS[-1])
    _agrees(mended, Told(first), DAYS[-1])
    _land(mended, files)
    _run(mended, DAYS[2])  # later known_dates still hold what the other deliveries made of them
    for day in DAYS[:3]:
        _agrees(mended, told, day)
    assert _digests(mended, DAYS[2]) == _digests(clean, DAYS[2])
    _run(mended, DAYS[-1])
    assert _digests(mended) == _digests(clean)


def test_user_ids_stay_in_the_landing_folder(make_random_shop: Callable[..., Shop]) -> None:
    shop = make_random_shop()
    _land(shop, _world(3, 10))
    _run(shop, DAYS[0])
    assert any(b"SECRET-" in path.read_bytes() for path in _files(shop.landing))
    shutil.rmtree(shop.landing)
    assert not [path for path in _files(shop.home) if b"SECRET-" in path.read_bytes()]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
