# make demo and make test do all their own set-up: they need Python 3.11 or later with pip, make and git.
# On a machine whose package index offers only CUDA builds of torch, name a CPU index: make demo TORCH_INDEX=<url>
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: demo test lint bench docs clean

demo: $(STAMP)
	$(BIN)/counterscan demo -o demo

test: $(STAMP)
	$(BIN)/pytest -q

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python benchmarks/chest_edits.py

docs: $(STAMP)
	$(BIN)/pip install -q mkdocs-material "mkdocstrings[python]"
	$(BIN)/mkdocs build --strict

# --no-deps: the lock is complete, and so torch never pulls its CUDA companions onto a CPU machine
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-deps --require-hashes $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r requirements.lock
	$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo site
