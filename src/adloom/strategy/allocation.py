"""From posteriors to tomorrow's shares: Thompson sampling in daily batches, or top-two to decide faster.

Thompson sampling shows a creative as often as it is likely to be the best. Over a day's batch that probability *is* the
share, so it is integrated numerically instead of drawn: no seed, and a share moves only when evidence moves.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from adloom.shop import Algorithm
from adloom.strategy.posterior import Floats

UNITS = 1_000_000
"""Shares are whole millionths: they sum to 1 exactly and are stored and compared without rounding."""
FLOOR, FLOOR_TOTAL = 0.02, 0.2
"""Every creative keeps at least min(2 %, .2 / creatives) of its placement, so that no evidence is final."""
GRID_POINTS = 64
NARROW, NARROW_POINTS = 6, np.linspace(-4, 4, 17)
"""The grid is refined around so many creatives of highest mean, at so many deviations from it."""
TOP_TWO_LEADER = 0.5
"""Share of top-two traffic that goes to the leader; the rest goes to its likeliest challengers."""


def floor_share(creatives: int) -> float:
    """The least share of one of ``creatives``, in whole millionths rounded up."""
    # A hair is taken off before rounding up: .2 / 10 must stay 20,000 millionths in binary floating point too.
    return math.ceil(min(FLOOR, FLOOR_TOTAL / creatives) * UNITS - 1e-6) / UNITS


def probability_best(alpha: Floats, beta: Floats, points: int = GRID_POINTS) -> Floats:
    """Probability that each creative has the highest CTR of its placement; shape (..., creatives) in and out.

    ∫ f_k(x) Π_{j≠k} F_j(x) dx, with the exact mass of k in every cell of a grid. The grid covers the range in which the
    highest CTR can lie; it is even in √x, where Beta posteriors of rates have similar widths, and finer around the
    leaders, of which one may be known very well. The error is below
    .001 with `GRID_POINTS`, however differently sure the posteriors are (tested).
    """
    if alpha.shape[-1] == 1:
        return np.ones_like(alpha)
    mean = alpha / (alpha + beta)
    deviation = np.sqrt(mean * (1 - mean) / (alpha + beta + 1))
    low = np.sqrt(np.clip(mean - 5 * deviation, 0, 1).max(-1))[..., None]
    high = np.sqrt(np.clip(mean + 9 * deviation, 0, 1).max(-1))[..., None]
    even = (low + (high - low) * np.linspace(0, 1, points)) ** 2
    leaders = np.argsort(-mean, axis=-1, kind="stable")[..., :NARROW]
    around = (
        np.take_along_axis(mean, leaders, -1)[..., None]
        + np.take_along_axis(deviation, leaders, -1)[..., None] * NARROW_POINTS
    ).reshape(*mean.shape[:-1], -1)
    edges = np.sort(np.concatenate([even, np.clip(around, low**2, high**2)], axis=-1), axis=-1)
    below = special.betainc(alpha[..., None], beta[..., None], edges[..., None, :])
    below[..., 0], below[..., -1] = 0, 1
    mass = np.diff(below, axis=-1)
    middle = np.maximum((below[..., 1:] + below[..., :-1]) / 2, 1e-300)
    logs = np.log(middle)
    best = (mass * np.exp(logs.sum(-2, keepdims=True) - logs)).sum(-1)
    return best / best.sum(-1, keepdims=True)


def top_two(best: Floats) -> Floats:
    """Top-two Thompson sampling's shares from the probabilities of being best (Russo, arXiv 1602.08448).

    A leader is drawn; with probability 1 − `TOP_TWO_LEADER` another draw replaces it, repeated until it differs.
    """
    if best.shape[-1] == 1:
        return best
    best = np.maximum(best, 1e-30)
    odds = best / np.maximum(1 - best, 1e-12)
    # Summed from both sides: subtracting a near-certain leader's odds from the total would leave nothing of the rest.
    before, after = np.cumsum(odds, -1), np.cumsum(odds[..., ::-1], -1)[..., ::-1]
    others = np.zeros_like(odds)
    others[..., 1:] += before[..., :-1]
    others[..., :-1] += after[..., 1:]
    challenger = best * others
    challenger = challenger / challenger.sum(-1, keepdims=True)
    return TOP_TWO_LEADER * best + (1 - TOP_TWO_LEADER) * challenger


def target_shares(best: Floats, algorithm: Algorithm) -> Floats:
    """What the algorithm would show, before floor and cap."""
    return top_two(best) if algorithm == "top_two" else best


def closest_shares(target: Floats, low: Floats, high: Floats) -> Floats:
    """The shares nearest to ``target`` (least squares) that sum to 1 and lie within [low, high].

    All have shape (..., creatives); Σ low ≤ 1 ≤ Σ high must hold. The solution is clip(target + shift, low, high) with
    one shift for all, found by bisection.
    """
    down, up = np.full(target.shape[:-1], -1.0), np.ones(target.shape[:-1])
    for _ in range(52):
        shift = (down + up) / 2
        too_much = np.clip(target + shift[..., None], low, high).sum(-1) > 1
        up, down = np.where(too_much, shift, up), np.where(too_much, down, shift)
    return np.clip(target + ((down + up) / 2)[..., None], low, high)


def next_shares(target: Floats, before: Floats, max_change: float) -> Floats:
    """Tomorrow's shares: as near to ``target`` as the floor and the daily cap on change allow.

    ``before`` are today's shares of the same creatives; a creative that is new has 0 there and enters at the floor,
    what left is given to the others. Shape (..., creatives); not yet rounded, see `whole_shares`.
    """
    floor = np.full_like(target, floor_share(target.shape[-1]))
    today = closest_shares(before, floor, np.ones_like(target))
    return closest_shares(target, np.maximum(floor, today - max_change), np.minimum(1.0, today + max_change))


def whole_shares(shares: Floats) -> Floats:
    """Rounded to whole millionths that sum to 1 (largest remainder; ties go to the first). Shape (creatives,)."""
    exact = shares * UNITS
    units = np.floor(exact + 1e-6).astype(np.int64)
    order = np.argsort(-np.round(exact - units, 6), kind="stable")
    units[order[: UNITS - int(units.sum())]] += 1
    return units / UNITS


def uniform_shares(creatives: int) -> Floats:
    """The reference policy: every creative alike, in whole millionths."""
    return whole_shares(np.full(creatives, 1 / creatives))
