# Everything sets itself up: the first target you call makes a virtual environment in .venv.
# PYTHON=... chooses the interpreter; any of 3.11 to 3.13 will do. WORKERS=... tests at once: one more than cores by default,
# since a test that waits for another process leaves its core idle.

# Packages are installed without compiled files, which Python writes when it first imports them. If it may not, each
# process compiles TensorFlow anew, 8 s of a core.
unexport PYTHONDONTWRITEBYTECODE

SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SOURCES := audiotag tests benchmarks docs examples setup.py
INSTALL := $(BIN)/pip install --quiet --no-compile
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist loadfile
# Tests without training: together with lint and types they take under three minutes.
FAST := tests/conformance/test_annotations.py tests/conformance/test_imports.py tests/conformance/test_public_names.py \
	tests/conformance/test_words.py tests/config tests/data/audio tests/data/sources tests/data/test_clips.py \
	tests/data/test_corrections.py tests/data/test_folds.py tests/data/test_labels.py tests/data/test_sampling.py \
	tests/evaluation/test_thresholds.py tests/test_files.py tests/metrics tests/test_padding.py \
	tests/test_progress.py tests/test_schedules.py
# Most of their time is that of JAX, which compiles each network anew.
BACKENDS := tests/conformance/test_backends.py tests/test_devices.py tests/test_jax.py

.PHONY: demo demo-io demo-jax check test test-fast test-backends test-wheel torture lint types format docs test-io test-beam bench clean

demo: .venv/ready  ## The main job on synthesized clips: write records, train on noisy then curated labels, export, report.
	test -d demo || $(BIN)/audiotag make-demo demo
	$(BIN)/audiotag make-records demo --sample-rate 16000
	$(BIN)/audiotag fit experiments/demo.json
	$(BIN)/audiotag evaluate runs/demo --stage noisy
	$(BIN)/audiotag evaluate runs/demo
	$(BIN)/audiotag report runs/demo

# fit exports the model, too; evaluating in Python, it is an error if soundfile decodes.
demo-io: .venv-io/ready  ## Records in FLAC, decoded by tensorflow-io inside the graph: one short stage, exported and evaluated.
	test -d build/demo-io || .venv-io/bin/audiotag make-demo build/demo-io
	.venv-io/bin/audiotag make-records build/demo-io --sample-rate 16000 --codec flac --out build/demo-io-records
	.venv-io/bin/audiotag fit experiments/simple.json --run build/demo-io-run --restart \
		--set records=build/demo-io-records --set stages.train.epochs=1 --set 'model.filters=[8, 16]'
	.venv-io/bin/python -c "import audiotag; from audiotag.data.pipeline import tensorflow_io; \
		assert tensorflow_io() is not None; print(audiotag.evaluate('build/demo-io-run'))"

demo-jax: .venv/ready  ## The same as demo on JAX, which TensorFlow feeds; the SavedModel needs no JAX.
	$(INSTALL) --editable '.[jax]'
	test -d demo || $(BIN)/audiotag make-demo demo
	$(BIN)/audiotag make-records demo --sample-rate 16000
	KERAS_BACKEND=jax $(BIN)/audiotag fit experiments/demo.json --run runs/demo_jax
	KERAS_BACKEND=jax $(BIN)/audiotag evaluate runs/demo_jax
	$(BIN)/audiotag predict runs/demo_jax/saved_model demo/test/0*.wav

check: lint  ## Lint, types and the fast tests, beside each other.
	$(MAKE) --jobs=2 types test-fast

test: .venv/tests  ## All tests on TensorFlow, and the examples in the docstrings.
	$(PYTEST) --durations=10 $(addprefix --ignore=,$(BACKENDS))

test-fast: .venv/tests
	$(PYTEST) $(FAST)

test-backends: .venv/tests  ## Training, layers and losses on JAX and PyTorch, compared with TensorFlow.
	$(PYTEST) $(BACKENDS)

torture: .venv/torture  ## The checks of docs/reliability.md in full, hours of kills, flipped bits and broken files.
	AUDIOTAG_TIER=full $(PYTEST) -m check

lint: .venv/tests
	$(BIN)/ruff format --quiet --check $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)

types: .venv/tests
	$(BIN)/mypy

format: .venv/tests  ## Formats the code and sorts its imports.
	$(BIN)/ruff format --quiet $(SOURCES)
	$(BIN)/ruff check --quiet --fix $(SOURCES)

docs: .venv/docs  ## The documentation as a site in build/docs; a warning is an error.
	$(BIN)/python -m sphinx --fail-on-warning --nitpicky --quiet docs build/docs

test-wheel:  ## A wheel in an empty environment, outside the checkout.
	PYTHON=$(PYTHON) .ci/test-wheel

# Without the tests' flags of XLA, of which TensorFlow 2.17 does not know one.
test-io: .venv-io/ready  ## The data path with tensorflow-io decoding inside the graph, on TensorFlow 2.17.
	XLA_FLAGS= .venv-io/bin/pytest -q -n auto --dist loadfile tests/data tests/test_files.py

test-beam: .venv-beam/ready  ## make-records and predict on Apache Beam.
	.venv-beam/bin/pytest -q tests/test_beam.py tests/data/records/test_beam_writing.py tests/serving/test_beam_scoring.py

bench: demo  ## Speed compared with other libraries; each prints its table.
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/frontends.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/long_recording.py

clean:
	rm -rf .venv .venv-io .venv-beam build demo runs tfrecords/demo

# What audiotag needs and nothing else. Without TensorFlow's C++ headers, which only operations in C++ need, and
# without compiled files of modules that are never imported, it is two thirds of a gigabyte smaller.
.venv/ready: setup.cfg setup.py
	@test -n "$(PYTHON)" || { echo "audiotag needs Python 3.11 to 3.13; give one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	rm -rf .venv/lib/python3*/site-packages/tensorflow/include
	touch $@

.venv/tests: .venv/ready
	$(INSTALL) --editable '.[tests,backends,docs,onnx,litert,quantize,review,cleanlab]'
	touch $@ .venv/docs

.venv/docs: .venv/ready
	$(INSTALL) --editable '.[docs]'
	touch $@

.venv/torture: .venv/tests
	$(INSTALL) --editable '.[torture]'
	touch $@

.venv-io/ready: setup.cfg setup.py
	$(PYTHON) -m venv .venv-io
	.venv-io/bin/pip install --quiet --no-compile --editable '.[io,tests]'
	touch $@

.venv-beam/ready: setup.cfg setup.py
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/pip install --quiet --no-compile --editable '.[beam,tests]'
	touch $@
