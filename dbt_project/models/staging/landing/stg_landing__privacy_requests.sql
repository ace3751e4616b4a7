with source as (
    select * from {{ source('raw', 'privacy_requests') }}
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
