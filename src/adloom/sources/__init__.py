"""Sources: how the raw files of one kind of shop reach its landing folder."""

from __future__ import annotations

from datetime import date

from adloom.shop import Shop
from adloom.sources import files, open_bandit, sample_shop

LANDERS = {"files": files.land, "open_bandit": open_bandit.land, "sample_shop": sample_shop.land}


def land(shop: Shop, day: date) -> None:
    """Bring the shop's files up to ``day`` into its landing folder, as ``source.kind`` of its YAML says.

    Safe to repeat. Raises `UsageError` for options the source does not know, `AdloomError` where files are missing.
    """
    LANDERS[shop.source.kind](shop, day)
