{#- Rows of a source whose user has not asked to be erased since: `moment` is the column that is compared with the
    registry's `until`. A late or repeated delivery brings nobody back. -#}
{% macro not_erased(relation, moment='occurred_at', until='requested_at') -%}
    select delivered.*
    from {{ relation }} as delivered
    anti join {{ source('ledger', 'privacy_registry') }} as registry
        on
            delivered.user_hash = registry.user_hash
            and delivered.{{ moment }} <= registry.{{ until }}
            and registry.kind = 'erase'
{%- endmacro %}
