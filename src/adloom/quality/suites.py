"""The checks of each door, as functions: few, each with what it expects and what to do when it is red.

A check looks either at the rows of one day (a native expectation, evaluated by Great Expectations in the warehouse)
or at one figure of `adloom.quality.facts` (an expectation on that figure). ``fail`` stops the day, ``warn`` is shown.

What an odd day means: no landing folder at all is a failure (the delivery did not happen); a folder without rows is
a warning (a shop may have been closed); fewer rows than ever, or many more, is a warning and then a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from operator import methodcaller
from typing import Any, Literal

from adloom.quality import creatives, images
from adloom.quality.facts import Facts, Measured
from adloom.shop import Shop
from adloom.warehouse.contract import TABLES, LandingTable
from adloom.window import day_window

Severity = Literal["fail", "warn"]
DOORS = ("raw", "marts", "creatives")

ORPHAN_CLICKS_WARN, ORPHAN_CLICKS_FAIL = 0.05, 0.5
"""Share of clicks without an impression: a few are late or filtered, half is a broken join key."""
REPEATED_WARN = 0.05
"""Share of a day's events that had been delivered before: retries of a sender are a few, a whole file is more."""
SHIFT_WARN = 0.1
"""A share (users missing, invalid traffic) further than this from its usual value is worth a look."""
PROPENSITY_RATIO_LOW, PROPENSITY_RATIO_HIGH = 0.5, 5.0
"""Mean 1/propensity over the creatives seen; 1 when propensities are right, skewed upwards by rare choices."""

# An unchanged day is neither loaded nor built again, so these say how to make it a changed one.
RELOAD = (
    "raw was changed outside the loader: set the day's manifest_digest in adloom.landing_days to 'reload', "
    "then run `adloom ingest`"
)
REBUILD = (
    "set the day's marts_digest in adloom.landing_days to null and run `adloom build`; "
    "if it stays red the model is wrong"
)


@dataclass(frozen=True)
class Check:
    """One expectation at a door. ``id`` is unique within the door and reads table.column.what."""

    id: str
    table: str
    column: str | None
    severity: Severity
    expectation: str
    expected: str
    next_step: str
    arguments: dict[str, Any] = field(default_factory=dict)
    only_where: tuple[str, str] | None = None
    measure: Callable[[Facts], Measured] | None = None


KEYS = {
    "ad_events": "event_id",
    "behaviours": "event_id",
    "users": "user_hash",
    "items": "item_id",
    "campaigns": "campaign_id",
    "hot_events": "event_id",
}
"""What should occur once a day in a raw table; a user may ask for privacy more than once."""

DAILY_VOLUME = ("ad_events", "behaviours", "users", "items")
"""Tables whose size is comparable from day to day."""


def suite(door: str, shop: Shop, day: date, delivered: Collection[str]) -> list[Check]:
    """The checks of ``door`` for one day; ``delivered``: landing tables with rows on the day or in its history."""
    return list({"raw": _raw, "marts": _marts, "creatives": _creatives}[door](shop, day, delivered))


# -- raw ---------------------------------------------------------------------------------------------------------


def _raw(shop: Shop, day: date, delivered: Collection[str]) -> Iterator[Check]:
    yield _figure(
        "landing.folder.present",
        "landing",
        "fail",
        Facts.day_folder,
        low=1,
        expected=f"a folder landing/<table>/known_date={day.isoformat()}",
        next_step="deliver the day's files, or an empty folder when there was nothing, and run the day again",
    )
    yield _figure(
        "landing.rows.some",
        "landing",
        "warn",
        Facts.day_rows,
        low=1,
        expected="at least one row in the day's files",
        next_step="ask the sender whether the day was really empty",
    )
    yield _figure(
        "landing.files.usable",
        "landing",
        "warn",
        Facts.rejected_files,
        high=0,
        expected="every file of the day can be read",
        next_step="have the named files delivered again; the run reloads a changed day by itself",
    )
    for landing in TABLES.values():
        if landing.name in delivered:
            yield from _landing(shop, day, landing)
    if "ad_events" in delivered:
        yield from _ad_events()


