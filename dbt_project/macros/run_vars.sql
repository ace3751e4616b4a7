{#-
    What a model may know about the run: the known_date being built and the shop's own figures.
    All are handed over by adloom.warehouse.dbt; a missing one is an error, never a default, and nothing asks the clock.
-#}

{% macro known_date() -%}
    {%- set value = var('known_date') | string -%}
    {%- if not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', value) -%}
        {{ exceptions.raise_compiler_error("known_date must be YYYY-MM-DD, got " ~ value) }}
    {%- endif -%}
    date '{{ value }}'
{%- endmacro %}

{#- The first known_date in which duplicates, impressions, clicks and waiting conversions are looked for. -#}
{% macro lookback_start() -%}
    cast({{ known_date() }} - {{ whole_number('lookback_days') }} as date)
{%- endmacro %}

{#- Rows of the look-back that were known before the run's known_date. -#}
{% macro known_earlier(column='known_date') -%}
    {{ column }} >= {{ lookback_start() }} and {{ column }} < {{ known_date() }}
{%- endmacro %}

{% macro whole_number(name) -%}
    {{ var(name) | string | int(default=none) if (var(name) | string).isdigit()
       else exceptions.raise_compiler_error(name ~ " must be a whole number, got " ~ var(name)) }}
{%- endmacro %}

{% macro text_literal(name) -%}
    '{{ (var(name) | string).replace("'", "''") }}'
{%- endmacro %}

{% macro boolean_literal(name) -%}
    {{ 'true' if var(name) is sameas true else 'false' if var(name) is sameas false
       else exceptions.raise_compiler_error(name ~ " must be true or false, got " ~ var(name)) }}
{%- endmacro %}

{#-
    The shop's calendar date of a UTC timestamp. Changing zones row by row costs a quarter of a microsecond, so
    it is kept for the hours around midnight and for other days: well inside the run's own day the date is known.
-#}
{% macro local_date(column) -%}
    {%- if var('time_zone') == 'UTC' -%}
    cast({{ column }} as date)
    {%- else -%}
    {%- set zone = text_literal('time_zone') -%}
    {%- set day_start -%}
        timezone('UTC', timezone({{ zone }}, cast({{ known_date() }} as timestamp)))
    {%- endset -%}
    case
        when
            {{ column }} >= {{ day_start }} + interval 3 hours
            and {{ column }} < {{ day_start }} + interval 20 hours
            then {{ known_date() }}
        else cast(timezone({{ zone }}, timezone('UTC', {{ column }})) as date)
    end
    {%- endif -%}
{%- endmacro %}
