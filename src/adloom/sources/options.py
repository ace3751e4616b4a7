"""Options of a source: what a shop's YAML may say under ``source.options``."""

from __future__ import annotations

from collections.abc import Collection

from adloom.errors import UsageError
from adloom.shop import Shop


def check_options(shop: Shop, known: Collection[str] = ()) -> None:
    """A `UsageError` that names every option the shop's source does not know."""
    unknown = sorted(set(shop.source.options) - set(known))
    if unknown:
        listed = f"known options: {', '.join(sorted(known))}" if known else "it takes no options: remove them"
        raise UsageError(
            f"{shop.id}.yml: source.options: the source {shop.source.kind} does not know {', '.join(unknown)}", listed
        )
