with behaviours as not materialized (
    select
        *,
        {{ local_date('occurred_at') }} as behaviour_date
    from {{ ref('stg_landing__behaviours') }}
    where known_date = {{ known_date() }}
),

duplicates as (
    select
        source_file,
        source_line
    from {{ ref('int_behaviours__duplicates') }}
    where known_date = {{ known_date() }}
),

final as (
    select
        behaviours.user_hash,
        behaviours.item_id,
        behaviours.behaviour,
        behaviours.behaviour_date,
        count(*) as events,
        cast(coalesce(sum(behaviours.quantity), 0) as bigint) as quantity,
        cast(coalesce(sum(behaviours.price * behaviours.quantity), 0) as decimal(38, 6)) as value,
        {{ known_date() }} as known_date
    from behaviours
    anti join duplicates
        on behaviours.source_file = duplicates.source_file and behaviours.source_line = duplicates.source_line
    group by behaviours.user_hash, behaviours.item_id, behaviours.behaviour, behaviours.behaviour_date
)

select * from final
