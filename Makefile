# Everything runs in an environment of its own, in .venv; python3 is all it needs. Frameworks
# that keep openai below 3 are tested in another one, in .venv-frameworks.
# `make demo PYTHON=python3.12` takes another Python.
PYTHON ?= python3
VENV := .venv
FRAMEWORKS := .venv-frameworks
BIN := $(VENV)/bin
SOURCES := src tests examples benchmarks

# The tests start Python some hundred times: whatever the shell says, what is compiled is kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check faults bench corpus format clean

demo: $(VENV)/demo.stamp
	$(BIN)/costmw demo $(ARGS)

test: $(VENV)/dev.stamp $(FRAMEWORKS)/frameworks.stamp
	@$(BIN)/python -m tests.chromium
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

faults: $(VENV)/dev.stamp
	$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks $(ARGS)

corpus: $(VENV)/dev.stamp
	$(BIN)/python -m tests.corpus $(FILES)

format: $(VENV)/dev.stamp
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) $(FRAMEWORKS) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# uv makes an environment in a fraction of the time, where it is there. What is installed is
# compiled when it is first imported, by either.
$(VENV)/bin/python $(FRAMEWORKS)/bin/python:
	@if command -v uv >/dev/null; then uv venv -q --seed --python $(PYTHON) $(@:/bin/python=); \
	else $(PYTHON) -m venv $(@:/bin/python=); fi

define install
@if command -v uv >/dev/null; then uv pip install -q --python $(@D)/bin/python -e '.[$*]'; \
else $(@D)/bin/python -m pip install -q --no-compile --disable-pip-version-check -e '.[$*]'; fi
@touch $@
endef

$(VENV)/%.stamp: pyproject.toml $(VENV)/bin/python
	$(install)

$(FRAMEWORKS)/%.stamp: pyproject.toml $(FRAMEWORKS)/bin/python
	$(install)
