"""Predicted values: a case worked out by hand, worlds with and without a word that sells, what a day may know."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sqlalchemy import Connection, insert, text

from adloom.copywriting.valuing import MeasuredCopy, Predicted, measured_copies
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 7)
WORDS = ("soft", "quiet", "bright", "sturdy", "warm", "light", "roomy", "slim", "calm", "bold")


def brief(language: str = "en", scenario: str = "recommendation") -> Brief:
    return Brief(
        scenario=scenario,
        language=language,
        channel="feed",
        segment_id="all",
        item=ItemFacts(item_id="i", title="Coat"),
        limits=CopyLimits(headline=40, body=200, call_to_action=20),
    )


def copy(body: str) -> Copy:
    return Copy(headline="A coat", body=body, call_to_action="Look")


def measured(body: str, impressions: int, clicks: int, **about: str) -> MeasuredCopy:
    content = {"scenario": "recommendation", "language": "en", "text": copy(body).text} | about
    expected = impressions / 100
    return MeasuredCopy(
        impressions=impressions, clicks=clicks, expected=expected, information=0.8 * expected, **content
    )


def test_one_measured_copy_tells_of_the_same_words_what_a_hand_calculation_says() -> None:
    value = Predicted([measured("warm and light", 10_000, 130)])(copy("warm and light"), brief())
    # 30 clicks more than an average creative's 100, of which 80 are compared; the family's own mean leans on none.
    ratio, noise = 30 / 80 - 30 / (80 + 5), 1 / 80
    shared = 0.25 * 0.8
    predicted, variance = shared / (0.25 + noise) * ratio, 0.25 - shared**2 / (0.25 + noise)
    assert value == pytest.approx(norm.cdf(predicted / math.sqrt(variance)), abs=1e-9)
    assert value > 0.5


@pytest.mark.parametrize(
    ("evidence", "asked"),
    [
        ([], brief()),
        ([measured("warm and light", 10_000, 80)], brief("zh")),
        ([measured("warm and light", 10_000, 80)], brief(scenario="social")),
    ],
)
def test_without_evidence_of_its_kind_every_copy_is_worth_the_same(evidence: list[MeasuredCopy], asked: Brief) -> None:
    assert Predicted(evidence)(copy("warm and light"), asked) == 0.5


def _world(seed: int, lift: float, impressions: int = 4000) -> float:
    """Share of pairs (a new copy with the word, one without) in which the word's copy is valued higher."""
    rng = np.random.default_rng(seed)

    def body(sells: bool) -> str:
        return " ".join(
            [*rng.permutation(WORDS)[:5], *(["waterproof in any storm"] if sells else ["made for every day"])]
        )

    shown = []
    for number in range(40):
        sells = number % 2 == 0
        rate = 0.01 * (lift if sells else 1) * rng.lognormal(0, 0.2)
        shown.append(measured(body(sells), impressions, int(rng.binomial(impressions, rate))))
    value = Predicted(shown)
    pairs = [(value(copy(body(True)), brief()), value(copy(body(False)), brief())) for _ in range(20)]
    return float(np.mean([one > other for one, other in pairs]))


def test_words_that_were_clicked_more_are_preferred_and_others_are_not() -> None:
    selling = [_world(seed, 1.5) for seed in range(12)]
    idle = [_world(seed, 1.0) for seed in range(12)]
    assert np.mean(selling) > 0.95
    # The mean of twelve coins that fall the same way twenty times over: within three standard errors of a half.
    assert abs(np.mean(idle) - 0.5) < 3 * 0.5 / math.sqrt(12)


@pytest.fixture
def connection(make_shop: Callable[..., Shop]) -> Iterator[Connection]:
    with warehouse(make_shop()) as engine:
        ledger.create_ledger(engine)
        with engine.begin() as opened:
            opened.execute(text("create schema marts"))
            columns = "creative_id text, segment_id text, placement text, impression_date date, known_date date"
            opened.execute(
                text(f"create table marts.fct_creative_daily ({columns}, impressions bigint, clicks bigint)")
            )
            yield opened


def _creative(name: str, **about: Any) -> dict[str, Any]:
    return {
        "creative_id": name,
        "creative_hash": name,
        "day": DAY - timedelta(days=9),
        "brief_id": name,
        "variant": 0,
        "scenario": "social",
        "language": "en",
        "channel": "feed",
        "segment_id": "all",
        "item_id": "i",
        "headline": f"Headline {name}",
        "body": "Body",
        "call_to_action": "Look",
        "candidates": 1,
        "candidates_parsed": 1,
        "scores": "{}",
        "model_id": "base",
        "prompt_digest": "p",
        "seed": 1,
    } | about


