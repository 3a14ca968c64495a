# make demo   the main job, on a small Azure on this machine (sandbox/)
# make test   all tests but the slow ones; a test that needs a tool that is not here skips and says which
# make test-fast   what boots nothing, serves nothing and runs no node's scripts: a minute or two
# make test-slow   power cuts, kill sweeps, soak, fuzz, kubelets of older minors, checkov
# make test-kills   workers and hosts of the app killed at every single point: hours
# make bench  what a run costs, beside what people write (docs/performance.md); NODES=50000 for one size, at most 30 minutes else
# make soak   seeded faults over whole runs; RUNS=100 SEED=1
# make host   the serverless app in the real Functions host (Core Tools, Azurite)
# make check  ruff, mypy, import-linter, shellcheck; bicep where it is installed
# make snapshots  infra/snapshots anew: what each kept combination of parameters deploys (needs bicep; tools/README.md)
# make outdated   resource types of infra/ that have a newer stable API version than the one used (needs bicep)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Further words for pytest, such as TESTS=tests/kubelet or TESTS="-k frames -x".
TESTS ?=
# For make bench: one size alone, and how many times as fast as the world's its clock goes. For make soak: how many, from where.
NODES ?=
SUBSCRIPTIONS ?= 1
SCALE ?= 5
RUNS ?= 100
SEED ?= 1
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --dist worksteal

.PHONY: demo host test test-fast test-slow test-kills bench soak check snapshots outdated clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	    { echo "Python 3.11 to 3.13 is needed, and $(PYTHON) is another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)
	@BIN=$(BIN) sh scripts/demo.sh

host: $(READY)
	@BIN=$(BIN) sh scripts/host.sh

test: $(READY)
	$(PYTEST) -m 'not slow' $(TESTS)

test-fast: $(READY)
	$(PYTEST) -m 'not real and not sandboxed and not scripts and not slow' $(TESTS)

test-slow: $(READY)
	$(PYTEST) -m slow $(TESTS)

test-kills: $(READY)
	KILLS=all $(PYTEST) -s -m slow tests/functions/test_kills.py $(TESTS)

bench: $(READY)
	$(BIN)/python -m bench --scale $(SCALE) --out bench/results/after.json --docs \
	    $(if $(NODES),--nodes $(NODES) --subscriptions $(SUBSCRIPTIONS))

soak: $(READY)
	$(BIN)/python -m bench.soak --runs $(RUNS) --seed $(SEED)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null; then sh scripts/shellcheck.sh; \
	elif [ -n "$$REQUIRE_ALL" ]; then echo "shellcheck is not installed" >&2; exit 1; \
	else echo "shellcheck is not installed: shell scripts are not checked"; fi
	PYTHON=$(BIN)/python sh infra/check.sh

snapshots: $(READY)
	$(BIN)/python -m tools.bicep snapshots

outdated: $(READY)
	$(BIN)/python -m tools.bicep outdated

# The Bicep rules of checkov: a large tool with pins of its own, so it has a place of its own.
.venv-checkov:
	$(PYTHON) -m venv $@ && $@/bin/pip install --quiet --disable-pip-version-check checkov==3.3.30

clean:
	rm -rf $(VENV) .venv-checkov build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
