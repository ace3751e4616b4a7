"""Lines of Chinese and English break where a reader expects it, and nothing is drawn as an empty box."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from adloom.errors import AdloomError
from adloom.imagery.typesetting import clean, draw_line, ink_box, one_line, require_glyphs, runs, set_lines

CLOSING = "，。！？、；：）》」』”’…％%"
BODY = (
    "听说一位邮差穿过三座雾城送信，信里写了什么，要读到才知道。"
    "《雾港邮差》416页（精装），适合留给“不被打扰”的周末夜晚。"
)


@pytest.mark.parametrize("em", [5.3, 7.0, 9.6, 13.2, 16.0, 24.5])
def test_no_line_starts_with_closing_punctuation_or_ends_with_an_opening_one(em: float) -> None:
    lines = set_lines(BODY, "regular", "zh", em, 40, "body")
    assert lines is not None
    assert not [line.text for line in lines if line.text[0] in CLOSING or line.text[-1] in "（《「『"]
    assert "".join(line.text for line in lines) == BODY
    assert max(line.em for line in lines) <= em


@pytest.mark.parametrize("em", [6.5, 7.5, 8.5, 9.5, 10.5, 11.5])
def test_no_last_line_of_one_character_where_another_break_avoids_it(em: float) -> None:
    lines = set_lines("每天清晨都想多跑一圈的人都爱它啊", "regular", "zh", em, 6, "body")
    assert lines is not None
    assert len(lines[-1].text) > 1


@pytest.mark.parametrize(
    ("text", "em", "wanted"),
    [
        ("今晚等流星，也等一通来电", 8, ["今晚等流星，", "也等一通来电"]),
        ("清晨五公里，脚步很轻", 6.1, ["清晨五公里，", "脚步很轻"]),
        ("First snow. First clue.", 7, ["First snow.", "First clue."]),
        ("Set your next orbit for a drowned moon", 10, ["Set your next orbit", "for a drowned moon"]),
    ],
)
def test_a_headline_breaks_between_its_phrases(text: str, em: float, wanted: list[str]) -> None:
    lines = set_lines(text, "bold", "zh" if text > "z" else "en", em, 3, "headline")
    assert lines is not None
    assert [line.text for line in lines] == wanted


def test_a_number_stays_with_its_measure_word() -> None:
    lines = set_lines("每天跑五公里也不觉得累", "bold", "zh", 5.2, 4, "headline")
    assert lines is not None
    assert not [line.text for line in lines if line.text.endswith(("五", "每"))]


def test_a_number_stays_with_its_unit() -> None:
    lines = set_lines("Ceramides, no scent, 50 g. For dry skin.", "regular", "en", 10.2, 6, "body")
    assert lines is not None
    assert any("50 g." in line.text for line in lines)


def test_a_word_wider_than_the_line_does_not_fit_and_is_not_cut() -> None:
    assert set_lines("Donaudampfschifffahrt", "bold", "en", 5, 9, "headline") is None


def test_emoji_are_drawn_in_colour_and_sequences_stay_whole() -> None:
    assert runs("早安👩‍💻❤️☕", "bold") == (("bold", "早安"), ("emoji", "👩‍💻"), ("emoji", "❤️"), ("emoji", "☕"))
    image = Image.new("RGB", (120, 100), "white")
    draw_line(ImageDraw.Draw(image), one_line("❤️", "regular"), 10, 80, 72, (0, 0, 0))
    red, green, blue = image.getpixel((10 + 38, 50))  # type: ignore[misc]
    assert red > 150
    assert max(green, blue) < 100


def test_ink_stays_inside_the_box_that_is_reported() -> None:
    image = Image.new("L", (700, 200), 255)
    line = one_line("《雾港》jpg ¥68", "bold")
    draw_line(ImageDraw.Draw(image), line, 40, 120, 64, 0)  # type: ignore[arg-type]
    drawn = image.point(lambda value: 255 if value < 128 else 0).getbbox()
    box = ink_box(line, 64)
    assert drawn is not None
    reported = (40 + box[0], 120 + box[1], 40 + box[2], 120 + box[3])
    assert max(abs(seen - said) for seen, said in zip(drawn, reported, strict=True)) <= 2


def test_a_character_no_font_has_is_named() -> None:
    with pytest.raises(AdloomError, match=r"headline: no font draws ก \(U\+0E01"):
        require_glyphs("好ก", "bold", "headline")


@pytest.mark.parametrize("text", ["קפה טרי", "عرض اليوم", "safe\u202etxt"])
def test_text_from_right_to_left_is_refused_not_garbled(text: str) -> None:
    with pytest.raises(AdloomError, match=r"body: .*right to left"):
        clean(text, "body")


def test_invisible_characters_and_line_ends_do_not_reach_the_image() -> None:
    assert clean(" 好\u200b茶\n\tnow\ufeff\x07 ", "body") == "好茶 now"
