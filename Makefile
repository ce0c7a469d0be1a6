# make run    train, compare and report on this machine: one seed of the partitions ablation
# make test   the quick tests; make test-all has those too that take long or start a cluster, a browser,
#             fairseq or TeX
# make test-gpu  those that need a CUDA GPU, which the two above leave out; see docs/gpu.md
# make lint   ruff and mypy
# make docs   the documentation as a site, in site/
# make bench  all benchmarks as one table; about ten minutes, and the machine should do nothing else
# Each sets up .venv first, from the versions in constraints.txt. Another Python: make PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
FAIRSEQ := fairseq==0.12.2

.DELETE_ON_ERROR:
.NOTPARALLEL: # one pip at a time in an environment
.PHONY: run test test-all test-gpu lint docs bench translation freeze clean

run: $(VENV)/installed
	$(BIN)/python -m gapbench.run ablations/partitions.yaml --scale mini --seeds 1 \
		--only sparsity=0,0.95 --only partitions=1,4,none --only epochs=1x,2.5x,9.9x

PYTEST := $(BIN)/python -m pytest --dist loadscope --no-loadscope-reorder

TOOLS := $(VENV)/installed-tools

test: $(TOOLS)
	$(PYTEST) --numprocesses 3 -m "not (slurm or fairseq or browser or tex or slow or gpu)"

test-all: $(TOOLS)
	@test -e $(VENV)/installed-translation || $(MAKE) --no-print-directory translation || \
		echo "fairseq could not be built here: the tests that need it are skipped"
	$(PYTEST) --numprocesses 4 --durations 25 -m "not gpu" # many of these wait for jobs

test-gpu: $(TOOLS)
	$(BIN)/python -m pytest -m gpu tests

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(TOOLS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(TOOLS)
	$(BIN)/python -m benchmarks --write docs/performance.md

# fairseq's own requirements cannot be resolved any more, hence --no-deps; the extra has what it
# imports. Its build needs a C++ compiler, and takes its tools from the same constraints.
translation: $(VENV)/installed-translation

$(VENV)/installed-translation: pyproject.toml constraints.txt | $(VENV)/installed
	$(INSTALL) --editable '.[suite,translation]'
	PIP_CONSTRAINT=constraints.txt $(INSTALL) --no-deps $(FAIRSEQ)
	touch $@

# one call for all of them: each would resolve the requirements anew
$(VENV)/installed-tools: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[suite,dev,bench,docs]'
	touch $(VENV)/installed $@

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[suite]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "gapbench needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 2; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif $(PYTHON) -c 'import virtualenv' 2>/dev/null; then $(PYTHON) -m virtualenv -q $(VENV); \
	else echo "$(PYTHON) cannot make environments: install python3-venv (Debian) or virtualenv" >&2; \
		exit 2; fi

# renews constraints.txt from an environment that holds every extra
freeze: $(TOOLS) $(VENV)/installed-translation
	{ sed -n '/^#/p' constraints.txt; \
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu//' | sort -f; \
	} > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
