with impressions as (
    select * from {{ ref('int_impressions__flagged') }}
),

-- While later known_dates wait to be built again after a re-delivery, their outcomes stand beside the fresh ones of
-- an earlier known_date. The earliest is the one that holds as of every day up to the last one built.
clicks as (
    select * from {{ ref('int_clicks__linked') }}
    where invalid_reason is null
    qualify row_number() over (partition by impression_known_date, impression_id order by known_date) = 1
),

conversions as (
    select * from {{ ref('int_conversions__attributed') }}
    where is_counted
    qualify row_number() over (partition by impression_known_date, impression_id order by known_date) = 1
),

final as (
    select
        impressions.impression_id,
        impressions.impression_at,
        impressions.impression_date,
        impressions.known_date as impression_known_date,
        impressions.invalid_reason,
        impressions.user_hash,
        impressions.creative_id,
        impressions.segment_id,
        impressions.plan_id,
        impressions.campaign_id,
        impressions.policy_id,
        impressions.channel,
        impressions.position,
        impressions.propensity,
        impressions.cost,
        impressions.currency,
        clicks.click_at,
        clicks.click_date,
        clicks.known_date as click_known_date,
        clicks.click_cost,
        conversions.conversion_at,
        conversions.known_date as conversion_known_date,
        conversions.value,
        impressions.invalid_reason is null as is_valid,
        impressions.channel || ':' || impressions.position as placement
    from impressions
    -- The known_date in the join lets a reader's range of days reach the outcomes too.
    left join clicks
        on impressions.known_date = clicks.impression_known_date and impressions.impression_id = clicks.impression_id
    left join conversions
        on
            impressions.known_date = conversions.impression_known_date
            and impressions.impression_id = conversions.impression_id
)

select * from final
