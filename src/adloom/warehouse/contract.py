"""The landing contract as data: which tables a shop may deliver, their columns and the rules for a row.

`loading` creates the ``raw`` tables from it and judges every delivered row by it; ``docs/landing_contract.md``
says the same in words. SQL fragments here hold only names and constants of this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

VERSION = 2  # part of every day's manifest digest: a changed contract loads every day again


class Kind(Enum):
    """What a column holds; the value is its SQL type in ``raw``."""

    TEXT = ("VARCHAR", "text")
    LIST = ("VARCHAR", "a list or text")  # lists arrive as JSON arrays or joined by ';' and are kept as given
    USER = ("VARCHAR", "a user id")
    TIME = ("TIMESTAMP", "a time in ISO 8601 with an offset")
    NUMBER = ("DOUBLE", "a number")
    MONEY = ("DECIMAL(18,6)", "a number")
    COUNT = ("BIGINT", "a whole number")
    SWITCH = ("BOOLEAN", "on or off")
    JSON = ("JSON", "JSON")

    @property
    def sql_type(self) -> str:
        return self.value[0]

    @property
    def words(self) -> str:
        return self.value[1]


@dataclass(frozen=True)
class Column:
    """One column of a delivered table."""

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    allowed: tuple[str, ...] = ()
    range_sql: str = ""  # what a present value must satisfy
    range_words: str = ""
    # How the engine keeps a text column that has millions of rows a day: named here, because trying all its ways costs
    # as much as writing. A few values repeated; values of their own; user hashes, in which nothing repeats.
    storage: Literal["", "dictionary", "fsst", "uncompressed"] = ""

    @property
    def raw_name(self) -> str:
        """Its name in ``raw``: a user id never arrives there, only its keyed hash."""
        return "user_hash" if self.kind is Kind.USER else self.name

    @property
    def ddl(self) -> str:
        storage = f" using compression {self.storage}" if self.storage else ""
        return f'"{self.raw_name}" {self.kind.sql_type}{storage}'


@dataclass(frozen=True)
class LandingTable:
    """One table of the contract.

    ``time`` names the column that says when the fact happened; it may not lie after the end of ``known_date``.
    ``needs`` are (SQL condition of a bad row, reason) over the columns by name, beyond what columns say themselves.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    time: str | None = None
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.required)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def user(self) -> str | None:
        """The column with the user id, if the table has one."""
        return next((column.name for column in self.columns if column.kind is Kind.USER), None)

    @property
    def ddl(self) -> str:
        """The statement that creates its table in ``raw`` where it is missing."""
        columns = [column.ddl for column in self.columns]
        kept = [
            "extra JSON",
            "known_date DATE NOT NULL",
            "source_file VARCHAR NOT NULL using compression dictionary",
            "source_line BIGINT NOT NULL",
        ]
        return f"create table if not exists raw.{self.name} ({', '.join(columns + kept)})"


def _money(name: str) -> Column:
    return Column(name, Kind.MONEY, range_sql=f"{name} >= 0", range_words="must not be negative")


def _count(name: str) -> Column:
    # A day's sums must fit: a billion pieces in one event is a broken counter, not a purchase.
    return Column(
        name, Kind.COUNT, range_sql=f"{name} between 0 and 1000000000", range_words="must be from 0 to 1,000,000,000"
    )


AD_EVENTS = LandingTable(
    "ad_events",
    "one event",
    (
        Column("event_id", required=True, storage="fsst"),
        Column("event_type", required=True, allowed=("impression", "click", "conversion"), storage="dictionary"),
        Column("occurred_at", Kind.TIME, required=True),
        Column("creative_id", storage="dictionary"),
        Column("impression_id", storage="fsst"),
        Column("user_id", Kind.USER, storage="uncompressed"),
        Column("segment_id", storage="dictionary"),
        Column("plan_id", storage="dictionary"),
        Column("campaign_id", storage="dictionary"),
        Column("policy_id", storage="dictionary"),
        Column("channel", storage="dictionary"),
        Column("position", storage="dictionary"),
        Column(
            "propensity",
            Kind.NUMBER,
            range_sql="propensity > 0 and propensity <= 1",
            range_words="must be above 0 and at most 1",
        ),
        _money("value"),
        _money("cost"),
        Column("currency", storage="dictionary"),
        Column("user_agent", storage="dictionary"),
        Column("ip_prefix", storage="fsst"),
    ),
    time="occurred_at",
    needs=(
        ("event_type = 'impression' and creative_id is null", "an impression needs creative_id"),
        ("event_type = 'click' and impression_id is null", "a click needs impression_id"),
        (
            "event_type = 'conversion' and impression_id is null and user_id is null",
            "a conversion needs impression_id or user_id",
        ),
    ),
)

BEHAVIOURS = LandingTable(
    "behaviours",
    "one event",
    (
        Column("event_id", required=True, storage="fsst"),
        Column("user_id", Kind.USER, required=True, storage="uncompressed"),
        Column(
            "behaviour",
            required=True,
            allowed=("view", "search", "favourite", "cart", "purchase"),
            storage="dictionary",
        ),
        Column("occurred_at", Kind.TIME, required=True),
        Column("item_id", storage="fsst"),
        Column("query", storage="fsst"),
        _count("quantity"),
        _money("price"),
    ),
    time="occurred_at",
)

USERS = LandingTable(
    "users",
    "one user as of that day",
    (
        Column("user_id", Kind.USER, required=True),
        Column("gender"),
        Column("age_band"),
        Column("region"),
        Column("interest_tags", Kind.LIST),
        Column("personalisation", Kind.SWITCH),
    ),
)

ITEMS = LandingTable(
    "items",
    "one item as of that day",
    (
        Column("item_id", required=True),
        Column("title"),
        Column("category"),
        Column("brand"),
        _money("price"),
        _money("list_price"),
        Column("currency"),
        Column("attributes", Kind.JSON),
        Column("image"),
        _count("stock"),
    ),
)

CAMPAIGNS = LandingTable(
    "campaigns",
    "one campaign as of that day",
    (
        Column("campaign_id", required=True),
        Column("scenario", required=True),
        Column("name"),
        Column("starts_at", Kind.TIME),
        Column("ends_at", Kind.TIME),
        Column("offer"),
        Column("items", Kind.LIST),
        Column("categories", Kind.LIST),
        Column("channels", Kind.LIST),
        Column("segments", Kind.LIST),
        _money("budget"),
    ),
)

HOT_EVENTS = LandingTable(
    "hot_events",
    "one event",
    (
        Column("event_id", required=True),
        Column("title", required=True),
        Column("keywords", Kind.LIST),
        Column("starts_at", Kind.TIME),
        Column("ends_at", Kind.TIME),
        Column("source"),
    ),
)

PRIVACY_REQUESTS = LandingTable(
    "privacy_requests",
    "one request",
    (
        Column("user_id", Kind.USER, required=True),
        Column("kind", required=True, allowed=("erase", "opt_out", "opt_in")),
        Column("requested_at", Kind.TIME, required=True),
    ),
    time="requested_at",
)

TABLES: dict[str, LandingTable] = {
    table.name: table for table in (AD_EVENTS, BEHAVIOURS, USERS, ITEMS, CAMPAIGNS, HOT_EVENTS, PRIVACY_REQUESTS)
}
FORMATS = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
