from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from adloom.errors import GateFailed
from adloom.publishing.plan import publish
from adloom.strategy import adjust


def current(shop: Any) -> dict[str, str]:
    return json.loads((shop.published / "plans" / "CURRENT.json").read_text())


def tree(shop: Any) -> dict[str, tuple[bytes, int]]:
    root = shop.published / "plans"
    return {
        str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_plan_is_published_whole_and_named_as_the_live_one(planned: Any) -> None:
    summary = adjust(planned.shop, planned.day(7))
    folder = publish(planned.shop, planned.day(7))
    assert folder == planned.shop.published / "plans" / "2024-03-08" / summary.version
    assert current(planned.shop)["path"] == f"2024-03-08/{summary.version}"
    document = json.loads((folder / "plan.json").read_text())
    assert document["plan_id"] == summary.plan_id
    assert document["holdout"]["share"] == 0.05
    for policy in ("adaptive", "holdout"):
        for shares in document["policies"][policy]["all"].values():
            assert abs(math.fsum(shares.values()) - 1) <= 1e-12
    table = parquet.read_table(folder / "plan.parquet").to_pylist()
    assert len(table) == 12
    assert {row["share"] for row in table if row["policy_id"] == "adaptive" and row["placement"] == "home:1"} == set(
        document["policies"]["adaptive"]["all"]["home:1"].values()
    )


def test_publishing_again_changes_nothing_and_leftovers_are_cleared(planned: Any) -> None:
    adjust(planned.shop, planned.day(7))
    folder = publish(planned.shop, planned.day(7))
    before = {name: content for name, content in tree(planned.shop).items() if name != "CURRENT.json"}
    # What a killed run leaves behind: a half-written copy, or the plan already moved away.
    half = folder.with_name(f".{folder.name}.new")
    half.mkdir()
    (half / "plan.json").write_text("{")
    publish(planned.shop, planned.day(7))
    after = tree(planned.shop)
    after.pop("CURRENT.json")
    assert after == before
    folder.rename(folder.with_name(f".{folder.name}.old"))
    publish(planned.shop, planned.day(7))
    assert {name: content for name, (content, _) in tree(planned.shop).items() if name != "CURRENT.json"} == {
        name: content for name, (content, _) in before.items()
    }
    (folder / "plan.json").write_text("{}")
    publish(planned.shop, planned.day(7))
    assert json.loads((folder / "plan.json").read_text())["policies"]


def test_a_backfill_of_an_old_day_does_not_move_the_live_plan(planned: Any) -> None:
    for number in (5, 7, 6, 2):
        adjust(planned.shop, planned.day(number))
        publish(planned.shop, planned.day(number))
    assert current(planned.shop)["valid_from"] == "2024-03-08"


def test_the_live_plan_is_one_that_was_published(planned: Any) -> None:
    adjust(planned.shop, planned.day(6))
    adjust(planned.shop, planned.day(7))
    publish(planned.shop, planned.day(6))
    assert current(planned.shop)["valid_from"] == "2024-03-07"


def test_a_day_without_a_plan_leaves_the_live_one(planned: Any) -> None:
    assert publish(planned.shop, planned.day(3)) == planned.shop.published / "plans"
    adjust(planned.shop, planned.day(2))
    publish(planned.shop, planned.day(2))
    before = tree(planned.shop)
    publish(planned.shop, planned.day(3))
    assert tree(planned.shop) == before


SMUGGLED = (
    "select plan_id, policy_id, segment_id, placement, 'd', share, share_before, sentence from adloom.allocations"
)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ("delete from adloom.approvals where creative_id = 'b'", "not approved: b"),
        ("update adloom.approvals set decision = 'rejected' where creative_id = 'b'", "not approved: b"),
        ("update adloom.approvals set decision = 'APPROVED' where creative_id = 'b'", "not approved: b"),
        (
            "insert into adloom.approvals values ('c', 'h', 'rejected', 'person', '2024-05-01', null, null, null)",
            "not approved: c",
        ),
        ("update adloom.approvals set decided_on = '2024-05-01' where creative_id = 'b'", "not approved: b"),
        ("update adloom.allocations set creative_id = 'd' where creative_id = 'b'", "not approved: d"),
        (f"insert into adloom.allocations {SMUGGLED} where creative_id = 'a'", "not approved: d"),
        ("update adloom.allocations set share = share + .001 where creative_id = 'b'", "were changed"),
        ("update adloom.allocations set share = 1 / 3 where policy_id = 'adaptive'", "were changed"),
        ("delete from adloom.allocations where policy_id = 'holdout'", "were changed"),
        ("delete from adloom.allocations", "were changed"),
    ],
)
def test_the_last_door_stays_shut(edit: str, reason: str, planned: Any) -> None:
    adjust(planned.shop, planned.day(6))
    publish(planned.shop, planned.day(6))
    before = tree(planned.shop)
    adjust(planned.shop, planned.day(7))
    planned.execute(edit)
    with pytest.raises(GateFailed, match=reason) as refusal:
        publish(planned.shop, planned.day(7))
    assert "adloom adjust" in refusal.value.next_step
    assert tree(planned.shop) == before, "the plan that was live stays live"


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ("update adloom.allocations set share = share / 2 where placement = 'home:2'", "sum to 0.5"),
        (
            "update adloom.allocations set share = case creative_id when 'a' then .99 else .005 end "
            "where policy_id = 'adaptive'",
            "below the floor",
        ),
    ],
)
def test_even_a_plan_with_a_fitting_digest_is_checked(
    edit: str, reason: str, planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    adjust(planned.shop, planned.day(7))
    planned.execute(edit)
    (digest,) = planned.execute("select content_digest from adloom.plans")[0]
    monkeypatch.setattr("adloom.publishing.plan.content_digest", lambda rows: digest)
    with pytest.raises(GateFailed, match=reason):
        publish(planned.shop, planned.day(7))


def test_a_rejection_takes_effect_when_the_day_is_adjusted_again(planned: Any) -> None:
    adjust(planned.shop, planned.day(7))
    first = publish(planned.shop, planned.day(7))
    planned.execute(
        "insert into adloom.approvals values ('c', 'h', 'rejected', 'person', '2024-05-01', null, null, null)"
    )
    adjust(planned.shop, planned.day(7))
    second: Path = publish(planned.shop, planned.day(7))
    assert second != first
    assert current(planned.shop)["path"].endswith(second.name)
    assert "c" not in json.loads((second / "plan.json").read_text())["policies"]["adaptive"]["all"]["home:1"]
