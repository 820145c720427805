# `make quickstart` and `make test` need Python 3.11 or 3.12 and a network for the packages; everything else they make themselves.

PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("{}.{}".format(*sys.version_info))')
LOCK := requirements/py$(subst .,,$(VERSION)).txt
BIN := .venv/bin
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet
PYTEST := JAX_PLATFORMS=cpu JAX_COMPILATION_CACHE_DIR=$(CURDIR)/.cache/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 $(BIN)/python -m pytest

# Where the notebooks are opened from in Colab, and Omnia is installed from there: OWNER/NAME on GitHub.
REPOSITORY ?= OWNER/NAME

.DELETE_ON_ERROR:
.PHONY: help quickstart test lint docs notebooks drills parity gpu-report lock clean

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

quickstart: $(BIN)/installed  ## Train a small code model on this machine, sample it and draw a report: about 5 minutes on two cores
	$(BIN)/omnia quickstart

# A checkpoint is many small files, each of which a disk confirms: where memory is plenty, tests write there. Drills need the disk.
test: export PYTEST_DEBUG_TEMPROOT := $(shell [ "$$(awk '/MemAvailable/ {print $$2}' /proc/meminfo 2>/dev/null || echo 0)" -gt 12000000 ] \
	&& [ "$$(df -k --output=avail /dev/shm 2>/dev/null | tail -1)" -gt 4000000 ] && echo /dev/shm)
test: lint  ## Style, types and all tests but the drills
	$(PYTEST) -n 2 --dist worksteal --durations 15

lint: $(BIN)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(BIN)/installed .venv-docs/installed  ## Write docs/reference_options.md and docs/tables.md, and build the pages in site/
	$(BIN)/python -m train.verbs.reference > docs/reference_options.md
	$(BIN)/python -m train.reproduce.page > docs/tables.md
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

notebooks: $(BIN)/installed  ## Write notebooks/*.ipynb, run them all into notebooks/executed/, and say how long each took
	$(BIN)/python notebooks/build.py $(REPOSITORY) --execute

drills: export HYPOTHESIS_PROFILE := default
drills: $(BIN)/installed  ## Fault drills: kills, full disks, damaged files; and other tests that take long
	$(PYTEST) -m slow -s --ignore tests/parity

parity: .venv-peers/installed  ## Compare with the same models in PyTorch, in a venv of its own
	$(subst $(BIN),.venv-peers/bin,$(PYTEST)) -m slow tests/parity

gpu-report:  ## Measure a GPU or TPU in at most nine minutes, with a PYTHON that has JAX for it, and write runs/gpu-report/
	$(PYTHON) benchmarks/gpu_report.py $(if $(SHARDS),--shards $(SHARDS))

lock:  ## Lock the newest packages that PYTHON can have, with hashes; once with python3.11, once with python3.12
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python $(PIP_INSTALL) pip-tools
	CUSTOM_COMPILE_COMMAND="make lock PYTHON=python$(VERSION)" .cache/lock/bin/pip-compile --quiet --upgrade --generate-hashes \
		--allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-options \
		--extra test --build-deps-for editable --output-file $(LOCK) setup.py

clean:  ## Remove what make made; runs/ stays
	rm -rf .venv .venv-peers .venv-docs site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist omnia.egg-info

# The stamp lies inside the environment, so that removing either makes both again.
%/bin/installed: $(LOCK) setup.py
	@echo "omnia: installing into $*, once; a minute or two"
	$(PYTHON) -m venv --clear $*
	$*/bin/python $(PIP_INSTALL) --require-hashes -r $(LOCK)
	$*/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	touch $@

.venv-peers/installed: .venv-peers/bin/installed
	.venv-peers/bin/python $(PIP_INSTALL) torch==2.13.0
	.venv-peers/bin/python $(PIP_INSTALL) transformers accelerate peft "lm-eval>=0.4.13"
	touch $@

.venv-docs/installed: setup.py
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python $(PIP_INSTALL) $$(sed -n '/^DOCS = /,/^]/s/^ *"\(.*\)",.*/\1/p' setup.py)
	touch $@

# Reached only by a Python without a lock.
requirements/py%.txt:
	@echo "omnia: $(PYTHON) is Python $(VERSION), for which requirements/ has no lock: use 3.11 or 3.12, as in"
	@echo "       make $(or $(filter-out requirements/% %/installed,$(MAKECMDGOALS)),test) PYTHON=python3.12"
	@exit 2
