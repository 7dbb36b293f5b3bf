import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf

from audiotag.inference.blocks import predict_logits
from audiotag.inference.predictor import pool_windows
from audiotag.runs.models import load_taggers


def test_predictions_of_several_folds_are_averaged_as_probabilities(run, tmp_path):
    """The second fold's final weights are those of the noisy stage."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    taggers = load_taggers(dataclasses.replace(run, folder=folder))
    assert len(taggers) == 2
    waveform = np.random.default_rng(0).uniform(-1, 1, (3, 20_000)).astype("float32")
    alone = [tf.sigmoid(tagger(waveform)).numpy() for tagger in taggers]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(tf.sigmoid(predict_logits(taggers, waveform)), np.mean(alone, axis=0), atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max", "log_mean_exp"])
def test_windows_of_a_recording_are_pooled_in_float64(pool):
    logits = np.tile(np.arange(180, 201, dtype="float32"), (3, 1))  # their probabilities are all 1
    pooled = pool_windows(logits, pool)
    assert pooled.dtype == "float64"
    np.testing.assert_allclose(pooled, logits[0], rtol=1e-12)
