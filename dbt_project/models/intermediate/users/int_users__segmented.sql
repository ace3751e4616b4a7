with profiles as (
    select
        user_hash,
        personalisation,
        {{ age_group('age_band') }} as age_group
    from {{ ref('stg_landing__users') }}
    where known_date = {{ known_date() }}
    qualify row_number() over (partition by user_hash order by source_file desc, source_line desc) = 1
),

requests as (
    select
        user_hash,
        kind,
        requested_at
    from {{ ref('stg_landing__privacy_requests') }}
    where known_date = {{ known_date() }}
    qualify
        row_number() over (
            partition by user_hash order by requested_at desc, source_file desc, source_line desc
        ) = 1
),

touched as (
    select user_hash from profiles
    union
    select user_hash from requests
),

before as (
    select earlier.*
    from {{ this }} as earlier
    semi join touched on earlier.user_hash = touched.user_hash
    where earlier.known_date < {{ known_date() }}
    qualify row_number() over (partition by earlier.user_hash order by earlier.known_date desc) = 1
),

merged as (
    select
        touched.user_hash,
        before.segment_id as previous_segment_id,
        before.age_group as previous_age_group,
        before.is_personalisation_on as previous_personalisation_on,
        before.last_requested_at as previous_requested_at,
        before.last_request as previous_request,
        before.user_hash is not null as is_known,
        case when profiles.user_hash is not null then profiles.age_group else before.age_group end as age_group,
        case
            when profiles.user_hash is not null then coalesce(profiles.personalisation, true)
            else coalesce(before.is_personalisation_on, true)
        end as is_personalisation_on,
        -- The request that was made last counts, also when an older one arrives after it.
        case
            when requests.requested_at >= coalesce(before.last_requested_at, requests.requested_at) then requests.kind
            else before.last_request
        end as last_request,
        greatest(requests.requested_at, before.last_requested_at) as last_requested_at
    from touched
    left join profiles on touched.user_hash = profiles.user_hash
    left join requests on touched.user_hash = requests.user_hash
    left join before on touched.user_hash = before.user_hash
),

final as (
    select
        user_hash,
        case
            when not is_personalisation_on then 'not_personalised'
            when last_request in ('erase', 'opt_out') then 'not_personalised'
            when age_group = 'minor' then 'not_personalised'
            when {{ boolean_literal('unknown_age_is_minor') }} and coalesce(age_group, 'unknown') = 'unknown'
                then 'not_personalised'
            else 'all'
        end as segment_id,
        previous_segment_id,
        age_group,
        is_personalisation_on,
        last_request,
        last_requested_at,
        {{ known_date() }} as known_date
    from merged
    where
        not is_known
        or age_group is distinct from previous_age_group
        or is_personalisation_on is distinct from previous_personalisation_on
        or last_requested_at is distinct from previous_requested_at
        or last_request is distinct from previous_request
)

select * from final
