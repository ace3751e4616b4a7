{#-
    Rows of the run's known_date whose `key` was brought before: by an earlier known_date of the look-back, or by an
    earlier (source_file, source_line) of the same known_date. The smallest (known_date, source_file, source_line) wins.

    Keys are compared as 8-byte hashes first, because nearly all of them occur once; only what is left is compared in full.
    Answers source_file, source_line.
-#}
{% macro repeated_rows(relation, key, condition='true') -%}
    with of_today as not materialized (
        select
            {{ key }} as key,
            hash({{ key }}) as key_hash,
            source_file,
            source_line
        from {{ relation }}
        where known_date = {{ known_date() }} and {{ condition }}
    ),

    known_before as materialized (
        select distinct {{ key }} as key
        from {{ relation }}
        where
            {{ known_earlier() }}
            and {{ condition }}
            and hash({{ key }}) in (select key_hash from of_today)
    ),

    suspects as materialized (
        select key_hash
        from of_today
        group by key_hash
        having count(*) > 1
        union all
        select hash(key) as key_hash
        from known_before
    ),

    ranked as (
        select
            key,
            source_file,
            source_line,
            row_number() over (partition by key order by source_file, source_line) as occurrence
        from of_today
        where key_hash in (select key_hash from suspects)
    )

    select
        source_file,
        source_line
    from ranked
    where occurrence > 1 or key in (select key from known_before)
{%- endmacro %}
