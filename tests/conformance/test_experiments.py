"""Every file in experiments/ loads, builds and takes a training step of every stage."""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
from tiers import tier

from audiotag.config.loading import load
from audiotag.models.label_groups import group_labels
from audiotag.runs.directory import StageFiles
from audiotag.training.compiling import compile_tagger, stage_callbacks, stage_tagger

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.json"))
# Of the records of front ends that do not name their highest frequency, in Hz.
SAMPLE_RATES = {"perceptual_mel": 32_000, "log_filterbank": 32_000, "mfcc": 44_100, "raw_waveform": 16_000}
SAMPLE_RATES |= {"yamnet_mel": 16_000}
MODEL_KEYS = {"window", "waveform_augment", "frontend", "image_preprocess", "augment", "model", "task", "noisy_head"}
MODEL_KEYS |= {"predict"}
# Like another experiment, but for a larger network or a part that others train too: test_systems.py builds them, and in
# the full tier they take training steps as well.
LARGER = {"densenet", "resnet", "xresnet34", "xresnet34_f2", "xresnet34_plain", "xresnet50", "vgg_gap"}
LARGER |= {"vgg_gap_verified", "vgg_gap_narrow", "xresnet18_f2", "convnext"}
TRAINED = [path for path in FILES if path.stem not in tier(LARGER, ())]
every_file = pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])


def without_download(path):
    """Overrides for random initial weights."""
    return ["model.weights=null"] if "weights" in json.loads(path.read_text())["model"] else []


def quick_overrides(path):
    """Overrides of `quick_command`."""
    words = shlex.split(load(path).quick_command)
    return [word for before, word in pairwise(words) if before == "--set"]


def build(experiment, stage):
    frontend = experiment.frontend
    sample_rate = SAMPLE_RATES.get(frontend.name) or 2 * frontend.high_hz  # bands end at half the sample rate
    return stage_tagger(experiment, stage, sample_rate=int(sample_rate), num_classes=80)


def test_every_published_system_has_an_experiment():
    systems = {"conv_skip", "densenet", "resnet", "mobilenet", "xresnet18", "xresnet18_f2", "xresnet34", "xresnet50"}
    systems |= {"convnext", "conv1d", "mfcc", "vgg_gap", "vgg_gap_narrow", "vgg_gap_filterbank"}
    systems |= {"vgg_gap_verified", "xresnet34_f2", "xresnet34_plain"}
    assert {"demo", "fsd_like_selected"} | systems <= {path.stem for path in FILES}


@every_file
def test_it_states_what_it_claims_and_how_to_run_it(path):
    experiment = load(path)
    assert experiment.about and experiment.expect
    assert experiment.expect != "to be measured"
    assert shlex.split(experiment.command) == ["audiotag", "fit", f"experiments/{path.name}"]
    if experiment.records.startswith("tfrecords/fsdkaggle20"):  # each has a small form
        words = shlex.split(experiment.quick_command)
        assert words[:5] == [*shlex.split(experiment.command), "--run", f"runs/{path.stem}_small"]
        assert load(path, quick_overrides(path)).records.startswith("tfrecords/fsd_like")


@pytest.mark.parametrize("path", TRAINED, ids=[path.stem for path in TRAINED])
def test_it_builds_its_tagger_and_takes_a_training_step_of_every_stage(path):
    experiment = load(path, without_download(path))
    keras.utils.set_random_seed(0)
    for before, stage in pairwise([None, *experiment.stages]):
        same_model = before is not None and (before.augment, before.noisy_loss) == (stage.augment, stage.noisy_loss)
        if not same_model:  # else the tagger of the previous stage is reused
            tagger = build(experiment, stage)
        compile_tagger(tagger, experiment, stage, num_steps=2)
        always = {"CSVLogger"} if experiment.validation is None else {"CSVLogger", "ModelCheckpoint"}
        names = {type(callback).__name__ for callback in stage_callbacks(experiment, stage, StageFiles(Path()))}
        assert names == always | {callback.name for callback in stage.callbacks}
        tagger.run_eagerly = True  # one eager step is faster than tracing
        truth = np.eye(2, 80, dtype="float32")
        truth = group_labels(truth, [True, False]) if tagger.separate_subsets else truth
        waveform = np.random.default_rng(0).uniform(-1, 1, (2, tagger.window_samples)).astype("float32")
        weights = [weight.numpy() for weight in tagger.trainable_variables]
        assert np.isfinite(tagger.train_on_batch((waveform, truth), truth, return_dict=True)["loss"])
        assert any(np.any(a != b) for a, b in zip(weights, tagger.trainable_variables, strict=True))


@every_file
def test_its_quick_command_builds_where_it_changes_the_model(path):
    experiment = load(path, without_download(path))
    small = load(path, [*quick_overrides(path), *without_download(path)])
    if small.model_dump(include=MODEL_KEYS) != experiment.model_dump(include=MODEL_KEYS):
        assert build(small, small.stages[0]).count_params() > 0