def _landing(shop: Shop, day: date, landing: LandingTable) -> Iterator[Check]:
    """What the landing contract promises of a table: the loader refuses other rows, the door makes sure it did."""
    name = landing.name
    for column in landing.columns:
        if column.required:
            yield _rows(
                name,
                column.raw_name,
                "not_null",
                "fail",
                "ExpectColumnValuesToNotBeNull",
                expected="a value in every row",
                next_step=RELOAD,
            )
        if column.allowed:
            yield _rows(
                name,
                column.raw_name,
                "in_set",
                "fail",
                "ExpectColumnValuesToBeInSet",
                arguments={"value_set": list(column.allowed)},
                expected=f"one of {', '.join(column.allowed)}",
                next_step=RELOAD,
            )
    if landing.time:
        yield from _times(shop, day, name, landing.time)
    if name in KEYS:
        yield _figure(
            f"{name}.{KEYS[name]}.unique",
            name,
            "warn",
            methodcaller("repeated_ids", name, KEYS[name]),
            column=KEYS[name],
            high=0,
            expected="each id once a day",
            next_step="nothing to repair: of an event the first counts, of a description the last; tell the sender",
        )
    yield _figure(
        f"{name}.rows.as_loaded",
        name,
        "fail",
        methodcaller("rows_against_ledger", name),
        low=0,
        high=0,
        expected="as many rows in raw as the ledger says were loaded",
        next_step=RELOAD,
    )
    if name in DAILY_VOLUME:
        yield from _volume(shop, name)


def _times(shop: Shop, day: date, name: str, column: str) -> Iterator[Check]:
    end = _naive(day_window(day, shop.time_zone).end)
    start = _naive(day_window(day - timedelta(days=shop.lookback_days), shop.time_zone).start)
    yield _rows(
        name,
        column,
        "not_in_future",
        "fail",
        "ExpectColumnValuesToBeBetween",
        arguments={"max_value": end, "strict_max": True},
        expected=f"before the end of {day.isoformat()}, {end} UTC",
        next_step="check the clock and the offset at the sender and the shop's time_zone",
    )
    yield _rows(
        name,
        column,
        "within_lookback",
        "warn",
        "ExpectColumnValuesToBeBetween",
        arguments={"min_value": start},
        expected=f"not before {start} UTC, {shop.lookback_days} days of look-back",
        next_step="older events count but are no longer linked or checked for repetition; raise lookback_days if usual",
    )


def _volume(shop: Shop, name: str) -> Iterator[Check]:
    warn, fail = shop.limits.volume_ratio_warn, shop.limits.volume_ratio_fail
    yield _figure(
        f"{name}.rows.volume_warn",
        name,
        "warn",
        methodcaller("volume", name),
        high=warn,
        expected=f"between 1/{warn:g} and {warn:g} times the median day",
        next_step="look for a missing or doubled file, an outage or a campaign",
    )
    yield _figure(
        f"{name}.rows.volume_fail",
        name,
        "fail",
        methodcaller("volume_of_rows", name),
        high=fail,
        expected=f"between 1/{fail:g} and {fail:g} times the median day",
        next_step="look for a missing or doubled file; if the day is right, raise limits.volume_ratio_fail",
    )


def _ad_events() -> Iterator[Check]:
    yield _rows(
        "ad_events",
        "creative_id",
        "on_impressions",
        "fail",
        "ExpectColumnValuesToNotBeNull",
        only_where=("event_type", "impression"),
        expected="every impression names its creative",
        next_step=RELOAD,
    )
    yield _rows(
        "ad_events",
        "impression_id",
        "on_clicks",
        "fail",
        "ExpectColumnValuesToNotBeNull",
        only_where=("event_type", "click"),
        expected="every click names its impression",
        next_step=RELOAD,
    )
    yield _figure(
        "ad_events.impression_id.on_conversions",
        "ad_events",
        "fail",
        Facts.conversions_without_key,
        column="impression_id",
        high=0,
        expected="every conversion names an impression or a user",
        next_step=RELOAD,
    )
    yield _rows(
        "ad_events",
        "propensity",
        "probability",
        "fail",
        "ExpectColumnValuesToBeBetween",
        arguments={"min_value": 0, "strict_min": True, "max_value": 1},
        expected="above 0 and at most 1",
        next_step="have the ad server log the probability with which it chose the shown creative; then reload",
    )
    for severity, limit in (("warn", ORPHAN_CLICKS_WARN), ("fail", ORPHAN_CLICKS_FAIL)):
        yield _figure(
            f"ad_events.impression_id.known_{severity}",
            "ad_events",
            severity,
            Facts.clicks_without_impression,
            column="impression_id",
            high=limit,
            expected=f"at most {limit:.0%} of clicks without an impression known so far",
            next_step="look for a missing impressions file or a changed impression_id",
        )
    yield _figure(
        "ad_events.user_hash.usual",
        "ad_events",
        "warn",
        Facts.users_missing,
        column="user_hash",
        high=SHIFT_WARN,
        expected=f"the share of events without a user within {SHIFT_WARN:.0%} (absolute) of its usual value",
        next_step="ask whether log-in or consent handling changed",
    )


