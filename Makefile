# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# ONNX Runtime Training replaces the module onnxruntime, so it has an environment of its own.
ORT_TRAINING := $(VENV)-ort-training
FLOWER := $(VENV)-flower
# Its last release has wheels for x86-64, and for no Python newer than 3.11.
ORT_TRAINING_FITS := $(shell $(PYTHON) -c 'import platform, sys; \
  print("yes" if sys.version_info < (3, 12) and platform.machine() == "x86_64" else "")')
INSTALL := pip install --quiet --constraint constraints.txt
# One thread a process: the fleet and the aggregator share the cores between them.
export OMP_NUM_THREADS ?= 1
# Tests and benchmarks that use ONNX Runtime without the agent tell its vendor nothing either.
export ORT_DISABLE_TELEMETRY ?= 1

# The parts of the tests, two at a time; one that is long and begins late would be waited for.
TESTS := test-programs test-simulator test-aggregator test-fleet test-ort-training test-others
SIMULATOR := $(addprefix tests/device_sims/,simulation comparison live)

.DEFAULT_GOAL := help
.PHONY: help demo environments test $(TESTS) test-arm64 check bench bench-main bench-agent bench-kills bench-runtimes bench-codec bench-merging bench-attacks bench-aggregator bench-fleet chaos fuzz migration clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## train a fleet of agents end to end; ARGS="..." is passed to `rivulet-fleet demo`
	$(BIN)/rivulet-fleet demo $(ARGS)

environments: $(VENV)/.dev $(if $(ORT_TRAINING_FITS),$(ORT_TRAINING)/.dev) ## install what checks and tests need

test: environments ## install what the tests need and run them all; ARGS="..." is passed to pytest
	scripts/install-debian-packages mosquitto postgresql chromium chromium-driver openssl
	$(if $(ARGS),$(BIN)/pytest $(ARGS),$(MAKE) --no-print-directory --jobs 2 --output-sync=line $(TESTS))

test-programs:
	$(BIN)/pytest tests/export

test-simulator:
	$(BIN)/pytest $(SIMULATOR)

test-aggregator:
	$(BIN)/pytest tests/aggregator

test-fleet:
	$(BIN)/pytest tests/device_sims $(SIMULATOR:%=--ignore %)

test-ort-training:
	$(if $(ORT_TRAINING_FITS),$(ORT_TRAINING)/bin/pytest tests/ort_training,\
	  @echo "tests/ort_training not run: no ONNX Runtime Training for this Python and machine")

test-others:
	$(BIN)/pytest --ignore tests/aggregator --ignore tests/device_sims --ignore tests/export --ignore tests/ort_training

test-arm64: $(VENV)/.dev ## train in an emulated arm64 userland and compare with this machine; takes minutes, needs root
	scripts/test-arm64

check: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-main bench-agent bench-kills bench-runtimes bench-codec bench-merging bench-attacks bench-aggregator bench-fleet ## print every measured figure beside its goal

bench-main: $(VENV)/.dev ## quality, bytes and time on MovieLens-100K; DATA=path/to/ratings
	$(BIN)/python -m device_sims.bench.main_job $(if $(DATA),--data $(DATA))

bench-agent: $(VENV)/.dev ## memory and start of one agent process
	$(BIN)/python -m device_sims.bench.agent

bench-kills: $(VENV)/.dev ## kill -9 at random: updates lost, updates doubled
	$(BIN)/python -m device_sims.bench.kills

bench-runtimes: $(VENV)/.dev $(ORT_TRAINING)/.dev ## a local update on every runtime, and as the catalogue grows
	$(BIN)/python -m device_sims.bench.runtimes --ort-training $(ORT_TRAINING)/bin/python

bench-codec: $(VENV)/.dev ## bytes against bounds and other codecs, time, and what it costs in quality
	$(BIN)/python -m device_sims.bench.codec $(if $(DATA),--data $(DATA))

bench-merging: $(VENV)/.dev ## time to decode and merge one update, as the table grows
	$(BIN)/python -m device_sims.bench.merging

bench-attacks: $(VENV)/.dev ## hostile devices against each defence: quality, and exposure of a promoted item; an hour
	$(BIN)/python -m device_sims.bench.attacks --processes 2 $(if $(DATA),--data $(DATA))

bench-aggregator: $(VENV)/.dev ## updates a second, memory and start of one aggregator, on SQLite and PostgreSQL; takes ten minutes
	$(BIN)/python -m device_sims.bench.aggregator

bench-fleet: $(VENV)/.dev $(FLOWER)/.bench ## the simulator: beside PyTorch and Flower, 100,000 devices, 5,000 real agents, equal digests, torture; takes two hours; ARGS="--only digests"
	$(BIN)/python -m device_sims.bench.fleet $(ARGS)

chaos: $(VENV)/.dev ## kill -9 of the aggregator under load, 200 times on SQLite and on PostgreSQL; KILLS=200
	$(BIN)/python -m device_sims.bench.chaos --kills $(or $(KILLS),200)

fuzz: $(VENV)/.fuzz ## search for bytes that break the wire's decoders; SECONDS=600; what fails is kept in runs/fuzz
	$(BIN)/python -m tests.wire.fuzz --seconds $(or $(SECONDS),600)

migration: $(VENV)/.dev ## write a migration from what was changed in aggregator/ledger/schema.py; MESSAGE="add a column"
	$(BIN)/python -m aggregator.ledger.migrations "$(MESSAGE)"

clean: ## remove the virtual environments and everything a run wrote
	rm -rf $(VENV) $(ORT_TRAINING) $(FLOWER) runs

%/bin/python:
	$(PYTHON) -m venv $*

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a few minutes the first time"
	$(BIN)/$(INSTALL) --editable ".[sims]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV): a few minutes the first time"
	$(BIN)/$(INSTALL) --editable ".[dev]"
	@touch $@ $(VENV)/.demo

# Without atheris, where it has no wheel, the search is not guided by coverage.
$(VENV)/.fuzz: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV)"
	$(BIN)/$(INSTALL) --editable ".[fuzz]"
	@touch $@

# What the simulator is measured against; nothing of Rivulet is in there.
$(FLOWER)/.bench: device_sims/bench/flower/requirements.txt | $(FLOWER)/bin/python
	@echo "installing into $(FLOWER)"
	$(FLOWER)/bin/pip install --quiet --requirement $<
	@touch $@

$(ORT_TRAINING)/.dev: pyproject.toml constraints.txt | $(ORT_TRAINING)/bin/python
	@echo "installing into $(ORT_TRAINING)"
	$(ORT_TRAINING)/bin/$(INSTALL) --editable ".[export,ort-training]" pytest hypothesis
	@touch $@
