"""A head that is trained on stored embeddings, and one that is solved for."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from kills import Stopped
from selection_runs import STAGE
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from audiotag.crossval.fold_context import FoldContext
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.records import read_manifest
from audiotag.errors import ConfigError
from audiotag.runs.models import load_tagger
from audiotag.training import embedding_cache, loop

NOISY = STAGE | {"name": "noisy", "subset": "noisy", "epochs": 1, "keep": "last"}
FROZEN = STAGE | {"name": "head", "subset": "curated", "start_from": "noisy", "windows": "sliding", "augment": []}
CACHED = FROZEN | {"epochs": 3, "keep": "last", "backbone_lr_multiplier": 0, "cache_embeddings": True}
RIDGE = FROZEN | {"name": "ridge", "epochs": 0, "initial_head": {"name": "ridge", "alpha": [1.0, 50.0]}}
MODEL = ('model={"name": "conv_skip", "filters": [8]}', "window.seconds=0.5")
MLP = 'head={"name": "mlp", "units": [16]}'


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A function: changes of the cached stage, with a head of its own → the run, and what `fit` said."""
    folder, runs = tmp_path_factory.mktemp("cached"), {}

    def train(**keys):
        name = "-".join(keys) or "cached"
        if name not in runs:
            said = []
            stages = json.dumps([NOISY, CACHED | keys])
            runs[name] = loop.fit(tiny(*MODEL, MLP, f"stages={stages}"), folder / name, say=said.append), said
        return runs[name]

    return train


@pytest.fixture
def cache(trained, tmp_path, records):
    """A function that asks for the embeddings of ten clips, in a run without any: they, and what was said."""
    run = dataclasses.replace(trained()[0], folder=tmp_path / "run")
    context = FoldContext(run, read_manifest(records), read_clips(records / "clips.csv"), 0, run.experiment.stages[-1])
    context.files.folder.mkdir(parents=True)
    tagger, clips = load_tagger(trained()[0], 0, "head"), context.clips[10:20].reset_index(drop=True)

    def ask(kind="training"):
        said = []
        return embedding_cache.cached_features(context, tagger, clips, kind, say=said.append), said

    ask.context, ask.tagger = context, tagger
    return ask


@pytest.fixture
def computed(monkeypatch):
    """The names of the clips whose embeddings are computed."""
    names, original = [], embedding_cache.features_of_clips

    def features_of_clips(tagger, manifest, clips, kind, **options):
        for row, values in original(tagger, manifest, clips, kind, **options):
            names.append(clips["name"][row])
            yield row, values

    monkeypatch.setattr(embedding_cache, "features_of_clips", features_of_clips)
    return names


def assert_equal(features, expected):
    np.testing.assert_array_equal(features.values, expected.values)
    np.testing.assert_array_equal(features.counts, expected.counts)


def test_a_head_on_stored_embeddings_is_that_through_the_frozen_backbone(trained):
    cached, uncached = trained()[0], trained(cache_embeddings=False)[0]
    ours, expected = (load_tagger(run, 0, "head").get_weights() for run in (cached, uncached))
    for weights, others in zip(ours, expected, strict=True):
        np.testing.assert_allclose(weights, others, rtol=1e-5, atol=1e-5)
    ours, expected = (pd.read_csv(run.stage_files(0, "head").history) for run in (cached, uncached))
    assert np.all(expected["loss"].diff().dropna() != 0)
    pd.testing.assert_frame_equal(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["training", "validation"])
def test_embeddings_are_computed_once(cache, computed, kind):
    first, _ = cache(kind)
    assert len(set(computed)) == len(computed) == 10
    assert first.values.shape == (first.counts.sum(), 8)
    again, said = cache(kind)
    assert_equal(again, first)
    assert len(computed) == 10 and not said


def test_a_kill_loses_no_part_that_was_stored(cache, computed, monkeypatch):
    monkeypatch.setattr(embedding_cache, "SECONDS_PER_PART", 0.0)
    save = embedding_cache.save_arrays

    def save_six(path, *content):
        if len(computed) > 6:
            raise Stopped
        save(path, *content)

    monkeypatch.setattr(embedding_cache, "save_arrays", save_six)
    with pytest.raises(Stopped):
        cache()
    assert len(computed) == 7
    monkeypatch.setattr(embedding_cache, "save_arrays", save)
    interrupted, _ = cache()
    assert len(computed) == 11 and len(set(computed)) == 10  # one was computed, and not stored yet
    shutil.rmtree(cache.context.run.embeddings_folder)
    complete, _ = cache()
    np.testing.assert_allclose(interrupted.values, complete.values, rtol=1e-5, atol=1e-6)


def test_a_damaged_part_is_computed_again(cache, computed, capsys):
    first, _ = cache()
    (part,) = cache.context.run.embeddings_folder.glob("*/*.npz")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    again, _ = cache()
    assert f"{part}: damaged" in capsys.readouterr().err
    assert len(computed) == 20
    assert_equal(again, first)