# -- marts -------------------------------------------------------------------------------------------------------

DAILY_KEY = (
    "creative_id, segment_id, channel, position, placement, policy_id, campaign_id, impression_date, click_date, "
    "conversion_lag_days"
)


def _marts(shop: Shop, day: date, delivered: Collection[str]) -> Iterator[Check]:
    for name, measure, key in (
        ("fct_impressions", Facts.impressions_repeated, "impression_id"),
        ("fct_creative_daily", Facts.creative_daily_repeated, "key"),
        ("fct_behaviours_daily", Facts.behaviours_daily_repeated, "key"),
        ("dim_items", Facts.items_repeated, "item_id"),
        ("dim_creatives", Facts.creatives_repeated, "creative_id"),
        ("user_segments", Facts.user_segments_repeated, "user_hash"),
    ):
        yield _figure(
            f"{name}.key.unique", name, "fail", measure, high=0, expected=f"one row per {key}", next_step=REBUILD
        )
    for column in ("creative_id", "segment_id", "placement", "policy_id", "campaign_id", "impression_date"):
        yield _rows(
            "fct_creative_daily",
            column,
            "not_null",
            "fail",
            "ExpectColumnValuesToNotBeNull",
            expected="a value in every row",
            next_step=REBUILD,
        )
    for column in ("impressions", "clicks", "conversions", "invalid_impressions", "invalid_clicks"):
        yield _rows(
            "fct_creative_daily",
            column,
            "not_negative",
            "fail",
            "ExpectColumnValuesToBeBetween",
            arguments={"min_value": 0},
            expected="0 or more",
            next_step=REBUILD,
        )
    yield _figure(
        "fct_creative_daily.clicks.within_impressions",
        "fct_creative_daily",
        "fail",
        Facts.more_clicks_than_impressions,
        column="clicks",
        high=0,
        expected="clicks ≤ impressions per creative, segment, placement, policy, campaign and impression date",
        next_step=REBUILD,
    )
    yield _figure(
        "fct_creative_daily.conversions.within_clicks",
        "fct_creative_daily",
        "fail",
        Facts.more_conversions_than_clicks,
        column="conversions",
        high=0,
        expected="conversions ≤ clicks per creative, segment, placement, policy, campaign and click date",
        next_step=REBUILD,
    )
    yield _figure(
        "fct_impressions.impressions.as_raw",
        "fct_impressions",
        "fail",
        Facts.impressions_against_raw,
        low=0,
        high=0,
        expected="every impression of raw that is neither repeated nor of an erased user, valid or not",
        next_step=REBUILD,
    )
    yield _figure(
        "fct_creative_daily.sums.as_impressions",
        "fct_creative_daily",
        "fail",
        Facts.daily_against_impressions,
        high=0,
        expected="impressions, clicks, conversions, value and cost add up to those of fct_impressions",
        next_step=REBUILD,
    )
    yield _figure(
        "fct_behaviours_daily.events.as_raw",
        "fct_behaviours_daily",
        "fail",
        Facts.behaviours_against_raw,
        column="events",
        low=0,
        high=0,
        expected="every behaviour of raw that is neither repeated nor of an erased user",
        next_step=REBUILD,
    )
    for name, measure in (
        ("fct_impressions", Facts.repeated_ad_events),
        ("fct_behaviours_daily", Facts.repeated_behaviours),
    ):
        yield _figure(
            f"{name}.repeated.few",
            name,
            "warn",
            measure,
            high=REPEATED_WARN,
            expected=f"at most {REPEATED_WARN:.0%} of the day's events delivered before",
            next_step="a file was delivered twice or ids are reused; repeated events are left out of every count",
        )
    warn, fail = shop.limits.volume_ratio_warn, shop.limits.volume_ratio_fail
    for severity, limit in (("warn", warn), ("fail", fail)):
        yield _figure(
            f"fct_creative_daily.ctr.usual_{severity}",
            "fct_creative_daily",
            severity,
            Facts.ctr_against_history,
            column="clicks",
            high=limit,
            expected=f"a CTR between 1/{limit:g} and {limit:g} times that of the last days",
            next_step="look for missing clicks or impressions, bots, or a changed placement",
        )
    yield _figure(
        "fct_creative_daily.invalid_impressions.usual",
        "fct_creative_daily",
        "warn",
        Facts.invalid_share,
        column="invalid_impressions",
        high=SHIFT_WARN,
        expected=f"the share of invalid impressions within {SHIFT_WARN:.0%} (absolute) of its usual value",
        next_step="read invalid_reason in fct_impressions: a bot, a broken client or a wrong pattern",
    )
    yield _figure(
        "fct_impressions.propensity.consistent",
        "fct_impressions",
        "warn",
        Facts.propensities,
        column="propensity",
        low=PROPENSITY_RATIO_LOW,
        high=PROPENSITY_RATIO_HIGH,
        expected=f"1/propensity adds up to {PROPENSITY_RATIO_LOW:g}–{PROPENSITY_RATIO_HIGH:g} times the creatives seen",
        next_step="check that the ad server logs the probability of the shown creative, not a score",
    )
    yield _figure(
        "dim_segments.users.as_members",
        "dim_segments",
        "fail",
        Facts.segment_users,
        column="users",
        low=0,
        high=0,
        expected="members of all segments add up to the users known",
        next_step=REBUILD,
    )


