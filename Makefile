# Every target sets itself up: Python 3.11 or later with pip, make and git are enough. Another Python: make test PYTHON=python3.12
#
# The lock accepts only builds of torch that run without CUDA. Where the package index offers none (Linux, as a rule), name
# an index of CPU builds: make demo TORCH_INDEX=<url>. torch alone then comes from there, at the version of the lock; its
# hash is not checked, those of all other packages are.
PYTHON ?= python3
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DOCS_STAMP := $(VENV)/.docs-stamp
EXTRAS_STAMP := $(VENV)/.extras-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH = $(shell sed -n 's/^torch==\([^ ]*\).*/torch==\1/p' requirements.lock)
CODE := src tests benchmarks

.DELETE_ON_ERROR:
.PHONY: demo test test-extras lint bench docs clean

demo: $(STAMP)
	$(BIN)/counterscan demo -o demo

# Side by side on the cores there are, at most four: each process holds models of its own.
test: $(STAMP)
	$(BIN)/pytest -q -n logical --maxprocesses 4 --dist worksteal

# The same, with what `make test` skips for want of an optional package: Ray, OpenVINO, DICOM-SEG, ONNX and others
test-extras: $(EXTRAS_STAMP) test

lint: $(STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/counterscan bench -n 32 -o benchmarks/results/bench

docs: $(DOCS_STAMP)
	$(BIN)/mkdocs build --strict

# Installed once; from then on the pages are built without network
$(DOCS_STAMP): requirements-docs.lock $(STAMP)
	$(PIP) install -q --no-deps --require-hashes -r requirements-docs.lock
	touch $(DOCS_STAMP)

$(EXTRAS_STAMP): requirements-extras.lock $(STAMP)
	$(PIP) install -q --no-deps --require-hashes -r requirements-extras.lock
	touch $(EXTRAS_STAMP)

# --no-deps: the lock is complete, so nothing pulls CUDA packages onto a machine that has no use for them
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	|| { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=<python>" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) install -q --no-deps --index-url $(TORCH_INDEX) $(TORCH)
endif
	$(PIP) install -q --no-deps --require-hashes -r requirements.lock \
	|| { echo "not installed; if the hash of torch is the trouble, name an index of CPU builds: make TORCH_INDEX=<url>" >&2; exit 1; }
	$(PIP) install -q --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
