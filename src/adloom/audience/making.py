"""Makes the portraits of a day: dbt shapes users' facts, this decides segments, descriptions and affinities.

The portraits of D follow from those of the day before and the facts known by the end of D (`segments` says why they
cannot do without the day before). Days are therefore made in order: every known_date up to D whose portraits are
missing, or were made from another landing, is made first. ``portrait_days`` holds what each was made from, so a second
run does nothing, days may be asked for in any order, and a killed run is finished by the next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, Text, func, insert, literal, select, text

from adloom.audience import affinities, segments
from adloom.audience.naming import Names, read_names
from adloom.audience.portraits import ALL, NOT_PERSONALISED
from adloom.audience.words import Content, Named, words
from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.dbt import project_digest, run_dbt
from adloom.warehouse.engine import warehouse

log = logging.getLogger(__name__)

METHOD = 1
"""Raised when a change of this room makes other portraits of the same facts."""
DAYS_AT_ONCE = 16
"""Days whose facts dbt shapes in one run; more would need more memory."""
MAJORITY = 0.6
"""Share of a segment's users of whom a price level or life cycle must hold to be said of it."""
INTERESTS, RECENT_ITEMS = 5, 3
WEIGHT_STEPS = 20
"""Interests are published in twentieths."""
CLEAR, CLEAR_WIDE = 0.15, 0.3
"""Share of a segment's interest from which a category (one level, or the first) is said to be one."""

SHAPED = ("int_items__described", "int_users__interests", "int_users__profiled")
_COMBINATION = ("segment_id", "interest_1", "interest_2", "price_level", "life_cycle", "engagement")

_ways = Table(
    "portrait_ways",
    MetaData(),
    *(Column(name, Text) for name in ("counted_in", *_COMBINATION, "to_segment")),
    prefixes=["temporary"],
)


@dataclass
class PortraitReport:
    """What `make_portraits` did: the days it made, and the segments of the day that was asked for."""

    days: list[date] = field(default_factory=list)
    segments: list[tuple[str, int, str]] = field(default_factory=list)
    """(segment, users, words in the shop's language)"""
    affinities: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [f"{users:>8,}  {segment_id}  {said}".rstrip() for segment_id, users, said in self.segments]
        made = f"{len(self.days)} days made in {self.seconds:.1f} s" if self.days else "nothing had changed"
        return "\n".join([*lines, f"{len(self.segments)} segments, {self.affinities} affinities; {made}"])


def make_portraits(shop: Shop, day: date) -> PortraitReport:
    """Replace the portraits and affinities of ``day`` by what the facts known by then say.

    The marts must be built. Raises `AdloomError` where nothing is known by ``day``.
    """
    began = time.monotonic()
    with warehouse(shop) as engine:
        ledger.create_ledger(engine)
        with engine.connect() as connection:
            expected = _expected_digests(connection, shop, day)
            if not expected:
                raise AdloomError(
                    f"{shop.id}: nothing has landed up to {day}", f"run `adloom run --shop {shop.id} --day {day}` first"
                )
            done = {
                row.day: row.input_digest
                for row in connection.execute(select(ledger.portrait_days).where(ledger.portrait_days.c.day <= day))
            }
    chain = sorted(expected)
    # Each day stands on the one before: from the first one that is not as it should be, all are made again.
    first = next((n for n, one in enumerate(chain) if done.get(one) != expected[one]), len(chain))
    report = PortraitReport(days=chain[first:])
    for start in range(first, len(chain), DAYS_AT_ONCE):
        chunk = chain[start : start + DAYS_AT_ONCE]
        run_dbt(shop, chunk[-1], select="tag:portraits", portrait_days=chunk)
        with warehouse(shop) as engine, engine.connect() as connection:
            for number, one in enumerate(chunk, start=start):
                before = chain[number - 1] if number else None
                with connection.begin():
                    counted_on = _Day(connection, shop, one, before, chain[0]).make()
                    _note(connection, one, expected[one], counted_on)
                log.info("%s: portraits of %s made (%d of %d)", shop.id, one, number + 1 - first, len(chain) - first)
    with warehouse(shop) as engine, engine.begin() as connection:
        _forget_vanished(connection, chain, day)
        if chain[-1] != day:
            _repeat(connection, chain[-1], day)
        t = ledger.portraits
        said = t.c.words_zh if shop.language == "zh" else t.c.words_en
        query = select(t.c.segment_id, t.c.users, said).where(t.c.day == day)
        report.segments = [tuple(row) for row in connection.execute(query.order_by(t.c.users.desc(), t.c.segment_id))]
        pairs = select(func.count()).where(ledger.affinities.c.day == day)
        report.affinities = connection.execute(pairs).scalar_one()
    report.seconds = time.monotonic() - began
    return report


