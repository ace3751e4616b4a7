"""Does a copy or a picture resemble another one of the shop, of the same day or of the last half year?

**Texts.** Two copies are compared by the groups of neighbouring letters they share (Jaccard): 3 letters where it is
mostly Chinese, 5 elsewhere, spaces, signs and case taken out. MinHash bands (datasketch) only propose the pairs; the
share that counts is exact. Of two that resemble each other the later one, by day and id, has the finding; it names the
earlier one and quotes what both say. What a review blocks, also for being such a copy, is no original for others.

**Pictures.** Two pictures are compared by the bits of their perceptual hash (ImageHash) that differ, within a format.

**Account.** 1 − originals / copies over seven days: what platforms hold against an account that repeats itself.

A day's findings depend on the days before it. So when an earlier day is recorded again or late, the later ones are
looked at again: in whatever order days are run, the rows end up the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from difflib import SequenceMatcher
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, exists, func, not_, select

from adloom.errors import AdloomError
from adloom.review.text import plain
from adloom.shop import Shop
from adloom.warehouse import ledger

if TYPE_CHECKING:
    from pathlib import Path

    from datasketch import MinHash, MinHashLSH  # type: ignore[import-untyped,unused-ignore]

RULES_VERSION = "2026-11-24.1"
TEXT_RULE, IMAGE_RULE = "similarity.near_duplicate", "similarity.near_duplicate_image"
LOOKBACK_DAYS, ACCOUNT_DAYS = 180, 7
PART_ROWS = 5_000
"""Texts indexed, and earlier ones read, at once; an indexed one takes about 20 kB."""

GROUP = {"zh": 3, "en": 5}
"""Neighbouring letters that make a group: five Latin letters say about as much as three Chinese ones."""
HAN = re.compile(r"[㐀-鿿]")
PERMUTATIONS, BANDS, ROWS = 126, 42, 3
"""A pair that shares .5 is proposed with a chance of 99.6 %, one of .6 with 99.997 %, one of .1 with 4 %."""
LONGEST_SPAN = 40
TEXT_PARTS = ("headline", "body", "call_to_action", "hashtags")

_C, _R, _A, _H = ledger.creatives.c, ledger.reviews.c, ledger.assets.c, ledger.image_hashes.c


@dataclass(frozen=True)
class Text:
    """A copy as it is compared; texts are ordered by day and id."""

    day: date
    creative_id: str
    creative_hash: str
    headline: str
    body: str

    @property
    def groups(self) -> frozenset[str]:
        return letter_groups(f"{self.headline}{self.body}")

    @property
    def place(self) -> tuple[date, str]:
        return self.day, self.creative_id


@dataclass(frozen=True)
class Likeness:
    """An earlier text and the share of letter groups that both have."""

    original: Text
    shared: float

    @property
    def rank(self) -> tuple[float, date, str]:
        """The most alike first, of equals the earliest."""
        return -self.shared, *self.original.place


def letter_groups(text: str) -> frozenset[str]:
    """The groups of neighbouring letters of a text; a text shorter than a group is one itself."""
    letters = re.sub(r"[\W_]+", "", plain(text).text)
    size = GROUP["zh" if 3 * len(HAN.findall(letters)) >= len(letters) else "en"]
    return frozenset(letters[start : start + size] for start in range(max(len(letters) - size + 1, 1)))


def shared(first: frozenset[str], second: frozenset[str]) -> float:
    """The share of their groups that both have, 0 to 1."""
    return len(first & second) / len(first | second)


# --- texts ---------------------------------------------------------------------------------------------------------


def near_duplicates(
    texts: Iterable[Text],
    earlier: Callable[[], Iterable[Text]],
    warn: float,
    block: float,
    never: frozenset[str] = frozenset(),
) -> dict[str, Likeness]:
    """creative_id → what it resembles most, for those of ``texts`` that share at least ``warn`` with an original.

    ``earlier`` gives the originals of earlier days, as often as it is asked, and they are not kept; ``never`` are ids
    of ``texts`` that are no originals whatever they say. A text that shares at least ``block`` is none for later ones.
    Only `PART_ROWS` texts are indexed at a time, so a day of a hundred thousand costs time, not memory.
    """
    todays = sorted(texts, key=lambda text: text.place)
    found: dict[str, Likeness] = {}
    originals: list[Text] = []
    for start in range(0, len(todays), PART_ROWS):
        part = todays[start : start + PART_ROWS]
        signatures = [_signature(text.groups) for text in part]
        best = _nearest(part, signatures, chain(earlier(), originals), warn)
        index = _index()
        for number, (text, signature) in enumerate(zip(part, signatures, strict=True)):
            groups = text.groups
            for other in index.query(signature):
                _keep(best, number, Likeness(part[other], shared(part[other].groups, groups)), warn)
            likeness = best.get(number)
            if likeness is not None:
                found[text.creative_id] = likeness
            if text.creative_id not in never and (likeness is None or likeness.shared < block):
                index.insert(number, signature)
                originals.append(text)
    return found


def _nearest(
    part: Sequence[Text], signatures: Sequence[MinHash], others: Iterable[Text], warn: float
) -> dict[int, Likeness]:
    """Number in ``part`` → the one of ``others``, which pass by, that it resembles most."""
    index = _index()
    for number, signature in enumerate(signatures):
        index.insert(number, signature)
    best: dict[int, Likeness] = {}
    for other in others:
        groups = other.groups
        for number in index.query(_signature(groups)):
            _keep(best, number, Likeness(other, shared(groups, part[number].groups)), warn)
    return best


def _keep(best: dict[int, Likeness], number: int, likeness: Likeness, least: float) -> None:
    if likeness.shared >= least and (number not in best or likeness.rank < best[number].rank):
        best[number] = likeness


def _index() -> MinHashLSH:
    from datasketch import MinHashLSH

    return MinHashLSH(num_perm=PERMUTATIONS, params=(BANDS, ROWS))


@cache
def _blank() -> MinHash:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=1)


def _signature(groups: frozenset[str]) -> MinHash:
    signature = _blank().copy()
    signature.update_batch([group.encode() for group in groups])
    return signature


# --- a day's review ------------------------------------------------------------------------------------------------


def review_day(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Replace the similarity findings of the day's copies, and the account's figure, in the caller's transaction.

    The day's creatives and their other reviews must be stored. Returns the rows added to ``reviews``. Later days that
    are stored already are looked at again, because theirs may resemble the day's.
    """
    rows = _review_texts(connection, shop, day)
    for later in _later(connection, _C.day, day):
        _review_texts(connection, shop, later)
    return rows


