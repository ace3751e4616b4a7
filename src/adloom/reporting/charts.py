"""Where the marks of a picture go: numbers in, coordinates out. The template draws them as SVG.

Drawn here and not by a plotting library, so that text is the page's own (escaped, in any script), marks have
titles a screen reader reads, and the same numbers are the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8F4E8B")
"""Okabe and Ito's colours, told apart by readers with any colour vision; shapes repeat the difference."""
SHAPES = ("circle", "square", "triangle", "diamond")

PANEL_WIDTH, PANEL_HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 84, 12, 38
TOTAL_GAP = 26
LABEL_HEIGHT = 14


@dataclass(frozen=True)
class Estimate:
    """A rate with its counts and interval."""

    trials: int
    successes: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """One policy: what each day showed (None: nothing) and the whole window."""

    name: str
    index: int
    """its colour and shape, the same in every panel"""
    days: tuple[Estimate | None, ...]
    total: Estimate | None


@dataclass(frozen=True)
class Mark:
    """One estimate, drawn: a line from ``low_y`` up to ``high_y`` and a shape at ``y``."""

    x: float
    y: float
    low_y: float
    high_y: float
    is_clipped: bool
    estimate: Estimate
    day: date | None


@dataclass(frozen=True)
class DrawnSeries:
    name: str
    index: int
    colour: str
    shape: str
    marks: tuple[Mark, ...]
    total: Mark | None
    label_y: float


@dataclass(frozen=True)
class Tick:
    at: float
    value: float


@dataclass(frozen=True)
class DayTick:
    x: float
    day: date
    is_labelled: bool
    has_month: bool


@dataclass(frozen=True)
class Panel:
    """Small multiple of one campaign; all panels of a page share ``y_max``."""

    series: tuple[DrawnSeries, ...]
    y_ticks: tuple[Tick, ...]
    day_ticks: tuple[DayTick, ...]
    divider_x: float
    total_x: float
    width: int = PANEL_WIDTH
    height: int = PANEL_HEIGHT
    left: int = LEFT
    bottom_y: int = PANEL_HEIGHT - BOTTOM


def nice_ticks(largest: float, wanted: int = 4) -> tuple[float, ...]:
    """Round values from 0 to at least ``largest``, about ``wanted`` steps of 1, 2, 2.5 or 5 × 10ⁿ."""
    if largest <= 0:
        return (0.0, 0.01)
    rough = largest / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return tuple(round(index * step, 12) for index in range(math.ceil(largest / step - 1e-9) + 1))


def shared_ticks(panels: Sequence[Sequence[Series]]) -> tuple[float, ...]:
    """One scale for all panels: every dot and every window's interval fits; a thin day's interval may not."""
    tops = [one.value for panel in panels for series in panel for one in series.days if one is not None]
    tops += [series.total.high for panel in panels for series in panel if series.total is not None]
    return nice_ticks(1.3 * max(tops, default=0.0))


def draw_panel(series: Sequence[Series], days: Sequence[date], ticks: Sequence[float]) -> Panel:
    """Coordinates of one panel; estimates of the same day stand side by side."""
    y_max = ticks[-1]
    bottom = PANEL_HEIGHT - BOTTOM
    total_x = PANEL_WIDTH - RIGHT
    divider = total_x - TOTAL_GAP / 2 - 4
    step = (divider - LEFT) / max(len(days), 1)
    spread = min(9.0, 0.6 * step / max(len(series), 1))

    def y(value: float) -> float:
        return round(bottom - (bottom - TOP) * min(value, y_max) / y_max, 1)

    def mark(estimate: Estimate, x: float, day: date | None) -> Mark:
        clipped = estimate.high > y_max
        return Mark(round(x, 1), y(estimate.value), y(estimate.low), y(estimate.high), clipped, estimate, day)

    drawn = []
    for index, one in enumerate(series):
        offset = spread * (index - (len(series) - 1) / 2)
        marks = tuple(
            mark(estimate, LEFT + step * (place + 0.5) + offset, day)
            for place, (day, estimate) in enumerate(zip(days, one.days, strict=True))
            if estimate is not None
        )
        total = None if one.total is None else mark(one.total, total_x + 1.4 * offset, None)
        drawn.append((one.name, marks, total))
    label_ys = _apart([bottom if total is None else total.y for _, _, total in drawn], LABEL_HEIGHT, TOP + 4, bottom)
    every = math.ceil(len(days) / 8)
    return Panel(
        series=tuple(
            DrawnSeries(name, index, COLOURS[index], SHAPES[index], marks, total, label_y)
            for (name, marks, total), label_y, index in zip(drawn, label_ys, (one.index for one in series), strict=True)
        ),
        y_ticks=tuple(Tick(y(value), value) for value in ticks),
        day_ticks=tuple(
            DayTick(
                round(LEFT + step * (place + 0.5), 1),
                day,
                (len(days) - 1 - place) % every == 0,
                place == 0 or day.month != days[place - 1].month,
            )
            for place, day in enumerate(days)
        ),
        divider_x=round(divider, 1),
        total_x=total_x,
    )


def _apart(wanted: Sequence[float], gap: float, lowest: float, highest: float) -> list[float]:
    """Heights as near to ``wanted`` as ``gap`` between neighbours allows, inside ``lowest`` … ``highest``."""
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    placed = [0.0] * len(wanted)
    before = -math.inf
    for index in order:
        placed[index] = before = max(wanted[index], before + gap, lowest)
    after = math.inf
    for index in reversed(order):
        placed[index] = after = min(placed[index], after - gap, highest)
    return [round(value, 1) for value in placed]


@dataclass(frozen=True)
class Bar:
    """A horizontal interval on a scale of 0 … 100."""

    low: float
    value: float
    high: float


def interval_bar(estimate: Estimate, largest: float) -> Bar:
    """Where an interval lies between 0 and ``largest``, in per cent of the width."""
    scale = 100 / largest if largest > 0 else 0.0
    return Bar(round(estimate.low * scale, 1), round(estimate.value * scale, 1), round(estimate.high * scale, 1))
