with segmented as (
    select * from {{ ref('int_users__segmented') }}
),

final as (
    select
        user_hash,
        segment_id,
        known_date
    from segmented
    where segment_id is distinct from previous_segment_id
)

select * from final
