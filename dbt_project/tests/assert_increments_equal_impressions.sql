-- What the run's known_date adds to fct_creative_daily is what it adds to fct_impressions.
with impressions as (
    select
        'impressions' as measure,
        count(*) as amount
    from {{ ref('fct_impressions') }}
    where impression_known_date = {{ known_date() }} and is_valid
),

clicks as (
    select
        'clicks' as measure,
        count(*) as amount
    from {{ ref('fct_impressions') }}
    where
        click_known_date = {{ known_date() }}
        and impression_known_date between {{ lookback_start() }} and {{ known_date() }}
),

conversions as (
    select
        'conversions' as measure,
        count(*) as amount
    from {{ ref('fct_impressions') }}
    where
        conversion_known_date = {{ known_date() }}
        and impression_known_date
        between {{ lookback_start() }} - {{ whole_number('lookback_days') }} and {{ known_date() }}
),

increments as (
    select
        coalesce(sum(impressions), 0) as impressions,
        coalesce(sum(clicks), 0) as clicks,
        coalesce(sum(conversions), 0) as conversions
    from {{ ref('fct_creative_daily') }}
    where known_date = {{ known_date() }}
),

measured as (
    select * from impressions
    union all
    select * from clicks
    union all
    select * from conversions
),

final as (
    select
        measured.measure,
        measured.amount,
        case measured.measure
            when 'impressions' then increments.impressions
            when 'clicks' then increments.clicks
            else increments.conversions
        end as amount_of_increments
    from measured
    cross join increments
)

select * from final
where amount != amount_of_increments
