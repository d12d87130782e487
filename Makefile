# The front door. Every target works from a fresh clone on a bare Debian 12 (as root or with sudo).
#   make build         build/redknot, release
#   make demo          the main job on small real input; fetches the demo model (98 MB) once
#   make test          format, layers, release build, all tests
#   make test-all      make test, then clang, headers alone, sanitizers, fuzzers, the openai client (an hour)
#   make bench         micro benchmarks of the kernels
#   make format        clang-format over all sources
#   make install-deps  the Debian packages all of the above need, only those that are missing
#   make clean         removes the build trees
# Variables: JOBS=n (default: all cores), FUZZ_SECONDS=n (default 60).

JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
CTEST = ctest --output-on-failure -j $(JOBS)

.PHONY: build test test-all demo bench format clean install-deps deps-build deps-test \
        check-clang check-headers check-asan check-tsan check-fuzz check-openai

build: deps-build
	cmake --preset release -DRK_TESTS=OFF
	cmake --build build -j $(JOBS)
	@echo "built build/redknot"

demo: build
	build/redknot demo

test: deps-test
	tools/check_format.sh
	python3 tools/check_layers.py
	cmake --preset release -DRK_TESTS=ON
	cmake --build build -j $(JOBS)
	$(CTEST) --test-dir build

# One after the other: each of them uses all cores.
test-all: install-deps
	$(MAKE) test
	$(MAKE) check-clang
	$(MAKE) check-headers
	$(MAKE) check-asan
	$(MAKE) check-tsan
	$(MAKE) check-fuzz
	$(MAKE) check-openai
	@echo "test-all: everything passed"

check-clang:
	cmake --preset clang
	cmake --build build-clang -j $(JOBS)

check-headers:
	cmake --preset release -DRK_TESTS=ON
	cmake --build build -j $(JOBS) --target check_headers

check-asan:
	cmake --preset asan
	cmake --build build-asan -j $(JOBS)
	$(CTEST) --test-dir build-asan

check-tsan:
	cmake --preset tsan
	cmake --build build-tsan -j $(JOBS) --target base_test engine_test serve_test server_test
	$(CTEST) --test-dir build-tsan -R '^(base|engine|serve|server)\.' -E '\.(process|openai_client)$$'

check-fuzz:
	cmake --preset fuzz
	cmake --build build-fuzz -j $(JOBS) --target fuzzers
	tests/fuzz/run.sh build-fuzz $(FUZZ_SECONDS)

# The real client package, into the build tree only. Its test is skipped in `make test` where python3
# has no such package.
check-openai:
	cmake --preset release -DRK_TESTS=ON
	cmake --build build -j $(JOBS) --target redknot
	python3 -c 'import sys; sys.path.insert(0, "build/python"); import openai' 2>/dev/null || \
		python3 -m pip install --quiet --disable-pip-version-check --target build/python openai
	REDKNOT=build/redknot PYTHONPATH=build/python python3 tests/server/openai_client_test.py

bench: install-deps
	cmake --preset release -DRK_TESTS=OFF -DRK_BENCH=ON
	cmake --build build -j $(JOBS)
	build/redknot bench kernels
	@if command -v nvidia-smi >/dev/null; then build/redknot bench kernels --device cuda; else echo "== no card"; fi
	@for b in build/bench/*_bench; do \
	  case $$b in *_cuda_bench) command -v nvidia-smi >/dev/null || { echo "== $$b: no card"; continue; };; esac; \
	  echo "== $$b"; $$b || exit 1; done

format: deps-test
	tools/check_format.sh --fix

install-deps:
	tools/install_deps.sh all

deps-build:
	@tools/install_deps.sh build

deps-test:
	@tools/install_deps.sh test

clean:
	rm -rf build build-dev build-asan build-tsan build-cuda build-clang build-fuzz
