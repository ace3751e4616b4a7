with source as (
    {{ not_erased(source('raw', 'privacy_requests'), 'requested_at') }}
),

final as (
    select
        user_hash,
        kind,
        requested_at,
        known_date,
        source_file,
        source_line
    from source
)

select * from final
