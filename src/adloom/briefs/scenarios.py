"""Which briefs could be written: the facts of a day, matched by scenario, language, channel and segment.

Only what the facts say belongs together is put together: an item to a segment by its interests, a campaign to the items
it names, a category to another by a lift that is surely above 1, an event to an item by a word they share. What lacks a
fact is refused, with the reason.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from heapq import nsmallest

from adloom.audience.naming import split_path
from adloom.audience.portraits import ALL, Affinity, Portrait
from adloom.briefs.describing import LANGUAGE_NAMES, Item, Refused, describe
from adloom.briefs.knowing import Campaign, Event, Known, covers, is_within
from adloom.creative import SCENARIOS, Channel, HotEvent, ItemFacts, Language, Offer, Scenario, channels
from adloom.shop import Shop

NO_INTEREST = 0.1
"""How well an item fits a segment that shows no interest in its category, or in none: as a tenth of its interest."""
RECENT = 1.5
"""An item the segment looked at lately fits so much better."""
MOST_LIFT = 3.0
LINKS = {"title": 1.0, "category": 0.7, "attributes": 0.5}
"""How closely an event's word ties it to an item, by where the item has it."""
LEAST_WORD = {"zh": 2, "en": 3}
"""Characters; shorter words stand in too many others."""
LONGEST_OFFER, LONGEST_EVENT, MOST_KEYWORDS, LONGEST_KEYWORD = 160, 120, 8, 40
ANY = "any"
"""In place of a scenario: what is refused would be so in each."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A brief that could be written. ``fit``: how well the item suits segment and occasion, about 0 to 1."""

    scenario: Scenario
    language: Language
    channel: str
    segment: Portrait
    item: Item
    fit: float
    campaign: Campaign | None = None
    event: Event | None = None
    related: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from every other candidate of the day, and their order."""
        campaign = self.campaign.campaign_id if self.campaign else ""
        event = self.event.event_id if self.event else ""
        who_what = (self.segment.segment_id, self.item.item_id, campaign, event, self.related)
        return (self.scenario, self.language, self.channel, *who_what)

    @property
    def offer(self) -> Offer | None:
        one = self.campaign
        if one is None:
            return None
        name, offer = one.name.get(self.language, ""), one.offer[self.language]
        return Offer(campaign_id=one.campaign_id, name=name, text=offer, starts_on=one.starts_on, ends_on=one.ends_on)

    @property
    def hot_event(self) -> HotEvent | None:
        one = self.event
        if one is None:
            return None
        words = tuple(word for word in one.keywords[self.language] if len(word) <= LONGEST_KEYWORD)
        title, keywords = one.title[self.language], words[:MOST_KEYWORDS]
        return HotEvent(event_id=one.event_id, title=title, keywords=keywords, ends_on=one.ends_on)


@dataclass
class Refusals:
    """(scenario, language, subject) → why nothing was written, and how many briefs that concerns."""

    rows: dict[tuple[str, str, str], dict[str, int]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, scenario: str, language: str, subject: str, reason: str, briefs: int = 1) -> None:
        reasons = self.rows[scenario, language, subject]
        reasons[reason] = max(briefs, reasons.get(reason, 0))

    def __iter__(self) -> Iterator[tuple[tuple[str, str, str], str, int]]:
        for key in sorted(self.rows):
            yield key, "; ".join(self.rows[key]), sum(self.rows[key].values())


@dataclass
class Possible:
    """All candidates, sorted; the facts of their items; what was refused."""

    candidates: list[Candidate] = field(default_factory=list)
    facts: dict[Language, dict[str, ItemFacts]] = field(default_factory=dict)
    refused: Refusals = field(default_factory=Refusals)


def possible_briefs(shop: Shop, known: Known, most: int, shown_refusals: int) -> Possible:
    """Every brief the facts allow, of each segment and occasion the ``most`` items that suit it best."""
    found = Possible()
    for language in shop.languages:
        found.facts[language] = _describe_items(shop, known, language, found.refused, shown_refusals)
    links = _links(shop, known, found.facts)
    for language in shop.languages:
        writer = _Language(shop, known, language, found, links, most)
        found.candidates += writer.candidates()
    found.candidates.sort(key=lambda one: one.key)
    return found


def shop_channels(shop: Shop, language: Language) -> dict[str, Channel]:
    """The channels of the language that the shop uses."""
    return {name: one for name, one in channels(language).items() if not shop.channels or name in shop.channels}


def _within(path: str, fit: float) -> Callable[[str], float]:
    return lambda category: fit if is_within(category, path) else 0.0


def _rank(suits: tuple[Item, float]) -> tuple[float, str]:
    item, fit = suits
    return -fit * item.popularity, item.item_id


# --- items and segments ------------------------------------------------------------------------------------------


def _describe_items(
    shop: Shop, known: Known, language: Language, refused: Refusals, shown: int
) -> dict[str, ItemFacts]:
    """Item id → its facts in the language. Of the same reason only so many items are refused one by one."""
    facts: dict[str, ItemFacts] = {}
    reasons: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for item in known.items:
        try:
            facts[item.item_id] = describe(item, language, shop.language)
        except Refused as error:
            said = str(error)
            kind = re.sub(r"\d[\d,]*", "N", said.removeprefix(f"item {item.item_id} "))
            reasons[kind].append((item.item_id, said))
    for kind, found in sorted(reasons.items()):
        for item_id, said in found[:shown]:
            refused.add(ANY, language, item_id, said)
        _refuse_others(refused, language, kind, len(found) - shown)
    for one in known.unusable:
        for item_id in one.examples:
            refused.add(ANY, language, item_id, f"item {item_id} {one.reason}")
        _refuse_others(refused, language, one.reason, one.items - len(one.examples))
    if not known.items and not known.unusable:
        refused.add(ANY, language, "items", "the shop has delivered no items", 0)
    return facts


def _refuse_others(refused: Refusals, language: str, reason: str, items: int) -> None:
    if items > 0:
        refused.add(ANY, language, "items", f"{items:,} more items: each {reason}", items)


def _links(shop: Shop, known: Known, facts: Mapping[Language, dict[str, ItemFacts]]) -> dict[str, dict[str, float]]:
    """event → item → how closely they are tied, looked for in every language there are facts in, written in or not."""
    if not known.events:
        return {}
    everywhere = dict(facts)
    for language in LANGUAGE_NAMES:
        if language not in everywhere:
            everywhere[language] = _describe_items(shop, known, language, Refusals(), 0)
    found: dict[str, dict[str, float]] = {}
    for event in known.events:
        strengths = ((item.item_id, link(event, item.item_id, everywhere)) for item in known.items)
        found[event.event_id] = {item_id: strength for item_id, strength in strengths if strength > 0}
    return found


class _Shelf:
    """Items by category, the most popular first; ``most`` of each are enough to find the best of all."""

    def __init__(self, items: Iterable[Item], most: int) -> None:
        self.most = most
        self._ids: set[str] = set()
        self._by_category: dict[str, list[Item]] = defaultdict(list)
        for item in sorted(items, key=lambda one: (-one.popularity, one.item_id)):
            self._ids.add(item.item_id)
            if len(self._by_category[item.category]) < most:
                self._by_category[item.category].append(item)

    def best(self, fit: Callable[[str], float], also: Mapping[str, Item] | None = None) -> list[tuple[Item, float]]:
        """The items with the greatest fit × popularity; ``fit`` of a category, 0: not at all.

        ``also``: items the segment looked at lately; they count where they lie on this shelf.
        """
        found: dict[str, tuple[Item, float]] = {}
        for category, items in self._by_category.items():
            suits = fit(category)
            if suits > 0:
                found |= {item.item_id: (item, suits) for item in items}
        for item in (also or {}).values():
            suits = fit(item.category)
            if suits > 0 and item.item_id in self._ids:
                found[item.item_id] = (item, min(1.0, RECENT * suits))
        return nsmallest(self.most, found.values(), key=_rank)


def _segments(known: Known) -> list[Portrait]:
    """Segments somebody is in. Where the shop can count nobody, `all` stands for everybody, undescribed."""
    counted = [one for one in known.portraits if one.users > 0]
    return counted or [one for one in known.portraits if one.segment_id == ALL]


# --- one language ------------------------------------------------------------------------------------------------


@dataclass
class _Language:
    """Finds the candidates of one language, scenario by scenario."""

    shop: Shop
    known: Known
    language: Language
    found: Possible
    links: Mapping[str, Mapping[str, float]]
    """event → item → how closely they are tied"""
    most: int

    def candidates(self) -> list[Candidate]:
        if not shop_channels(self.shop, self.language):
            self._refuse(ANY, "channels", f"the shop uses no {self.name} channel", 0)
            return []
        for one in self.known.portraits:
            if one not in self.segments:
                self._refuse(ANY, one.segment_id, f"segment {one.segment_id} has too few users to be written for")
        makers = {
            "recommendation": self._recommendations,
            "cross_category": self._cross_category,
            "promotion": self._promotions,
            "social": self._social,
            "hot_event": self._hot_events,
        }
        candidates = []
        for scenario in SCENARIOS:
            made = list(makers[scenario]())
            if not made and not any(key[:2] == (scenario, self.language) for key in self.found.refused.rows):
                self._refuse(scenario, "items", "no item that may be written about suits any segment", 0)
            candidates += made
        return candidates

    @property
    def name(self) -> str:
        return LANGUAGE_NAMES[self.language]

    def _refuse(self, scenario: str, subject: str, reason: str, briefs: int = 1) -> None:
        self.found.refused.add(scenario, self.language, subject, reason, briefs)

    @cached_property
    def segments(self) -> list[Portrait]:
        return _segments(self.known)

    @cached_property
    def items(self) -> dict[str, Item]:
        facts = self.found.facts[self.language]
        return {item.item_id: item for item in self.known.items if item.item_id in facts}

    @cached_property
    def shelf(self) -> _Shelf:
        return _Shelf(self.items.values(), self.most)

    @cached_property
    def social_channels(self) -> list[str]:
        return [name for name, one in shop_channels(self.shop, self.language).items() if one.is_social]

    @cached_property
    def ad_channels(self) -> list[str]:
        """Where people are advertised to rather than talked with; all channels where there are only social ones."""
        everything = shop_channels(self.shop, self.language)
        return [name for name, one in everything.items() if not one.is_social] or list(everything)

    @cached_property
    def campaigns(self) -> list[Campaign]:
        """Campaigns with an offer that can be told in this language."""
        usable = []
        for one in self.known.campaigns:
            offer = one.offer.get(self.language, "")
            if not offer:
                self._refuse("promotion", one.campaign_id, f"campaign {one.campaign_id} has no {self.name} offer")
            elif len(offer) > LONGEST_OFFER or len(one.name.get(self.language, "")) > LONGEST_OFFER:
                longest = max(len(offer), len(one.name.get(self.language, "")))
                self._refuse(
                    "promotion", one.campaign_id, f"campaign {one.campaign_id} has a text of {longest:,} characters"
                )
            else:
                usable.append(one)
        return usable

    def _interest(self, segment: Portrait, least: float = 0.0) -> Callable[[str], float]:
        """Category → how much the segment looks at it, ``least`` where it does not.

        What the shop leaves out of portraits is shown to nobody because of who they are.
        """
        if not segment.is_personalised or not segment.interests:
            return lambda category: NO_INTEREST
        shares = [("/".join(split_path(path)), share) for path, share in segment.interests]
        left_out = set(self.shop.portraits.left_out_categories)

        def fit(category: str) -> float:
            if category.partition("/")[0] in left_out:
                return 0.0
            return max([least, *(share for path, share in shares if is_within(category, path))])

        return fit

    def _suited(self, shelf: _Shelf, segment: Portrait) -> list[tuple[Item, float]]:
        """The best of an occasion's items for a segment: of its interests, and only without any, of the others."""
        recent = self._recent(segment)
        return shelf.best(self._interest(segment), recent) or shelf.best(self._interest(segment, NO_INTEREST), recent)

    def _recent(self, segment: Portrait) -> dict[str, Item]:
        if not segment.is_personalised:
            return {}
        return {one: self.items[one] for one in segment.recent_items if one in self.items}

    # --- scenarios ---

    def _recommendations(self) -> Iterator[Candidate]:
        yield from self._of_interest("recommendation", self.ad_channels)

    def _social(self) -> Iterator[Candidate]:
        if not self.social_channels:
            self._refuse("social", "channels", f"the shop uses no {self.name} channel with hashtags", 0)
        yield from self._of_interest("social", self.social_channels)

    def _of_interest(self, scenario: Scenario, names: list[str]) -> Iterator[Candidate]:
        for segment in self.segments:
            for suits in self.shelf.best(self._interest(segment), self._recent(segment)):
                yield from self._on_channels(scenario, names, segment, suits)

    def _on_channels(
        self,
        scenario: Scenario,
        names: list[str],
        segment: Portrait,
        suits: tuple[Item, float],
        *,
        related: str = "",
        event: Event | None = None,
    ) -> Iterator[Candidate]:
        """One candidate per channel; with the offer of a campaign of the same scenario, where the item has one."""
        item, fit = suits
        for name in names:
            campaign = self._campaign_of(scenario, name, segment, item)
            yield Candidate(scenario, self.language, name, segment, item, fit, campaign, event, related)

    def _campaign_of(self, scenario: Scenario, channel: str, segment: Portrait, item: Item) -> Campaign | None:
        for one in self.campaigns:
            if one.scenario == scenario and covers(one, item) and _reaches(one, channel, segment):
                return one
        return None

    def _cross_category(self) -> Iterator[Candidate]:
        sure = [one for one in self.known.affinities if one.lift_low > 1]
        if not sure:
            self._refuse(
                "cross_category", "affinities", "no two categories go together more than by chance, for sure", 0
            )
        for pair in sure:
            related = self.known.names.category(pair.viewed_category).names.get(self.language, "")
            subject = f"{pair.viewed_category} → {pair.bought_category}"
            if not related:
                self._refuse("cross_category", subject, f"category {pair.viewed_category} has no {self.name} name")
                continue
            yield from self._crossing(pair, related)

    def _crossing(self, pair: Affinity, related: str) -> Iterator[Candidate]:
        path = "/".join(split_path(pair.bought_category))
        pull = min(pair.lift_low, MOST_LIFT) / MOST_LIFT
        for segment in self.segments:
            looked_at = "/".join(split_path(pair.viewed_category))
            shares = [share for one, share in segment.interests if is_within("/".join(split_path(one)), looked_at)]
            if segment.is_personalised and shares:
                within = _within(path, max(shares) * pull)
                for suits in self.shelf.best(within):
                    yield from self._on_channels("cross_category", self.ad_channels, segment, suits, related=related)

    def _promotions(self) -> Iterator[Candidate]:
        if not self.known.campaigns:
            self._refuse("promotion", "campaigns", "no campaign is on tomorrow", 0)
        for one in self.campaigns:
            covered = [item for item in self.items.values() if covers(one, item)]
            names = [
                name for name in shop_channels(self.shop, self.language) if not one.channels or name in one.channels
            ]
            segments = [segment for segment in self.segments if not one.segments or segment.segment_id in one.segments]
            if not covered:
                reason = f"no item of campaign {one.campaign_id} may be written about"
                self._refuse("promotion", one.campaign_id, reason)
            elif not names:
                self._refuse("promotion", one.campaign_id, f"campaign {one.campaign_id} is on no {self.name} channel")
            elif not segments:
                self._refuse("promotion", one.campaign_id, f"no segment of campaign {one.campaign_id} has users")
            else:
                shelf = _Shelf(covered, self.most)
                for segment in segments:
                    for item, fit in self._suited(shelf, segment):
                        for name in names:
                            yield Candidate("promotion", self.language, name, segment, item, fit, one)

    def _hot_events(self) -> Iterator[Candidate]:
        if not self.known.events:
            self._refuse("hot_event", "hot_events", "nothing people talk about is on tomorrow", 0)
        for event in self.known.events:
            title = event.title.get(self.language, "")
            linked = {one: tie for one, tie in self.links[event.event_id].items() if one in self.items}
            if not title:
                self._refuse("hot_event", event.event_id, f"event {event.event_id} has no {self.name} title")
            elif len(title) > LONGEST_EVENT:
                self._refuse(
                    "hot_event", event.event_id, f"event {event.event_id} has a title of {len(title):,} characters"
                )
            elif not linked:
                self._refuse("hot_event", event.event_id, f"no item shares a word with event {event.event_id}")
            else:
                yield from self._at_event(event, linked)

    def _at_event(self, event: Event, linked: Mapping[str, float]) -> Iterator[Candidate]:
        names = list(shop_channels(self.shop, self.language))
        shelves = {
            strength: _Shelf((self.items[one] for one in linked if linked[one] == strength), self.most)
            for strength in sorted(set(linked.values()))
        }
        for segment in self.segments:
            suits = [
                (item, fit * strength)
                for strength, shelf in shelves.items()
                for item, fit in self._suited(shelf, segment)
            ]
            for best in nsmallest(self.most, suits, key=_rank):
                yield from self._on_channels("hot_event", names, segment, best, event=event)


