"""The creatives of every shop: a day's strategy → briefs → a trained model → checked copy. One DAG per shop."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import (
    DAG,
    Asset,
    Param,
    PartitionedAssetTimetable,
    StartOfDayMapper,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from adloom.orchestration import (
    broken_dag,
    documentation,
    gpu_task,
    run_command,
    shops,
    strategy_asset,
    the_day,
    warehouse_pool,
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
        max_active_runs=1,
        tags={"creatives", "simulated"} if shop.simulated else {"creatives"},
        default_args={
            "owner": shop.id,
            "pool": warehouse_pool(shop.id),
            "retries": 2,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": True,
        },
        params={
            "day": Param(
                None,
                type=["null", "string"],
                format="date",
                title="Day",
                description=f"Which day to write for, in {shop.time_zone}; a run started by hand must name one.",
            ),
            "generate": Param(
                None,
                type=["null", "boolean"],
                title="Make new creatives",
                description="Left open: only when this is the newest day in landing.",
            ),
        },
        doc_md=documentation(
            what=f"New ad copy for {shop.name}: portraits, briefs, fine-tuning where enough copies were approved since "
            "the last, generation, a review of facts and the creatives door. A run is for the day of the strategy "
            "that started it; only the newest day makes creatives, the others end as skipped and say so.",
            reads="Marts and ledger up to the day, the shop's file, the live copy model.",
            writes="`creatives/day=…` (briefs, training pairs, shards), `models/…`, the ledger tables briefs, models, "
            "creatives and reviews, the snapshot and `report.html`. Nothing is shown to a customer: copies wait for "
            "approval.",
            when_not_to_run="Before the day's `behaviour_daily` is done. Otherwise at any time, as often as you like: "
            "finished shards and trainings are kept, the second run equals the first.",
            how_to_repair="A red task says what is wrong and what to do; mend that and clear it. A killed fine_tune or "
            "generate_copy goes on where it stopped. check_creatives red: read its table, the copies stay unpublished "
            f"until it is green. Without Airflow: `adloom create --shop {shop.id} --day …`.",
        ),
    )

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

    @task(trigger_rule="none_failed_min_one_success")
    def record_creatives() -> str:
        """Store the copies, and what the review of facts found in them."""
        with the_day(shop) as day:
            return str(pipeline().record_creatives(shop.id, day))

    @task
    def check_creatives() -> None:
        """Hold the copies against their suite; a red door ends the day here."""
        with the_day(shop) as day:
            pipeline().check(shop.id, day, "creatives")

    @task
    def report() -> str:
        """Publish the snapshot again, and the day's report with its copies."""
        with the_day(shop) as day:
            return str(pipeline().publish_creatives(shop.id, day))

    with dag:
        briefs, selected, tuned, recorded, shards = (
            write_briefs(),
            select_pairs(),
            fine_tune(),
            record_model(),
            plan_shards(),
        )
        briefs >> selected >> tuned >> recorded >> shards
        selected >> shards
        creatives = record_creatives()
        shards >> creatives
        generate_copy.expand(shard=shards) >> creatives >> check_creatives() >> report()
    return dag


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