# --- which days --------------------------------------------------------------------------------------------------


def _expected_digests(connection: Connection, shop: Shop, day: date) -> dict[date, str]:
    """known_date up to ``day`` → SHA-256 over all its portraits are made from: landing up to it, settings, models."""
    landed = ledger.landing_days
    rows = connection.execute(
        select(landed.c.known_date, landed.c.manifest_digest)
        # A folder that is gone leaves an empty manifest until its marts are emptied: the same as no folder.
        .where(landed.c.known_date <= day, landed.c.manifest_digest != "")
        .order_by(landed.c.known_date)
    ).all()
    settings = [
        METHOD,
        shop.portraits.model_dump(mode="json"),
        shop.min_segment_users,
        shop.unknown_age_is_minor,
        shop.language,
        shop.time_zone,
        shop.lookback_days,
        project_digest(),
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    found = {}
    for known_date, manifest in rows:
        digest.update(f"{known_date} {manifest}\n".encode())
        found[known_date] = digest.copy().hexdigest()
    return found


def _note(connection: Connection, day: date, digest: str, counted_on: date) -> None:
    row = {"day": day, "input_digest": digest, "counted_on": counted_on}
    ledger.replace_rows(connection, ledger.portrait_days, {"day": day}, [row])


def _forget_vanished(connection: Connection, chain: Sequence[date], day: date) -> None:
    """Drop what was shaped for known_dates that have left landing; nothing reads it any more."""
    t = ledger.portrait_days
    gone = set(connection.scalars(select(t.c.day).where(t.c.day <= day))) - set(chain)
    for one in sorted(gone):
        connection.execute(t.delete().where(t.c.day == one))
        for name in SHAPED:
            # Names are constants of this module; the day is bound.
            connection.execute(text(f"delete from intermediate.{name} where known_date = :day"), {"day": one})  # noqa: S608


def _repeat(connection: Connection, known_date: date, day: date) -> None:
    """A day that brought nothing has the portraits of the last one that did."""
    for table in (ledger.portraits, ledger.user_portraits, ledger.affinities):
        _copy(connection, table, known_date, day)


def _copy(connection: Connection, table: Table, source: date, day: date) -> None:
    """Replace the rows of ``day`` by those of ``source``."""
    connection.execute(table.delete().where(table.c.day == day))
    kept = [column for column in table.columns if column.name != "day"]
    again = select(literal(day, table.c.day.type), *kept).where(table.c.day == source)
    connection.execute(insert(table).from_select(["day", *(column.name for column in kept)], again))


# --- one day -----------------------------------------------------------------------------------------------------

# The users of the day beside where they were counted the day before; either side may be missing.
_BOTH_DAYS = """
    select
        coalesce(today.user_hash, before.user_hash) as user_hash,
        coalesce(before.counted_in, '') as counted_in,
        coalesce(today.segment_id, '') as segment_id,
        coalesce(today.interest_1, '') as interest_1,
        coalesce(today.interest_2, '') as interest_2,
        coalesce(today.price_level, '') as price_level,
        coalesce(today.life_cycle, '') as life_cycle,
        coalesce(today.engagement, '') as engagement
    from (select * from intermediate.int_users__profiled where known_date = :day) as today
    full join (select * from adloom.user_portraits where day = :before) as before using (user_hash)
"""

_GROUPS = text(f"select * exclude (user_hash), count(*) as users from ({_BOTH_DAYS}) group by all order by all")  # noqa: S608

# Users of whom something else is said than on the day when users were last counted anew.
_CHANGED = text(
    """
    select count(*) as users
    from (select * exclude (known_date) from intermediate.int_users__profiled where known_date = :day) as today
    full join (select * exclude (known_date) from intermediate.int_users__profiled where known_date = :last) as earlier
        using (user_hash)
    where
        today.segment_id is distinct from earlier.segment_id
        or today.interest_1 is distinct from earlier.interest_1
        or today.interest_2 is distinct from earlier.interest_2
        or today.price_level is distinct from earlier.price_level
        or today.life_cycle is distinct from earlier.life_cycle
        or today.engagement is distinct from earlier.engagement
    """
)

_STORE_USERS = text(
    f"""
    insert into adloom.user_portraits by name
    select
        :day as day,
        both_days.user_hash,
        case
            when both_days.segment_id = 'not_personalised' then 'not_personalised'
            when ways.to_segment in ('', 'not_personalised') then 'all'
            else ways.to_segment
        end as segment_id,
        ways.to_segment as counted_in
    from ({_BOTH_DAYS}) as both_days
    inner join portrait_ways as ways using (
        counted_in, segment_id, interest_1, interest_2, price_level, life_cycle, engagement
    )
    -- Of whom nothing is known and who is counted nowhere is forgotten.
    where not (both_days.segment_id = '' and ways.to_segment = '')
    """  # noqa: S608 -- constants of this module
)

# Who a segment is described from: counted in it, and personalised today.
_MEMBERS = """
    select users.user_hash, users.segment_id, profiled.* exclude (user_hash, segment_id, known_date)
    from adloom.user_portraits as users
    inner join intermediate.int_users__profiled as profiled
        on users.user_hash = profiled.user_hash and profiled.known_date = :day
    where
        users.day = :day
        and users.segment_id = users.counted_in
        and profiled.segment_id != 'not_personalised'
"""

_TRAITS = text(
    f"""
    select
        segment_id, price_level, life_cycle, last_known_date,
        count(*) as users,
        count(*) filter (where has_kept) as kept,
        count(*) filter (where has_bought) as bought
    from ({_MEMBERS})
    group by segment_id, price_level, life_cycle, last_known_date
    order by all
    """  # noqa: S608
)

_INTERESTS = text(
    f"""
    with interests as (
        select
            members.segment_id,
            interests.user_hash,
            interests.category_1,
            interests.category_2,
            interests.weight,
            sum(interests.weight) over (partition by interests.user_hash) as whole,
            members.interest_1,
            members.interest_2
        from intermediate.int_users__interests as interests
        inner join ({_MEMBERS}) as members on interests.user_hash = members.user_hash
        where interests.known_date = :day and interests.weight > 0
    ),

    levels as (
        select
            segment_id, user_hash, category_2 as category, category_1 as parent, weight, whole,
            category_2 = interest_2 as is_main
        from interests
        where category_2 != category_1
        union all
        select segment_id, user_hash, category_1, '', weight, whole, category_1 = interest_1 from interests
    )

    select
        segment_id, category, parent,
        sum(1000000 * weight // whole) as weight,
        count(distinct user_hash) filter (where is_main) as mains
    from levels
    group by segment_id, category, parent
    having count(distinct user_hash) >= :smallest
    order by segment_id, weight desc, category
    """  # noqa: S608
)

_RECENT_ITEMS = text(
    f"""
    with seen as (
    select members.segment_id, behaviours.item_id, count(distinct behaviours.user_hash) as users
    from marts.fct_behaviours_daily as behaviours
    inner join ({_MEMBERS}) as members on behaviours.user_hash = members.user_hash
    inner join intermediate.int_items__described as items
        on behaviours.item_id = items.item_id and items.known_date = :day
    where
        behaviours.known_date > cast(:day as date) - :recent_days
        and behaviours.known_date <= :day
        and behaviours.behaviour_date > cast(:day as date) - :recent_days
        and behaviours.behaviour = 'view'
    group by members.segment_id, behaviours.item_id
    having count(distinct behaviours.user_hash) >= :smallest
    )
    select
        seen.segment_id, seen.item_id, seen.users,
        arg_max(
            struct_pack(
                title := titles.title,
                category := titles.category,
                other_title := json_extract_string(titles.attributes, :title_path)
            ),
            titles.known_date
        ) as item
    from seen
    inner join marts.dim_items as titles on seen.item_id = titles.item_id and titles.known_date <= :day
    group by seen.segment_id, seen.item_id, seen.users
    order by seen.segment_id, seen.users desc, seen.item_id
    """  # noqa: S608
)


@dataclass
class _Day:
    """One day in the making, in the caller's transaction; ``before``: the known_date before it, ``first``: of all."""

    connection: Connection
    shop: Shop
    day: date
    before: date | None
    first: date

    @property
    def smallest(self) -> int:
        return self.shop.min_segment_users

    @property
    def together(self) -> int:
        return min(self.shop.portraits.min_moved_users, self.smallest)

    def make(self) -> date:
        """Store the day's tables; returns the day whose users are counted."""
        counted_on = self._counted_on()
        changed, counted = self._count_users(is_anew=counted_on == self.day)
        self._describe(changed, counted)
        self._relate()
        return counted_on

    def _run(self, statement: Any, **values: Any) -> list[Any]:
        return list(self.connection.execute(statement, {"day": self.day, **values}))

    @cached_property
    def names(self) -> Names:
        return read_names(self.connection, self.shop, self.day)

    # --- who is counted where

    def _counted_on(self) -> date:
        """The day, if enough users have changed since users were last counted anew; else that day (rule 1)."""
        t = ledger.portrait_days
        last = self.connection.execute(select(t.c.counted_on).where(t.c.day == self.before)).scalar()
        if last is None:
            return self.day
        return self.day if self._run(_CHANGED, last=last)[0].users >= self.together else last

    def _count_users(self, *, is_anew: bool) -> tuple[set[str], Counter[str]]:
        """Store where every user is counted; returns the segments whose users changed, and how many each counts."""
        groups = self._run(_GROUPS, before=self.before)
        earlier = {row.counted_in for row in groups}
        ladders: Counter[segments.Ladder] = Counter()
        for row in groups:
            if row.segment_id not in {segments.GONE, NOT_PERSONALISED}:
                ladders[self._ladder(row)] += row.users
        chosen = segments.targets(ladders, self.smallest, self.together, earlier)
        wanted: Counter[segments.Move] = Counter()
        for row in groups:
            wanted[row.counted_in, self._wanted(row, chosen)] += row.users
        to = segments.moves(wanted, self.smallest, self.together) if is_anew else {move: move[0] for move in wanted}
        ways, counted = [], Counter[str]()
        for row in groups:
            there = to[row.counted_in, self._wanted(row, chosen)]
            counted[there] += row.users
            ways.append(
                {"counted_in": row.counted_in, "to_segment": there} | {key: getattr(row, key) for key in _COMBINATION}
            )
        _ways.create(self.connection)
        ledger.replace_rows(self.connection, _ways, {"counted_in": None}, ways)
        self.connection.execute(ledger.user_portraits.delete().where(ledger.user_portraits.c.day == self.day))
        self.connection.execute(_STORE_USERS, {"day": self.day, "before": self.before})
        _ways.drop(self.connection)
        return set(segments.passages(wanted.items(), to)), counted

    def _ladder(self, row: Any) -> segments.Ladder:
        wide, narrow = self.names.slug(row.interest_1), self.names.slug(row.interest_2)
        if not wide:
            wide, narrow = row.engagement, ""
        return segments.ladder(wide, narrow, row.price_level, row.life_cycle)

    def _wanted(self, row: Any, chosen: dict[segments.Ladder, str]) -> str:
        if row.segment_id in {segments.GONE, NOT_PERSONALISED}:
            return str(row.segment_id)
        return chosen[self._ladder(row)]

    # --- what is said of a segment

    def _describe(self, changed: set[str], counted: Counter[str]) -> None:
        """Store the segments. What is said of one is said anew when its users changed, or k' of them did something."""
        t = ledger.portraits
        before = {
            row["segment_id"]: dict(row)
            for row in self.connection.execute(select(t).where(t.c.day == self.before)).mappings()
        }
        traits = _by_segment(self._run(_TRAITS))
        names = sorted({*counted, ALL, NOT_PERSONALISED} - {segments.GONE})
        anew = [
            name
            for name in names
            if name != NOT_PERSONALISED and self._is_new(name, changed, before.get(name), traits.get(name, []))
        ]
        fresh = self._content(anew, traits) if anew else {}
        rows = []
        for name in names:
            users = counted[name] if counted[name] >= self.smallest else 0
            said = fresh.get(name) if name in anew else before.get(name)
            if said is None or not users:
                said = _nothing()
            size = users // self.together * self.together
            rows.append({**said, "day": self.day, "segment_id": name, "users": size})
        ledger.replace_rows(self.connection, t, {"day": self.day}, rows)

    def _is_new(self, name: str, changed: set[str], before: dict[str, Any] | None, traits: Iterable[Any]) -> bool:
        if name in changed or before is None or before["content_as_of"] is None:
            return True
        since = before["content_as_of"]
        active = sum(row.users for row in traits if row.last_known_date is not None and row.last_known_date > since)
        return active >= self.together

    def _content(self, names: Sequence[str], traits: dict[str, list[Any]]) -> dict[str, dict[str, Any]]:
        """Segment → its description, from the users who are in it today."""
        interests = _by_segment(self._run(_INTERESTS, smallest=self.smallest))
        items = _by_segment(
            self._run(
                _RECENT_ITEMS,
                smallest=self.smallest,
                recent_days=self.shop.portraits.active_days,
                title_path=self.names.title_path,
            )
        )
        found = {}
        for name in names:
            users = sum(row.users for row in traits.get(name, []))
            if users < self.smallest:
                continue
            found[name] = self._said(users, traits[name], interests.get(name, []), items.get(name, []))
        return found

    def _said(self, users: int, traits: list[Any], interests: list[Any], items: list[Any]) -> dict[str, Any]:
        liked = self._liked(users, interests)
        seen: list[tuple[str, Named]] = []
        for row in items:
            item = self.names.item(row.item_id, row.item["title"], row.item["other_title"], row.item["category"])
            if item.names and len(seen) < RECENT_ITEMS:
                seen.append((row.item_id, item))
        kept, bought = (round(10 * sum(getattr(row, key) for row in traits) / users) for key in ("kept", "bought"))
        content = Content(
            interests=[self.names.category(category) for category, _ in liked],
            recent_items=[item for _, item in seen],
            price_level=_majority(traits, "price_level", users),
            life_cycle=_majority(traits, "life_cycle", users),
            kept_tenths=kept,
            bought_tenths=bought,
        )
        said = words(content)
        return {
            "content_as_of": self.day,
            "interests": _json(
                [{"category": path, "weight": weight, **self.names.category(path).names} for path, weight in liked]
            ),
            "recent_items": _json([{"item_id": item_id, **item.names} for item_id, item in seen]),
            "price_level": content.price_level,
            "life_cycle": content.life_cycle,
            "engagement": _json({"kept": kept / 10, "bought": bought / 10}),
            "words_zh": said["zh"],
            "words_en": said["en"],
        }

    def _liked(self, users: int, interests: Iterable[Any]) -> list[tuple[str, float]]:
        """(category, share of the interest), strongest first; a wider one only where no part of it stands out."""
        liked: list[tuple[str, float, str]] = []
        for row in interests:
            weight = round(float(row.weight) / 1_000_000 / users * WEIGHT_STEPS) / WEIGHT_STEPS
            is_clear = weight >= (CLEAR if row.parent else CLEAR_WIDE) or row.mains >= MAJORITY * users
            if is_clear and weight > 0 and self.names.category(row.category).names:
                liked.append((row.category, weight, row.parent))
        parents = {parent for _, _, parent in liked}
        return [(category, weight) for category, weight, _ in liked if category not in parents][:INTERESTS]

    # --- what goes with what

    def _relate(self) -> None:
        """Store the affinities: those of the day before, unless a block of days is over."""
        length = self.shop.portraits.affinity_days
        block = affinities.last_block(self.first, self.day, length)
        t = ledger.affinities
        if self.before is not None and block == affinities.last_block(self.first, self.before, length):
            _copy(self.connection, t, self.before, self.day)
            return
        found = []
        if block is not None:
            as_of = self.day if self.day == block.until or self.before is None else self.before
            values = {"after": block.after, "until": block.until, "as_of": as_of, "smallest": self.smallest}
            found = list(self.connection.execute(affinities.SETS, values))
        ledger.replace_rows(self.connection, t, {"day": self.day}, affinities.rows(found, self.day, self.together))


def _by_segment(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.segment_id, []).append(row)
    return found


def _majority(traits: Iterable[Any], name: str, users: int) -> str:
    """The value that holds for most of the users, or nothing."""
    counts: Counter[str] = Counter()
    for row in traits:
        counts[getattr(row, name) or ""] += row.users
    value, most = max(counts.items(), key=lambda one: (one[1], one[0]))
    return value if most >= MAJORITY * users else ""


def _nothing() -> dict[str, Any]:
    """A segment of which nothing may be said."""
    empty = {"price_level": "", "life_cycle": "", "words_zh": "", "words_en": ""}
    return {"content_as_of": None, "interests": "[]", "recent_items": "[]", "engagement": "{}", **empty}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
