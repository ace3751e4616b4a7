with source as (
    {{ not_erased(source('raw', 'users'), 'known_date', 'known_date') }}
),

final as (
    select
        user_hash,
        gender,
        age_band,
        region,
        interest_tags,
        personalisation,
        known_date,
        source_file,
        source_line
    from source
)

select * from final
