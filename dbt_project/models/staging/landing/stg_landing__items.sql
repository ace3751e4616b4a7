with source as (
    select * from {{ source('raw', 'items') }}
),

final as (
    select
        item_id,
        title,
        category,
        brand,
        price,
        list_price,
        currency,
        attributes,
        image,
        stock,
        known_date,
        source_file,
        source_line
    from source
)

select * from final
