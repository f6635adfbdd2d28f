# `make demo`, `make test`, `make test-all`, `make bench` and `make lint` set up .venv from requirements.lock when it is not there yet.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
FAULTS ?= fault
CIFAR ?=
READY := $(VENV)/.ready

.PHONY: demo test test-faults test-all bench lint dist clean

demo: $(READY)
	$(BIN)/musweep run demo

# Dozens of processes that tests start share the compiled sources, and the next run has them.
test test-faults: export PYTHONDONTWRITEBYTECODE :=

test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not fault"

test-faults: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "$(FAULTS)"

test-all: test test-faults

# Needs a quiet machine; `make bench CIFAR=cifar10.zip` measures on CIFAR-10 too.
bench: $(READY)
	$(BIN)/python benchmarks/bench.py $(if $(CIFAR),--cifar $(CIFAR))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "musweep needs Python 3.11, 3.12 or 3.13")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
