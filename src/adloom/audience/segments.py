"""Which users are counted in which segment, so that no two days give anybody away.

**What is published.** Each day a list of segments with a rounded number of users and a description. Users themselves
are never published; only the ad server learns, by keyed hash, who is served as what.

**The attack.** Whoever holds the tables of D and D+1 subtracts them. If only Ann came to the shop in between and one
segment grew by one, Ann is in it, and its description is hers. If Ann alone left one segment and another grew, both
are known. What is not printed is no secret either: a total minus all other segments is the missing one. A floor of k
users does not help: 57 and 58 are both above it. Rounding alone does not help: somebody is the one who crosses. And it
is not only numbers that tell: a segment that appears, or is renamed, on the day on which only Ann did anything, does.

**The rule.** All users counted on D are divided among the segments, `all` (who fits no narrower one),
`not_personalised`, and "not counted". With k' = ``min_moved_users``:

1. Users are counted anew only on a day by which the facts of at least k' users have changed since they were last
   counted anew (`making`). On other days every segment and number is that of the day before, whoever came or left. So
   what a change is due to is hidden among k' users, even from who knows that only one came today.
2. On such a day, for every pair of states, the number of users who pass from one to the other is 0 or at least k'
   (`moves`). Every published number of two consecutive days, and every sum and difference of them, is then a sum of
   groups that came or went at least k' together. Users whose move is not shared go to `all`, together with others who
   leave, or stay counted where they were until there are such.
3. What is said of a segment is said anew only when its users changed as in 2, or when at least k' of them did something
   since it was last said (`making`): shares computed anew after a single user's day would tell of that day.
4. Numbers are rounded down to a multiple of k', for readers who know some of the others, and because a day that is told
   anew (late files, erasure, another setting) keeps no rule about its former self.

**What must not wait.** Somebody who opts out is served as not personalised from that day on and is in no description
made from then on; only the *count* she was part of stays until others change with her, because a count that fell by one
on the day she left would tell on her.

**Small segments.** A segment describes at least k users. Rare combinations are put into a broader one first (`ladder`),
at last into `all`, of which nothing is published while it is smaller. Where moves or opt-outs leave a segment with
fewer than k who are personalised, moves out of it wait, or it is dissolved into `all` as a whole. Between two days of
1, opt-outs may leave it up to k'-1 short.

**The limit.** Groups are what is hidden in. If all of a group of k' do the same, that is known of each of them. Who
knows all others of a group knows the last.

The counted state of D is a function of that of the day before and the facts of D, hence of the facts known by the end
of D.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping

from adloom.audience.portraits import ALL, NOT_PERSONALISED

GONE = ""
"""Counted nowhere: not yet, or nothing is known of the user any more."""
LONGEST_PART = 40

Ladder = tuple[str, ...]
Move = tuple[str, str]
"""(where a user is counted today, where the user's own facts say)."""


def slug(name: str) -> str:
    """A readable part of a segment's id: lower case, words joined by ``_``; letters of any script stay."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"[^\w]+|_+", "_", re.sub(r"['’]", "", text)).strip("_")[:LONGEST_PART].strip("_")
    return f"{text}_category" if text in {ALL, NOT_PERSONALISED} else text


def ladder(wide: str, narrow: str, price_level: str, life_cycle: str) -> Ladder:
    """Segment ids that a user fits, narrowest first, `all` last; empty parts are left out of an id.

    ``narrow`` and ``wide`` are slugs of the user's main interest, or of what the user does where none has a name.
    """

    def name(*parts: str) -> str:
        return "__".join(part for part in parts if part)

    if not wide:
        return (ALL,)
    narrow = narrow or wide
    return (
        name(narrow, price_level, life_cycle),
        name(narrow, life_cycle),
        narrow,
        name(wide, life_cycle),
        wide,
        ALL,
    )


def targets(users: Mapping[Ladder, int], smallest: int, slack: int, before: Collection[str]) -> dict[Ladder, str]:
    """Ladder → the narrowest segment on it with at least ``smallest`` users; what fits none goes to `all`.

    A segment that was not there ``before`` must have ``slack`` more, so that segments do not come and go. `all` may be
    left with fewer than ``smallest``: nothing is then published of it.
    """
    chosen: dict[Ladder, str] = {}
    sizes: Counter[str] = Counter()
    rungs = max((len(one) for one in users), default=0)
    for rung in range(rungs):
        waiting: Counter[str] = Counter()
        for one, count in users.items():
            if one not in chosen and rung < len(one) - 1:
                waiting[one[rung]] += count
        found = {}
        for one in users:
            if one in chosen or rung >= len(one) - 1:
                continue
            needed = smallest if one[rung] in before else smallest + slack
            if waiting[one[rung]] + sizes[one[rung]] >= needed:
                found[one] = one[rung]
        for one, segment in found.items():
            sizes[segment] += users[one]
        chosen |= found
    return {one: chosen.get(one, ALL) for one in users}


def moves(users: Mapping[Move, int], smallest: int, together: int) -> dict[Move, str]:
    """(counted in, wanted) → where these users are counted from now on.

    Keeps, for every pair of different states, the number of users that pass from one to the other at 0 or at least
    ``together``, and every segment but `all` at 0 or at least ``smallest`` personalised users.
    """
    plan = _Plan(users, smallest, together)
    for _ in range(4 * len(users) + 4):
        broken = plan.first_too_small()
        if broken is None:
            break
        plan.mend(broken)
    else:
        plan.all_in_one()
    if not plan.holds():
        plan.all_in_one()
    return plan.to


class _Plan:
    """Who goes where, being mended until the rule holds."""

    def __init__(self, users: Mapping[Move, int], smallest: int, together: int) -> None:
        self.users, self.smallest, self.together = users, smallest, together
        self.wanted = {wanted for _, wanted in users}
        self.dissolved: set[str] = set()
        self.to = {
            (home, wanted): wanted if wanted == home or count >= together else home
            for (home, wanted), count in users.items()
        }
        # Those whose way is not shared by enough may still leave (or come in) together, by the widest door: from `all`,
        # where nobody is described by what he once liked, the way on is shared by more.
        for home in sorted({home for home, _ in users} - {ALL, NOT_PERSONALISED}):
            out = [move for move, to in self.to.items() if move[0] == home and self._is_active(move)]
            waiting = [move for move in out if self.to[move] == home != move[1]]
            if waiting and sum(users[move] for move in out if move in waiting or self.to[move] == ALL) >= together:
                self.to |= dict.fromkeys(waiting, ALL)

    @staticmethod
    def _is_active(move: Move) -> bool:
        """Are these users personalised today? Others only wait to be counted elsewhere."""
        return move[1] not in {GONE, NOT_PERSONALISED}

    def _sizes(self) -> tuple[Counter[str], Counter[str]]:
        counted: Counter[str] = Counter()
        active: Counter[str] = Counter()
        for move, to in self.to.items():
            counted[to] += self.users[move]
            active[to] += self.users[move] if self._is_active(move) else 0
        return counted, active

    def first_too_small(self) -> str | None:
        """A segment that nobody may describe."""
        counted, active = self._sizes()
        names = sorted(set(counted) - {GONE, NOT_PERSONALISED, ALL})
        return next((name for name in names if active[name] < self.smallest), None)

    def mend(self, name: str) -> None:
        leaving = sorted(
            (move for move, to in self.to.items() if move[0] == name != to and self._is_active(move)),
            key=lambda move: (self.users[move], move),
        )
        missing = self.smallest - self._sizes()[1][name]
        if name in self.wanted and sum(self.users[move] for move in leaving) >= missing:
            for move in leaving:
                if missing > 0:
                    self.to[move] = name
                    missing -= self.users[move]
        else:
            self._dissolve(name)

    def _dissolve(self, name: str) -> None:
        """Everybody counted there goes to `all` together; who was about to come stays where he was."""
        self.dissolved.add(name)
        for move, to in self.to.items():
            if to == name:
                home = move[0]
                self.to[move] = ALL if home == name or home in self.dissolved else home
        own = sorted((move for move in self.to if move[0] == name), key=lambda move: (self.users[move], move))
        together = sum(self.users[move] for move in own if self.to[move] == ALL)
        for move in own:
            if 0 < together < self.together and self.to[move] not in {ALL, GONE, NOT_PERSONALISED}:
                self.to[move] = ALL
                together += self.users[move]

    def all_in_one(self) -> None:
        """The way out that always keeps the rule: every segment goes to `all` as a whole, others stay as they are."""
        self.to = {move: move[0] if move[0] in {GONE, NOT_PERSONALISED} else ALL for move in self.to}

    def holds(self) -> bool:
        passed: Counter[Move] = Counter()
        for move, to in self.to.items():
            passed[move[0], to] += self.users[move]
        alone = any(home != to and count < self.together for (home, to), count in passed.items())
        return not alone and self.first_too_small() is None


def passages(users: Iterable[tuple[Move, int]], to: Mapping[Move, str]) -> dict[str, set[str]]:
    """Segment → the segments it exchanges users with on this day."""
    exchanged: dict[str, set[str]] = defaultdict(set)
    for move, _ in users:
        home, there = move[0], to[move]
        if home != there:
            exchanged[home].add(there)
            exchanged[there].add(home)
    return exchanged
