"""The creatives DAG: which days make creatives, what a skipped training leaves alone, and GPU work that gets killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from adloom.orchestration import DOC_SECTIONS, GPU_POOL, TAGS, warehouse_pool
from adloom.shop import Shop
from adloom.warehouse import ledger
from adloom.warehouse.engine import warehouse

DAY = date(2025, 11, 11)
TASKS = {
    "write_briefs": set(),
    "select_pairs": {"write_briefs"},
    "fine_tune": {"select_pairs"},
    "record_model": {"fine_tune"},
    "plan_shards": {"select_pairs", "record_model"},
    "generate_copy": {"plan_shards"},
    "record_creatives": {"plan_shards", "generate_copy"},
    "check_creatives": {"record_creatives"},
    "report": {"check_creatives"},
}
GPU = {"fine_tune", "generate_copy"}


def _dag(dag_bag: Callable[[], Any], shop: Shop) -> Any:
    bag = dag_bag()
    assert bag.import_errors == {}
    return bag.dags[f"creatives_daily__{shop.id}"]


def _states(run: Any) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in run.get_task_instances():
        found.setdefault(one.task_id, set()).add(str(one.state))
    return found


def test_only_tasks_that_leave_the_warehouse_alone_are_outside_its_pool(
    dag_bag: Callable[[], Any], make_shop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADLOOM_GPU_QUEUE", "gpu")
    shop: Shop = make_shop(simulated=True)
    dag = _dag(dag_bag, shop)
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == TASKS
    assert dag.tags == {"creatives", "simulated"}
    assert dag.tags <= set(TAGS)
    assert dag.max_active_runs == 1
    assert [line for line in DOC_SECTIONS if f"**{line}.**" not in dag.doc_md] == []
    for task in dag.tasks:
        is_gpu = task.task_id in GPU
        assert task.pool == (GPU_POOL if is_gpu else warehouse_pool(shop.id))
        assert task.queue == ("gpu" if is_gpu else "default")
        assert task.executor is None


def test_the_strategys_day_is_the_runs_day(dag_bag: Callable[[], Any], make_shop: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    shop: Shop = make_shop()
    dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(_dag(dag_bag, shop)))
    mapper = dag.timetable.get_partition_mapper(name=f"strategy__{shop.id}")
    assert mapper.to_downstream(DAY.isoformat()) == DAY.isoformat()


# --- which tasks run: steps of the pipeline replaced by recorders ---------------------------------------------------


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the steps and commands that were called, in order; nothing is done."""
    from adloom import pipeline

    called: list[str] = []

    def recorder(name: str, answer: Any) -> Callable[..., Any]:
        return lambda *arguments: (called.append(name), answer)[1]

    answers = {"plan_copy": ["shard-00000", "shard-00001"], "publish_creatives": tmp_path, "record_model": "m"}
    for name in ("write_briefs", "select_pairs", "record_model", "plan_copy", "record_creatives", "check"):
        monkeypatch.setattr(pipeline, name, recorder(name, answers.get(name)))
    monkeypatch.setattr(pipeline, "publish_creatives", recorder("publish_creatives", tmp_path))
    monkeypatch.setattr(pipeline, "is_newest", lambda shop_id, day: True)
    monkeypatch.setattr(pipeline, "reason_to_skip_training", lambda shop_id, day: None)
    return called


