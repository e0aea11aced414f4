# The lab's commands.  `make help` lists them; each one makes what it needs.

PORT         ?= 8888
PUBLISH_PORT ?= 8080
MEMORY       ?= 2048
CPUS         ?= 2
PYTHON       ?= python3
BIN          := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help lab down test test-long arm64 bench box lint notebooks clean

help: ## this list
	@echo "usage: make TARGET"; echo
	@sed -n 's/^\([a-z0-9-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14
	@echo; echo "make lab understands PORT=$(PORT) PUBLISH_PORT=$(PUBLISH_PORT) MEMORY=$(MEMORY) CPUS=$(CPUS)"
	@echo "  FRESH=1      a new machine; what learners wrote is kept"
	@echo "  WHERE=here   JupyterLab directly on this Linux (labkit doctor decides)"

ifeq ($(WHERE),here)
lab: .can-lab-here $(BIN)/.lab ## start the lab, or find the running one, and print its address
	@$(BIN)/labkit lab here --port $(PORT)
else
lab: .can-lab $(BIN)/.kit
	@$(BIN)/labkit lab up --port $(PORT) --publish-port $(PUBLISH_PORT) --memory $(MEMORY) --cpus $(CPUS) $(if $(FRESH),--fresh)
endif

down: $(BIN)/.kit ## stop the lab; nothing of it is left
	@$(BIN)/labkit lab down

test: $(BIN)/.test ## every test: here what this kernel can run, the rest in the lab's machine
	@$(BIN)/python -m tests.run

test-long: $(BIN)/.test ## the same, and what is long by nature
	@$(BIN)/python -m tests.run --long

arm64: $(BIN)/.test ## build the arm64 image and boot it once, emulated; the console goes to .lab/arm64.log
	@mkdir -p .lab && LAB_ARM64_LOG=.lab/arm64.log $(BIN)/pytest -m long tests/test_arm64_boot.py

bench: $(BIN)/.test ## labkit against podman, runc, crun and umoci, as ratios; what looking costs
	@$(BIN)/python -m bench

box: $(BIN)/.kit ## a Vagrant box with everything baked in, in .lab/box
	@$(BIN)/python -m labkit.lab.box_build

lint: $(BIN)/.test ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

notebooks: $(BIN)/.test ## run every notebook in the lab and write its executed twin
	@$(BIN)/python -m tests.nb.make

clean: ## stop the lab; remove the environment and the built images
	@if [ -x $(BIN)/labkit ]; then $(BIN)/labkit lab down && $(BIN)/labkit lab clean; fi
	@rm -rf .venv .lab *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: .can-lab .can-lab-here
.can-lab-here: $(BIN)/.kit
	@$(BIN)/labkit lab here --port $(PORT) --check
.can-lab:
	@sh vagrant/host/can-lab.sh

# One stamp a set of packages; pyproject.toml names them.  compat: setuptools' default for an editable
# package is an import hook that costs every start of `labkit` 17 ms; this is a plain path.
PIP := $(BIN)/pip install -q --config-settings editable_mode=compat
$(BIN)/python:
	@sh vagrant/host/make-venv.sh $(PYTHON)
$(BIN)/.kit: $(BIN)/python pyproject.toml
	@$(PIP) -e . && touch $@
$(BIN)/.lab: $(BIN)/.kit
	@$(PIP) -e '.[lab]' && touch $@
$(BIN)/.test: $(BIN)/.kit
	@$(PIP) -e '.[lab,test]' && touch $@
