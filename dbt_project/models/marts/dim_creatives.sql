with seen as (
    select * from {{ ref('int_creatives__seen') }}
),

final as (
    select
        creative_id,
        arg_min(campaign_id, known_date) as campaign_id,
        arg_min(first_impression_at, known_date) as first_impression_at,
        min(known_date) as known_date
    from seen
    group by creative_id
)

select * from final
