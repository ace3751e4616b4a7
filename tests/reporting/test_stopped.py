"""The section on what the review stopped: full, empty, and with texts that mean harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from adloom.reporting import report, snapshots
from adloom.shop import Shop

Fill = Callable[[Shop], AbstractContextManager[Any]]
EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


def _brief(rows: Any, day: date, number: int, title: str = "Tea pot") -> dict[str, Any]:
    about = {"brief_id": f"b{number}", "scenario": "social", "language": "en", "channel": "x", "segment_id": "all"}
    about |= {"item_id": "i"}
    content = json.dumps({"item": {"item_id": "i", "title": title}})
    rows.add("briefs", day=day, position=number, chosen_for="value", content=content, **about)
    return about


def _creative(rows: Any, day: date, number: int, headline: str | None = None, **values: Any) -> None:
    about = _brief(rows, day, number)
    text = {"headline": headline or f"Tea {number}", "body": "For two", "call_to_action": "Pour", "hashtags": '["tea"]'}
    made = {"creative_id": f"k{number}", "creative_hash": "h", "variant": 0, "candidates": 20, "candidates_parsed": 18}
    rows.add("creatives", day=day, model_id="m", prompt_digest="p", seed=1, **about | text | made | values)


def _thrown(rows: Any, day: date, number: int, span: str, rule_id: str = "facts.colour", **values: Any) -> None:
    about = {"brief_id": f"b{number}", "scenario": "social", "language": "en", "channel": "x", "segment_id": "all"}
    about |= {"item_id": "i", "position": 0, "headline": "A pot", "body": f"It is {span} all over", "hashtags": "[]"}
    about |= {"call_to_action": "Pour", "model_id": "m", "stopped_by": "facts.colour", "part": "body", "span": span}
    why = {"rule_id": rule_id, "rule_version": "v7", "severity": "block", "reason": f"{rule_id} is why"}
    rows.add("stopped_copies", day=day, **about | why | values)


@pytest.fixture
def section(fill: Fill, day: date) -> Callable[..., str]:
    """The section's HTML after the shop's ledger was filled."""

    def written(shop: Shop, filling: Callable[[Any], None] = lambda rows: None) -> str:
        with fill(shop) as rows:
            filling(rows)
        snapshots.publish(shop, day)
        page = Path(report.write(shop, day)).read_text(encoding="utf-8")
        return page.split('<section aria-labelledby="stopped">')[1].split("</section>")[0]

    return written


def test_each_rule_has_its_count_its_version_its_reason_and_one_text_with_the_words_marked(
    make_shop: Callable[..., Shop], section: Any, day: date
) -> None:
    def filling(rows: Any) -> None:
        for number in range(2):
            _creative(rows, day, number)
        _thrown(rows, day, 0, "red")
        _thrown(rows, day, 0, "all over", "law.absolute", body="It is red all over")
        for number, count in ((0, 5), (1, 2)):
            rows.add("stopped_counts", day=day, brief_id=f"b{number}", rule_id="facts.colour", candidates=count)
        rows.add("stopped_counts", day=day, brief_id="b1", rule_id="facts.price", candidates=1)

    html = section(make_shop(), filling)
    assert "Of 40 candidates drawn, 8 (20%) broke a rule" in html
    assert "It is <mark>red</mark> all over" in html
    assert "facts.colour is why" in html
    assert "version v7" in html
    assert "Tea pot" in html
    assert ">7<" in html
    # What only a later room of the review found is there too, and a rule without a kept text says so.
    assert "It is red <mark>all over</mark>" in html
    assert "no text of these is kept" in html


def test_a_hostile_candidate_is_text_and_nothing_else(make_shop: Callable[..., Shop], section: Any, day: date) -> None:
    def filling(rows: Any) -> None:
        _creative(rows, day, 0, headline=EVIL)
        _thrown(rows, day, 0, EVIL, reason=EVIL, rule_version=EVIL, channel=EVIL)
        rows.add("stopped_counts", day=day, brief_id="b0", rule_id="facts.colour", candidates=1)
        rows.add("account_similarity", day=day, copies=1, originals=1, similarity=0.0, verdict="fine", sentence=EVIL)

    html = section(make_shop(), filling)
    assert "<script" not in html
    assert "<img" not in html
    assert "<mark>&lt;script&gt;alert" in html


def test_blocked_creatives_and_those_that_wait_are_told_apart(
    make_shop: Callable[..., Shop], section: Any, day: date
) -> None:
    def filling(rows: Any) -> None:
        for number in range(4):
            _creative(rows, day, number)
        found = {"day": day, "creative_hash": "h", "rule_version": "1", "part": "body", "span": "two"}
        rows.add("reviews", creative_id="k0", rule_id="law.absolute", severity="block", reason="not so", **found)
        rows.add("reviews", creative_id="k1", rule_id="safety.tone", severity="warn", reason="read it again", **found)
        decided = {"creative_id": "k2", "creative_hash": "h", "decision": "approved", "origin": "person"}
        rows.add("approvals", decided_on=day, **decided)
        # Decided later: on the day's page it waits.
        rows.add("approvals", decided_on=day + timedelta(days=9), **decided | {"creative_id": "k3"})

    html = section(make_shop(), filling)
    blocked, waiting = html.split("Waiting for a person")
    assert "Blocked creatives of this day: 1." in blocked
    assert "Tea 0 / For <mark>two</mark> / Pour / #tea" in blocked
    assert "Creatives of this day that wait: 2." in waiting
    assert "read it again" in waiting
    assert "Tea 3" in waiting
    assert "Tea 2" not in html


def test_what_is_held_while_it_runs_has_counts_and_intervals(
    make_shop: Callable[..., Shop], section: Any, day: date
) -> None:
    def filling(rows: Any) -> None:
        shares = {"delivered_share": 0.8, "eligible_share": 0.5, "difference_low": 0.2, "difference_high": 0.4}
        rows.add(
            "allocation_blocks", day=day, placement="x:1", creative_id="k", reason="audience_skew", blocked_since=day,
            trait="gender", value="f", users=300, impressions=900, most_allowed=0.15, sentence="80% [20, 40]", **shares,
        )  # fmt: skip
        seen = {"day": day, "users": 9, "early_impressions": 9, "early_clicks": 1, "late_impressions": 9}
        for number, verdict in enumerate(("tired", "fresh", "needs_more", "needs_more")):
            sentence = f"creative t{number}: CTR falls by 30% [12%, 45%]"
            rows.add("fatigue", creative_id=f"t{number}", late_clicks=1, verdict=verdict, sentence=sentence, **seen)
        compared = {"brief_id": "b", "trait": "gender", "first": "women", "second": "men", "model_id": "m"}
        compared |= {"copies_first": 12, "copies_second": 12, "said_first": 0, "said_second": 12}
        for what, verdict in (("price", "differs"), ("offer", "alike")):
            rows.add(
                "counterfactuals",
                day=day,
                what=what,
                verdict=verdict,
                sentence=f"{what}: 0/12 against 12/12",
                **compared,
            )

    html = section(make_shop(), filling)
    assert "No copies were ordered for this day" in html
    assert "more than 15 points: 1." in html
    assert "80% [20, 40]" in html
    assert "by the same users: 4. Tired: 1. Not tired: 1. Not enough data: 2." in html
    assert "creative t0: CTR falls by 30% [12%, 45%]" in html
    assert "creative t1" not in html
    assert "Comparisons: 2. Surely different by more than 20 points: 1. No sure difference: 1." in html
    assert "price: 0/12 against 12/12" in html


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("no rule stopped any", "is blocked.", "waits for a person.", "Not enough data", "Not measured", "yet")),
        ("zh", ("没有一条违反规则", "没有创意被拦下", "没有创意等待人工决定", "数据不足", "没有测量", "还没有按")),
    ],
)
def test_where_nothing_was_stopped_it_says_so(
    language: str, words: tuple[str, ...], make_shop: Callable[..., Shop], section: Any, day: date
) -> None:
    def filling(rows: Any) -> None:
        _creative(rows, day, 0, headline="Tea")
        decided = {"creative_id": "k0", "creative_hash": "h", "decision": "approved", "origin": "person"}
        rows.add("approvals", decided_on=day, **decided)

    html = section(make_shop(language=language), filling)
    assert [one for one in words if one not in html] == []


def test_an_audit_of_an_earlier_day_is_named(make_shop: Callable[..., Shop], section: Any, day: date) -> None:
    def filling(rows: Any) -> None:
        same = {"brief_id": "b", "trait": "gender", "first": "women", "second": "men", "what": "price"}
        same |= {"copies_first": 1, "copies_second": 1, "said_first": 0, "said_second": 0}
        for back in (3, -2):
            rows.add(
                "counterfactuals", day=day - timedelta(days=back), verdict="alike", sentence="s", model_id="m", **same
            )

        rows.add("counterfactuals", day=day - timedelta(days=1), verdict="needs_more", sentence="s", **same)

    assert "The last one was on 4 Mar 2024." in section(make_shop(), filling)


def test_an_audit_that_was_due_and_could_not_be_made_is_none(
    make_shop: Callable[..., Shop], section: Any, day: date
) -> None:
    def filling(rows: Any) -> None:
        same = {"brief_id": "b", "first": "f", "second": "s", "what": "price", "verdict": "needs_more", "sentence": "s"}
        same |= {"copies_first": 0, "copies_second": 0, "said_first": 0, "said_second": 0, "day": day}
        for trait in ("gender", "age_band"):
            rows.add("counterfactuals", trait=trait, **same)

    html = section(make_shop(), filling)
    assert "was due to be compared across genders and ages on this day and was not" in html
    assert "Comparisons" not in html


def test_a_very_long_text_is_shown_around_the_words(make_shop: Callable[..., Shop], section: Any, day: date) -> None:
    def filling(rows: Any) -> None:
        _creative(rows, day, 0)
        _thrown(rows, day, 0, "red", body="long " * 300 + "red" + " tail" * 300)
        rows.add("stopped_counts", day=day, brief_id="b0", rule_id="facts.colour", candidates=1)

    html = section(make_shop(), filling)
    assert "long <mark>red</mark> tail" in html
    assert html.count("long") < 30
