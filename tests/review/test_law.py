"""Advertising law as rules: each tier goes red, and green by evidence or exemption; no spelling slips through."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text as sql

from adloom.creative import Brief, Copy, CopyLimits, HotEvent, ItemFacts, Offer
from adloom.errors import AdloomError, UsageError
from adloom.review import Evidence, law, read_evidence
from adloom.review.rules import HERE, compiled, read_file, rule_set
from adloom.rule import Claim, RuleFile
from adloom.shop import load_shop
from adloom.warehouse.engine import warehouse

DAY = date(2025, 11, 5)
SHOWN = DAY + timedelta(days=1)
LIMITS = CopyLimits(headline=60, body=300, call_to_action=30, hashtags=5)
RULES = [(language, one.rule) for language in ("zh", "en") for one in rule_set("law", language).rules]
OFFER = Offer(
    campaign_id="c", name="双11", text="满300减40", starts_on=DAY - timedelta(days=2), ends_on=SHOWN + timedelta(days=2)
)


def brief(language="zh", offer=None, event=None, **item):
    facts = {"item_id": "i-1", "title": "轻云蓝牙耳机", "attributes": {"颜色": "宝蓝"}} | item
    return Brief(
        scenario="promotion" if offer else "recommendation",
        language=language,
        channel="feed",
        segment_id="all",
        item=ItemFacts(**facts),
        offer=offer,
        event=event,
        limits=LIMITS,
    )


def found(text, language="zh", order=None, evidence=None, shop=None):
    order = order or brief(language)
    copy = Copy(headline="一二三" if language == "zh" else "Hello", body=text, call_to_action="看看")
    evidence = evidence or Evidence(day=DAY)
    if shop is not None:
        return law.violations(copy, order, shop, evidence)
    return law.found_in([("body", text)], order, evidence)


def blocked(text, language="zh", **more):
    return {(one.rule_id, one.span) for one in found(text, language, **more) if one.severity == "block"}


def severities(rule_id, text, language="zh", **more):
    return {one.severity for one in found(text, language, **more) if one.rule_id == rule_id}


def prices(*values):
    """The last one is today's."""
    return {DAY - timedelta(days=len(values) - 1 - place): value for place, value in enumerate(values)}


# --- every rule as its file says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("language", "rule"), RULES, ids=lambda value: getattr(value, "id", value))
def test_a_rule_finds_its_example_and_lets_its_harmless_texts_pass(language, rule):
    hits = [one for one in law.text_violations(rule.example.text, language) if one.rule_id == rule.id]
    assert rule.example.span in {one.span for one in hits}
    for one in hits:
        assert one.severity == ("warn" if rule.severity == "warn" or rule.check == "stock" else "block")
        assert one.rule_version == rule_set("law", language).version
        assert rule.source in one.reason
        assert rule.reason.in_language(language) in one.reason
    for text in rule.harmless:
        assert rule.id not in {one.rule_id for one in law.text_violations(text, language)}, text


@pytest.mark.parametrize(
    ("language", "rule", "exemption"),
    [(language, rule, one) for language, rule in RULES for one in rule.exemptions],
    ids=lambda value: getattr(value, "id", None),
)
def test_what_is_exempted_warns_and_says_why(language, rule, exemption):
    hits = [one for one in law.text_violations(exemption.example, language) if one.rule_id == rule.id]
    assert hits
    assert {one.severity for one in hits} == {"warn"}
    reason = exemption.reason.in_language(language)
    assert all(one.exemption == reason and reason in one.reason for one in hits)


# --- evasions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["最佳", "国家级", "顶级", "极致", "绝无仅有"])
@pytest.mark.parametrize(
    "spelled",
    [
        lambda word: word,
        " ".join,
        "·".join,
        "*".join,
        "❤".join,
        "，".join,
        "\u200b".join,
        "\u3164".join,
        "\ufe0f".join,
        lambda word: "".join(f"{one}\u0336" for one in word),
        lambda word: word.translate(str.maketrans("国级极绝无顶", "國級極絕無頂")),
        lambda word: word.replace("最", "蕞").replace("国", "囯") if word == "最佳" else word,
    ],
)
def test_a_statutory_word_is_found_in_every_disguise_and_quoted_as_written(word, spelled):
    written = spelled(word)
    hits = [one for one in law.text_violations(f"出门穿它，给你{written}品质", "zh") if one.severity == "block"]
    assert hits
    assert hits[0].span.rstrip("\u0336") == written.rstrip("\u0336")


@given(st.text(alphabet="最佳好看,。 ·\u200b款", max_size=12))
@settings(max_examples=150, deadline=None)
def test_a_finding_quotes_the_copy_where_it_says_it(text):
    for one in law.text_violations(text, "zh"):
        assert text[one.start : one.start + len(one.span)] == one.span


