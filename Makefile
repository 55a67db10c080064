# Everything runs in a virtual environment of its own, .venv. Needs Python >= 3.10, a C++20 compiler
# and make; CMake and Ninja come from PyPI. PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
CMAKE := PATH="$(BIN):$$PATH" cmake
CTEST := PATH="$(BIN):$$PATH" ctest
PYTEST := $(BIN)/python -m pytest

PACKAGE_SOURCES := CMakeLists.txt pyproject.toml \
  $(shell find cmake csrc include python -type f -not -name '*.pyc' -not -name '*.so')

export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

.PHONY: help demo test test-gpu test-install lint format bench bench-gpu bench-peers sanitize clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/package ## decode real prompts plainly and with Medusa, side by side
	$(BIN)/medusa-native demo

test: $(VENV)/package $(VENV)/test googletest ## C++ tests, then Python tests
	$(CMAKE) --preset release
	$(CMAKE) --build --preset release
	$(CTEST) --preset release
	$(PYTEST) tests/python

# SYSTEM=1 installs nothing: python3, its packages, cmake and GoogleTest are this machine's (docs/cuda.md).
ifdef SYSTEM
test-gpu: ## kernels, engine and Python on a GPU, then compute-sanitizer
	PYTHON=$(PYTHON) tests/gpu/run.sh

bench-gpu: ## every figure a GPU can give, in 8 minutes: benchmarks/results/gpu.json
	PYTHON=$(PYTHON) benchmarks/gpu/run.sh
else
test-gpu: gpu-here $(VENV)/package $(VENV)/gpu googletest
	PATH="$(BIN):$$PATH" PYTHON=$(BIN)/python tests/gpu/run.sh

bench-gpu: gpu-here $(VENV)/package $(VENV)/gpu googletest
	PATH="$(BIN):$$PATH" PYTHON=$(BIN)/python benchmarks/gpu/run.sh
endif

.PHONY: gpu-here
gpu-here:
	@$(PYTHON) tests/gpu/require_gpu.py

test-install: ## sdist, wheel and pip install, with nvcc and without, each in a fresh environment
	$(PYTHON) tests/install/run.py

lint: $(VENV)/package $(VENV)/lint ## formatting, types, stubs, layering, symbols
	$(PYTEST) tests/lint

format: $(VENV)/lint ## rewrite the sources in the project's format
	find csrc include tests -name '*.cc' -o -name '*.h' -o -name '*.inc' | xargs $(BIN)/clang-format -i
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

sanitize: $(VENV)/test googletest ## C++ tests and damaged files under ASan and UBSan, threads under TSan
	$(PIP) "pybind11>=3.0"
	for preset in tsan asan; do \
	  $(CMAKE) --preset $$preset && $(CMAKE) --build --preset $$preset && $(CTEST) --preset $$preset \
	    || exit 1; \
	done
	PYTHON=$(BIN)/python tests/python/under_asan.sh build/asan tests/python/loading/test_damage.py

bench: $(VENV)/package $(VENV)/test googletest ## kernels, losslessness, quality, speed: benchmarks/results
	$(CMAKE) --preset release
	$(CMAKE) --build --preset release --target kernels_benchmark
	build/release/benchmarks/kernels_benchmark $(JOBS)
	$(BIN)/python benchmarks/losslessness.py
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/decode.py --threads $(JOBS)

bench-peers: $(VENV)/package ## beside Transformers, llama.cpp, OpenVINO and vLLM, each in its environment
	$(BIN)/python benchmarks/peers/run.py --threads $(JOBS)

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist
	find . -name '__pycache__' -prune -exec rm -rf {} +

# Each stamp is touched once its packages are in; newer sources install the package again.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/tools: $(VENV)/bin/python
	$(PIP) "cmake>=3.25" "ninja>=1.11"
	touch $@

$(VENV)/package: $(PACKAGE_SOURCES) | $(VENV)/tools
	$(PIP) .
	touch $@

# By name, an extra adds its packages to the package that is there; by path it would build it again.
$(VENV)/test: pyproject.toml | $(VENV)/package
	$(PIP) "medusa-native[test]"
	touch $@

$(VENV)/gpu: pyproject.toml | $(VENV)/package
	$(PIP) "pybind11>=3.0" "pytest>=9" "medusa-native[cuda]"
	touch $@

$(VENV)/lint: pyproject.toml | $(VENV)/package
	$(PIP) "medusa-native[lint]"
	touch $@

# The system's GoogleTest where it can be had; otherwise CMake fetches it.
.PHONY: googletest
googletest:
	@if [ ! -e /usr/include/gtest/gtest.h ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y libgtest-dev) \
	    >/dev/null 2>&1 || echo "libgtest-dev cannot be installed; CMake will fetch GoogleTest"; \
	fi
