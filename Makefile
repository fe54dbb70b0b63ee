# Every target sets up what it needs: `make up` in a fresh clone is enough.
# The work is in scripts (.ci/), so that a shell can run it without make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

BIN := .venv/bin
ARGS ?=

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what the lock file says into .venv (the other targets do it for you)
	@.ci/setup

# `exec` leaves no shell in between: make passes SIGTERM on to its own child only, and a terminal's
# Ctrl-C reaches the whole group. Either way `maas up` stops its servers before make ends.
.PHONY: up
up: setup ## Run the whole platform: PostgreSQL, Valkey, API, worker, beat (ARGS="--port 9000")
	@exec $(BIN)/maas up $(ARGS)

.PHONY: test
test: setup ## Run the tests (ARGS="-k login -x")
	@exec .ci/test $(ARGS)

.PHONY: check
check: setup ## Format, lint, types, import contracts, spelling, migrations, generated documents
	@exec .ci/check

.PHONY: supply
supply: setup ## Advisories, bill of materials, licences, hashes, bandit, image and compose linted
	@exec .ci/supply $(ARGS)

.PHONY: pythons
pythons: setup ## Unit tests and the wheel on the other Pythons, 3.12 and 3.13 (VERSIONS=3.13)
	@exec .ci/pythons $(VERSIONS)

.PHONY: demo
demo: setup ## From real weights to a proven answer, against a running `make up` or by itself
	@exec $(BIN)/python -m docs.demo.journey $(ARGS)

.PHONY: acceptance
acceptance: setup ## Print PASS or MISS, with its figure, for each promise a command can show
	@exec $(BIN)/python -m tests.acceptance $(ARGS)

.PHONY: chaos
chaos: setup ## Break everything under load, and check that nothing is lost (SEEDS=30, ARGS="--only C08")
	@exec $(BIN)/python -m tests.chaos $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

.PHONY: load
load: setup ## Overload, slow clients and stops in mid-work, each figure beside its goal (ARGS="--only stop")
	@exec $(BIN)/python -m tests.load $(ARGS)

.PHONY: migrations
migrations: setup ## Walk every revision up, down and up on a million rows while others work (ARGS="--rows 50000")
	@exec $(BIN)/python -m tests.migrations.at_scale $(ARGS)

.PHONY: fuzz
fuzz: setup ## Ask 100,000 generated requests as every role (ARGS="--seed 1 --only /api/v1/models")
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

.PHONY: bench
bench: setup ## Measure the platform beside a bare FastAPI route, by CPU per request
	@exec $(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: setup ## Write openapi.json, errors.md, audit-actions.md and settings.md in docs/ anew
	@exec $(BIN)/python .ci/docs.py write

.PHONY: site
site: setup ## Build the documentation into site/ (ARGS=serve: show it while you write)
	@NO_MKDOCS_2_WARNING=1 exec $(BIN)/mkdocs $(or $(ARGS),build --strict) -f .ci/mkdocs.yml

.PHONY: format
format: setup ## Let ruff format the code and mend what it safely can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

.PHONY: clean
clean: ## Remove the environment, caches and build results (never the platform's data)
	@rm -rf .venv .uv dist build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests alembic bench docs .ci -name __pycache__ -type d -prune -exec rm -rf {} +
