with source as (
    {{ not_erased(source('raw', 'behaviours')) }}
),

final as (
    select
        event_id,
        user_hash,
        behaviour,
        occurred_at,
        item_id,
        query,
        quantity,
        price,
        known_date,
        source_file,
        source_line
    from source
)

select * from final
