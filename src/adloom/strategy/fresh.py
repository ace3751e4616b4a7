"""Creatives of ours that are approved and were not shown yet: where they enter, and with which share.

Evidence knows a creative only once it was shown. Until then it enters every placement of its channel for the segment it
was written for, together with the others that are new there, at the shop's ``exploration_share``; what ran there before
gives way in proportion. Floor and daily cap hold as for every other change. Where nothing ran before, all are alike.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from adloom.creative import ALL, NOT_PERSONALISED
from adloom.shop import Shop
from adloom.strategy.allocation import closest_shares, floor_share, next_shares, uniform_shares, whole_shares
from adloom.strategy.approvals import Content

FRESH_DAYS = 14
"""A creative that nobody was shown for so long after it was made does not enter any more."""
FIRST_POSITION = "1"

Key = tuple[str, str]
Shares = dict[Key, dict[str, float]]


def placements_of(content: Content, known: Iterable[str], languages: Collection[str]) -> list[str]:
    """Where a creative can be shown: the placements of its channel that there are, else the channel's first.

    A shop that writes in several languages has a position per language and channel, because one reader reads one.
    """
    found = []
    for placement in known:
        channel, _, position = placement.rpartition(":")
        if channel == content.channel and (position not in languages or position == content.language):
            found.append(placement)
    first = content.language if len(languages) > 1 else FIRST_POSITION
    return sorted(found) or [f"{content.channel}:{first}"]


def segments_of(content: Content) -> tuple[str, ...]:
    """For whom it is: its segment; what is not personalised is for who is not, and for everybody else."""
    return (content.segment_id,) if content.is_personalised else (ALL, NOT_PERSONALISED)


def enter(
    shop: Shop,
    running: Mapping[Key, Mapping[str, float]],
    today: Mapping[Key, Mapping[str, float]],
    fresh: Iterable[Content],
    *,
    blocked: Collection[tuple[str, str]],
    fits: Callable[[str, str], bool],
) -> Shares:
    """``running`` with the ``fresh`` creatives in it: (segment, placement) → creative → share, in whole millionths.

    ``today``: shares of today, to honour the daily cap. ``blocked``: (placement, creative) that must not meet.
    ``fits(segment, creative)``: may a segment that had no plan of its own be shown what runs for all?
    """
    known = {placement for _, placement in running}
    entering: dict[Key, set[str]] = defaultdict(set)
    for content in fresh:
        for placement in placements_of(content, known, shop.languages):
            if (placement, content.creative_id) not in blocked:
                for segment_id in segments_of(content):
                    entering[segment_id, placement].add(content.creative_id)
    shares: Shares = {key: dict(cell) for key, cell in running.items()}
    for key in sorted(entering):
        segment_id, placement = key
        beside = running.get(key)
        if beside is None:
            beside = {one: share for one, share in running.get((ALL, placement), {}).items() if fits(segment_id, one)}
        new = sorted(entering[key] - beside.keys())
        if new:
            shares[key] = _beside(shop, beside, new, today.get(key))
    return dict(sorted(shares.items()))


def _beside(
    shop: Shop, running: Mapping[str, float], new: list[str], today: Mapping[str, float] | None
) -> dict[str, float]:
    creatives = sorted([*running, *new])
    if not running:
        return dict(zip(creatives, uniform_shares(len(creatives)).tolist(), strict=True))
    floor = floor_share(len(creatives))
    explored = min(max(shop.strategy.exploration_share, len(new) * floor), 1 - len(running) * floor)
    whole = sum(running.values())
    target = np.array(
        [running[one] / whole * (1 - explored) if one in running else explored / len(new) for one in creatives]
    )
    if today is None:
        shares = closest_shares(target, np.full_like(target, floor), np.ones_like(target))
    else:
        before = np.array([today.get(one, 0.0) for one in creatives])
        shares = next_shares(target, before, shop.strategy.max_share_change)
    return dict(zip(creatives, whole_shares(shares).tolist(), strict=True))
