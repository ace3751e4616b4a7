"""Who is asked about a creative, how often, and what an answer is worth."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from adloom.publishing import approving
from adloom.strategy.approvals import TIMEOUT, approved
from adloom.warehouse.engine import warehouse


def may_be_shown(planned: Any, number: int = 7) -> set[str]:
    with warehouse(planned.shop) as engine, engine.connect() as connection:
        return set(approved(connection, planned.shop, planned.day(number)))


@pytest.mark.parametrize(
    ("policy", "shown", "waits"),
    [
        ("required", set(), {"clean", "warned"}),
        ("flagged_only", {"clean"}, {"warned"}),
        ("off", {"clean", "warned"}, set()),
    ],
)
def test_the_shop_says_about_what_a_person_is_asked(
    policy: str, shown: set[str], waits: set[str], make_planned: Callable[..., Any]
) -> None:
    planned = make_planned(approval=policy)
    planned.write("clean")
    planned.review("warned", planned.write("warned"), "warn")
    planned.review("blocked", planned.write("blocked"), "block")
    settled = planned.settle()
    assert (settled.approved, settled.blocked, settled.waiting) == (len(shown), 1, len(waits))
    assert may_be_shown(planned) == shown
    assert set(planned.waiting()) == waits
    assert {row[0] for row in planned.execute("select distinct origin from adloom.approvals")} <= {"policy"}


def test_scenarios_the_shop_always_asks_about_wait_though_nothing_was_found(make_planned: Callable[..., Any]) -> None:
    planned = make_planned(approval="flagged_only", always_ask=["hot_event"])
    planned.write("clean")
    planned.write("final", scenario="hot_event")
    planned.settle()
    assert may_be_shown(planned) == {"clean"}
    assert set(planned.waiting()) == {"final"}


def test_a_creative_that_is_made_no_more_loses_its_approval(planned: Any) -> None:
    """A day that is written anew has other creatives; what was approved for the old ones must not live on."""
    planned.write("tea", words="into tea")
    planned.decide("tea")
    assert may_be_shown(planned) == {"tea"}
    planned.execute("delete from adloom.creatives where creative_id = 'tea'")
    assert may_be_shown(planned) == set()


def test_a_later_rejection_reaches_the_same_ad_under_another_id(planned: Any) -> None:
    digest = planned.write("tea", headline="Tea for two")
    planned.decide("tea")
    planned.write("twin", headline="Tea for two")
    planned.settle()
    assert may_be_shown(planned) == {"tea", "twin"}
    planned.decide(shown={"tea": digest}, hour=10)
    assert may_be_shown(planned) == set()


def test_what_the_policy_let_through_waits_when_a_review_warns_of_it_later(make_planned: Callable[..., Any]) -> None:
    planned = make_planned(approval="flagged_only")
    digest = planned.write("tea")
    planned.settle()
    assert may_be_shown(planned) == {"tea"}
    planned.review("tea", digest, "warn")
    planned.settle()
    assert may_be_shown(planned) == set()
    assert set(planned.waiting()) == {"tea"}


def test_nobody_is_asked_twice_about_the_same_content(planned: Any) -> None:
    """Neither in a rerun, nor when another day or another brief makes the same copy again."""
    planned.write("good", headline="Tea for two")
    planned.write("bad", headline="Tea for nobody")
    planned.decide("good")
    for _ in range(2):
        assert planned.settle().waiting == 0
    planned.write("same", 8, headline="Tea for two")
    planned.write("refused", 8, headline="Tea for nobody")
    planned.write("new", 8, headline="Coffee")
    settled = planned.settle(8)
    assert (settled.approved, settled.rejected, settled.waiting) == (1, 1, 1)
    assert may_be_shown(planned, 8) == {"good", "same"}
    ((by, reason),) = planned.execute("select decided_by, reason from adloom.approvals where creative_id = 'same'")
    assert (by, reason) == ("Li", "as decided on 2024-03-07 for good: because")
    before = planned.execute("select * from adloom.approvals order by all")
    planned.settle(8)
    assert planned.execute("select * from adloom.approvals order by all") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda planned: planned.execute("update adloom.creatives set creative_hash = 'fedcba9876543210'"),
        lambda planned: planned.draw("tea"),
    ],
    ids=["another copy", "a picture more"],
)
def test_an_approval_is_lost_when_the_content_changes(change: Callable[[Any], object], planned: Any) -> None:
    planned.write("tea")
    planned.decide("tea")
    assert may_be_shown(planned) == {"tea"}
    change(planned)
    assert may_be_shown(planned) == set()
    assert planned.settle().waiting == 1


def test_another_picture_under_the_same_name_is_another_creative(planned: Any) -> None:
    planned.write("tea")
    planned.draw("tea")
    planned.decide("tea")
    assert may_be_shown(planned) == {"tea"}
    planned.execute("update adloom.assets set digest = repeat('0', 64)")
    assert may_be_shown(planned) == set()


def test_an_answer_about_what_has_changed_meanwhile_decides_nothing(planned: Any) -> None:
    shown = {"tea": planned.write("tea"), "milk": planned.write("milk"), "gone": "0123456789abcdef"}
    planned.execute("update adloom.creatives set creative_hash = 'fedcba9876543210' where creative_id = 'tea'")
    said = planned.decide("tea", "milk", "gone", shown=shown)
    assert said.approved == ("milk",)
    assert said.void == {"tea": "its content has changed since it was shown", "gone": "there is no such creative"}
    assert may_be_shown(planned) == {"milk"}


def test_nobody_can_approve_what_a_review_blocks(planned: Any) -> None:
    digest = planned.write("tea")
    planned.review("tea", digest, "block")
    said = planned.decide("tea", shown={"tea": digest})
    assert said.approved == ()
    assert said.void["tea"] == "blocked by law.absolute: a reason"
    planned.execute("update adloom.reviews set severity = 'warn'")
    planned.decide("tea", shown={"tea": digest})
    assert may_be_shown(planned) == {"tea"}
    planned.execute("update adloom.reviews set severity = 'block'")
    assert may_be_shown(planned) == set(), "also not what was approved before the review blocked it"


def test_every_word_is_kept_and_the_last_one_counts(planned: Any) -> None:
    shown = {"tea": planned.write("tea")}
    for hour, is_approval in ((9, True), (10, False), (11, True)):
        planned.decide(*(["tea"] if is_approval else []), shown=shown, hour=hour, by=f"Li at {hour}")
        assert ("tea" in may_be_shown(planned)) is is_approval
    assert len(planned.execute("select * from adloom.approvals")) == 3
    # The same answer told again, by a task that is run again, is the same decision.
    planned.decide("tea", shown=shown, hour=11, by="Li at 11")
    assert len(planned.execute("select * from adloom.approvals")) == 3


def test_no_answer_is_a_rejection_that_a_person_can_overrule(planned: Any) -> None:
    shown = {"tea": planned.write("tea")}
    planned.decide(shown=shown, origin=TIMEOUT, by="nobody", hour=12)
    assert planned.settle().waiting == 0
    assert may_be_shown(planned) == set()
    planned.decide("tea", shown=shown, hour=10)
    assert may_be_shown(planned) == {"tea"}


def test_that_a_creative_of_ours_was_shown_does_not_make_it_approved(planned: Any) -> None:
    from adloom.strategy import adjust

    planned.write("a")  # in the marts there are impressions of it
    adjust(planned.shop, planned.day(7))
    assert may_be_shown(planned) == {"b", "c"}
    planned.execute(
        "insert into adloom.approvals values ('a', '', 'approved', 'external', '2024-03-01', null, null, null)"
    )
    assert may_be_shown(planned) == {"b", "c"}


@pytest.mark.parametrize(
    ("offer", "is_shown"),
    [
        ({"starts_on": "2024-03-01", "ends_on": "2024-03-08"}, True),
        ({"starts_on": "2024-03-01", "ends_on": "2024-03-07"}, False),
        ({"starts_on": "2024-03-09", "ends_on": None}, False),
    ],
)
def test_an_offer_is_shown_on_its_days_only(offer: dict[str, Any], is_shown: bool, planned: Any) -> None:
    planned.write("tea", offer=offer)
    planned.decide("tea")
    assert ("tea" in may_be_shown(planned)) is is_shown


NASTY = "Tea | <img src=x onerror=alert(1)> [free](https://evil.example) www.evil.example a@evil.example **bold**\n# t"


def test_nothing_that_comes_from_data_is_markdown_in_the_form(planned: Any) -> None:
    digest = planned.write("tea", headline=NASTY, words="likes | `tea`")
    planned.review("tea", digest, "warn")
    asked = approving.ask(planned.shop, planned.day(7), list(planned.waiting().values()))
    (row,) = [line for line in asked.body.splitlines() if line.startswith("| 1 ")]
    unescaped = row.replace("\\\\", "")
    for mark in "|<[`*#(":
        unescaped = unescaped.replace(f"\\{mark}", "")
    assert unescaped.count("|") == 7, "six cells"
    assert unescaped.replace("**", "", 2).count("*") == 0
    for raw in ("<", "[", "`", "(", "://", "www\\.", "@evil", "#"):
        assert raw not in unescaped
    assert "law" in row
    assert "a reason" in row


def test_a_picture_is_shown_from_the_route_that_asks_for_a_login(planned: Any) -> None:
    planned.write("tea", headline="Tea ] here")
    planned.draw("tea")
    asked = approving.ask(planned.shop, planned.day(7), list(planned.waiting().values()))
    assert r"![Tea \] here](/creatives/creatives_daily__corner_shop/tea.png)" in asked.body


def test_a_long_day_is_asked_about_in_part_and_says_so(planned: Any) -> None:
    for number in range(approving.FORM_CREATIVES + 2):
        planned.write(f"c{number:03}")
    asked = approving.ask(planned.shop, planned.day(7), list(planned.waiting().values()))
    assert len(asked.hashes) == len(asked.labels) == approving.FORM_CREATIVES
    assert "2 more are not listed" in asked.body
    path = approving.write_asked(planned.shop, asked)
    assert approving.read_asked(path) == asked
    assert approving.write_asked(planned.shop, asked) == path


def test_a_warehouse_made_before_keeps_its_decisions(planned: Any) -> None:
    from adloom.warehouse import ledger

    planned.execute(
        "drop table adloom.approvals;"
        "create table adloom.approvals (creative_id text, creative_hash text, decision text not null, "
        "origin text not null, decided_on date not null, decided_by text, reason text, "
        "primary key (creative_id, creative_hash));"
        "insert into adloom.approvals values ('a', '', 'approved', 'external', '2024-03-01', null, 'ran')"
    )
    with warehouse(planned.shop) as engine:
        ledger.create_ledger(engine)
        ledger.create_ledger(engine)
    assert may_be_shown(planned) == {"a"}
    digest = planned.write("tea")
    for hour in (9, 10):
        planned.decide("tea", shown={"tea": digest}, hour=hour, by=str(hour))
    assert datetime(2024, 3, 8, 10) in {row[0] for row in planned.execute("select decided_at from adloom.approvals")}
