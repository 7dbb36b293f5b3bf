"""The law of experiments: every file in experiments/ loads, builds and takes a step."""

import shlex
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest

from audiotag.experiment import load, options
from audiotag.losses import LOSSES
from audiotag.metrics import Lwlrap
from audiotag.models.tagger import build_tagger
from audiotag.training.optimizers import build_optimizer

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.json"))
RATES = {"perceptual_mel": 32_000, "log_filterbank": 32_000, "mfcc": 44_100, "raw_wave": 16_000}  # of their records
every_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def test_there_are_experiments():
    systems = {"conv_skip", "densenet", "resnet", "mobilenet", "xresnet18", "xresnet18_f2", "xresnet34", "xresnet50"}
    systems |= {"convnext", "conv1d", "mfcc", "vgg_gap", "vgg_gap_narrow", "vgg_gap_filterbank"}
    systems |= {"vgg_gap_verified", "xresnet18_selected"}
    assert {"demo", "fsd_like"} | systems <= {path.stem for path in FILES}


@every_file
def test_it_says_what_it_claims_and_how_to_run_it(path):
    experiment = load(path)
    assert experiment.about and experiment.expect
    assert experiment.expect != "to be measured"
    assert shlex.split(experiment.command) == ["audiotag", "fit", f"experiments/{path.name}"]
    if experiment.records.startswith("tfrecords/fsdkaggle2019"):  # each has a form that two cores train in minutes
        words = shlex.split(experiment.in_minutes)
        assert words[:5] == [*shlex.split(experiment.command), "--run", f"runs/{path.stem}_small"]
        small = load(path, [word for before, word in pairwise(words) if before == "--set"])
        assert small.records.startswith("tfrecords/fsd_like")


@every_file
def test_it_builds_its_tagger_and_takes_a_step(path):
    experiment = load(path)
    sample_rate = RATES.get(experiment.frontend.name) or 2 * experiment.frontend.high_hz  # bands end where sound does
    keras.utils.set_random_seed(0)
    tagger = build_tagger(experiment, sample_rate=int(sample_rate), num_classes=80)
    waveform = np.random.default_rng(0).uniform(-1, 1, (2, tagger.window_samples)).astype("float32")
    truth = np.eye(2, 80, dtype="float32")
    for stage in experiment.stages:
        tagger.compile(
            optimizer=build_optimizer(stage, tagger.trainable_variables, steps_per_epoch=2),
            loss=LOSSES[stage.loss.name](**options(stage.loss)),
            metrics=[Lwlrap(80)],
            run_eagerly=True,  # one step is quicker than its trace
        )
    before = [weight.numpy() for weight in tagger.trainable_variables]
    assert np.isfinite(tagger.train_on_batch((waveform, truth), truth, return_dict=True)["loss"])
    assert any(np.any(a != b) for a, b in zip(before, tagger.trainable_variables, strict=True))
