# One image for every Airflow process. Nothing is in it that a deployment changes: data is under ADLOOM_HOME
# (a volume), shops may be mounted over /opt/adloom/shops, secrets come from the environment.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 50000 adloom \
    && mkdir -p /opt/adloom /var/lib/adloom \
    && chown adloom:adloom /opt/adloom /var/lib/adloom

WORKDIR /opt/adloom
USER adloom
ENV VIRTUAL_ENV=/opt/adloom/.venv \
    PATH=/opt/adloom/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ADLOOM_HOME=/var/lib/adloom

# The lock first: code changes do not install 200 packages again.
COPY --chown=adloom:adloom requirements.txt requirements-torch.txt requirements-data.txt ./
RUN python -m venv "$VIRTUAL_ENV" \
    && pip install --no-cache-dir uv \
    && uv pip install --no-cache --compile-bytecode -r requirements.txt -r requirements-torch.txt \
    && uv pip install --no-cache --no-deps -r requirements-data.txt

COPY --chown=adloom:adloom pyproject.toml requirements.in README.md ./
COPY --chown=adloom:adloom src src
COPY --chown=adloom:adloom dags dags
COPY --chown=adloom:adloom dbt_project dbt_project
COPY --chown=adloom:adloom shops shops
RUN uv pip install --no-cache --no-deps -e .

VOLUME /var/lib/adloom
# `prepare`, `run api-server`, `run scheduler` or `run dag-processor`: what `make up` does on one machine.
ENTRYPOINT ["python", "-m", "adloom.local_airflow"]
CMD ["--help"]
