"""What the doors' checks judge beyond single rows: counts, shares and ratios of a day, beside the shop's own history.

Every figure is about ``known_date = day`` or a bounded window before it; facts known later are never read, so a
day's result does not depend on the order in which days are loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from statistics import median
from typing import Any

from sqlalchemy import Connection, column, distinct, func, select, table, text

from adloom.shop import Shop

HISTORY_DAYS = 28
"""A day is compared with at most so many known_dates before it …"""
MIN_HISTORY_DAYS = 3
"""… and not at all with fewer: a median of two days is an anecdote."""
MIN_COUNT = 30
"""Counts below it say nothing about a share or a rate: the noise of 30 events is already ± 18 %."""


@dataclass(frozen=True)
class Measured:
    """One figure: ``value`` is judged, ``observed`` is read by a person; without a value it is the reason why."""

    value: float | None
    observed: str
    rows: int | None = None
    unexpected: int | None = None


def skipped(reason: str) -> Measured:
    """A figure that cannot be had today; the check is reported as skipped for ``reason``."""
    return Measured(None, reason)


def share(part: int, whole: int, what: str) -> Measured:
    """``part / whole`` of ``what``."""
    if whole < MIN_COUNT:
        return skipped(f"only {whole} {what}, fewer than {MIN_COUNT}")
    return Measured(part / whole, f"{part / whole:.2%} ({part} of {whole} {what})", whole, part)


def amount(difference: Any, observed: str, rows: int | None = None) -> Measured:
    """A count or difference that should be 0."""
    return Measured(float(difference), observed, rows, int(abs(difference)))


def _against_raw(total: int, name: str, raw: int, repeated: int, erased: int) -> Measured:
    """Rows in a mart minus those that raw gives; those of erased users may be in it until it is built again."""
    missing = min(0, total - (raw - repeated))
    more = max(0, total - (raw - repeated + erased))
    told = f"{total} in {name}, {raw} in raw of which {repeated} repeated"
    return amount(missing + more, told + (f", {erased} more of erased users" if erased else ""), total)


class Facts:
    """Figures of one shop and day, read lazily over one connection; each is read once."""

    def __init__(self, connection: Connection, shop: Shop, day: date) -> None:
        self.connection = connection
        self.shop = shop
        self.day = day

    # -- reading ---------------------------------------------------------------------------------------------

    def rows(self, sql: str, **values: Any) -> list[Mapping[str, Any]]:
        """Rows of a query; ``:day`` is bound, further values by name."""
        found = self.connection.execute(text(sql), {"day": self.day} | values)
        return [dict(row) for row in found.mappings()]

    def row(self, sql: str, **values: Any) -> Mapping[str, Any]:
        return self.rows(sql, **values)[0]

    @property
    def lookback_start(self) -> date:
        return self.day - timedelta(days=self.shop.lookback_days)

    @cached_property
    def history(self) -> list[date]:
        """The known_dates landed before the day, newest first, at most `HISTORY_DAYS` of them."""
        found = self.rows(
            """
            select known_date from adloom.landing_days where known_date < :day and manifest_digest <> ''
            order by known_date desc limit :days
            """,
            days=HISTORY_DAYS,
        )
        return [row["known_date"] for row in found]

    @property
    def history_start(self) -> date:
        return self.history[-1] if self.history else self.day

    def _too_young(self, days: int) -> Measured:
        return skipped(f"{days} of the {MIN_HISTORY_DAYS} days of history it needs")

    # -- landing → raw ---------------------------------------------------------------------------------------

    @cached_property
    def landed(self) -> dict[str, dict[date, int]]:
        """table → known_date → rows loaded, of the day and its history; no entry where nothing was delivered."""
        found = self.rows(
            """
            select table_name, known_date, sum(rows_loaded) as rows_loaded
            from adloom.landing_files
            where known_date between :first and :day and rejected_reason is null
            group by table_name, known_date
            """,
            first=self.history_start,
        )
        landed: dict[str, dict[date, int]] = {}
        for row in found:
            landed.setdefault(row["table_name"], {})[row["known_date"]] = int(row["rows_loaded"])
        return landed

    def day_folder(self) -> Measured:
        """1 when the day has a landing folder (with files or not), else 0."""
        folder = f"known_date={self.day.isoformat()}"
        # The loader leaves an empty digest where a folder has vanished.
        recorded = self.row(
            "select count(*) as days from adloom.landing_days where known_date = :day and manifest_digest <> ''"
        )["days"]
        if recorded or any(path.is_dir() for path in self.shop.landing.glob(f"*/{folder}")):
            return Measured(1, "there is one")
        return Measured(0, f"no landing for {self.day}: none of landing/*/{folder} exists")

    def day_rows(self) -> Measured:
        """Rows the day's landing brought, over all tables."""
        total = sum(days.get(self.day, 0) for days in self.landed.values())
        return Measured(total, f"{total} rows", total)

    def rejected_files(self) -> Measured:
        """Files of the day that could not be used at all."""
        found = self.rows(
            """
            select table_name, source_file, rejected_reason from adloom.landing_files
            where known_date = :day and rejected_reason is not null order by table_name, source_file
            """
        )
        named = "; ".join(f"{row['table_name']}/{row['source_file']}: {row['rejected_reason']}" for row in found[:3])
        return amount(len(found), f"{len(found)} files" + (f" ({named})" if named else ""))

    def rows_against_ledger(self, name: str) -> Measured:
        """Rows in the raw table minus rows the ledger says were loaded."""
        in_raw = self._count(name)
        in_ledger = self.landed.get(name, {}).get(self.day, 0)
        return amount(in_raw - in_ledger, f"{in_raw} in raw, {in_ledger} loaded by the ledger", in_raw)

    def _count(self, name: str) -> int:
        raw = table(name, column("known_date"), schema="raw")
        return int(
            self.connection.execute(
                select(func.count()).select_from(raw).where(raw.c.known_date == self.day)
            ).scalar_one()
        )

    def repeated_ids(self, name: str, key: str) -> Measured:
        """Rows of the day beyond the first of their id."""
        raw = table(name, column("known_date"), column(key), schema="raw")
        query = select(func.count(), func.count(distinct(raw.c[key]))).where(
            raw.c.known_date == self.day, raw.c[key].is_not(None)
        )
        total, different = self.connection.execute(query).one()
        return amount(total - different, f"{total - different} repeated among {total} rows", total)

    def volume(self, name: str) -> Measured:
        """The table's rows of the day relative to the median of its history: the ratio or its inverse, ≥ 1.

        An empty table counts as one row here: `volume_of_rows` leaves it to the check for emptiness.
        """
        days = self.landed.get(name, {})
        today = days.get(self.day, 0)
        before = [rows for known_date, rows in days.items() if known_date < self.day]
        if len(before) < MIN_HISTORY_DAYS:
            return self._too_young(len(before))
        usual = median(before)
        if usual < MIN_COUNT:
            return skipped(f"the usual day has {usual:g} rows, fewer than {MIN_COUNT}")
        ratio = max(today, 1) / usual
        return Measured(max(ratio, 1 / ratio), f"{today} rows, usually {usual:g} (× {today / usual:.2f})", today)

    def volume_of_rows(self, name: str) -> Measured:
        """As `volume`, for days on which the table has rows."""
        if not self.landed.get(name, {}).get(self.day, 0):
            return skipped("no rows: a day without traffic is not a broken one")
        return self.volume(name)

    def clicks_without_impression(self) -> Measured:
        """Share of the day's clicks whose impression is known by neither the day nor the look-back."""
        found = self.row(
            """
            with clicks as (
                select distinct event_id, impression_id from raw.ad_events
                where known_date = :day and event_type = 'click'
            )
            select count(*) as clicks, count(*) filter (where not exists (
                select 1 from raw.ad_events as impressions
                where impressions.known_date between :first and :day
                  and impressions.event_type = 'impression'
                  and coalesce(impressions.impression_id, impressions.event_id) = clicks.impression_id
            )) as orphans
            from clicks
            """,
            first=self.lookback_start,
        )
        return share(found["orphans"], found["clicks"], "clicks")

    def conversions_without_key(self) -> Measured:
        """Conversions that name neither an impression nor a user: nothing they could belong to."""
        found = self.row(
            """
            select count(*) as conversions,
                count(*) filter (where impression_id is null and user_hash is null) as keyless
            from raw.ad_events where known_date = :day and event_type = 'conversion'
            """
        )
        return amount(
            found["keyless"], f"{found['keyless']} of {found['conversions']} conversions", found["conversions"]
        )

    def users_missing(self) -> Measured:
        """How far the share of ad events without a user lies from the median of the history, in either direction."""
        found = self.rows(
            """
            select known_date, count(*) as events, count(*) - count(user_hash) as missing
            from raw.ad_events where known_date between :first and :day group by known_date
            """,
            first=self.history_start,
        )
        return self._shift(found, "missing", "events", "without a user")

    def _shift(self, days: Sequence[Mapping[str, Any]], part: str, whole: str, what: str) -> Measured:
        """Distance of today's share from the median share of the days before."""
        shares = {row["known_date"]: row[part] / row[whole] for row in days if row[whole]}
        today = shares.pop(self.day, None)
        if today is None:
            return skipped(f"no {whole} today")
        if len(shares) < MIN_HISTORY_DAYS:
            return self._too_young(len(shares))
        usual = median(shares.values())
        return Measured(abs(today - usual), f"{today:.1%} {what}, usually {usual:.1%}")

    # -- marts -----------------------------------------------------------------------------------------------

    def _repeated(self, sql: str, what: str) -> Measured:
        """Rows beyond the first of their key; ``sql`` yields ``total`` and ``different``."""
        found = self.row(sql, first=self.lookback_start)
        total, beyond = found["total"], found["total"] - found["different"]
        return amount(beyond, f"{beyond} repeated among {total} {what}", total)

    def impressions_repeated(self) -> Measured:
        return amount(
            self._impressions["total"] - self._impressions["different"],
            f"{self._impressions['total'] - self._impressions['different']} repeated "
            f"among {self._impressions['total']} impressions",
            self._impressions["total"],
        )

    def creative_daily_repeated(self) -> Measured:
        return self._repeated(
            """
            select coalesce(sum(rows), 0) as total, count(*) as different from (
                select count(*) as rows from marts.fct_creative_daily where known_date = :day
                group by creative_id, segment_id, channel, position, placement, policy_id, campaign_id,
                    impression_date, click_date, conversion_lag_days
            ) as keys
            """,
            "rows",
        )

    def behaviours_daily_repeated(self) -> Measured:
        return self._repeated(
            """
            select coalesce(sum(rows), 0) as total, count(*) as different from (
                select count(*) as rows from marts.fct_behaviours_daily where known_date = :day
                group by user_hash, item_id, behaviour, behaviour_date
            ) as keys
            """,
            "rows",
        )

    def items_repeated(self) -> Measured:
        return self._repeated(
            """
            select count(*) as total, count(distinct item_id) as different
            from marts.dim_items where known_date = :day
            """,
            "items",
        )

    def creatives_repeated(self) -> Measured:
        """Creatives first known on the day that are there twice, or were known before."""
        return self._repeated(
            """
            select count(*) as total, count(distinct creative_id) filter (where not exists (
                select 1 from marts.dim_creatives as earlier
                where earlier.known_date < :day and earlier.creative_id = fresh.creative_id
            )) as different
            from marts.dim_creatives as fresh where known_date = :day
            """,
            "creatives",
        )

    def user_segments_repeated(self) -> Measured:
        return self._repeated(
            """
            select count(*) as total, count(distinct user_hash) as different
            from marts.user_segments where known_date = :day
            """,
            "users",
        )

    def more_clicks_than_impressions(self) -> Measured:
        """Keys of the last impression dates with more clicks than impressions."""
        return self._more(
            """
            select count(*) as keys, count(*) filter (where clicks > impressions) as broken from (
                select sum(clicks) as clicks, sum(impressions) as impressions from marts.fct_creative_daily
                where known_date between :first and :day and impression_date between :first and :day
                group by creative_id, segment_id, placement, policy_id, campaign_id, impression_date
            ) as sums
            """,
            "clicks than impressions",
        )

    def more_conversions_than_clicks(self) -> Measured:
        """Keys of the last click dates with more conversions than clicks."""
        return self._more(
            """
            select count(*) as keys, count(*) filter (where conversions > clicks) as broken from (
                select sum(conversions) as conversions, sum(clicks) as clicks from marts.fct_creative_daily
                where known_date between :first and :day and click_date between :first and :day
                group by creative_id, segment_id, placement, policy_id, campaign_id, click_date
            ) as sums
            """,
            "conversions than clicks",
        )

    def _more(self, sql: str, what: str) -> Measured:
        first = self.day - timedelta(days=self.shop.attribution_window_days)
        found = self.row(sql, first=first)
        return amount(found["broken"], f"{found['broken']} of {found['keys']} keys with more {what}", found["keys"])

    @cached_property
    def _impressions(self) -> Mapping[str, Any]:
        """Impressions known on the day, from the view."""
        return self.row(
            """
            select count(*) as total, count(distinct impression_id) as different,
                count(*) filter (where is_valid) as impressions,
                count(*) filter (where not is_valid) as invalid_impressions,
                coalesce(sum(cost) filter (where is_valid), 0) as cost
            from marts.fct_impressions where impression_known_date = :day
            """
        )

    @cached_property
    def _daily(self) -> dict[date, Mapping[str, Any]]:
        """Sums of the increments by known_date, of the day and its history."""
        found = self.rows(
            """
            select known_date, sum(impressions) as impressions, sum(clicks) as clicks,
                sum(conversions) as conversions, sum(conversions_value) as conversions_value,
                sum(cost) as cost, sum(invalid_impressions) as invalid_impressions
            from marts.fct_creative_daily where known_date between :first and :day group by known_date
            """,
            first=self.history_start,
        )
        return {row["known_date"]: row for row in found}

    def _today(self, name: str) -> Any:
        return self._daily.get(self.day, {}).get(name) or 0

    @cached_property
    def _repeated_ad_events(self) -> Mapping[str, Any]:
        """Raw ad events of the day, and how many of them dbt set aside because they had been delivered before.

        Those of erased users count apart (``erased_impressions``), told as dbt's macro `not_erased` tells them.
        """
        return self.row(
            """
            select count(*) filter (where not is_erased) as events,
                count(*) filter (where not is_erased and event_type = 'impression') as impressions,
                count(*) filter (where is_erased and event_type = 'impression') as erased_impressions,
                count(*) filter (where not is_erased and is_repeated) as repeated,
                count(*) filter (where not is_erased and is_repeated and event_type = 'impression')
                    as repeated_impressions
            from (
                select events.event_type, repeated.source_line is not null as is_repeated,
                    exists (
                        select 1 from adloom.privacy_registry as registry
                        where registry.kind = 'erase' and registry.user_hash = events.user_hash
                            and events.occurred_at <= registry.requested_at
                    ) as is_erased
                from raw.ad_events as events
                left join intermediate.int_ad_events__duplicates as repeated
                    on repeated.known_date = :day and repeated.source_file = events.source_file
                    and repeated.source_line = events.source_line
                where events.known_date = :day
            ) as events
            """
        )

    @cached_property
    def _repeated_behaviours(self) -> Mapping[str, Any]:
        return self.row(
            """
            select count(*) filter (where not is_erased) as events, count(*) filter (where is_erased) as erased,
                (select count(*) from intermediate.int_behaviours__duplicates where known_date = :day) as repeated
            from (
                select exists (
                    select 1 from adloom.privacy_registry as registry
                    where registry.kind = 'erase' and registry.user_hash = events.user_hash
                        and events.occurred_at <= registry.requested_at
                ) as is_erased
                from raw.behaviours as events where events.known_date = :day
            ) as events
            """
        )

    def repeated_ad_events(self) -> Measured:
        """Share of the day's ad events that had been delivered before, on this day or an earlier one."""
        return share(self._repeated_ad_events["repeated"], self._repeated_ad_events["events"], "ad events")

    def repeated_behaviours(self) -> Measured:
        """As `repeated_ad_events`, of behaviours."""
        return share(self._repeated_behaviours["repeated"], self._repeated_behaviours["events"], "behaviours")

    def impressions_against_raw(self) -> Measured:
        """Impressions in the mart minus rows of raw that were not set aside as repeated."""
        known = self._repeated_ad_events
        return _against_raw(
            self._impressions["total"],
            "fct_impressions",
            known["impressions"],
            known["repeated_impressions"],
            known["erased_impressions"],
        )

    def behaviours_against_raw(self) -> Measured:
        """Events in the daily sums minus rows of raw that were not set aside as repeated."""
        found = self.row(
            "select coalesce(sum(events), 0) as events from marts.fct_behaviours_daily where known_date = :day"
        )
        known = self._repeated_behaviours
        return _against_raw(
            int(found["events"]), "fct_behaviours_daily", known["events"], known["repeated"], known["erased"]
        )

    def daily_against_impressions(self) -> Measured:
        """How many of the day's sums in `fct_creative_daily` differ from those of `fct_impressions`."""
        clicks = self.row(
            """
            select count(*) as clicks, coalesce(sum(click_cost), 0) as cost from marts.fct_impressions
            where click_known_date = :day and impression_known_date between :first and :day
            """,
            first=self.lookback_start,
        )
        conversions = self.row(
            """
            select count(*) as conversions, coalesce(sum(value), 0) as conversions_value from marts.fct_impressions
            where conversion_known_date = :day and impression_known_date between :first and :day
            """,
            # A conversion looks back for its click, and that click looked back for its impression.
            first=self.day - timedelta(days=2 * self.shop.lookback_days),
        )
        there = {**self._impressions, **clicks, **conversions, "cost": self._impressions["cost"] + clicks["cost"]}
        names = ("impressions", "invalid_impressions", "clicks", "conversions", "conversions_value", "cost")
        different = [
            f"{name} {self._today(name)} against {there[name]}" for name in names if self._today(name) != there[name]
        ]
        return amount(len(different), "; ".join(different) or "all equal", len(names))

    def ctr_against_history(self) -> Measured:
        """CTR of the day relative to that of its history: the ratio or its inverse, ≥ 1."""
        before = [row for known_date, row in self._daily.items() if known_date < self.day and row["impressions"]]
        if len(before) < MIN_HISTORY_DAYS:
            return self._too_young(len(before))
        impressions, clicks = int(self._today("impressions")), int(self._today("clicks"))
        usual = sum(int(row["clicks"]) for row in before) / sum(int(row["impressions"]) for row in before)
        expected = usual * impressions
        if expected < MIN_COUNT:
            return skipped(f"{expected:.1f} clicks expected, fewer than {MIN_COUNT}")
        ratio = max(clicks, 1) / expected
        observed = f"CTR {clicks / impressions:.3%}, usually {usual:.3%} (× {clicks / expected:.2f})"
        return Measured(max(ratio, 1 / ratio), observed, impressions)

    def invalid_share(self) -> Measured:
        """How far the share of invalid impressions lies from its usual value."""
        days = [
            {
                "known_date": row["known_date"],
                "invalid": int(row["invalid_impressions"]),
                "impressions": int(row["invalid_impressions"]) + int(row["impressions"]),
            }
            for row in self._daily.values()
        ]
        return self._shift(days, "invalid", "impressions", "invalid")

    def propensities(self) -> Measured:
        """Mean of 1/propensity relative to the creatives seen, over placements (per policy, campaign, segment).

        With the probabilities under which creatives were really chosen, 1/propensity has the number of creatives
        as its mean, whatever the policy, contextual ones included. Source: Horvitz and Thompson (1952).
        """
        found = self.rows(
            """
            select sum(1 / propensity) as inverse, count(*) as impressions, count(distinct creative_id) as creatives
            from marts.fct_impressions
            where impression_known_date = :day and propensity is not null
            group by campaign_id, policy_id, segment_id, placement
            order by campaign_id, policy_id, segment_id, placement
            """
        )
        impressions = sum(row["impressions"] for row in found)
        if impressions < MIN_COUNT:
            return skipped(f"only {impressions} impressions with a propensity, fewer than {MIN_COUNT}")
        ratio = sum(row["inverse"] for row in found) / sum(row["impressions"] * row["creatives"] for row in found)
        # Rounded, because the order in which the engine adds may move the last bits.
        return Measured(round(ratio, 9), f"{ratio:.3f} over {impressions} impressions", impressions)

    # -- creatives ---------------------------------------------------------------------------------------------

    @cached_property
    def ordered(self) -> dict[str, dict[str, Any]]:
        """brief_id → the brief's content, of the day's orders to write."""
        found = self.rows("select brief_id, content from adloom.briefs where day = :day order by position, brief_id")
        return {row["brief_id"]: json.loads(row["content"]) for row in found}

    @cached_property
    def made(self) -> list[dict[str, Any]]:
        """The day's creatives, refused ones too, each with the number of its findings."""
        found = self.rows(
            """
            select creative.*,
                (select count(*) from adloom.reviews as review
                where review.creative_id = creative.creative_id
                    and review.creative_hash = creative.creative_hash) as findings
            from adloom.creatives as creative where creative.day = :day order by creative.creative_id
            """
        )
        return [row | {"hashtags": json.loads(row["hashtags"] or "[]")} for row in map(dict, found)]

    @property
    def copies(self) -> list[dict[str, Any]]:
        """Those of `made` that were written."""
        return [row for row in self.made if row["headline"] is not None]

    def segment_users(self) -> Measured:
        """Users in the segments of the day minus users known by then."""
        found = self.row(
            """
            select
                (select sum(users) from marts.dim_segments where known_date = :day) as described,
                (select count(distinct user_hash) from marts.user_segments where known_date <= :day) as members
            """
        )
        if found["described"] is None:
            return skipped("the segments have no user counts: a shop without users, or nothing described today")
        described, members = int(found["described"]), found["members"]
        return amount(described - members, f"{described} in dim_segments, {members} in user_segments", members)
