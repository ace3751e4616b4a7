with source as (
    select * from {{ source('raw', 'campaigns') }}
),

final as (
    select
        campaign_id,
        scenario,
        name,
        starts_at,
        ends_at,
        offer,
        items,
        categories,
        channels,
        segments,
        budget,
        known_date,
        source_file,
        source_line,
        -- Not a column of the contract, so it is kept aside.
        extra ->> 'translations' as translations
    from source
)

select * from final
