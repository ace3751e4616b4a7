"""Source ``sample_shop``: a driver (``adloom simulate``) writes the landing folder; this only says what is missing.

A run never makes its own input: what a day brought must not change because the day is run again.
"""

from __future__ import annotations

from datetime import date, timedelta

from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.sources.options import check_options
from adloom.warehouse.landing import landed_days

OPTIONS = ("seed", "users")


def land(shop: Shop, day: date) -> None:
    """Make sure the simulated ``day`` is in landing, and whole."""
    check_options(shop, OPTIONS)
    # The driver puts behaviours into place last.
    folder = shop.landing / "behaviours" / f"known_date={day}"
    if not any(folder.glob("*.parquet")):
        before = max((one for one in landed_days(shop) if one < day), default=None)
        raise AdloomError(
            f"{shop.id} has no simulated day {day} in {shop.landing}",
            f"adloom simulate --shop {shop.id} --from {before + timedelta(days=1) if before else day} --to {day}",
        )
