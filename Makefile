# Everything runs from .venv, which is made on first use and again when pyproject.toml or constraints.txt change.
#   make install | demo | test | test-fast | lint | bench | types | clean
# With an NVIDIA GPU: make EXTRAS=cuda,export,slurm,dev demo

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint format bench types clean

PYTHON ?= python3
EXTRAS ?= export,slurm,dev
PYTEST_ARGS ?= -n 2 --dist loadfile

BIN := .venv/bin
STAMP := .venv/.installed-$(EXTRAS)
ROOMS := envs algos skills high_level deploy experiment configs scripts
SOURCES := repertoire $(ROOMS) tests

export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:
	@echo "make install    .venv with all that follows; made on first use of any of it"
	@echo "make demo       train skills and a controller, render, export, check: one report"
	@echo "make test       all tests            make test-fast  without the slow ones"
	@echo "make lint       ruff and mypy        make format     let ruff rewrite"
	@echo "make bench      the speed and learning benchmarks"
	@echo "make types      link tree for type checkers and editors (.types)"
	@echo "make clean      remove caches and build output; keeps .venv, runs/ and library/"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "repertoire needs Python 3.11 or newer; try: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "installing repertoire[$(EXTRAS)] into .venv (a few minutes on a fresh machine)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/repertoire demo

bench: $(STAMP)
	@$(BIN)/repertoire benchmark

test: $(STAMP)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(STAMP)
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

lint: $(STAMP) types
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy -p repertoire

format: $(STAMP)
	@$(BIN)/ruff check --fix $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

# Type checkers cannot see the import hook of the editable install: show them the rooms under their import names.
types:
	@rm -rf .types && mkdir -p .types/repertoire
	@ln -s $(addprefix ../../,$(wildcard repertoire/*.py repertoire/py.typed) $(ROOMS)) .types/repertoire/

clean:
	@rm -rf build dist .types .mypy_cache .pytest_cache .ruff_cache .hypothesis ./*.egg-info
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
