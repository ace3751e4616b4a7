"""What is known by the end of a day: rates with intervals, maturity and verdicts."""

from __future__ import annotations

from datetime import date

from sqlalchemy import Connection, column, func, select, table

from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.warehouse.engine import warehouse
from adloom.warehouse.ledger import create_ledger, delay_curves, evaluations, landing_days, replace_rows


def evaluate(shop: Shop, day: date) -> None:
    """Replace the day's evaluations, delay curve, verdicts and audience shares from the facts known by ``day``.

    All in one transaction. Raises `AdloomError` when the marts of a known date up to the day are not built.
    """
    # Heavy libraries stay out of the import of this package: DAG files import it at parse.
    from adloom.evaluation.fairness import evaluate_fairness
    from adloom.evaluation.verdicts import evaluate_comparisons

    with warehouse(shop) as engine:
        create_ledger(engine)
        with engine.begin() as connection:
            require_built_marts(connection, shop, day)
            evaluate_rates(connection, shop, day)
            evaluate_comparisons(connection, shop, day)
            evaluate_fairness(connection, shop, day)


def evaluate_rates(connection: Connection, shop: Shop, day: date) -> None:
    """Replace the day's rows of ``evaluations`` and ``delay_curves`` in the caller's transaction."""
    from adloom.evaluation.maturity import curve_rows, delay_curve
    from adloom.evaluation.rates import evaluation_rows

    curve = delay_curve(connection, shop, day)
    replace_rows(connection, delay_curves, {"day": day}, curve_rows(curve, day))
    replace_rows(connection, evaluations, {"day": day}, evaluation_rows(connection, shop, day, curve))


def require_built_marts(connection: Connection, shop: Shop, day: date) -> None:
    """Fail fast where evaluation would find no marts, or silently miss days whose marts are not built."""
    next_step = f"run: adloom build --shop {shop.id} --day {day}"
    tables = table("tables", column("table_schema"), column("table_name"), schema="information_schema")
    here = select(func.count()).where(tables.c.table_schema == "marts", tables.c.table_name == "fct_impressions")
    if not connection.scalar(here):
        raise AdloomError(f"{shop.id}: there are no marts yet", next_step)
    t = landing_days.c
    query = select(func.count(), func.min(t.known_date)).where(t.known_date <= day, t.marts_digest.is_(None))
    count, first = connection.execute(query).one()
    if count:
        raise AdloomError(
            f"{shop.id}: the marts of {count} known date(s) up to {day} are not built, the first is {first}", next_step
        )
