# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --constraint constraints.txt
# One thread a process: the fleet and the aggregator share the cores between them.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench bench-main bench-agent bench-kills clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## train a fleet of agents end to end; ARGS="..." is passed to `rivulet-fleet demo`
	$(BIN)/rivulet-fleet demo $(ARGS)

test: $(VENV)/.dev ## install what the tests need and run them all; ARGS="..." is passed to pytest
	scripts/install-debian-packages mosquitto chromium chromium-driver openssl
	$(BIN)/pytest $(ARGS)

check: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-main bench-agent bench-kills ## print every measured figure beside its goal

bench-main: $(VENV)/.dev ## quality, bytes and time on MovieLens-100K; DATA=path/to/ratings
	$(BIN)/python -m device_sims.bench.main_job $(if $(DATA),--data $(DATA))

bench-agent: $(VENV)/.dev ## memory and start of one agent process
	$(BIN)/python -m device_sims.bench.agent

bench-kills: $(VENV)/.dev ## kill -9 at random: updates lost, updates doubled
	$(BIN)/python -m device_sims.bench.kills

clean: ## remove the virtual environment and everything a run wrote
	rm -rf $(VENV) runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a few minutes the first time"
	$(INSTALL) --editable ".[sims]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a few minutes the first time"
	$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.demo
