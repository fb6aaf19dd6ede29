# Everything runs in .venv, made from pinned versions on first use; PYTHON is any Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo detection test test-long mutants lint types docs wheel-test sdist-test oldest-test clean
.DEFAULT_GOAL := test

.venv/ready: requirements-dev.txt pyproject.toml
	@echo "setting up .venv, once: some minutes, about 2 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: .venv/ready  ## post-tunes a text recogniser on edit distance, in minutes; writes runs/text_recognition/
	$(BIN)/python examples/studies/post_tune_recogniser.py

detection: .venv/ready  ## post-tunes a detector on rotated IoU; writes runs/detection/
	$(BIN)/python examples/studies/post_tune_detector.py

test: .venv/ready  ## the whole test suite, in three processes: some tests wait
	$(BIN)/python -m pytest -n 3

test-long: .venv/ready  ## the tests that take minutes
	$(BIN)/python -m pytest -m long

PART ?= 1/1
mutants: .venv/ready  ## do tests notice deliberate faults? hours; PART=3/40 takes every 40th, from the 3rd on
	$(BIN)/python tests/mutants/run.py --part $(PART)

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/ready
	$(BIN)/mypy

docs: .venv/ready  ## builds docs/_build/html
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

wheel-test: .venv/ready  ## the tests against the built wheel, from another folder
	PYTHON=$(BIN)/python bash .ci/wheel-test

sdist-test: .venv/ready  ## some tests, where the source distribution was unpacked
	PYTHON=$(BIN)/python bash .ci/sdist-test

oldest-test:  ## some tests on the oldest versions that we support; PYTHON is 3.11, several GB
	PYTHON=$(PYTHON) bash .ci/oldest-test

clean:
	rm -rf .venv dist docs/_build
