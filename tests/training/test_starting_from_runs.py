"""Stages that start with weights from outside their run."""

import json
import shutil

import keras
import numpy as np
import pytest
from kills import Stopped, arrays_in

from audiotag.config.loading import dump
from audiotag.crossval.out_of_fold import trained_on
from audiotag.data.records import write_records
from audiotag.errors import ConfigError, DataError
from audiotag.models.tagger import Tagger
from audiotag.runs.models import load_tagger
from audiotag.runs.weights import save_weights
from audiotag.training import loop
from audiotag.training.callbacks import SaveState

BEGIN = "stages.curated.start_from: "


@pytest.fixture
def source(run, tmp_path):
    """A copy of the trained run, to change or delete."""
    return shutil.copytree(run.folder, tmp_path / "source")


@pytest.fixture
def alone(tiny):
    """A function: the experiment of `run` with its second stage alone, which starts with weights from outside."""

    def alone(start_from, *overrides, **changes):
        stage = json.loads(dump(tiny()))["stages"][1] | {"start_from": start_from} | changes
        return tiny(f"stages={json.dumps([stage])}", *overrides)

    return alone


@pytest.fixture
def no_training(monkeypatch):
    """Fails the test if a stage is trained."""
    monkeypatch.setattr(Tagger, "fit", lambda *args, **options: pytest.fail("trained"))


def fit(experiment, folder, **options):
    """(the run, the sentences that `loop.fit` said)."""
    sentences = []
    return loop.fit(experiment, folder, say=sentences.append, **options), sentences


def started(monkeypatch, experiment, folder, **options):
    """(the weights of the network with which the first stage starts, the sentences said before)."""
    weights, sentences = [], []

    def stop(tagger, *args, **more):
        weights.append({variable.path: variable.numpy() for variable in tagger.network.weights})
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Tagger, "fit", stop)
        loop.fit(experiment, folder, say=sentences.append, **options)
    return list(weights[0].values()), sentences


def equal(some, others):
    return some.keys() == others.keys() and all(np.array_equal(some[key], others[key]) for key in some)


def test_the_second_stage_alone_gives_the_weights_of_the_run_with_both_stages(run, alone, tmp_path):
    """Seeds count the stages of the source, so nothing tells the two runs apart."""
    trained, _ = fit(alone({"run": str(run.folder), "stage": "noisy"}), tmp_path / "alone")
    assert trained.history(0, "curated").equals(run.history(0, "curated"))
    assert equal(arrays_in(trained.weights(0, "curated")), arrays_in(run.weights(0, "curated")))
    scores = [each.stage_files(0, "curated").oof_scores().read_bytes() for each in (trained, run)]
    assert scores[0] == scores[1]
    record = json.loads(trained.stage_files(0, "curated").start_from.read_text())
    assert len(record.pop("run_sha256")) == 64
    assert record == {
        "schema_version": 2,
        "run": str(run.folder),
        "stage": "noisy",
        "fold": 0,
        "weights": str(run.weights(0, "noisy")),
        "sha256": run.result(0, "noisy")["sha256"],
        "stages_before": 1,
    }
    assert trained_on(trained, 0, "curated") == trained_on(run, 0, "curated")


