# Every target makes what it needs: `make simulate` and `make test` work in a fresh clone.
# PYTHON: the interpreter that .venv is made with (3.11 or newer); found by itself when not given.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
PIP := $(PY) -m pip install --quiet --disable-pip-version-check

# Market seconds per real second: one session of 390 minutes in about 20 s.
SPEED ?= 1200x
PYTEST_ARGS ?=
# Side by side, because most tests wait for processes; a file as a whole, because its tests share what
# they start.
TEST_PROCESSES ?= 2
PYTEST = $(PY) -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help simulate test test-core bench lint format venv clean

help:
	@echo "make simulate   replay bundled real bars for about 20 s; prints fills, P&L and a summary"
	@echo "make test       run the tests"
	@echo "make test-core  run the tests with torch and ray out of reach"
	@echo "make bench      measure against floors and peers; writes benchmarks/RESULTS.md"
	@echo "make lint       ruff, mypy, import contracts, codespell, docs"
	@echo "make format     let ruff format the sources"
	@echo "make venv       create .venv and install into it"
	@echo "make clean      remove .venv and caches"

simulate: $(STAMP)
	$(VENV)/bin/streambot simulate --speed $(SPEED)

test: $(DEV_STAMP)
	$(PYTEST) $(PYTEST_ARGS)

test-core: $(DEV_STAMP)
	$(PYTEST) --without-train $(PYTEST_ARGS)

bench: $(BENCH_STAMP)
	$(PY) -m benchmarks $(BENCH_ARGS)

lint: $(DEV_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/codespell
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict --site-dir $(VENV)/site

format: $(DEV_STAMP)
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

venv: $(DEV_STAMP)

# The stamp follows the two files that decide what is installed. The code itself is not copied: an
# edit needs no new install. hatchling comes first, pinned, because build isolation ignores pins.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if [ ! -x $(PY) ]; then \
	  found=""; \
	  for candidate in $(PYTHON) python3.11 python3.12 python3.13 python3; do \
	    if "$$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      found="$$candidate"; break; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make: Python 3.11 or newer with its venv module is needed (set PYTHON=/path/to/python)" >&2; \
	    exit 1; \
	  fi; \
	  echo "creating $(VENV) with $$found"; "$$found" -m venv $(VENV); \
	fi
	@echo "installing streambot into $(VENV) (about a minute, once)"
	@$(PIP) --constraint constraints.txt hatchling editables
	@$(PIP) --constraint constraints.txt --no-build-isolation --editable .
	@touch $@

$(DEV_STAMP): $(STAMP)
	@echo "installing what tests and lint need"
	@$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[dev,train]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@echo "installing the peers of the benchmarks"
	@$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[bench]' || \
	  echo "peers could not be installed: their rows will be skipped, and say so" >&2
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
