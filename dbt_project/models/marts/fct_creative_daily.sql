with impressions as (
    select
        creative_id,
        segment_id,
        channel,
        position,
        policy_id,
        campaign_id,
        impression_date,
        cast(null as date) as click_date,
        cast(null as bigint) as conversion_lag_days,
        count(*) filter (where invalid_reason is null) as impressions,
        0 as clicks,
        0 as conversions,
        0 as conversions_value,
        sum(cost) filter (where invalid_reason is null) as cost,
        count(*) filter (where invalid_reason is not null) as invalid_impressions,
        0 as invalid_clicks
    from {{ ref('int_impressions__flagged') }}
    where known_date = {{ known_date() }}
    group by all
),

clicks as (
    select
        creative_id,
        segment_id,
        channel,
        position,
        policy_id,
        campaign_id,
        impression_date,
        click_date,
        cast(null as bigint) as conversion_lag_days,
        0 as impressions,
        count(*) filter (where invalid_reason is null) as clicks,
        0 as conversions,
        0 as conversions_value,
        sum(click_cost) filter (where invalid_reason is null) as cost,
        0 as invalid_impressions,
        count(*) filter (where invalid_reason is not null) as invalid_clicks
    from {{ ref('int_clicks__linked') }}
    where known_date = {{ known_date() }} and invalid_reason is distinct from 'no_impression'
    group by all
),

conversions as (
    select
        creative_id,
        segment_id,
        channel,
        position,
        policy_id,
        campaign_id,
        impression_date,
        click_date,
        date_diff('day', click_date, conversion_date) as conversion_lag_days,
        0 as impressions,
        0 as clicks,
        count(*) as conversions,
        sum(value) as conversions_value,
        0 as cost,
        0 as invalid_impressions,
        0 as invalid_clicks
    from {{ ref('int_conversions__attributed') }}
    where known_date = {{ known_date() }} and is_counted
    group by all
),

increments as (
    select * from impressions
    union all
    select * from clicks
    union all
    select * from conversions
),

final as (
    select
        creative_id,
        segment_id,
        channel,
        position,
        channel || ':' || position as placement,
        policy_id,
        campaign_id,
        impression_date,
        click_date,
        conversion_lag_days,
        cast(impressions as bigint) as impressions,
        cast(clicks as bigint) as clicks,
        cast(conversions as bigint) as conversions,
        cast(coalesce(conversions_value, 0) as decimal(38, 6)) as conversions_value,
        cast(coalesce(cost, 0) as decimal(38, 6)) as cost,
        cast(invalid_impressions as bigint) as invalid_impressions,
        cast(invalid_clicks as bigint) as invalid_clicks,
        {{ known_date() }} as known_date
    from increments
)

select * from final
