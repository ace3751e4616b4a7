"""A banner shows what brief and copy hold, nothing else, and shows it properly in every format and template."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adloom.copywriting.starter import starter_pairs
from adloom.creative import Brief, Copy, Language
from adloom.errors import AdloomError, UsageError
from adloom.imagery import composing
from adloom.imagery.checking import check, failed
from adloom.imagery.composing import Composed, compose, encode
from adloom.imagery.formats import channel_images, formats, image_format
from adloom.imagery.pictures import Picture
from adloom.imagery.templates import body_size, missing, templates

Made = Callable[[Language], tuple[Copy, Brief]]
SQUARE = image_format("feed_1080x1080")
LABEL = {"zh": "AI生成", "en": "AI-generated"}


def _brief(brief: Brief, **changes: Any) -> Brief:
    item = {name: changes.pop(name) for name in ("brand", "price", "list_price") if name in changes}
    return brief.model_copy(update={**changes, "item": brief.item.model_copy(update=item)})


def _said(composed: Composed) -> str:
    return "".join(one.text for one in composed.drawn).replace(" ", "").replace("→", "")


@pytest.mark.parametrize("size", formats(), ids=lambda one: one.name)
@pytest.mark.parametrize("name", sorted(templates()))
def test_every_template_passes_every_check_in_every_format(
    name: str, size: Any, banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    for number, picture in enumerate(pictures.values()):
        language: Language = "zh" if number % 2 else "en"
        copy, brief = banner_copy(language)
        composed = compose(copy, brief, picture, size, name, label=LABEL[language])
        content, _ = encode(composed.image, 500_000)
        assert not failed(check(composed, content, 500_000)), picture.name


def test_all_the_copy_and_the_facts_are_on_the_banner_and_nothing_else(
    banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    composed = compose(copy, brief, pictures["cut_out"], SQUARE, "split", label="AI生成")
    assert brief.offer is not None
    facts = [
        brief.item.brand,
        copy.headline,
        copy.body,
        brief.offer.text,
        "¥168",
        "¥198",
        copy.call_to_action,
        "AI生成",
    ]
    assert sorted(_said(composed)) == sorted("".join(facts).replace(" ", ""))
    assert composed.left_out == ()


@pytest.mark.parametrize(("name", "field"), [("catalogue", "price"), ("poster", "offer")])
def test_a_field_the_template_needs_is_named_and_never_made_up(
    name: str, field: str, banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    bare = _brief(brief, price="", list_price="", offer=None)
    with pytest.raises(AdloomError, match=rf"template {name} needs {field}, which the brief of item i1 lacks"):
        compose(copy, bare, pictures["cut_out"], SQUARE, name, label="AI生成")


def test_what_the_brief_lacks_leaves_no_trace(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    bare = _brief(brief, brand="", price="", list_price="", offer=None)
    composed = compose(copy, bare, pictures["cut_out"], SQUARE, label="AI生成")
    assert {one.kind for one in composed.drawn} == {"headline", "body", "action", "label"}
    assert composed.template not in ("catalogue", "poster")


def test_a_price_that_is_not_reduced_is_not_struck(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    composed = compose(copy, _brief(brief, list_price="¥168"), pictures["cut_out"], SQUARE, "split", label="AI生成")
    assert not composed.of("list_price")


def test_a_banner_without_ai_label_is_refused(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    with pytest.raises(AdloomError, match="label is empty"):
        compose(copy, brief, pictures["cut_out"], SQUARE, "split", label=" ")


@pytest.mark.parametrize("size", formats(), ids=lambda one: one.name)
def test_a_headline_of_500_characters_is_refused(size: Any, banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    long = copy.model_copy(update={"headline": "很长的标题，" * 84})
    with pytest.raises(AdloomError, match="headline of 504 characters does not fit"):
        compose(long, brief, pictures["cut_out"], size, label="AI生成")


def test_a_body_is_shown_whole_or_left_out_and_said_so(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    long = copy.model_copy(update={"body": "满三百减四十，仅限十月前三天。" * 20})
    composed = compose(long, brief, pictures["cut_out"], SQUARE, "split", label="AI生成")
    assert composed.left_out == ("body",)
    assert not composed.of("body")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline": "好ก货"}, r"headline: no font draws ก"),
        ({"call_to_action": "קנו עכשיו"}, "action: .*right to left"),
    ],
)
def test_what_cannot_be_set_is_refused_by_field(
    changes: dict[str, str], message: str, banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    with pytest.raises(AdloomError, match=message):
        compose(copy.model_copy(update=changes), brief, pictures["cut_out"], SQUARE, label="AI生成")


@pytest.mark.parametrize("name", ["photo", "backdrop"])
def test_the_photo_is_scaled_and_placed_but_never_altered(
    name: str, banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("en")
    picture = pictures[name]
    composed = compose(copy, brief, picture, SQUARE, "split", label="AI-generated")
    subject = picture.subject or (0, 0, *picture.image.size)
    own = picture.image.crop(subject).resize((64, 64), Image.Resampling.BOX)
    shown = composed.image.crop(composed.subject).resize((64, 64), Image.Resampling.BOX)
    assert np.abs(np.asarray(own, np.int16) - np.asarray(shown, np.int16)).mean() < 4


def test_same_input_same_bytes_whatever_was_made_before(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    def banner(picture: Picture) -> bytes:
        copy, brief = banner_copy("en")
        return encode(compose(copy, brief, picture, SQUARE, label="AI-generated").image, 500_000)[0]

    first = banner(pictures["photo"])
    banner(pictures["cut_out"])
    opened_again = Picture(pictures["photo"].path, pictures["photo"].name, "own_photo")
    assert banner(opened_again) == first


def test_copies_of_one_brief_do_not_all_get_the_same_design(banner_copy: Made, pictures: dict[str, Picture]) -> None:
    copy, brief = banner_copy("zh")
    plain = _brief(brief, offer=None, scenario="recommendation")
    copies = [copy.model_copy(update={"headline": f"第{number}种甜，先分你一半"}) for number in "一二三四五六七八"]
    designs = {compose(one, plain, pictures["cut_out"], SQUARE, label="AI生成").template for one in copies}
    assert len(designs) >= 2


def test_every_channel_of_both_languages_has_formats() -> None:
    from adloom.creative import channels

    for language in ("zh", "en"):
        for name in channels(language):
            assert channel_images(name).formats
    with pytest.raises(UsageError, match="channel fax has no image formats"):
        channel_images("fax")


def test_a_file_too_large_for_its_channel_is_saved_with_lower_quality_or_refused() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (720, 1280, 3), dtype=np.uint8))
    content, quality = encode(noise, 500_000)
    assert len(content) <= 500_000
    assert quality < 92
    with pytest.raises(AdloomError, match="its channel takes 50,000"):
        encode(noise, 50_000)


# --- long copies ----------------------------------------------------------------------------------------------------


def test_bodies_within_their_channels_limits_are_shown_whole_in_every_design_that_has_one() -> None:
    """Every 20th copy of the starter corpus; text alone is measured, nothing painted."""
    counts: dict[tuple[str, str, str], list[int]] = {}
    for language in ("zh", "en"):
        for pair in starter_pairs(language)[::20]:
            words = composing._words(pair.copy_, pair.brief, LABEL[language])
            for size, design in product(channel_images(pair.brief.channel).formats, templates().values()):
                layouts = [one for one in (design.layouts.get(size.shape), design.roomy.get(size.shape)) if one]
                if missing(design, pair.brief) or not body_size(layouts[0]):
                    continue
                plans = [composing._measured(design, one, words, size) for one in layouts]
                shown = counts.setdefault((language, size.name, design.id), [0, 0])
                shown[0] += any(not one.left_out for one in plans)
                shown[1] += 1
    assert len(counts) >= 28
    few = {key: value for key, value in counts.items() if value[0] < 0.85 * value[1]}
    assert not few


def test_a_long_body_gets_more_room_and_the_product_stays_large(
    banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    long = copy.model_copy(update={"body": "六枚装，莲蓉与豆沙各三枚，外盒可以当作首饰盒。" * 4})
    usual, roomy = (compose(one, brief, pictures["backdrop"], SQUARE, "card", label="AI生成") for one in (copy, long))
    assert roomy.left_out == ()
    assert "".join(one.text for one in roomy.of("body")) == long.body
    assert min(one.size for one in roomy.of("body")) >= 0.027 * 1080
    assert _share(usual) > _share(roomy) >= 0.05


def test_a_design_that_has_no_room_for_the_body_gives_way_to_one_that_has(
    banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    story = image_format("story_1080x1920")
    plain = _brief(brief, offer=None, scenario="recommendation")
    for number in range(6):
        long = copy.model_copy(
            update={"headline": f"第{number}种甜", "body": "外盒可以当首饰盒，莲蓉与豆沙各三枚。" * 8}
        )
        assert compose(long, plain, pictures["backdrop"], story, label="AI生成").left_out == ()


def _share(composed: Composed) -> float:
    left, top, right, bottom = composed.subject
    return (right - left) * (bottom - top) / (composed.format.width * composed.format.height)


def test_hashtags_belong_to_the_posts_text_and_not_to_the_picture(
    banner_copy: Made, pictures: dict[str, Picture]
) -> None:
    copy, brief = banner_copy("zh")
    tagged = copy.model_copy(update={"hashtags": ("中秋礼盒", "月饼")})
    said = _said(compose(tagged, brief, pictures["cut_out"], SQUARE, "split", label="AI生成"))
    assert "#" not in said
    assert "中秋礼盒" not in said
