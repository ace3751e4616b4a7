with source as (
    {{ not_erased(source('raw', 'ad_events')) }}
),

final as (
    select
        event_id,
        event_type,
        occurred_at,
        creative_id,
        user_hash,
        plan_id,
        propensity,
        value,
        cost,
        currency,
        user_agent,
        known_date,
        source_file,
        source_line,
        case event_type
            -- An impression that names no impression_id is known by its event_id.
            when 'impression' then coalesce(impression_id, event_id)
            else impression_id
        end as impression_id,
        coalesce(segment_id, 'all') as segment_id,
        coalesce(campaign_id, 'none') as campaign_id,
        coalesce(policy_id, 'default') as policy_id,
        coalesce(channel, 'unknown') as channel,
        coalesce(position, 'unknown') as position
    from source
)

select * from final
