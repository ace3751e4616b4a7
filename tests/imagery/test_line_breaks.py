"""Line breaks are those of UAX #14, although most of them are found without going through its rules."""

from __future__ import annotations

import random

import pytest
from uniseg.linebreak import line_break_units

from adloom.imagery.typesetting import legal_units

PIECES = [
    *"暖光不闪读书人，。！？（）《》“”：；、·…—",
    "5000",
    "12GB+256GB",
    "6.5",
    "%",
    "¥199",
    "iPhone",
    "USB-C",
    " ",
    " ",
    ". ",
]
PIECES += [
    "it's",
    "e-book",
    "ready",
    "to",
    "go",
    "(",
    ")",
    '"',
    "!",
    "?",
    ",",
    "/",
    "℃",
    "📚",
    "👨‍👩‍👧",
    "é",
    "http://a.b/c",
    "-",
    "–",
    "$9.90",
]


@pytest.mark.parametrize("seed", range(4))
def test_the_short_way_cuts_as_the_rules_do(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(60):
        text = "".join(draw.choice(PIECES) for _ in range(draw.randint(1, 24)))
        assert legal_units(text) == list(line_break_units(text)), text
