# Everything runs in .venv, which is made from the hashed lock file on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := service search workers db
# one thread per process: the tests share two cores with Ray's workers
export OMP_NUM_THREADS ?= 1

.PHONY: demo serve test test-all lint types layers tests soak bench lock clean

demo: $(READY)
	$(BIN)/attune demo

serve: $(READY)
	$(BIN)/attune serve

test: lint types layers tests

test-all: lint types layers
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/python -m pytest -n 2 --no-loadscope-reorder -m "not slow"

# random kills for 10 minutes; others: make soak SOAK="--minutes 2 --seed 7 --database sqlite"
SOAK ?= --minutes 10 --seed 1
soak: $(READY)
	$(BIN)/python -m tests.faults.soak $(SOAK)

bench: $(READY)
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.scale real
	$(BIN)/python -m benchmarks.scale loop

lock: $(READY)
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --group dev pyproject.toml -o requirements.lock

$(READY): requirements.lock requirements-uv.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "attune needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12 ...")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
