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
    "audit_copy": {"generate_copy"},
    "after_audit": {"audit_copy"},
    "record_creatives": {"plan_shards", "generate_copy", "after_audit"},
    "plan_images": {"record_creatives"},
    "generate_images": {"plan_images"},
    "compose": {"plan_images", "generate_images"},
    "record_images": {"plan_images", "compose"},
    "check_creatives": {"record_images"},
    "settle_approvals": {"check_creatives"},
    "publish_plan": {"settle_approvals"},
    "report": {"publish_plan"},
    "approve": {"settle_approvals"},
    "record_decision": {"settle_approvals", "approve"},
    "publish_approved": {"publish_plan", "record_decision"},
    "report_approved": {"publish_approved"},
}
GPU = {"fine_tune", "generate_copy", "audit_copy", "generate_images"}
FILES_ONLY = {"compose", "approve", "after_audit"}
AFTER_A_PERSON = {"approve", "record_decision", "publish_approved", "report_approved"}


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
    assert dag.max_active_runs > 1, "a day that waits for a person must not keep the next one from being written"
    assert [line for line in DOC_SECTIONS if f"**{line}.**" not in dag.doc_md] == []
    for task in dag.tasks:
        is_gpu = task.task_id in GPU
        outside = GPU_POOL if is_gpu else "default_pool"
        assert task.pool == (outside if is_gpu or task.task_id in FILES_ONLY else warehouse_pool(shop.id))
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

    answers = {
        "plan_copy": ["shard-00000", "shard-00001"],
        "plan_images": ["images-00000"],
        "publish_approved": tmp_path,
        "publish_creatives": tmp_path,
        "record_model": "m",
        "record_decision": "1 approved, 1 rejected",
    }
    for name in (
        *("write_briefs", "select_pairs", "record_model", "plan_copy", "record_creatives", "plan_images"),
        *("record_images", "check", "settle_approvals", "record_decision", "publish_approved", "publish_creatives"),
    ):
        monkeypatch.setattr(pipeline, name, recorder(name, answers.get(name)))
    monkeypatch.setattr(pipeline, "is_newest", lambda shop_id, day: True)
    monkeypatch.setattr(pipeline, "reason_to_skip_training", lambda shop_id, day: None)
    monkeypatch.setattr(pipeline, "reason_to_skip_audit", lambda shop_id, day: "audited yesterday")
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
    skipped = {name for name, found in states.items() if found == {"skipped"}}
    assert skipped == {"fine_tune", "record_model", "audit_copy", "after_audit", "generate_images", *AFTER_A_PERSON}
    assert steps[:3] == ["write_briefs", "select_pairs", "plan_copy"]
    assert sorted(steps[3:5]) == ["generate-copy shard-00000", "generate-copy shard-00001"]
    assert steps[5:] == [
        *("record_creatives", "plan_images", "compose images-00000", "record_images", "check"),
        *("settle_approvals", "publish_approved", "publish_creatives"),
    ]


