"""Each check lets a good banner pass and stops the one it is there for."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw, ImageFilter

from adloom.creative import Brief, Copy, Language
from adloom.errors import AdloomError
from adloom.imagery.checking import check, failed
from adloom.imagery.composing import Composed, compose, encode
from adloom.imagery.formats import image_format
from adloom.imagery.pictures import Picture

MOST = 500_000


@pytest.fixture(scope="module")
def good(banner_copy: Callable[[Language], tuple[Copy, Brief]], pictures: dict[str, Picture]) -> Composed:
    copy, brief = banner_copy("zh")
    return compose(copy, brief, pictures["cut_out"], image_format("feed_1080x1080"), "card", label="AI生成")


def _rules(composed: Composed, image: Image.Image | None = None, most: int = MOST) -> list[str]:
    content, _ = encode(image or composed.image, MOST)
    return [one.rule for one in failed(check(composed, content, most))]


def test_a_good_banner_passes_with_a_figure_for_every_rule(good: Composed) -> None:
    results = check(good, encode(good.image, MOST)[0], MOST)
    assert not failed(results)
    assert len(results) == len({one.rule for one in results}) == 11
    assert all(one.detail and one.as_json()["measured"] is not None for one in results)


def test_a_resized_file_is_stopped(good: Composed) -> None:
    assert _rules(good, good.image.resize((800, 800))) == ["size"]


def test_a_heavy_file_is_stopped(good: Composed) -> None:
    assert _rules(good, most=10_000) == ["weight"]


def test_a_product_that_was_painted_over_is_stopped(good: Composed) -> None:
    image = good.image.copy()
    ImageDraw.Draw(image).rectangle(good.subject, fill="white")
    assert "subject_unchanged" in _rules(good, image)


def test_a_washed_out_text_is_stopped(good: Composed) -> None:
    image = good.image.copy()
    box = good.of("headline")[0].box
    part = image.crop(box)
    image.paste(Image.blend(part, Image.new("RGB", part.size, "white"), 0.62), box)
    assert _rules(good, image) == ["contrast"]


def test_a_text_over_a_restless_ground_is_stopped(good: Composed) -> None:
    image = good.image.copy()
    left, top, right, bottom = good.of("headline")[0].box
    stripes = ImageDraw.Draw(image)
    for at in range(left - 6, right + 6, 24):
        stripes.rectangle((at, top - 6, at + 11, bottom + 6), fill="black")
    assert _rules(good, image) == ["contrast"]


def test_a_blurred_small_text_is_stopped(good: Composed) -> None:
    """Too small or too soft to read: its strokes no longer stand out, whatever colour was meant."""
    image = good.image.copy()
    box = good.of("body")[0].box
    image.paste(image.crop(box).filter(ImageFilter.GaussianBlur(7)), box)
    assert "contrast" in _rules(good, image)


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("label_height", {"height": 53}),
        ("text_height", {"size": 20}),
        ("safe_area", {"box": (20, 580, 220, 640)}),
    ],
)
def test_a_text_where_or_as_it_must_not_be_is_stopped(good: Composed, rule: str, change: dict[str, object]) -> None:
    drawn = tuple(replace(one, **change) if one.kind == "label" else one for one in good.drawn)  # type: ignore[arg-type]
    assert rule in _rules(replace(good, drawn=drawn))


def test_text_over_the_product_is_stopped(good: Composed) -> None:
    assert "subject_free" in _rules(replace(good, subject=(200, 100, 800, 700)))


def test_a_product_too_small_or_cut_off_is_stopped(good: Composed) -> None:
    assert "subject_size" in _rules(replace(good, subject=(500, 200, 620, 320)))
    assert "subject_inside" in _rules(replace(good, subject=(800, 50, 1200, 400)))


def test_a_missing_label_is_stopped(good: Composed) -> None:
    bare = replace(good, drawn=tuple(one for one in good.drawn if one.kind != "label"))
    assert _rules(bare) == ["label_height"]


def test_a_file_cut_short_is_an_error(good: Composed) -> None:
    stream = io.BytesIO()
    good.image.save(stream, "JPEG")
    with pytest.raises(AdloomError, match="cannot be opened again"):
        check(good, stream.getvalue()[:400], MOST)
