# `make build` compiles into $(BUILD) and places the two compiled parts beside the Python sources, so
# that PYTHONPATH=python runs the checkout without an install. Nothing here needs the network when
# COGIT_LLAMA_SOURCE names a llama.cpp tree.
PYTHON ?= python3
BUILD ?= build
JOBS ?= 2
CMAKE ?= cmake
CMAKE_ARGS ?=
CLANG_FORMAT ?= $(dir $(shell command -v $(PYTHON)))clang-format

SOURCES_CPP = $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')
RUN = PYTHONPATH=python $(PYTHON)

.PHONY: build check format test test-all test-interop bench asan tsan clean

build:
	$(CMAKE) -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$$(command -v $(PYTHON)) $(CMAKE_ARGS)
	$(CMAKE) --build $(BUILD) --parallel $(JOBS)
	$(CMAKE) --install $(BUILD) --component python --prefix python

check:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(RUN) -m mypy
	MYPYPATH=python:. $(PYTHON) -m mypy bench
	$(CLANG_FORMAT) --dry-run --Werror $(SOURCES_CPP)

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	$(CLANG_FORMAT) -i $(SOURCES_CPP)

test:
	$(RUN) -m pytest

test-all:
	$(RUN) -m pytest -m "not gpu and not interop"

# Against steering-vectors, repeng and nnsight. PYTHON must be of an environment with
# `pip install '.[test,interop]'` and without requirements.txt, whose numpy and transformers are
# newer than repeng and steering-vectors allow. COGIT_STOCK_LLAMA may name the folder of another
# libllama of the pinned version, in which our control vectors then run too.
test-interop:
	$(RUN) -m pytest -m interop -rs

bench:
	@for name in kernels inject record subspace fit families; do \
	  $(RUN) -m bench.$$name --json bench/results/$$name.json || exit 1; done
	$(RUN) -m bench.results

# The kernels and their binding under AddressSanitizer and UndefinedBehaviorSanitizer, driven by
# their tests. The package beside the instrumented module is a copy, so that the checkout keeps its
# own. Leaks are not looked for: Python and torch keep memory until the process ends.
ASAN = build/asan
asan:
	$(CMAKE) --preset asan -DPython_EXECUTABLE=$$(command -v $(PYTHON))
	$(CMAKE) --build --preset asan --parallel $(JOBS)
	$(CMAKE) -E copy_directory python $(ASAN)/python
	$(CMAKE) -E rm -f $(ASAN)/python/cogit/_core*.so
	$(CMAKE) --install $(ASAN) --component python --prefix $(ASAN)/python
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  PYTHONPATH=$(ASAN)/python $(PYTHON) -m pytest -q $(wildcard tests/test_kernels*.py)

# The thread pool, and the kernels on it, under ThreadSanitizer.
TSAN_SOURCES = csrc/tests/pool_stress.cpp \
  $(addprefix csrc/kernels/,pool.cpp affine.cpp dense.cpp dispatch.cpp finish.cpp scratch.cpp \
    variant_baseline.cpp)
tsan:
	mkdir -p build/tsan
	$(CXX) -std=c++17 -O1 -g -fsanitize=thread -Icsrc $(TSAN_SOURCES) -pthread \
	  -o build/tsan/pool_stress
	build/tsan/pool_stress

clean:
	$(CMAKE) -E rm -rf $(BUILD) python/cogit/_llama
	$(CMAKE) -E rm -f python/cogit/_core*.so
