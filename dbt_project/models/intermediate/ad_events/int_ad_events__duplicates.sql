with repeated_events as (
    {{ repeated_rows(ref('stg_landing__ad_events'), 'event_id') }}
),

repeated_impressions as (
    {{ repeated_rows(ref('stg_landing__ad_events'), 'impression_id', "event_type = 'impression'") }}
),

repeated as (
    select
        source_file,
        source_line,
        'event_id' as repeated_key
    from repeated_events
    union all
    select
        source_file,
        source_line,
        'impression_id' as repeated_key
    from repeated_impressions
),

final as (
    select
        source_file,
        source_line,
        min(repeated_key) as repeated_key,
        {{ known_date() }} as known_date
    from repeated
    group by source_file, source_line
)

select * from final
