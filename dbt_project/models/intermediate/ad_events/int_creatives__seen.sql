with impressions as (
    select * from {{ ref('int_impressions__flagged') }}
    where known_date = {{ known_date() }}
),

final as (
    select
        creative_id,
        known_date,
        arg_min(campaign_id, (impression_at, impression_id)) as campaign_id,
        min(impression_at) as first_impression_at
    from impressions
    group by creative_id, known_date
)

select * from final
