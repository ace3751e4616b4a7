with fresh as (
    select
        events.event_id as click_id,
        events.impression_id,
        events.occurred_at as click_at,
        {{ local_date('events.occurred_at') }} as click_date,
        events.user_hash as click_user_hash,
        events.cost as click_cost,
        coalesce(
            regexp_matches(events.user_agent, {{ text_literal('bot_user_agents') }}), false
        ) as is_bot
    from {{ ref('stg_landing__ad_events') }} as events
    anti join {{ ref('int_ad_events__duplicates') }} as duplicates
        on
            events.known_date = duplicates.known_date
            and events.source_file = duplicates.source_file
            and events.source_line = duplicates.source_line
    where events.known_date = {{ known_date() }} and events.event_type = 'click'
),

impressions as not materialized (
    select * from {{ ref('int_impressions__flagged') }}
    where known_date >= {{ lookback_start() }} and known_date <= {{ known_date() }}
),

-- Clicks that came before their impression; only an impression of today can change that.
waiting as (
    select
        click_id,
        impression_id,
        click_at,
        click_date,
        click_user_hash,
        click_cost,
        is_bot
    from {{ this }}
    where {{ known_earlier() }} and invalid_reason = 'no_impression'
),

linkable as (
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

linked as (
    select
        linkable.*,
        impressions.impression_at,
        impressions.impression_date,
        impressions.invalid_reason as impression_invalid_reason,
        impressions.user_hash as impression_user_hash,
        impressions.creative_id,
        impressions.segment_id,
        impressions.campaign_id,
        impressions.policy_id,
        impressions.channel,
        impressions.position,
        impressions.known_date as impression_known_date
    from linkable
    left join impressions on linkable.impression_id = impressions.impression_id
    where linkable.is_fresh or impressions.known_date = {{ known_date() }}
),

-- With the known_date, because an id that comes again after the look-back is another impression.
counted_before as (
    select
        clicks.impression_id,
        clicks.impression_known_date
    from {{ this }} as clicks
    semi join linked
        on
            clicks.impression_id = linked.impression_id
            and clicks.impression_known_date = linked.impression_known_date
    where {{ known_earlier('clicks.known_date') }} and clicks.invalid_reason is null
),

judged as (
    select
        *,
        case
            when impression_at is null then 'no_impression'
            when impression_invalid_reason is not null then 'invalid_impression'
            when is_bot then 'bot_user_agent'
            when click_at < impression_at then 'before_impression'
        end as own_reason
    from linked
),

ranked as (
    select
        judged.*,
        row_number() over (
            partition by judged.impression_id, judged.own_reason is null order by judged.click_at, judged.click_id
        ) as occurrence,
        counted_before.impression_id is not null as is_counted_before
    from judged
    left join counted_before on judged.impression_id = counted_before.impression_id
),

final as (
    select
        click_id,
        impression_id,
        click_at,
        click_date,
        case
            when own_reason is not null then own_reason
            when is_counted_before or occurrence > 1 then 'repeat_click'
        end as invalid_reason,
        is_bot,
        click_user_hash,
        coalesce(click_user_hash, impression_user_hash) as user_hash,
        click_cost,
        creative_id,
        segment_id,
        campaign_id,
        policy_id,
        channel,
        position,
        impression_at,
        impression_date,
        impression_known_date,
        {{ known_date() }} as known_date
    from ranked
)

select * from final
