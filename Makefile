# The only entrance: people and CI call the same targets. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for one in python3.11 python3.12 python3.13 python3; do \
	command -v $$one >/dev/null 2>&1 && $$one -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$one && break; done)
ADLOOM_HOME ?= $(CURDIR)/var
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := $(BIN)/python -m adloom.local_airflow
# Of the disk that holds the checkout: the environment takes 3 GB, the default model another with its training.
NEEDED_MB := 6000

export ADLOOM_HOME
# Compiled modules make every later start quicker by seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test proof up down lint lint-sql bench lock clean setup setup-dev

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 10

demo: setup ## seven days of real ad logs, then simulated ones that end in new ad copy, through a real Airflow
	@$(AIRFLOW) demo

up: setup ## start Airflow and leave it up; prints address and login
	@$(AIRFLOW) up

down: setup ## stop what `make up` started
	@$(AIRFLOW) down

test: setup-dev ## the test suite, without the full-size proofs
	$(BIN)/python -m pytest -m "not proof" -n 2

proof: setup-dev ## every statistical and fault test at its full stated size
	$(BIN)/python -m pytest -m proof -n 2

lint: setup-dev ## style, types, SQL and the compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) --no-print-directory lint-sql
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# The templater compiles the project as dbt would, on a warehouse in memory.
lint-sql: export DBT_TARGET_PATH = $(CURDIR)/$(VENV)/sqlfluff/target
lint-sql: export DBT_LOG_PATH = $(CURDIR)/$(VENV)/sqlfluff/logs
lint-sql: export ADLOOM_DBT_WAREHOUSE = :memory:
lint-sql: export ADLOOM_DBT_THREADS = 1
lint-sql: export ADLOOM_DBT_MEMORY_LIMIT = 1GB
lint-sql: setup-dev
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_project/models

bench: setup-dev ## speed of a day, of copy and of banners, each against a named baseline; prints ratios
	$(BIN)/python benchmarks/daily_loop.py
	$(BIN)/python benchmarks/daily_loop.py --history
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/imagery.py

lock: setup ## resolve requirements*.in again (torch stays out: see DECISIONS.md)
	$(call uv,pip compile requirements.in --upgrade --python-version 3.11 --universal --override <(echo "torch ; python_version < '0'") -o requirements.txt)
	$(call uv,pip compile requirements-dev.in --upgrade --python-version 3.11 --universal -o requirements-dev.txt)

clean: ## remove the environment and caches; what is in ADLOOM_HOME stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dbt_project/target dbt_project/logs

# --- set-up: quick when nothing changed ------------------------------------------------------------------------

setup: $(VENV)/installed
setup-dev: $(VENV)/installed-dev

# uv does not read pip's configuration; what pip is told about indexes, mirrors and certificates is handed over.
uv = eval "$$($(BIN)/python scripts/uv_environment.py)" && $(BIN)/uv $(1)

$(VENV)/bin/uv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Adloom needs Python 3.11 or newer; found: $$(python3 --version 2>&1 || true)" >&2; \
		echo "next: install one, or name it: make PYTHON=/path/to/python3.11 …" >&2; exit 1; fi
	@free=$$(df -Pm . | awk 'NR == 2 {print $$4}'); if [ "$$free" -lt $(NEEDED_MB) ]; then \
		echo "$$free MB are free here, $(NEEDED_MB) MB are needed" >&2; \
		echo "next: free some space, or check out on another disk" >&2; exit 1; fi
	$(PYTHON) -m venv $(VENV) || { echo "next: install the venv module of this Python (Debian: apt install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet uv

$(VENV)/installed: $(VENV)/bin/uv requirements.txt requirements-torch.txt requirements-data.txt pyproject.toml scripts/uv_environment.py
	$(call uv,pip install --quiet --compile-bytecode -r requirements.txt -r requirements-torch.txt)
	$(call uv,pip install --quiet --no-deps -r requirements-data.txt)
	$(call uv,pip install --quiet --no-deps -e .)
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(call uv,pip install --quiet --compile-bytecode -r requirements-dev.txt)
	@touch $@
