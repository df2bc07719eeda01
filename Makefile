# `make study` and `make test` are the README's two commands; both set up .venv first. Python 3.11 and pip are all they need.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= studies/simulated
READY  := $(VENV)/.ready

.PHONY: setup study test studies lint format benchmarks clean

setup: $(READY)

# torch first and pinned: an unpinned torch is a CUDA build of several gigabytes.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not on the PATH; name yours: make PYTHON=python3 $(MAKECMDGOALS)"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embed,control,dev]'
	@touch $@

study: setup
	$(BIN)/pluralign study simulated --max-clusters 4 --starts 10 --out $(OUT)

# Two workers of one thread each: four threads on two cores take twice as long.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not study"

studies: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m study

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
