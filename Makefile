# One line each: set up, show, test. Needs Python 3.10+ and make; everything else comes with `make setup`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := .uv/bin/uv
NATIVE := $(shell find native -not -path '*/build/*' -type f)

.PHONY: setup litert demo test test-all test-litert lint docs lock counts reproduction clean

setup: $(VENV)/.ready $(VENV)/.native

$(UV):
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv

$(VENV)/.ready: requirements/test.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/test.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# The environment that converts to LiteRT, whose converter wants an older torch than the others.
litert: .venv-litert/.ready

.venv-litert/.ready: requirements/litert.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-litert
	$(UV) pip sync --quiet --python .venv-litert/bin/python --require-hashes requirements/litert.txt
	$(UV) pip install --quiet --python .venv-litert/bin/python --no-deps --no-build-isolation --editable .
	touch $@

# The native engine is built where there is a C++ compiler; without it torch computes.
$(VENV)/.native: $(VENV)/.ready $(NATIVE)
	@if command -v $(CXX) > /dev/null; then \
		$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation ./native; \
	else echo "No C++ compiler $(CXX): the native engine is left out."; fi
	touch $@

demo: setup
	$(BIN)/espnetv2 predict espnetv2_seg_s0_5.camvid examples/pictures/street.jpg --out demo
	@echo "Look at demo/street_overlay.jpg. Next, with official weights (downloaded once):"
	@echo "  $(BIN)/espnetv2 predict espnetv2_seg_s2_0.edgenets_voc_256 examples/pictures --out demo"

# In two parts: many runtimes in one process, as tests/deploy loads them, ended a later test's worker.
test: setup
	$(BIN)/python -m pytest -n 2 -m "not slow" tests/deploy
	$(BIN)/python -m pytest -n 2 -m "not slow" --ignore tests/deploy

test-all: setup
	$(BIN)/python -m pytest -n 2

test-litert: litert
	.venv-litert/bin/python -m pytest -p no:anyio --timeout 1800 tests/deploy/test_litert.py  # its plugin warns

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in build/docs: every page and the reference of every docstring; a warning is an error.
docs: setup
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --write-all --quiet docs build/docs
	@echo "Look at build/docs/index.html"

# Regenerates the pins; commit the result.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header
lock: | $(UV)
	$(COMPILE) --extra all --group test --group docs --group lint pyproject.toml requirements/build.in -o requirements/test.txt
	$(COMPILE) --extra litert --group test pyproject.toml requirements/build.in -o requirements/litert.txt

# Regenerates the parameter and multiply-add counts that `espnetv2 models` shows.
counts: setup
	$(BIN)/python tools/write_counts.py

# Runs every table and figure, with data where DATA has it, and writes docs/reproduction.md; commit the result.
DATA ?= ../shared/data
reproduction: setup
	$(BIN)/espnetv2 reproduce all --data $(DATA) --out build/reproduction
	$(BIN)/python tools/write_reproduction.py --from build/reproduction

clean:
	rm -rf $(VENV) .venv-litert .uv build dist
