# make demo   the whole way on simulated data
# make test   every test          make test-fast   those that take seconds
# make lint   ruff and mypy
PYTHON ?= python3
BIN := .venv/bin
# setuptools warns of what pyproject.toml asks for: editable installs, extension modules.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The torch of which a CPU build lies on our CI's disk (0.9 GB installed; other releases draw 5 GB of CUDA), and
# the last anndata that goes with pandas 3.
LEARNING := torch==2.13.0 anndata==0.12.6
INSTALLED := .venv/.installed
TESTABLE := .venv/.testable

.PHONY: demo test test-fast lint clean

demo: $(INSTALLED)
	$(BIN)/ahba demo

test: $(TESTABLE)
	$(BIN)/python -m pytest

test-fast: $(TESTABLE)
	$(BIN)/python -m pytest -m "not slow"

lint: $(TESTABLE)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf .venv .peer demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis */*.so */*.c

$(INSTALLED): pyproject.toml $(wildcard */*.pyx)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) --editable '.[test,lint,atlases,distributed,sql,s3,torch,anndata]' $(LEARNING)
	@touch $@
