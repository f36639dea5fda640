# `make` alone prints what there is. Every target sets up what it needs by itself.
.DEFAULT_GOAL := help
SHELL := bash
MAKEFLAGS += --no-print-directory

WINDOWS := $(filter Windows_NT,$(OS))
PYTHON ?= $(if $(WINDOWS),python,python3)
# Passed through to the command of the target, as in: make test-backend ARGS="-k login"
ARGS ?=
# A part of the suite, as in: make test-shard SHARD=2/4
SHARD ?=
# The number of workers of test-parallel and test-forked, as in: make test-parallel N=4
N ?= auto

SCRIPTS := $(if $(WINDOWS),Scripts,bin)
BIN := .venv/$(SCRIPTS)
READY := .venv/.ready
DURATIONS := backend/tests/.test_durations
FOLDER := */tests/conftest.py,*/tests/fastapi_conftest/*
LOCK := --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	--custom-compile-command "make lock" --upgrade
export PYTHONPATH := backend
# Images often set it; without the cache every run would compile every test again.
unexport PYTHONDONTWRITEBYTECODE

# --- Tests

.PHONY: test
test: test-backend guarantees shapes ## All tests: the reference suite, the guarantees, other shapes

.PHONY: guarantees
guarantees: $(READY) #- The tests of the conftest itself, each in a project of its own
	$(BIN)/pytest backend/guarantees --ignore backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

.PHONY: shapes
shapes: .venv-shapes/.ready #- The conftest in projects of other shapes, in an environment of their own
	.venv-shapes/$(SCRIPTS)/pytest backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

.PHONY: test-backend
test-backend: $(READY) ## The reference suite, in one process
	$(BIN)/pytest backend/tests $(ARGS)

.PHONY: test-parallel
test-parallel: $(READY) ## The reference suite on N workers, one database each
	$(BIN)/pytest backend/tests -n $(N) $(ARGS)

.PHONY: test-forked
test-forked: $(READY) ## The same on N workers that are forked once the application is imported
	$(BIN)/pytest backend/tests --workers $(N) $(ARGS)

.PHONY: test-before
test-before: $(READY) ## The same tests under the old conftest: drop and create for every test
	$(BIN)/pytest --noconftest -p benchmark.before backend/tests $(ARGS)

.PHONY: test-random
test-random: $(READY) #- The reference suite in random order; repeat one with SEED=the number it printed
	$(BIN)/pytest backend/tests --random-order $(if $(SEED),--random-order-seed=$(SEED)) $(ARGS)

.PHONY: test-lowest test-newest
test-lowest: #- The suite and the guarantees on the lowest versions of pyproject.toml
test-newest: #- The same on the newest versions there are, past the lock file
test-lowest test-newest: test-%: .venv-%/.ready
	.venv-$*/$(SCRIPTS)/pytest backend/tests $(ARGS)
	.venv-$*/$(SCRIPTS)/pytest backend/guarantees --ignore backend/guarantees/test_drop_in.py -n $(N) $(ARGS)

.PHONY: test-versions
test-versions: $(READY) #- A small project with each set of versions that adopters may have pinned: ARGS="0.24 1.0"
	$(BIN)/python -m ci.versions $(ARGS)

# --- Shards: a suite that has outgrown one machine

.PHONY: test-shard checked-shard
test-shard: PART = $(subst /,-of-,$(SHARD))
test-shard: checked-shard $(READY) #- One part of the suite, as in: make test-shard SHARD=2/4; its report goes to shards/
	mkdir -p shards
	rm -f shards/shard-$(PART).xml shards/.coverage.$(PART).*
	COVERAGE_FILE=shards/.coverage.$(PART) $(BIN)/coverage run --include "backend/app/*" \
		-m pytest backend/tests -n $(N) --junitxml shards/shard-$(PART).xml \
		--group $(firstword $(subst /, ,$(SHARD))) --splits $(lastword $(subst /, ,$(SHARD))) \
		--splitting-algorithm least_duration --durations-path $(DURATIONS) $(ARGS)

