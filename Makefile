# Thin: each target prints the command that it runs, and the command works by itself.
PYTHON := .venv/bin/python
JOBS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
PYTEST := $(PYTHON) -m pytest -n $(JOBS) --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help bootstrap up down chaos test test-fast lint types fmt inventory requirements

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bootstrap: ## .venv and the Pulumi engine
	scripts/bootstrap

up: bootstrap ## deploy the Australian stack to a region on this machine, and run a validation in it
	$(PYTHON) scripts/up.py

down: ## stop the region; what it holds stays for the next `make up`
	scripts/bootstrap --no-engine
	$(PYTHON) -m localgcp down

chaos: bootstrap ## work in a region of its own while its parts are killed, and count; ARGS=--help for how much
	$(PYTHON) scripts/chaos.py $(ARGS)

test: bootstrap ## every test
	scripts/browser
	$(PYTEST)

test-fast: bootstrap ## the tests of one idea each: no end-to-end run
	$(PYTEST) -m "not e2e and not slow"

lint: bootstrap ## ruff, import arrows, spelling, shell
	scripts/lint

types: bootstrap ## mypy, strict
	$(PYTHON) -m mypy

fmt: bootstrap ## format, and fix what can be fixed
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

inventory: bootstrap ## write infra/inventory/*.json again: read the diff
	$(PYTHON) -m tests.infra.inventory

requirements: ## compile pyproject.toml's dependency groups with uv; ARGS=--upgrade for newer versions
	scripts/compile-requirements $(ARGS)
