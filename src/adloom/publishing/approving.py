"""Who decides that a creative may be shown: a person, or the shop's policy where it asks nobody.

The day's creatives that no review blocks are settled first: what was decided about the same content before holds again,
whatever its id and whoever runs the day, and ``approval: flagged_only`` or ``off`` approves what it need not ask about.
The rest waits. What is put before a person is written to a file that holds the hash of every content shown in it; the
answer is bound to these hashes, so that an answer to what has changed meanwhile decides nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Row, and_, select

from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.strategy.approvals import APPROVED, PERSON, POLICY, REJECTED, Content, Decisions
from adloom.warehouse import ledger

FORM_CREATIVES = 60
"""More than a person reads in one form; the others wait for the next one, or for `adloom approve`."""
ASKED = "approval"
PICTURES = "/creatives"
"""Where Airflow serves pictures of creatives to who is logged in (``plugins/creative_files.py``)."""


@dataclass(frozen=True)
class Note:
    """What a review says of a creative without blocking it."""

    rule_id: str
    span: str
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A creative that waits for a person."""

    creative_id: str
    content_hash: str
    scenario: str
    language: str
    channel: str
    segment_id: str
    segment_words: str
    item: str
    offer: str
    headline: str
    body: str
    call_to_action: str
    hashtags: tuple[str, ...]
    notes: tuple[Note, ...]
    files: tuple[tuple[str, str, str], ...]
    """(format, kind, path below the shop's creatives folder) of its pictures and videos"""


@dataclass(frozen=True)
class Settled:
    """How the day's written creatives stand."""

    approved: int
    rejected: int
    blocked: int
    waiting: int

    def __str__(self) -> str:
        return (
            f"{self.approved} approved, {self.rejected} rejected, {self.blocked} blocked by a review, "
            f"{self.waiting} waiting for a person"
        )


@dataclass(frozen=True)
class Asked:
    """What was put before a person, as it was then."""

    day: date
    subject: str
    body: str
    labels: dict[str, str]
    """creative_id → how the form names it, in the order of the form"""
    hashes: dict[str, str]
    """creative_id → hash of the content that was shown"""


@dataclass(frozen=True)
class Decided:
    """What an answer came to."""

    approved: tuple[str, ...]
    rejected: tuple[str, ...]
    void: dict[str, str]
    """creative_id → why the answer decided nothing about it"""

    def __str__(self) -> str:
        said = f"{len(self.approved)} approved, {len(self.rejected)} rejected"
        void = "; ".join(f"{one} not decided: {reason}" for one, reason in self.void.items())
        return f"{said}; {void}" if void else said


def settle(connection: Connection, shop: Shop, day: date) -> Settled:
    """Decide about the day's creatives what need not be asked, from recorded decisions and the shop's policy.

    May be repeated: what the policy decided is decided anew, since a review may have found something since.
    """
    approvals = ledger.approvals
    ours = _of_day(Decisions(connection), day)
    connection.execute(approvals.delete().where(approvals.c.origin == POLICY, approvals.c.creative_id.in_([*ours, ""])))
    decisions = Decisions(connection)
    flagged = {*_notes(connection, day), *_always_asked(connection, shop, day)}
    rows = []
    for creative_id, content in ours.items():
        if content.refusal or decisions.about_content(creative_id):
            continue
        before = decisions.said_of(content.content_hash)
        if before is not None:
            rows.append(_said_again(content, before, day))
        elif shop.approval == "off" or (shop.approval == "flagged_only" and creative_id not in flagged):
            reason = "the shop asks nobody" if shop.approval == "off" else "no review found anything"
            rows.append(_row(content, APPROVED, POLICY, day, f"approval: {shop.approval}", reason, None))
    if rows:
        connection.execute(approvals.insert(), rows)
    return standing(connection, day)


def standing(connection: Connection, day: date) -> Settled:
    """How the written creatives of ``day`` stand now."""
    decisions = Decisions(connection)
    counts = dict.fromkeys(("approved", "rejected", "blocked", "waiting"), 0)
    for creative_id, content in _of_day(decisions, day).items():
        word = decisions.latest(creative_id)
        if content.refusal:
            counts["blocked"] += 1
        elif word is None:
            counts["waiting"] += 1
        else:
            counts["approved" if word.decision == APPROVED else "rejected"] += 1
    return Settled(**counts)


