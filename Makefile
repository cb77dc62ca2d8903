PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BUILT := $(VENV)/.built
JOBS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))  # many tests wait more than they compute
PYTEST := $(BIN)/python -m pytest -n $(strip $(JOBS)) --dist loadfile
HOT := $(wildcard lb/core/*.py lb/wire/*.py lb/proxy/*.py lb/observe/*.py)
COMPILE := $(BIN)/python setup.py --quiet build_ext --inplace

.DEFAULT_GOAL := help
.PHONY: help demo test image soak check check-interpreted lint fuzz bench bench-micro clean

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# Installs all, which compiles too; later only compiles anew, where the source of a compiled module has changed.
$(BUILT): pyproject.toml setup.py $(HOT)
	@if [ -e $(STAMP) ] && [ $(STAMP) -nt pyproject.toml ] && [ $(STAMP) -nt setup.py ]; \
	then echo $(COMPILE) && $(COMPILE); \
	else $(MAKE) --no-print-directory install; fi
	@find . -maxdepth 1 -name 'lb__mypyc*.so' -exec touch {} +  # it may be the same, where only a comment has changed
	@touch $@

.PHONY: install
install:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[test]'
	@touch $(STAMP)

demo: $(BUILT) ## three greeters and the balancer, until Ctrl-C; ARGS=--once stops by itself
	@$(BIN)/lb demo $(ARGS)

test: $(BUILT) ## all tests; ARGS goes to pytest, JOBS is how many run at a time
	$(PYTEST) $(ARGS)

soak: $(BUILT) ## 2,000 clients that are slow on purpose (slowhttptest), a minute each way
	LB_SLOW_CONNECTIONS=2000 LB_SLOW_SECONDS=60 $(BIN)/python -m pytest tests/e2e/test_slow_clients.py -s $(ARGS)

image: $(BUILT) ## build the container image and run it with podman, on a Debian made by debootstrap; takes root, and minutes
	LB_IMAGE=1 $(BIN)/python -m pytest tests/deploy/test_image.py -rs $(ARGS)

lint: $(BUILT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check-interpreted: $(BUILT) ## the tests of the compiled rooms without their compiled modules, which go
	rm -f $(BUILT) *.so lb/*/*.so
	$(PYTEST) tests/core tests/balance tests/wire tests/proxy tests/observe $(ARGS)

check: lint test ## format, lint, types, tests: what every commit passes

SECONDS := 60
fuzz: $(BUILT) ## codecs, configuration and the like, with any bytes; SECONDS=300 for each, TARGET="requests config"
	$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet 'atheris>=2.3'  # as the extra fuzz
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(TARGET)

bench: $(BUILT) ## CPU per request beside nginx and HAProxy; ARGS="--only few,many"
	$(BIN)/python -m benchmarks $(ARGS)

bench-micro: $(BUILT) ## the hot functions alone
	$(BIN)/python -m benchmarks.micro $(ARGS)

clean: ## remove what the targets have made
	rm -rf $(VENV) build *.so lb/*/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
