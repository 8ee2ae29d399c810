# The two commands for a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CLIP ?=
CLIPS ?=

.PHONY: demo serve test lint bench fuzz clean

# pip and not another installer: on some machines only pip finds the local PyTorch files.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); PyTorch makes this several minutes and gigabytes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m nonlocal_video.cli.demo $(CLIP)

serve: $(VENV)/.installed
	$(BIN)/nonlocal-video serve

# Two at a time, each file's tests together: many of them start processes, and wait for them.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile

# Which decoder returns which frames; with CLIPS=folder (of folders named like labels) also what a view may cost.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/decoders.py
	$(if $(CLIPS),$(BIN)/python benchmarks/default_views.py $(CLIPS))

# A hundred thousand damaged videos: ten minutes or so.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/fuzz.py --output benchmarks/results/fuzz.json

clean:
	rm -rf $(VENV) build dist out *.egg-info