# -- creatives ---------------------------------------------------------------------------------------------------

WRITE_AGAIN = "run `adloom generate-copy` and `adloom record-creatives` for the day again; if it stays red, report it"
REPEATED_COPIES_FAIL = 0.05
"""Share of copies that repeat another one: a few happen where an item has one fact, more is a broken model."""
UNPARSED_WARN = 0.5
"""Share of drawn candidates that are no copies: such a model costs twice what it should."""


def _creatives(shop: Shop, _day: date, _delivered: Collection[str]) -> Iterator[Check]:
    yield _figure(
        "briefs.day.some",
        "briefs",
        "warn",
        creatives.orders,
        low=1,
        expected="at least one brief",
        next_step="read adloom.refused_briefs: it says which facts are missing",
    )
    yield _figure(
        "creatives.brief_id.complete",
        "creatives",
        "fail",
        creatives.incomplete,
        column="brief_id",
        high=0,
        expected="for every brief as many creatives as ordered, each written or with the reason why not",
        next_step=WRITE_AGAIN,
    )
    warn, fail = shop.limits.refused_copies_warn, shop.limits.refused_copies_fail
    for severity, limit in (("warn", warn), ("fail", fail)):
        yield _figure(
            f"creatives.refused_reason.few_{severity}",
            "creatives",
            severity,
            creatives.refused,
            column="refused_reason",
            high=limit,
            expected=f"at most {limit:.0%} of the copies refused",
            next_step="read refused_reason in adloom.creatives: roll the model back, or raise "
            "copywriting.sampling.candidates or limits.refused_copies_fail in the shop's file",
        )
    yield _figure(
        "creatives.candidates.parsed",
        "creatives",
        "warn",
        creatives.unparsed,
        column="candidates_parsed",
        high=UNPARSED_WARN,
        expected=f"at most {UNPARSED_WARN:.0%} of the candidates unreadable",
        next_step="the model does not keep the form: fine-tune it, or choose another",
    )
    for what, measure, expected in (
        ("body.within_limits", creatives.off_limits, "every text within its channel's limits"),
        ("body.no_forbidden_word", creatives.forbidden, "no word that the shop or the brief forbids"),
        ("language.right", creatives.in_another_language, "every copy in the language it is for"),
        ("creative_hash.of_content", creatives.hashes, "every hash is that of the text"),
    ):
        yield _figure(
            f"creatives.{what}",
            "creatives",
            "fail",
            measure,
            column=what.partition(".")[0],
            high=0,
            expected=expected,
            next_step=WRITE_AGAIN,
        )
    for severity, share in (("warn", 0.0), ("fail", REPEATED_COPIES_FAIL)):
        yield _figure(
            f"creatives.body.different_{severity}",
            "creatives",
            severity,
            creatives.repeated,
            column="body",
            high=share,
            expected=f"at most {share:.0%} of the copies say the same as another one" if share else "no copy twice",
            next_step="more candidates, a higher temperature, or fewer variants of one brief",
        )
    for severity, share in (
        ("warn", shop.limits.account_similarity_warn),
        ("fail", shop.limits.account_similarity_stop),
    ):
        yield _figure(
            f"creatives.body.original_{severity}",
            "creatives",
            severity,
            creatives.account_similarity,
            column="body",
            high=share,
            expected=f"at most {share:.0%} of the last seven days' copies resemble an earlier one: platforms throttle "
            "accounts that repeat themselves",
            next_step="read the findings similarity.near_duplicate in adloom.reviews: order other items or scenarios, "
            "fewer variants of one brief, or a higher temperature",
        )
    yield from _images(shop)
    yield _figure(
        "reviews.creative_id.marked",
        "reviews",
        "fail",
        creatives.unmarked,
        column="creative_id",
        high=0,
        expected="a finding for every copy in which the generator saw a claim without a fact",
        next_step="run `adloom record-creatives` for the day again: it reviews every copy",
    )
    yield _figure(
        "approvals.creative_id.not_blocked",
        "approvals",
        "fail",
        creatives.blocked_and_approved,
        column="creative_id",
        high=0,
        expected="no approval of a copy that a review blocks",
        next_step="reject these creatives, or mend the fact they claim in the items table and run the day again",
    )


