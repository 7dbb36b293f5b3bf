# Everything sets itself up: the first target you call makes a virtual environment in .venv.
# PYTHON=... chooses the interpreter; any of 3.10 to 3.13 will do.

RIGHT := import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do $$p -c '$(RIGHT)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: demo test torture lint test-io bench clean

demo: .venv/ready  ## The main job on synthesised clips: make them, pack them, train on noisy then curated labels, export.
	test -d demo || $(BIN)/audiotag make-demo demo
	$(BIN)/audiotag make-records demo --sample-rate 16000
	$(BIN)/audiotag fit experiments/demo.json
	$(BIN)/audiotag evaluate runs/demo --stage noisy
	$(BIN)/audiotag evaluate runs/demo

test: lint  ## Lint, tests and the examples in the docstrings.
	$(BIN)/pytest -q -n auto --dist loadfile --durations=10

torture: .venv/torture  ## The checks of docs/reliability.md in full, hours of kills, flipped bits and broken files.
	AUDIOTAG_TIER=full $(BIN)/pytest -q -n auto --dist loadfile -m check

lint: .venv/ready
	$(BIN)/flake8 audiotag tests benchmarks setup.py
	$(BIN)/isort --check-only --quiet audiotag tests benchmarks setup.py

test-io: .venv-io/ready  ## The data path with tensorflow-io decoding inside the graph, on TensorFlow 2.17.
	.venv-io/bin/pytest -q tests/data tests/test_files.py

bench: demo  ## Speed beside others; each prints its table.
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/frontends.py
	$(BIN)/python benchmarks/disturbances.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/long_recording.py

clean:
	rm -rf .venv .venv-io demo runs tfrecords/demo

.venv/ready: setup.cfg setup.py
	@test -n "$(PYTHON)" || { echo "audiotag needs Python 3.10 to 3.13; give one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[tests,backends]'
	touch $@

.venv/torture: .venv/ready
	$(BIN)/pip install --quiet --editable '.[torture]'
	touch $@

.venv-io/ready: setup.cfg setup.py
	$(PYTHON) -m venv .venv-io
	.venv-io/bin/pip install --quiet --editable '.[io,tests]'
	touch $@
