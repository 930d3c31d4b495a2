# The commands of this project; .ci/run calls the same ones. Each sets up .venv by itself at first use.
PY := .venv/bin/python
# What is compiled is kept, also where a container says no: the suite takes three quarters of the time.
export PYTHONDONTWRITEBYTECODE :=
# A worker that dies ends the run and is named: xdist 3.8 would replace it, and then wait for ever (its issue 1378).
PYTEST := $(PY) -m pytest --dist loadscope --max-worker-restart 0 --durations 15
# The first of these that is 3.11 to 3.13.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(not \
	(3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test test-fast bench sweep audit lint

.venv/ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed and was not found; name one: make demo PYTHON=/path/to/python3.13"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet torch==2.13.0
	$(PY) -m pip install --quiet -r requirements.txt
	$(PY) -m pip install --quiet --no-deps -e .
	touch .venv/ready

demo: .venv/ready        ## serve the page on http://localhost:7860; installs the libraries OpenCV links where it may
	@sh scripts/system_packages.sh demo
	$(PY) app.py

test: .venv/ready        ## the whole suite; installs Debian's chromium, espeak-ng, PostgreSQL and a Korean font where it may
	@sh scripts/system_packages.sh
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyrefly check --python-interpreter-path $(PY)
	$(PYTEST) -n 3 --no-loadscope-reorder -m "not bench and not sweep"  # in order: the longest, the browser's, begin

test-fast: .venv/ready   ## the suite without slow, browser and bench tests: under a minute
	$(PYTEST) -n 2 -m "not slow and not browser and not bench and not sweep"

bench: .venv/ready       ## speed and memory of this machine; speeds as ratios of one run
	$(PY) -m bench.pipeline
	$(PY) -m bench.syncnet
	$(PY) -m pytest -m bench

sweep: .venv/ready       ## hostile files: all lies, cuts, mutations and attacks on labels (tests/helpers/hostile.py); 20 minutes
	$(PY) -m pytest -m sweep -s

audit: .venv/ready       ## known faults of the libraries in requirements.txt; asks a database on the internet
	$(PY) -m pip install --quiet pip-audit
	$(PY) -m pip_audit --requirement requirements.txt --no-deps --disable-pip

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyrefly check --python-interpreter-path $(PY)
	$(PY) -m pytest tests/test_house.py
