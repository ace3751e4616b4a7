"""Source ``files``: somebody else writes the landing folder; this only says what is missing."""

from __future__ import annotations

import logging
from datetime import date

from adloom.errors import AdloomError
from adloom.shop import Shop
from adloom.sources.options import check_options
from adloom.warehouse.contract import FORMATS
from adloom.warehouse.landing import landed_days

log = logging.getLogger(__name__)


def land(shop: Shop, day: date) -> None:
    """Make sure the landing folder is there and holds a day of ad_events or behaviours up to ``day``."""
    check_options(shop)
    landing = shop.landing
    landing.mkdir(parents=True, exist_ok=True)
    days = {known_date: folders for known_date, folders in landed_days(shop).items() if known_date <= day}
    present = {folder.parent.name for folders in days.values() for folder in folders}
    if not present & {"ad_events", "behaviours"}:
        raise AdloomError(
            f"{shop.id} has no files of ad_events or behaviours up to {day} in {landing}",
            f"put files ({', '.join(FORMATS)}) into {landing}/ad_events/known_date={day}/ "
            "(docs/landing_contract.md says what they hold)",
        )
    if day not in days:
        log.warning("%s: no folder known_date=%s in landing; the run goes on with what was known before", shop.id, day)
