# Needs Python 3.11 or newer with its venv module, git and make; everything else is installed into .venv from requirements.lock.
PYTHON ?= python3
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(wildcard protos/exchange/v1/*.proto)

# Hot modules are compiled where that can be done; COMPILE=0 does without. See "Compiled modules" in docs/operations.md.
NOTE_COMPILE := :
ifndef COMPILE
COMPILE := $(shell $(firstword $(wildcard $(BIN)/python) $(PYTHON)) tools/can_compile.py 2>/dev/null)
ifneq ($(COMPILE),1)
NOTE_COMPILE := echo "note: no C compiler or no Python.h (Debian: gcc, python3-dev): the engine will be slower, as pure Python"
endif
endif
# Each way has a stamp of its own, so that changing from one to the other installs again.
INSTALLED := $(VENV)/.installed
ifeq ($(COMPILE),1)
INSTALLED := $(VENV)/.installed-compiled
NOTE_COMPILE := echo "compiling the engine: about half a minute; COMPILE=0 does without"
COMPILED := tools/compiled_modules.txt $(shell cat tools/compiled_modules.txt)
endif
REMOVE_COMPILED := find exchange -name '*.so' -delete && rm -f exchange/compiled.json

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install protos demo up status gate test crash-test cluster-test ray-up-test money-test browser-test check bench lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## everything into .venv, at the versions of requirements.lock

# The top-level packages are listed too, because an editable install maps each of them by name.
$(INSTALLED): requirements.lock pyproject.toml setup.py tools/generate_protos.py $(PROTOS) $(wildcard */__init__.py) $(COMPILED)
	@command -v $(PYTHON) >/dev/null || { echo "error: expected Python 3.11 or newer, found no '$(PYTHON)'." \
	  "Install it (Debian, Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: expected Python 3.11 or newer, was" \
	  "$$($(PYTHON) --version). Install a newer one, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: expected Python's venv module, found none." \
	  "Install it (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	@rm -f $(VENV)/.installed* && $(REMOVE_COMPILED) && touch $(VENV)/.installing
	@$(NOTE_COMPILE)
	EVENKEEL_COMPILE=$(COMPILE) $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation \
	  --check-build-dependencies -e .
	@mv $(VENV)/.installing $@ # as old as the start, so that what was edited meanwhile is newer

protos: install ## the Python code of protos/ again, without a new install
	$(BIN)/python tools/generate_protos.py

demo: install ## the outage of 2023-07-05 in small, without the policies and with them; five minutes
	$(BIN)/chaos demo

up: install ## an exchange on this machine, until Ctrl-C
	$(BIN)/exchange up

status: install ## the status service, until Ctrl-C (first: evenkeel-status prepare)
	$(BIN)/evenkeel-status serve

gate: install ## experiments of a suite as a pipeline runs them; make gate SUITE=all SEEDS=3
	$(BIN)/chaos gate --suite $(or $(SUITE),ci) --seeds $(or $(SEEDS),1) $(if $(OUT),--out $(OUT))

test: install ## the tests that need neither minutes nor root
	$(BIN)/pytest -m "not slow and not root"

crash-test: install ## the slow tests: an exchange that is killed over and over
	$(BIN)/pytest -m slow -s tests/cluster

cluster-test: install ## 200 random faults under load, then every rule on the whole history; FAULTS=20 FAULT_SEED=7 make cluster-test
	$(BIN)/pytest -m slow -s tests/chaos/campaign

ray-up-test: install ## `ray up cluster.yaml` end to end, as root: needs sshd, ssh, rsync and namespaces
	$(BIN)/pytest -m "slow and root" -s tests/deploy/test_ray_up.py

money-test: install ## the slow tests of money: thousands of histories, and a kill at each message about it
	$(BIN)/pytest -m slow -s tests/engine/test_money_machine.py tests/runtime/test_transfer_kill.py

browser-test: install ## the status page in a real browser: needs Chromium (apt-get install chromium)
	$(BIN)/pytest -m slow tests/browser tests/status/web

check: install ## format, lint, types and protos; works offline
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint

bench: install ## the benchmarks
	$(BIN)/exchange bench

lock: ## requirements.lock again, from pyproject.toml; make lock UPGRADE=--upgrade takes newer versions
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/python -m pip install --disable-pip-version-check --quiet uv==$(UV_VERSION)
	build/lock-venv/bin/uv pip compile pyproject.toml --extra server --extra chaos --extra status --extra dev --universal --generate-hashes $(UPGRADE) \
	  --custom-compile-command "make lock" --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

clean: ## removes what was installed, generated or cached
	$(REMOVE_COMPILED)
	rm -rf $(VENV) exchange/v1 build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
