"""Which of the possible briefs are written: a day's budget between what is worth most and what is known least.

Expected value = users of the segment × CTR of such creatives × popularity of the item × how well it fits: about the
clicks if everybody saw it once. It only ranks. So that a day is no list of one bestseller for the largest segment, each
further brief of the same segment, or scenario and language, and each further copy about the same item, counts a half, a
third, … of its value.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

from adloom.briefs.knowing import Clicks, Family
from adloom.briefs.scenarios import Candidate
from adloom.shop import Shop

ITEM_SHARE = 2
"""An item may have this many times its even share of the day's copies, and two at least."""


@dataclass(frozen=True)
class Chosen:
    """A candidate that is written, and why."""

    candidate: Candidate
    chosen_for: Literal["value", "exploration"]
    value: float
    evidence: dict[str, Any]
    variants: int = 1


def item_limit(budget: int, items: int) -> int:
    """How many copies of a day may be about one item."""
    return max(2, math.ceil(ITEM_SHARE * budget / max(1, items)))


def evidence(candidate: Candidate, clicks: Clicks) -> dict[str, Any]:
    """What the expected value is the product of, with the counts behind it."""
    family = (candidate.segment.segment_id, candidate.scenario, candidate.channel)
    impressions, clicked = clicks.counts(*family)
    return {
        # Of a segment whose size is not known, one user.
        "segment_users": candidate.segment.users,
        "ctr": _six_digits(clicks.ctr(*family)),
        "ctr_impressions": impressions,
        "ctr_clicks": clicked,
        "shop_impressions": clicks.shop[0],
        "shop_clicks": clicks.shop[1],
        "popularity": candidate.item.popularity,
        "item_viewers": candidate.item.viewers,
        "item_buyers": candidate.item.buyers,
        "fit": round(candidate.fit, 3),
    }


def expected_value(candidate: Candidate, clicks: Clicks) -> float:
    """About the clicks if every user of the segment saw it once."""
    ctr = clicks.ctr(candidate.segment.segment_id, candidate.scenario, candidate.channel)
    return _six_digits(max(1, candidate.segment.users) * ctr * candidate.item.popularity * candidate.fit)


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _one(candidate: Candidate) -> int:
    return 1


def choose(
    shop: Shop,
    day: date,
    candidates: Sequence[Candidate],
    clicks: Clicks,
    variants: Callable[[Candidate], int] = _one,
) -> list[Chosen]:
    """Candidates of at most ``briefs_per_day`` copies in all, in the order they are to be written.

    First one of every scenario and language there is (as far as the budget goes, the most valuable first), then by
    value, then, a share of ``exploration_share`` of the budget, of what was shown least. The last one of a part has as
    many of its ``variants`` as are left.
    """
    # Where all are taken there is no need to look what the others would cost.
    budget = shop.copywriting.briefs_per_day
    if len(candidates) < budget:
        budget = min(budget, sum(variants(one) for one in candidates))
    explored = math.floor(budget * shop.copywriting.exploration_share + 0.5)
    choice = _Choice(shop, day, candidates, clicks, variants)
    for number in choice.best_of_each():
        choice.take(number, "value", budget)
    for number in choice.by_value():
        if not choice.take(number, "value", budget - explored):
            break
    for number in choice.least_shown():
        if not choice.take(number, "exploration", budget):
            break
    return choice.taken