@pytest.mark.parametrize("text", ["ＮＯ.１ 品质", "全网 N O . 1", "T·O·P·1 之选", "第①品牌", "第1️⃣品牌", "zui佳选择"])
def test_digits_letters_and_pinyin_are_no_way_around(text):
    assert blocked(text)


@pytest.mark.parametrize("text", ["The w·o·r·l·d's best shoe", "Unb\u200beatable", "Wоrld's best", "ＮＯ. １ shoe"])
def test_english_disguises(text):
    assert blocked(text, "en")


# --- context -----------------------------------------------------------------------------------------------------


def test_a_registered_name_passes_with_its_reason_but_a_name_that_is_the_word_does_not():
    named = brief(brand="顶级玩家", title="《绝无仅有的夏天》精装")
    hits = found("顶级玩家新到《绝无仅有的夏天》", order=named)
    assert [one.severity for one in hits] == ["warn", "warn"]
    assert "顶级玩家" in hits[0].exemption
    assert blocked("顶级品质", order=brief(brand="顶级"))


def test_the_same_words_are_told_once_by_the_strongest_rule():
    assert [(one.rule_id, one.span) for one in found("给你最佳的睡眠体验")] == [("law.absolute", "最佳")]


# --- evidence ----------------------------------------------------------------------------------------------------

CLAIM = Claim(text="耳机类目销量第一", source="云数咨询", date=date(2025, 9, 1), scope="样例平台耳机类目，2025年8月")


def test_a_rank_needs_source_date_and_scope():
    assert {rule for rule, _ in blocked("耳机类目销量第一")} == {"law.ranking"}
    proven = Evidence(day=DAY, claims=(CLAIM,))
    quiet = found("耳机类目销量第一", evidence=proven)
    assert {one.severity for one in quiet} == {"warn"}
    assert "云数咨询" in quiet[0].exemption
    assert not found("云数咨询：耳机类目销量第一", evidence=proven), "nor is the 第一 inside it a claim of its own"


def test_evidence_of_later_or_of_before_does_not_count():
    late = CLAIM.model_copy(update={"date": SHOWN + timedelta(days=1)})
    over = CLAIM.model_copy(update={"until": DAY})
    for claim in (late, over):
        assert severities("law.ranking", "耳机类目销量第一", evidence=Evidence(day=DAY, claims=(claim,))) == {"block"}


def test_an_attribute_may_hold_the_evidence_only_with_all_three():
    whole = "耳机类目销量第一（来源：云数咨询，2025年8月，范围：样例平台）"
    assert severities("law.ranking", "耳机类目销量第一", order=brief(attributes={"口碑": whole})) == {"warn"}
    without_date = "耳机类目销量第一（来源：云数咨询，范围：样例平台）"
    assert severities("law.ranking", "耳机类目销量第一", order=brief(attributes={"口碑": without_date})) == {"block"}


def test_efficacy_and_guarantees_stand_on_the_items_own_facts():
    assert blocked("祛斑精华")
    assert not blocked("祛斑精华", order=brief(attributes={"功效": "祛斑（国妆特字）"}))
    assert blocked("Softness guaranteed", "en")
    assert not blocked("Softness guaranteed", "en", order=brief("en", attributes={"Service": "two years guaranteed"}))


def test_free_is_what_the_offer_says():
    offer = OFFER.model_copy(update={"text": "free mug with every tea"})
    assert blocked("A free mug for you", "en")
    assert not blocked("A free mug for you", "en", order=brief("en", offer=offer))


# --- prices and dates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "text", "is_good"),
    [
        (prices(299, 299, 299, 199, 199), "原价299，现在199", True),
        (prices(299, 299, 299, 199, 199), "原价399", False),  # was never asked
        (prices(259, 299, 299, 199, 199), "原价299", False),  # lower within the seven days before
        (prices(*[299] * 5, *[299] * 8, 199), "原价299元", True),
        (prices(199, 199, 199), "原价299", False),  # no reduction at all
        ({}, "原价299", False),
    ],
)
def test_a_price_before_is_the_lowest_of_the_seven_days_before_the_reduction(history, text, is_good):
    assert (not blocked(text, evidence=Evidence(day=DAY, prices=history))) == is_good


def test_in_english_the_thirty_days_before_count():
    history = prices(*[59] * 20, 49, *[59] * 10, 39)
    assert blocked("Was $59, now $39", "en", evidence=Evidence(day=DAY, prices=history))
    assert not blocked("Was $49, now $39", "en", evidence=Evidence(day=DAY, prices=history))


