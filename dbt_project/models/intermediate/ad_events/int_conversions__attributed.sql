with fresh as (
    select
        events.event_id as conversion_id,
        events.impression_id as named_impression_id,
        events.user_hash,
        events.occurred_at as conversion_at,
        {{ local_date('events.occurred_at') }} as conversion_date,
        events.value
    from {{ ref('stg_landing__ad_events') }} as events
    anti join {{ ref('int_ad_events__duplicates') }} as duplicates
        on
            events.known_date = duplicates.known_date
            and events.source_file = duplicates.source_file
            and events.source_line = duplicates.source_line
    where events.known_date = {{ known_date() }} and events.event_type = 'conversion'
),

earlier as (
    select * from {{ this }}
    where {{ known_earlier() }}
),

-- Conversions that had no click to belong to on any day so far. Once decided, a conversion is never looked at again.
waiting as (
    select
        earlier.conversion_id,
        earlier.named_impression_id,
        earlier.user_hash,
        earlier.conversion_at,
        earlier.conversion_date,
        earlier.value
    from earlier
    anti join earlier as decided
        on earlier.conversion_id = decided.conversion_id and decided.click_id is not null
    where earlier.click_id is null
),

undecided as (
    select
        *,
        true as is_fresh
    from fresh
    union all
    select
        *,
        false as is_fresh
    from waiting
),

clicks as (
    select * from {{ ref('int_clicks__linked') }}
    where
        known_date >= {{ lookback_start() }}
        and known_date <= {{ known_date() }}
        and invalid_reason is null
),

clicks_of_conversions as (
    select
        undecided.conversion_id,
        clicks.*
    from undecided
    inner join clicks on undecided.named_impression_id = clicks.impression_id
    union all
    select
        undecided.conversion_id,
        clicks.*
    from undecided
    inner join clicks on undecided.user_hash = clicks.user_hash
    where undecided.named_impression_id is null
),

last_clicks as (
    select
        undecided.conversion_id,
        undecided.conversion_at,
        candidates.click_id,
        candidates.click_at,
        candidates.click_date,
        candidates.impression_id,
        candidates.impression_known_date,
        candidates.creative_id,
        candidates.segment_id,
        candidates.campaign_id,
        candidates.policy_id,
        candidates.channel,
        candidates.position,
        candidates.impression_date
    from undecided
    inner join clicks_of_conversions as candidates on undecided.conversion_id = candidates.conversion_id
    where
        candidates.click_at <= undecided.conversion_at
        and undecided.conversion_at
        <= candidates.click_at + interval '1 day' * {{ whole_number('attribution_window_days') }}
        -- Where clocks go forward, 7 × 24 hours can end on the eighth date.
        and date_diff('day', candidates.click_date, undecided.conversion_date)
        <= {{ whole_number('attribution_window_days') }}
    qualify
        row_number() over (
            partition by undecided.conversion_id order by candidates.click_at desc, candidates.click_id desc
        ) = 1
),

decided as (
    select
        last_clicks.*,
        row_number() over (
            partition by last_clicks.click_id order by last_clicks.conversion_at, last_clicks.conversion_id
        ) as occurrence,
        last_clicks.click_id in (
            select earlier.click_id from earlier
            where earlier.is_counted
        ) as is_counted_before
    from last_clicks
),

final as (
    select
        undecided.conversion_id,
        undecided.named_impression_id,
        undecided.user_hash,
        undecided.conversion_at,
        undecided.conversion_date,
        undecided.value,
        case
            when decided.click_id is null then 'no_click'
            when decided.is_counted_before or decided.occurrence > 1 then 'repeat_conversion'
        end as uncounted_reason,
        uncounted_reason is null as is_counted,
        decided.click_id,
        decided.click_at,
        decided.click_date,
        decided.impression_id,
        decided.impression_known_date,
        decided.creative_id,
        decided.segment_id,
        decided.campaign_id,
        decided.policy_id,
        decided.channel,
        decided.position,
        decided.impression_date,
        {{ known_date() }} as known_date
    from undecided
    left join decided on undecided.conversion_id = decided.conversion_id
    where undecided.is_fresh or decided.click_id is not null
)

select * from final