def test_other_classes_train_from_a_run_and_resume_after_a_kill_without_it(
    run, source, alone, recordings, tmp_path, monkeypatch
):
    clips, _ = recordings(tmp_path / "data", [16_000] * 20)
    write_records(clips, tmp_path / "records", sample_rate=16_000, workers=0, clips_per_shard=20)
    experiment = alone({"run": str(source)}, f"records={tmp_path / 'records'}", batch_size=8)
    weights, sentences = started(monkeypatch, experiment, tmp_path / "run")
    said = (
        f"{BEGIN}{source} has 14 classes, and the records of this run have 2. Layers that keep their initial weights: "
        "logits."
    )
    assert sentences == [said]
    theirs = [array for array in arrays_in(run.weights(0, "curated")).values() if array.shape != (14,)]
    head = [array for array in weights if array.shape[-1] == 2]
    assert [array.shape for array in head] == [(8, 2), (2,)]
    for array in weights[: -len(head)]:
        assert any(np.array_equal(array, other) for other in theirs)

    (source / "data.json").write_text((source / "data.json").read_text() + "\n")  # nothing is saved yet
    on_epoch_end = SaveState.on_epoch_end

    def stop(callback, epoch, logs=None):
        on_epoch_end(callback, epoch, logs)
        raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(SaveState, "on_epoch_end", stop)
        loop.fit(experiment, tmp_path / "run", say=sentences.append)
    assert sentences[1:] == [
        f"{BEGIN}{source} has changed since stage 'curated' of fold 0 started from it. Fold 0 starts from the weights "
        "that are there now.",
        said,
    ]
    complete, _ = fit(experiment, tmp_path / "complete")
    shutil.rmtree(source)
    resumed, sentences = fit(experiment, tmp_path / "run")
    assert len(sentences) == 1 and resumed.result(0, "curated")["resumed"]
    assert resumed.history().equals(complete.history())
    assert equal(arrays_in(resumed.weights(0, "curated")), arrays_in(complete.weights(0, "curated")))
    with pytest.raises(DataError, match="start_from: .*source: not the directory of a run"):
        fit(experiment, tmp_path / "run", fold=1)


def test_a_stage_starts_with_a_file_of_weights_and_says_once_what_it_cannot_know(run, alone, tmp_path, monkeypatch):
    path = shutil.copy(run.weights(0, "noisy"), tmp_path / "plain.weights.h5")
    both = 'validation={"folds": {"held_out": [0, 1]}}'
    weights, sentences = started(monkeypatch, alone({"weights": str(path)}, both), tmp_path / "run")
    assert equal(dict(enumerate(weights)), dict(enumerate(load_tagger(run, 0, "noisy").network.get_weights())))
    assert len(sentences) == 1 and sentences[0].startswith(
        f"{BEGIN}{path} does not say what its model trained on. If a fold of this run holds out "
    )
    path.write_bytes(run.weights(0, "curated").read_bytes())
    _, sentences = started(monkeypatch, alone({"weights": str(path)}, both), tmp_path / "run", fold=1)
    assert sentences[0] == (
        f"{BEGIN}{path} has changed since stage 'curated' of fold 0 started from it. Fold 1 starts from the weights "
        "that are there now."
    )


def test_a_source_that_trained_on_held_out_clips_is_refused_before_the_first_epoch(run, alone, tmp_path, no_training):
    start_from = {"run": str(run.folder), "stage": "curated"}
    message = (
        rf"^{BEGIN}fold 0 of \S+ trained on clip '\S+' and \d others that fold 0 of this run holds out.* Use the "
        r'records, seed and validation of \S+: "seed": 2019, "validation": .*"num_folds": 5'
    )
    with pytest.raises(ConfigError, match=message):
        fit(alone(start_from, "seed=1"), tmp_path / "run")
    with pytest.raises(ConfigError, match="trained on clip .* that fold 1 of this run holds out"):
        fit(alone(start_from), tmp_path / "run", fold=1)  # the source has fold 0 alone
    split = 'validation={"folds": {"split_noisy": true}}'  # the stage before this one trained on all noisy clips
    with pytest.raises(ConfigError, match="trained on clip .* that fold 0 of this run holds out"):
        fit(alone(start_from, split), tmp_path / "run")


def test_a_run_cannot_start_from_itself(source, alone, no_training):
    with pytest.raises(ConfigError, match=rf"^{BEGIN}{source} is in {source}, the directory of this run\. Choose"):
        fit(alone({"run": str(source)}), source, restart=True)
    assert (source / "fold-0" / "curated" / "result.json").is_file()


def test_weights_of_another_network_end_a_run_before_anything_is_written(alone, tmp_path, no_training):
    save_weights(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "other.weights.h5")
    with pytest.raises(ConfigError, match=rf"^{BEGIN}layers/dense/vars: found weights of shape "):
        fit(alone({"weights": str(tmp_path / "other.weights.h5")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
