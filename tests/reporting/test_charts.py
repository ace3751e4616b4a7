"""Where marks go: on one scale, inside the picture, labels apart."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from adloom.reporting import charts
from adloom.reporting.charts import Estimate, Series

DAYS = [date(2024, 2, 27) + timedelta(days=offset) for offset in range(7)]


def estimate(value: float, spread: float = 0.002) -> Estimate:
    return Estimate(1000, round(1000 * value), value, max(0.0, value - spread), value + spread)


@given(st.floats(min_value=1e-6, max_value=1.0))
def test_ticks_are_round_and_reach_over_the_largest_value(largest: float) -> None:
    ticks = charts.nice_ticks(largest)
    assert ticks[0] == 0
    assert ticks[-1] >= largest * (1 - 1e-9)
    assert ticks[-2] < largest
    assert 2 <= len(ticks) <= 6


def test_a_higher_rate_stands_higher_in_every_panel() -> None:
    panels = [
        [Series("a", 0, tuple(estimate(0.004) for _ in DAYS), estimate(0.004))],
        [Series("a", 0, tuple(estimate(0.008) for _ in DAYS), estimate(0.008))],
    ]
    ticks = charts.shared_ticks(panels)
    low, high = (charts.draw_panel(series, DAYS, ticks) for series in panels)
    assert low.y_ticks == high.y_ticks
    assert low.series[0].marks[0].y > high.series[0].marks[0].y


def test_an_interval_beyond_the_picture_is_cut_and_marked() -> None:
    thin = Estimate(10, 0, 0.0, 0.0, 0.28)
    days = (thin, *(estimate(0.004) for _ in DAYS[1:]))
    panel = charts.draw_panel([Series("a", 0, days, estimate(0.004))], DAYS, charts.nice_ticks(0.01))
    assert [mark.is_clipped for mark in panel.series[0].marks] == [True] + [False] * 6
    assert panel.series[0].marks[0].high_y == panel.y_ticks[-1].at


def test_a_day_without_impressions_leaves_a_gap() -> None:
    days = (estimate(0.004), None, *(estimate(0.004) for _ in DAYS[2:]))
    panel = charts.draw_panel([Series("a", 0, days, None)], DAYS, charts.nice_ticks(0.01))
    assert [mark.day for mark in panel.series[0].marks] == [DAYS[0], *DAYS[2:]]


def test_months_are_named_where_they_begin() -> None:
    panel = charts.draw_panel([Series("a", 0, (None,) * 7, None)], DAYS, charts.nice_ticks(0.01))
    assert [tick.day for tick in panel.day_ticks if tick.has_month] == [date(2024, 2, 27), date(2024, 3, 1)]


@settings(max_examples=50)
@given(st.lists(st.floats(min_value=0.0005, max_value=0.02), min_size=1, max_size=4))
def test_labels_never_overlap_and_stay_inside(values: list[float]) -> None:
    series = [Series(str(index), index, (None,) * 7, estimate(value)) for index, value in enumerate(values)]
    panel = charts.draw_panel(series, DAYS, charts.shared_ticks([series]))
    heights = sorted(one.label_y for one in panel.series)
    assert all(below - above >= charts.LABEL_HEIGHT - 0.2 for above, below in pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] <= panel.bottom_y
