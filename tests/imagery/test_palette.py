"""Colours come from the picture, suit the segment, and can always be read."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from adloom.imagery.palette import contrast, palette, readable, style_of, styles, to_oklch
from adloom.imagery.pictures import Picture

CHANNEL = st.integers(0, 255)
COLOUR = st.tuples(CHANNEL, CHANNEL, CHANNEL)
PAIRS = [
    ("ink", "paper"), ("ink", "ground"), ("ink", "white"), ("muted", "paper"), ("muted", "white"), ("strong", "white"),
    ("on_accent", "accent"), ("white", "deep"), ("tint", "deep"), ("ground", "deep"),
]  # fmt: skip


def _picture(folder: Path, colour: str, ground: str = "white") -> Picture:
    image = Image.new("RGB", (400, 400), ground)
    ImageDraw.Draw(image).ellipse((80, 80, 320, 320), fill=colour)
    path = folder / f"{colour.strip('#')}_{ground.strip('#')}.png"
    image.save(path)
    return Picture(path, "item 1", "own_photo")


@settings(deadline=None)
@given(COLOUR, COLOUR)
def test_any_colour_becomes_readable_on_any_other(colour: tuple[int, int, int], behind: tuple[int, int, int]) -> None:
    assert contrast(readable(colour, (behind,), 4.5), (behind,)) >= 4.5


@pytest.mark.parametrize("style", list(styles()))
@pytest.mark.parametrize(
    "colour", ["#d02020", "#f5c518", "#1e9e50", "#2040c0", "#e889b0", "#777777", "#101010", "#f8f8f8"]
)
def test_every_pair_of_roles_that_templates_use_is_readable(tmp_path: Path, colour: str, style: str) -> None:
    tones = palette(_picture(tmp_path, colour), style)
    least = {pair: contrast(readable(tones[pair[0]], (tones[pair[1]],)), (tones[pair[1]],)) for pair in PAIRS}
    assert min(least.values()) >= 4.5, least


@pytest.mark.parametrize(("colour", "degrees"), [("#d02020", 27), ("#2040c0", 266), ("#1e9e50", 152)])
def test_the_accent_has_the_hue_of_the_product_not_of_its_ground(tmp_path: Path, colour: str, degrees: int) -> None:
    _, chroma, hue = to_oklch(palette(_picture(tmp_path, colour, "#fff4d0"), "natural")["accent"])
    away = (math.degrees(hue) - degrees + 180) % 360 - 180
    assert chroma > 0.08
    assert abs(away) < 15


def test_yellow_stays_bright_and_dark_text_stands_on_it(tmp_path: Path) -> None:
    tones = palette(_picture(tmp_path, "#f5c518"), "value")
    assert to_oklch(tones["accent"])[0] > 0.75
    assert to_oklch(tones["on_accent"])[0] < 0.4


def test_a_segment_that_prefers_premium_is_addressed_more_quietly(tmp_path: Path) -> None:
    picture = _picture(tmp_path, "#d02020")
    quiet, loud = (to_oklch(palette(picture, style)["accent"])[1] for style in ("premium", "value"))
    assert quiet < 0.7 * loud
    assert style_of("喜欢科幻小说，偏爱高端款") == style_of("into crime novels, prefers premium") == "premium"
    assert style_of("") == next(iter(styles()))
