# Everything a newcomer needs: `make search`, `make test`. Each installs into .venv what it needs by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
RUN ?= outputs/demo
ARGS ?=
# Two workers, a core each: threads of BLAS and torch would only wait for each other.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal


.PHONY: install search test test-system test-slow lint clean

install: $(VENV)/.installed

# torch goes first, at the tested version: an open range would fetch gigabytes of GPU libraries.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev,rdb]'
	touch $@

search: install
	$(BIN)/nasflow search $(ARGS) hydra.run.dir=$(RUN)

test: install
	$(TESTS) -m "not system and not slow"

test-system: install
	$(TESTS) -m system

test-slow: install
	$(TESTS) -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache outputs
