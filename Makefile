# make train | test | test-all | lint | clean. The first use sets up .venv by itself; nothing is installed outside this folder.
#   make train ARGS="seed=2 stage.steps=10"      overrides of the recipe
#   make train PYTHON=python3.12                 another interpreter for .venv
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cpu      Linux without a GPU: torch's small CPU build
PYTHON ?= python3
TORCH_INDEX ?=
RECIPE ?= recipes/quickstart.toml
ARGS ?=

# Paths stay relative to this file's folder, so that its own path may hold spaces.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -qq --no-compile -c constraints.txt
CI_TESTS := tests/unit tests/parity tests/integration

.DEFAULT_GOAL := help
.PHONY: help venv train test test-all lint style walls budgets types clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -4

venv: $(STAMP)

train: $(STAMP)
	@$(BIN)/trunkline train $(RECIPE) $(ARGS)

# The CI tier: minutes on two cores, no GPU. Three at a time, since many tests wait more than they compute; in the order that
# tests/conftest.py gives them.
test: $(STAMP)
	@$(BIN)/python -m pytest $(CI_TESTS) -m "not slow and not gpu" -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# Adds learning runs and whatever else takes minutes a test.
test-all: $(STAMP)
	@$(BIN)/python -m pytest $(CI_TESTS) $(wildcard tests/slow) -m "not gpu" $(ARGS)

lint: style walls budgets types

style: $(STAMP)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

walls: $(STAMP)
	@$(BIN)/lint-imports --no-logo

budgets: $(STAMP)
	@$(BIN)/python -m tools.budgets

types: $(STAMP)
	@$(BIN)/python -m mypy

# The stamp is touched last: an interrupted set-up is taken up again, and a broken venv is made anew. pip would compile on one core;
# compileall takes all, and ends with 1 for a package's templates and odd files, as pip leaves them, too.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Trunkline needs Python 3.11 or newer, but PYTHON=$(PYTHON) is $$($(PYTHON) --version 2>&1); try: make PYTHON=python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing torch (the large one, once)"
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@echo "installing Trunkline and its tools"
	@$(PIP) -e '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $(STAMP)

# Back to a fresh clone, except for runs/.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	find trunkline tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
