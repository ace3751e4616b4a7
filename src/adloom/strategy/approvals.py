"""Which creatives may be shown: what was decided about what they are now, and what was running before anyone was asked.

A creative of ours is what a reader sees of it: its copy and its pictures. An approval holds for exactly that content
(`creative.content_hash`); when the content changes it is gone. Neither is an approval enough: what a review blocks,
somebody asked to forget, or was offered for other days is not shown, whoever approved it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, select, text

from adloom.creative import ALL, NOT_PERSONALISED, content_hash
from adloom.shop import Shop
from adloom.warehouse import ledger

MADE_ELSEWHERE = ""
"""Hash of a creative that came from outside: there is no content of ours to hash."""
PERSON, POLICY, TIMEOUT, EXTERNAL = "person", "policy", "timeout", "external"
APPROVED, REJECTED = "approved", "rejected"
_WEIGHT = {PERSON: 2, TIMEOUT: 1}
"""A person's word outranks that nobody answered, which outranks what was never asked."""


@dataclass(frozen=True)
class Ending:
    """The last day on which what a creative speaks of is true."""

    what: str
    """offer (as its brief states it) | campaign (as the shop has delivered it since) | event"""
    subject: str
    """id of the campaign or event"""
    on: date

    def __str__(self) -> str:
        return f"{'the event' if self.what == 'event' else f'its {self.what}'} ended on {self.on}"


@dataclass(frozen=True)
class Content:
    """A creative of ours as it is now."""

    creative_id: str
    content_hash: str
    copy_hash: str
    day: date
    """the run that made it"""
    channel: str
    language: str
    segment_id: str
    """for whom it was written"""
    is_personalised: bool
    """written from what a segment's users did; not for those who are not personalised"""
    starts_on: date | None
    """of the offer it speaks of; nobody is shown it before"""
    endings: tuple[Ending, ...]
    """of the offer and the event it speaks of, as the brief states them"""
    campaign_id: str | None
    event_id: str | None
    refusal: str
    """why it must not be shown at all; empty: nothing is against it"""


def contents(connection: Connection) -> dict[str, Content]:
    """creative_id → what every written creative of ours is now."""
    creatives, briefs, reviews = ledger.creatives, ledger.briefs, ledger.reviews
    digests = asset_digests(connection)
    blocking: dict[tuple[str, str], str] = {}
    for row in connection.execute(
        select(reviews).where(reviews.c.severity == "block").order_by(reviews.c.rule_id.desc(), reviews.c.span.desc())
    ):
        blocking[row.creative_id, row.creative_hash] = f"blocked by {row.rule_id}: {row.reason}"
    erased = {(row.kind, row.subject) for row in connection.execute(select(ledger.erasures))}
    same_brief = and_(briefs.c.day == creatives.c.day, briefs.c.brief_id == creatives.c.brief_id)
    query = select(creatives, briefs.c.content).select_from(creatives.outerjoin(briefs, same_brief))
    found = {}
    for row in connection.execute(query.where(creatives.c.headline.is_not(None))):
        brief: Mapping[str, Any] = json.loads(row.content) if row.content else {}
        offer: Mapping[str, Any] = brief.get("offer") or {}
        event: Mapping[str, Any] = brief.get("event") or {}
        now = content_hash(row.creative_hash, digests.get(row.creative_id, ()))
        refusal = blocking.get((row.creative_id, row.creative_hash)) or blocking.get((row.creative_id, now)) or ""
        if ("creative", row.creative_id) in erased or ("item", row.item_id) in erased:
            refusal = "erased"
        is_personalised = row.segment_id != NOT_PERSONALISED and not (
            row.segment_id == ALL and brief and not brief.get("segment_words")
        )
        found[row.creative_id] = Content(
            creative_id=row.creative_id,
            content_hash=now,
            copy_hash=row.creative_hash,
            day=row.day,
            channel=row.channel,
            language=row.language,
            segment_id=row.segment_id,
            is_personalised=is_personalised,
            starts_on=_day(offer.get("starts_on")),
            endings=tuple(
                Ending(what, subject or "", date.fromisoformat(said["ends_on"]))
                for what, subject, said in (("offer", row.campaign_id, offer), ("event", row.event_id, event))
                if said.get("ends_on")
            ),
            campaign_id=row.campaign_id,
            event_id=row.event_id,
            refusal=refusal,
        )
    return found


def asset_digests(connection: Connection) -> dict[str, list[str]]:
    """creative_id → digests of its pictures and videos."""
    found: dict[str, list[str]] = defaultdict(list)
    for creative_id, digest in connection.execute(select(ledger.assets.c.creative_id, ledger.assets.c.digest)):
        found[creative_id].append(digest)
    return found


