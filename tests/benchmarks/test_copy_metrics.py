"""The figures of the copy benchmark against values worked out by hand or by the library they stand for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "advertisegen"
sys.path.insert(0, str(BENCHMARKS))

import copy_metrics as metrics  # noqa: E402
from copy_metrics import Row  # noqa: E402

import copywriting as benchmark  # noqa: E402

TEXTS = ["宽松的版型很显瘦。", "修身的版型很显高。", "宽松的裙摆很显瘦，也很舒服。", "宽松的版型很显瘦。", "棉。"]


def test_placeholders_leave_no_trace():
    assert metrics.clean("受潮<UNK>喜欢的“<UNK><UNK>”字样，<UNK>，<BRAND>设计BRAND。") == "受潮喜欢的字样，设计。"
    assert metrics.clean("<UNK>，") == ""


def test_bleu_is_that_of_nltk_in_percent():
    assert metrics.bleu4(TEXTS[0], TEXTS[0]) == pytest.approx(100)
    assert metrics.bleu4("", TEXTS[0]) == 0
    # a b c d e against a b c d f: p = 4/5, 3/4, 2/3, 1/2; no brevity penalty.
    assert metrics.bleu4("abcde", "abcdf") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_rouge_counts_words():
    scores = metrics.rouge("显瘦 裙子", "显瘦 裤子")
    assert scores["rouge-1"] == pytest.approx(50, abs=0.1)
    assert scores["rouge-2"] == pytest.approx(0, abs=0.1)
    assert metrics.rouge("", "显瘦") == {"rouge-1": 0, "rouge-2": 0, "rouge-l": 0}


def test_distinct_is_different_over_all():
    # abcd bcde | abcd: 2 of 3.
    assert metrics.distinct(["abcde", "abcd"]) == pytest.approx(2 / 3)
    assert metrics.distinct(["ab"]) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_self_bleu_equals_nltk_with_all_others_as_references():
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smooth = SmoothingFunction().method3
    wanted = mean(
        sentence_bleu(
            [list(other) for place, other in enumerate(TEXTS) if place != number], list(text), smoothing_function=smooth
        )
        for number, text in enumerate(TEXTS)
    )
    assert metrics.self_bleu4(TEXTS) == pytest.approx(wanted)
    assert metrics.self_bleu4(["abcdef"] * 3) == pytest.approx(1)


def test_likeness_of_a_candidate_equals_the_metric():
    for text in TEXTS:
        assert 100 * benchmark.likeness(text, TEXTS[2]) == pytest.approx(metrics.bleu4(text, TEXTS[2]))


def test_copied_is_a_run_of_thirteen():
    copied = metrics.Copied(["宽松的版型让人穿着舒适自在又显瘦"])
    assert copied("很喜欢宽松的版型让人穿着舒适自在")
    assert not copied("很喜欢宽松的版型让人穿着舒适的样子")


def test_self_bleu_takes_the_same_rows_every_time():
    assert metrics.fixed_rows(500) == list(range(500))
    assert metrics.fixed_rows(1070) == metrics.fixed_rows(1070)
    assert len(metrics.fixed_rows(1070)) == 500


def test_an_appended_list_names_attributes_and_carries_none():
    row = Row("类型#裙*裙型#百褶*颜色#红色*图案#条纹", "")
    text = metrics.with_missing("这条裙很好看。", row)
    assert metrics.named_share([text], [row]) == 1
    assert metrics.attribute_coverage([text], [row]) == 0.25


def test_the_nearest_row_shares_most_of_both():
    rows = [Row("类型#裙*颜色#红色*图案#条纹", "甲"), Row("类型#裙*颜色#红色", "乙"), Row("类型#裤", "丙")]
    neighbours = metrics.Neighbours(rows)
    assert neighbours.nearest(Row("类型#裙*颜色#红色", ""))[0].summary == "乙"
    assert neighbours.nearest(Row("类型#帽", ""))[0].summary == "甲"


def test_the_template_names_every_attribute_and_claims_nothing_else():
    row = Row("类型#上衣*颜色#红色*图案#条纹*图案#印花*衣领型#翻领", "")
    text = metrics.template(row)
    assert all(value in text for value in row.values)
    assert metrics.findings(text, row) == []


def test_training_prompts_name_what_their_texts_say():
    said = Row("类型#裙*颜色#红色*图案#条纹", "红色的裙身很显气质，上身也好看。")
    invented = Row("类型#裙*图案#条纹", "蓝色条纹的裙摆很显气质。")
    torn = Row("类型#裙*图案#条纹", "条纹的裙摆很显气质")
    [(prompt, completion, _)] = benchmark.training_texts([said, invented, torn])
    assert "红色" in prompt
    assert "条纹" not in prompt
    assert completion == said.summary + benchmark.STOP


def test_the_choice_falls_on_the_sound_and_complete_text_whatever_its_place():
    train = [Row("类型#裙*颜色#红色*图案#条纹", "红色的裙身配上条纹点缀，优雅又显气质。")] * 20
    row = Row("类型#裙*颜色#红色*图案#条纹", "参考")
    texts = [
        "蓝色的裙身配上条纹点缀，红色更显气质好。",
        "红色的裙身配上条纹点缀，温柔又大气好看。",
        "这条裙子很好看，上身优雅，温柔又大气呀。",
        "红色的裙身配上条纹点缀，温柔又",
    ]
    candidates = [benchmark.Candidate(text, True, -1.0) for text in texts]
    chooser = benchmark.Chooser(train, metrics.Copied([]))
    for order in (candidates, candidates[::-1]):
        assert chooser.choose(order, row).text == texts[1]


def test_a_gate_is_missed_when_a_plain_template_does_better():
    sound = {
        "coverage": 0.95, "unsupported_colour": 0.0, "distinct_4": 0.7, "self_bleu_4": 0.4,
        "bleu_4": 7.0, "rouge_l": 24.0, "copied": 0.05,
    }  # fmt: skip
    table = {"human": {"copied": 0.08}, "template": sound | {"rouge_l": 25.0}, "nearest": sound, "tuned": sound}
    missed = [gate for gate in benchmark.gates(table) if not gate.holds(sound[gate.figure])]
    assert [(gate.figure, gate.why) for gate in missed] == [("rouge_l", "template and nearest")]
    copying = [gate for gate in benchmark.gates(table) if gate.figure == "copied"]
    assert not copying[0].holds(0.101)


def test_finished_rows_are_read_back_and_a_torn_line_is_not(tmp_path):
    work = benchmark.Work(tmp_path)
    whole = {"row": 3, "candidates": [{"text": "好。", "is_finished": True, "log_probability": -1.0}]}
    work.candidates("tuned").write_text(json.dumps(whole) + '\n{"row": 4, "candi', encoding="utf-8")
    assert list(work.read("tuned")) == [3]


def test_a_bad_line_is_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text(
        '{"content": "类型#裙", "summary": "好。"}\n{"content": "类型#裙"}\n', encoding="utf-8"
    )
    with pytest.raises(SystemExit, match=r"bad\.jsonl, line 2"):
        benchmark.read(tmp_path / "bad.jsonl")


def test_no_kobe_title_stands_on_both_sides(tmp_path):
    bags = ["真皮", "帆布", "草编", "尼龙", "牛皮", "链条", "刺绣", "格纹", "丝绒", "条纹"]
    lines = [
        json.dumps({"title": f"{bags[number // 3]}手包", "description": f"很好看{number}。"}) for number in range(30)
    ]
    (tmp_path / "kobe.jsonl").write_text("\n".join(lines), encoding="utf-8")
    train, data = benchmark.read_kobe(tmp_path / "kobe.jsonl")
    # Three descriptions a title: all are learnt from, one is written for.
    assert (len(train), len(data)) == (24, 2)
    assert not {row.content for row in train} & {row.content for row in data}


@pytest.mark.proof
@pytest.mark.skipif(not DATA.exists(), reason="../shared/data/advertisegen is absent")
def test_baselines_on_the_real_data_are_near_the_published_ones():
    command = [sys.executable, str(BENCHMARKS / "copywriting.py"), "--json"]
    command += ["--train", str(DATA / "train.jsonl"), "--data", str(DATA / "dev.jsonl")]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    table = json.loads(finished.stdout)["table"]
    human, template, nearest = table["human"], table["template"], table["nearest"]
    assert human["named"] == pytest.approx(0.861, abs=0.002)
    assert human["coverage"] == pytest.approx(0.861, abs=0.02)
    assert human["self_bleu_4"] == pytest.approx(0.371, abs=0.01)
    assert human["solid_colour"] == pytest.approx(0.033, abs=0.005)
    assert template["bleu_4"] == pytest.approx(3.65, abs=0.2)
    assert template["rouge_1"] == pytest.approx(30.8, abs=0.5)
    assert template["rouge_l"] == pytest.approx(23.2, abs=1)
    assert nearest["rouge_l"] == pytest.approx(22.3, abs=1)
    # What list-like endings would buy if they counted.
    assert table["nearest_and_missing"]["named"] == 1
    assert table["nearest_and_missing"]["coverage"] == pytest.approx(nearest["coverage"], abs=0.01)
