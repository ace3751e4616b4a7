"""Claims that evidence makes good: sources, facts of the brief, the item's prices by day, the campaign's dates.

What a rule asks for is its ``check``; each check answers with nothing (the claim is good) or with what is wrong.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, bindparam, inspect, text

from adloom.creative import Brief, Language
from adloom.review import lexicon
from adloom.review.finding import Severity
from adloom.review.text import squeezed
from adloom.rule import Claim, Rule
from adloom.shop import Shop

HISTORY_DAYS = 400
FEW_IN_STOCK = 100
"""Articles; with more of them in stock "limited" would be a false urgency."""
BATCH = 1000

# The last delivery of a day stands for the day; a price counts in the currency the item is sold in now.
_PRICES = text(
    """
    with known as (
        select item_id, known_date, price, currency, stock, cast(attributes as varchar) as attributes
        from marts.dim_items
        where item_id in :items and known_date <= :day and known_date > cast(:day as date) - :history_days
    )
    select known.* from known order by item_id, known_date
    """
).bindparams(bindparam("items", expanding=True))


@dataclass(frozen=True)
class Evidence:
    """What is known of one item by the end of ``day``. A copy is shown from the day after on."""

    day: date | None = None
    prices: Mapping[date, float] = field(default_factory=dict)
    """known day → what the item cost"""
    stock: int | None = None
    claims: tuple[Claim, ...] = ()

    @property
    def shown_on(self) -> date | None:
        return self.day + timedelta(days=1) if self.day else None

    @property
    def price(self) -> float | None:
        return self.prices[max(self.prices)] if self.prices else None

    def before_reduction(self, days: int) -> list[float]:
        """Prices of the ``days`` before the price of now was first asked.

        On a day of which nothing was delivered an item costs what was last said before: so a price that is older than
        these days counts, too, if nothing is known of the first of them.
        """
        if not self.prices:
            return []
        known = sorted(self.prices, reverse=True)
        first = next((later for later, one in pairwise(known) if self.prices[one] != self.price), None)
        if first is None:
            return []
        begins = first - timedelta(days=days)
        before = [one for one in known if begins <= one < first]
        if begins not in self.prices:
            before += [one for one in known if one < begins][:1]
        return [self.prices[one] for one in before]

    def last_days(self, days: int) -> list[float]:
        """Prices of the last ``days``; empty where they are not known for nearly all of them."""
        if self.day is None:
            return []
        found = [one for known, one in self.prices.items() if known > self.day - timedelta(days=days)]
        return found if len(found) >= 0.9 * days else []


def read_evidence(connection: Connection, shop: Shop, day: date, items: Collection[str]) -> dict[str, Evidence]:
    """Item → what is known of it by the end of ``day``; claims of the shop file stand beside the item's own.

    An item's own claims are its attribute ``claims``: a list of {text, source, date, scope}; one of another shape is
    no evidence.
    """
    prices: dict[str, dict[date, tuple[float, str]]] = defaultdict(dict)
    latest: dict[str, Any] = {}
    ids = sorted(set(items))
    # A shop that delivers no items has no such mart: nothing is known of any price.
    if not inspect(connection).has_table("dim_items", schema="marts"):
        return {item: Evidence(day=day, claims=_of_shop(shop, item)) for item in ids}
    for start in range(0, len(ids), BATCH):
        bound = {"items": ids[start : start + BATCH], "day": day, "history_days": HISTORY_DAYS}
        for row in connection.execute(_PRICES, bound):
            if row.price is not None:
                prices[row.item_id][row.known_date] = (float(row.price), row.currency or "")
            latest[row.item_id] = row
    found = {}
    for item in ids:
        last = latest.get(item)
        own = _claims(last.attributes) if last is not None else ()
        currency = (last.currency or "") if last is not None else ""
        found[item] = Evidence(
            day=day,
            prices={known: one for known, (one, code) in prices[item].items() if code == currency},
            stock=None if last is None or last.stock is None else int(last.stock),
            claims=(*own, *_of_shop(shop, item)),
        )
    return found


def _of_shop(shop: Shop, item: str) -> tuple[Claim, ...]:
    return tuple(one for one in shop.review.claims if not one.items or item in one.items)


def _claims(attributes: str | None) -> tuple[Claim, ...]:
    try:
        content = json.loads(attributes) if attributes else None
    except (ValueError, RecursionError):
        return ()
    rows = content.get("claims") if isinstance(content, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else ():
        try:
            found.append(Claim.model_validate(row))
        except ValidationError:
            continue
    return tuple(found)


# --- checks --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A claim of a copy and what it is held against."""

    rule: Rule
    said: str
    """the claim, normalised"""
    after: str
    """what follows it in its part, normalised: where an amount stands"""
    whole: str
    """all of the copy, normalised"""
    language: Language
    brief: Brief | None
    evidence: Evidence


