"""The marts that evaluation reads, as SQLAlchemy tables (dbt builds them; DESIGN §7)."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, MetaData, Numeric, Table, Text

MONEY = Numeric(38, 6)
_marts = MetaData(schema="marts")

impressions = Table(
    "fct_impressions",
    _marts,
    Column("impression_date", Date),
    Column("impression_known_date", Date),
    Column("is_valid", Boolean),
    Column("user_hash", Text),
    Column("creative_id", Text),
    Column("segment_id", Text),
    Column("campaign_id", Text),
    Column("policy_id", Text),
    Column("click_at", DateTime),
    Column("click_date", Date),
    Column("click_known_date", Date),
    Column("conversion_at", DateTime),
    Column("conversion_known_date", Date),
)

creative_daily = Table(
    "fct_creative_daily",
    _marts,
    Column("creative_id", Text),
    Column("segment_id", Text),
    Column("policy_id", Text),
    Column("campaign_id", Text),
    Column("impression_date", Date),
    Column("click_date", Date),
    Column("conversion_lag_days", BigInteger),
    Column("known_date", Date),
    Column("impressions", BigInteger),
    Column("clicks", BigInteger),
    Column("conversions", BigInteger),
    Column("conversions_value", MONEY),
    Column("cost", MONEY),
)
