# aya_jax: `make quickstart` and `make test` do everything on a fresh machine.
#
#   make quickstart   install, run the small code-in-pretraining study on the shipped sample, end with a report
#   make test         install, run the default tests (under 12 minutes on 2 cores)
#   make test-all     the slow ones too        make test-parity   live side by side with torch, transformers and mergekit
#   make lint         ruff and import-linter   make install       the environment alone
#
# PYTHON=... names the interpreter, VENV=... the environment's folder.

VENV ?= .venv
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := setup.py constraints.txt
STUDY ?= runs/quickstart
# Files of tests go to as many processes as there are cores, four at the most (each takes a gigabyte or two).
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install quickstart test test-all test-parity lint format clean
help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed '/^$$/q' | head -10

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  if $$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$($$python --version) ($$python)"; \
	    $$python -m venv $(VENV) && exit 0; exit 1; \
	  fi; \
	done; echo "No Python 3.11, 3.12 or 3.13 runs here (tried: $(CANDIDATES)). Install one, or give PYTHON=/path/to/python." >&2; exit 1

# A stamp for each set of packages, so that nothing is installed twice and the quickstart does not wait for test tools.
$(VENV)/.core: $(BIN)/python $(INSTALLED)
	@echo "Installing aya_jax (about a minute) ..."
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "Installing the test tools ..."
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

# torch first and by its exact version: a range would take the newest build with its accelerator libraries.
$(VENV)/.parity: $(VENV)/.dev
	@$(PIP) install torch==2.13.0
	@$(PIP) install --constraint constraints.txt transformers peft trl mergekit
	@touch $@

install: $(VENV)/.dev

quickstart: $(VENV)/.core
	@$(BIN)/aya study gin/studies/to_code/quickstart.gin --gin.RUN_DIR=$(STUDY)
	@echo
	@echo "Open $(STUDY)/report.html in a browser. To try next (with $(BIN) on the PATH):"
	@echo "  aya inspect gin/data/inspect.gin gin/mixtures/text_and_code.gin --gin.STORE_DIR=$(STUDY)/prepare   what the models read"
	@echo "  aya describe gin/models/aya_expanse_8b.gin                                  a model's parameters, FLOPs and memory"
	@echo "  aya study gin/studies/to_code/miniature.gin --gin.RUN_DIR=runs/miniature     four ways of adding code, with cooldowns"
	@echo "  aya study gin/studies/to_code/quickstart.gin --gin.RUN_DIR=runs/own --gin.DATA_DIR=CORPUS   the same on your own text"

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) -m 'not parity and not gpu and not tpu'

test-parity: $(VENV)/.parity
	$(BIN)/python -m pytest -m parity

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache build *.egg-info
