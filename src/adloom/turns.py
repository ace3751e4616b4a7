"""One process at a time, where several would write the same files: locks that a killed process cannot leave behind.

Two runs of one shop and day are nothing unusual: one that was started by hand beside the scheduled one, a retry beside
the attempt it replaces. The operating system holds the lock for the open file and lets it go when its process ends,
however that ends. What the warehouse holds needs none of this: DuckDB lets one process write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from adloom.errors import Busy
from adloom.settings import settings
from adloom.shop import Shop

FOLDER = "locks"


@contextmanager
def turn(shop: Shop, what: str) -> Iterator[None]:
    """Do ``what`` (a few words, also the file's name) in turn with the other processes that would do the same.

    Waits up to ``ADLOOM_LOCK_TIMEOUT_SECONDS``, then raises `Busy`. Not to be nested for the same ``what``.
    """
    folder = shop.home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"{what}.lock", timeout=settings().lock_timeout_seconds):
            yield
    except Timeout as error:
        rest = "; ADLOOM_LOCK_TIMEOUT_SECONDS waits longer"
        raise Busy(f"another run of {shop.id} is at this: {what}", rest) from error