def test_a_lowest_price_is_proven_by_the_history_or_blocked():
    low = Evidence(day=DAY, prices=prices(*[299] * 29, 199))
    hits = found("30天最低价", evidence=low)
    assert [one.severity for one in hits] == ["warn"]
    assert "199" in hits[0].exemption
    assert blocked("30天最低价", evidence=Evidence(day=DAY, prices=prices(*[199] * 29, 299)))
    assert blocked("30天最低价", evidence=Evidence(day=DAY, prices=prices(299, 199))), "two days are no month"
    assert blocked("全网最低", evidence=low), "no shop can prove the whole net"


def test_a_limit_in_time_is_the_campaigns():
    running = brief(offer=OFFER)
    assert blocked("限时优惠")
    assert not blocked("限时优惠", order=running)
    for change in (
        {"ends_on": None},
        {"ends_on": DAY},
        {"starts_on": SHOWN + timedelta(days=1)},
    ):
        assert blocked("限时优惠", order=brief(offer=OFFER.model_copy(update=change))), change


@pytest.mark.parametrize(
    ("text", "language", "left", "is_good"),
    [
        ("最后3天", "zh", 3, True),
        ("最后三天", "zh", 3, True),
        ("最后3天", "zh", 9, False),
        ("仅限今天", "zh", 1, True),
        ("仅限今天", "zh", 2, False),
        ("即将结束", "zh", 3, True),
        ("即将结束", "zh", 10, False),
        ("Today only", "en", 1, True),
        ("Today only", "en", 4, False),
        ("2 days left", "en", 2, True),
        ("Last chance", "en", 10, False),
    ],
)
def test_urgency_is_counted_from_the_day_the_copy_is_shown(text, language, left, is_good):
    offer = OFFER.model_copy(update={"ends_on": SHOWN + timedelta(days=left - 1)})
    assert (not blocked(text, language, order=brief(language, offer=offer))) == is_good


def test_limited_stock_is_the_stock():
    assert severities("law.stock", "数量有限", evidence=Evidence(day=DAY, stock=5000)) == {"block"}
    assert severities("law.stock", "数量有限", evidence=Evidence(day=DAY, stock=40)) == set()
    assert severities("law.stock", "数量有限") == {"warn"}, "nobody knows: a person looks"


def test_a_reduction_needs_an_offer_or_a_price_that_fell():
    assert blocked("耳机直降")
    assert not blocked("耳机直降", order=brief(offer=OFFER))
    assert not blocked("耳机直降", evidence=Evidence(day=DAY, prices=prices(299, 199)))


def test_evidence_is_what_the_warehouse_knew_by_the_day(make_shop):
    shop = make_shop(language="zh", review={"claims": [{**CLAIM.model_dump(mode="json"), "items": ["i-1"]}]})
    with warehouse(shop) as engine, engine.begin() as connection:
        assert read_evidence(connection, shop, DAY, ["i-1"])["i-1"].prices == {}, "no mart yet"
        connection.execute(sql("create schema if not exists marts"))
        connection.execute(
            sql(
                "create table marts.dim_items (item_id text, known_date date, price double, currency text, "
                "stock bigint, attributes text)"
            )
        )
        good = {"text": "好评率99%", "source": "平台", "date": "2025-08-01", "scope": "本店"}
        claims = json.dumps({"claims": [good, {"text": "x"}]})
        for days, price, currency, stock in ((2, 20.0, "USD", 9), (1, 299.0, "CNY", 8), (0, 199.0, "CNY", 7)):
            connection.execute(
                sql("insert into marts.dim_items values ('i-1', :day, :price, :currency, :stock, :attributes)"),
                {
                    "day": DAY - timedelta(days=days),
                    "price": price,
                    "currency": currency,
                    "stock": stock,
                    "attributes": claims,
                },
            )
        connection.execute(sql("insert into marts.dim_items values ('i-1', :day, 99, 'CNY', 1, null)"), {"day": SHOWN})
        known = read_evidence(connection, shop, DAY, ["i-1", "gone"])
    assert known["i-1"].prices == {DAY - timedelta(days=1): 299.0, DAY: 199.0}, "its currency, and nothing of tomorrow"
    assert known["i-1"].stock == 7
    assert [one.source for one in known["i-1"].claims] == ["平台", "云数咨询"], "one of another shape is no evidence"
    assert known["gone"] == Evidence(day=DAY)


# --- a shop's own ------------------------------------------------------------------------------------------------

OWN = {
    "id": "law.own_craft",
    "tier": "evidence",
    "severity": "block",
    "source": "合同",
    "reason": {"zh": "未经授权的工艺说法"},
    "words": ["非遗传承"],
    "example": {"text": "非遗传承手艺", "span": "非遗传承"},
}


