"""The law of backends: layers, losses, metric and tagger answer alike on TensorFlow, JAX and PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("backend_answers.py")
OTHERS = ("jax", "torch")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """{backend: {name: array}}."""
    found = {}
    for backend in ("tensorflow", *OTHERS):
        path = tmp_path_factory.mktemp(backend) / "answers.npz"
        environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(SCRIPT.parents[2])}
        done = subprocess.run([sys.executable, SCRIPT, path], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{backend}: {done.stderr[-3000:]}"
        with np.load(path) as file:
            found[backend] = dict(file)
    return found


@pytest.mark.parametrize("backend", OTHERS)
def test_every_answer_is_that_of_tensorflow(answers, backend):
    assert answers[backend].keys() == answers["tensorflow"].keys()
    worst = {}
    for name, expected in answers["tensorflow"].items():
        found = answers[backend][name]
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        error = np.abs(found.astype("float64") - expected.astype("float64")).max(initial=0) / scale
        if not error <= 1e-4:
            worst[name] = error
    assert not worst


@pytest.mark.parametrize("backend", ("tensorflow", *OTHERS))
def test_everywhere_the_dice_are_alive_and_training_stays_finite(answers, backend):
    claims = {name: value for name, value in answers[backend].items() if name.endswith((" alive", " trains"))}
    assert len(claims) > 5 and all(value.all() for value in claims.values())
