"""What is known by the end of a day and a brief may be made from; the only place here that reads the warehouse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from math import floor, log10
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, select, text

from adloom.audience.naming import Names, read_names, split_path
from adloom.audience.portraits import Affinity, Portrait, read_affinities, read_portraits
from adloom.briefs.describing import LANGUAGE_NAMES, Item, clean, is_in_language
from adloom.errors import AdloomError
from adloom.review.safety import personal_data
from adloom.shop import Shop
from adloom.strategy.posterior import DEFAULT_CTR, shrunk_rate
from adloom.warehouse import ledger
from adloom.window import Window, day_window

POOL = 20_000
"""Items briefs are made of: the most looked at. Far above any day's budget, far below what fits into memory."""
POPULAR_DAYS = 60
POPULAR_HALF_LIFE = 14.0
LIST_PRICE_DAYS = 30
"""A price that was not asked for so long is no price an item was reduced from."""
CTR_DAYS = 28
SHOWN_REFUSALS = 20
"""Items refused one by one for a reason; the others are counted together."""
LONGEST_ATTRIBUTES = 100_000
"""Characters of JSON that are looked into."""

# The last delivery of every item by the day, and how much it was looked at and bought lately. Whole millionths: sums do
# not depend on the order of rows.
_ITEMS = """
    with latest as (
        select
            item_id,
            arg_max(
                struct_pack(
                    title := title, category := category, brand := brand, price := price, list_price := list_price,
                    currency := currency, attributes := attributes, stock := stock
                ),
                known_date
            ) as item
        from marts.dim_items
        where known_date <= :day
        group by item_id
    ),

    looked_at as (
        select
            item_id,
            sum(
                least(events, 5)
                * case behaviour when 'view' then 1 when 'favourite' then 3 when 'cart' then 4 when 'purchase' then 6
                    else 0 end
                * cast(round(1000000 * pow(0.5, (cast(:day as date) - behaviour_date) / :half_life)) as bigint)
            ) as points,
            count(distinct user_hash) filter (where behaviour = 'view') as viewers,
            count(distinct user_hash) filter (where behaviour = 'purchase') as buyers
        from marts.fct_behaviours_daily
        where
            known_date <= :day
            and behaviour_date <= :day
            and behaviour_date > cast(:day as date) - :popular_days
            and item_id is not null
        group by item_id
    ),

    judged as (
        select
            latest.item_id,
            latest.item.title as title,
            latest.item.category as category,
            latest.item.brand as brand,
            latest.item.price as price,
            latest.item.list_price as list_price,
            latest.item.currency as currency,
            case
                when length(cast(latest.item.attributes as varchar)) <= :longest
                    then cast(latest.item.attributes as varchar)
            end as attributes,
            coalesce(looked_at.points, 0) as points,
            coalesce(looked_at.viewers, 0) as viewers,
            coalesce(looked_at.buyers, 0) as buyers,
            case
                when erased.subject is not null then 'was erased'
                when trim(coalesce(latest.item.title, '')) = '' then 'has no title'
                when trim(coalesce(latest.item.category, ''), ' /') = '' then 'has no category'
                when latest.item.stock = 0 then 'is out of stock'
                when length(cast(latest.item.attributes as varchar)) > :longest
                    then 'has attributes of more than ' || :longest || ' characters'
            end as reason
        from latest
        left join looked_at on latest.item_id = looked_at.item_id
        left join (
            select subject from adloom.erasures where kind = 'item' and requested_on <= :day
        ) as erased on latest.item_id = erased.subject
    )
"""
_USABLE = text(
    f"""
    {_ITEMS}
    select judged.*, asked.item_id is not null as was_asked
    from (
        select * from judged where reason is null order by points desc, item_id limit :pool
    ) as judged
    left join (
        select distinct item_id, price, currency
        from marts.dim_items
        where known_date <= :day and known_date > cast(:day as date) - :list_price_days
    ) as asked
        on
            judged.item_id = asked.item_id
            and judged.list_price = asked.price
            and judged.currency is not distinct from asked.currency
    order by judged.points desc, judged.item_id
    """  # noqa: S608 -- constants of this module
)
_UNUSABLE = text(
    f"""
    {_ITEMS}
    select reason, count(*) as items, list(item_id order by points desc, item_id)[1:{SHOWN_REFUSALS}] as examples
    from judged
    where reason is not null
    group by reason
    order by reason
    """  # noqa: S608
)
_CAMPAIGNS = text(
    """
    select *
    from staging.stg_landing__campaigns
    where known_date <= :day
    qualify row_number() over (
        partition by campaign_id order by known_date desc, source_file desc, source_line desc
    ) = 1
    order by campaign_id
    """
)
_EVENTS = text(
    """
    select *
    from staging.stg_landing__hot_events
    where known_date <= :day
    qualify row_number() over (partition by event_id order by known_date desc, source_file desc, source_line desc) = 1
    order by event_id
    """
)


