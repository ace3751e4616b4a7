"""Who is served as what, for the ad server alone: one row per user, by keyed hash.

The only published file with a row per person. It is readable by its owner only, lies beside the plan it belongs to, and
is deleted once a later plan is live (`forget_superseded`); erasure takes users out of every copy of it. The ad server
computes the same HMAC of a user's id and looks it up; a user that is not here is served as the plan says of strangers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from adloom.creative import ALL, NOT_PERSONALISED
from adloom.shop import Shop
from adloom.strategy import holdout

FILE = "audience.parquet"
COLUMNS = ("user_hash", "segment_id", "holdout", "personalised")

# What users said themselves (opted out, too young) is as of the day; segments are those of the last portraits before.
_SERVED = text(
    """
    with stated as (
        select user_hash, segment_id
        from (
            select user_hash, segment_id, row_number() over (partition by user_hash order by known_date desc) as newest
            from marts.user_segments
            where known_date <= :day
        ) as numbered
        where newest = 1
    ),

    described as (
        select user_hash, segment_id
        from adloom.user_portraits
        where day = (select max(day) from adloom.user_portraits where day <= :day)
    )

    select
        coalesce(stated.user_hash, described.user_hash) as user_hash,
        case
            when stated.segment_id = 'not_personalised' then 'not_personalised'
            when stated.segment_id is null then described.segment_id
            when described.segment_id is null or described.segment_id = 'not_personalised' then stated.segment_id
            else described.segment_id
        end as segment_id
    from stated
    full join described on stated.user_hash = described.user_hash
    order by 1
    """
)


def audience(connection: Connection, shop: Shop, day: date) -> list[tuple[str, str, bool, bool]]:
    """Rows of `COLUMNS` as of ``day``, by user; none where the shop knows no users."""
    if not inspect(connection).has_table("user_segments", schema="marts"):
        return []
    share = shop.strategy.holdout_share
    return [
        (user_hash, segment_id, holdout.in_holdout(user_hash, share), segment_id != NOT_PERSONALISED)
        for user_hash, segment_id in connection.execute(_SERVED, {"day": day})
    ]


def served_as_stranger(shop: Shop) -> str:
    """The segment of who is not in the file: of unknown age, where the shop takes that for a minor."""
    return NOT_PERSONALISED if shop.unknown_age_is_minor else ALL


def write(path: Path, rows: Iterable[tuple[str, str, bool, bool]]) -> None:
    """Write the file, whole or not at all, readable by its owner only."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
    kinds = (pa.string(), pa.string(), pa.bool_(), pa.bool_())
    arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    parquet.write_table(pa.table(dict(zip(COLUMNS, arrays, strict=True))), fresh)
    os.replace(fresh, path)


def forget_superseded(plans: Path, kept: Iterable[Path]) -> None:
    """Delete the audience of every plan folder below ``plans`` that is not among ``kept``."""
    keep = set(kept)
    for path in plans.glob(f"*/*/{FILE}"):
        if path.parent not in keep:
            path.unlink()
