# The two commands for a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CLIP ?=
# A published model for `make demo`, fetched if it is not here; ACCEPT_LICENCE=1 agrees to a licence that forbids commercial use.
MODEL ?=
ACCEPT_LICENCE ?=
CLIPS ?=

# The versions that passed all tests together: a release elsewhere does not turn a clone red.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# What has to hold with the versions of any day: the wheel, the command line, the page, reading videos and published
# weights, exporting. Answers to real clips and the directions of imports are not among them: the first are PyTorch's,
# which is the same there, once the frames are those of `test_exactness`, and the second are read from our own files.
COMPATIBILITY_TESTS = tests/test_package.py tests/cli/test_cli.py tests/cli/test_explain_check.py \
	tests/app/test_server.py tests/app/test_page.py tests/app/test_internals.py tests/video/test_exactness.py \
	tests/training/test_check_cli.py tests/zoo/test_catalogue.py tests/zoo/test_catalogue_geometry.py \
	tests/zoo/test_parity.py tests/zoo/test_installed_projects.py tests/export/test_export_parity.py \
	tests/export/test_export_refusals.py
# Of these, what PyTorch alone decides, and what another of them finds as well.
COMPATIBILITY_WITHOUT = tests/zoo/test_parity.py::test_every_difference_between_projects_shows \
	tests/zoo/test_catalogue.py::test_stated_multiply_accumulates tests/export/test_export_parity.py::test_a_window \
	tests/export/test_export_parity.py::test_every_kind_of_block_in_every_format[kernels-torch-export]

.PHONY: demo serve test test-quick test-newest test-lowest constraints lint docs bench gpu fuzz release clean

# pip and not another installer: on some machines only pip finds the local PyTorch files.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); PyTorch makes this several minutes and gigabytes the first time."
	$(PIP_INSTALL) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[docs]"
	touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(PIP_INSTALL) -e ".[release]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m nonlocal_video.cli.demo $(if $(MODEL),--model $(MODEL)) $(if $(ACCEPT_LICENCE),--accept-licence) $(CLIP)

serve: $(VENV)/.installed
	$(BIN)/nonlocal-video serve

# Two at a time, each file's tests together: many of them start processes, and wait for them.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# Without the tests marked slow: under three minutes on two cores.
test-quick: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses=2 --dist=loadfile --no-loadscope-reorder

# The same PyTorch, beside it the newest versions of today, or the lowest that pyproject.toml allows.
test-newest test-lowest: test-%: $(VENV)/.installed-dev
	.ci/environment $* .venv-$*
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder \
		$(foreach test,$(COMPATIBILITY_WITHOUT),--deselect '$(test)') $(COMPATIBILITY_TESTS)

# To be committed once all tests pass with it.
constraints: $(VENV)/.installed-dev
	.ci/constraints > constraints.new && mv constraints.new constraints.txt

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile

# The site in site/: guides, an API reference from the docstrings, and the measured pages. Broken links end it.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html is the documentation; \`$(BIN)/mkdocs serve\` shows it while it is edited."

# Which decoder returns which frames; with CLIPS=folder (of folders named like labels) also what a view may cost.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/decoders.py
	$(if $(CLIPS),$(BIN)/python benchmarks/default_views.py $(CLIPS))

# What has to hold on a machine with a GPU, in 8 minutes; docs/gpu.md.
gpu: $(VENV)/.installed-dev
	benchmarks/gpu.sh --out out/gpu

# A hundred thousand damaged videos: ten minutes or so.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/fuzz.py --output benchmarks/results/fuzz.json

# Builds the wheel and the sdist, and tries the wheel in a new environment: the demo, and the page in Chromium.
release: $(VENV)/.installed-release
	$(BIN)/python .ci/release.py

clean:
	rm -rf $(VENV) .venv-newest .venv-lowest build dist out site *.egg-info