def waiting(connection: Connection, day: date) -> list[Waiting]:
    """The creatives of ``day`` that nobody has decided about, those with a finding first; of the same content, one."""
    decisions = Decisions(connection)
    open_ones = {
        creative_id: content
        for creative_id, content in _of_day(decisions, day).items()
        if not content.refusal and not decisions.about_content(creative_id)
    }
    creatives, briefs, assets = ledger.creatives, ledger.briefs, ledger.assets
    files: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for row in connection.execute(select(assets).order_by(assets.c.format)):
        files[row.creative_id].append((row.format, row.kind, row.path))
    notes = _notes(connection, day)
    same_brief = and_(briefs.c.day == creatives.c.day, briefs.c.brief_id == creatives.c.brief_id)
    query = select(creatives, briefs.c.content).select_from(creatives.outerjoin(briefs, same_brief))
    found = [
        _waiting(row._mapping, open_ones[row.creative_id], notes.get(row.creative_id, ()), files[row.creative_id])
        for row in connection.execute(query.where(creatives.c.day == day))
        if row.creative_id in open_ones
    ]
    found.sort(key=lambda one: (not one.notes, one.scenario, one.language, one.channel, one.creative_id))
    unique: dict[str, Waiting] = {}
    for one in found:
        unique.setdefault(one.content_hash, one)
    return list(unique.values())


def _waiting(
    row: Mapping[Any, Any], content: Content, notes: Iterable[Note], files: Iterable[tuple[str, str, str]]
) -> Waiting:
    brief: Mapping[str, Any] = json.loads(row["content"]) if row["content"] else {}
    return Waiting(
        creative_id=row["creative_id"],
        content_hash=content.content_hash,
        scenario=row["scenario"],
        language=row["language"],
        channel=row["channel"],
        segment_id=row["segment_id"],
        segment_words=brief.get("segment_words") or "",
        item=(brief.get("item") or {}).get("title") or row["item_id"],
        offer=(brief.get("offer") or {}).get("text") or "",
        headline=row["headline"],
        body=row["body"],
        call_to_action=row["call_to_action"],
        hashtags=tuple(json.loads(row["hashtags"] or "[]")),
        notes=tuple(notes),
        files=tuple(files),
    )


def _of_day(decisions: Decisions, day: date) -> dict[str, Content]:
    return {one: content for one, content in sorted(decisions.contents.items()) if content.day == day}


def _always_asked(connection: Connection, shop: Shop, day: date) -> list[str]:
    """Creatives of the day whose scenario the shop always asks about."""
    creatives = ledger.creatives
    asked = select(creatives.c.creative_id).where(creatives.c.day == day, creatives.c.scenario.in_(shop.always_ask))
    return list(connection.scalars(asked))


def _notes(connection: Connection, day: date) -> dict[str, list[Note]]:
    """creative_id → what the reviews of the day warn of."""
    reviews = ledger.reviews
    query = select(reviews).where(reviews.c.day == day, reviews.c.severity == "warn")
    found: dict[str, list[Note]] = defaultdict(list)
    for row in connection.execute(query.order_by(reviews.c.rule_id, reviews.c.part, reviews.c.span)):
        found[row.creative_id].append(Note(row.rule_id, row.span, row.reason))
    return found


def decide(  # noqa: PLR0917 - who decided what, when and why
    connection: Connection,
    day: date,
    shown: Mapping[str, str],
    approve: Collection[str],
    by: str,
    reason: str,
    at: datetime,
    origin: str = PERSON,
) -> Decided:
    """Record one answer about ``shown`` (creative_id → hash of the content that was shown): the others are rejected.

    ``day``: of the run, from which on it counts; ``at``: the clock, UTC. Told again, the same answer is one decision.
    What a review blocks cannot be approved, and about what has changed since nothing is decided.
    """
    approvals = ledger.approvals
    contents = Decisions(connection).contents
    # The same ad under another id is the same decision.
    said = {content_hash: creative_id in approve for creative_id, content_hash in shown.items()}
    twins = {one: content.content_hash for one, content in contents.items() if content.content_hash in said}
    approve = {*approve, *(one for one, content_hash in twins.items() if said[content_hash] and one not in shown)}
    shown = {**twins, **shown}
    rows, void = [], {}
    for creative_id, content_hash in sorted(shown.items()):
        content = contents.get(creative_id)
        decision = APPROVED if creative_id in approve else REJECTED
        if content is None:
            void[creative_id] = "there is no such creative"
        elif content.content_hash != content_hash:
            void[creative_id] = "its content has changed since it was shown"
        elif decision == APPROVED and content.refusal:
            void[creative_id] = content.refusal
        else:
            rows.append(_row(content, decision, origin, day, by, reason, at))
    for row in rows:
        names = ("creative_id", "creative_hash", "decision", "origin", "decided_on", "decided_by")
        connection.execute(approvals.delete().where(and_(*(approvals.c[name] == row[name] for name in names))))
    if rows:
        connection.execute(approvals.insert(), rows)
    return Decided(
        tuple(row["creative_id"] for row in rows if row["decision"] == APPROVED),
        tuple(row["creative_id"] for row in rows if row["decision"] == REJECTED),
        void,
    )


def _row(  # noqa: PLR0917
    content: Content, decision: str, origin: str, day: date, by: str | None, reason: str, at: datetime | None
) -> dict[str, Any]:
    return {
        "creative_id": content.creative_id,
        "creative_hash": content.content_hash,
        "decision": decision,
        "origin": origin,
        "decided_on": day,
        "decided_by": by,
        "reason": reason,
        "decided_at": at,
    }


