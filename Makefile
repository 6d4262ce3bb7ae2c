# Everything runs in .venv, which the first command makes. It needs Python 3.11.5 or newer and git.
#   make adapt       photos -> stickers, the main job; TARGET=noto or TARGET=path/to/folder
#   make test        the notebooks and all quick tests
#   make slow        killed runs, several processes, the book in a browser
#   make lint        format, style, types and import order
#   make book        the book, in _build/html
#   make lab         JupyterLab on the notebooks
#   make check       is this machine ready?
#   make exercises   the chapters without their solutions, in exercises/
#   make slides      slides for a workshop, in _build/slides/
#   make notebooks   run all notebooks and keep their outputs
#   make pretrain    train the miniature models from scratch
#   make results     which results other code made, and how long it takes to run them again
# Without make: README.md has the commands below for every system.
#
# TORCH is what pip installs first: a build of torch and torchvision for this machine (README.md,
# the row with ADDRESS). A torch that is in .venv already is kept.
PYTHON ?= python3
TARGET ?= stickers
TORCH ?=

# Taken literally: make expands no dollar in them, and recipes read them from the environment,
# where a quote is a quote.
override PYTHON := $(value PYTHON)
override TARGET := $(value TARGET)
override TORCH := $(value TORCH)
export PYTHON TARGET TORCH
# Neither IPython's profile nor matplotlib's fonts are read from or written to the user's home.
export IPYTHONDIR := $(CURDIR)/.venv/ipython
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.venv/jupyter
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest --numprocesses 2 --dist loadfile
READY := .venv/.ready
OF_TORCH := ^(torch|torchvision|triton|(nvidia|cuda)-.*)==

COMMANDS := adapt test slow lint book lab check exercises slides notebooks results corpus pretrain
.PHONY: $(COMMANDS)
.DEFAULT_GOAL := adapt

UNKNOWN := $(filter-out $(COMMANDS) $(READY),$(MAKECMDGOALS))
ifneq ($(UNKNOWN),)
$(error There is no command $(firstword $(UNKNOWN)); a target is written TARGET=$(firstword $(UNKNOWN)))
endif
ifeq ($(origin target),command line)
$(error TARGET is written in capitals, as in: make adapt TARGET=noto)
endif

$(READY): pyproject.toml constraints.txt
	@"$$PYTHON" -c 'import sys; sys.exit(None if sys.version_info >= (3, 11, 5) else \
	   "Python 3.11.5 or newer is needed; name one with: make PYTHON=python3.11")'
	@echo "Setting up .venv (once; a download of some gigabytes) ..."
	@"$$PYTHON" -m venv .venv
	@{ { [ -z "$$TORCH" ] || $(PIP) $$TORCH; } && \
	   { if $(PY) -m pip show --quiet torch; then grep -vE '$(OF_TORCH)' constraints.txt; \
	     else cat constraints.txt; fi; } > .venv/constraints.txt && \
	   $(PIP) --constraint .venv/constraints.txt --editable ".[book,test]"; \
	 } > .venv/setup.log 2>&1 || { cat .venv/setup.log; exit 1; }
	@mkdir -p .venv/etc/ipython
	@echo 'c.IPKernelApp.log_level = "CRITICAL"' > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

adapt: $(READY)
	@$(PY) book/run.py --target="$$TARGET"

test: $(READY)
	$(PYTEST) --nbval --nbval-current-env notebooks book
	$(PYTEST) -m "not slow" tests

slow: $(READY)
	$(PYTEST) -m slow tests

lint: $(READY)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports

notebooks: $(READY)
	$(PY) book/execute.py

results: $(READY)
	@$(PY) benchmarks/grid.py due

book: $(READY)
	.venv/bin/jupyter-book build -W -n --keep-going .

lab: $(READY)
	$(PY) -m jupyterlab notebooks

check: $(READY)
	@$(PY) -m kcdp_book.check

exercises: $(READY)
	@$(PY) book/exercises.py

slides: $(READY)
	@$(PY) book/slides.py

corpus: $(READY)
	@$(PY) -m kcdp_lib.pretrain.drawings

pretrain: $(READY)
	$(PY) -m kcdp_lib.pretrain
