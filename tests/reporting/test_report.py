"""The page: what it says in each state of a shop, and that data can neither break it nor act in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from adloom.reporting import report, snapshots
from adloom.reporting.words import CHINESE, ENGLISH
from adloom.shop import Shop

Fill = Callable[[Shop], AbstractContextManager[Any]]
RATES = {("spring", "random"): (1000, 5), ("spring", "bts"): (1000, 7)}
DAY = date(2024, 3, 7)
VOID = {"meta", "br", "path", "circle", "rect", "img", "link"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; complains about tags that do not close."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


@pytest.fixture
def write(fill: Fill, day: date) -> Callable[..., Page]:
    def written(shop: Shop, *fillings: Callable[[Any], None]) -> Page:
        with fill(shop) as rows:
            for filling in fillings:
                filling(rows)
        snapshots.publish(shop, day)
        return Page(report.write(shop, day).read_text(encoding="utf-8"))

    return written


def full(rows: Any) -> None:
    rows.rates(RATES)
    rows.verdict("spring_random_bts", campaign_id="spring", needed_more=43210)
    rows.plan({"a": (0.10, 0.19), "b": (0.5, 0.45), "c": (0.4, 0.4)})
    rows.check("ad_events.event_id.not_null")
    rows.check("ad_events.rows.volume", passed=False, severity="warn", observed="× 2.9", expected="up to × 2")
    rows.add(
        "holdout_lift",
        day=date(2024, 3, 7),
        window_days=7,
        adaptive_impressions=9500,
        adaptive_clicks=60,
        holdout_impressions=500,
        holdout_clicks=2,
        sentence="why there is none",
    )


def test_counts_and_intervals_stand_beside_every_rate(make_shop: Callable[..., Shop], write: Any) -> None:
    text = write(make_shop(), full).text
    assert "14,000 impressions brought 84 clicks. CTR 0.60%, likely between" in text
    assert "random 7,000 29 0.41%" in text
    assert "bts 7,000 43 0.61%" in text
    assert "the sentence of spring_random_bts" in text
    assert "About 43,000 more impressions are needed, if the difference stays as it is." in text
    # A creative has a share in every placement, so a sentence out of its table names the placement.
    assert "web:1: creative a: why it changed" in text
    assert "Shares that the plan for 8 Mar 2024 moves by a percentage point or more: 2." in text
    assert text.index("10% → 19%") < text.index("50% → 45%")
    assert "40% → 40%" not in text
    assert "Further shares, which change less or not at all: 1." in text
    assert "1 of 2 data checks of the day passed, 1 warned." in text
    assert "ad_events.rows.volume × 2.9 up to × 2" in text
    assert "follows the plan 9,500 60 holdout 500 2" in text
    assert "This shop logs no conversions, so there is no CR." in text


def test_the_page_loads_nothing_and_runs_nothing(make_shop: Callable[..., Shop], write: Any) -> None:
    page = write(make_shop(), full)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not [
        attrs for _, attrs in page.tags if any(name.startswith("on") or name in {"href", "src"} for name in attrs)
    ]


def test_names_from_data_are_text_and_nothing_else(make_shop: Callable[..., Shop], write: Any) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}$x^2$"

    def filled(rows: Any) -> None:
        rows.rates({(evil, evil): (1000, 5), (evil, "bts"): (1000, 6)})
        rows.verdict("one", campaign_id=evil, arm_a=evil, sentence=evil)
        rows.verdict("two", campaign_id="elsewhere", sentence=evil)
        rows.plan({evil: (0.2, 0.8)}, gate="held", gate_sentence=evil)
        rows.check(evil, passed=False, observed=evil, expected=evil)

    page = write(make_shop(name=evil), filled)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert evil in page.text
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_pictures_have_words_for_those_who_do_not_see_them(make_shop: Callable[..., Shop], write: Any) -> None:
    page = write(make_shop(), full)
    pictures = [attrs for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(pictures) == 1 + 2
    assert "CTR of campaign spring by day with intervals, for the policies random, bts." in {
        attrs["aria-label"] for attrs in pictures
    }
    levels = [int(tag[1]) for tag, _ in page.tags if tag in {"h1", "h2", "h3"}]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_a_winner_is_said_first_and_by_name(make_shop: Callable[..., Shop], write: Any) -> None:
    def decided(rows: Any) -> None:
        rows.rates(RATES)
        rows.verdict("spring_random_bts", "winner", campaign_id="spring", winner="bts")

    text = write(make_shop(), decided).text
    assert "spring: bts has the better CTR." in text
    assert "No comparison is decided" not in text


def test_a_broken_split_is_not_a_finding(make_shop: Callable[..., Shop], write: Any) -> None:
    text = write(make_shop(), lambda rows: (rows.rates(RATES), rows.verdict("s", "split_broken"))).text
    assert text.index("What is not known yet") < text.index("cannot be compared")
    assert "No comparison is decided" in text


def test_cr_only_where_conversions_are_logged_with_its_maturity(make_shop: Callable[..., Shop], write: Any) -> None:
    def with_conversions(rows: Any) -> None:
        keys = {"campaign_id": "spring", "policy_id": "bts"}
        young = {"cohort_clicks": 50, "conversions": 3, "cr": 0.075, "cr_low": 0.02, "cr_high": 0.15}
        state = {"completeness": 0.8, "is_mature": False}
        rows.evaluation(date(2024, 3, 7), 7, "policy", 7000, 50, **keys, **young, **state)
        rows.evaluation(date(2024, 3, 7), 7, "overall", 7000, 50, **young, **state)
        rows.connection.exec_driver_sql(
            "insert into marts.fct_creative_daily (creative_id, known_date, conversions) values ('a', '2024-03-06', 3)"
        )

    text = write(make_shop(), with_conversions).text
    assert "spring bts 50 3 7.50% 2.00 – 15.00% not mature (80% known)" in text
    assert "CR is not final: by experience, 80% of the conversions of these clicks are known." in text
    assert "logs no conversions" not in text
    assert "1 of the 1 figures below are not mature: more conversions are on their way. Do not act on them yet." in text


def test_an_open_cr_without_history_claims_no_experience(make_shop: Callable[..., Shop], write: Any) -> None:
    def first_days(rows: Any) -> None:
        state = {"cohort_clicks": 50, "conversions": 3, "cr": None, "completeness": None, "is_mature": False}
        rows.evaluation(date(2024, 3, 7), 7, "policy", 7000, 50, campaign_id="spring", policy_id="bts", **state)
        rows.evaluation(date(2024, 3, 7), 7, "overall", 7000, 50, **state)
        rows.connection.exec_driver_sql(
            "insert into marts.fct_creative_daily (creative_id, known_date, conversions) values ('a', '2024-03-06', 3)"
        )

    text = write(make_shop(), first_days).text
    assert "CR is not final: these clicks may still convert, and this shop has too little history" in text
    assert "by experience" not in text
    assert "spring bts 50 3 – not enough data not mature" in text


def lift(rows: Any, **values: Any) -> None:
    row = {"adaptive_impressions": 0, "adaptive_clicks": 0, "holdout_impressions": 0, "holdout_clicks": 0}
    rows.add("holdout_lift", day=date(2024, 3, 7), window_days=7, sentence="of the lift", **row | values)


def test_a_plan_that_nobody_follows_is_called_a_proposal(make_shop: Callable[..., Shop], write: Any) -> None:
    def unused(rows: Any) -> None:
        rows.rates(RATES)
        rows.plan({"a": (0.10, 0.19), "b": (0.9, 0.81)})
        lift(rows)

    text = write(make_shop(), unused).text
    assert text.count("The shares are a proposal until the ad server uses the published plan.") == 2
    assert "no impression has followed a plan yet" in text
    assert "follows the plan 0 0" not in text
    assert "proposal" not in write(make_shop(id="obedient"), full).text


@pytest.mark.parametrize(
    ("interval", "part", "said"),
    [
        ((0.02, 0.3), "What is known", "changes of shares pay: lift +15% over the holdout (+2% to +30%)"),
        ((-0.1, 0.3), "What is not known yet", "the lift so far, +15%, may be chance (-10% to +30%)"),
        ((-0.3, -0.1), "What is known", "changes of shares cost clicks"),
    ],
)
def test_a_lift_is_known_only_when_its_interval_leaves_zero(
    make_shop: Callable[..., Shop], write: Any, interval: tuple[float, float], part: str, said: str
) -> None:
    def measured(rows: Any) -> None:
        rows.rates(RATES)
        counts = {"adaptive_impressions": 9500, "adaptive_clicks": 60, "holdout_impressions": 500, "holdout_clicks": 20}
        lift(rows, lift=0.15, lift_low=interval[0], lift_high=interval[1], **counts)

    text = write(make_shop(), measured).text
    parts = ("What is known", "What is not known yet", "CTR by campaign")
    assert said in text
    assert max((one for one in parts if one in text[: text.index(said)]), key=text.index) == part


@pytest.mark.parametrize(
    ("filling", "said"),
    [
        (lambda rows: None, ["There are no impressions in this window", "There is no plan for 8 Mar 2024."]),
        (lambda rows: rows.rates(RATES, days=1), ["Only one day is there so far"]),
        (lambda rows: rows.rates({("c", "p"): (1000, 0)}), ["7,000 impressions, and no click so far", "0.00%"]),
        (lambda rows: rows.rates({("c", "p"): (0, 0)}), ["There are no impressions in this window"]),
        (lambda rows: (rows.rates(RATES), rows.plan({"a": (None, 1.0)})), ["The first plan begins on 8 Mar 2024"]),
        (
            lambda rows: rows.add(
                "approvals",
                creative_id="a",
                creative_hash="h",
                decision="rejected",
                origin="person",
                decided_on=date(2024, 3, 5),
            ),
            ["of the creatives known so far (1) none is approved"],
        ),
        (
            lambda rows: rows.check("ad_events.event_id.unique", passed=False),
            ["1 of 1 data checks failed, 0 warned. Do not act on this page."],
        ),
    ],
    ids=["nothing", "one day", "no click", "no impression", "first plan", "all rejected", "red door"],
)
def test_empty_states_say_so(
    make_shop: Callable[..., Shop], write: Any, filling: Callable[[Any], None], said: list[str]
) -> None:
    text = write(make_shop(), filling).text
    for sentence in said:
        assert sentence in text


def test_a_check_that_could_not_be_judged_is_not_counted_as_passed(make_shop: Callable[..., Shop], write: Any) -> None:
    def young(rows: Any) -> None:
        rows.check("ad_events.event_id.unique")
        rows.check("ad_events.rows.volume", observed="skipped: 0 of the 3 days of history it needs")

    text = write(make_shop(), young).text
    assert "All 1 data checks of the day passed. Not judged yet: 1." in text
    assert "1 ✓ 1 ○" in text


def test_a_change_of_policy_shows_the_stricter_judgement(make_shop: Callable[..., Shop], write: Any) -> None:
    def judged(rows: Any) -> None:
        for estimator, decision in [("doubly_robust", "held"), ("snips", "passed")]:
            rows.add(
                "off_policy",
                day=date(2024, 3, 7),
                change="spring: random → bts",
                estimator=estimator,
                impressions=1000,
                clicks=5,
                supported_mass=1.0,
                effective_sample_size=400.0,
                largest_weight=3.0,
                decision=decision,
                sentence=f"{estimator} says {decision}",
            )

    text = write(make_shop(), judged).text
    assert "held doubly_robust says held" in text
    assert "snips says passed" not in text


def test_long_tables_are_cut_and_say_so(make_shop: Callable[..., Shop], write: Any) -> None:
    many = {(f"campaign {number:02}", "p"): (1000 - number, 5) for number in range(report.MOST_ROWS + 7)}
    page = write(make_shop(), lambda rows: rows.rates(many))
    assert "Left out here, with fewer impressions: 7 rows." in page.text
    assert sum(tag == "figure" for tag, _ in page.tags) == report.MOST_PANELS


def test_chinese_shops_read_chinese(make_shop: Callable[..., Shop], write: Any) -> None:
    page = write(make_shop(language="zh", name="樱桃小店"), full)
    assert ("html", {"lang": "zh-CN"}) in page.tags
    assert "14,000 次展示带来 84 次点击。CTR 为 0.60%" in page.text
    assert "What happened" not in page.text


def test_both_languages_say_the_same_things() -> None:
    assert set(ENGLISH) == set(CHINESE)


def test_simulated_shops_say_so_first(make_shop: Callable[..., Shop], write: Any) -> None:
    page = write(make_shop(simulated=True), full)
    assert page.text.index("Simulated:") < page.text.index("Corner shop: 7 Mar 2024")
    assert "Simulated:" not in write(make_shop(id="other"), full).text


def test_nothing_known_later_shows_on_an_earlier_day(make_shop: Callable[..., Shop], fill: Fill, day: date) -> None:
    """The page of a day is the same bytes before and after later days are published."""
    shop = make_shop()
    with fill(shop) as rows:
        full(rows)
    snapshots.publish(shop, day)
    before = report.write(shop, day).read_bytes()
    later = day + timedelta(days=1)
    with fill(shop) as rows:
        rows.rates({("spring", "bts"): (5000, 50)}, days=1, day=later)
        rows.plan({"z": (0.0, 1.0)}, day=later)
        rows.check("later", passed=False, day=later)
        rows.connection.exec_driver_sql(
            "insert into marts.fct_creative_daily (creative_id, known_date, conversions, invalid_impressions, "
            "impression_date) values ('a', '2024-03-08', 3, 9, '2024-03-07')"
        )
    snapshots.publish(shop, later)
    assert report.write(shop, day).read_bytes() == before


def test_a_backfilled_old_day_does_not_replace_the_newest_page(
    make_shop: Callable[..., Shop], fill: Fill, day: date
) -> None:
    shop = make_shop()
    with fill(shop) as rows:
        full(rows)
    snapshots.publish(shop, day)
    newest = report.write(shop, day)
    content = newest.read_bytes()
    old = report.write(shop, day - timedelta(days=2))
    assert newest == shop.published / "report.html"
    assert newest.read_bytes() == content
    assert old.name == "2024-03-05.html"
    assert "5 Mar 2024" in Page(old.read_text(encoding="utf-8")).text


# --- new copies -----------------------------------------------------------------------------------------------------


def _copies(rows: Any, headline: str = "周末就穿它", title: str = "连衣裙", count: int = 2) -> None:
    """``count`` Chinese copies, the last of them blocked, one English one and one that could not be written."""
    for number in range(count + 2):
        language, is_refused = "en" if number == count else "zh", number == count + 1
        brief = {"item": {"item_id": "i", "title": title}, "segment_words": f"into {title}", "variants": 1}
        key = {"brief_id": f"b{number}", "scenario": "social", "language": language, "channel": "weibo"}
        key |= {"segment_id": "s", "item_id": "i"}
        content = json.dumps(brief | {"offer": {"text": "满300减40"}, "event": None})
        rows.add("briefs", day=DAY, position=number, chosen_for="value", content=content, **key)
        text = {"headline": headline, "body": f"body {number}", "call_to_action": "看看", "hashtags": '["穿搭"]'}
        if is_refused:
            text = {"refused_reason": "none of 4 candidates could be used: 4 × headline too long"}
        own = {"creative_id": f"k{number}", "creative_hash": "h", "variant": 0, "candidates": 4, "candidates_parsed": 3}
        rows.add("creatives", day=DAY, model_id="m", prompt_digest="p", seed=1, **own, **key, **text)
    finding = {"rule_id": "facts.colour", "rule_version": "1", "part": "body", "span": "酒红", "severity": "block"}
    rows.add(
        "reviews", day=DAY, creative_id=f"k{count - 1}", creative_hash="h", reason=f"names a colour, {title}", **finding
    )
    rows.add(
        "refused_briefs", day=DAY, scenario="promotion", language="en", subject="lamp", reason="no price", briefs=7
    )


def test_every_copy_stands_beside_its_facts_and_what_was_found(make_shop: Callable[..., Shop], write: Any) -> None:
    text = write(make_shop(simulated=True), full, _copies).text
    assert "4 briefs, 3 copies (1 English, 2 Chinese), 1 not written." in text
    assert "Of 16 candidates drawn, 12 could be read as a copy." in text
    assert "Blocked by a review: 1." in text
    assert "Simulated: shop, items, offers and segments are invented." in text
    assert "weibo Chinese 周末就穿它 body 0 #穿搭 看看 for into 连衣裙 item 连衣裙 offer 满300减40" in text
    assert text.split("What the review stopped")[0].count("blocked") == 1
    assert "“酒红”: names a colour, 连衣裙" in text
    assert "none of 4 candidates could be used: 4 × headline too long" in text
    assert "7 × lamp: no price" in text


def test_what_the_copy_was_asked_for_stands_with_its_reason_or_that_nothing_was(
    make_shop: Callable[..., Shop], write: Any
) -> None:
    def asked(rows: Any) -> None:
        _copies(rows)
        key = {"day": DAY, "directive_id": "d", "position": 0, "kind": "strategy", "language": "en"}
        said = {"words": "Find <b>a new angle</b>", "why": "2 of 3 tire (4 clicks in 90)", "evidence": "{}"}
        rows.add("directives", more_variants=1, **key, **said)

    nothing = "The evidence asks for nothing in particular yet"
    assert nothing in write(make_shop(), full, _copies).text
    text = write(make_shop(id="other_shop"), full, asked).text
    assert "English · Find <b>a new angle</b>: 2 of 3 tire (4 clicks in 90)" in text
    assert nothing not in text


def test_an_item_that_no_scenario_can_use_is_said_to_be_refused(make_shop: Callable[..., Shop], write: Any) -> None:
    def lacking(rows: Any) -> None:
        _copies(rows)
        reason = {"subject": "i9", "reason": "item i9 has no title"}
        rows.add("refused_briefs", day=DAY, scenario="any", language="zh", briefs=1, **reason)

    assert "Any scenario · Chinese · 1 × i9: item i9 has no title" in write(make_shop(), full, lacking).text


def test_a_chinese_page_says_it_in_chinese(make_shop: Callable[..., Shop], write: Any) -> None:
    text = write(make_shop(language="zh"), full, _copies).text
    assert "4 份需求，3 条文案（1 英文，2 中文），1 条未写成。" in text
    assert "社交媒体" in text
    assert "模拟数据" not in text


def test_a_copy_can_neither_break_the_page_nor_act_in_it(make_shop: Callable[..., Shop], write: Any) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}\u202e🎉"
    page = write(make_shop(), full, lambda rows: _copies(rows, headline=evil, title=evil))
    assert "<script>alert('x')</script>" in page.text
    assert "49" not in page.text.split("New copies")[1].split("Does adjusting")[0]
    assert not {tag for tag, _ in page.tags} & {"script", "img"}


def test_a_page_of_very_many_copies_shows_some_and_says_how_many_more(
    make_shop: Callable[..., Shop], write: Any
) -> None:
    page = write(make_shop(), full, lambda rows: _copies(rows, count=200))
    cards = [attributes for tag, attributes in page.tags if tag == "article"]
    assert len(cards) == 120
    assert [one for one in cards if one["lang"] == "en"], "a scenario or language that is rare is not left out"
    assert "Not shown here: 81." in page.text


def test_a_shop_without_new_copies_is_not_bothered_with_them(make_shop: Callable[..., Shop], write: Any) -> None:
    assert "New copies" not in write(make_shop(), full).text
