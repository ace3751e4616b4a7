{#-
    'minor', 'adult' or 'unknown' for an age band as shops write it: 13-17, <18, under 18, 18-24, 65+, 18歳未満, adult …
    Cautious: a band that reaches below 18 is 'minor'.
-#}
{% macro age_group(age_band) -%}
    {%- set lowest = "try_cast(regexp_extract(" ~ age_band ~ ", '[0-9]+') as integer)" -%}
    case
        when regexp_matches({{ age_band }}, '(?i)minor|child|teen|未成年|少年') then 'minor'
        when regexp_matches({{ age_band }}, '(?i)^\s*(<|≤|-|under|below|up to|to |u)|未満|未满|以下') and {{ lowest }} <= 18
            then 'minor'
        when regexp_matches({{ age_band }}, '(?i)^\s*(<|≤|under|below|up to)|未満|未满|以下') then 'unknown'
        when {{ lowest }} < 18 then 'minor'
        when {{ lowest }} >= 18 then 'adult'
        when regexp_matches({{ age_band }}, '(?i)adult|成人|成年') then 'adult'
        else 'unknown'
    end
{%- endmacro %}
