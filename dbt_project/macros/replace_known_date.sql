{#-
    Materialization `replace_known_date`: in one transaction, delete the rows of the run's known_date and insert the
    fresh ones, also when there are none (models tagged portraits: of all days of the run). The second run equals the
    first, and other known_dates stay as they are.

    The table is created from the model's contract (columns and types of its YAML), so a query may read the earlier
    known_dates of `this` on the very first day. A table whose columns are not those of the contract any more is
    made anew and empty: the project's digest is part of every known_date's digest, so each of them is built again.
-#}
{% materialization replace_known_date, adapter='duckdb' %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing = load_cached_relation(this) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set declared = [] -%}
    {%- for column in model['columns'].values() -%}
        {%- do declared.append(column['name'] ~ ' ' ~ column['data_type']) -%}
    {%- endfor -%}
    {%- set present = [] -%}
    {%- if existing is not none and existing.type == 'table' -%}
        {#- Not adapter.get_columns_in_relation: it renames types (varchar becomes "character varying"). -#}
        {%- for row in run_query("select column_name, lower(column_type) from (describe " ~ existing ~ ")") -%}
            {%- do present.append(row[0] ~ ' ' ~ row[1]) -%}
        {%- endfor -%}
    {%- endif -%}

    {%- if present != declared -%}
        {%- if existing is not none -%}
            {%- call statement('drop_other_shape') -%}
                drop {{ existing.type }} {{ existing }}
            {%- endcall -%}
        {%- endif -%}
        {%- call statement('create') -%}
            create table {{ target_relation }} {{ get_table_columns_and_constraints() }}
        {%- endcall -%}
    {%- endif -%}

    {{ get_assert_columns_equivalent(sql) }}

    {%- call statement('delete') -%}
        delete from {{ target_relation }}
        where known_date in ({{ portrait_dates() if 'portraits' in model['tags'] else known_date() }})
    {%- endcall -%}
    {%- call statement('main') -%}
        insert into {{ target_relation }} by name (
            {{ sql }}
        )
    {%- endcall -%}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}
