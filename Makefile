# make demo    both tracks on real digits, in minutes            make test    every test
# Everything is installed in .venv, again whenever pyproject.toml changes; nothing else on the machine is touched.

VENV      := .venv
PYTHON    := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
# The first of these that is Python 3.11 or newer makes the environment; choose another with `make demo BASE=/path/to/python`.
BASE      := python3 python3.14 python3.13 python3.12 python3.11
# Passed on to the command, e.g. make demo ARGS=--resume, make test ARGS="-k pictures".
ARGS      :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs
.DELETE_ON_ERROR:

help:
	@echo "make demo   train, sample, select, distil, judge and report on real 8x8 digits (5 to 8 minutes on 2 cores)"
	@echo "make test   the tests, but for the slow ones (about 5 minutes on 2 cores)"
	@echo "make lint   ruff check, ruff format --check and mypy"
	@echo "make bench  speed and memory against plain reference loops"
	@echo "make docs   the manual as a site, in build/site; GENDD_DOCS_EXECUTE=false does not run its notebooks"
	@echo
	@echo "Each sets up $(VENV) first where needed. Options: ARGS=\"...\" goes to the command, BASE=... picks the Python."

demo: $(INSTALLED)
	@$(PYTHON) scripts/demo.py $(ARGS)

# A worker that dies ends the run: xdist, having given its files to another, may wait for ever.
test: $(INSTALLED)
	$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

bench: $(INSTALLED)
	$(PYTHON) -m benchmarks $(ARGS)

docs: $(INSTALLED)
	$(PYTHON) -m mkdocs build --strict $(ARGS)

$(INSTALLED): pyproject.toml
	@for name in $(BASE); do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then base="$$name"; break; fi; \
	done; \
	if [ -z "$$base" ]; then \
		echo "error: Python 3.11 or newer is needed, but none of '$(BASE)' is." >&2; \
		echo "       On Debian or Ubuntu: apt-get install python3 python3-venv. Or name one: make BASE=/path/to/python" >&2; \
		exit 2; \
	fi; \
	if ! "$$base" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "error: $$base cannot make virtual environments: its venv module is missing." >&2; \
		echo "       On Debian or Ubuntu: apt-get install python3-venv" >&2; \
		exit 2; \
	fi; \
	echo "setting up $(VENV) with $$("$$base" --version) (a few minutes, about 5 GB with the ordinary PyTorch)"; \
	if [ ! -x $(PYTHON) ]; then "$$base" -m venv --clear $(VENV); fi
	$(PYTHON) -m pip install --disable-pip-version-check --quiet --progress-bar on -e '.[dev]'
	@touch $@
