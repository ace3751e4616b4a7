"""The real ad logs through landing → dbt → evaluate: published counts, published intervals, and no winner."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from sqlalchemy import Connection, select

from adloom import pipeline
from adloom.settings import CHECKOUT
from adloom.shop import load_shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

LAST = date(2019, 11, 30)

# Clicks of 10,000 impressions each and their Wilson 95 % interval.
PUBLISHED = {
    ("all", "random"): (38, 0.002770, 0.005211),
    ("all", "bts"): (42, 0.003109, 0.005672),
    ("men", "random"): (46, 0.003451, 0.006130),
    ("men", "bts"): (69, 0.005456, 0.008722),
    ("women", "random"): (46, 0.003451, 0.006130),
    ("women", "bts"): (46, 0.003451, 0.006130),
}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLOOM_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("ADLOOM_SHOPS_DIR", str(CHECKOUT / "shops"))
        pipeline.ingest("zozotown", LAST)
        pipeline.build("zozotown", LAST)
        pipeline.evaluate("zozotown", LAST)
        with warehouse(load_shop("zozotown")) as engine, engine.connect() as connection:
            yield connection


def test_counts_and_intervals_are_the_published_ones(evaluated: Connection) -> None:
    rates = ledger.evaluations
    rows = evaluated.execute(
        select(rates).where(rates.c.day == LAST, rates.c.grain == "policy", rates.c.window_days == 7)
    ).all()
    assert {(row.campaign_id, row.policy_id): (row.impressions, row.clicks) for row in rows} == {
        key: (10_000, clicks) for key, (clicks, _, _) in PUBLISHED.items()
    }
    for row in rows:
        _, low, high = PUBLISHED[row.campaign_id, row.policy_id]
        assert row.ctr == row.clicks / 10_000
        assert row.ctr_interval == "wilson"
        assert row.ctr_low == pytest.approx(low, abs=1e-5)
        assert row.ctr_high == pytest.approx(high, abs=1e-5)
        # No conversion is logged: nothing is said about CR, rather than 0 %.
        assert row.cr is None or row.cr == 0
        assert not row.is_mature


def test_no_campaign_has_a_winner_and_each_says_how_much_is_missing(evaluated: Connection) -> None:
    verdicts = evaluated.execute(select(ledger.verdicts).where(ledger.verdicts.c.day == LAST)).all()
    assert {row.campaign_id: row.verdict for row in verdicts} == dict.fromkeys(("all", "men", "women"), "needs_more")
    for row in verdicts:
        assert row.winner is None
        assert row.needed_more > 0
        assert row.difference_low < 0 < row.difference_high
        assert row.sample_ratio_p is None, "no split was intended"
        assert f"{row.successes_a:,}" in row.sentence
        assert f"{row.successes_b:,}" in row.sentence


def test_overall_is_the_ratio_of_sums(evaluated: Connection) -> None:
    """Not the mean of six ratios, nor of 160: for men / bts that would say .362 % instead of .690 %."""
    rates = ledger.evaluations
    overall = evaluated.execute(
        select(rates).where(rates.c.day == LAST, rates.c.grain == "overall", rates.c.window_days == 7)
    ).one()
    assert (overall.impressions, overall.clicks) == (60_000, 287)
    assert overall.ctr == pytest.approx(287 / 60_000)
