# make help      this list
# make setup     virtual environment with all that is needed (once; 7 GB, some minutes)
# make demo      few-shot segmentation of objects never trained on, on the embedded data, in five minutes
# make web       a page in the browser: show a thing in your pictures, find it in others (MODEL=RUN: a trained model)
# make test      what every change has to pass, two tests at a time (JOBS=8: eight; each needs up to 4 GB)
# make test-all  every test, also those for the night
# make checks    long runs: killed and resumed, on several processes, interrupted
# make bench     a training step and an evaluation episode beside the published way; up to an hour on two cores
# make real      DATA=DIR: what docs/results.md compares, on a few hundred real pictures; hours on two cores, restartable
# make site      the documentation as a site, into site/
# make lint      ruff and mypy
# make wheel     the package, into dist/
# make audit     known vulnerabilities of the installed packages
PYTHON ?= python3
JOBS ?= 2
MODEL ?= match
PORT ?= 7860
ONLY ?=
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help setup demo web test test-all checks bench real site lint wheel audit
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(INSTALLED)

$(INSTALLED): requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	$(BIN)/python train.py -m experiment=demo tuning=frozen,svf
	$(BIN)/python evaluate.py experiment=demo tuning=frozen method=prior
	$(BIN)/python -m fss.report outputs/demo

web: setup
	$(BIN)/python -m fss.web --model "$(MODEL)" --port $(PORT)

test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

test-all: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal -m ""

checks: setup
	$(BIN)/python -m checks.structure
	$(BIN)/python -m checks.resume
	$(BIN)/python -m checks.interrupted
	$(BIN)/python -m checks.processes
	$(BIN)/python -m checks.kills --times 2

bench: setup
	$(BIN)/python -m bench.training --json bench.json

real: setup  # ONLY="tuning=svf fold=0": some of it
	$(if $(DATA),,$(error make real DATA=DIR: DIR is the folder that contains VOC2012))
	$(BIN)/python -m bench.real "$(DATA)" $(ONLY)

site: setup
	$(BIN)/mkdocs build --strict
	$(BIN)/python -m checks.site

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/python -m hatchling build --target wheel

audit: setup  # in an environment of its own, so that nothing is added to what it looks at
	$(BIN)/python -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
