with source as (
    select * from {{ source('raw', 'hot_events') }}
),

final as (
    select
        event_id,
        title,
        keywords,
        starts_at,
        ends_at,
        source,
        known_date,
        source_file,
        source_line
    from source
)

select * from final
