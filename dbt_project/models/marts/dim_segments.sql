-- Built last, because a known_date with a row here is what tells `build` that other tables may hold rows of it.
-- depends_on: {{ ref('fct_creative_daily') }}
-- depends_on: {{ ref('fct_behaviours_daily') }}
-- depends_on: {{ ref('dim_items') }}
with deliveries as not materialized (
    select known_date from {{ ref('stg_landing__ad_events') }}
    union all
    select known_date from {{ ref('stg_landing__behaviours') }}
    union all
    select known_date from {{ ref('stg_landing__users') }}
    union all
    select known_date from {{ ref('stg_landing__items') }}
    union all
    select known_date from {{ ref('stg_landing__privacy_requests') }}
),

landed as (
    select known_date from deliveries
    where known_date = {{ known_date() }}
),

changes as (
    select
        segment_id,
        previous_segment_id
    from {{ ref('int_users__segmented') }}
    where known_date <= {{ known_date() }}
),

moves as (
    select
        segment_id,
        1 as users
    from changes
    union all
    select
        previous_segment_id as segment_id,
        -1 as users
    from changes
    where previous_segment_id is not null
),

members as (
    select
        segment_id,
        cast(sum(users) as bigint) as users
    from moves
    group by segment_id
),

served as (
    select distinct segment_id
    from {{ ref('fct_creative_daily') }}
    where known_date = {{ known_date() }}
),

segments as (
    select 'all' as segment_id
    union
    select 'not_personalised' as segment_id
    where exists (select 1 from changes)
    union
    select segment_id from served
),

final as (
    select
        segments.segment_id,
        case segments.segment_id
            when 'all' then '{"personalisation": "on"}'
            when 'not_personalised' then '{"personalisation": "off"}'
            else '{"served_as": ' || to_json(segments.segment_id) || '}'
        end as description,
        case when exists (select 1 from changes) then coalesce(members.users, 0) end as users,
        {{ known_date() }} as known_date
    from segments
    left join members on segments.segment_id = members.segment_id
    where exists (select 1 from landed)
)

select * from final