class _Choice:
    """What is taken so far."""

    def __init__(
        self,
        shop: Shop,
        day: date,
        candidates: Sequence[Candidate],
        clicks: Clicks,
        variants: Callable[[Candidate], int],
    ) -> None:
        self.candidates, self.clicks, self.variants = candidates, clicks, variants
        self.copies = 0
        self.seed = f"{shop.id} {day}"
        self.values = [expected_value(one, clicks) for one in candidates]
        self.limit = item_limit(shop.copywriting.briefs_per_day, len({one.item.item_id for one in candidates}))
        self.taken: list[Chosen] = []
        self.numbers: set[int] = set()
        self.items: Counter[str] = Counter()
        self.segments: Counter[str] = Counter()
        self.cells: Counter[tuple[str, ...]] = Counter()

    def take(self, number: int, chosen_for: Literal["value", "exploration"], most: int) -> bool:
        """Take a candidate if ``most`` copies are not taken yet; False: they are."""
        if self.copies >= most:
            return False
        one = self.candidates[number]
        variants = min(self.variants(one), most - self.copies)
        self.numbers.add(number)
        self.copies += variants
        self.items[one.item.item_id] += variants
        self.segments[one.segment.segment_id] += 1
        self.cells[one.scenario, one.language] += 1
        self.cells[one.scenario, one.language, one.channel] += 1
        self.taken.append(Chosen(one, chosen_for, self.values[number], evidence(one, self.clicks), variants))
        return True

    def is_open(self, number: int) -> bool:
        return number not in self.numbers and self.items[self.candidates[number].item.item_id] < self.limit

    def discounted(self, number: int) -> float:
        """The value of one more brief of its item and segment."""
        one = self.candidates[number]
        return self.values[number] / ((1 + self.items[one.item.item_id]) * (1 + self.segments[one.segment.segment_id]))

    def best_of_each(self) -> Iterator[int]:
        """The best candidate of each scenario and language, looked for when it is asked for."""
        waiting: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, one in enumerate(self.candidates):
            waiting[one.scenario, one.language].append(number)
        order = sorted(waiting, key=lambda cell: (-max(self.values[number] for number in waiting[cell]), cell))
        for cell in order:
            yield self._best(waiting[cell])

    def _best(self, numbers: Iterable[int]) -> int:
        # An item that had its share gives way, unless there is no other.
        return min(numbers, key=lambda number: (not self.is_open(number), -self.discounted(number), number))

    def by_value(self) -> Iterator[int]:
        """Greatest discounted value first; what was chosen in between counts.

        One heap for each scenario, language and channel, whose own discount its candidates share. Inside, discounts
        only grow with what is taken, so a heap whose first one is brought up to date is right.
        """
        heaps: dict[tuple[str, ...], list[tuple[float, int]]] = defaultdict(list)
        for number, one in enumerate(self.candidates):
            heaps[one.scenario, one.language, one.channel].append((-self.discounted(number), number))
        for heap in heaps.values():
            heapq.heapify(heap)
        while True:
            best = min((self._first(cell, heaps[cell]) for cell in sorted(heaps)), default=(0.0, -1))
            if best[1] < 0:
                return
            yield best[1]

    def _first(self, cell: tuple[str, ...], heap: list[tuple[float, int]]) -> tuple[float, int]:
        """(minus the discounted value, number) of the best that is open; (0, -1) where there is none."""
        while heap:
            before, number = heap[0]
            if not self.is_open(number):
                heapq.heappop(heap)
                continue
            now = -self.discounted(number)
            if now <= before:
                return now / ((1 + self.cells[cell[:2]]) * (1 + self.cells[cell])), number
            heapq.heapreplace(heap, (now, number))
        return 0.0, -1

    def least_shown(self) -> Iterator[int]:
        """In turns, one of each segment, scenario, channel and language; those with the fewest impressions first."""
        families: dict[Family, list[int]] = defaultdict(list)
        for number, one in enumerate(self.candidates):
            if number not in self.numbers:
                families[one.segment.segment_id, one.scenario, one.channel, one.language].append(number)
        taken: Counter[Family] = Counter(
            (one.segment.segment_id, one.scenario, one.channel, one.language)
            for one in (self.candidates[number] for number in self.numbers)
        )
        turn = sorted(
            families,
            key=lambda family: (taken[family], self.clicks.families.get(family, (0, 0))[0], self._draw(*family)),
        )
        for numbers in families.values():
            numbers.sort(key=lambda number: self._draw(*self.candidates[number].key), reverse=True)
        while turn:
            for family in turn:
                drawn = self._next(families[family])
                if drawn is not None:
                    yield drawn
            turn = [family for family in turn if families[family]]

    def _next(self, numbers: list[int]) -> int | None:
        while numbers:
            number = numbers.pop()
            if self.is_open(number):
                return number
        return None

    def _draw(self, *words: str) -> str:
        """A random order that is the same on every run of this shop and day."""
        return hashlib.sha256("\0".join((self.seed, *words)).encode()).hexdigest()
