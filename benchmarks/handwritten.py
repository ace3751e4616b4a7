"""The baseline of `daily_loop`: the same marts from the same Parquet by one DuckDB script and nothing else.

It keeps no raw rows, judges none, knows no earlier day, cannot be run twice and is written for one day in UTC:
what somebody would write who only wants the tables, and who knows the engine.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb

BLOCK = 64
BOTS = r"(?i)bot|crawler|spider|slurp|headless|python-requests|curl/|wget"

MARTS = """
create temp macro user_hash(user_id) as translate(to_base64(unhex(left(sha256(
    getvariable('outer_key') || unhex(sha256(getvariable('inner_key') || encode(user_id)))), 18))), '+/', '-_');

create temp table hashed_users as
select user_id, user_hash(user_id) as user_hash from (
    select distinct user_id from read_parquet(getvariable('behaviours'))
    union
    select distinct user_id from read_parquet(getvariable('ad_events')) where user_id is not null
);

create temp table repeated_behaviours as
select event_id, min(file_row_number) as first_row
from read_parquet(getvariable('behaviours'), file_row_number = true)
group by event_id having count(*) > 1;

create table marts.fct_behaviours_daily as
with events as (
    select behaviours.*
    from read_parquet(getvariable('behaviours'), file_row_number = true) as behaviours
    left join repeated_behaviours as repeated using (event_id)
    where repeated.event_id is null or file_row_number = first_row
),
daily as (
    select user_id, item_id, behaviour, occurred_at::timestamp::date as behaviour_date, count(*) as events,
        coalesce(sum(quantity), 0)::bigint as quantity,
        coalesce(sum(price * quantity), 0)::decimal(18, 6) as value
    from events group by all
)
select user_hash, item_id, behaviour, behaviour_date, events, quantity, value, getvariable('day') as known_date
from daily inner join hashed_users using (user_id);

create temp table repeated_ad_events as
select event_id, min(file_row_number) as first_row
from read_parquet(getvariable('ad_events'), file_row_number = true)
group by event_id having count(*) > 1;

create temp table outcomes as
select event_type, event_id, events.impression_id, occurred_at::timestamp as occurred_at, user_hash, value, cost,
    coalesce(regexp_matches(user_agent, getvariable('bots')), false) as is_bot
from read_parquet(getvariable('ad_events'), file_row_number = true) as events
left join repeated_ad_events as repeated using (event_id)
left join hashed_users using (user_id)
where event_type <> 'impression' and (repeated.event_id is null or file_row_number = first_row);

create temp table impressions as
with events as (
    select events.*
    from read_parquet(getvariable('ad_events'), file_row_number = true) as events
    left join repeated_ad_events as repeated using (event_id)
    where event_type = 'impression' and (repeated.event_id is null or file_row_number = first_row)
),
bots as (
    select user_agent from (select distinct user_agent from events)
    where regexp_matches(user_agent, getvariable('bots'))
),
busy as (
    select user_id, occurred_at::timestamp::date as impression_date from events where user_id is not null
    group by all having count(*) > 1000
),
beyond as (
    select impression_id from events inner join busy
    on events.user_id = busy.user_id and events.occurred_at::timestamp::date = busy.impression_date
    qualify row_number() over (
        partition by events.user_id, impression_date order by occurred_at, impression_id
    ) > 1000
)
select events.impression_id, occurred_at::timestamp as impression_at, impression_at::date as impression_date,
    case when bots.user_agent is not null then 'bot_user_agent'
        when beyond.impression_id is not null then 'too_many_impressions' end as invalid_reason,
    user_hash, creative_id, coalesce(segment_id, 'all') as segment_id, plan_id,
    coalesce(campaign_id, 'none') as campaign_id, coalesce(policy_id, 'default') as policy_id,
    coalesce(channel, 'unknown') as channel, coalesce(position, 'unknown') as position, propensity,
    cost::decimal(18, 6) as cost, currency
from events
left join bots on events.user_agent = bots.user_agent
left join beyond on events.impression_id = beyond.impression_id
left join hashed_users on events.user_id = hashed_users.user_id;

create temp table clicks as
with judged as (
    select event_id as click_id, outcomes.impression_id, occurred_at as click_at, occurred_at::date as click_date,
        coalesce(outcomes.user_hash, impressions.user_hash) as user_hash,
        outcomes.cost::decimal(18, 6) as click_cost, impressions.* exclude (impression_id, user_hash),
        not is_bot and impressions.invalid_reason is null and occurred_at >= impression_at as may_count
    from outcomes inner join impressions using (impression_id) where event_type = 'click'
)
select *, may_count and row_number() over (
    partition by impression_id, may_count order by click_at, click_id) = 1 as is_valid
from judged;