@dataclass(frozen=True)
class Answer:
    """Why a claim does not stand; ``exempts``: it stands, and this is the reason that is kept."""

    note: str
    severity: Severity = "block"
    exempts: bool = False


def answer(asked: Asked) -> Answer | None:
    """What is to be said of the claim; nothing where it is good."""
    if asked.rule.check is None:
        return Answer("", asked.rule.severity)
    said = CHECKS[asked.rule.check](asked)
    if said is not None and not said.exempts and asked.rule.severity == "warn":
        return replace(said, severity="warn")
    return said


def _in(language: Language, chinese: str, english: str) -> str:
    return chinese if language == "zh" else english


def facts_of(brief: Brief | None) -> list[str]:
    """What the brief states of item, offer and event, as it is written there."""
    if brief is None:
        return []
    item = brief.item
    texts = [item.title, item.brand, item.category, *(f"{key} {value}" for key, value in item.attributes.items())]
    if brief.offer is not None:
        texts += [brief.offer.name, brief.offer.text]
    if brief.event is not None:
        texts += [brief.event.title, *brief.event.keywords]
    return [one for one in texts if one]


def _by_fact(asked: Asked) -> Answer | None:
    """The same words stand among the facts of the brief."""
    said = squeezed(asked.said)
    if any(said in squeezed(fact) for fact in facts_of(asked.brief)):
        return None
    return Answer(_in(asked.language, "商品与活动资料里没有写到", "nothing in the item's or the offer's data says so"))


_STATED = re.compile(r"(?:来源|出处|据|source)\s*[::]?\s*(?P<source>[^,;。()]{2,40})", re.IGNORECASE)
_WHEN = re.compile(r"(?:19|20)\d{2}(?!\d)")
_WHERE = re.compile(r"(?:范围|类目|品类|地区|scope|category|market)\s*[::]?\s*[^,;。()]{2,}", re.IGNORECASE)


def _by_source(asked: Asked) -> Answer | None:
    """Source, date and scope stand in the item's, the campaign's or the shop's data, and the copy names the source."""
    said = squeezed(asked.said)
    shown = asked.evidence.shown_on
    for claim in asked.evidence.claims:
        own = squeezed(claim.text)
        in_time = shown is None or (claim.date < shown and (claim.until is None or shown <= claim.until))
        if (said in own or own in said) and in_time:
            return _named(asked, claim.source, f"{claim.source}, {claim.date.isoformat()}, {claim.scope}")
    for fact in facts_of(asked.brief):
        stated = _STATED.search(fact)
        if said in squeezed(fact) and stated and _WHEN.search(fact) and _WHERE.search(fact):
            return _named(asked, stated["source"], fact)
    return Answer(
        _in(
            asked.language,
            "资料里没有这一说法的来源、日期和适用范围",
            "no source, date and scope for it in the item's or the campaign's data",
        )
    )


def _named(asked: Asked, source: str, evidence: str) -> Answer | None:
    if squeezed(source) in squeezed(asked.whole):
        return None
    note = _in(
        asked.language,
        f"有依据（{evidence}），但文案须写明出处",
        f"there is evidence ({evidence}), but the copy has to name its source",
    )
    return Answer(note, "warn", exempts=True)


_AMOUNT = re.compile(rf"^[^\d,。;!?]{{0,6}}?(?P<amount>{lexicon.FIGURE})")


def _amount(asked: Asked) -> float | None:
    inside = re.search(lexicon.FIGURE, asked.said)
    match = inside or _AMOUNT.match(asked.after)
    return lexicon.value(match[0] if inside else match["amount"]) if match else None


def _by_reference_price(asked: Asked) -> Answer | None:
    """A price "before" is no higher than the lowest one of the days before the reduction."""
    days = asked.rule.days or 7
    before, now = asked.evidence.before_reduction(days), asked.evidence.price
    if not before or now is None:
        return Answer(
            _in(asked.language, "商品价格记录里没有降价前的价格", "the item's price history holds no earlier price")
        )
    lowest, amount = min(before), _amount(asked)
    if lowest <= now or (amount is not None and amount > lowest):
        return Answer(
            _in(
                asked.language,
                f"降价前{days}日内的最低价是{lowest:g}，现价{now:g}",
                f"the lowest price of the {days} days before was {lowest:g}; it is {now:g} now",
            )
        )
    return None


