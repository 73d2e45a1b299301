# `make tutorial` and `make test` do all the set-up that they need, in .venv of this checkout.
#
#   make tutorial   install, then run experiments/tutorials/train_tiny_model_cpu.py
#   make test       install, then run the test suite
#   make lint       ruff, pyright, import layers: what CI runs besides the tests
#   make bench      time tracing and lowering against a hand-written floor
#   make soak       slow tests, and the long randomised series, 30 minutes at most: ARGS="--seed 4 --only R4"
#   make clean      remove what make and the tests have built, not ./marin-outputs
#
# PYTHON=/path/to/python chooses the interpreter; ARGS="…" is passed on to the tutorial or to pytest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CANDIDATES := $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3 python)
REQUIREMENTS := pyproject.toml constraints.txt
ARGS ?=

.PHONY: help tutorial test lint format bench soak clean install install-dev

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

tutorial: $(VENV)/.installed-experiments
	@$(BIN)/python experiments/tutorials/train_tiny_model_cpu.py $(ARGS)

test: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/python -m pytest tests/test_architecture.py

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(VENV)/.installed-dev
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow
	@$(BIN)/python -m tests.soak $(ARGS)

clean:
	rm -rf $(VENV) dist build .coverage .coverage.* htmlcov .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# A stamp is newer than what it was installed from, so that a second `make` starts no pip at all.
$(VENV)/.installed: $(BIN)/python $(REQUIREMENTS)
	@echo "installing marin-trace into $(VENV)"
	@$(PIP) install -qq --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-experiments: $(BIN)/python $(REQUIREMENTS)
	@echo "installing marin-trace and what its experiments need into $(VENV)"
	@$(PIP) install -qq --constraint constraints.txt --editable '.[experiments]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: $(BIN)/python $(REQUIREMENTS)
	@echo "installing marin-trace and its development tools into $(VENV)"
	@$(PIP) install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.installed $(VENV)/.installed-experiments $@

# A checkout that was moved holds an environment that names the old place: build it again.
ifneq ($(shell cat $(VENV)/.checkout 2>/dev/null),$(CURDIR))
.PHONY: $(BIN)/python
endif

# Each candidate is run, not just found: a version manager's shim may name a Python that is not installed.
$(BIN)/python:
	@found=; without_venv=; \
	for candidate in $(CANDIDATES); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	  without_venv="$${without_venv:-$$candidate}"; \
	done; \
	if [ -z "$$found" ] && [ -n "$$without_venv" ]; then \
	  version=$$("$$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  echo "error: $$without_venv (Python $$version) cannot make environments: its venv or ensurepip module is missing" >&2; \
	  echo "  on Debian and Ubuntu: sudo apt install python$$version-venv" >&2; \
	  echo "  elsewhere: a Python from https://www.python.org/downloads, then make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
	  echo "error: no Python 3.11 or newer found (tried: $(CANDIDATES))" >&2; \
	  echo "  on Debian and Ubuntu: sudo apt install python3 python3-venv (or a newer python3.N)" >&2; \
	  echo "  on macOS: brew install python@3.13" >&2; \
	  echo "  elsewhere: https://www.python.org/downloads, then make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "building $(VENV) with $$("$$found" --version) ($$found)"; \
	rm -rf $(VENV); \
	"$$found" -m venv $(VENV) && printf '%s' '$(CURDIR)' > $(VENV)/.checkout || { rm -rf $(VENV); exit 1; }
