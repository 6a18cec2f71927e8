# lumefield: every task of the project. A fresh machine needs Python >= 3.11 and make, nothing else
# (uv is used when it is there: faster). The environment is .venv; PYTHON=... picks the interpreter.

PYTHON ?=
BIN := .venv/bin
RUNTIME := .venv/.runtime
TEST := .venv/.test

.PHONY: help setup demo test slow check lint types format bench viewer screenshots clean

help:
	@echo "make demo    make a photo set, train on it, show the result (installs what it needs)"
	@echo "make setup   install lumefield and everything its tests need into .venv"
	@echo "make test    the tests that take seconds      make slow   those that take minutes"
	@echo "make check   lint, format, types              make format lint and format in place"
	@echo "make viewer  build the page of the viewer    make screenshots  pictures of it (Node, Chromium)"
	@echo "make bench   the benchmarks, beside their committed baseline"

demo: $(RUNTIME)
	$(BIN)/python -m lumefield.apps demo

setup: $(TEST)

test: $(TEST)
	$(BIN)/python -m pytest -q --tb=short -n auto --maxprocesses 4

slow: $(TEST)
	$(BIN)/python -m pytest -q -m slow

check: lint types

lint: $(TEST)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(TEST)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/python -m pyright

format: $(TEST)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

bench: $(RUNTIME)
	$(BIN)/python -m benchmarks.suite

viewer: viewer/node_modules
	cd viewer && node build.mjs

screenshots: $(TEST) viewer/node_modules
	$(BIN)/python -m tests.viewer.screenshots $(RUN)

viewer/node_modules: viewer/package-lock.json
	cd viewer && npm ci --no-audit --no-fund
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist viewer/node_modules

# Stamps: installed again only when pyproject.toml has changed.
$(RUNTIME): pyproject.toml
	@.ci/install "$(PYTHON)" .
	@touch $@

$(TEST): pyproject.toml
	@.ci/install "$(PYTHON)" '.[test]'
	@touch $(RUNTIME) $@
