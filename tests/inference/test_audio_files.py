import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile as sf
import tensorflow as tf
from scipy.special import expit

from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources.layouts import find_clips
from audiotag.errors import ConfigError, DataError
from audiotag.inference.audio_files import best_classes, score_files
from audiotag.inference.predictor import hear
from audiotag.inference import records as scoring
from audiotag.inference.records import score_logits, score_records
from audiotag.runs import models
from audiotag.runs.models import heard_as, load_tagger, load_taggers
from audiotag.serving.saved_model import load_listener


@pytest.fixture(scope="module")
def clips(records):
    return read_clips(records / "clips.csv").query("subset == 'test'").reset_index(drop=True)


@pytest.fixture(scope="module")
def scores(run, records, clips):
    return score_records(load_taggers(run), read_manifest(records), clips)


@pytest.fixture
def two_folds(run, tmp_path):
    """The run with a second fold: its final weights are those of the noisy stage."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    return dataclasses.replace(run, folder=folder)


def test_each_clip_has_its_own_row_whatever_the_batch(run, records, clips, scores, monkeypatch):
    assert scores.shape == (20, 14) and scores.dtype == "float64"
    assert np.isfinite(scores).all() and (scores > 0).all() and (scores < 1).all()
    taggers, order = load_taggers(run), np.random.default_rng(0).permutation(len(clips))
    for batch_size in (1, 3, 100):
        monkeypatch.setattr(scoring, "BATCH_SIZE", batch_size)
        shuffled = score_records(taggers, read_manifest(records), clips.iloc[order].reset_index(drop=True))
        np.testing.assert_allclose(shuffled, scores[order], atol=1e-6)


def test_files_get_the_scores_that_their_records_get(run, clips, scores, wavs):
    logits = score_files(load_listener(run.folder), wavs)
    assert logits.shape == (20, 14) and logits.dtype == "float64"
    rows = [clips["name"].tolist().index(path.name) for path in wavs]
    np.testing.assert_allclose(expit(logits), scores[rows], atol=1e-5)


def test_files_are_trimmed_and_scaled_as_their_records_were(run, tmp_path):
    (tmp_path / "audio").mkdir()
    table = ["fname,labels,subset"]
    for index in range(4):
        sound = 0.1 * np.random.default_rng(index).uniform(-1, 1, 9_000 + 1_000 * index)
        sf.write(tmp_path / "audio" / f"{index}.wav", np.concatenate([np.zeros(6_000), sound, np.zeros(9_000)]), 16_000)
        table.append(f"{index}.wav,a,{'curated' if index == 0 else 'test'}")
    (tmp_path / "labels.csv").write_text("\n".join(table) + "\n")
    options = {"sample_rate": 16_000, "trim": "level", "peak_db": -3.0, "workers": 0}
    manifest = write_records(find_clips(tmp_path), tmp_path / "records", **options)
    clips = read_clips(tmp_path / "records" / "clips.csv").query("subset == 'test'").reset_index(drop=True)
    assert (clips["trimmed_start_seconds"] > 0.3).all() and (clips["gain_db"] > 10).all()
    scores = score_records(load_taggers(run), manifest, clips)
    listener = load_listener(run.folder)
    paths = [tmp_path / "audio" / name for name in clips["name"]]
    read = score_files(dataclasses.replace(listener, hearing=manifest.hearing), paths)
    np.testing.assert_allclose(expit(read), scores, atol=1e-4)
    assert np.abs(expit(score_files(listener, paths)) - scores).max() > 1e-2


def test_several_folds_are_averaged_as_probabilities(two_folds, records, clips, scores):
    taggers = load_taggers(two_folds)
    assert len(taggers) == 2
    noisy = score_records([load_tagger(two_folds, 0, "noisy")], read_manifest(records), clips)
    assert np.abs(noisy - scores).max() > 0.01
    both = score_records(taggers, read_manifest(records), clips)
    np.testing.assert_allclose(both, (scores + noisy) / 2, atol=1e-7)
    waveform = np.random.default_rng(0).uniform(-1, 1, (3, 20_000)).astype("float32")
    alone = [tf.sigmoid(tagger(waveform)).numpy() for tagger in taggers]
    np.testing.assert_allclose(tf.sigmoid(hear(taggers, waveform)), np.mean(alone, axis=0), atol=1e-6)


def test_nearly_certain_clips_are_not_tied(run, records, clips, monkeypatch):
    tagger = load_taggers(run)[0]
    kernel, bias = tagger.network.get_layer("logits").weights
    kernel.assign(0 * kernel)
    bias.assign(np.arange(14, dtype="float32") + 17)  # float32 knows no probability between these and 1
    scores = score_records([tagger], read_manifest(records), clips.head(2))
    assert (np.diff(scores, axis=1) > 0).all()


def test_a_stage_may_be_chosen(run):
    last, noisy = load_taggers(run)[0], load_taggers(run, "noisy")[0]
    assert any(np.any(a != b) for a, b in zip(last.get_weights(), noisy.get_weights()))
    for a, b in zip(noisy.get_weights(), load_tagger(run, 0, "noisy").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_stage_that_is_unknown_or_not_trained_is_refused(run, tmp_path):
    with pytest.raises(DataError, match=r"no stage 'nosy'\. Did you mean 'noisy'\? Accepted: noisy, curated\."):
        load_taggers(run, "nosy")
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("curated"))
    with pytest.raises(DataError, match=r"run: stage 'curated' is not trained yet\. Finish the run with: audiotag fit"):
        load_taggers(dataclasses.replace(run, folder=tmp_path / "run"))


def test_a_damaged_shard_is_named(run, records, clips, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    manifest = read_manifest(copy)
    shard = next(shard for shard in manifest.shards if shard.subset == "test")
    data = bytearray((copy / shard.file).read_bytes())
    data[-100] ^= 4
    (copy / shard.file).write_bytes(data)
    with pytest.raises(DataError, match=rf"{shard.file}: damaged: its SHA-256 is not the manifest's\. It holds"):
        score_records(load_taggers(run), manifest, clips)


def test_logits_tell_apart_what_rounds_to_one(run, records, clips):
    tagger = load_taggers(run)[0]
    kernel, bias = tagger.network.get_layer("logits").weights
    kernel.assign(0 * kernel)
    bias.assign(np.arange(14, dtype="float32") + 40)  # float64 knows no probability between these and 1
    logits = score_logits([tagger, tagger], read_manifest(records), clips.head(2))
    np.testing.assert_allclose(logits, np.tile(np.arange(14) + 40, (2, 1)), rtol=1e-5)
    assert (np.diff(logits, axis=1) > 0).all()


@pytest.mark.parametrize("change", ["windows=whole", "windows=slices", "windows=random", "pool=max"])
def test_a_run_may_be_heard_in_another_way_and_alone_or_in_a_batch_alike(run, records, clips, scores, change):
    changed = heard_as(run, [f"predict.{change}"])
    taggers = load_taggers(changed)
    logits = score_logits(taggers, read_manifest(records), clips)
    assert np.abs(expit(logits) - scores).max() > 1e-4
    one = clips.iloc[[clips["num_samples"].argmax()]].reset_index(drop=True)
    alone = score_logits(taggers, read_manifest(records), one)
    np.testing.assert_allclose(alone[0], logits[clips["num_samples"].argmax()], atol=1e-4)


def test_only_the_hearing_of_a_trained_run_may_change(run):
    with pytest.raises(ConfigError, match="--set seed=3: a trained run changes only in how it is heard. Expected "):
        heard_as(run, ["seed=3"])
    with pytest.raises(ConfigError, match="predict.pool: "):
        heard_as(run, ["predict.pool=best"])


def test_the_best_classes_stand_first():
    logits = np.array([[-1.0, 0.0, 40.0], [2.0, -30.0, -2.0]])
    assert best_classes(["a b.wav", "c.wav"], logits, ("Bark", "Church bell", "Meow"), 2).splitlines() == [
        "a b.wav",
        "  100.0%  Meow",
        "   50.0%  Church bell",
        "c.wav",
        "   88.1%  Bark",
        "   11.9%  Meow",
    ]
    assert len(best_classes(["a", "b"], logits, ("Bark", "Church bell", "Meow"), 99).splitlines()) == 8


@pytest.mark.parametrize("weights, momentum", [("imagenet", 0.99), ("gone.weights.h5", 0.99), (None, 0.9)])
def test_the_weights_that_training_began_with_are_not_needed_any_more(run, tiny, monkeypatch, weights, momentum):
    def download(*args, **options):
        pytest.fail("downloaded")

    picture = 'picture=[{"name": "resize", "height": 32, "width": 32}, {"name": "repeat_channels"}]'
    begun_with = tiny(picture, f"model={json.dumps({'name': 'mobilenet', 'weights': weights})}")
    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    monkeypatch.setattr(models, "load_weights", lambda tagger, path: None)
    network = load_tagger(dataclasses.replace(run, experiment=begun_with), 0, "curated").network
    assert network.name == "mobilenet"
    assert {layer.momentum for layer in network.layers if hasattr(layer, "momentum")} == {momentum}  # as it was trained
