"""The ad archive is kept for years after a creative last ran and then goes; what nobody approved goes sooner."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from adloom import pipeline
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.content import digests
from adloom.warehouse.engine import warehouse

MADE = date(2024, 2, 29)
OVER = date(2027, 2, 28)
"""The last of three years after `MADE`."""


class Archive:
    """Creatives with what is kept of them, written as rows."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        with warehouse(shop) as engine:
            ledger.create_ledger(engine)

    def add(self, name: str, **row: Any) -> None:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            connection.execute(ledger.metadata.tables[f"adloom.{name}"].insert(), [row])

    def dossier(self, creative_id: str, keep_until: date = OVER) -> Path:
        page = self.shop.published / "dossiers" / f"{creative_id}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        for path in (page, page.with_suffix(".json")):
            path.write_text("kept")
        path = f"dossiers/{page.name}"
        self.add("dossiers", creative_id=creative_id, day=MADE, digest="d", path=path, keep_until=keep_until)
        return page

    def export(self, creative_id: str, keep_until: date = OVER) -> None:
        told = dict.fromkeys(("format", "exported_by", "reason", "file_name", "digest"), "x")
        self.add(
            "label_free_exports",
            export_id=f"export of {creative_id}",
            day=MADE,
            creative_id=creative_id,
            keep_until=keep_until,
            **told,
        )

    def plan(self, creative_id: str, valid_from: date) -> None:
        plan_id = f"plan of {valid_from}"
        told = dict.fromkeys(("produced_by", "content_digest", "algorithm"), "x")
        self.add("plans", plan_id=plan_id, valid_from=valid_from, version=plan_id, day=valid_from, **told)
        keys = {"plan_id": plan_id, "policy_id": "adaptive", "segment_id": "all", "placement": "web:1"}
        self.add("allocations", **keys, creative_id=creative_id, share=1.0)

    def seen(self, creative_id: str, known_date: date) -> None:
        with warehouse(self.shop) as engine, engine.begin() as connection:
            connection.execute(text("create schema if not exists marts"))
            connection.execute(
                text("create table if not exists marts.fct_creative_daily (creative_id text, known_date date)")
            )
            values = {"creative_id": creative_id, "known_date": known_date}
            connection.execute(text("insert into marts.fct_creative_daily values (:creative_id, :known_date)"), values)

    def draw(self, creative_id: str, day: date = MADE, path: str = "") -> Path:
        path = path or f"day={day}/images/files/{creative_id}.jpg"
        file = self.shop.creatives / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"a picture")
        told = dict.fromkeys(("digest", "template", "picture_source", "picture_digest", "checks", "label"), "x")
        sizes = {"width": 1, "height": 1, "bytes": 9}
        self.add("assets", creative_id=creative_id, format="feed", day=day, kind="image", path=path, **told, **sizes)
        return file

    def decide(self, creative_id: str, decision: str) -> None:
        words = {"decision": decision, "origin": "person", "decided_on": MADE, "decided_by": "Li"}
        self.add("approvals", creative_id=creative_id, creative_hash="h", **words)

    def kept(self, table: str) -> set[str]:
        with warehouse(self.shop) as engine, engine.connect() as connection:
            return set(connection.scalars(text(f"select creative_id from adloom.{table}")))  # noqa: S608


@pytest.fixture
def archive(make_shop: Callable[..., Shop]) -> Archive:
    return Archive(make_shop(retention={"unapproved_image_days": 60}))


def test_dossiers_and_the_log_of_exports_go_three_years_after_the_creative_last_ran(archive: Archive) -> None:
    """Never earlier: neither while it is planned or live, nor while events of it come in."""
    archive.plan("planned", date(2025, 5, 1))
    archive.plan("live", date(2026, 1, 1))
    archive.seen("seen", date(2024, 6, 1))
    pages = {name: archive.dossier(name) for name in ("planned", "live", "seen", "never_ran")}
    for name in pages:
        archive.export(name)

    def kept_on(day: date) -> set[str]:
        pipeline.apply_retention(archive.shop.id, day)
        kept = archive.kept("dossiers")
        assert kept == archive.kept("label_free_exports")
        for name, page in pages.items():
            assert page.exists() is page.with_suffix(".json").exists() is (name in kept)
        return kept

    assert kept_on(OVER) == set(pages)
    assert kept_on(OVER + timedelta(days=1)) == set(pages) - {"never_ran"}
    assert kept_on(date(2027, 6, 1)) == {"planned", "live", "seen"}
    assert kept_on(date(2027, 6, 2)) == {"planned", "live"}
    assert kept_on(date(2028, 12, 31)) == {"planned", "live"}, "a plan goes on until the next one begins"
    assert kept_on(date(2029, 1, 1)) == {"live"}
    assert kept_on(date(2040, 1, 1)) == {"live"}, "no later plan has taken its place"
    archive.plan("other", date(2030, 1, 1))
    assert kept_on(date(2040, 1, 1)) == set()


def test_a_shop_may_keep_them_longer_and_no_shop_for_less(make_shop: Callable[..., Shop]) -> None:
    from adloom.errors import UsageError

    archive = Archive(make_shop(retention={"dossier_years": 5}))
    archive.plan("tea", MADE)
    archive.plan("other", MADE + timedelta(days=1))
    archive.dossier("tea")
    pipeline.apply_retention(archive.shop.id, date(2029, 2, 28))
    assert archive.kept("dossiers") == {"tea"}
    pipeline.apply_retention(archive.shop.id, date(2029, 3, 1))
    assert archive.kept("dossiers") == set()
    with pytest.raises(UsageError, match=r"retention\.dossier_years"):
        make_shop(retention={"dossier_years": 2})


def test_files_of_what_nobody_ever_approved_go_sooner_and_nothing_else_does(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    due = MADE + timedelta(days=61)
    files = {name: archive.draw(name) for name in ("waited", "rejected", "approved", "changed", "ran")}
    files["young"] = archive.draw("young", due - timedelta(days=60))
    secret = archive.draw("sly", path="../../secret.txt")
    archive.decide("rejected", "rejected")
    archive.decide("approved", "approved")
    archive.decide("changed", "approved")
    archive.decide("changed", "rejected")
    archive.seen("ran", MADE)
    assert pipeline.apply_retention(archive.shop.id, due - timedelta(days=1)).files == 0
    caplog.set_level(logging.INFO)
    purged = pipeline.apply_retention(archive.shop.id, due)
    assert (purged.files, purged.file_bytes) == (2, 18)
    assert "2 files of creatives that nobody approved" in str(purged)
    assert {name for name, path in files.items() if not path.exists()} == {"waited", "rejected"}
    assert secret.exists(), "a row that leads out of the folder deletes nothing"
    assert archive.kept("assets") == {*files, "sly"}, "what was rejected stays known by its content"


def test_a_second_run_equals_the_first_and_a_killed_one_is_finished(archive: Archive) -> None:
    page = archive.dossier("tea")
    archive.export("tea")
    archive.draw("tea")
    archive.plan("other", OVER)
    late = OVER + timedelta(days=1)
    page.unlink()  # a run that was killed after the first file
    first = pipeline.apply_retention(archive.shop.id, late)
    assert (first.dossiers, first.exports, first.files) == (1, 1, 1)
    assert not page.with_suffix(".json").exists()
    with warehouse(archive.shop) as engine:
        before = digests(engine)
    second = pipeline.apply_retention(archive.shop.id, late)
    assert (second.dossiers, second.exports, second.files) == (0, 0, 0)
    with warehouse(archive.shop) as engine:
        assert digests(engine) == before
