"""Normalised text: evasions become plain, and every span leads back to what the copy says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adloom.review.text import plain, squeezed


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ＢＬＵＥ　３０％", "blue 30%"),
        ("真\u200b丝", "真丝"),
        ("羊絨與藍色", "羊绒与蓝色"),
        ("㎏", "kg"),
        ("a\u202eb", "ab"),
    ],
)
def test_reads_what_a_reader_takes_as_the_same(written, read):
    assert plain(written).text == read


def test_a_span_is_the_original_with_what_was_hidden_in_it():
    normal = plain("采用真\u200b絲面料")
    start = normal.text.index("真丝")
    assert normal.span(start, start + 2) == "真\u200b絲"


@given(st.text(max_size=80))
def test_every_character_has_a_place_in_the_original(text):
    normal = plain(text)
    assert len(normal.text) == len(normal.origins)
    assert list(normal.origins) == sorted(normal.origins)
    assert normal.span(0, len(normal.text)) in text
    assert squeezed(squeezed(text)) == squeezed(text)
