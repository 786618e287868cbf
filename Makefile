# Two commands: `make demo` runs the main job, `make test` runs the tests. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-slow mutants bench clean

demo: $(VENV)/.demo
	$(BIN)/pushforward compare digits --total-minutes 4.5 --out digits-comparison --overwrite

test: $(VENV)/.test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -m slow

mutants: $(VENV)/.test
	$(BIN)/python tests/mutants.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/speed.py

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e .
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info
