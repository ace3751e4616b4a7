with repeated as (
    {{ repeated_rows(ref('stg_landing__behaviours'), 'event_id') }}
),

final as (
    select
        source_file,
        source_line,
        {{ known_date() }} as known_date
    from repeated
)

select * from final
