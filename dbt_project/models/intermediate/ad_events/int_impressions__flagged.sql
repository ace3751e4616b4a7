with impressions as not materialized (
    select
        *,
        {{ local_date('occurred_at') }} as impression_date
    from {{ ref('stg_landing__ad_events') }}
    where known_date = {{ known_date() }} and event_type = 'impression'
),

duplicates as (
    select
        source_file,
        source_line
    from {{ ref('int_ad_events__duplicates') }}
    where known_date = {{ known_date() }}
),

deduplicated as not materialized (
    select impressions.*
    from impressions
    anti join duplicates
        on impressions.source_file = duplicates.source_file and impressions.source_line = duplicates.source_line
),

-- One row per agent, so that the regular expression is tried once for each and not once for each impression.
agents as (
    select distinct user_agent from deduplicated
),

bot_agents as (
    select user_agent
    from agents
    where regexp_matches(user_agent, {{ text_literal('bot_user_agents') }})
),

earlier as not materialized (
    select
        user_hash,
        impression_date
    from {{ this }}
    where
        {{ known_earlier() }}
        and impression_date in (select deduplicated.impression_date from deduplicated)
        and user_hash is not null
),

-- Few users pass the limit: find their days by hash, then look at those in full.
users_days as (
    select hash(user_hash, impression_date) as user_day
    from deduplicated
    where user_hash is not null
    union all
    select hash(user_hash, impression_date) as user_day
    from earlier
),

busy_users_days as materialized (
    select user_day
    from users_days
    group by user_day
    having count(*) > {{ whole_number('impressions_per_user_day') }}
),

earlier_counts as (
    select
        user_hash,
        impression_date,
        count(*) as impressions
    from earlier
    where hash(user_hash, impression_date) in (select busy_users_days.user_day from busy_users_days)
    group by user_hash, impression_date
),

busy_users_impressions as (
    select
        user_hash,
        impression_date,
        impression_id,
        row_number() over (
            partition by user_hash, impression_date order by occurred_at, impression_id
        ) as occurrence
    from deduplicated
    where hash(user_hash, impression_date) in (select busy_users_days.user_day from busy_users_days)
),

beyond_limit as (
    select busy_users_impressions.impression_id
    from busy_users_impressions
    left join earlier_counts
        on
            busy_users_impressions.user_hash = earlier_counts.user_hash
            and busy_users_impressions.impression_date = earlier_counts.impression_date
    where
        busy_users_impressions.occurrence + coalesce(earlier_counts.impressions, 0)
        > {{ whole_number('impressions_per_user_day') }}
),

final as (
    select
        deduplicated.impression_id,
        deduplicated.occurred_at as impression_at,
        deduplicated.impression_date,
        deduplicated.user_hash,
        deduplicated.creative_id,
        deduplicated.segment_id,
        deduplicated.plan_id,
        deduplicated.campaign_id,
        deduplicated.policy_id,
        deduplicated.channel,
        deduplicated.position,
        deduplicated.propensity,
        deduplicated.cost,
        deduplicated.currency,
        deduplicated.known_date,
        case
            when bot_agents.user_agent is not null then 'bot_user_agent'
            when beyond_limit.impression_id is not null then 'too_many_impressions'
        end as invalid_reason
    from deduplicated
    left join bot_agents on deduplicated.user_agent = bot_agents.user_agent
    left join beyond_limit on deduplicated.impression_id = beyond_limit.impression_id
)

select * from final
