{#- Schemas are named as the layers are: one warehouse per shop, so no prefix keeps anybody apart. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
