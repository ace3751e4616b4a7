with items as (
    select * from {{ ref('stg_landing__items') }}
    where known_date = {{ known_date() }}
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
        known_date
    from items
    qualify row_number() over (partition by item_id order by source_file desc, source_line desc) = 1
)

select * from final