@dataclass(frozen=True)
class Campaign:
    """An offer that is on tomorrow. Empty ``items``, ``categories``, ``channels``, ``segments``: all of them."""

    campaign_id: str
    scenario: str
    name: dict[str, str]
    offer: dict[str, str]
    starts_on: date | None
    ends_on: date | None
    items: frozenset[str]
    categories: tuple[str, ...]
    channels: frozenset[str]
    segments: frozenset[str]


@dataclass(frozen=True)
class Event:
    """Something people talk about tomorrow; title and keywords per language."""

    event_id: str
    title: dict[str, str]
    keywords: dict[str, tuple[str, ...]]
    ends_on: date | None = None


Family = tuple[str, str, str, str]
"""segment, scenario, channel, language"""


@dataclass(frozen=True)
class Clicks:
    """What creatives got so far: (impressions, clicks) per family and in the whole shop."""

    shop: tuple[int, int] = (0, 0)
    families: Mapping[Family, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def _rates(self) -> dict[Any, float]:
        return {}

    @cached_property
    def _parents(self) -> Counter[Any]:
        sums: Counter[Any] = Counter()
        for (_, scenario, channel, _), (impressions, clicks) in self.families.items():
            sums[scenario, channel, "impressions"] += impressions
            sums[scenario, channel, "clicks"] += clicks
        return sums

    def ctr(self, segment_id: str, scenario: str, channel: str) -> float:
        """The CTR of such creatives, leaning on that of scenario and channel, which leans on the shop's."""
        key = (segment_id, scenario, channel)
        if key not in self._rates:
            shop = float(shrunk_rate(self.shop[1], self.shop[0], DEFAULT_CTR))
            wide = self._parents[scenario, channel, "clicks"], self._parents[scenario, channel, "impressions"]
            parent = float(shrunk_rate(*wide, shop))
            impressions, clicks = self.counts(*key)
            self._rates[key] = float(shrunk_rate(clicks, impressions, parent))
        return self._rates[key]

    def counts(self, segment_id: str, scenario: str, channel: str) -> tuple[int, int]:
        """(impressions, clicks) in both languages."""
        found = [self.families.get((segment_id, scenario, channel, one), (0, 0)) for one in LANGUAGE_NAMES]
        return sum(one[0] for one in found), sum(one[1] for one in found)


@dataclass(frozen=True)
class Unusable:
    """Items that no brief can be about, whatever the language."""

    reason: str
    items: int
    examples: tuple[str, ...]


@dataclass
class Known:
    """Everything briefs of a day are made from."""

    items: list[Item]
    unusable: list[Unusable]
    names: Names
    portraits: list[Portrait]
    affinities: list[Affinity]
    campaigns: list[Campaign]
    events: list[Event]
    clicks: Clicks
    unpriced: dict[str, int]
    """Campaign that begins or ends overnight → items whose price is therefore not said."""


def read_known(connection: Connection, shop: Shop, day: date) -> Known:
    """The facts known by the end of ``day``. Raises `AdloomError` where portraits of the day were never made."""
    try:
        portraits = read_portraits(connection, day)
    except AdloomError as error:
        raise AdloomError(
            f"{shop.id}: {error.message}", f"run: adloom portraits --shop {shop.id} --day {day}"
        ) from error
    bound = {
        "day": day,
        "half_life": POPULAR_HALF_LIFE,
        "popular_days": POPULAR_DAYS,
        "longest": LONGEST_ATTRIBUTES,
    }
    rows = connection.execute(_USABLE, bound | {"pool": POOL, "list_price_days": LIST_PRICE_DAYS}).mappings().all()
    unusable = [Unusable(row.reason, row.items, tuple(row.examples)) for row in connection.execute(_UNUSABLE, bound)]
    today, tomorrow = (day_window(one, shop.time_zone) for one in (day, day + timedelta(days=1)))
    campaigns = connection.execute(_CAMPAIGNS, {"day": day}).mappings().all()
    events = connection.execute(_EVENTS, {"day": day}).mappings().all()
    turning = [_campaign(row, shop) for row in campaigns if _is_on(row, today) != _is_on(row, tomorrow)]
    items, unpriced = _without_passing_prices(_items(rows, shop.portraits.min_moved_users), turning)
    return Known(
        items=items,
        unusable=unusable,
        names=read_names(connection, shop, day),
        portraits=portraits,
        affinities=read_affinities(connection, day),
        campaigns=[_campaign(row, shop) for row in campaigns if _is_on(row, tomorrow)],
        events=[_event(row, shop) for row in events if _is_on(row, tomorrow)],
        clicks=_clicks(connection, day),
        unpriced=unpriced,
    )


def is_within(category: str, path: str) -> bool:
    """Is ``category`` the ``path`` itself or somewhere below it?"""
    return category == path or category.startswith(path + "/")


def covers(campaign: Campaign, item: Item) -> bool:
    """Does the offer hold for the item? A list of items is the whole answer: categories beside it only describe it."""
    if campaign.items:
        return item.item_id in campaign.items
    return not campaign.categories or any(is_within(item.category, one) for one in campaign.categories)


# --- items -------------------------------------------------------------------------------------------------------


def _items(rows: Sequence[RowMapping], together: int) -> list[Item]:
    points = [_two_digits(int(row["points"]) / 1e6) for row in rows]
    mean = sum(points) / len(points) if any(points) else 1.0
    return [
        Item(
            item_id=row["item_id"],
            title=row["title"],
            category="/".join(split_path(row["category"])),
            brand=row["brand"] or "",
            price=_decimal(row["price"]),
            list_price=_decimal(row["list_price"]),
            currency=row["currency"] or "",
            attributes=row["attributes"] or "",
            was_asked=row["was_asked"],
            # Leans on the average item as if everybody had seen one of it, too.
            popularity=round((own + mean) / (2 * mean), 3),
            viewers=row["viewers"] // together * together,
            buyers=row["buyers"] // together * together,
        )
        for row, own in zip(rows, points, strict=True)
        if split_path(row["category"])
    ]


def _without_passing_prices(items: list[Item], turning: Sequence[Campaign]) -> tuple[list[Item], dict[str, int]]:
    """Copy is shown tomorrow: today's price may be gone where a campaign of the item begins or ends overnight."""
    kept, unpriced = [], Counter[str]()
    for item in items:
        campaign = next((one for one in turning if covers(one, item)), None)
        if campaign is None or item.price is None:
            kept.append(item)
        else:
            unpriced[campaign.campaign_id] += 1
            kept.append(replace(item, price=None))
    return kept, dict(unpriced)


def _two_digits(value: float) -> float:
    """Two significant digits: what one user does is not to be read off a published figure."""
    return round(value, 1 - floor(log10(value))) if value > 0 else 0.0


def _decimal(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


# --- campaigns and events ----------------------------------------------------------------------------------------


def _is_on(row: RowMapping, window: Window) -> bool:
    """At some time of the day; staged times are UTC without saying so. A missing one is no bound."""
    starts_at, ends_at = row["starts_at"] or datetime.min, row["ends_at"] or datetime.max
    return bool(starts_at < window.end.replace(tzinfo=None) and ends_at > window.start.replace(tzinfo=None))


def _local_date(value: datetime | None, shop: Shop, *, is_end: bool = False) -> date | None:
    """An end at midnight is the end of the day before."""
    if value is None:
        return None
    moment = value.replace(tzinfo=UTC) - timedelta(microseconds=1 if is_end else 0)
    return moment.astimezone(shop.zone).date()


def _listed(value: str | None) -> tuple[str, ...]:
    """A list as landing keeps it: a JSON array, or joined by semicolons."""
    if not value:
        return ()
    if value.lstrip().startswith("["):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = [value]
        return tuple(one.strip() for one in found if isinstance(one, str) and one.strip())
    return tuple(one.strip() for one in value.split(";") if one.strip())


def _translations(value: str | None) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(value) if value else {}
    except (ValueError, RecursionError):
        return {}
    return {key: one for key, one in found.items() if isinstance(one, dict)} if isinstance(found, dict) else {}


def _per_language(row: RowMapping, column: str, shop: Shop) -> dict[str, str]:
    """Language → the cleaned text of a column, where there is one that is in the language."""
    translations = _translations(row["translations"])
    found: dict[str, str] = {}
    for language in LANGUAGE_NAMES:
        value = row[column] if language == shop.language else translations.get(language, {}).get(column)
        said = clean(value) if isinstance(value, str) else ""
        if said and is_in_language(said, language) and not personal_data(said, language):
            found[language] = said
    return found


def _campaign(row: RowMapping, shop: Shop) -> Campaign:
    return Campaign(
        campaign_id=row["campaign_id"],
        scenario=row["scenario"],
        name=_per_language(row, "name", shop),
        offer=_per_language(row, "offer", shop),
        starts_on=_local_date(row["starts_at"], shop),
        ends_on=_local_date(row["ends_at"], shop, is_end=True),
        items=frozenset(_listed(row["items"])),
        categories=tuple("/".join(split_path(one)) for one in _listed(row["categories"])),
        channels=frozenset(_listed(row["channels"])),
        segments=frozenset(_listed(row["segments"])),
    )


def _event(row: RowMapping, shop: Shop) -> Event:
    translations = _translations(row["translations"])
    keywords: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGE_NAMES:
        if language == shop.language:
            given: Sequence[Any] = _listed(row["keywords"])
        else:
            value = translations.get(language, {}).get("keywords")
            given = value if isinstance(value, list) else _listed(value) if isinstance(value, str) else ()
        words = [clean(one) for one in given if isinstance(one, str)]
        keywords[language] = tuple(one for one in dict.fromkeys(words) if one and is_in_language(one, language))
    ends_on = _local_date(row["ends_at"], shop, is_end=True)
    return Event(row["event_id"], _per_language(row, "title", shop), keywords, ends_on)


# --- what creatives got ------------------------------------------------------------------------------------------


def _clicks(connection: Connection, day: date) -> Clicks:
    rates, creatives = ledger.evaluations, ledger.creatives
    of_day = and_(rates.c.day == day, rates.c.window_days == CTR_DAYS)
    whole = connection.execute(
        select(func.sum(rates.c.impressions), func.sum(rates.c.clicks)).where(of_day, rates.c.grain == "overall")
    ).one()
    family = (rates.c.segment_id, creatives.c.scenario, creatives.c.channel, creatives.c.language)
    rows = connection.execute(
        select(*family, func.sum(rates.c.impressions), func.sum(rates.c.clicks))
        .join_from(rates, creatives, rates.c.creative_id == creatives.c.creative_id)
        .where(of_day, rates.c.grain == "creative_segment", creatives.c.day <= day)
        .group_by(*family)
        .order_by(*family)
    )
    return Clicks(
        (int(whole[0] or 0), int(whole[1] or 0)),
        {(row[0], row[1], row[2], row[3]): (int(row[4]), int(row[5])) for row in rows},
    )
