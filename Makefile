# Everything runs in .venv, which the first command makes. Needed before: Python 3.11.5 or newer, git, make.
#   make adapt                    photos -> stickers, the main job; TARGET=noto or TARGET=path/to/folder for other pictures
#   make test | book | lab        the notebooks and all quick tests | the book, in _build/html | JupyterLab on the notebooks
#   make check                    is this machine ready?
#   make exercises | slides       the chapters without their solutions, in exercises/ | slides, in _build/slides
#   make notebooks | pretrain     run all notebooks and keep their outputs | train the miniature models from nothing
#   make slow                     the tests that `make test` leaves out: killed runs, several processes, the book in a browser
PYTHON ?= python3
TARGET ?= stickers
PY := .venv/bin/python
READY := .venv/.ready

export TARGET
export HF_HUB_OFFLINE ?= 1
# Nothing is written to, or read from, the user's home: neither IPython's profile nor matplotlib's fonts.
export IPYTHONDIR := $(CURDIR)/.venv/ipython
export JUPYTER_RUNTIME_DIR := $(CURDIR)/.venv/jupyter
export MPLCONFIGDIR := $(CURDIR)/.venv/matplotlib

.PHONY: adapt test slow book lab check exercises slides notebooks pretrain
.DEFAULT_GOAL := adapt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11, 5) else "Python 3.11.5 or newer is needed; name one with: make PYTHON=python3.11")'
	@echo "Setting up .venv (once; a download of some gigabytes) ..."
	@$(PYTHON) -m venv .venv
	@{ $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . && \
	   $(PY) -m ipykernel install --sys-prefix --name python3; } > .venv/setup.log 2>&1 || { cat .venv/setup.log; exit 1; }
	@mkdir -p $(IPYTHONDIR)/profile_default && echo 'c.IPKernelApp.log_level = "ERROR"' > $(IPYTHONDIR)/profile_default/ipython_kernel_config.py
	@touch $@

# -r hands the target over as text: a folder named 2024 is no number. Papermill takes a pipe on standard input for a notebook.
adapt: $(READY)
	@mkdir -p runs
	$(PY) -m papermill notebooks/05_adapt.ipynb "runs/05_adapt-$$(basename "$$TARGET").ipynb" -r target "$$TARGET" </dev/null
	@$(PY) -m kcdp_lib.adapt "runs/05_adapt-$$(basename "$$TARGET")"

# Two at a time with one thread each: faster than one with two.
SIDE_BY_SIDE := $(PY) -m pytest --numprocesses 2 --dist loadfile
test slow: export KCDP_QUIET := 1
test slow: export OMP_NUM_THREADS := 1
test: $(READY)
	$(SIDE_BY_SIDE) --nbval --nbval-current-env notebooks book </dev/null
	$(SIDE_BY_SIDE) -m "not slow" tests </dev/null
slow: $(READY)
	$(SIDE_BY_SIDE) -m slow tests </dev/null

notebooks: export KCDP_QUIET := 1
notebooks: $(READY)
	$(PY) book/execute.py </dev/null

book: $(READY)
	.venv/bin/jupyter-book build -W -n --keep-going . </dev/null

lab: $(READY)
	$(PY) -m jupyterlab notebooks

check: $(READY)
	@$(PY) -m kcdp_book.check

exercises: $(READY)
	@$(PY) book/exercises.py

slides: $(READY)
	@$(PY) book/slides.py

pretrain: $(READY)
	$(PY) -m kcdp_lib.pretrain
