# Everything a developer types. `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help install serve test test-slow mutants check format bench bench-gpu clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv and install pinned versions

# A half-made environment has no stamp, and is completed by the next run.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "TopFive needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

serve: install ## Serve on port 8000 (ARGS="--port 9000 --untrained" for options)
	@exec $(BIN)/topfive serve $(ARGS)

# Networks, routing, simulation, queues, keys and the link are arithmetic, two tests at a time; the others start services
# and compare times.
ARITHMETIC := tests/models tests/service/routing tests/service/twin tests/service/batching tests/service/access tests/service/link
test: install ## Run the tests, without the slow ones (ARGS="-k word" or a file: those alone)
ifdef ARGS
	$(BIN)/python -m pytest -m "not slow" $(ARGS)
else
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 $(ARITHMETIC)
	$(BIN)/python -m pytest -m "not slow" $(ARITHMETIC:%=--ignore %)
endif

test-slow: install ## Run the slow tests: gigabytes and minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

mutants: install ## Make small wrong changes, and say which no test notices (ARGS="--only batching")
	@exec $(BIN)/python -m tests.mutants $(ARGS)

check: install ## Lint, format, types and the rules between packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Compare with other model servers: an hour, QUICK=1 ten minutes (needs hey)
	@exec $(BIN)/python bench/compare.py $(if $(QUICK),--quick) $(ARGS)

# Without install, since a machine with a GPU may have no network: any Python with the service's packages will do.
bench-gpu: ## Measure this machine's GPU and write docs/gpu.md: 8 minutes (ARGS="--minutes 4", "--pretend")
	@exec $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m bench.gpu $(ARGS)

clean: ## Remove the environment and caches
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
