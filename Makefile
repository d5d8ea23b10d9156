PYTHON ?= python3
# Four processes on two cores, too: tests wait more than they compute. A file's tests stay
# together. In order: small files at the end keep all processes busy.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
# What is installed in .venv: what Manta and its examples need; and all that tests and site need.
DEMO := .venv/.demo
TOOLS := .venv/.tools

# Tests start some thousand processes, each of which would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo docs generate pictures notebooks lint audit lock image test tests test-fast attack bench bench-data bench-isolation bench-researcher clean

setup: $(TOOLS)

$(DEMO): setup.cfg pyproject.toml packaging/demo.lock
	@$(PYTHON) -c 'import sys; sys.exit("Manta needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	@echo "Installing Manta and what its examples need into .venv, once:"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --requirement packaging/demo.lock
	@$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(TOOLS): $(DEMO)
	@echo "Installing what tests and documents need into .venv, once:"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[node,manager,data,examples,dev,docs]'
	@touch $@

demo: $(DEMO)
	@$(BIN)/python examples/fl_digits/make_shards.py
	@$(BIN)/manta run examples/fl_digits/swarm.py --nodes 4 --no-logs --dataset digits='examples/fl_digits/shards/node{i}.npz'

# Into site/. Strict: a link or an anchor that leads nowhere is an error.
docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

generate: setup
	@$(BIN)/python .ci/generate.py
	@$(BIN)/python .ci/draw.py

# Those that show what a command says, which a test compares with what it says now.
pictures: generate
	@$(BIN)/python .ci/record.py
	@$(BIN)/python .ci/first.py

# With what their cells show, as the site has it.
notebooks: setup
	@$(BIN)/python .ci/notebooks.py

# Whether a known vulnerability is in what is locked, or allowed by setup.cfg.
audit: setup
	@$(BIN)/python .ci/audit.py

# After a change of setup.cfg; `make lock UPGRADE=--upgrade` takes newer versions.
lock:
	@$(PYTHON) .ci/lock.py $(UPGRADE)

# manta/node, of this tree.
image: $(DEMO)
	@rm -rf build
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir build/image/wheels .
	@cp packaging/image/Dockerfile packaging/node.lock packaging/sbom.py build/image
	docker build --tag manta/node build/image

lint: setup audit
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }

# Side by side: tests wait more than they compute.
test: setup
	@$(MAKE) --no-print-directory -j 2 lint tests

tests: setup
	@$(BIN)/pytest $(PARALLEL) --durations=20

# What needs no cluster and no container engine.
test-fast: setup
	@MANTA_TEST_ENGINE=off $(BIN)/pytest $(PARALLEL) tests/conformance tests/simulation tests/unit

# Every attack against a manager and two nodes on this machine, and what it came to.
attack: setup
	@$(BIN)/python -m tests.attacks

bench: setup
	@$(BIN)/python -m tests.benchmarks

# The data plane beside other programs, in ten minutes: `make bench-data FIGURES="letter stage --json"`.
bench-data: setup
	@$(BIN)/python -m tests.benchmarks.data_plane $(FIGURES)

# What isolation costs by level, and an idle node: for a quiet machine, in five minutes.
bench-isolation: setup
	@$(BIN)/python -m tests.benchmarks isolation idle_memory

# A cluster from Python, the algorithms' import and aggregates, a function's source: in a minute.
bench-researcher: setup
	@$(BIN)/python -m tests.benchmarks researcher federated

clean:
	rm -rf .venv build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
