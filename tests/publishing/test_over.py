"""What a creative speaks of is over: it leaves the plans, says why, and comes back into none, in whatever order."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from adloom.errors import GateFailed
from adloom.publishing import dossier
from adloom.publishing.plan import publish
from adloom.strategy import adjust, plan_with_new_creatives
from adloom.strategy.plan import CREATIVES_PRODUCER
from adloom.warehouse.engine import warehouse

STAGED = (
    "create schema if not exists staging;"
    "create table staging.stg_landing__{table} ({key} text, known_date date, ends_at timestamp, "
    "source_file text, source_line bigint, budget double);"
)


def live(planned: Any) -> dict[str, Any]:
    root = planned.shop.published / "plans"
    folder = root / json.loads((root / "CURRENT.json").read_text())["path"]
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return plan


def planned_on(planned: Any, number: int) -> set[str]:
    """Creatives in the plan that is made on the day with what is approved by now."""
    plan_with_new_creatives(planned.shop, planned.day(number))
    of_plans = "from adloom.allocations join adloom.plans using (plan_id) where produced_by = 'creatives_daily'"
    found = planned.execute(f"select distinct day, creative_id {of_plans}")
    return {creative_id for day, creative_id in found if day == planned.day(number)}


def retired(planned: Any) -> list[tuple[Any, ...]]:
    columns = "day::text, creative_id, ended, subject, ended_on::text"
    found: list[tuple[Any, ...]] = planned.execute(f"select {columns} from adloom.retirements order by all")  # noqa: S608
    return found


def with_the_final(planned: Any) -> None:
    """An approved creative about an event whose last day is the 8th."""
    event = {"event_id": "cup", "title": "The cup final", "ends_on": "2024-03-08"}
    planned.write("tea", scenario="hot_event", event_id="cup", event=event)
    planned.decide("tea")


@pytest.mark.parametrize("order", [(7, 8), (8, 7)], ids=["day by day", "backfilled"])
def test_an_event_that_is_over_takes_its_creative_along(order: tuple[int, int], planned: Any) -> None:
    with_the_final(planned)
    found = {number: "tea" in planned_on(planned, number) for number in order}
    assert found == {7: True, 8: False}
    assert retired(planned) == [("2024-03-08", "tea", "event", "cup", "2024-03-08")]


def test_why_it_is_retired_is_said_in_the_plan_and_in_its_dossier(planned: Any) -> None:
    with_the_final(planned)
    plan_with_new_creatives(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(7), CREATIVES_PRODUCER)
    assert live(planned)["creatives"]["tea"]["last_day"] == "2024-03-08"
    told = str(plan_with_new_creatives(planned.shop, planned.day(8)))
    assert "retired: creative tea, the event ended on 2024-03-08" in told
    with warehouse(planned.shop) as engine, engine.begin() as connection:
        before = dossier.collect(connection, planned.shop, "tea", planned.day(7))
        after = dossier.collect(connection, planned.shop, "tea", planned.day(8))
        assert before["outcome"]["state"] == "running"
        assert after["outcome"]["state"] == "retired"
        assert after["outcome"]["reason"] == "the event ended on 2024-03-08"
        assert after["outcome"]["last_planned"] == "2024-03-08"
        page = dossier.render(planned.shop, after, "digest")
    assert "<b>Retired</b><span>the event ended on 2024-03-08</span>" in page


def test_one_that_ran_is_retired_too_and_not_called_unapproved(planned: Any) -> None:
    offer = {"campaign_id": "sale", "ends_on": "2024-03-07"}
    planned.write("a", 6, offer=offer, campaign_id="sale")
    planned.decide("a", number=6)
    told = adjust(planned.shop, planned.day(7))
    assert told.retired == ("creative a, its offer ended on 2024-03-07",)
    assert told.left_out == ()
    assert not planned.execute("select 1 from adloom.allocations where creative_id = 'a'")


def test_one_that_was_in_no_plan_is_not_called_retired(planned: Any) -> None:
    """Approved, never shown, and too old to enter when its event ends."""
    event = {"event_id": "cup", "title": "The cup final", "ends_on": "2024-03-20"}
    planned.write("tea", 2, scenario="hot_event", event_id="cup", event=event)
    planned.decide("tea", number=2)
    assert adjust(planned.shop, planned.day(20)).retired == ()
    assert retired(planned) == []


@pytest.mark.parametrize(
    ("table", "key", "what"), [("campaigns", "campaign_id", "campaign"), ("hot_events", "event_id", "event")]
)
def test_what_the_shop_cuts_short_counts_from_the_day_it_said_so(
    table: str, key: str, what: str, make_planned: Callable[..., Any]
) -> None:
    planned = make_planned(time_zone="Asia/Shanghai")
    planned.execute(STAGED.format(table=table, key=key))
    for known, ends_at in ((1, "2024-03-20 16:00"), (8, "2024-03-08 16:00"), (9, "2024-03-09 16:00")):
        planned.execute(
            f"insert into staging.stg_landing__{table} values "  # noqa: S608 - the test's own names
            f"('it', '{planned.day(known)}', '{ends_at}', 'f.csv', 1, null)"
        )
    promised = {"ends_on": "2024-03-20"}
    planned.write(
        "tea",
        offer=promised if what == "campaign" else None,
        event=promised if what == "event" else None,
        **{key: "it"},
    )
    planned.decide("tea")
    # Midnight in Shanghai at the end of the 8th; said on the 8th. Longer again from the 9th on.
    assert {number: "tea" in planned_on(planned, number) for number in (9, 8, 7)} == {7: True, 8: False, 9: False}
    assert retired(planned) == [("2024-03-08", "tea", what, "it", "2024-03-08")]


def test_the_last_door_holds_back_what_is_over(planned: Any) -> None:
    with_the_final(planned)
    plan_with_new_creatives(planned.shop, planned.day(8))
    planned.execute(
        "insert into adloom.allocations select plan_id, policy_id, segment_id, placement, 'tea', 0.1, null, null "
        "from adloom.allocations where creative_id = 'a'"
    )
    with pytest.raises(GateFailed, match=r"tea \(the event ended on 2024-03-08\)"):
        publish(planned.shop, planned.day(8), CREATIVES_PRODUCER)


def test_an_old_plan_does_not_go_on_after_the_event(planned: Any) -> None:
    adjust(planned.shop, planned.day(6))
    publish(planned.shop, planned.day(6))
    with_the_final(planned)
    planned_on(planned, 7)
    publish(planned.shop, planned.day(7), CREATIVES_PRODUCER)
    assert live(planned)["valid_from"] == "2024-03-08"
    publish(planned.shop, planned.day(7))  # no plan of the daily loop, and the event is still on
    assert live(planned)["valid_from"] == "2024-03-08"
    publish(planned.shop, planned.day(8))
    assert live(planned)["valid_from"] == "2024-03-07", "the one before it shows nothing that is over"


@pytest.mark.parametrize(
    ("language", "said"), [("en", "Retired: creative tea, the event ended"), ("zh", "下线：创意 tea，所借热点已于")]
)
def test_the_report_names_a_few_and_counts_the_rest(language: Any, said: str) -> None:
    from datetime import date

    from adloom.reporting.report import Summary, _say_retired
    from adloom.reporting.words import Words
    from adloom.strategy.approvals import Ending
    from adloom.strategy.wording import retired_sentence

    ending = Ending("event", "cup", date(2024, 3, 8))
    rows = [SimpleNamespace(sentence=retired_sentence(name, ending, language)) for name in ("tea", *"bcdef")]
    summary = Summary()
    _say_retired(summary, SimpleNamespace(retired=rows), Words(language))  # type: ignore[arg-type]
    assert summary.tomorrow[0].startswith(said)
    assert len(summary.tomorrow) < len(rows)
    assert "3" in summary.tomorrow[-1]
