"""What people ask of their own data, every day: erasure, opt-out, opt-in, and retention. One DAG per shop."""

from __future__ import annotations

from datetime import datetime, time

from airflow.sdk import DAG, CronDataIntervalTimetable, task

from adloom.orchestration import broken_dag, day_param, defaults, documentation, shops, the_day
from adloom.shop import Shop


def privacy_daily(shop: Shop) -> DAG:
    """The DAG of one shop, for the same days as its `behaviour_daily`; neither waits for the other."""
    dag = DAG(
        f"privacy_daily__{shop.id}",
        schedule=CronDataIntervalTimetable(shop.schedule, timezone=shop.time_zone),
        start_date=datetime.combine(shop.start_day, time.min, shop.zone),
        catchup=False,
        max_active_runs=1,
        tags={"privacy", "simulated"} if shop.simulated else {"privacy"},
        default_args=defaults(shop),
        params=day_param(shop, "Requests landed by this day"),
        doc_md=documentation(
            what=f"Erasures, opt-outs and retention of {shop.name}. Whoever asked to be erased leaves landing, "
            "rejected rows, raw, marts, portraits, the audience file and the database's free pages, and every day that "
            "changes by it is run again. An opt-out counts from the next plan on. Raw rows and landing older than "
            f"{shop.retention.raw_days} days go; their marts stay and are never rebuilt. Dossiers and the log of "
            f"exports without the label go {shop.retention.dossier_years} years after a creative last ran, files that "
            f"nobody approved after {shop.retention.unapproved_image_days} days.",
            reads="`landing/privacy_requests`, every landing file that names a user, the ledger.",
            writes="Landing (files rewritten without the erased), the warehouse, published files; a receipt with a "
            "random number per request in `adloom.privacy_receipts`. Who asked is known to `adloom.privacy_registry` "
            "only, by keyed hash; both tables are in no snapshot.",
            when_not_to_run="While a landing folder is being written. Otherwise at any time, as often as you like.",
            how_to_repair="A red task says which file cannot be read: have it delivered again or remove it, then clear "
            "the task. A run that was killed is finished by the next one: a request is closed last. Without Airflow: "
            f"`adloom privacy --shop {shop.id} --day …`.",
        ),
    )

    @task
    def read_requests() -> str:
        """Enter the requests that landed, and flag the models that learnt from who is to be erased."""
        with the_day(shop) as day:
            return pipeline().read_requests(shop.id, day)

    @task
    def erase_from_files() -> str:
        """Rewrite the landing files that hold users to be erased."""
        with the_day(shop) as day:
            return str(pipeline().erase_from_files(shop.id, day))

    @task
    def rebuild() -> None:
        """Marts and portraits of every day that an erasure changed."""
        with the_day(shop) as day:
            pipeline().rebuild(shop.id, day)

    @task
    def replay_days() -> list[str]:
        """Evaluate, adjust and publish those days again."""
        with the_day(shop) as day:
            return [one.isoformat() for one in pipeline().replay(shop.id, day)]

    @task
    def close_requests() -> str:
        """Clear the database's free pages and write a receipt for every request."""
        with the_day(shop) as day:
            return pipeline().close_requests(shop.id, day)

    @task
    def apply_retention() -> str:
        """Delete what is older than the shop keeps it."""
        with the_day(shop) as day:
            return str(pipeline().apply_retention(shop.id, day))

    with dag:
        read_requests() >> erase_from_files() >> rebuild() >> replay_days() >> close_requests() >> apply_retention()
    return dag


def pipeline():
    """`adloom.pipeline`, imported when a task runs and not when this file is parsed."""
    from adloom import pipeline as steps

    return steps


sound, broken = shops()
for one in sound.values():
    globals()[f"privacy_daily__{one.id}"] = privacy_daily(one)
for shop_id, error in broken.items():
    globals()[f"privacy_daily__{shop_id}"] = broken_dag(f"privacy_daily__{shop_id}", shop_id, error)
