# The commands of this project; .ci/run calls the same ones. Each sets up .venv by itself at first use.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: demo test test-fast bench lint

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet torch==2.13.0
	$(PY) -m pip install --quiet -r requirements.txt
	touch .venv/ready

demo: .venv/ready        ## serve the page on http://localhost:7860
	$(PY) app.py

test: .venv/ready        ## the whole suite; installs Debian's chromium and espeak-ng where it may
	sh tests/prepare.sh
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest -m "not bench"

test-fast: .venv/ready   ## the suite without slow, browser and bench tests: under a minute
	$(PY) -m pytest -m "not slow and not browser and not bench"

bench: .venv/ready       ## speed and memory of this machine, as ratios of one run
	$(PY) -m tests.bench
	$(PY) -m tests.bench_judge

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
