"""A run that is trained and used on JAX, and is the same on TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kills import arrays_in

import audiotag
from audiotag.config.loading import dump
from audiotag.runs.directory import open_run
from audiotag.serving.saved_model import load_predictor

SCRIPT = Path(__file__).with_name("jax_alone.py")


@pytest.fixture(scope="module")
def trained(tiny, wavs, tmp_path_factory):
    """The folder with a run of one stage on JAX, with one that was stopped, and with what they give; and the output."""
    folder = tmp_path_factory.mktemp("jax")
    stage = json.loads(dump(tiny()))["stages"][0] | {"subset": ["curated", "noisy"]}
    (folder / "one.json").write_text(dump(tiny(f"stages={json.dumps([stage])}")))
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, SCRIPT, folder / "one.json", folder, wavs[0]]
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3_000:]
    return folder, done.stdout


def test_training_stops_after_a_step_and_continues_to_the_same_weights(trained):
    folder, output = trained
    assert "Stopped by Ctrl-C (SIGINT) after 0 epochs and 3 steps; all is saved." in output
    ours, others = (arrays_in(open_run(folder / name).weights(0, "noisy")) for name in ("stopped", "run"))
    assert len(ours) == len(others) > 5
    for one, other in zip(ours.values(), others.values(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("model", ["run", "run/saved_model"])
def test_the_same_weights_give_the_same_scores_on_tensorflow(trained, wavs, model):
    folder, _ = trained
    predictor, outputs = load_predictor(folder / model), np.load(folder / "outputs.npz")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 40_000)).astype("float32")
    np.testing.assert_allclose(outputs["logits"], predictor.logits(noise), atol=1e-4)
    np.testing.assert_allclose(outputs["embeddings"], audiotag.embed(predictor, [wavs[0]])[1], atol=1e-4)


def test_evaluation_gives_the_same_measures_on_tensorflow(trained):
    folder, _ = trained
    ours = pd.read_csv(folder / "overall.csv", index_col=0)
    expected = audiotag.evaluate(folder / "run").overall
    pd.testing.assert_frame_equal(ours, expected, check_dtype=False, atol=1e-6)
