# The one place for what people and CI call. `make quickstart` and `make test` need Python >= 3.11, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.homestretch-installed
PYTEST_ARGS ?=

.PHONY: help setup quickstart test check format docs bench bench-rl bench-rollout bench-scaling bench-report study clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   set up, run recipes/quickstart.yaml, print the results and where the report is"
	@echo "make test         set up, run the tests (PYTEST_ARGS=... is passed on)"
	@echo "make setup        make $(VENV) with the versions of constraints.txt; does nothing if it is up to date"
	@echo "make check        format, lint, types, generated docs"
	@echo "make format       format and fix what ruff can"
	@echo "make docs         write docs/config.md and docs/recipe.schema.json from the config"
	@echo "make bench        list the benchmarks (benchmarks/README.md)"
	@echo "make study        list the studies of the method; STUDY=full_vs_paper ARGS=... runs one"
	@echo "make clean        remove $(VENV) and caches (runs/ stays)"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "homestretch needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "Python could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }
	@echo "installing into $(VENV); this takes a few minutes"
	$(BIN)/python -m pip install --quiet -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: setup
	$(BIN)/homestretch run recipes/quickstart.yaml

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m homestretch.config_docs --check

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup
	$(BIN)/python -m homestretch.config_docs

bench:
	@echo "make bench-rl        RL updates: homestretch against TRL (SETTING=last-mile ROUNDS=9 ARGS='--device cuda')"
	@echo "make bench-rollout   sampling: homestretch against generate"
	@echo "make bench-scaling   how an update's cost grows, and how far the matrix products alone are"
	@echo "make bench-report    write the tables of benchmarks/README.md and of the studies' pages from benchmarks/results/"

BENCH_ARGS = $(if $(SETTING),--setting $(SETTING)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

bench-rl: setup
	$(BIN)/python -m benchmarks.rl_throughput $(BENCH_ARGS)

bench-rollout: setup
	$(BIN)/python -m benchmarks.rollout $(BENCH_ARGS)

bench-scaling: setup
	$(BIN)/python -m benchmarks.scaling $(BENCH_ARGS)

bench-report: setup
	$(BIN)/python -m benchmarks.report --write

# the options of one: make study STUDY=arms ARGS=--help
study: setup
	@test -n "$(STUDY)" || { echo "make study STUDY=... ARGS=...; the studies, one module each (benchmarks/README.md):"; \
	  echo "arms full_vs_paper human_labels label_fraction over_optimisation"; exit 2; }
	$(BIN)/python -m benchmarks.studies.$(STUDY) $(ARGS)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache src/homestretch.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