def _record_commands(dag: Any, called: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[dag.task_dict["fine_tune"].python_callable.__module__]
    monkeypatch.setattr(module, "run_command", lambda name, *arguments: called.append(f"{name} {arguments[-1]}"))


@pytest.mark.usefixtures("metadata_database")
def test_a_training_that_is_not_worth_it_does_not_keep_the_day_from_being_written(
    make_shop: Any, dag_bag: Callable[[], Any], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline

    shop: Shop = make_shop()
    dag = _dag(dag_bag, shop)
    _record_commands(dag, steps, monkeypatch)
    monkeypatch.setattr(pipeline, "reason_to_skip_training", lambda shop_id, day: "3 newly approved pairs")
    run = dag.test(run_conf={"day": str(DAY)})
    assert run.state == "success"
    states = _states(run)
    assert {name for name, found in states.items() if found == {"skipped"}} == {"fine_tune", "record_model"}
    assert steps[:3] == ["write_briefs", "select_pairs", "plan_copy"]
    assert sorted(steps[3:5]) == ["generate-copy shard-00000", "generate-copy shard-00001"]
    assert steps[5:] == ["record_creatives", "check", "publish_creatives"]


@pytest.mark.parametrize("asked", [None, False])
@pytest.mark.usefixtures("metadata_database")
def test_days_that_are_not_the_newest_are_skipped_as_a_whole(
    asked: bool | None, make_shop: Any, dag_bag: Callable[[], Any], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline

    monkeypatch.setattr(pipeline, "is_newest", lambda shop_id, day: asked is False)
    shop: Shop = make_shop()
    dag = _dag(dag_bag, shop)
    _record_commands(dag, steps, monkeypatch)
    run = dag.test(run_conf={"day": str(DAY), "generate": asked})
    assert set().union(*_states(run).values()) == {"skipped"}
    assert steps == []


@pytest.mark.parametrize(("told", "skipped"), [(True, False), (False, True)])
def test_the_strategys_event_says_whether_its_day_is_the_newest(
    told: bool, skipped: bool, make_shop: Any, dag_bag: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landing may hold a later day by the time the run comes: what was true when the strategy was made counts."""
    from types import SimpleNamespace

    from adloom import pipeline

    shop: Shop = make_shop()
    module = sys.modules[_dag(dag_bag, shop).task_dict["fine_tune"].python_callable.__module__]
    events = {"strategy": [SimpleNamespace(extra={"generate": told, "quality": {}})]}
    monkeypatch.setattr(module, "get_current_context", lambda: {"triggering_asset_events": events})
    monkeypatch.setattr(pipeline, "is_newest", lambda shop_id, day: not told)
    reason = module._reason_to_skip(shop, DAY, None)
    assert (f"{DAY} is not the newest day" in (reason or "")) is skipped
    assert module._reason_to_skip(shop, DAY, True) is None


# --- GPU work: files only, killed and gone on with ------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "fine_tuning": {"method": "full", "max_steps": 40, "evaluate_every": 5, "batch_size": 2, "max_tokens": 4000},
    "sampling": {"candidates": 1, "batch_size": 1, "max_new_tokens": 8},
    "shard_briefs": 32,
}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Qwen3 of one layer with random weights and a long context: it babbles, and it can be trained."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from adloom.copywriting.starter import FOLDER

    folder = tmp_path_factory.mktemp("tiny")
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator((FOLDER / "zh.jsonl").read_text(encoding="utf-8").splitlines(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=0,
    )
    Qwen3ForCausalLM(shape).save_pretrained(folder)
    return folder


def _ordered(shop: Shop) -> None:
    """What the warehouse tasks leave for the GPU tasks of the day, made without a warehouse."""
    from adloom.copywriting import handover
    from adloom.copywriting.starter import starter_pairs
    from adloom.creative import write_rows

    pairs = starter_pairs("zh")[:60]
    folder = handover.folder_of(shop, DAY)
    write_rows(folder / handover.PAIRS, pairs)
    write_rows(folder / handover.BRIEFS, (pair.brief for pair in starter_pairs("zh")[60:84]))
    training = {"pairs": 60, "new": 60, "refused": {}, "folder": "run", "live": None, "reason_to_skip": None}
    (folder / handover.TRAINING).write_text(json.dumps(training))
    writer = {"model_id": "base", "base": shop.copywriting.model, "adapter": None}
    (folder / handover.WRITER).write_text(json.dumps(writer))
    assert handover.plan(shop, DAY) == ["shard-00000"]


def _kill_the_task_when(is_under_way: Callable[[], bool], *arguments: str) -> None:
    """Run a command as a task does, SIGKILL the task, and see that what it started ends with it."""
    program = f"from adloom.orchestration import run_command; run_command(*{arguments!r})"
    task = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not is_under_way():
        assert task.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    children = psutil.Process(task.pid).children(recursive=True)
    assert children
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "an orphan would write the same files as the retry"


@pytest.mark.timeout(600)
def test_a_killed_training_goes_on_and_ends_in_the_same_weights(make_shop: Any, tiny_model: Path) -> None:
    from adloom import pipeline
    from adloom.copywriting.training import CHECKPOINT, read_metrics, read_result

    def made(shop_id: str) -> Shop:
        shop: Shop = make_shop(id=shop_id, language="zh", copywriting={"model": f"path:{tiny_model}", **SETTINGS})
        _ordered(shop)
        return shop

    calm, killed = made("calm"), made("killed")
    pipeline.fine_tune(calm.id, DAY)
    folder = killed.models / "run"
    _kill_the_task_when((folder / CHECKPOINT).exists, "fine-tune", "--shop", killed.id, "--day", str(DAY))
    assert not (folder / "result.json").exists()
    pipeline.fine_tune(killed.id, DAY)
    assert any(line["kind"] == "resumed" and line["step"] > 0 for line in read_metrics(folder))
    results = [read_result(shop.models / "run") for shop in (calm, killed)]
    assert results[0].weights_digest == results[1].weights_digest
    assert results[0].metrics["loss_tuned"] == results[1].metrics["loss_tuned"]
    assert not (killed.home / "warehouse.duckdb").exists()


@pytest.mark.timeout(600)
def test_a_killed_generation_goes_on_and_ends_in_the_same_bytes(make_shop: Any, tiny_model: Path) -> None:
    from adloom import pipeline
    from adloom.copywriting import handover

    shops: list[Shop] = [
        make_shop(id=shop_id, language="zh", copywriting={"model": f"path:{tiny_model}", **SETTINGS})
        for shop_id in ("calm", "killed")
    ]
    for shop in shops:
        _ordered(shop)
    shards = [handover.folder_of(shop, DAY) / "shards" / "shard-00000.copies.jsonl" for shop in shops]
    pipeline.generate_copy(shops[0].id, DAY)
    partial = shards[1].with_name(f".{shards[1].name}.partial")

    def has_a_page() -> bool:
        with contextlib.suppress(FileNotFoundError):
            return b'{"page":' in partial.read_bytes()
        return False

    arguments = ("--shop", shops[1].id, "--day", str(DAY), "--shard", "shard-00000")
    _kill_the_task_when(has_a_page, "generate-copy", *arguments)
    assert not shards[1].exists()
    pipeline.generate_copy(shops[1].id, DAY)
    assert shards[0].read_bytes() == shards[1].read_bytes()
    assert not (shops[1].home / "warehouse.duckdb").exists()


def test_what_a_command_explains_is_not_tried_again(make_shop: Any) -> None:
    from adloom.errors import AdloomError
    from adloom.orchestration import run_command

    shop: Shop = make_shop()
    with pytest.raises(AdloomError, match=r"training\.json is not there") as raised:
        run_command("fine-tune", "--shop", shop.id, "--day", str(DAY))
    assert "adloom select-pairs" in raised.value.next_step
    with pytest.raises(RuntimeError, match="ended with code 2"):
        run_command("fine-tune", "--no-such-option")


# --- the whole DAG: everything real but the model's weights ---------------------------------------------------------


@pytest.mark.usefixtures("metadata_database")
@pytest.mark.timeout(600)
def test_a_day_of_the_simulated_shop_ends_in_the_report(
    make_shop: Any, dag_bag: Callable[[], Any], tiny_model: Path
) -> None:
    from adloom import pipeline

    shop: Shop = make_shop(
        id="sample_shop",
        language="zh",
        copy_languages=["zh", "en"],
        time_zone="Asia/Shanghai",
        start_day="2025-09-15",
        simulated=True,
        source={"kind": "sample_shop", "options": {"seed": 1, "users": 600}},
        channels=["feed", "weibo", "x"],
        min_segment_users=20,
        # Random weights write no copy that can be used: the door is told to expect that.
        limits={"refused_copies_fail": 1.0},
        copywriting={
            "model": f"path:{tiny_model}",
            "briefs_per_day": 10,
            "shard_briefs": 6,
            "fine_tuning": {"method": "full", "max_steps": 4, "evaluate_every": 2, "max_tokens": 4000},
            "sampling": {"candidates": 1, "batch_size": 8, "max_new_tokens": 16},
        },
    )
    pipeline.simulate(shop.id, DAY)
    pipeline.run_day(shop.id, DAY)
    dag = _dag(dag_bag, shop)
    run = dag.test(run_conf={"day": str(DAY)})
    assert run.state == "success"
    assert _states(run) == {name: {"success"} for name in TASKS}
    with warehouse(shop) as engine, engine.connect() as connection:
        creatives = connection.execute(select(ledger.creatives)).all()
        model = connection.execute(select(ledger.models)).one()
    assert len(creatives) == 10
    assert all(row.refused_reason for row in creatives)
    assert model.pairs > 300
    assert (shop.models / model.path).is_dir()
    page = (shop.published / "report.html").read_text(encoding="utf-8")
    assert "10 份需求，0 条文案" in page

    # Again: the training is finished, the shards are, and everything is what it was.
    again = dag.test(run_conf={"day": str(DAY)})
    assert again.state == "success"
    with warehouse(shop) as engine, engine.connect() as connection:
        assert connection.execute(select(ledger.creatives)).all() == creatives
        assert connection.execute(select(ledger.models)).one().weights_digest == model.weights_digest