COMPOSE_AGAIN = "run `adloom compose` and `adloom record-images` for the day again; if it stays red, report it"


def _images(shop: Shop) -> Iterator[Check]:
    for what, measure, expected in (
        ("format.complete", images.missing, "every ordered image, or a finding that says why there is none"),
        ("checks.passed", images.unchecked, "every image of its format's size and measured, nothing too small or pale"),
        ("label.read_back", images.unlabelled, "in every file the AI label of its creative and of this shop"),
        ("digest.of_file", images.changed, "every file as it was when it was checked and labelled"),
    ):
        yield _figure(
            f"assets.{what}",
            "assets",
            "fail",
            measure,
            column=what.partition(".")[0],
            high=0,
            expected=expected,
            next_step=COMPOSE_AGAIN,
        )
    limit = shop.limits.refused_copies_warn
    yield _figure(
        "assets.creative_id.few_refused",
        "assets",
        "warn",
        images.refused,
        column="creative_id",
        high=limit,
        expected=f"at most {limit:.0%} of the creatives without a proper image",
        next_step="read the findings image.* in adloom.reviews: they name the items and their files",
    )


# -- building blocks ---------------------------------------------------------------------------------------------


def _rows(
    name: str,
    column: str,
    what: str,
    severity: Severity,
    expectation: str,
    *,
    arguments: dict[str, Any] | None = None,
    expected: str,
    next_step: str,
    only_where: tuple[str, str] | None = None,
) -> Check:
    """An expectation on the day's rows of a table."""
    return Check(
        id=f"{name}.{column}.{what}",
        table=name,
        column=column,
        severity=severity,
        expectation=expectation,
        expected=expected,
        next_step=next_step,
        arguments={"column": column} | (arguments or {}),
        only_where=only_where,
    )


def _figure(
    check_id: str,
    name: str,
    severity: str,
    measure: Callable[[Facts], Measured],
    *,
    expected: str,
    next_step: str,
    column: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Check:
    """An expectation on one figure of the day."""
    return Check(
        id=check_id,
        table=name,
        column=column,
        severity="fail" if severity == "fail" else "warn",
        expectation="ExpectColumnMaxToBeBetween",
        expected=expected,
        next_step=next_step,
        arguments={"column": check_id, "min_value": low, "max_value": high},
        measure=measure,
    )


def _naive(instant: datetime) -> datetime:
    """As the warehouse keeps instants: UTC without an offset."""
    return instant.astimezone(UTC).replace(tzinfo=None)
