with days as (
    {{ portrait_days() }}
),

deliveries as (
    select
        item_id,
        category,
        currency,
        price,
        known_date
    from {{ ref('dim_items') }}
    where known_date <= {{ known_date() }}
),

latest as (
    select
        days.known_date,
        deliveries.item_id,
        max(deliveries.known_date) as delivered_on
    from deliveries
    inner join days on deliveries.known_date <= days.known_date
    group by days.known_date, deliveries.item_id
),

split as (
    select
        latest.known_date,
        latest.item_id,
        deliveries.currency,
        deliveries.price,
        nullif(trim(split_part(deliveries.category, '/', 1)), '') as category_1,
        nullif(trim(split_part(deliveries.category, '/', 2)), '') as second_level
    from latest
    inner join deliveries on latest.item_id = deliveries.item_id and latest.delivered_on = deliveries.known_date
),

levelled as (
    select
        known_date,
        item_id,
        currency,
        price,
        category_1,
        case when second_level is null then category_1 else category_1 || '/' || second_level end as category_2
    from split
),

priced as (
    select
        item_id,
        known_date,
        -- The place of the item among the prices of its category; ties share the place in their middle.
        rank() over same_category + (count(*) over same_price - 1) / 2.0 - 1 as cheaper,
        count(*) over whole_category as items
    from levelled
    where price is not null and category_2 is not null
    window
        whole_category as (partition by known_date, category_2, currency),
        same_category as (partition by known_date, category_2, currency order by price),
        same_price as (partition by known_date, category_2, currency, price)
),

final as (
    select
        levelled.item_id,
        levelled.category_1,
        levelled.category_2,
        levelled.known_date,
        -- Fewer than four prices are no distribution.
        case when priced.items >= 4 then cast(round(1000 * priced.cheaper / (priced.items - 1)) as bigint) end
            as price_position
    from levelled
    left join priced on levelled.item_id = priced.item_id and levelled.known_date = priced.known_date
    where
        levelled.category_1 is null
        or not list_contains({{ text_list('left_out_categories') }}, levelled.category_1)
)

select * from final
