# Everything a newcomer needs: Python 3.11+ and make. Each target creates .venv by itself.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
# More to install for the tests, with commas between: make test EXTRAS=text
EXTRAS ?=

.PHONY: help quickstart test lint types docs golden bench clean
help:            ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*##/ -/'

$(VENV)/.core: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(VENV)/.extras-%: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(findstring text,$*),$(TORCH)) --editable '.[dev,$*]'
	@touch $@

$(VENV)/.bench: $(VENV)/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	@touch $@

quickstart: $(VENV)/.core  ## train an agent that adapts, print its adaptation curve, write a report
	$(BIN)/fledge quickstart

test: $(VENV)/.dev $(if $(EXTRAS),$(VENV)/.extras-$(EXTRAS))  ## every test (EXTRAS=text: with PyTorch, those of text models too)
	@$(BIN)/python -c 'import torch, transformers' 2>/dev/null || \
	  echo 'PyTorch is not installed: tests of text models (and of the PyTorch peers) are skipped. With them: make test EXTRAS=text'
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev         ## style and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev        ## static types
	$(BIN)/mypy

docs: $(VENV)/.dev         ## the documentation, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

golden: $(VENV)/.dev       ## renew the stored numbers (say why in the changelog)
	$(BIN)/python -m pytest tests/golden --renew

bench: $(VENV)/.bench      ## speed, beside a plain PyTorch version
	$(BIN)/fledge bench speed

clean:
	rm -rf $(VENV) runs site
