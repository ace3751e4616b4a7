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
        source_line,
        -- Not a column of the contract, so it is kept aside.
        extra ->> 'translations' as translations
    from source
)

select * from final
