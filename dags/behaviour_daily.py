"""The daily loop of every shop: what people did yesterday → tomorrow's strategy. One DAG per shop."""

from __future__ import annotations

from datetime import datetime, time

from airflow.sdk import DAG, Asset, CronDataIntervalTimetable, get_current_context, task

from adloom.orchestration import (
    broken_dag,
    day_param,
    defaults,
    documentation,
    generate_param,
    shops,
    strategy_asset,
    the_day,
)
from adloom.shop import Shop


def behaviour_daily(shop: Shop) -> DAG:
    """The DAG of one shop. A run belongs to the local day on which its data interval starts.

    The interval reaches from one tick of the schedule to the next, so the run of day D starts at the first tick
    of D+1, when D is over.
    """
    strategy = Asset(strategy_asset(shop.id), extra={"shop": shop.id})
    dag = DAG(
        f"behaviour_daily__{shop.id}",
        schedule=CronDataIntervalTimetable(shop.schedule, timezone=shop.time_zone),
        start_date=datetime.combine(shop.start_day, time.min, shop.zone),
        catchup=False,
        max_active_runs=1,
        tags={"behaviour", "simulated"} if shop.simulated else {"behaviour"},
        default_args=defaults(shop),
        params=day_param(shop, "Which day to run") | generate_param(),
        doc_md=documentation(
            what=f"One turn of the daily loop of {shop.name}: load, check, build, evaluate, adjust, publish. A run is "
            "for the local day on which its data interval starts; its id carries the moment it was due, a day later.",
            reads=f"`landing/*/known_date=…` up to the day, and `shops/{shop.id}.yml`.",
            writes="The warehouse (raw, marts, ledger), rejected rows, the plan of the day after, the snapshot and "
            f"`report.html`; emits the asset `{strategy.name}` with the day as its partition key.",
            when_not_to_run="While the day's landing folder is still being written. Otherwise at any time, in any "
            "order, as often as you like: the second run equals the first.",
            how_to_repair="A red task says what is wrong and what to do. Mend that and clear the task; or re-deliver "
            f"the folder and run `adloom run --shop {shop.id} --stale`. A range of days: `airflow backfill create "
            f"--dag-id behaviour_daily__{shop.id} --from-date … --to-date … --reprocess-behavior completed "
            "--max-active-runs 1`, with the times given as the first and last instant of the range.",
        ),
    )

    @task
    def ingest() -> None:
        """Bring every new or changed landing folder up to the day into raw."""
        with the_day(shop) as day:
            pipeline().ingest(shop.id, day)

    @task
    def check_raw() -> None:
        """Hold raw against its suite; a red door ends the day here."""
        with the_day(shop) as day:
            pipeline().check(shop.id, day, "raw")

    @task
    def build_marts() -> None:
        """Let dbt build the marts of every known_date whose input changed."""
        with the_day(shop) as day:
            pipeline().build(shop.id, day)

    @task
    def check_marts() -> None:
        """Hold the marts against their suite; a red door ends the day here."""
        with the_day(shop) as day:
            pipeline().check(shop.id, day, "marts")

    @task
    def evaluate() -> None:
        """CTR, CR, maturity and verdicts as of the day."""
        with the_day(shop) as day:
            pipeline().evaluate(shop.id, day)

    @task
    def adjust_strategy() -> None:
        """Tomorrow's shares, each with a sentence that says why."""
        with the_day(shop) as day:
            pipeline().adjust(shop.id, day)

    @task
    def publish_plan() -> str:
        """Hand the plan of tomorrow to the ad server."""
        with the_day(shop) as day:
            return str(pipeline().publish(shop.id, day))

    @task(outlets=[strategy])
    def publish_snapshots(params: dict | None = None) -> str:
        """Publish what pages read, write the report and say that the day's strategy is there."""
        with the_day(shop) as day:
            pipeline().snapshot(shop.id, day)
            report = pipeline().report(shop.id, day)
            generate = (params or {}).get("generate")
            event = get_current_context()["outlet_events"][strategy]
            event.add_partitions(day.isoformat())
            event.extra = {
                "quality": pipeline().quality_summary(shop.id, day),
                "generate": pipeline().is_newest(shop.id, day) if generate is None else generate,
            }
            return str(report)

    with dag:
        (
            ingest()
            >> check_raw()
            >> build_marts()
            >> check_marts()
            >> evaluate()
            >> adjust_strategy()
            >> publish_plan()
            >> publish_snapshots()
        )
    return dag


def pipeline():
    """`adloom.pipeline`, imported when a task runs and not when this file is parsed."""
    from adloom import pipeline as steps

    return steps


sound, broken = shops()
for one in sound.values():
    globals()[f"behaviour_daily__{one.id}"] = behaviour_daily(one)
for shop_id, error in broken.items():
    globals()[f"behaviour_daily__{shop_id}"] = broken_dag(f"behaviour_daily__{shop_id}", shop_id, error)