checked-shard:
	@[[ "$(SHARD)" =~ ^([1-9][0-9]*)/([1-9][0-9]*)$$ ]] && (( BASH_REMATCH[1] <= BASH_REMATCH[2] )) || \
		{ echo "SHARD=$(SHARD) is no part of the suite; type: make test-shard SHARD=2/4" >&2; exit 1; }

.PHONY: merge-shards
merge-shards: $(READY) #- Merge what is in shards/; fails unless every test of the suite ran once, and passed
	$(BIN)/python -m ci.shards shards backend/tests
	rm -f shards/.coverage
	$(BIN)/coverage report --keep-combined --data-file shards/.coverage \
		--include "backend/app/*" --fail-under 97

.PHONY: durations
durations: $(READY) #- Record how long each test takes, by which the suite is split
	$(BIN)/pytest backend/tests --store-durations --clean-durations --durations-path $(DURATIONS)

# --- Comparison

.PHONY: compare
compare: $(READY) ## Before and after, in a table; of your own project: ARGS="PROJECT --before main --after HEAD"
	$(BIN)/python -m benchmark.compare $(ARGS)

.PHONY: summary
summary: $(READY) #- The figures of compare.json as Markdown, with a chart: for the summary of a CI job
	@$(BIN)/python -m ci.summary compare.json

.PHONY: isolation
isolation: $(READY) ## What isolation costs a test, beside bare BEGIN and ROLLBACK
	$(BIN)/python -m benchmark.isolation

.PHONY: profile
profile: $(READY) ## Where the time of a suite goes, and what to fix next; of your own project: ARGS="PROJECT"
	$(BIN)/python -m benchmark.profile $(ARGS)

.PHONY: benchmark
benchmark: .venv-charts/.ready .venv-rivals/.ready #- All strategies, rivals, limit and growth: docs/benchmarks
	.venv-charts/bin/python -m benchmark $(ARGS)

.PHONY: benchmark-rivals
benchmark-rivals: .venv-charts/.ready .venv-rivals/.ready #- The rivals alone
	.venv-charts/bin/python -m benchmark rivals $(ARGS)

# --- Application

.PHONY: run
run: $(READY) ## Serve the reference application on http://127.0.0.1:8000/docs
	$(BIN)/python -m benchmark.server make serve ARGS="$(ARGS)"

.PHONY: serve
serve: db-migrate
	$(BIN)/uvicorn app.main:app $(ARGS)

.PHONY: db-migrate
db-migrate: $(READY) #- Bring the database up to the newest migration: DATABASE_URL's, or the one of `make run`
	$(BIN)/python -m benchmark.server $(BIN)/alembic -c backend/alembic.ini upgrade head

.PHONY: db
db: ## Start a PostgreSQL in Docker and print the TEST_DATABASE_URL to export
	@docker compose ls >/dev/null 2>&1 || { echo "Docker with Compose is not running. Without it, leave" \
		"TEST_DATABASE_URL unset: PostgreSQL then starts by itself, from a wheel." >&2; exit 1; }
	docker compose up --detach --wait
	@echo "export TEST_DATABASE_URL=postgresql+asyncpg://tests:tests@127.0.0.1:54329/tests"

.PHONY: db-stop
db-stop: #- Remove it
	@docker compose ls >/dev/null 2>&1 || { echo "Docker with Compose is not running: there is nothing to" \
		"stop. The PostgreSQL from the wheel stops by itself." >&2; exit 1; }
	docker compose down --volumes

# --- Quality

.PHONY: lint
lint: $(READY) #- Lint, format, types, spelling, and the files of CI, without changing anything
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/typos
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/zizmor --offline --quiet --persona auditor .github