def _later(connection: Connection, column: Any, day: date) -> list[date]:
    """Days with rows in ``column`` that look back on ``day``, ascending."""
    reach = column.between(day + timedelta(days=1), day + timedelta(days=LOOKBACK_DAYS))
    return sorted(connection.scalars(select(column).where(reach).distinct()))


def _review_texts(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    _forget(connection, day, TEXT_RULE)
    texts = list(_texts(connection, day, day))
    found = near_duplicates(
        texts,
        lambda: _texts(connection, day - timedelta(days=LOOKBACK_DAYS), day - timedelta(days=1), only_originals=True),
        shop.limits.similar_text_warn,
        shop.limits.similar_text_block,
        never=_blocked(connection, day),
    )
    rows = [_text_row(shop, text, found[text.creative_id]) for text in texts if text.creative_id in found]
    if rows:
        connection.execute(ledger.reviews.insert(), rows)
    ledger.replace_rows(connection, ledger.account_similarity, {"day": day}, [_account_row(connection, shop, day)])
    return rows


def _forget(connection: Connection, day: date, rule: str) -> None:
    connection.execute(ledger.reviews.delete().where(_R.day == day, _R.rule_id == rule))


def _is_blocked() -> Any:
    """Does a review block what the creative says? Its pictures are reviewed later, and must not change this answer."""
    return exists().where(
        _R.creative_id == _C.creative_id,
        _R.creative_hash == _C.creative_hash,
        _R.severity == "block",
        _R.part.in_(TEXT_PARTS),
    )


def _blocked(connection: Connection, day: date) -> frozenset[str]:
    return frozenset(connection.scalars(select(_C.creative_id).where(_C.day == day, _is_blocked())))


def _texts(connection: Connection, first: date, last: date, *, only_originals: bool = False) -> Iterator[Text]:
    """The copies of some days in order, a part at a time; ``only_originals``: without those a review blocks."""
    query = (
        select(_C.day, _C.creative_id, _C.creative_hash, _C.headline, _C.body)
        .where(_C.day.between(first, last), _C.headline.is_not(None))
        .order_by(_C.day, _C.creative_id)
    )
    if only_originals:
        query = query.where(not_(_is_blocked()))
    for part in connection.execute(query).partitions(PART_ROWS):
        for row in part:
            yield Text(*row)


def _text_row(shop: Shop, text: Text, likeness: Likeness) -> dict[str, Any]:
    original = likeness.original
    part, span = _in_both(text, original)
    return {
        "creative_id": text.creative_id,
        "creative_hash": text.creative_hash,
        "day": text.day,
        "rule_id": TEXT_RULE,
        "rule_version": RULES_VERSION,
        "part": part,
        "span": span,
        "severity": "block" if likeness.shared >= shop.limits.similar_text_block else "warn",
        "reason": f"shares {likeness.shared:.0%} of its letters' groups with creative {original.creative_id} "
        f"of {original.day}",
    }


def _in_both(text: Text, original: Text) -> tuple[str, str]:
    """(part, the longest run of letters that both say there), cut to what a page shows."""
    runs = []
    for part in ("headline", "body"):
        mine, other = getattr(text, part), getattr(original, part)
        match = SequenceMatcher(None, mine, other, autojunk=False).find_longest_match()
        runs.append((match.size, part, mine[match.a : match.a + match.size]))
    size, part, run = max(runs, key=lambda run: run[0])
    return (part, run[:LONGEST_SPAN].strip()) if size and run.strip() else ("body", text.body[:LONGEST_SPAN])


def _account_row(connection: Connection, shop: Shop, day: date) -> dict[str, Any]:
    """The row of ``account_similarity``: copies of the last seven days, and how many resemble no earlier one."""
    of_window = (_C.day.between(day - timedelta(days=ACCOUNT_DAYS - 1), day), _C.headline.is_not(None))
    resembles = exists().where(
        _R.creative_id == _C.creative_id, _R.creative_hash == _C.creative_hash, _R.rule_id == TEXT_RULE
    )
    counted = select(func.count()).select_from(ledger.creatives).where(*of_window)
    copies = connection.scalar(counted) or 0
    originals = connection.scalar(counted.where(not_(resembles))) or 0
    likeness = 1 - originals / copies if copies else None
    warn, stop = shop.limits.account_similarity_warn, shop.limits.account_similarity_stop
    share = likeness or 0.0
    verdict = "none" if not copies else "stop" if share > stop else "warn" if share > warn else "fine"
    return {
        "day": day,
        "copies": copies,
        "originals": originals,
        "similarity": likeness,
        "verdict": verdict,
        "sentence": _account_sentence(shop, copies, originals, likeness),
    }


def _account_sentence(shop: Shop, copies: int, originals: int, likeness: float | None) -> str:
    warn, stop = shop.limits.account_similarity_warn, shop.limits.account_similarity_stop
    if shop.language == "zh":
        if likeness is None:
            return f"最近 {ACCOUNT_DAYS} 天没有文案"
        return (
            f"账号相似度 {likeness:.0%}：最近 {ACCOUNT_DAYS} 天 {copies} 条文案中 {copies - originals} 条"
            f"与更早的文案相似（{warn:.0%} 提醒，{stop:.0%} 停止）"
        )
    if likeness is None:
        return f"no copies in the last {ACCOUNT_DAYS} days"
    return (
        f"account similarity {likeness:.0%}: {copies - originals} of {copies} copies of the last {ACCOUNT_DAYS} days "
        f"resemble an earlier one (warned at {warn:.0%}, stopped at {stop:.0%})"
    )


# --- pictures ------------------------------------------------------------------------------------------------------


def review_images(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    """Replace the similarity findings of the day's pictures, in the caller's transaction; none where there are none.

    The day's ``assets`` must be stored and their files there. Returns the rows added to ``reviews``.
    """
    ledger.replace_rows(connection, ledger.image_hashes, {"day": day}, _hash_rows(connection, shop, day))
    rows = _compare_images(connection, shop, day)
    for later in _later(connection, _H.day, day):
        _compare_images(connection, shop, later)
    return rows


def _hash_rows(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    query = (
        select(_A.creative_id, _A.format, _A.digest, _A.path)
        .where(_A.day == day, _A.kind == "image")
        .order_by(_A.creative_id, _A.format)
    )
    return [
        {
            "day": day,
            "creative_id": creative_id,
            "format": size,
            "digest": digest,
            "perceptual_hash": perceptual_hash(shop.creatives / path),
        }
        for creative_id, size, digest, path in connection.execute(query).all()
    ]


def perceptual_hash(path: Path) -> str:
    """64 bits as 16 hex digits; pictures that look alike differ in few of them."""
    import imagehash
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return str(imagehash.phash(picture))
    except OSError as error:
        raise AdloomError(f"{path.name} cannot be read as a picture: {error}", "run `adloom compose` again") from error


def _compare_images(connection: Connection, shop: Shop, day: date) -> list[dict[str, Any]]:
    import numpy as np

    _forget(connection, day, IMAGE_RULE)
    query = (
        select(_H.day, _H.creative_id, _H.format, _H.perceptual_hash, _C.creative_hash)
        .join_from(ledger.image_hashes, ledger.creatives, _C.creative_id == _H.creative_id)
        .where(_H.day.between(day - timedelta(days=LOOKBACK_DAYS), day))
        .order_by(_H.format, _H.day, _H.creative_id)
    )
    known = connection.execute(query.where((_H.day == day) | not_(_is_blocked()))).all()
    rows = []
    for size in sorted({one.format for one in known}):
        pictures = [one for one in known if one.format == size]
        bits = np.array([int(one.perceptual_hash, 16) for one in pictures], dtype=np.uint64)
        for number, one in enumerate(pictures):
            if one.day != day or not number:
                continue
            apart = np.bitwise_count(bits[:number] ^ bits[number])
            nearest = int(apart.argmin())
            if apart[nearest] <= shop.limits.similar_image_warn:
                rows.append(_image_row(shop, one, pictures[nearest], int(apart[nearest])))
    if rows:
        connection.execute(ledger.reviews.insert(), rows)
    return rows


def _image_row(shop: Shop, one: Any, original: Any, apart: int) -> dict[str, Any]:
    most = shop.limits.similar_image_block
    return {
        "creative_id": one.creative_id,
        "creative_hash": one.creative_hash,
        "day": one.day,
        "rule_id": IMAGE_RULE,
        "rule_version": RULES_VERSION,
        "part": f"image:{one.format}",
        "span": one.format,
        "severity": "block" if most is not None and apart <= most else "warn",
        "reason": f"differs in {apart} of 64 bits from the picture of creative {original.creative_id} "
        f"of {original.day}",
    }