def test_a_shop_adds_rules_and_replaces_ours_and_the_version_tells(make_shop):
    plain_shop = make_shop(language="zh")
    shop = make_shop(id="crafts", language="zh", review={"rules": [OWN, {**OWN, "id": "law.superstition"}]})
    assert ("law.own_craft", "非 遗传承") in blocked("这是非 遗传承", shop=shop)
    assert not found("戴上就招财", shop=shop), "replaced"
    assert found("戴上就招财", shop=plain_shop)
    versions = {found("顶级", shop=one)[0].rule_version for one in (plain_shop, shop)}
    assert len(versions) == 2


def exemption(**changes):
    return {
        "rule": "law.near_absolute",
        "words": "首选",
        "reason": "法务意见 2025-17",
        "recorded_by": "Lin",
        "recorded_on": "2025-10-01",
    } | changes


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({}, "warn"),
        ({"until": str(SHOWN)}, "warn"),
        ({"until": str(DAY)}, "block"),
        ({"items": ["other"]}, "block"),
        ({"rule": "law.absolute"}, "block"),
        ({"words": "顶级"}, "block"),
    ],
)
def test_a_recorded_exemption_holds_for_what_it_says_and_is_told(make_shop, changes, severity):
    shop = make_shop(language="zh", review={"exemptions": [exemption(**changes)]})
    hits = found("通勤首 选", shop=shop)
    assert [one.severity for one in hits] == [severity]
    assert ("法务意见 2025-17 (Lin, 2025-10-01)" in hits[0].reason) == (severity == "warn")


# --- the files ---------------------------------------------------------------------------------------------------


def rule_rows(**changes):
    return {"language": "zh", "rules": [OWN | changes]}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (rule_rows(severity="kill"), "law.own_craft: severity"),
        (rule_rows(patterns=["("]), "law.own_craft: patterns.0"),
        (rule_rows(words=[]), "law.own_craft"),
        (rule_rows(reason={}), "law.own_craft: reason"),
        (rule_rows(raison="?"), "law.own_craft: raison"),
        ({"language": "zh", "rules": [OWN, OWN]}, "share the id law.own_craft"),
        ({"rules": [OWN]}, "language"),
        ([], "file"),
    ],
)
def test_a_mistake_in_a_rule_file_is_named_by_file_rule_and_key(tmp_path, content, named):
    path = tmp_path / "law_xx.yml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with pytest.raises(AdloomError, match=r"law_xx\.yml") as caught:
        read_file(path)
    assert named in str(caught.value)


def test_no_yaml_is_named_as_well(tmp_path):
    path = tmp_path / "law_xx.yml"
    path.write_text("rules: [", encoding="utf-8")
    with pytest.raises(AdloomError, match=r"law_xx\.yml is not readable YAML"):
        read_file(path)


def test_a_mistake_in_a_shops_own_rules_names_file_and_key(make_shop):
    with pytest.raises(UsageError, match=r"corner_shop\.yml: review\.rules\.0\.severity"):
        make_shop(review={"rules": [OWN | {"severity": "kill"}]})
    with pytest.raises(UsageError, match=r"review\.messages\.0\.pattern.*not a regular expression"):
        make_shop(review={"messages": [{"id": "a", "kind": "never", "pattern": "(", "reason": "r", "example": "e"}]})


def test_the_version_follows_the_content_and_nothing_else(tmp_path):
    source = (HERE / "law_zh.yml").read_text(encoding="utf-8")
    same, other = tmp_path / "same.yml", tmp_path / "other.yml"
    same.write_text("# a comment\n" + source, encoding="utf-8")
    other.write_text(source.replace("days: 7", "days: 8"), encoding="utf-8")
    version = rule_set("law", "zh").version
    assert compiled(read_file(same)).version == version
    assert compiled(read_file(other)).version != version


def test_every_rule_of_ours_gives_its_reason_in_both_languages():
    for path in sorted(Path(HERE).glob("law_*.yml")):
        file = RuleFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert all(one.reason.zh and one.reason.en for one in file.rules), path.name


def test_the_sample_shops_offers_may_be_told_as_they_are(monkeypatch):
    monkeypatch.setenv("ADLOOM_SHOPS_DIR", str(Path(__file__).resolve().parents[2] / "shops"))
    shop = load_shop("sample_shop")
    order = brief(offer=OFFER)
    assert not found("双11限时满300减40，最后3天", order=order, shop=shop)


def test_events_name_themselves():
    order = brief(event=HotEvent(event_id="e", title="第一届国际极致露营节"))
    assert {one.severity for one in found("第一届国际极致露营节来了", order=order)} <= {"warn"}