.PHONY: fix
fix: $(READY) #- Mend what lint can mend by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: docs-check
docs-check: $(READY) #- Links, anchors, commands and code of README and docs
	$(BIN)/pytest backend/guarantees/test_docs.py $(ARGS)

.PHONY: shapes-page
shapes-page: #- Write the conftests of the shapes into docs/shapes.md
	@$(NEW_ENOUGH)
	@$(PYTHON) -m ci.shapes

.PHONY: picture
picture: $(READY) #- Draw what a run prints, for the README
	$(BIN)/python -m ci.picture

.PHONY: coverage
coverage: $(READY) #- The suite on both paths and the guarantees, and how much of app and folder they reach
	$(BIN)/coverage erase
	$(BIN)/coverage run --include "backend/app/*" -m pytest backend/tests
	$(BIN)/coverage run --include "backend/app/*" -m pytest backend/tests --real-commits
	$(BIN)/coverage run --include "$(FOLDER)" -m pytest backend/guarantees \
		--ignore backend/guarantees/test_drop_in.py -n $(N)
	$(BIN)/coverage report --include "backend/app/*" --fail-under 97
	$(BIN)/coverage report --include "backend/tests/*" --fail-under 97

.PHONY: audit
audit: .venv-audit/.ready #- Known vulnerabilities of the pinned packages (needs the network)
	.venv-audit/$(SCRIPTS)/pip-audit --strict --disable-pip --require-hashes -r locks/dev.lock

.PHONY: check
check: lint test ## What CI runs: lint, types, and all tests, those of the suite on both paths
	$(BIN)/pytest backend/tests --real-commits

# --- Housekeeping

.PHONY: setup
setup: $(READY) #- Install the pinned packages into .venv (every other target does it by itself)

.PHONY: lock
lock: #- Pin the newest packages that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --group dev $(LOCK) -o locks/dev.lock
	uv pip compile pyproject.toml --group shapes $(LOCK) -o locks/shapes.lock
	uv pip compile pyproject.toml --group charts $(LOCK) -o locks/charts.lock
	uv pip compile pyproject.toml --group rivals $(LOCK) -o locks/rivals.lock
	uv pip compile pyproject.toml --group test --group drivers --group benchmark $(LOCK) --resolution lowest-direct \
		-o locks/lowest.lock

.PHONY: clean
clean: ## Remove .venv, every cache of this checkout, and the data of the embedded server
	[ ! -x $(BIN)/python ] || $(BIN)/python -c "from benchmark import server; server.remove_data()"
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: #- This text
	@echo 'make TARGET [ARGS="..."]'
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'For work on this repository:'
	@awk 'BEGIN {FS = ":.*#- "} /^[a-z-]+:.*#- / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed; type: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 1; }

# An environment with what the argument names, by uv where it is installed, else by venv and pip.
define INSTALL
@$(NEW_ENOUGH)
if command -v uv >/dev/null; then \
	uv venv --quiet --clear --python $(PYTHON) $(@D) && \
	uv pip install --quiet --compile-bytecode --python $(@D) $(1); \
else \
	$(PYTHON) -m venv --clear $(@D) && \
	$(@D)/$(SCRIPTS)/pip install --quiet --disable-pip-version-check $(1); \
fi
@touch $@
endef

# The direct dependencies without a lock file.
UNLOCKED = $(PYTHON) -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb")); \
	groups = project["dependency-groups"]; \
	print(*project["project"]["dependencies"], *groups["test"], *groups["drivers"], \
	*groups["benchmark"], sep="\n")'

.venv/.ready: locks/dev.lock
	$(call INSTALL,--require-hashes -r $<)
.venv-%/.ready: locks/%.lock
	$(call INSTALL,--require-hashes -r $<)
# What is newest changes without a file that changes.
.PHONY: .venv-newest/.ready .venv-audit/.ready
.venv-newest/.ready:
	$(call INSTALL,-r <($(UNLOCKED)))
.venv-audit/.ready:
	$(call INSTALL,pip-audit)
