"""One way to open a shop's warehouse: SQLAlchemy on DuckDB, closed as soon as the block ends.

DuckDB lets one process write at a time. `warehouse` therefore waits for a busy file up to
``ADLOOM_LOCK_TIMEOUT_SECONDS``, keeps no connection (``NullPool``) and disposes its engine, so that the next
step, dbt included, finds the file free.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_random

from adloom.errors import Busy, UsageError
from adloom.settings import settings
from adloom.shop import Shop


def warehouse_url(shop: Shop) -> URL:
    """The shop's warehouse: ``warehouse_url`` of its file, else a DuckDB file in its home."""
    if shop.warehouse_url is None:
        return URL.create("duckdb", database=str(shop.home / "warehouse.duckdb"))
    url = make_url(shop.warehouse_url)
    if url.get_backend_name() != "duckdb":
        raise UsageError(
            f"{shop.id}.yml: warehouse_url: {url.get_backend_name()} is not supported yet",
            "use a duckdb:/// URL or leave it out",
        )
    return url


def is_busy(error: BaseException) -> bool:
    """Is the database file in the hands of another process?"""
    return isinstance(error, duckdb.IOException) and "lock" in str(error)


def create_warehouse_engine(shop: Shop, *, read_only: bool = False) -> Engine:
    """An engine without a pool; prefer `warehouse`, which also disposes it."""
    config: dict[str, Any] = {"threads": settings().threads, "memory_limit": settings().memory_limit}
    if shop.warehouse_url is None:
        shop.home.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        warehouse_url(shop),
        poolclass=NullPool,
        connect_args={"read_only": read_only, "config": config},
    )

    @event.listens_for(engine, "do_connect")
    def _wait_for_lock(dialect: Any, _record: Any, args: Any, kwargs: Any) -> Any:
        try:
            for attempt in Retrying(
                retry=retry_if_exception(is_busy),
                stop=stop_after_delay(settings().lock_timeout_seconds),
                wait=wait_random(0.05, 0.3),
            ):
                with attempt:
                    return dialect.connect(*args, **kwargs)
        except RetryError as error:
            raise Busy(
                f"the warehouse of {shop.id} is in use by another process", "; ADLOOM_LOCK_TIMEOUT_SECONDS waits longer"
            ) from error
        return None

    return engine


@contextmanager
def warehouse(shop: Shop, *, read_only: bool = False) -> Iterator[Engine]:
    """The shop's warehouse for the length of a block."""
    engine = create_warehouse_engine(shop, read_only=read_only)
    try:
        yield engine
    finally:
        engine.dispose()
