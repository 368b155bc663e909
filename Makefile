# Every target sets up what it needs: a virtual environment with pinned versions, made once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SETUP  := $(VENV)/.done

.PHONY: setup quickstart test test-long check docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   build a model from examples/quickstart: offline, free, a few minutes"
	@echo "make test         the tests (under ten minutes)"
	@echo "make test-long    the proofs that take longer"
	@echo "make check        formatting, lint, types, import rules, generated pages"
	@echo "make docs         write the generated reference pages again"
	@echo "make bench        measure (never part of the tests)"

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,lora,dev]'
	@touch $@

quickstart: $(SETUP)
	$(BIN)/ilab -C examples/quickstart run

test: $(SETUP)
	$(BIN)/python -m pytest -n 2 -m "not long"

test-long: $(SETUP)
	$(BIN)/python -m pytest -n 2 -m long

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(SETUP)
	$(BIN)/python docs/generate.py

bench: $(SETUP)
	$(BIN)/python benchmarks/quickstart.py --write
	$(BIN)/python benchmarks/taxonomy.py --write
	$(BIN)/python benchmarks/documents.py --write
	$(BIN)/python benchmarks/dedup.py --write
	$(BIN)/python benchmarks/gate.py --write
	$(BIN)/python benchmarks/sdg.py
	$(BIN)/python benchmarks/training.py --write
	$(BIN)/python benchmarks/evaluation.py --write
	$(BIN)/python benchmarks/oci.py --write

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
