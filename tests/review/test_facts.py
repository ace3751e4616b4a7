"""The rules of fact: each goes red on what it is for and green on its exemption; claims are matched by meaning."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adloom.creative import Brief, Copy, CopyLimits, HotEvent, ItemFacts, Offer
from adloom.review import facts, lexicon

ROWS = lexicon.words("facts")["rules"]
LIMITS = CopyLimits(headline=30, body=200, call_to_action=20, hashtags=5)


def brief(language="zh", **changes):
    item = {
        "item_id": "i-1",
        "title": "轻云蓝牙耳机 Pro",
        "category": "数码/耳机",
        "brand": "轻云",
        "price": "¥199",
        "list_price": "¥299",
        "attributes": {"续航": "30小时", "颜色": "宝蓝", "佩戴": "入耳式"},
    } | changes.pop("item", {})
    values = {
        "scenario": "promotion",
        "language": language,
        "channel": "feed",
        "segment_id": "s",
        "segment_words": "喜欢红色连衣裙和真丝",
        "item": ItemFacts(**item),
        "limits": LIMITS,
    } | changes
    return Brief(**values)


def copy(body, headline="轻云耳机", call_to_action="去看看", hashtags=()):
    return Copy(headline=headline, body=body, call_to_action=call_to_action, hashtags=hashtags)


def found(text, *known, language="zh"):
    return [(one.rule_id, one.span) for one in facts.text_unsupported(text, known, language)]


def blocked(text, *known, language="zh"):
    return {one.span for one in facts.text_unsupported(text, known, language) if one.severity == "block"}


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_a_rule_finds_its_example(row):
    example = row["example"]
    assert (row["id"], example["span"]) in found(example["text"], *example["facts"], language=example["language"])


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_a_rule_leaves_its_exemption_alone(row):
    exempt = row["exemption"]
    names = [rule for rule, _ in found(exempt["text"], *exempt["facts"], language=exempt["language"])]
    assert row["id"] not in names


@pytest.mark.parametrize(
    "text",
    [
        "网红小白鞋同款，白领通勤的青春气息",
        "黑科技加持，绿茶清香",
        "银行柜员也爱的金属质感",
        "显白又衬肤色，穿出红毯气场",
        "蓝天白云下，青睐这份自在",
        "搭配一条黑色阔腿裤",
        "仿佛蓝色的大海",
        "棉花糖般的甜美",
    ],
)
def test_words_that_are_no_colour_or_material_of_the_item(text):
    assert blocked(text, "连衣裙") == set()


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("黑色裙身很显瘦", "黑色"),
        ("搭配白色纽扣", "白色"),
        ("蓝白条纹裙摆", "蓝白"),
        ("酒红长裙", "酒红"),
        ("一条黑裙", "黑"),
        ("ＷＩＮＥ色？不，是雾霾藍色的裙", "雾霾藍色"),
        ("白\u200b色的裙身", "白\u200b色"),
    ],
)
def test_a_colour_is_found_however_it_is_written(text, span):
    assert span in blocked(text, "连衣裙", "印花")


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("红色的裙身", "酒红色"),
        ("黑色的裙子", "小黑裙"),
        ("黑与白的格子，黑白相间", "千鸟格"),
        ("A navy blue shirt", "navy"),
        ("blue jacket", "蓝色"),
        ("organic cotton", "organic-cotton tee"),
        ("high waisted", "high-waisted"),
    ],
)
def test_a_wider_name_or_another_language_supports_a_colour(text, known):
    assert blocked(text, known, language="en" if text.isascii() else "zh") == set()


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("Wrapped in cream with a mint-coloured strap", {"cream", "mint"}),
        ("Green tea flavour for a golden hour with cream", set()),
        ("A red leather bag", {"red", "leather"}),
        ("Black Friday glass of wine", {"Black Friday"}),
        ("soft organic-cotton jersey with a linen-like drape", {"organic-cotton"}),
    ],
)
def test_english_words_are_colours_and_materials_only_where_they_mean_one(text, spans):
    assert blocked(text, "bag", language="en") == spans


@pytest.mark.parametrize(
    ("text", "known", "language"),
    [
        ("续航三十小时", "30小时", "zh"),
        ("续航1.5小时", "90分钟", "zh"),
        ("a thirty-hour battery", "30 h", "en"),
        ("holds 1,000 ml", "1 L", "en"),
        ("百分之五十羊毛", "50%羊毛", "zh"),
        ("一款百搭好物，第二层肌肤，一年四季都能穿，黄金身材", "上衣", "zh"),
        ("512GB storage", "512 gb", "en"),
    ],
)
def test_a_figure_is_the_same_in_any_spelling(text, known, language):
    assert blocked(text, known, language=language) == set()


@pytest.mark.parametrize(
    ("text", "span", "language"),
    [
        ("续航长达二十小时", "二十小时", "zh"),
        ("足足３００克", "３００克", "zh"),
        ("a 40-hour battery", "40-hour", "en"),
        ("含100%纯棉", "100%", "zh"),
        ("up to 256GB", "256GB", "en"),
    ],
)
def test_a_figure_without_a_fact_is_blocked(text, span, language):
    assert span in blocked(text, "30小时" if language == "zh" else "30 h battery", language=language)


@pytest.mark.parametrize(
    "body", ["到手199元", "比原价299元省100元", "只要￥199.00", "不到200元", "满300减40", "立省100", "八折起，8折"]
)
def test_prices_of_the_brief_and_what_follows_from_them_are_supported(body):
    offer = Offer(campaign_id="c", name="双11", text="满300减40，全场8折")
    assert facts.unsupported(copy(body), brief(offer=offer)) == []


@pytest.mark.parametrize(
    "body", ["只要99元", "$199带走", "满200减40", "五折", "买一送一", "双12价", "包邮", "截止11月12日"]
)
def test_another_price_offer_or_day_is_blocked(body):
    offer = Offer(campaign_id="c", name="双11", text="满300减40", starts_on="2025-11-01", ends_on="2025-11-11")
    assert [one for one in facts.unsupported(copy(body), brief(offer=offer)) if one.severity == "block"]


def test_the_words_of_the_segment_are_no_facts_about_the_item():
    spans = {one.span for one in facts.unsupported(copy("红色外壳，真丝收纳袋"), brief())}
    assert spans == {"红色", "真丝"}


def test_the_event_and_related_category_are_facts():
    event = HotEvent(event_id="e", title="流浪行星3上映", keywords=("国庆",))
    written = copy("国庆看流浪行星3，路上听个够")
    assert facts.unsupported(written, brief(event=event, scenario="hot_event")) == []


def test_every_part_is_read_and_named():
    written = copy("头戴式设计", headline="白色耳机", call_to_action="99元抢", hashtags=("AirPods平替",))
    parts = {one.part: one.rule_id for one in facts.unsupported(written, brief())}
    assert parts == {
        "headline": "facts.colour",
        "body": "facts.attribute",
        "call_to_action": "facts.price",
        "hashtags": "facts.brand",
    }


def test_a_form_that_contradicts_blocks_and_one_on_which_facts_are_silent_warns():
    contradicted = facts.text_unsupported("经典的圆领", ["翻领"], "zh")
    silent = facts.text_unsupported("经典的圆领", ["连衣裙"], "zh")
    assert [one.severity for one in contradicted] == ["block"]
    assert [one.severity for one in silent] == ["warn"]
    assert facts.text_unsupported("稍稍提高领口", ["翻领"], "zh") == []


@pytest.mark.parametrize(
    ("text", "values", "wanted"),
    [
        ("高腰的版型显腿长，圆领设计。", ["高腰", "圆领"], [True, True]),
        ("穿着很舒服。高腰、圆领、纯色。", ["高腰", "圆领", "纯色"], [False] * 3),
        ("穿着很舒服，高腰、圆领、纯色元素。", ["高腰", "圆领", "纯色"], [False] * 3),
        ("很好看，高腰设计，圆领设计，纯色设计。", ["高腰", "圆领", "纯色"], [False] * 3),
        ("V领剪裁显脖颈。", ["v领", "长袖"], [True, False]),
    ],
)
def test_an_attribute_counts_only_in_a_clause_with_other_words(text, values, wanted):
    assert facts.carried(text, values) == wanted


def test_coverage_counts_attribute_values_in_any_spelling():
    written = copy("续航三十小时，宝蓝色机身很亮眼")
    assert facts.coverage(written, brief()) == (2, 3)
    english = brief(language="en", item={"attributes": {"battery": "30 h battery", "fit": "soft ear cushions"}})
    assert facts.coverage(copy("Thirty hours of music, cushioned softly around each ear."), english) == (2, 2)


@settings(max_examples=150, deadline=None)
@given(
    st.text(
        alphabet=st.sampled_from("红黑白色棉真丝羊毛3十百万元¥$%折减满小时gb .,，。领袖圆v搭配像\u200b🙂\u202eＡ"),
        max_size=40,
    ),
    st.lists(st.text(max_size=12), max_size=4),
    st.sampled_from(["zh", "en"]),
)
def test_any_text_is_read_and_every_span_stands_in_it(text, known, language):
    for one in facts.text_unsupported(text, known, language):
        assert one.span
        assert one.span in text
        assert text[one.start :].startswith(one.span)
        assert one.rule_id in facts.rules()
    # Whatever a text says is supported by a fact that says the same.
    assert all(one.severity == "warn" for one in facts.text_unsupported(text, [text], language))


def test_an_unreadable_word_list_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lexicon, "HERE", tmp_path)
    (tmp_path / "colours.yml").write_text("a: [1", encoding="utf-8")
    lexicon.words.cache_clear()
    try:
        with pytest.raises(facts.lexicon.AdloomError, match=r"colours\.yml"):
            lexicon.words("colours")
    finally:
        lexicon.words.cache_clear()


def test_every_rule_says_why_and_by_what_source():
    for row in yaml.safe_load((lexicon.HERE / "facts.yml").read_text(encoding="utf-8"))["rules"]:
        assert all(row["reason"][language] for language in facts.LANGUAGES)
        assert row["source"]
        assert row["exemption"]["why"]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("返现50，快来", "facts.price"),
        ("99起，快来", "facts.price"),
        ("9.9包邮", "facts.price"),
        ("券后价99", "facts.price"),
        ("仅99，快来", "facts.price"),
        ("买二送一", "facts.offer"),
        ("加1元换购", "facts.offer"),
        ("终身质保", "facts.offer"),
        ("次日达", "facts.offer"),
        ("11/12截止", "facts.date"),
        ("11.12前下单", "facts.date"),
        ("12月底截止", "facts.date"),
        ("本周五截止", "facts.date_relative"),
        ("苹果同款音质", "facts.brand"),
        ("德国进口单元", "facts.origin"),
        ("日常防水", "facts.feature"),
    ],
)
def test_a_price_offer_date_brand_origin_or_feature_is_named_in_any_form(body, rule):
    offer = Offer(campaign_id="c", name="双11", text="满300减40", starts_on="2025-11-01", ends_on="2025-11-11")
    assert rule in {one.rule_id for one in facts.unsupported(copy(body), brief(offer=offer))}


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("half off", "facts.offer"),
        ("buy 2 get 1 free", "facts.offer"),
        ("next-day delivery", "facts.offer"),
        ("a 2-year warranty", "facts.offer"),
        ("save up to 40%", "facts.price"),
        ("save 50, now", "facts.price"),
        ("ends Nov 12", "facts.date"),
        ("on sale through December", "facts.date"),
        ("ends tonight", "facts.date_relative"),
        ("Apple-quality sound", "facts.brand"),
        ("made in Germany", "facts.origin"),
        ("a black case", "facts.colour"),  # Black Friday is no colour
    ],
)
def test_the_same_in_english(body, rule):
    offer = Offer(campaign_id="c", name="Black Friday", text="20% off", starts_on="2025-11-01", ends_on="2025-11-11")
    item = {"attributes": {"battery": "30 h", "colour": "navy"}, "title": "Aurelle earbuds", "price": "$79"}
    written = brief("en", offer=offer, item=item | {"list_price": "$99", "brand": "Aurelle", "category": "Audio"})
    assert rule in {one.rule_id for one in facts.unsupported(copy(body, "Aurelle", "Look"), written)}


@pytest.mark.parametrize(
    ("text", "known", "language"),
    [
        ("买二送一，买2送1", "买2送1", "zh"),
        ("终身质保，7天无理由退货", "终身质保 七天无理由退货", "zh"),
        ("11月截止，11.11前下单", "11月1日至11月11日", "zh"),
        ("Nov 11 or 11 November", "November 11, 2025", "en"),
        ("德国制造，进口单元", "产地 德国 进口", "zh"),
        ("防水，不防摔也没关系", "防水 IPX5", "zh"),
        ("有机会就去看看，看一天算一天", "耳机", "zh"),
        ("到手199，199带走", "¥199", "zh"),
        ("buy two, get one free", "Buy 2 get 1 free", "en"),
        ("Weekend in March, ready by June, German beer at home", "boots", "en"),
    ],
)
def test_what_the_facts_say_in_another_form_is_supported(text, known, language):
    assert found(text, known, language=language) == []


def test_a_feature_that_the_facts_deny_is_blocked():
    assert blocked("跑步也能防水", "防水 无") == {"防水"}
    assert blocked("不防水，但很轻", "防水 无") == set()