def _day(said: str | None) -> date | None:
    return date.fromisoformat(said) if said else None


_DELIVERED = {
    "campaign": ("stg_landing__campaigns", "campaign_id"),
    "event": ("stg_landing__hot_events", "event_id"),
}


def _delivered(connection: Connection, shop: Shop) -> dict[tuple[str, str], list[tuple[date, date | None]]]:
    """(campaign | event, its id) → (known_date, its last day as delivered then), ascending; empty without landing."""
    found: dict[tuple[str, str], list[tuple[date, date | None]]] = defaultdict(list)
    for what, (table, key) in _DELIVERED.items():
        if not connection.dialect.has_table(connection, table, schema="staging"):
            continue
        stated = f"select {key}, known_date, ends_at from staging.{table} "  # noqa: S608 - names of this module
        for subject, known_date, ends_at in connection.execute(
            text(stated + "order by known_date, source_file, source_line")
        ):
            # Staged times are UTC; an end at midnight is the end of the day before.
            last = None if ends_at is None else ends_at.replace(tzinfo=UTC) - timedelta(microseconds=1)
            found[what, subject].append((known_date, None if last is None else last.astimezone(shop.zone).date()))
    return found


class Decisions:
    """Every decision and every creative of ours, read once; answers for any day."""

    def __init__(self, connection: Connection, shop: Shop | None = None) -> None:
        """``shop``: to know, too, what the shop has said since about when campaigns and events end."""
        self.contents = contents(connection)
        self._delivered = {} if shop is None else _delivered(connection, shop)
        self._words: dict[str, list[Row[Any]]] = defaultdict(list)
        self._by_content: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(select(ledger.approvals)):
            self._words[row.creative_id].append(row)
            if row.creative_hash != MADE_ELSEWHERE:
                self._by_content[row.creative_hash].append(row)

    def about_content(self, creative_id: str) -> list[Row[Any]]:
        """The decisions about what the creative is now. That one of ours was running is none of them."""
        ours, words = self.contents.get(creative_id), self._words.get(creative_id, [])
        if ours is None:
            # An approval bound to content of ours does not hold for a creative that is gone; a rejection does.
            return [row for row in words if row.creative_hash == MADE_ELSEWHERE or row.decision != APPROVED]
        return [row for row in words if row.creative_hash == ours.content_hash and row.origin != EXTERNAL]

    def is_rejected_otherwise(self, creative_id: str) -> bool:
        """Did a person reject what the creative of ours once was?"""
        now = self.about_content(creative_id)
        words = self._words.get(creative_id, [])
        return any(row.origin == PERSON and row.decision != APPROVED for row in words if row not in now)

    def latest(self, creative_id: str) -> Row[Any] | None:
        """The decision about what the creative is now, whichever day it counts from; None: it waits."""
        return max(self.about_content(creative_id), key=_rank, default=None)

    def standing(self, creative_id: str, day: date, *, as_of_day: bool = False) -> Row[Any] | None:
        """The decision that counts for a plan made on ``day``, about what the creative is now; None: there is none.

        The latest one counts, on the same day the one written down later, then a rejection; a person's word outranks
        all others. An approval counts from the day it was given. A rejection counts for every plan made after it is
        recorded, whatever the plan's day: a backfill must not bring back what a person took out. With ``as_of_day``
        such later rejections are left out too: then the answer never changes again.
        """
        in_time = [
            row
            for row in self.about_content(creative_id)
            if row.decided_on <= day + timedelta(days=1) or (row.decision != APPROVED and not as_of_day)
        ]
        return max(in_time, key=_rank, default=None)

    def said_of(self, hash_of_content: str) -> Row[Any] | None:
        """What a person last decided about this content, under whichever creative; or that nobody answered."""
        words = [row for row in self._by_content.get(hash_of_content, ()) if row.origin in {PERSON, TIMEOUT}]
        return max(words, key=_rank, default=None)

    def refusal(self, creative_id: str, day: date, *, as_of_day: bool = False) -> str:
        """Why a plan made on ``day`` must not show the creative; empty: it may."""
        word = self.standing(creative_id, day, as_of_day=as_of_day)
        ours = self.contents.get(creative_id)
        if word is None:
            # Words about other content of the same creative do not count any more.
            return "its content changed after the decision" if ours and self._words.get(creative_id) else "undecided"
        if word.decision != APPROVED:
            return f"{word.decision} by {word.decided_by or word.origin}"
        return "" if ours is None else ours.refusal or self._out_of_time(ours, day)

    def _out_of_time(self, content: Content, day: date) -> str:
        """Why tomorrow is no day for it; empty: it is one."""
        if content.day > day:
            return f"made on {content.day} only"
        if content.starts_on is not None and day + timedelta(days=1) < content.starts_on:
            return f"its offer begins on {content.starts_on}"
        return str(self.ending(content.creative_id, day) or "")

    def endings(self, creative_id: str, day: date) -> list[Ending]:
        """When what the creative speaks of ends, as known by the end of ``day``; the earliest first.

        A brief's dates are what its copy promises; a campaign or event that the shop has cut short since ends sooner.
        """
        ours = self.contents.get(creative_id)
        if ours is None:
            return []
        found = list(ours.endings)
        for what, subject in (("campaign", ours.campaign_id), ("event", ours.event_id)):
            told = [last for known, last in self._delivered.get((what, subject or ""), ()) if known <= day]
            if told and told[-1] is not None:
                found.append(Ending(what, subject or "", told[-1]))
        return sorted(found, key=lambda one: one.on)

    def ending(self, creative_id: str, day: date) -> Ending | None:
        """Why the creative is over for plans made on ``day``; None: it is not."""
        return next((one for one in self.endings(creative_id, day) if one.on <= day), None)

    def is_over(self, creative_id: str, day: date) -> bool:
        """Is that it is over all that keeps the creative out of plans made on ``day``?"""
        ending = self.ending(creative_id, day)
        return ending is not None and self.refusal(creative_id, day) == str(ending)

    def approved(self, day: date, *, as_of_day: bool = False) -> frozenset[str]:
        """Creatives that a plan made on ``day`` may show."""
        return frozenset(one for one in self._words if not self.refusal(one, day, as_of_day=as_of_day))

    def fits(self, segment_id: str, creative_id: str) -> bool:
        """May this segment be shown the creative? One of ours was written for a segment, or for everybody."""
        ours = self.contents.get(creative_id)
        return ours is None or ours.segment_id == segment_id or not ours.is_personalised