# --- what belongs together ---------------------------------------------------------------------------------------


def _reaches(campaign: Campaign, channel: str, segment: Portrait) -> bool:
    return (not campaign.channels or channel in campaign.channels) and (
        not campaign.segments or segment.segment_id in campaign.segments
    )


def link(event: Event, item_id: str, facts: Mapping[Language, Mapping[str, ItemFacts]]) -> float:
    """How closely the event is tied to the item, 0 to 1: by a word of its own in the item's title, category or facts.

    A word of two meanings deceives in one language: among the item's attributes it counts only if there is one in
    every language that event and item are known in.
    """
    places = []
    for language, items in facts.items():
        item = items.get(item_id)
        if item is not None and event.title.get(language):
            places.append(_place(event, item, language))
    best = max((LINKS.get(place, 0.0) for place in places), default=0.0)
    return best if best > LINKS["attributes"] or all(places) else 0.0


def _place(event: Event, item: ItemFacts, language: Language) -> str:
    """title, category or attributes: where the item has a word of the event; empty: nowhere."""
    words = _pattern(event.keywords[language], language)
    leaf = item.category.rpartition("/")[2]
    said = " / ".join((event.title[language], *event.keywords[language]))
    if words and words.search(item.title):
        return "title"
    own = _pattern((leaf,), language)
    if (words and words.search(item.category)) or (own and own.search(said)):
        return "category"
    return "attributes" if words and any(words.search(value) for value in item.attributes.values()) else ""


@lru_cache(maxsize=4096)
def _pattern(words: tuple[str, ...], language: Language) -> re.Pattern[str] | None:
    """Whole words where words have ends; a plural is the same word."""
    usable = sorted({re.escape(one) for one in words if len(one) >= LEAST_WORD[language]})
    if not usable:
        return None
    joined = "|".join(usable)
    return re.compile(joined if language == "zh" else rf"(?<!\w)(?:{joined})(?:s|es)?(?!\w)", re.IGNORECASE)
