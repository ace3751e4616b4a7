"""The plan with new creatives: how they enter, for whom, and that nothing gets in that is not approved."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from adloom.errors import GateFailed
from adloom.publishing import audience
from adloom.publishing.plan import publish, schema
from adloom.strategy import adjust, holdout, plan_with_new_creatives
from adloom.strategy.allocation import floor_share
from adloom.strategy.plan import CREATIVES_PRODUCER
from adloom.warehouse import ledger
from adloom.warehouse.reading import user_hash


def published(planned: Any, number: int = 7) -> dict[str, Any]:
    """Plan the day with what is approved by now, publish it and read what is live."""
    plan_with_new_creatives(planned.shop, planned.day(number))
    publish(planned.shop, planned.day(number), CREATIVES_PRODUCER)
    return live(planned)


def live(planned: Any) -> dict[str, Any]:
    root = planned.shop.published / "plans"
    folder = root / json.loads((root / "CURRENT.json").read_text())["path"]
    return json.loads((folder / "plan.json").read_text())


@pytest.mark.parametrize("explored", [0.0, 0.1, 0.3])
def test_new_creatives_share_the_exploration_and_what_ran_gives_way(
    explored: float, make_planned: Callable[..., Any]
) -> None:
    planned = make_planned(strategy={"exploration_share": explored})
    adjust(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(7))
    before = live(planned)["policies"]["adaptive"]["all"]["home:1"]
    for name in ("tea", "milk"):
        planned.write(name)
    planned.decide("tea", "milk")
    plan = published(planned)
    for placement in ("home:1", "home:2"):
        shares = plan["policies"]["adaptive"]["all"][placement]
        assert set(shares) == {"a", "b", "c", "tea", "milk"}
        assert math.fsum(shares.values()) == 1
        assert min(shares.values()) >= floor_share(5)
        assert shares["tea"] + shares["milk"] == pytest.approx(max(explored, 2 * floor_share(5)), abs=1e-5)
        assert set(plan["policies"]["holdout"]["all"][placement].values()) == {0.2}
    ran = plan["policies"]["adaptive"]["all"]["home:1"]
    assert sorted(before, key=before.__getitem__) == sorted(before, key=ran.__getitem__)
    said = planned.execute(
        "select sentence from adloom.allocations where creative_id = 'tea' and policy_id = 'adaptive' limit 1"
    )
    assert "newly approved and not shown yet" in said[0][0]


def test_the_daily_cap_holds_for_what_gives_way(make_planned: Callable[..., Any]) -> None:
    planned = make_planned(strategy={"exploration_share": 0.6, "max_share_change": 0.05})
    planned.write("tea")
    planned.decide("tea")
    plan_with_new_creatives(planned.shop, planned.day(7))
    moved = planned.execute(
        "select abs(share - share_before) from adloom.allocations "
        "where policy_id = 'adaptive' and share_before is not null"
    )
    # Beyond the cap goes only what the new one's floor takes.
    assert max(row[0] for row in moved) <= 0.05 + floor_share(4) / 3 + 2e-6


def test_where_nothing_ran_all_are_alike_and_a_language_has_its_own_place(make_planned: Callable[..., Any]) -> None:
    planned = make_planned(language="zh", copy_languages=["zh", "en"])
    for name, language in (("tea", "en"), ("cha", "zh"), ("hongcha", "zh")):
        planned.write(name, channel="feed", language=language)
    planned.decide("tea", "cha", "hongcha")
    adaptive = published(planned)["policies"]["adaptive"]["all"]
    assert adaptive["feed:zh"] == {"cha": 0.5, "hongcha": 0.5}
    assert adaptive["feed:en"] == {"tea": 1.0}


def test_the_daily_loop_keeps_them_until_they_are_shown_and_never_sees_its_own_days(planned: Any) -> None:
    planned.write("tea", 6)
    planned.decide("tea", number=6)
    adjust(planned.shop, planned.day(6))
    assert not planned.execute("select 1 from adloom.allocations where creative_id = 'tea'")
    adjust(planned.shop, planned.day(7))
    assert planned.execute("select 1 from adloom.allocations where creative_id = 'tea'")
    adjust(planned.shop, planned.day(7 + 14))
    plans = planned.execute("select distinct plan_id from adloom.allocations where creative_id = 'tea'")
    assert [row[0].split(".")[1] for row in plans] == ["2024-03-07"], "nobody was shown it for two weeks: it is out"


def test_who_is_not_personalised_gets_what_is_not_personalised(planned: Any) -> None:
    planned.write("generic", segment_id="not_personalised")
    planned.write("for_all", words="")
    planned.write("described", words="looked at kettles")
    planned.write("tea", segment_id="tea_lovers", words="likes tea")
    planned.decide("generic", "for_all", "described", "tea")
    plan = published(planned)
    for policy in ("adaptive", "holdout"):
        cells = {segment: set(places["home:1"]) for segment, places in plan["policies"][policy].items()}
        assert cells == {
            "all": {"a", "b", "c", "generic", "for_all", "described"},
            "not_personalised": {"a", "b", "c", "generic", "for_all"},
            "tea_lovers": {"a", "b", "c", "tea"},
        }
    # Also when they have been shown: what ran for one segment does not spread to who is not personalised.
    planned.execute(
        "insert into marts.fct_creative_daily "
        "select * replace ('tea' as creative_id, 'not_personalised' as segment_id) "
        "from marts.fct_creative_daily where creative_id = 'a'"
    )
    assert "tea" not in published(planned)["policies"]["adaptive"]["not_personalised"]["home:1"]


def test_a_plan_with_new_creatives_of_an_old_day_never_becomes_the_newest(planned: Any) -> None:
    planned.write("tea", 5)
    planned.decide("tea", number=5)
    assert published(planned, 7)["valid_from"] == "2024-03-08"
    assert published(planned, 5)["valid_from"] == "2024-03-08"
    adjust(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(7))
    assert live(planned)["produced_by"] == CREATIVES_PRODUCER, (
        "of one day, the plan with the new creatives is the later"
    )


def approved_tea(planned: Any) -> dict[str, Any]:
    """A plan is live; then a picture and the copy of tea were approved, and a plan with it is made."""
    plan = published(planned)
    digest = planned.write("tea")
    planned.draw("tea")
    planned.decide("tea")
    plan_with_new_creatives(planned.shop, planned.day(7))
    planned.digest = digest
    return plan


ROW = "insert into adloom.allocations select plan_id, policy_id, segment_id, placement, 'smuggled', 0.1, null, null"
APPROVAL = (
    "insert into adloom.approvals values ('smuggled', '{}', 'approved', 'external', '2024-03-01', null, null, null)"
)
AROUND: dict[str, tuple[str, Callable[[Any], object]]] = {
    "a row by hand": (
        r"smuggled \(undecided\)",
        lambda p: (p.write("smuggled"), p.execute(f"{ROW} from adloom.allocations where creative_id = 'tea'")),
    ),
    "a row by hand and an approval as if it came from outside": (
        r"smuggled \(undecided\)|smuggled \(its content changed",
        lambda p: (
            p.write("smuggled"),
            p.execute(APPROVAL.format("")),
            p.execute(f"{ROW} from adloom.allocations where creative_id = 'tea'"),
        ),
    ),
    "an approval of other content": (
        r"smuggled \(its content changed",
        lambda p: (
            p.write("smuggled"),
            p.execute(APPROVAL.format("0123456789abcdef")),
            p.execute(f"{ROW} from adloom.allocations where creative_id = 'tea'"),
        ),
    ),
    "the copy is changed": (
        r"tea \(its content changed",
        lambda p: p.execute("update adloom.creatives set creative_hash = 'fedcba9876543210'"),
    ),
    "a picture is changed in the ledger": (
        r"tea \(its content changed",
        lambda p: p.execute("update adloom.assets set digest = repeat('0', 64)"),
    ),
    "a picture is changed on disk": (
        r"files that are not what was approved: tea\.png",
        lambda p: (p.shop.creatives / "tea.png").write_bytes(b"another picture"),
    ),
    "a picture is gone": (
        r"files that are not what was approved: tea\.png",
        lambda p: (p.shop.creatives / "tea.png").unlink(),
    ),
    "the approval is withdrawn": (
        r"tea \(rejected by Li\)",
        lambda p: p.decide(
            hour=10,
            shown=dict(p.execute("select creative_id, creative_hash from adloom.approvals where creative_id = 'tea'")),
        ),
    ),
    "the approval is deleted": (
        r"tea \(undecided\)",
        lambda p: p.execute("delete from adloom.approvals where creative_id = 'tea'"),
    ),
    "a review blocks it": (
        r"tea \(blocked by law\.absolute: a reason\)",
        lambda p: p.review("tea", p.digest, "block"),
    ),
    "it is erased": (
        r"tea \(erased\)",
        lambda p: p.add(ledger.erasures, kind="creative", subject="tea", requested_on=p.day(7), reason="asked for"),
    ),
    "fairness blocks it there": (
        r"shows tea in home:1, where fairness blocks it",
        lambda p: p.add(
            ledger.allocation_blocks,
            day=p.day(7),
            placement="home:1",
            creative_id="tea",
            reason="audience_skew",
            blocked_since=p.day(7),
            sentence="why",
            **dict.fromkeys(("trait", "value"), "x"),
            **dict.fromkeys(("users", "impressions"), 1),
            **dict.fromkeys(
                ("delivered_share", "eligible_share", "difference_low", "difference_high", "most_allowed"), 0.1
            ),
        ),
    ),
    "its rows are moved to who is not personalised": (
        "shows tea to users who are not personalised",
        lambda p: p.execute(
            "update adloom.creatives set segment_id = 'tea_lovers' where creative_id = 'tea';"
            "update adloom.allocations set segment_id = 'not_personalised' where creative_id = 'tea'"
        ),
    ),
}


@pytest.mark.parametrize("way", AROUND)
def test_there_is_no_way_around_approval(way: str, planned: Any) -> None:
    before = approved_tea(planned)
    reason, go = AROUND[way]
    go(planned)
    with pytest.raises(GateFailed, match=reason):
        publish(planned.shop, planned.day(7), CREATIVES_PRODUCER)
    assert live(planned) == before, "what was live stays live"


def test_the_door_opens_for_what_is_approved(planned: Any) -> None:
    approved_tea(planned)
    publish(planned.shop, planned.day(7), CREATIVES_PRODUCER)
    tea = live(planned)["creatives"]["tea"]
    assert tea["files"][0]["path"] == "tea.png"
    assert tea["text"].endswith("(AI-generated)")
    assert (
        tea["content_hash"]
        == planned.execute("select creative_hash from adloom.approvals where creative_id = 'tea'")[0][0]
    )


def test_a_live_plan_that_shows_what_was_taken_out_gives_way_to_the_one_before(planned: Any) -> None:
    adjust(planned.shop, planned.day(6))
    publish(planned.shop, planned.day(6))
    shown = {"tea": planned.write("tea")}
    planned.decide("tea")
    assert "tea" in published(planned)["policies"]["adaptive"]["all"]["home:1"]
    planned.decide(shown=shown, hour=10)
    adjust(planned.shop, planned.day(5))
    publish(planned.shop, planned.day(5))
    assert live(planned)["valid_from"] == "2024-03-07"


def test_the_document_is_what_its_schema_promises(make_planned: Callable[..., Any]) -> None:
    planned = make_planned(daily_budget=500, frequency_cap_per_day=8)
    planned.execute(
        "create schema staging;"
        "create table staging.stg_landing__campaigns as select *, null::timestamp as ends_at, "
        "'c.csv' as source_file, 1 as source_line from (values "
        "('sale', 900.5, date '2024-03-01'), ('sale', 1200, date '2024-03-05'), ('sale', 1, date '2024-03-09'), "
        "('other', 7, date '2024-03-01')) as c(campaign_id, budget, known_date)"
    )
    planned.write("tea", campaign_id="sale")
    planned.decide("tea")
    plan = published(planned)
    check = Draft202012Validator(schema())
    Draft202012Validator.check_schema(schema())
    assert check.is_valid(plan)
    assert plan["limits"] == {
        "frequency_cap_per_day": 8,
        "daily_budget": 500,
        "campaign_budgets": {"sale": 1200},
    }
    broken: list[Callable[[Any], object]] = [
        lambda p: p.pop("plan_id"),
        lambda p: p.update(surprise=1),
        lambda p: p["policies"]["adaptive"]["all"]["home:1"].update(tea=0),
        lambda p: p["policies"].update(other={}),
        lambda p: p["creatives"]["tea"].pop("ai_label"),
        lambda p: p["audience"]["fallback"]["not_personalised"].append("all"),
    ]
    for spoil in broken:
        spoilt = json.loads(json.dumps(plan))
        spoil(spoilt)
        assert not check.is_valid(spoilt)


def test_what_the_schema_forbids_is_not_published(planned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    adjust(planned.shop, planned.day(7))
    monkeypatch.setattr(audience, "served_as_stranger", lambda shop: "everybody")
    with pytest.raises(GateFailed, match=r"plan\.schema\.json promises: audience/stranger"):
        publish(planned.shop, planned.day(7))
    assert not (planned.shop.published / "plans" / "CURRENT.json").exists()


# --- who is served as what ------------------------------------------------------------------------------------------

KEY = b"a key for tests only"
USERS = {"ann": "all", "bob": "all", "minor": "not_personalised", "left": "not_personalised", "back": "all"}


def with_users(planned: Any) -> None:
    """ann is a tea lover; left opted out after the last portraits; back opted in again after them."""
    hashed = {name: user_hash(name, KEY) for name in (*USERS, "eve")}
    rows = [f"('{hashed[name]}', '{segment}', date '2024-03-01')" for name, segment in USERS.items()]
    rows.append(f"('{hashed['left']}', 'all', date '2024-02-01')")
    rows.append(f"('{hashed['eve']}', 'all', date '2024-03-09')")
    planned.execute("create table marts.user_segments (user_hash text, segment_id text, known_date date)")
    planned.execute(f"insert into marts.user_segments values {', '.join(rows)}")  # noqa: S608 - the test's own users
    for name, segment in {"ann": "tea_lovers", "left": "tea_lovers", "back": "not_personalised"}.items():
        planned.add(
            ledger.user_portraits, day=planned.day(6), user_hash=hashed[name], segment_id=segment, counted_in="all"
        )


def server(planned: Any) -> Any:
    import importlib.util

    from adloom.settings import CHECKOUT

    spec = importlib.util.spec_from_file_location("ad_server", CHECKOUT / "examples" / "ad_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AdServer(planned.shop.published / "plans", KEY)


def test_the_audience_file_is_for_the_ad_server_alone(planned: Any) -> None:
    with_users(planned)
    published(planned)
    (path,) = planned.shop.published.rglob("audience.parquet")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    users = {name: server(planned).users[user_hash(name, KEY)] for name in USERS}
    assert {name: row["segment_id"] for name, row in users.items()} == {
        "ann": "tea_lovers",
        "bob": "all",
        "minor": "not_personalised",
        "left": "not_personalised",
        "back": "all",
    }
    assert {name for name, row in users.items() if not row["personalised"]} == {"minor", "left"}
    assert len(server(planned).users) == len(USERS), "who was known only later is not in it"
    for name, row in users.items():
        assert row["holdout"] == holdout.in_holdout(user_hash(name, KEY), 0.05)


def test_of_superseded_plans_no_audience_is_kept(planned: Any) -> None:
    with_users(planned)
    for number in (5, 6, 7):
        adjust(planned.shop, planned.day(number))
        publish(planned.shop, planned.day(number))
    kept = sorted(path.parent.parent.name for path in planned.shop.published.rglob("audience.parquet"))
    assert kept == ["2024-03-07", "2024-03-08"], "the live one, and the one that is still being read"


def test_an_opt_out_reaches_the_ad_server_with_the_plan_published_again(planned: Any) -> None:
    with_users(planned)
    published(planned)
    row = f"('{user_hash('ann', KEY)}', 'not_personalised', date '2024-03-07')"
    planned.execute(f"insert into marts.user_segments values {row}")  # noqa: S608 - the test's own users
    before = live(planned)
    assert published(planned) == before, "no share has changed"
    assert server(planned).users[user_hash("ann", KEY)]["segment_id"] == "not_personalised"


def test_the_example_ad_server_obeys_the_plan(make_planned: Callable[..., Any]) -> None:
    """Segments by the same HMAC, the holdout by the same rule, nothing personalised for who is not, draws as shares."""
    planned = make_planned(strategy={"holdout_share": 0.5})
    with_users(planned)
    planned.write("generic", segment_id="not_personalised", channel="feed")
    planned.write("tea", segment_id="tea_lovers", words="likes tea", channel="feed")
    planned.decide("generic", "tea")
    plan = published(planned)
    ads = server(planned)

    def shown(user: str, placement: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for draw in range(1000):
            one = ads.choose(user, placement, (draw + 0.5) / 1000)
            found[one["creative_id"]] = found.get(one["creative_id"], 0) + 0.001
        return found

    assert shown("ann", "feed:1") == {"tea": pytest.approx(1)}
    for user in ("bob", "minor", "left", "a stranger"):
        assert set(shown(user, "feed:1")) == {"generic"}
    policies = set()
    for user in ("ann", "bob", "back", "a stranger", "another stranger", "a third stranger"):
        chosen = ads.choose(user, "home:1", 0.0)
        is_held_out = holdout.in_holdout(user_hash(user, KEY), 0.5)
        assert chosen["policy_id"] == ("holdout" if is_held_out else "adaptive")
        wanted = plan["policies"][chosen["policy_id"]][chosen["segment_id"]]["home:1"]
        assert chosen["propensity"] == wanted[chosen["creative_id"]]
        assert shown(user, "home:1") == pytest.approx(wanted, abs=0.002)
        policies.add(chosen["policy_id"])
    assert policies == {"adaptive", "holdout"}
    assert ads.choose("minor", "home:1", 0.5) is None, (
        "a placement without anything that is not personalised stays empty"
    )
