# Targets; `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := sweep,log,data,export,search,report,docs,dev
# cpu: the build of PyTorch without CUDA and its packages, 4 GB less, where the index in use has it.
TORCH ?= cuda
CONSTRAINTS_cuda := constraints.txt
CONSTRAINTS_cpu := $(VENV)/constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint format bench docs clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	grep -vE '^(torch|torchvision|triton|cuda-.*|nvidia-.*)==' constraints.txt | cat - constraints-cpu.txt > $(CONSTRAINTS_cpu)
	$(BIN)/python -m pip install --compile --constraint $(CONSTRAINTS_$(TORCH)) --editable ".[$(EXTRAS)]"
	$(BIN)/python -m compileall -q src
	touch $@

setup: $(INSTALLED) ## Create .venv and install all that the stages need; TORCH=cpu: without CUDA

demo: $(INSTALLED) ## The main job on the embedded digits: train, prune, quantise, score
	$(BIN)/micronet

test: $(INSTALLED) ## The default tests
	$(BIN)/python -m pytest -n auto --dist loadfile

test-full: $(INSTALLED) ## All tests, the slow ones too
	$(BIN)/python -m pytest -m "not gpu" -n auto --dist loadfile

lint: $(INSTALLED) ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Mend the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## The benchmarks that need no data
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/latency.py

docs: $(INSTALLED) ## The documentation site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## Remove the environment and what tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist site
	find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
