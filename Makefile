# Every target makes what it needs; a second call reuses what is there.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
STAMP := $(VENV)/.made
CORPUS := data/shards/phase1/dataset.json
TESTS ?= tests
export HF_HUB_OFFLINE := 1

.PHONY: setup demo test coverage lint bench faults clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make setup: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q tui engine model data profiles
	@touch $@

$(CORPUS): | $(STAMP)
	$(BIN)/python -m tui.cli data demo

demo: $(STAMP) $(CORPUS)
	@BIN=$(BIN) sh scripts/demo.sh

test: $(STAMP) $(CORPUS) tmux ops
	$(BIN)/python -m pytest -n 2 -m "not faults" $(TESTS)

# The same tests, with the share of lines they ran. Not part of `make test`: tests in pure Python take twice as long.
coverage: $(STAMP) $(CORPUS) tmux ops
	$(BIN)/python -m pytest -n 2 -m "not faults" --cov --cov-report=term $(TESTS)

# DeepSpeed's optimizer, built once and kept in ~/.cache/mla-tui: it takes a minute or more, which no test should wait for.
# DeepSpeed is for Linux.
.PHONY: ops
ops: $(STAMP)
	@[ "$$(uname)" != Linux ] || DS_ACCELERATOR=cpu $(BIN)/python -m engine.train.backends.cpu_adam >/dev/null

# The end-to-end tests run the app in a real tmux.
.PHONY: tmux
tmux:
	@command -v tmux >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq tmux; } \
	  || { echo "make test: tmux is missing; install it with your package manager" >&2; exit 1; }

# A prebuilt llama.cpp, in which the tests of exported GGUF files run them. Its build for processors with AMX aborts on
# the key matrices of latent attention in float16 (3.22.1), so it is removed: llama.cpp then takes the next best.
.PHONY: llama
LLAMA := $(HOME)/.cache/mla-tui/llama
llama:
	npm install --prefix $(LLAMA) --ignore-scripts --omit=optional --no-audit --no-fund node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
	rm -f $(LLAMA)/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-cpu-sapphirerapids.so

# The wheel in an empty environment, from a folder of text to a GGUF file that llama.cpp runs (where node is installed).
.PHONY: first-hour
first-hour:
	@! command -v npm >/dev/null || [ -d $(LLAMA)/node_modules/node-llama-cpp ] || $(MAKE) llama || echo 'first-hour: llama.cpp could not be installed'
	sh scripts/try_wheel.sh $(PYTHON) $(LLAMA)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) $(CORPUS)
	$(BIN)/python -m tests.bench

# Write the snapshots of all screens; see what changed with: git diff tests/unit/tui/snapshots
.PHONY: snapshots
snapshots: $(STAMP)
	MLA_SNAPSHOTS=write $(BIN)/python -m pytest tests/unit/tui/test_snapshots.py

# The reference of the log and the socket, from the types.
.PHONY: protocol
protocol: $(STAMP)
	$(BIN)/python -m scripts.protocol

# The reference of settings, commands, metrics and keys, from the code.
.PHONY: reference
reference: $(STAMP)
	$(BIN)/python -m scripts.reference

# The pictures of the README, from a real run in a real tmux.
.PHONY: pictures
pictures: $(STAMP) $(CORPUS) tmux
	$(BIN)/python -m scripts.pictures docs/pictures

# The pictures of a report, from real runs in a real Chromium (Debian: chromium-headless-shell).
.PHONY: report-pictures
report-pictures: $(STAMP) $(CORPUS)
	$(BIN)/python -m scripts.report_pictures docs/pictures

# Triton (a wheel of 190 MB) compiles for a card without one. It lies beside the other packages: torch.compile behaves
# differently where it finds it.
TRITON := $(CURDIR)/$(VENV)/triton
$(TRITON)/.made: | $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(TRITON) triton==3.8.0
	@touch $@

# The tests of a card on a device without one, which tests/fake_cuda builds for the installed torch. The dry run of the
# tables of a card is part of it. fake-cuda-grid compiles for every architecture, way of checkpointing and precision.
FAKE_CUDA := PYTHONPATH=$(CURDIR):$(CURDIR)/tests/fake_cuda/site FAKE_CUDA_TRITON=$(TRITON) $(BIN)/python -m pytest -n 2
.PHONY: fake-cuda fake-cuda-grid
fake-cuda: $(STAMP) $(CORPUS) $(TRITON)/.made
	$(FAKE_CUDA) -m "not faults" tests/fake_cuda tests/gpu

fake-cuda-grid: $(STAMP) $(TRITON)/.made
	$(FAKE_CUDA) -m faults tests/fake_cuda

faults: $(STAMP) tmux
	$(BIN)/python -m pytest -n 2 -m faults tests

clean:
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
