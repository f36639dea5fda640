# `make` alone prints what there is. Every target sets up what it needs by itself.
.DEFAULT_GOAL := help
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
# Passed through to the command of the target, as in: make test-backend ARGS="-k login"
ARGS ?=
# The number of workers of test-parallel, as in: make test-parallel N=4
N ?= auto

BIN := .venv/bin
READY := .venv/.ready
LOCK := --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock" --upgrade
export PYTHONPATH := backend
# Images often set it; without the cache every run would compile every test again.
unexport PYTHONDONTWRITEBYTECODE

##@ Tests

.PHONY: test
test: test-backend guarantees shapes ## All tests: the reference suite, the guarantees, other shapes

.PHONY: guarantees
guarantees: $(READY) ## The tests of the conftest itself, each in a project of its own
	$(BIN)/pytest backend/guarantees --ignore backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

.PHONY: shapes
shapes: .venv-shapes/.ready ## The conftest in projects of other shapes, in an environment of their own
	.venv-shapes/bin/pytest backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

.PHONY: test-backend
test-backend: $(READY) ## The reference suite, in one process
	$(BIN)/pytest backend/tests $(ARGS)

.PHONY: test-parallel
test-parallel: $(READY) ## The reference suite on N workers, one database each
	$(BIN)/pytest backend/tests -n $(N) $(ARGS)

.PHONY: test-before
test-before: $(READY) ## The same tests under the old conftest: drop and create for every test
	$(BIN)/pytest --noconftest -p benchmark.before backend/tests $(ARGS)

.PHONY: test-random
test-random: $(READY) ## The reference suite in random order; repeat one with SEED=the number it printed
	$(BIN)/pytest backend/tests --random-order $(if $(SEED),--random-order-seed=$(SEED)) $(ARGS)

.PHONY: test-lowest
test-lowest: .venv-lowest/.ready ## The suite and the guarantees on the lowest versions of pyproject.toml
	.venv-lowest/bin/pytest backend/tests $(ARGS)
	.venv-lowest/bin/pytest backend/guarantees --ignore backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

##@ Comparison

.PHONY: compare
compare: $(READY) ## The same tests before and after: a table of what the conftest gains
	$(BIN)/python -m benchmark.compare $(ARGS)

.PHONY: isolation
isolation: $(READY) ## What isolation costs a test, beside bare BEGIN and ROLLBACK
	$(BIN)/python -m benchmark.isolation

##@ Application

.PHONY: run
run: $(READY) ## Serve the reference application on http://127.0.0.1:8000/docs
	$(BIN)/python -m benchmark.server make serve ARGS="$(ARGS)"

.PHONY: serve
serve: db-migrate
	$(BIN)/uvicorn app.main:app $(ARGS)

.PHONY: db-migrate
db-migrate: $(READY) ## Bring the database up to the newest migration: DATABASE_URL's, or the one of `make run`
	$(BIN)/python -m benchmark.server $(BIN)/alembic -c backend/alembic.ini upgrade head

.PHONY: db
db: ## Start a PostgreSQL in Docker and print the TEST_DATABASE_URL to export
	@docker info >/dev/null 2>&1 || { echo "Docker is not running. Without it, leave TEST_DATABASE_URL unset:" \
		"PostgreSQL then starts by itself, from a wheel." >&2; exit 1; }
	docker compose up --detach --wait
	@echo "export TEST_DATABASE_URL=postgresql+asyncpg://tests:tests@127.0.0.1:54329/tests"

.PHONY: db-stop
db-stop: ## Remove it
	@docker info >/dev/null 2>&1 || { echo "Docker is not running: there is nothing to stop." >&2; exit 1; }
	docker compose down --volumes

##@ Quality

.PHONY: lint
lint: $(READY) ## Lint, format and types, without changing anything
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: fix
fix: $(READY) ## Mend what lint can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs-check
docs-check: $(READY) ## Links, anchors, commands and code of README and docs
	$(BIN)/pytest backend/guarantees/test_docs.py $(ARGS)

.PHONY: check
check: lint test ## What CI runs: lint, types, all tests (docs-check is one of the guarantees)

##@ Housekeeping

.PHONY: setup
setup: $(READY) ## Install the pinned packages into .venv (every other target does it by itself)

.PHONY: lock
lock: ## Pin the newest packages that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --group dev $(LOCK) -o requirements.lock
	uv pip compile pyproject.toml --group shapes $(LOCK) -o requirements-shapes.lock
	uv pip compile pyproject.toml --group rivals $(LOCK) -o requirements-rivals.lock
	uv pip compile pyproject.toml --group test --group benchmark $(LOCK) --resolution lowest-direct \
		-o requirements-lowest.lock

.PHONY: clean
clean: ## Remove .venv and every cache of this checkout
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This text
	@awk 'BEGIN {FS = ":.*## "; print "make TARGET [ARGS=\"...\"]"} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

define INSTALL
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed; type: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }
if command -v uv >/dev/null; then \
	uv venv --quiet --clear --python $(PYTHON) $(@D) && \
	uv pip install --quiet --compile-bytecode --python $(@D)/bin/python --require-hashes -r $<; \
else \
	$(PYTHON) -m venv --clear $(@D) && \
	$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<; \
fi
@touch $@
endef

# Each environment from its lock file, by uv where it is installed, else by venv and pip.
.venv/.ready: requirements.lock
	$(INSTALL)
.venv-%/.ready: requirements-%.lock
	$(INSTALL)
