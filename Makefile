# Two commands do all set-up: make demo, make test. Both make .venv and install into it.
PYTHON ?= python3
VENV ?= .venv
# On a Linux machine without a GPU, set TORCH_INDEX=https://download.pytorch.org/whl/cpu to save
# the download of the CUDA libraries that the default torch brings.
TORCH_INDEX ?=
BIN := $(VENV)/bin
DEMO := results/demo
DEFENSES := standard pgd-at trades

.PHONY: demo test lint format docs clean help

help:
	@echo "make demo   install, train and attack three models on the digits, print the table"
	@echo "make test   install what the tests need and run them"
	@echo "make lint   ruff and mypy"
	@echo "make docs   write the parts of the pages that come from records, commands and imports"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "advbench needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(if $(TORCH_INDEX),$(BIN)/pip install -q --index-url $(TORCH_INDEX) torch torchvision)
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/.tools: pyproject.toml | $(VENV)/.installed
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

# The official AutoAttack: on nets as small as these it is the faster one.
DEMO_ATTACKS := $(foreach a,fgsm pgd20 pgd100 cw20 autoattack-reference,--attack $(a))

# One thread each: the nets are tiny, and threads that wait for each other only cost time.
demo: $(VENV)/.installed
	@rm -rf $(DEMO)
	@echo "Training and attacking $(DEFENSES) side by side; this takes two to three minutes."
	@printf '%s\n' $(DEFENSES) | OMP_NUM_THREADS=1 xargs -P 3 -I NAME sh -c \
	  '$(BIN)/advbench train NAME --out $(DEMO) --name NAME --quiet && \
	   $(BIN)/advbench eval $(DEMO_ATTACKS) --run NAME --n 100 --out $(DEMO) --quiet'
	@$(BIN)/advbench report --results $(DEMO) --format md --out $(DEMO)/table.md
	@$(BIN)/advbench report --results $(DEMO)

# A process per core, one thread each, and every test file in one process: files share their nets.
# In their own order: by number of tests the longest would come last, one process waiting for it.
# Bytecode is kept, whatever containers say: every process would compile all tests and the package.
test: $(VENV)/.tools
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed
	$(BIN)/python docs/make_pages.py

clean:
	rm -rf $(VENV) $(DEMO)
