.PHONY: help install run test lab notebooks records check site colab bench clean
PYTHON ?= python3
BIN := .venv/bin
export VGMR_CACHE ?= $(CURDIR)/.vgmr
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export OMP_NUM_THREADS ?= 1

help:
	@echo "make run        install if needed, execute the quickstart, print its result table"
	@echo "make test       install if needed, run all tests"
	@echo "make install    only the installation, into .venv"
	@echo "make lab        JupyterLab on this machine's loopback address"
	@echo "make notebooks  execute all notebooks at their defaults and write them clean"
	@echo "make records    train what is missing or stale of what the repository keeps; stale tables by name"
	@echo "make check      say what is off in the committed notebooks and records"
	@echo "make site       static pages of the committed notebooks, into build/site"
	@echo "make colab      the quickstart in an environment of lower bounds, as in Colab"
	@echo "make bench      cost of every variant, as ratios"
	@echo "make clean      remove the environment, the cached runs and downloads"

install: .venv/installed

# torch first: on its own, so that nothing else picks another build of it
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; call make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install -q -c constraints.txt setuptools
	$(BIN)/pip install -q -c constraints.txt --no-build-isolation -e '.[notebooks,video,text,words,audio,cluster,site,test]'
	@touch $@

run: install
	$(BIN)/vgmr run 01

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vgmr notebooks check
	$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests/browser tests/notebooks tests/notebook tests
	$(BIN)/pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout 300 notebooks/[0-9]*.ipynb

lab: install
	$(BIN)/jupyter lab --ip 127.0.0.1 notebooks

notebooks: install
	$(BIN)/vgmr notebooks build

records: install
	$(BIN)/vgmr records

check: install
	$(BIN)/vgmr notebooks check
	$(BIN)/vgmr records --check

site: install
	$(BIN)/python -m vgmr.notebook.site build/site

colab: install
	$(BIN)/python tests/colab/smoke.py

bench: install
	$(BIN)/vgmr bench

clean:
	rm -rf .venv .vgmr
