with days as (
    {{ portrait_days() }}
),

segments as (
    {{ users_segments_as_of_days() }}
),

behaviours as (
    select
        user_hash,
        item_id,
        behaviour,
        behaviour_date,
        known_date,
        events,
        {{ behaviour_weight() }} as points
    from {{ ref('fct_behaviours_daily') }}
    where {{ known_since('window_days') }} and item_id is not null
),

looked_at as (
    select
        days.known_date,
        behaviours.user_hash,
        behaviours.item_id,
        sum(behaviours.points * {{ recency_millionths('days.known_date', 'behaviours.behaviour_date') }}) as weight,
        coalesce(sum(behaviours.events) filter (where behaviours.behaviour = 'view'), 0) as views,
        coalesce(sum(behaviours.events) filter (where behaviours.behaviour = 'favourite'), 0) as favourites,
        coalesce(sum(behaviours.events) filter (where behaviours.behaviour = 'cart'), 0) as carts,
        coalesce(sum(behaviours.events) filter (where behaviours.behaviour = 'purchase'), 0) as purchases
    from behaviours
    inner join days
        on
            behaviours.known_date <= days.known_date
            and behaviours.behaviour_date > days.known_date - {{ whole_number('window_days') }}
    group by days.known_date, behaviours.user_hash, behaviours.item_id
),

final as (
    select
        looked_at.user_hash,
        items.category_1,
        items.category_2,
        cast(sum(looked_at.weight) as bigint) as weight,
        cast(sum(looked_at.views) as bigint) as views,
        cast(sum(looked_at.favourites) as bigint) as favourites,
        cast(sum(looked_at.carts) as bigint) as carts,
        cast(sum(looked_at.purchases) as bigint) as purchases,
        looked_at.known_date
    from looked_at
    inner join {{ ref('int_items__described') }} as items
        on looked_at.item_id = items.item_id and looked_at.known_date = items.known_date
    left join segments
        on looked_at.user_hash = segments.user_hash and looked_at.known_date = segments.known_date
    where
        items.category_1 is not null
        and coalesce(segments.segment_id, {{ segment_of_strangers() }}) != 'not_personalised'
    group by looked_at.user_hash, items.category_1, items.category_2, looked_at.known_date
)

select * from final