def _show(connection: Connection, *cells: tuple[str, str, int, int, int]) -> None:
    """``cells``: (creative, placement, days after `DAY`, impressions, clicks), known on the day they were shown."""
    for name, placement, later, impressions, clicks in cells:
        day = DAY + timedelta(days=later)
        connection.execute(
            text(
                "insert into marts.fct_creative_daily values (:name, 'all', :placement, :day, :day, :shown, :clicked)"
            ),
            {"name": name, "placement": placement, "day": day, "shown": impressions, "clicked": clicks},
        )


def test_a_day_knows_what_was_measured_by_then_and_nothing_later(connection: Connection) -> None:
    refused = dict.fromkeys(("headline", "body", "call_to_action"))
    connection.execute(insert(ledger.creatives), [_creative("a"), _creative("b"), _creative("c") | refused])
    _show(connection, ("a", "feed", 0, 500, 5), ("b", "feed", -27, 900, 9), ("c", "feed", 0, 700, 7))
    _show(connection, ("another's", "feed", -27, 900, 9))
    _show(connection, ("a", "feed", -28, 9000, 9), ("a", "feed", 1, 9000, 9))
    found = measured_copies(connection, DAY)
    assert [(one.text.splitlines()[0], one.impressions, one.clicks) for one in found] == [
        ("Headline b", 900, 9),
        ("Headline a", 500, 5),
    ]


def test_what_was_erased_tells_nothing(connection: Connection) -> None:
    connection.execute(insert(ledger.creatives), [_creative("a"), _creative("b", item_id="j"), _creative("c")])
    _show(connection, *((name, "feed", 0, 500, 5) for name in "abc"))
    gone = {"requested_on": DAY, "reason": "rights"}
    rows = [{"kind": "creative", "subject": "a"} | gone, {"kind": "item", "subject": "j"} | gone]
    connection.execute(insert(ledger.erasures), rows)
    assert [one.text.splitlines()[0] for one in measured_copies(connection, DAY)] == ["Headline c"]


def test_a_good_slot_or_day_is_not_taken_for_good_words(connection: Connection) -> None:
    """Search is clicked ten times as often as the feed, and soft copies run there; in the feed bold ones win."""
    names = [f"soft{number}" for number in range(12)] + [f"bold{number}" for number in range(12)]
    bodies = {name: f"A {name[:4]} coat, number {name[4:]}" for name in names}
    connection.execute(insert(ledger.creatives), [_creative(name, body=bodies[name]) for name in names])
    for name in names:
        is_soft = name.startswith("soft")
        _show(connection, (name, "feed", 0, 4000, 12 if is_soft else 24))
        if is_soft:
            _show(connection, (name, "search", 0, 4000, 200))
    predicted = Predicted(measured_copies(connection, DAY))
    asked = brief(scenario="social")
    assert predicted(copy("A bold coat, number 99"), asked) > 0.6
    assert predicted(copy("A soft coat, number 99"), asked) < 0.5


def test_expected_clicks_are_those_of_an_average_creative_in_the_same_slot(connection: Connection) -> None:
    connection.execute(insert(ledger.creatives), [_creative("a"), _creative("b"), _creative("c")])
    _show(connection, ("a", "feed", 0, 1000, 30), ("b", "feed", 0, 3000, 30))
    _show(connection, ("a", "search", 0, 100, 10), ("c", "search", 1, 100, 10), ("c", "search", -1, 100, 10))
    found = {one.text.splitlines()[0][-1]: one for one in measured_copies(connection, DAY)}
    # The feed's CTR that day is 60 in 4,000. Nobody else was shown in search: clicks there are compared with none.
    assert (found["a"].clicks, found["a"].expected) == (40, pytest.approx(1000 * 60 / 4000 + 10))
    assert found["a"].information == pytest.approx(15 * 3 / 4)
    assert (found["b"].expected, found["b"].information) == (45, pytest.approx(45 / 4))
    assert "c" not in found


def test_what_a_copy_alone_was_clicked_takes_nothing_from_what_it_won_beside_others(connection: Connection) -> None:
    names = [f"{kind}{number}" for kind in ("soft", "bold") for number in range(6)]
    bodies = {name: f"A {name[:4]} coat, number {name[4:]}" for name in names}
    connection.execute(insert(ledger.creatives), [_creative(name, body=bodies[name]) for name in names])
    asked, said = brief(scenario="social"), copy("A bold coat, number 99")
    for name in names:
        _show(connection, (name, "feed", 0, 4000, 120 if name.startswith("bold") else 60))
    before = Predicted(measured_copies(connection, DAY))(said, asked)
    for name in names:
        if name.startswith("bold"):
            _show(connection, (name, f"banner of {name}", 0, 100_000, 3000))
    assert Predicted(measured_copies(connection, DAY))(said, asked) == pytest.approx(before)
    assert before > 0.6