def _said_again(content: Content, before: Row[Any], day: date) -> dict[str, Any]:
    """The decision about the same content, for this creative: counts from the later of both days."""
    where = f"as decided on {before.decided_on} for {before.creative_id}"
    reason = f"{where}: {before.reason}" if before.reason else where
    on = max(day, before.decided_on)
    return _row(content, before.decision, before.origin, on, before.decided_by, reason, before.decided_at)


# --- what a person is shown --------------------------------------------------------------------------------------

_WORDS = {
    "zh": {
        "subject": "{shop}：{day} 有 {count} 条创意等待审批",
        "simulated": "**模拟数据：店铺与商品均为虚构。**",
        "lead": "批准后进入次日投放计划；未批准的不会投放。勾选要剔除的创意，其余视为批准。",
        "heads": ("编号", "投放位置", "面向人群", "文案", "图片", "审查提示"),
        "nobody": "不做个性化",
        "more": "另有 {count} 条未列出：`adloom review --shop {shop} --day {day}`",
        "files": "素材：{files}",
        "offer": "优惠：{offer}",
        "none": "无",
    },
    "en": {
        "subject": "{shop}: {count} creatives of {day} wait for approval",
        "simulated": "**Simulated: the shop and its items are invented.**",
        "lead": "What is approved enters tomorrow's plan; nothing else is shown. Choose the creatives to drop; "
        "the others are approved.",
        "heads": ("no.", "where", "for whom", "copy", "picture", "what the review says"),
        "nobody": "not personalised",
        "more": "{count} more are not listed: `adloom review --shop {shop} --day {day}`",
        "files": "files: {files}",
        "offer": "offer: {offer}",
        "none": "nothing",
    },
}


def ask(shop: Shop, day: date, found: Sequence[Waiting]) -> Asked:
    """The form about what waits: markdown in the shop's language, every text of data escaped."""
    words = _WORDS[shop.language]
    shown = found[:FORM_CREATIVES]
    heads: tuple[str, ...] = words["heads"]  # type: ignore[assignment]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {number} | {' | '.join(_cells(one, shop))} |" for number, one in enumerate(shown, start=1)]
    parts = [str(words["simulated"])] if shop.simulated else []
    parts += [str(words["lead"]), "\n".join(lines)]
    if len(found) > len(shown):
        parts.append(str(words["more"]).format(count=len(found) - len(shown), shop=shop.id, day=day))
    return Asked(
        day=day,
        subject=str(words["subject"]).format(shop=shop.name, day=day, count=len(shown)),
        body="\n\n".join(parts),
        labels={one.creative_id: f"{number} · {one.headline}" for number, one in enumerate(shown, start=1)},
        hashes={one.creative_id: one.content_hash for one in shown},
    )


def _cells(one: Waiting, shop: Shop) -> list[str]:
    words = _WORDS[shop.language]
    copy = [f"**{escaped(one.headline)}**", escaped(one.body), escaped(one.call_to_action)]
    copy += [escaped(" ".join(f"#{tag}" for tag in one.hashtags))] if one.hashtags else []
    copy += [escaped(str(words["offer"]).format(offer=one.offer))] if one.offer else []
    named = ", ".join(name for name, _, _ in one.files)
    copy += [escaped(str(words["files"]).format(files=named))] if one.files else []
    notes = [f"{escaped(note.rule_id)}: “{escaped(note.span)}”, {escaped(note.reason)}" for note in one.notes]
    return [
        f"{escaped(one.channel)} · {one.language}",
        escaped(one.segment_words) or f"{words['nobody']}",
        " — ".join(copy),
        _picture(one, shop),
        "; ".join(notes) or str(words["none"]),
    ]


def _picture(one: Waiting, shop: Shop) -> str:
    """The first of its images, from the route of ``plugins/creative_files.py``; the others differ in shape alone."""
    path = next((path for _, kind, path in one.files if kind == "image"), None)
    return "" if path is None else f"![{escaped(one.headline)}]({PICTURES}/creatives_daily__{shop.id}/{quote(path)})"


def escaped(said: str) -> str:
    """Text of data within markdown: one line, and nothing in it is a mark, a link or HTML."""
    # Addresses become links by themselves, escaped or not: an invisible word joiner keeps them text.
    said = re.sub(r"(?i)(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)", "\u2060", said)
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(said.split()))


def write_asked(shop: Shop, asked: Asked) -> Path:
    """Keep what is asked beside the day's creatives; the same question has the same file."""
    content = json.dumps(asdict(asked), ensure_ascii=False, indent=1, default=str) + "\n"
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    path = shop.creatives / f"day={asked.day.isoformat()}" / ASKED / f"asked-{digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(content, encoding="utf-8")
    fresh.replace(path)
    return path


def read_asked(path: Path) -> Asked:
    """What `write_asked` kept."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise AdloomError(f"{path} cannot be read: {error}", "clear the task settle_approvals and ask again") from error
    return Asked(**content | {"day": date.fromisoformat(content["day"])})
