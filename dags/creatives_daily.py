"""The creatives of every shop: a day's strategy → briefs → copy and pictures → approval → plan. One DAG per shop."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.sdk import (
    DAG,
    Asset,
    PartitionedAssetTimetable,
    StartOfDayMapper,
    XComArg,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from adloom.asking import AskForApproval, answer
from adloom.orchestration import (
    broken_dag,
    day_param,
    defaults,
    documentation,
    generate_param,
    gpu_task,
    plan_asset,
    run_command,
    shops,
    strategy_asset,
    the_day,
)
from adloom.shop import Shop


def creatives_daily(shop: Shop) -> DAG:
    """The DAG of one shop. A run belongs to the day whose strategy was published: its partition key."""
    strategy = Asset(strategy_asset(shop.id), extra={"shop": shop.id})
    dag = DAG(
        f"creatives_daily__{shop.id}",
        schedule=PartitionedAssetTimetable(
            assets=strategy, default_partition_mapper=StartOfDayMapper(input_format="%Y-%m-%d")
        ),
        # A day that waits for a person must not keep the next one from being written; pools keep their tasks apart.
        max_active_runs=4,
        tags={"creatives", "simulated"} if shop.simulated else {"creatives"},
        default_args=defaults(shop),
        params=day_param(shop, "Which day to write for") | generate_param(),
        doc_md=_documentation(shop),
    )
    with dag:
        _approve_and_publish(shop, _draw(shop, _write(shop)))
    return dag


def _write(shop: Shop) -> XComArg:
    """From the day's strategy to reviewed copies; the last of these tasks."""

    @task
    def write_briefs(params: dict | None = None) -> str:
        """Say for whom, about what and where to write, from portraits, facts and strategy."""
        with the_day(shop) as day:
            reason = _reason_to_skip(shop, day, (params or {}).get("generate"))
            if reason:
                raise AirflowSkipException(reason)
            return str(pipeline().write_briefs(shop.id, day))

    @task
    def select_pairs() -> str:
        """Write what the model may learn from: approved, not blocked, not erased; and whether it is worth it."""
        with the_day(shop) as day:
            return str(pipeline().select_pairs(shop.id, day))

    @task(**gpu_task())
    def fine_tune() -> None:
        """Teach the copy model the shop's voice; skipped unless enough copies were approved since the last time."""
        with the_day(shop) as day:
            reason = pipeline().reason_to_skip_training(shop.id, day)
            if reason:
                raise AirflowSkipException(reason)
            run_command("fine-tune", "--shop", shop.id, "--day", day.isoformat())

    @task
    def record_model() -> str:
        """Store the trained model and let it write, if it is better than what writes now."""
        with the_day(shop) as day:
            return pipeline().record_model(shop.id, day)

    # A training that was not worth it must not keep the day from being written; a run that is skipped as a whole must.
    @task(trigger_rule="none_failed_min_one_success")
    def plan_shards() -> list[str]:
        """Choose the model that writes and cut the briefs into shards; their names."""
        with the_day(shop) as day:
            return pipeline().plan_copy(shop.id, day)

    @task(**gpu_task())
    def generate_copy(shard: str) -> None:
        """Write the copies of one shard; whole or not at all, goes on where it was killed."""
        with the_day(shop) as day:
            run_command("generate-copy", "--shop", shop.id, "--day", day.isoformat(), "--shard", shard)

    @task(**gpu_task())
    def audit_copy() -> None:
        """Write some briefs again for other genders and ages; skipped unless the model is new or the last is old.

        After the copies, which it must not take the endpoint's budget from.
        """
        with the_day(shop) as day:
            if reason := pipeline().reason_to_skip_audit(shop.id, day):
                raise AirflowSkipException(reason)
            run_command("write-audit", "--shop", shop.id, "--day", day.isoformat())

    # No trigger rule tells one failed task from another. Skipped, because a success would let the creatives of a day
    # be recorded that is skipped as a whole.
    @task(trigger_rule="all_done", pool="default_pool")
    def after_audit() -> None:
        """Let the day go on whatever became of the audit; always skipped."""
        raise AirflowSkipException("the day goes on; what was not audited is recorded as not audited")

    @task(trigger_rule="none_failed_min_one_success")
    def record_creatives() -> str:
        """Store the copies, what the reviews found in them and in the candidates they stopped, and the audit."""
        with the_day(shop) as day:
            return str(pipeline().record_creatives(shop.id, day))

    briefs, selected, tuned, recorded, shards = (
        write_briefs(),
        select_pairs(),
        fine_tune(),
        record_model(),
        plan_shards(),
    )
    briefs >> selected >> tuned >> recorded >> shards
    selected >> shards
    written = generate_copy.expand(shard=shards)
    shards >> written >> audit_copy() >> after_audit() >> (creatives := record_creatives())
    [shards, written] >> creatives
    return creatives