def _rank(row: Row[Any]) -> tuple[int, date, datetime, bool]:
    return (
        _WEIGHT.get(row.origin, 0),
        row.decided_on,
        row.decided_at or datetime.min,
        row.decision != APPROVED,
    )


def record_external(connection: Connection, day: date) -> None:
    """Give every creative first seen in ad_events by ``day`` an approval of origin ``external``.

    Decided on the day it was first known; what a person decided is left alone and outranks it (`Decisions`). Creatives
    of ours get none: that one of them was shown does not make it approved.
    """
    approvals = ledger.approvals
    known = text("select creative_id, min(known_date) from marts.dim_creatives where known_date <= :day group by all")
    ours = set(connection.scalars(select(ledger.creatives.c.creative_id)))
    # Also what was ours and is not made any more: a day that was written anew has other creatives.
    bound = and_(approvals.c.creative_hash != MADE_ELSEWHERE, approvals.c.decision == APPROVED)
    ours |= set(connection.scalars(select(approvals.c.creative_id).where(bound)))
    wanted: dict[str, date] = {row[0]: row[1] for row in connection.execute(known, {"day": day}) if row[0] not in ours}
    external = select(approvals.c.creative_id, approvals.c.decided_on).where(approvals.c.origin == EXTERNAL)
    recorded: dict[str, date] = {row[0]: row[1] for row in connection.execute(external)}
    # A later day's row stays, unless its creative turns out to have been known before.
    wrong = [
        creative
        for creative, decided in recorded.items()
        if wanted.get(creative, None if decided <= day else decided) != decided
    ]
    for creative in wrong:
        connection.execute(
            approvals.delete().where(and_(approvals.c.origin == EXTERNAL, approvals.c.creative_id == creative))
        )
    rows = [
        {
            "creative_id": creative,
            "creative_hash": MADE_ELSEWHERE,
            "decision": APPROVED,
            "origin": EXTERNAL,
            "decided_on": seen,
            "decided_by": None,
            "reason": f"already running when first seen on {seen}",
        }
        for creative, seen in sorted(wanted.items())
        if recorded.get(creative) != seen
    ]
    if rows:
        connection.execute(approvals.insert(), rows)


def approved(connection: Connection, shop: Shop, day: date, *, as_of_day: bool = False) -> frozenset[str]:
    """Creatives that a plan made for the day after ``day`` may show; see `Decisions`."""
    return Decisions(connection, shop).approved(day, as_of_day=as_of_day)


def unapproved(connection: Connection, shop: Shop, day: date, creatives: Iterable[str]) -> dict[str, str]:
    """Those of ``creatives`` that a plan of ``day`` must not show, by id: why not."""
    decisions = Decisions(connection, shop)
    reasons = {one: decisions.refusal(one, day) for one in sorted(set(creatives))}
    return {one: reason for one, reason in reasons.items() if reason}
