with days as (
    {{ portrait_days() }}
),

segments as (
    {{ users_segments_as_of_days() }}
),

shop as (
    select min(known_date) as first_date from {{ ref('fct_behaviours_daily') }}
),

behaviours as (
    select
        user_hash,
        item_id,
        behaviour,
        behaviour_date,
        known_date,
        {{ behaviour_weight() }} as points
    from {{ ref('fct_behaviours_daily') }}
    where {{ known_since('history_days') }}
),

active_days as (
    select distinct
        user_hash,
        behaviour_date,
        known_date
    from behaviours
),

lives as (
    select
        days.known_date,
        active_days.user_hash,
        min(active_days.behaviour_date) as first_on,
        max(active_days.behaviour_date) as last_on,
        min(active_days.behaviour_date) filter (
            where active_days.behaviour_date > days.known_date - {{ whole_number('active_days') }}
        ) as back_on,
        max(active_days.behaviour_date) filter (
            where active_days.behaviour_date <= days.known_date - {{ whole_number('active_days') }}
        ) as before_on,
        max(active_days.known_date) as last_known_date
    from active_days
    inner join days
        on
            active_days.known_date <= days.known_date
            and active_days.behaviour_date > days.known_date - {{ whole_number('history_days') }}
    group by days.known_date, active_days.user_hash
),

funnels as (
    select
        days.known_date,
        behaviours.user_hash,
        bool_or(behaviours.behaviour in ('favourite', 'cart')) as has_kept,
        bool_or(behaviours.behaviour = 'purchase') as has_bought,
        sum(
            items.price_position
            * behaviours.points
            * {{ recency_millionths('days.known_date', 'behaviours.behaviour_date') }}
        ) as price_points,
        sum(
            behaviours.points * {{ recency_millionths('days.known_date', 'behaviours.behaviour_date') }}
        ) filter (where items.price_position is not null) as priced_points
    from behaviours
    inner join days
        on
            behaviours.known_date <= days.known_date
            and behaviours.behaviour_date > days.known_date - {{ whole_number('window_days') }}
    left join {{ ref('int_items__described') }} as items
        on behaviours.item_id = items.item_id and days.known_date = items.known_date
    group by days.known_date, behaviours.user_hash
),

main_interests as (
    select
        known_date,
        user_hash,
        category_1,
        sum(weight) as weight
    from {{ ref('int_users__interests') }}
    where known_date in ({{ portrait_dates() }})
    group by known_date, user_hash, category_1
    qualify row_number() over (partition by known_date, user_hash order by sum(weight) desc, category_1 asc) = 1
),

interests as (
    select
        main_interests.known_date,
        main_interests.user_hash,
        main_interests.category_1 as interest_1,
        -- The narrower category only where it is a good part of the wider one.
        case when narrow.weight >= 0.4 * main_interests.weight then narrow.category_2 end as interest_2
    from main_interests
    inner join {{ ref('int_users__interests') }} as narrow
        on
            main_interests.known_date = narrow.known_date
            and main_interests.user_hash = narrow.user_hash
            and main_interests.category_1 = narrow.category_1
    -- Half a view of today: what is fainter is no interest.
    where main_interests.weight >= 500000
    qualify
        row_number() over (
            partition by narrow.known_date, narrow.user_hash order by narrow.weight desc, narrow.category_2 asc
        ) = 1
),

users as (
    select
        known_date,
        user_hash
    from segments
    union
    select
        known_date,
        user_hash
    from lives
),

described as (
    select
        users.known_date,
        users.user_hash,
        coalesce(segments.segment_id, {{ segment_of_strangers() }}) as segment_id,
        interests.interest_1,
        interests.interest_2,
        case
            when funnels.price_points < 400 * funnels.priced_points then 'value'
            when funnels.price_points < 600 * funnels.priced_points then 'middle'
            when funnels.price_points >= 600 * funnels.priced_points then 'premium'
        end as price_level,
        case
            when lives.last_on is null then null
            when lives.last_on <= users.known_date - {{ whole_number('lapsed_days') }} then 'lapsed'
            when lives.last_on <= users.known_date - {{ whole_number('active_days') }} then 'lapsing'
            -- Whoever was there from the shop's first days on may have been there before.
            when
                lives.before_on is null
                and lives.first_on >= shop.first_date + {{ whole_number('active_days') }}
                then 'new'
            when lives.back_on - lives.before_on > {{ whole_number('active_days') }} * 2 then 'returning'
            else 'active'
        end as life_cycle,
        case
            when funnels.has_bought then 'buys'
            when funnels.has_kept then 'keeps'
            when funnels.user_hash is not null then 'looks'
        end as engagement,
        funnels.has_kept,
        funnels.has_bought,
        lives.last_known_date
    from users
    cross join shop
    left join segments on users.known_date = segments.known_date and users.user_hash = segments.user_hash
    left join lives on users.known_date = lives.known_date and users.user_hash = lives.user_hash
    left join funnels on users.known_date = funnels.known_date and users.user_hash = funnels.user_hash
    left join interests on users.known_date = interests.known_date and users.user_hash = interests.user_hash
),

-- Of users who are not personalised nothing is kept but that they are not.
final as (
    select
        user_hash,
        segment_id,
        known_date,
        case when segment_id != 'not_personalised' then interest_1 end as interest_1,
        case when segment_id != 'not_personalised' then interest_2 end as interest_2,
        case when segment_id != 'not_personalised' then price_level end as price_level,
        case when segment_id != 'not_personalised' then life_cycle end as life_cycle,
        case when segment_id != 'not_personalised' then engagement end as engagement,
        coalesce(segment_id != 'not_personalised' and has_kept, false) as has_kept,
        coalesce(segment_id != 'not_personalised' and has_bought, false) as has_bought,
        case when segment_id != 'not_personalised' then last_known_date end as last_known_date
    from described
)

select * from final
