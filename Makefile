# make setup   virtual environment with all that is needed (once; 5 GB, some minutes)
# make demo    few-shot segmentation of objects never trained on, on the embedded data, in five minutes
# make test    all tests, two at a time (JOBS=8: eight; each needs up to 4 GB)
# make lint    ruff and mypy
# make wheel   the package, into dist/
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup demo test lint wheel
setup: $(INSTALLED)

$(INSTALLED): requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	$(BIN)/python train.py -m experiment=demo tuning=frozen,svf
	$(BIN)/python evaluate.py experiment=demo tuning=frozen method=prior
	$(BIN)/python -m fss.report outputs/demo

test: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/python -m hatchling build --target wheel