def _draw(shop: Shop, creatives: XComArg) -> XComArg:
    """From reviewed copies to creatives with their pictures, checked as a whole; the last of these tasks."""
    draws_pictures = "gan" in {shop.imagery.source, *shop.imagery.by_scenario.values()}

    @task
    def plan_images() -> list[str]:
        """Order the pictures and videos of the copies that no review blocks, in shards; their names."""
        with the_day(shop) as day:
            return pipeline().plan_images(shop.id, day)

    @task(**gpu_task())
    def generate_images() -> None:
        """Draw the pictures that come from a generator; skipped where every picture is the shop's own photo."""
        with the_day(shop) as day:
            if not draws_pictures:
                raise AirflowSkipException("every picture is the shop's own photo")
            run_command("generate-images", "--shop", shop.id, "--day", day.isoformat())

    # Opens no warehouse and needs no GPU: as many at once as there are workers.
    @task(trigger_rule="none_failed_min_one_success", pool="default_pool")
    def compose(shard: str) -> None:
        """Set the text over the pictures of one shard, label every file and read the label back."""
        with the_day(shop) as day:
            run_command("compose", "--shop", shop.id, "--day", day.isoformat(), "--shard", shard)

    @task(trigger_rule="none_failed_min_one_success")
    def record_images() -> str:
        """Store the images and videos, and what the checks found in them."""
        with the_day(shop) as day:
            return str(pipeline().record_images(shop.id, day))

    @task
    def check_creatives() -> None:
        """Hold the creatives against their suite; a red door ends the day here."""
        with the_day(shop) as day:
            pipeline().check(shop.id, day, "creatives")

    ordered, drawn, images = plan_images(), generate_images(), record_images()
    creatives >> ordered >> drawn >> compose.expand(shard=ordered) >> images
    ordered >> images
    checked = check_creatives()
    images >> checked
    return checked


def _approve_and_publish(shop: Shop, checked: XComArg) -> None:
    """From checked creatives to the plan: at once with what nobody need be asked about, again after the answer."""
    plan = Asset(plan_asset(shop.id), extra={"shop": shop.id})

    @task
    def settle_approvals() -> str | None:
        """Decide what nobody need be asked about, and write down what waits for a person; the file's path."""
        with the_day(shop) as day:
            asked = pipeline().settle_approvals(shop.id, day)
            return None if asked is None else str(asked)

    @task(outlets=[plan])
    def publish_plan() -> str:
        """Hand the next version of tomorrow's plan to the ad server, with what is approved without asking."""
        return publish(shop, plan)

    @task
    def report() -> str:
        """Publish the snapshot again, and the day's report with its creatives."""
        with the_day(shop) as day:
            return str(pipeline().publish_creatives(shop.id, day))

    @task
    def record_decision(asked: str, answered: dict) -> str:
        """Store who decided what, when and why; a rejection is an outcome, not a failure."""
        with the_day(shop) as day:
            said = answer(answered, shop.approval_hours)
            return pipeline().record_decision(shop.id, day, Path(asked), said)

    @task(outlets=[plan])
    def publish_approved() -> str:
        """Hand the plan to the ad server once more, with what a person approved."""
        return publish(shop, plan)

    @task
    def report_approved() -> str:
        """The snapshot and the report once more, with what was decided."""
        with the_day(shop) as day:
            return str(pipeline().publish_creatives(shop.id, day))

    asked, published = settle_approvals(), publish_plan()
    checked >> asked >> published >> report()
    approve = AskForApproval(
        task_id="approve",
        asked=asked,
        response_timeout=timedelta(hours=shop.approval_hours),
        pool="default_pool",
        doc_md="Ask a person about what waits; rejected where nobody answers in time. Holds no worker meanwhile.",
    )
    [published, record_decision(asked, approve.output)] >> (again := publish_approved())
    again >> report_approved()