_EVER = re.compile(r"历史|史上|史低|\bever\b|all[- ]time")
_YEAR = re.compile(r"全年|年度|今年|of the year")


def _by_lowest_price(asked: Asked) -> Answer | None:
    """The price of now is the lowest one of the last days, as far as this shop's own history says."""
    days = asked.rule.days or 30
    said = re.search(r"(\d{1,3})\s*(?:天|日|day)", asked.said)
    days = max(days, int(said[1])) if said else days  # "11月1日" is a date and shortens nothing
    if _EVER.search(asked.said):
        days = HISTORY_DAYS
    elif _YEAR.search(asked.said):
        days = max(days, 365)
    known, now = asked.evidence.last_days(days), asked.evidence.price
    if known and now is not None and now <= min(known):
        return Answer(
            _in(
                asked.language,
                f"价格记录：近{days}日最低价为{min(known):g}",
                f"price history: the lowest of {days} days is {min(known):g}",
            ),
            "warn",
            exempts=True,
        )
    return Answer(
        _in(
            asked.language,
            f"近{days}日的价格记录不能证明",
            f"the price history of the last {days} days does not show it",
        )
    )


def _by_reduction(asked: Asked) -> Answer | None:
    """The item costs less than before, or the campaign has an offer."""
    if asked.brief is not None and asked.brief.offer is not None:
        return None
    before, now = asked.evidence.before_reduction(asked.rule.days or 30), asked.evidence.price
    if before and now is not None and now < min(before):
        return None
    return Answer(
        _in(asked.language, "没有进行中的活动，价格也没有下降", "no offer is running and the price did not fall")
    )


def _running(asked: Asked) -> tuple[int | None, Answer | None]:
    """(days left, the day shown included; none: no end is known), or what is wrong with the campaign's dates."""
    offer, shown = asked.brief.offer if asked.brief else None, asked.evidence.shown_on
    if offer is None or shown is None:
        return None, Answer(_in(asked.language, "没有进行中的活动", "no campaign is running"))
    if offer.ends_on is None:
        return None, Answer(
            _in(asked.language, "活动没有结束日期，不能说限时", "the campaign has no end: nothing is limited in time")
        )
    if offer.ends_on < shown or (offer.starts_on is not None and offer.starts_on > shown):
        return None, Answer(
            _in(
                asked.language,
                f"投放日{shown}不在活动期内",
                f"the campaign is not on when the copy is shown ({shown})",
            )
        )
    return (offer.ends_on - shown).days + 1, None


def _by_campaign(asked: Asked) -> Answer | None:
    """A campaign with an end is on when the copy is shown."""
    return _running(asked)[1]


def _by_campaign_end(asked: Asked) -> Answer | None:
    """Its end is near."""
    left, wrong = _running(asked)
    most = asked.rule.days or 3
    if left is None or wrong is not None:
        return wrong
    if left <= most:
        return None
    return Answer(_in(asked.language, f"活动还有{left}天才结束", f"the campaign still runs for {left} days"))


def _by_campaign_days(asked: Asked) -> Answer | None:
    """So many days are left as the copy says; "today" is one."""
    left, wrong = _running(asked)
    if left is None or wrong is not None:
        return wrong
    figure = re.search(rf"{lexicon.FIGURE}|[{lexicon.CHINESE_DIGITS}]+", asked.said)
    said = lexicon.value(figure[0]) if figure else None
    if left == int(said or 1):
        return None
    return Answer(_in(asked.language, f"投放日起活动还有{left}天", f"{left} days are left when the copy is shown"))


def _by_stock(asked: Asked) -> Answer | None:
    """Few are left, or the facts call the edition limited."""
    if any(squeezed(asked.said) in squeezed(fact) for fact in facts_of(asked.brief)):
        return None
    stock = asked.evidence.stock
    if stock is None:
        return Answer(_in(asked.language, "不知道库存", "the stock is not known"), "warn")
    if stock <= FEW_IN_STOCK:
        return None
    return Answer(_in(asked.language, f"库存还有{stock}件", f"{stock} are in stock"))


CHECKS: Mapping[str, Callable[[Asked], Answer | None]] = {
    "source": _by_source,
    "fact": _by_fact,
    "reference_price": _by_reference_price,
    "lowest_price": _by_lowest_price,
    "reduction": _by_reduction,
    "campaign": _by_campaign,
    "campaign_end": _by_campaign_end,
    "campaign_days": _by_campaign_days,
    "stock": _by_stock,
}
