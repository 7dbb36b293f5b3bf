"""Layers, losses, metrics and tagger give equal outputs on TensorFlow, JAX and PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("backend_outputs.py")
OTHERS = ("jax", "torch")


@pytest.fixture(scope="module")
def outputs(start, tmp_path_factory):
    """{backend: {name: array}}."""
    folder, arrays = tmp_path_factory.mktemp("backends"), {}
    job = start(folder / "tensorflow.npz", script=SCRIPT)
    assert job.wait() == 0, job.output()[-3000:]
    for backend in OTHERS:
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(SCRIPT.parents[2])}
        command = [sys.executable, SCRIPT, folder / f"{backend}.npz"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{backend}: {done.stderr[-3000:]}"
    for backend in ("tensorflow", *OTHERS):
        with np.load(folder / f"{backend}.npz") as file:
            arrays[backend] = dict(file)
    return arrays


@pytest.mark.parametrize("backend", OTHERS)
def test_every_output_equals_that_of_tensorflow(outputs, backend):
    assert outputs[backend].keys() == outputs["tensorflow"].keys()
    errors = {}
    for name, expected in outputs["tensorflow"].items():
        ours = outputs[backend][name]
        assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype), name
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        error = np.abs(ours.astype("float64") - expected.astype("float64")).max(initial=0) / scale
        if not error <= 1e-4:
            errors[name] = error
    assert not errors


@pytest.mark.parametrize("backend", ("tensorflow", *OTHERS))
def test_on_every_backend_augmentations_are_random_and_training_is_finite(outputs, backend):
    claims = {name: value for name, value in outputs[backend].items() if name.endswith((" is random", " trains"))}
    assert len(claims) > 5 and all(value.all() for value in claims.values())
