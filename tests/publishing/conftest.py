"""A shop with two placements and a week of hand-written marts, and creatives of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from adloom.creative import Copy
from adloom.publishing import approving
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

FIRST = date(2024, 3, 1)


class PlannedShop:
    """A shop with evidence for seven days from `FIRST`; nothing is planned yet."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)
        self.execute(
            "create schema marts;"
            "create table marts.fct_impressions (impression_id text, impression_at timestamp, impression_date date, "
            "impression_known_date date, is_valid boolean, user_hash text, creative_id text, segment_id text, "
            "campaign_id text, policy_id text, placement text, propensity double, click_known_date date);"
            "create table marts.dim_creatives as select unnest(['a', 'b', 'c']) as creative_id, "
            "'spring' as campaign_id, date '2024-03-01' as known_date;"
            "create table marts.fct_creative_daily as select creative_id, 'all' as segment_id, placement, "
            "'default' as policy_id, 'spring' as campaign_id, shown as impression_date, shown as known_date, "
            "1000 as impressions, ascii(creative_id) - 90 as clicks "
            "from marts.dim_creatives, (select unnest(['home:1', 'home:2']) as placement), "
            "(select unnest(range(date '2024-03-01', date '2024-03-08', interval 1 day))::date as shown)"
        )

    def day(self, number: int) -> date:
        return FIRST + timedelta(days=number - 1)

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.shop.home / "warehouse.duckdb")) as connection:
            return connection.execute(statement).fetchall()

    def add(self, table: Any, **row: Any) -> None:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            connection.execute(table.insert(), [row])

    def write(self, name: str, number: int = 7, *, headline: str = "", words: str = "", **changes: Any) -> str:
        """A creative of ours, made on day ``number``; ``words``: the portrait it was written from. Returns its hash."""
        copy = Copy(headline=headline or f"Tea of {name}", body="Boils while you find the cup.", call_to_action="Brew")
        brief = {"segment_words": words, "item": {"title": "Kettle"}}
        brief |= {"offer": changes.pop("offer", None), "event": changes.pop("event", None)}
        common = {"day": self.day(number), "brief_id": f"brief of {name}", "item_id": "k", "scenario": "recommendation"}
        common |= {"language": "en", "channel": "home", "segment_id": "all"}
        common |= changes
        self.add(ledger.briefs, **common, position=0, chosen_for="value", content=json.dumps(brief))
        self.add(
            ledger.creatives,
            **common,
            **copy.model_dump(exclude={"hashtags"}),
            creative_id=name,
            creative_hash=copy.digest,
            hashtags="[]",
            variant=0,
            candidates=1,
            candidates_parsed=1,
            model_id="base",
            prompt_digest="p",
            seed=0,
        )
        return copy.digest

    def draw(self, name: str, content: bytes = b"a picture") -> Path:
        """A picture of the creative, on disk and in the ledger."""
        path = self.shop.creatives / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.add(
            ledger.assets,
            creative_id=name,
            format="feed_1080x1080",
            day=self.day(7),
            kind="image",
            path=path.name,
            digest=hashlib.sha256(content).hexdigest(),
            width=1080,
            height=1080,
            bytes=len(content),
            template="plain",
            picture_source="own_photo",
            picture_digest="p",
            checks="{}",
            label="{}",
        )
        return path

    def review(self, name: str, creative_hash: str, severity: str, number: int = 7) -> None:
        about = {"rule_id": "law.absolute", "rule_version": "1", "part": "body", "span": "best", "reason": "a reason"}
        day = self.day(number)
        self.add(ledger.reviews, creative_id=name, creative_hash=creative_hash, day=day, severity=severity, **about)

    def settle(self, number: int = 7) -> approving.Settled:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            return approving.settle(connection, self.shop, self.day(number))

    def waiting(self, number: int = 7) -> dict[str, approving.Waiting]:
        with warehouse(self.shop) as engine, engine.connect() as connection:
            return {one.creative_id: one for one in approving.waiting(connection, self.day(number))}

    def decide(self, *approved: str, number: int = 7, hour: int = 9, **changes: Any) -> approving.Decided:
        """Somebody answers about everything that waits, or about ``shown``."""
        shown = changes.pop("shown", None) or {name: one.content_hash for name, one in self.waiting(number).items()}
        at = datetime(2024, 3, 8, hour)
        with warehouse(self.shop) as engine, engine.begin() as connection:
            return approving.decide(
                connection, self.day(number), shown, approved, changes.pop("by", "Li"), "because", at, **changes
            )


@pytest.fixture
def make_planned(make_shop: Callable[..., Shop]) -> Callable[..., PlannedShop]:
    """A planned shop made with the given overrides."""

    def make(**overrides: Any) -> PlannedShop:
        return PlannedShop(make_shop(**overrides))

    return make


@pytest.fixture
def planned(make_planned: Callable[..., PlannedShop]) -> PlannedShop:
    return make_planned()
