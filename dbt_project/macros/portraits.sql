{#-
    Portraits are made for a list of days at once, the run's known_date the last of them: each row is a function of the
    facts known by the end of its own day, so how days are grouped into runs does not matter.
    The figures are handed over by adloom.warehouse.dbt.
-#}

{#- date '2024-03-01', date '2024-03-02' … -#}
{% macro portrait_dates() -%}
    {%- for value in var('portrait_days').split(',') -%}
        {%- if not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', value | string) -%}
            {{ exceptions.raise_compiler_error("portrait_days must be YYYY-MM-DD, got " ~ value) }}
        {%- endif -%}
        date '{{ value }}'{{ ", " if not loop.last }}
    {%- endfor -%}
{%- endmacro %}

{#- One row per day, as known_date. -#}
{% macro portrait_days() -%}
    select unnest([{{ portrait_dates() }}]) as known_date
{%- endmacro %}

{#- Facts that some of the days may look at, when they look back this far. -#}
{% macro known_since(days) -%}
    known_date > list_min([{{ portrait_dates() }}]) - {{ whole_number(days) }} and known_date <= {{ known_date() }}
{%- endmacro %}

{#- What a behaviour says about interest, in views; repeats of one behaviour on one item and day count up to five. -#}
{% macro behaviour_weight() -%}
    least(events, 5) * case behaviour
        when 'view' then 1
        when 'favourite' then 3
        when 'cart' then 4
        when 'purchase' then 6
        else 0
    end
{%- endmacro %}

{#- Whole millionths: sums do not depend on the order of rows. -#}
{% macro recency_millionths(day, date) -%}
    cast(round(1000000 * pow(0.5, ({{ day }} - {{ date }}) / {{ positive_number('half_life_days') }})) as bigint)
{%- endmacro %}

{% macro positive_number(name) -%}
    {{ var(name) | float(default=none) if (var(name) | float(default=0)) > 0
       else exceptions.raise_compiler_error(name ~ " must be a number above 0, got " ~ var(name)) }}
{%- endmacro %}

{#- A list of texts, which come separated by /: first levels of category paths hold none. -#}
{% macro text_list(name) -%}
    string_split({{ text_literal(name) }}, '/')
{%- endmacro %}

{#- Each user's segment as of each day, for users of whom a profile or a request is known. -#}
{% macro users_segments_as_of_days() -%}
    select
        days.known_date,
        segmented.user_hash,
        arg_max(segmented.segment_id, segmented.known_date) as segment_id
    from {{ ref('int_users__segmented') }} as segmented
    inner join days on segmented.known_date <= days.known_date
    group by days.known_date, segmented.user_hash
{%- endmacro %}

{#- The segment of a user of whom neither is known. -#}
{% macro segment_of_strangers() -%}
    {{ "'not_personalised'" if var('unknown_age_is_minor') else "'all'" }}
{%- endmacro %}
