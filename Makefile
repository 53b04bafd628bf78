# Every target sets up what it needs and can be run again at once. As root, the work is done by the unprivileged user
# CLAW_USER (default `claw`) on a copy of this tree; as a user, right here (host/make, host/setup.sh say what they do).

IMAGE := localhost/openclaw-nix:dev
SHELL := /bin/bash
VENV  := .venv
BIN   := $(VENV)/bin

.PHONY: help install demo test check lint smoke bench image kill-matrix torture hostile lab conformance nix-proof clean inside-install inside-demo inside-test inside-check inside-lint inside-smoke inside-bench inside-kill-matrix inside-torture inside-hostile inside-conformance inside-nix-proof inside-image image-ready

help:
	@echo "make demo         build the OpenClaw image, watch a tenant remember across two containers, install claw"
	@echo "make install      on a host with systemd: install claw as units of this user (root: of the user CLAW_USER)"
	@echo "make test         lint, unit, contract, integration, security and image tests, smoke checks; as root, then hosts of the lab"
	@echo "make check        the quick part of it, without containers: lint, unit and docs tests on two processes"
	@echo "make lint         ruff and mypy"
	@echo "make smoke        smoke checks of the image that is there; evidence in evidence/; OPENCLAW=VERSION as for image"
	@echo "make bench        figures against the peers, appended to evidence/bench.jsonl"
	@echo "make image        build $(IMAGE): with Nix where its cache answers, else from the Containerfile; install claw"
	@echo "make image OPENCLAW=VERSION  another version of OpenClaw, with the version as the image's tag"
	@echo "make kill-matrix  kill the daemon at every call that changes something; report in evidence/kill-matrix.md"
	@echo "make torture      kill the state engine a thousand times; a living tree; a day of commits; 5,000 random histories"
	@echo "make hostile      one tenant does its worst beside twenty others; report in evidence/hostile.md"
	@echo "make lab          boot ordinary hosts with systemd, Debian 12 and 13, and run claw on them; as root"
	@echo "make conformance  ask every object store that can be had what it does; rewrites docs/CONFORMANCE.md"
	@echo "make nix-proof    build the Nix image without a cache, over test doubles, twice; smoke checks; evidence in evidence/nix/"
	@echo "make clean        remove what these made below this tree, and its commands; images and tenants' states stay"

# Another version of OpenClaw than the default, for `image` and `smoke`.
export CLAW_OPENCLAW := $(or $(OPENCLAW),$(CLAW_OPENCLAW))

install demo test check lint smoke bench image kill-matrix torture hostile lab conformance:
	@host/make $@

nix-proof:
	@CLAW_EXTRA_PACKAGES="nix-bin zstd" host/make $@

inside-demo: image-ready
	@docs/examples/openclaw/demo.sh

inside-install: $(VENV)/.program
	@$(BIN)/claw-runtime install

# Thousands of tests sync small files to the disk; in memory, where there is room, they take half the time.
inside-test inside-check: export PYTEST_DEBUG_TEMPROOT := $(shell [ -w /dev/shm ] && [ "$$(df --output=avail /dev/shm | tail -n 1)" -gt 2000000 ] && echo /dev/shm || echo /tmp)

# All tests in parts side by side, then the smoke checks: docs/TESTING.md.
inside-test: inside-lint image-ready
	@tests/run

inside-check: inside-lint
	@tests/run units

inside-lint: $(VENV)/.ready
	@$(BIN)/ruff check && $(BIN)/ruff format --check --quiet && $(BIN)/mypy

inside-smoke: $(VENV)/.ready
	@IMAGE=$${CLAW_OPENCLAW:+localhost/openclaw-nix:$$CLAW_OPENCLAW} tests/smoke/run

inside-nix-proof: export EVIDENCE_DIR ?= $(CURDIR)/evidence/nix
inside-nix-proof: $(VENV)/.ready
	@mkdir -p $(EVIDENCE_DIR)
	@$(BIN)/python -m pytest -q tests/nix
	@set -o pipefail; tests/nix/standin/build.sh 2>&1 | tee $(EVIDENCE_DIR)/task-6-nix-standin.txt

inside-bench: image-ready
	@$(BIN)/python tests/bench/run.py

inside-kill-matrix: $(VENV)/.ready
	@PYTHONPATH=tests $(BIN)/python -m kill.report

inside-torture: $(VENV)/.ready
	@PYTHONPATH=tests $(BIN)/python -m torture.report
	@PYTHONPATH=tests $(BIN)/python -m torture.living
	@PYTHONPATH=tests $(BIN)/python -m torture.day
	@CLAW_TORTURE_EXAMPLES=5000 $(BIN)/python -m pytest -q tests/torture/test_machine.py

inside-hostile: $(VENV)/.ready
	@PYTHONPATH=tests $(BIN)/python -m hostile.report

# In environments of their own: ministack pins another botocore. In a copy of this tree only evidence/ comes back.
inside-conformance: $(VENV)/peers/.ready
	@$(BIN)/python docs/generate_conformance.py
	@mkdir -p evidence && cp docs/CONFORMANCE.md evidence/conformance.md
	@$(BIN)/python -m pytest -q tests/contracts

$(VENV)/peers/.ready: $(VENV)/.ready
	@for peer in ministack==1.5.33 pys3local==0.2.1; do \
	  /usr/bin/python3 -m venv $(VENV)/peers/$${peer%%=*} && $(VENV)/peers/$${peer%%=*}/bin/pip install -q $$peer || exit 1; \
	done
	@touch $@

inside-image: $(VENV)/.ready
	@images/build.sh

# What the tests, the demo and the figures run: the default version.
image-ready: $(VENV)/.ready
	@CLAW_OPENCLAW= images/build.sh

# Built anew whenever a version changes; the two distributions are installed as links to this tree.
$(VENV)/.program: constraints.txt entrypoint/pyproject.toml runtime/pyproject.toml
	@echo "claw: creating $(VENV)"
	@/usr/bin/python3 -m venv $(VENV)
	@$(BIN)/pip install -q -c constraints.txt -e entrypoint -e 'runtime[s3,router]'
	@touch $@

# With what only the tests and linters need.
$(VENV)/.ready: $(VENV)/.program pyproject.toml
	@$(BIN)/pip install -q -c constraints.txt -e entrypoint -e 'runtime[s3,router,dev]'
	@touch $@

clean:
	@host/commands remove
	rm -rf $(VENV) evidence .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
