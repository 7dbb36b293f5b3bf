"""The law of experiments: every file in experiments/ loads, builds and takes a step of every stage."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest

from audiotag.config.loading import load
from audiotag.models.label_groups import kept_apart
from audiotag.training.compiling import compile_tagger, stage_callbacks, stage_tagger

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.json"))
RATES = {"perceptual_mel": 32_000, "log_filterbank": 32_000, "mfcc": 44_100, "raw_wave": 16_000}  # of their records
BUILT = {"window", "waveform", "frontend", "picture", "augment", "model", "labels", "noisy_head", "predict"}
every_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def at_random(path):
    """Overrides that let the network begin without a download."""
    return ["model.weights=null"] if "weights" in json.loads(path.read_text())["model"] else []


def small_form(path):
    """Overrides of `in_minutes`."""
    words = shlex.split(load(path).in_minutes)
    return [word for before, word in pairwise(words) if before == "--set"]


def built(experiment, stage):
    rate = RATES.get(experiment.frontend.name) or 2 * experiment.frontend.high_hz  # bands end where sound does
    return stage_tagger(experiment, stage, sample_rate=int(rate), num_classes=80)


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
        assert load(path, small_form(path)).records.startswith("tfrecords/fsd_like")


@every_file
def test_it_builds_its_tagger_and_takes_a_step_of_every_stage(path):
    experiment = load(path, at_random(path))
    keras.utils.set_random_seed(0)
    for before, stage in pairwise([None, *experiment.stages]):
        alike = before is not None and (before.augment, before.noisy_loss) == (stage.augment, stage.noisy_loss)
        if not alike:  # else the tagger of the stage before will do
            tagger = built(experiment, stage)
        compile_tagger(tagger, experiment, stage, steps=2)
        assert len(stage_callbacks(stage, Path())) == len(stage.callbacks)
        tagger.run_eagerly = True  # one step is quicker than its trace
        truth = np.eye(2, 80, dtype="float32")
        truth = kept_apart(truth, ["curated", "noisy"]) if tagger.apart else truth
        waveform = np.random.default_rng(0).uniform(-1, 1, (2, tagger.window_samples)).astype("float32")
        weights = [weight.numpy() for weight in tagger.trainable_variables]
        assert np.isfinite(tagger.train_on_batch((waveform, truth), truth, return_dict=True)["loss"])
        assert any(np.any(a != b) for a, b in zip(weights, tagger.trainable_variables, strict=True))


@every_file
def test_its_small_form_builds_where_it_is_another_network(path):
    experiment, small = load(path, at_random(path)), load(path, [*small_form(path), *at_random(path)])
    if small.model_dump(include=BUILT) != experiment.model_dump(include=BUILT):
        assert built(small, small.stages[0]).count_params() > 0