create temp table conversions as
with candidates as (
    select outcomes.event_id as conversion_id, outcomes.occurred_at as conversion_at, outcomes.value, clicks.*
    from outcomes inner join clicks on outcomes.impression_id = clicks.impression_id
    where event_type = 'conversion'
    union all
    select outcomes.event_id as conversion_id, outcomes.occurred_at as conversion_at, outcomes.value, clicks.*
    from outcomes inner join clicks on outcomes.user_hash = clicks.user_hash
    where event_type = 'conversion' and outcomes.impression_id is null
),
decided as (
    select * from candidates
    where is_valid and click_at <= conversion_at and conversion_at <= click_at + interval 7 days
    qualify row_number() over (partition by conversion_id order by click_at desc, click_id desc) = 1
)
select * from decided
qualify row_number() over (partition by click_id order by conversion_at, conversion_id) = 1;

create table marts.fct_impressions as
select impressions.impression_id, impressions.impression_at, impressions.impression_date,
    getvariable('day') as impression_known_date, impressions.invalid_reason is null as is_valid,
    impressions.invalid_reason, impressions.user_hash, impressions.creative_id, impressions.segment_id,
    impressions.plan_id, impressions.campaign_id, impressions.policy_id, impressions.channel, impressions.position,
    impressions.channel || ':' || impressions.position as placement, impressions.propensity, impressions.cost,
    impressions.currency, clicks.click_at, clicks.click_date,
    case when clicks.click_id is not null then getvariable('day') end as click_known_date, conversions.conversion_at,
    case when conversions.conversion_id is not null then getvariable('day') end as conversion_known_date,
    conversions.value::decimal(18, 6) as value
from impressions
left join clicks on impressions.impression_id = clicks.impression_id and clicks.is_valid
left join conversions on impressions.impression_id = conversions.impression_id;

create table marts.fct_creative_daily as
with increments as (
    select creative_id, segment_id, channel, position, policy_id, campaign_id, impression_date,
        null::date as click_date, null::bigint as conversion_lag_days,
        count(*) filter (where is_valid) as impressions, 0 as clicks, 0 as conversions, 0 as conversions_value,
        sum(cost) filter (where is_valid) as cost, count(*) filter (where not is_valid) as invalid_impressions,
        0 as invalid_clicks
    from marts.fct_impressions group by all
    union all
    select creative_id, segment_id, channel, position, policy_id, campaign_id, impression_date, click_date, null,
        0, count(*) filter (where is_valid), 0, 0, sum(click_cost) filter (where is_valid), 0,
        count(*) filter (where not is_valid)
    from clicks group by all
    union all
    select creative_id, segment_id, channel, position, policy_id, campaign_id, impression_date, click_date,
        date_diff('day', click_date, conversion_at::date), 0, 0, count(*), sum(value), 0, 0, 0
    from conversions group by all
)
select creative_id, segment_id, channel, position, channel || ':' || position as placement, policy_id, campaign_id,
    impression_date, click_date, conversion_lag_days, getvariable('day') as known_date,
    impressions::bigint as impressions, clicks::bigint as clicks, conversions::bigint as conversions,
    coalesce(conversions_value, 0)::decimal(18, 6) as conversions_value, coalesce(cost, 0)::decimal(18, 6) as cost,
    invalid_impressions::bigint as invalid_impressions, invalid_clicks::bigint as invalid_clicks
from increments;

create table marts.dim_creatives as
select creative_id, arg_min(campaign_id, (impression_at, impression_id)) as campaign_id,
    min(impression_at) as first_impression_at, getvariable('day') as known_date
from marts.fct_impressions group by creative_id;

create table marts.dim_segments as
select distinct segment_id, getvariable('day') as known_date from marts.fct_creative_daily
union select 'all', getvariable('day');
"""


def build(landing: Path, day: str, target: Path, *, key: bytes, threads: int, memory_limit: str) -> None:
    """Parquet of one day → ``marts.*`` in the DuckDB file ``target``."""
    block = (hashlib.sha256(key).digest() if len(key) > BLOCK else key).ljust(BLOCK, b"\0")
    with duckdb.connect(str(target), config={"threads": threads, "memory_limit": memory_limit}) as connection:
        connection.execute("set preserve_insertion_order = false")
        connection.execute("create schema marts")
        for name, value in {
            "inner_key": bytes(byte ^ 0x36 for byte in block),
            "outer_key": bytes(byte ^ 0x5C for byte in block),
            "behaviours": str(landing / "behaviours" / f"known_date={day}" / "*.parquet"),
            "ad_events": str(landing / "ad_events" / f"known_date={day}" / "*.parquet"),
            "bots": BOTS,
        }.items():
            connection.execute(f"set variable {name} = $1", [value])
        connection.execute("set variable day = $1::date", [day])
        connection.execute(MARTS)
