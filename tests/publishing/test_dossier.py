"""Dossiers: what was decided and why, nothing about persons, nothing that runs in a browser."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import Connection, delete, select, update
from typer.testing import CliRunner

from adloom.copywriting.prompts import prompt
from adloom.creative import Brief, Copy, CopyLimits, ItemFacts, Offer, content_hash
from adloom.errors import AdloomError
from adloom.publishing import dossier, labels
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2024, 3, 8)
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
ID = "c0ffee0123456789"


class Archive:
    """A shop with one creative that ran: every table a dossier is read from has rows about it."""

    def __init__(self, shop: Shop, words: str = "Warm hands", language: str = "en") -> None:
        self.shop = shop
        brief = Brief(
            scenario="promotion",
            language=language,
            channel="feed",
            segment_id="seg1",
            segment_words=f"people who like coffee {words}",
            item=ItemFacts(
                item_id="mug", title=f"Mug {words}", price="$14.90", attributes={"material": f"clay {words}"}
            ),
            offer=Offer(campaign_id="c", name=words, text=f"20 % off {words}", ends_on=date(2024, 3, 9)),
            forbidden_words=(words,),
            directives=(words,),
            limits=CopyLimits(headline=200, body=400, call_to_action=200),
        )
        copy = Copy(headline=words, body=f"{words} all day.", call_to_action=words, hashtags=(words,))
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)
            with engine.begin() as connection:
                self._fill(connection, brief, copy, words)

    def _fill(self, connection: Connection, brief: Brief, copy: Copy, words: str) -> None:
        made = date(2024, 3, 5)
        file = self.shop.creatives / "day=2024-03-05" / "mug.jpg"
        file.parent.mkdir(parents=True)
        across = np.tile(np.arange(200, dtype=np.uint8), (200, 1))
        Image.fromarray(np.stack([across, across.T, across], axis=-1)).save(file)
        label = labels.label_file(file, labels.label_of(self.shop, ID, "own_photo"))
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rows: list[tuple[Any, dict[str, Any]]] = [
            (
                ledger.creatives,
                {
                    **{"creative_id": ID, "creative_hash": copy.digest, "day": made, "brief_id": brief.brief_id},
                    **{"variant": 0, "scenario": "promotion", "language": brief.language, "channel": "feed"},
                    **{"segment_id": "seg1", "item_id": "mug", "campaign_id": "c", "headline": copy.headline},
                    **{"body": copy.body, "call_to_action": copy.call_to_action, "model_id": "m1", "seed": 7},
                    **{"hashtags": json.dumps(copy.hashtags), "candidates": 4, "candidates_parsed": 3},
                    "prompt_digest": hashlib.sha256(prompt(brief).encode()).hexdigest()[:16],
                },
            ),
            (
                ledger.briefs,
                {
                    **{"day": made, "brief_id": brief.brief_id, "position": 0, "scenario": "promotion"},
                    **{"language": brief.language, "channel": "feed", "segment_id": "seg1", "item_id": "mug"},
                    **{"chosen_for": "value", "content": brief.json_line()},
                },
            ),
            (
                ledger.models,
                {
                    **{"model_id": "m1", "day": made, "kind": "copy", "base": f"package:{words}", "base_digest": "b"},
                    **{"licence": words, "method": "lora", "weights_digest": "w", "path": "p", "data_digest": "d"},
                    **{"data_as_of": date(2024, 3, 4), "pairs": 120, "validation_pairs": 12},
                    **{"configuration": "{}", "metrics": "{}"},
                },
            ),
            (
                ledger.reviews,
                {
                    **{"creative_id": ID, "creative_hash": copy.digest, "day": made, "rule_id": "law.superlative"},
                    **{"rule_version": "3", "part": "body", "span": words, "severity": "warn", "reason": words},
                },
            ),
            (
                ledger.assets,
                {
                    **{"creative_id": ID, "format": "feed_1080x1080", "day": made, "kind": "image"},
                    **{"path": "day=2024-03-05/mug.jpg", "digest": digest, "width": 200, "height": 200},
                    **{"bytes": file.stat().st_size, "template": "card", "picture_source": "own_photo"},
                    **{"picture_digest": "p", "checks": "{}", "label": label.json()},
                },
            ),
            (
                ledger.approvals,
                {
                    **{"creative_id": ID, "creative_hash": content_hash(copy.digest, [digest])},
                    **{"decision": "approved", "origin": "person", "decided_on": date(2024, 3, 6)},
                    **{"decided_by": words, "reason": words, "decided_at": datetime(2024, 3, 6, 9, 0)},
                },
            ),
            (
                ledger.portraits,
                {
                    **{"day": made, "segment_id": "seg1", "users": 340, "interests": "[]", "recent_items": "[]"},
                    **{"price_level": "", "life_cycle": "", "engagement": "{}", "words_zh": "", "words_en": ""},
                },
            ),
            (
                ledger.evaluations,
                {
                    **{"day": DAY, "window_days": 7, "grain": "creative", "campaign_id": "", "policy_id": ""},
                    **{"creative_id": ID, "segment_id": "", "impressions": 4100, "clicks": 82, "ctr": 0.02},
                    **{"ctr_low": 0.0161, "ctr_high": 0.0247, "cohort_clicks": 0, "conversions": 0},
                    "is_mature": False,
                },
            ),
        ]
        for valid_from, share in ((date(2024, 3, 8), 0.25), (date(2024, 3, 9), 0.4)):
            plan = f"p{valid_from}"
            rows += [
                (
                    ledger.plans,
                    {
                        **{"plan_id": plan, "valid_from": valid_from, "version": f"{valid_from}.1", "day": DAY},
                        **{"produced_by": "behaviour_daily", "content_digest": "c", "algorithm": "thompson"},
                    },
                ),
                (
                    ledger.allocations,
                    {
                        **{"plan_id": plan, "policy_id": "adaptive", "segment_id": "seg1", "placement": "feed:1"},
                        **{"creative_id": ID, "share": share, "sentence": f"its CTR rose {words}"},
                    },
                ),
            ]
        for table, row in rows:
            connection.execute(table.insert(), [row])

    def write(self, day: date = DAY) -> dossier.Written:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            return dossier.write(connection, self.shop, ID, day)

    def change(self, statement: Any) -> None:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            connection.execute(statement)

    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.shop.published / "dossiers" / f"{ID}.json").read_text("utf-8"))
        return found


@pytest.fixture
def archive(make_shop: Callable[..., Shop]) -> Archive:
    return Archive(make_shop(ai_label_producer_id="P-1"))


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_it_holds_what_was_decided_and_why(archive: Archive) -> None:
    written = archive.write()
    content = archive.content()
    assert written.outcome == content["outcome"]["state"] == "running"
    assert content["outcome"]["reason"].startswith("its CTR rose")
    assert content["prompt"]["is_same"]
    assert "Mug Warm hands" in content["prompt"]["text"]
    assert (content["model"]["base"], content["model"]["data_as_of"], content["model"]["seed"]) == (
        *("package:Warm hands", "2024-03-04"),
        7,
    )
    assert {"fact": "item.price", "value": "$14.90"} in content["facts"]
    assert [row["rule_id"] for row in content["reviews"]] == ["law.superlative"]
    assert [(row["decision"], row["of_current_content"]) for row in content["approvals"]] == [("approved", True)]
    assert content["assets"][0]["label"]["AIGC"]["ProduceID"] == ID
    assert [row["share"] for row in content["allocations"]] == [0.4, 0.25]
    assert (content["results"][0]["impressions"], content["results"][0]["ctr_low"]) == (4100, 0.0161)
    page = written.page.read_text("utf-8")
    for shown in ("4,100", "2.00%", "1.61% – 2.47%", "not enough data", "about 340", "40.0%", "2024-03-04"):
        assert shown in page


def test_the_same_ledger_gives_the_same_bytes_and_one_row(archive: Archive) -> None:
    first = archive.write()
    before = {path.name: path.read_bytes() for path in first.page.parent.iterdir()}
    assert archive.write() == first
    assert {path.name: path.read_bytes() for path in first.page.parent.iterdir()} == before
    assert sorted(before) == [f"{ID}.html", f"{ID}.json"]
    with warehouse(archive.shop, read_only=True) as engine, engine.connect() as connection:
        row = connection.execute(select(ledger.dossiers)).one()
    assert (row.digest, row.keep_until) == (hashlib.sha256(before[f"{ID}.json"]).hexdigest(), date(2027, 3, 8))
    assert (archive.shop.published / row.path).is_file()


def test_text_from_data_never_becomes_markup(make_shop: Callable[..., Shop]) -> None:
    archive = Archive(make_shop(ai_label_producer_id="P-1", name=HOSTILE), HOSTILE)
    archive.change(update(ledger.allocations).values(policy_id=HOSTILE, placement=HOSTILE))
    page = archive.write().page.read_text("utf-8")
    found = _Elements()
    found.feed(page)
    assert "script" not in found.tags
    assert not {name for name in found.attributes if name.startswith("on")}
    assert html.escape("<script>alert(1)</script>") in page
    assert "{{ 7*7 }}" in page
    assert archive.content()["creative"]["headline"] == HOSTILE


def test_it_holds_nothing_about_a_person_of_the_audience(archive: Archive) -> None:
    archive.change(
        ledger.user_portraits.insert().values(
            day=date(2024, 3, 5), user_hash="deadbeefcafe", segment_id="seg1", counted_in="seg1"
        )
    )
    written = archive.write()
    for path in written.page.parent.iterdir():
        assert "deadbeefcafe" not in path.read_text("utf-8")
    assert set(archive.content()["audience"]) == {"segment_id", "portrait", "users_about"}


def test_a_changed_prompt_is_not_passed_off_as_the_one_that_was_read(archive: Archive) -> None:
    archive.change(update(ledger.creatives).values(prompt_digest="0" * 16))
    page = archive.write().page.read_text("utf-8")
    assert not archive.content()["prompt"]["is_same"]
    assert "this is not the text the model read" in page


def test_an_approval_of_older_content_is_told_apart(archive: Archive) -> None:
    archive.change(update(ledger.approvals).values(creative_hash="older"))
    written = archive.write()
    assert written.outcome == "waiting"
    assert "no, the content has changed since" in written.page.read_text("utf-8")


def test_a_rejection_and_a_retirement_tell_their_reason(archive: Archive) -> None:
    archive.change(delete(ledger.allocations).where(ledger.allocations.c.plan_id == "p2024-03-09"))
    archive.change(
        ledger.fatigue.insert().values(
            **{"day": DAY, "creative_id": ID, "users": 90, "early_impressions": 900, "early_clicks": 30},
            **{"late_impressions": 900, "late_clicks": 9, "verdict": "tired"},
            sentence="the same people click 70 % less",
        )
    )
    assert archive.write().outcome == "retired"
    assert archive.content()["outcome"]["reason"].startswith(
        "the same people click 70 % less; not in plan 2024-03-09.1"
    )
    archive.change(update(ledger.approvals).values(decision="rejected", reason="off brand"))
    assert archive.write().outcome == "rejected"
    assert "off brand" in archive.content()["outcome"]["reason"]


def test_figures_that_do_not_exist_are_not_enough_data(archive: Archive) -> None:
    archive.change(delete(ledger.evaluations))
    page = archive.write().page.read_text("utf-8")
    assert "Not enough data" in page


def test_a_file_that_was_changed_is_said_and_not_shown(archive: Archive) -> None:
    file = archive.shop.creatives / "day=2024-03-05" / "mug.jpg"
    assert "data:image/jpeg" in archive.write().page.read_text("utf-8")
    file.write_bytes(file.read_bytes() + b"x")
    page = archive.write().page.read_text("utf-8")
    assert archive.content()["assets"][0]["state"] == "changed"
    assert "no longer the one that was recorded" in page
    assert "data:image/jpeg" not in page


def test_the_pictures_on_the_page_carry_their_label(archive: Archive, tmp_path: Path) -> None:
    import base64
    import re

    page = archive.write().page.read_text("utf-8")
    found = re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", html.unescape(page))
    assert found is not None
    file = tmp_path / "shown.jpg"
    file.write_bytes(base64.b64decode(found[1]))
    assert labels.verify(file, labels.label_of(archive.shop, ID, "own_photo")).is_intact


def test_an_unknown_creative_is_an_error_with_a_next_step(archive: Archive) -> None:
    with warehouse(archive.shop) as engine, engine.begin() as connection:
        for wrong in ("../../etc/passwd", "0000000000000000"):
            with pytest.raises(AdloomError, match="has written no creative"):
                dossier.write(connection, archive.shop, wrong, DAY)
    with pytest.raises(AdloomError, match="has written no creative"):
        archive.write(date(2024, 3, 4))


def test_the_words_of_both_languages_are_the_same_words(make_shop: Callable[..., Shop]) -> None:
    words = dossier._words()
    assert words["zh"].keys() == words["en"].keys()
    archive = Archive(make_shop(ai_label_producer_id="P-1", language="zh"), "早八通勤", "zh")
    page = archive.write().page.read_text("utf-8")
    assert "投放中" in page
    assert "AI生成" in page
    assert 'lang="zh-CN"' in page


def test_the_command_writes_one_or_all(archive: Archive) -> None:
    from adloom.cli import app

    shop = ["--shop", archive.shop.id, "--day", str(DAY)]
    told = CliRunner().invoke(app, ["dossier", ID, *shop])
    assert (told.exit_code, ID in told.stdout) == (0, True)
    told = CliRunner().invoke(app, ["dossier", "--all", *shop, "--json"])
    assert [one["creative_id"] for one in json.loads(told.stdout)] == [ID]
    assert CliRunner().invoke(app, ["dossier", *shop]).exit_code == 2
