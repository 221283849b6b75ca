# Makes .venv for this machine (.ci/setup), then runs the demo, the tests and the checks in it.
#   make demo PYTHON=/path/to/python3.12   with another interpreter (3.11 or newer)
#   make demo JAX_FLAVOUR=cpu              with another jax than the one picked: cpu, cuda12 or tpu
#   make test ARGS="-k selection"          with more arguments for what is run

PY := .venv/bin/python
# Several test processes cannot share one accelerator, so the tests run on the CPU unless told otherwise.
JAX_PLATFORMS ?= cpu

.DEFAULT_GOAL := help
.PHONY: help setup demo base test lint format types docs clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup:  ## make or update .venv and nothing else
	@.ci/setup

demo: setup  ## the whole pipeline on the embedded data, into runs/quickstart
	@echo "demo: launch.py --config=configs/quickstart.py --workdir=runs/quickstart"
	@$(PY) launch.py --config=configs/quickstart.py --workdir=runs/quickstart $(ARGS)

# Takes some ten minutes; the quickstart starts from what it makes.
base: setup  ## train the embedded base checkpoints anew
	@for model in proxy target; do \
	  echo "base: launch.py --config=configs/quickstart_base.py:$$model --workdir=runs/base_$$model"; \
	  $(PY) launch.py --config=configs/quickstart_base.py:$$model --workdir=runs/base_$$model $(ARGS) && \
	  cp runs/base_$$model/target/full/hf/model.safetensors s2l_jax/data/datasets/base/$$model/ || exit 1; \
	done

# The tests of one file stay in one process, where they share compiled functions. tests/conftest.py has the files begin
# that took longest last time, so that no process is left with a long one at the end.
test: setup  ## the test suite
	@echo "test: pytest on $(JAX_PLATFORMS), up to 4 processes"
	@JAX_PLATFORMS=$(JAX_PLATFORMS) $(PY) -m pytest -q -n logical --maxprocesses=4 --dist=loadfile \
	  --no-loadscope-reorder $(ARGS)

lint: setup  ## ruff and import-linter: faults, formatting, the order of packages
	@echo "lint: ruff check, ruff format --check, lint-imports"
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo "lint: 'make format' mends these" >&2; exit 1; }
	@.venv/bin/lint-imports --no-cache --no-logo >.venv/lint-imports.log 2>&1 || { cat .venv/lint-imports.log >&2; exit 1; }

format: setup  ## ruff: reformat, sort imports and mend what has a safe fix
	@echo "format: ruff check --fix, ruff format"
	@$(PY) -m ruff check --quiet --fix . || true
	@$(PY) -m ruff format .

types: setup  ## mypy
	@echo "types: mypy"
	@$(PY) -m mypy

# Whatever is not right in a page, a link or a docstring is an error. The tutorial runs when it has changed.
docs: setup  ## the documentation, into docs/_build/html
	@echo "docs: sphinx-build docs docs/_build/html"
	@$(PY) -m pip install --quiet --group docs
	@$(PY) -m sphinx -q -W --keep-going docs docs/_build/html $(ARGS)

clean:  ## remove .venv and caches; runs/ stays
	@echo "clean: removing .venv and caches; runs/ stays"
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
