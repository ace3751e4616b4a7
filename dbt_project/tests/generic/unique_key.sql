{#-
    Each combination of the columns occurs once. Counting 8-byte hashes first is much cheaper than counting texts;
    only combinations whose hash occurs twice are compared in full.
-#}
{% test unique_key(model, columns) %}
with repeated_hashes as (
    select hash({{ columns | join(', ') }}) as key_hash
    from {{ model }}
    group by key_hash
    having count(*) > 1
)

select
    {{ columns | join(', ') }},
    count(*) as occurrences
from {{ model }}
where hash({{ columns | join(', ') }}) in (select key_hash from repeated_hashes)
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}