def _documentation(shop: Shop) -> str:
    return documentation(
        what=f"New ads for {shop.name}: portraits, briefs, fine-tuning where enough copies were approved since the "
        "last, copy, pictures with their AI label, reviews, the creatives door, approval, and the next version of "
        f"tomorrow's plan. Approval is `{shop.approval}`: what nobody need be asked about is published at once; "
        "`approve` waits for a person about the rest, and the plan is published again with what was approved. A run is "
        "for the day of the strategy that started it; only the newest day makes creatives, the others end as skipped "
        "and say so.",
        reads="Marts and ledger up to the day, the shop's file, the live copy model.",
        writes="`creatives/day=…` (briefs, training pairs, shards, images, what was asked), `models/…`, the ledger "
        "tables briefs, models, creatives, assets, reviews, stopped_copies, stopped_counts, counterfactuals, "
        "approvals, plans and allocations, `published/plans`, the "
        f"snapshot and `report.html`; emits the asset `{plan_asset(shop.id)}`. Only what is approved as it is now gets "
        "into a plan.",
        when_not_to_run="Before the day's `behaviour_daily` is done. Otherwise at any time, as often as you like: "
        "finished shards and trainings are kept, decisions are reused, the second run equals the first.",
        how_to_repair="A red task says what is wrong and what to do; mend that and clear it. A killed fine_tune, "
        "generate_copy or compose goes on where it stopped. audit_copy red: the day goes on, its creatives say that "
        "they were not audited; clear it with what follows, or leave it to the next day. check_creatives red: read its "
        "table, the creatives stay unpublished until it is green. `approve` waits until somebody answers it under "
        f"Required Actions, at most {shop.approval_hours:g} hours: then everything in it is rejected, and "
        "`adloom approve` can still take it in. "
        f"Without Airflow: `adloom create --shop {shop.id} --day …`, then `adloom review`.",
    )


def publish(shop: Shop, plan: Asset) -> str:
    """Publish the plan with everything approved by now, and say under the day's partition key that it is there."""
    with the_day(shop) as day:
        folder = pipeline().publish_approved(shop.id, day)
        get_current_context()["outlet_events"][plan].add_partitions(day.isoformat())
        return str(folder)


def _reason_to_skip(shop: Shop, day, asked: bool | None) -> str | None:
    """Why a run makes no creatives; None: it does. The parameter decides, then the strategy's event, then landing."""
    if asked is None:
        events = get_current_context().get("triggering_asset_events") or {}
        told = [event.extra.get("generate") for found in events.values() for event in found if event.extra]
        asked = told[-1] if told and told[-1] is not None else pipeline().is_newest(shop.id, day)
    return None if asked else f"{day} is not the newest day of {shop.id}: no new creatives are made for it"


def pipeline():
    """`adloom.pipeline`, imported when a task runs and not when this file is parsed."""
    from adloom import pipeline as steps

    return steps


sound, broken = shops()
for one in sound.values():
    globals()[f"creatives_daily__{one.id}"] = creatives_daily(one)
for shop_id, error in broken.items():
    globals()[f"creatives_daily__{shop_id}"] = broken_dag(f"creatives_daily__{shop_id}", shop_id, error)