def test_another_backbone_and_other_records_invalidate_what_is_stored(cache, computed):
    cache()
    (old,) = cache.context.run.embeddings_folder.iterdir()
    weight = cache.tagger.parts.backbone.trainable_weights[0]
    weight.assign(1.5 * weight)
    _, said = cache()
    assert said == ["head stage, fold 0: its stored embeddings are of another backbone. They are computed again."]
    assert len(computed) == 20
    (new,) = cache.context.run.embeddings_folder.iterdir()
    assert new != old
    object.__setattr__(cache.context.run, "fingerprint", "0" * 64)
    _, said = cache()
    assert said == ["head stage, fold 0: its stored embeddings are of other records. They are computed again."]
    assert len(computed) == 30


def test_what_another_fold_still_uses_is_kept(cache):
    cache()
    other = cache.context.run.stage_files(1, "head").embeddings
    other.parent.mkdir(parents=True)
    shutil.copy(cache.context.files.embeddings, other)
    weight = cache.tagger.parts.backbone.trainable_weights[0]
    weight.assign(1.5 * weight)
    cache()
    assert len(list(cache.context.run.embeddings_folder.iterdir())) == 2


def test_a_random_layer_of_a_user_before_the_backbone_is_refused(tiny, tmp_path):
    noise = '{"name": "keras.layers:GaussianNoise", "stddev": 0.1}'
    experiment = tiny(*MODEL, f"stages={json.dumps([NOISY, CACHED])}", f"image_preprocess=[{noise}]")
    with pytest.raises(ConfigError, match=r"^stages\.head: cache_embeddings: gaussian_noise.* is random, before the"):
        loop.fit(experiment, tmp_path / "run", say=lambda sentence: None)


# A head that is solved for


@pytest.fixture(scope="module")
def solved(tiny, tmp_path_factory):
    """A run with a ridge, then fine-tuning from a ridge, and what `fit` said."""
    tuned = FROZEN | {"name": "tuned", "epochs": 1, "keep": "last", "initial_head": {"name": "ridge", "alpha": 50.0}}
    said, stages = [], json.dumps([NOISY, RIDGE, tuned])
    run = loop.fit(tiny(*MODEL, f"stages={stages}"), tmp_path_factory.mktemp("solved") / "run", say=said.append)
    return run, said


def test_a_stage_without_epochs_ends_with_the_closed_form(solved):
    run, said = solved
    result = run.result(0, "ridge")
    assert (result["epochs"], result["best_epoch"], result["weights"]) == (0, -1, "last.weights.h5")
    chosen = result["initial_head"]
    assert chosen["name"] == "ridge" and chosen["alpha"] in (1.0, 50.0) and chosen["error"] > 0
    assert any(
        sentence.startswith("ridge stage, fold 0: lwlrap")
        and f"initial head ridge (alpha {chosen['alpha']:g}" in sentence
        for sentence in said
    )
    parts = [np.load(path) for path in run.embeddings_folder.glob("*/*.npz")]
    values = {}
    for part in parts:
        names = json.loads(part["arr_2"].tobytes())
        values |= dict(zip(names, np.split(part["arr_0"], np.cumsum(part["arr_1"])[:-1])))
    clips = pd.read_csv(run.stage_files(0, "ridge").training_clips)
    counts = [len(values[name]) for name in clips["name"]]
    inputs = np.concatenate([values[name] for name in clips["name"]]).astype("float64")
    truth = np.repeat(multi_hot(clips["labels"], run.vocabulary), counts, axis=0)
    each = np.repeat(1 / np.array(counts), counts)
    scaler = StandardScaler().fit(inputs, sample_weight=each)
    model = Ridge(alpha=chosen["alpha"]).fit(scaler.transform(inputs), 2 * truth - 1, sample_weight=each)
    logits = load_tagger(run, 0, "ridge").network.get_layer("logits")
    ours = inputs @ logits.kernel.numpy() + logits.bias.numpy()
    np.testing.assert_allclose(ours, 5 * model.predict(scaler.transform(inputs)), rtol=1e-3, atol=1e-3)


def test_only_the_head_differs_from_the_stage_before(solved):
    run, _ = solved
    before, after = (load_tagger(run, 0, stage) for stage in ("noisy", "ridge"))
    for old, new in zip(before.parts.backbone.get_weights(), after.parts.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.any(before.network.get_layer("logits").kernel != after.network.get_layer("logits").kernel)


def test_fine_tuning_starts_from_the_head_that_is_solved_for(solved):
    run, _ = solved
    assert run.result(0, "tuned")["initial_head"] == {"name": "ridge", "alpha": 50.0}
    kernels = [load_tagger(run, 0, stage).network.get_layer("logits").kernel.numpy() for stage in ("noisy", "tuned")]
    assert np.corrcoef(kernels[0].ravel(), kernels[1].ravel())[0, 1] < 0.9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['model={"name": "vgg_gap", "width": 4}', "frontend.frame_step=80", "frontend.num_bands=47"],
            "needs a network",
        ),
        (["noisy_head=true"], r"initial_head needs one output per class, 14, and the network has 28\. Leave out"),
        (
            ['stages.ridge.initial_head={"name": "ridge", "alpha": 0.0}'],
            r"initial_head: alpha must be one or more numb",
        ),
    ],
)
def test_an_initial_head_that_does_not_fit_is_refused_before_training(tiny, tmp_path, overrides, message):
    stages = json.dumps([NOISY, RIDGE])
    with pytest.raises(ConfigError, match=message):
        loop.fit(tiny(*MODEL, f"stages={stages}", "window.seconds=1.0", *overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()