@pytest.mark.usefixtures("metadata_database")
def test_an_audit_that_is_due_is_written_behind_the_copies_and_before_the_day_is_recorded(
    make_shop: Any, dag_bag: Callable[[], Any], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline

    dag = _dag(dag_bag, make_shop())
    _record_commands(dag, steps, monkeypatch)
    monkeypatch.setattr(pipeline, "reason_to_skip_training", lambda shop_id, day: "3 newly approved pairs")
    monkeypatch.setattr(pipeline, "reason_to_skip_audit", lambda shop_id, day: None)
    assert dag.test(run_conf={"day": str(DAY)}).state == "success"
    assert steps.index("generate-copy shard-00001") < steps.index(f"write-audit {DAY}")
    assert steps.index(f"write-audit {DAY}") < steps.index("record_creatives")


@pytest.mark.usefixtures("metadata_database")
@pytest.mark.parametrize("failing", ["write-audit", "generate-copy"])
def test_an_audit_that_fails_stays_red_and_costs_no_creatives_a_shard_that_fails_does(
    failing: str, make_shop: Any, dag_bag: Callable[[], Any], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline
    from adloom.errors import AdloomError

    dag = _dag(dag_bag, make_shop())
    module = sys.modules[dag.task_dict["fine_tune"].python_callable.__module__]

    def run(name: str, *arguments: str) -> None:
        if name == failing:
            raise AdloomError("the card's memory is too small")

    monkeypatch.setattr(module, "run_command", run)
    monkeypatch.setattr(pipeline, "reason_to_skip_training", lambda shop_id, day: "3 newly approved pairs")
    monkeypatch.setattr(pipeline, "reason_to_skip_audit", lambda shop_id, day: None)
    states = _states(dag.test(run_conf={"day": str(DAY)}))
    lost = failing == "generate-copy"
    assert states["audit_copy"] == {"upstream_failed" if lost else "failed"}
    assert states["record_creatives"] == states["report"] == {"upstream_failed" if lost else "success"}


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


# --- a person is asked ----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(make_shop: Any, tmp_path: Path) -> tuple[Shop, Path]:
    """A shop and the file that puts two of its creatives before a person."""
    from adloom.publishing import approving

    shop: Shop = make_shop()
    labels, hashes = {"c1": "1 · Tea", "c2": "2 · Best tea"}, {"c1": "h1", "c2": "h2"}
    return shop, approving.write_asked(shop, approving.Asked(DAY, "2 creatives wait", "| no. |", labels, hashes))


def _run_and_answer(
    dag: Any, steps: list[str], monkeypatch: pytest.MonkeyPatch, answered: dict[str, Any]
) -> tuple[Any, list[Any], list[Any]]:
    """Run the DAG with somebody at hand who answers; (run, what the form held, what was recorded)."""
    from datetime import UTC, datetime

    from airflow.providers.standard.operators.hitl import HITLOperator

    from adloom import pipeline

    forms: list[Any] = []
    recorded: list[Any] = []

    def answer_at_once(self: Any, context: Any) -> Any:
        # What the form would be made of is checked by Airflow's own code; what waits is left out.
        forms.append((self.subject, self.body, self.serialized_params, self.defaults, self.response_timeout))
        event = {"responded_at": datetime(2025, 11, 12, 9, tzinfo=UTC), "responded_by_user": {"id": "1", "name": "Li"}}
        return self.execute_complete(context, event | answered)

    monkeypatch.setattr(HITLOperator, "execute", answer_at_once)
    monkeypatch.setattr(
        pipeline,
        "record_decision",
        lambda shop_id, day, path, said: (steps.append("record_decision"), recorded.append((day, path, said)), "done")[
            -1
        ],
    )
    return dag.test(run_conf={"day": str(DAY)}), forms, recorded


@pytest.mark.usefixtures("metadata_database")
def test_what_waits_is_put_before_a_person_and_the_answer_is_published(
    asked: tuple[Shop, Path], dag_bag: Callable[[], Any], steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adloom import pipeline

    shop, path = asked
    dag = _dag(dag_bag, shop)
    _record_commands(dag, steps, monkeypatch)
    monkeypatch.setattr(pipeline, "settle_approvals", lambda shop_id, day: path)
    answered = {"chosen_options": ["Approve"], "params_input": {"drop": ["c2"], "reason": " too loud "}}
    run, forms, recorded = _run_and_answer(dag, steps, monkeypatch, answered)
    assert run.state == "success"
    assert {name: _states(run)[name] for name in AFTER_A_PERSON} == {name: {"success"} for name in AFTER_A_PERSON}
    (subject, body, fields, defaults, patience) = forms[0]
    assert (subject, body, defaults) == ("2 creatives wait", "| no. |", ["Reject"])
    assert patience.total_seconds() == shop.approval_hours * 3600
    assert fields["drop"]["schema"]["examples"] == ["c1", "c2"]
    assert fields["drop"]["schema"]["values_display"]["c2"] == "2 · Best tea"
    ((day, shown, said),) = recorded
    assert (day, shown) == (DAY, path)
    assert (said.is_approval, said.dropped, said.by, said.reason) == (True, ("c2",), "Li", "too loud")
    # What nobody need be asked about was published before; afterwards the plan and the report are made once more.
    assert steps.count("publish_approved") == steps.count("publish_creatives") == 2
    assert steps.index("publish_approved") < steps.index("record_decision")


@pytest.mark.usefixtures("metadata_database")
@pytest.mark.parametrize("by", [{"id": "1", "name": "Li"}, None], ids=["rejected", "nobody answered"])
def test_a_rejection_is_an_outcome_and_keeps_its_reason(
    by: dict[str, str] | None,
    asked: tuple[Shop, Path],
    dag_bag: Callable[[], Any],
    steps: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from adloom import pipeline

    shop, path = asked
    dag = _dag(dag_bag, shop)
    _record_commands(dag, steps, monkeypatch)
    monkeypatch.setattr(pipeline, "settle_approvals", lambda shop_id, day: path)
    reason = "the tone is wrong" if by else None
    answered = {"chosen_options": ["Reject"], "params_input": {"drop": [], "reason": reason}, "responded_by_user": by}
    run, _, recorded = _run_and_answer(dag, steps, monkeypatch, answered)
    assert run.state == "success"
    ((_, _, said),) = recorded
    assert (said.is_approval, said.by) == (False, "Li" if by else None)
    assert said.reason == (reason or "nobody answered within 20 hours")


def test_a_backfill_waits_for_nobody(asked: tuple[Shop, Path], dag_bag: Callable[[], Any]) -> None:
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowSkipException

    shop, path = asked
    task = _dag(dag_bag, shop).task_dict["approve"]
    task.asked = str(path)
    with pytest.raises(AirflowSkipException, match="a backfill waits for nobody"):
        task.execute({"dag_run": SimpleNamespace(run_type="backfill")})


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
@pytest.mark.timeout(900)
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
    # Nothing can be used, so there is nothing to draw, to ask about or to publish: the plan that is live stays.
    skipped = {"after_audit", "generate_images", "compose", *AFTER_A_PERSON}
    assert _states(run) == {name: {"skipped" if name in skipped else "success"} for name in TASKS}
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
