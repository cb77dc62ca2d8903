PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check lint bench bench-micro clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $@

demo: $(STAMP) ## three greeters and the balancer, until Ctrl-C; ARGS=--once stops by itself
	@$(BIN)/lb demo $(ARGS)

test: $(STAMP) ## all tests; ARGS goes to pytest
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test ## format, lint, types, tests: what every commit passes

bench: $(STAMP) ## CPU per request beside nginx and HAProxy; ARGS="--only few,many"
	$(BIN)/python -m benchmarks $(ARGS)

bench-micro: $(STAMP) ## the hot functions alone
	$(BIN)/python -m benchmarks.micro $(ARGS)

clean: ## remove what the targets have made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
