# `make build` compiles into $(BUILD) and places the two compiled parts beside the Python sources, so
# that PYTHONPATH=python runs the checkout without an install. Nothing here needs the network when
# COGIT_LLAMA_SOURCE names a llama.cpp tree.
PYTHON ?= python3
BUILD ?= build
JOBS ?= 2
CMAKE ?= cmake
CMAKE_ARGS ?=
CLANG_FORMAT ?= $(dir $(shell command -v $(PYTHON)))clang-format

SOURCES_CPP = $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu')
RUN = PYTHONPATH=python $(PYTHON)

.PHONY: build check format test test-all bench asan clean

build:
	$(CMAKE) -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON)) $(CMAKE_ARGS)
	$(CMAKE) --build $(BUILD) --parallel $(JOBS)
	$(CMAKE) --install $(BUILD) --component python --prefix python

check:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(RUN) -m mypy
	$(CLANG_FORMAT) --dry-run --Werror $(SOURCES_CPP)

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(CLANG_FORMAT) -i $(SOURCES_CPP)

test:
	$(RUN) -m pytest

test-all:
	$(RUN) -m pytest -m "not gpu"

bench:
	$(RUN) -m bench.kernels

asan:
	$(CMAKE) --preset asan -DPython_EXECUTABLE=$$(command -v $(PYTHON))
	$(CMAKE) --build --preset asan --parallel $(JOBS)

clean:
	$(CMAKE) -E rm -rf $(BUILD) python/cogit/_llama
	$(CMAKE) -E rm -f python/cogit/_core*.so
