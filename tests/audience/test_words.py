"""The portrait as words: natural in both languages, and never an id, a rare value or foreign markup."""

from __future__ import annotations

import random
import unicodedata

import pytest

from adloom.audience.words import Content, Named, clean, is_name, named_category, named_item, words

FICTION = named_category({"zh": "图书/科幻小说", "en": "Books/Science fiction"})
PHONES = named_category({"zh": "数码/降噪耳机", "en": "Electronics/Noise-cancelling headphones"})


def test_a_book_is_set_in_the_marks_of_one() -> None:
    book = named_item({"zh": "《潮汐邮局》", "en": "The Tidal Post Office"}, FICTION)
    assert words(Content(interests=[FICTION], recent_items=[book])) == {
        "zh": "喜欢科幻小说，最近浏览了《潮汐邮局》",
        "en": "into science fiction, recently looked at “The Tidal Post Office”",
    }


def test_other_things_are_named_as_things_with_price_level_and_life_cycle() -> None:
    item = named_item({"zh": "云听 Pro 降噪耳机", "en": "Yunting Pro headphones"}, PHONES)
    content = Content(interests=[PHONES], recent_items=[item], price_level="value", life_cycle="lapsing")
    assert words(content) == {
        "zh": "关注降噪耳机，最近浏览了“云听 Pro 降噪耳机”，看重性价比，有一阵子没来了",
        "en": "interested in noise-cancelling headphones, recently looked at “Yunting Pro headphones”, "
        "looks for good value, has not been in for a while",
    }


def test_a_shop_without_names_speaks_of_behaviour_and_says_so() -> None:
    nameless = named_category({"zh": "4756105", "en": None})
    assert words(Content(interests=[nameless], kept_tenths=6, bought_tenths=1, life_cycle="active")) == {
        "zh": "常加购，很少下单，近期活跃（只依据行为）",
        "en": "often adds to cart, rarely buys, recently active (known by behaviour only)",
    }


def test_of_what_has_no_english_name_english_says_nothing() -> None:
    category = named_category({"zh": "图书/科幻小说", "en": None})
    item = named_item({"zh": "《潮汐邮局》", "en": None}, category)
    assert words(Content([category], [item])) == {"zh": "喜欢科幻小说，最近浏览了《潮汐邮局》", "en": ""}


def test_nothing_known_is_nothing_said() -> None:
    assert words(Content()) == {"zh": "", "en": ""}


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("A\x00B\u202eC\ufeff D\n\tE", "ABC D E"),
        ("<b onclick=x>Kettle</b> {{ secrets }}", "Kettle secrets"),
        ("“Quoted” 《Title》", "Quoted Title"),
        ("word " * 40, "word word word word word…"),
        ("字" * 10_000, "字" * 29 + "…"),
    ],
)
def test_titles_are_cleaned_and_cut(title: str, said: str) -> None:
    assert clean(title, 30) == said


@pytest.mark.parametrize(
    "text", ["", "12", "4756105", "SKU-20240311-88", "9f86d081884c7d659a2feaa0c55ad015", "!!!", "13800138000号"]
)
def test_numbers_and_keys_are_no_names(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["1984", "2666"])
def test_a_title_of_digits_alone_is_left_out_rather_than_taken_for_an_id(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", ["T恤", "5G 手机", "Catch-22", "Wi-Fi 6 router", "100 支彩笔", "Fahrenheit 451"])
def test_names_with_numbers_are_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_shop_writes_the_words_stay_one_short_line(seed: int) -> None:
    chance = random.Random(seed)
    signs = "".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(60)) + '<>{}[]`"“”《》\n\r\t\u202e\u2066\x1b[31m'
    for _ in range(100):
        title = "".join(chance.choice(signs) for _ in range(chance.randrange(0, 400)))
        category = named_category({"zh": title[:50], "en": title[50:90]})
        said = words(Content([category], [named_item({"zh": title, "en": title}, category)], "value", "new", 5, 5))
        for text in said.values():
            assert len(text) < 250
            assert not [one for one in text if unicodedata.category(one)[0] == "C"]
            assert not set(text) & set('<>{}[]`"\n')
            assert text.count("《") == text.count("》") <= 1


def test_the_same_name_twice_is_said_once() -> None:
    one = Named({"zh": "茶", "en": "tea"}, is_pastime=True)
    assert words(Content([one, one]))["en"] == "into tea"
