# Every target sets up what it needs: a virtual environment with pinned versions, made once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SETUP  := $(VENV)/.done

IMAGE  ?= quay.io/your-organization/ilab:0.1.0
ENGINE ?= $(if $(shell command -v podman),podman,docker)
OC     ?= $(if $(shell command -v oc),oc,kubectl)
# Where it goes: the namespace of the present context, or NAMESPACE=….
PLACE  := $(if $(NAMESPACE),--namespace $(NAMESPACE))

.PHONY: setup quickstart test test-long check docs bench image deploy-dev deploy-prod validate-deploy clean
.DEFAULT_GOAL := help

help:
	@echo "make quickstart   build a model from examples/quickstart: offline, free, a few minutes"
	@echo "make test         the tests (about twenty minutes)"
	@echo "make test-long    the proofs that take longer"
	@echo "make check        formatting, lint, types, import rules, generated pages"
	@echo "make docs         write what is generated again: reference pages, parameters of the deployment"
	@echo "make bench        measure (never part of the tests)"
	@echo "make image        the container image of the tasks: IMAGE=quay.io/your-organization/ilab:0.1.0"
	@echo "make deploy-dev   what a namespace of OpenShift AI needs, to try things out (deploy-prod: for real)"
	@echo "make validate-deploy   build and check the manifests, without a cluster"

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
	$(BIN)/python deploy/generate.py --check

docs: $(SETUP)
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/generate.py

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

image:
	$(ENGINE) build --file deploy/Containerfile --tag $(IMAGE) .

deploy-dev deploy-prod: deploy-%:
	$(OC) apply $(PLACE) --kustomize deploy/overlays/$*

validate-deploy: $(SETUP)
	$(BIN)/python deploy/generate.py --check
	$(BIN)/python -m pytest tests/deploy tests/monitoring/test_alerts.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist
