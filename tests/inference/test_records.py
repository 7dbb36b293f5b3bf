import dataclasses
import shutil

import numpy as np
import pytest
from scipy.special import expit

from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.inference import records as scoring
from audiotag.inference.records import score_logits, score_records
from audiotag.runs.models import load_tagger, load_taggers, with_predict_options


@pytest.fixture(scope="module")
def clips(records):
    return read_clips(records / "clips.csv").query("subset == 'test'").reset_index(drop=True)


@pytest.fixture(scope="module")
def scores(run, records, clips):
    return score_records(load_taggers(run), read_manifest(records), clips)


def test_the_order_of_clips_and_the_batch_size_change_nothing(run, records, clips, scores, monkeypatch):
    assert scores.shape == (20, 14) and scores.dtype == "float64"
    assert np.isfinite(scores).all() and (scores > 0).all() and (scores < 1).all()
    taggers, order = load_taggers(run), np.random.default_rng(0).permutation(len(clips))
    for batch_size in (1, 3, 100):
        monkeypatch.setattr(scoring, "BATCH_SIZE", batch_size)
        shuffled = score_records(taggers, read_manifest(records), clips.iloc[order].reset_index(drop=True))
        np.testing.assert_allclose(shuffled, scores[order], atol=1e-6)


def test_scores_of_several_folds_are_averaged_as_probabilities(run, records, clips, scores, tmp_path):
    """The second fold's final weights are those of the noisy stage."""
    folder = shutil.copytree(run.folder, tmp_path / "run")
    shutil.copytree(folder / "fold-0" / "noisy", folder / "fold-1" / "curated")
    two_folds = dataclasses.replace(run, folder=folder)
    taggers = load_taggers(two_folds)
    assert len(taggers) == 2
    noisy = score_records([load_tagger(two_folds, 0, "noisy")], read_manifest(records), clips)
    assert np.abs(noisy - scores).max() > 0.01
    both = score_records(taggers, read_manifest(records), clips)
    np.testing.assert_allclose(both, (scores + noisy) / 2, atol=1e-7)


def test_nearly_certain_clips_are_not_tied(run, records, clips):
    tagger = load_taggers(run)[0]
    kernel, bias = tagger.network.get_layer("logits").weights
    kernel.assign(0 * kernel)
    bias.assign(np.arange(14, dtype="float32") + 17)  # float32 has no probability between these and 1
    scores = score_records([tagger], read_manifest(records), clips.head(2))
    assert (np.diff(scores, axis=1) > 0).all()


def test_logits_distinguish_probabilities_that_round_to_1(run, records, clips):
    tagger = load_taggers(run)[0]
    kernel, bias = tagger.network.get_layer("logits").weights
    kernel.assign(0 * kernel)
    bias.assign(np.arange(14, dtype="float32") + 40)  # float64 has no probability between these and 1
    logits = score_logits([tagger, tagger], read_manifest(records), clips.head(2))
    np.testing.assert_allclose(logits, np.tile(np.arange(14) + 40, (2, 1)), rtol=1e-5)
    assert (np.diff(logits, axis=1) > 0).all()


@pytest.mark.parametrize("change", ["windows=full_clip", "windows=drop_remainder", "windows=random", "pool=max"])
def test_with_other_predict_settings_a_clip_scores_the_same_alone_and_in_a_batch(run, records, clips, scores, change):
    changed = with_predict_options(run, [f"predict.{change}"])
    taggers = load_taggers(changed)
    logits = score_logits(taggers, read_manifest(records), clips)
    assert np.abs(expit(logits) - scores).max() > 1e-4
    longest = clips["num_samples"].argmax()
    alone = score_logits(taggers, read_manifest(records), clips.iloc[[longest]].reset_index(drop=True))
    np.testing.assert_allclose(alone[0], logits[longest], atol=1e-4)


def test_a_damaged_shard_is_named(run, records, clips, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    manifest = read_manifest(copy)
    shard = next(shard for shard in manifest.shards if shard.subset == "test")
    data = bytearray((copy / shard.file).read_bytes())
    data[-100] ^= 4
    (copy / shard.file).write_bytes(data)
    with pytest.raises(DataError, match=rf"{shard.file}: damaged: its SHA-256 is not the manifest's\. It holds"):
        score_records(load_taggers(run), manifest, clips)
