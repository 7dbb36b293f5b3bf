import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import signal
import time

import keras
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import tensorflow as tf
from kills import Stopped, arrays_in
from scipy.special import expit
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    fbeta_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from audiotag import files
from audiotag.config.loading import dump, load
from audiotag.crossval.fold_context import FoldContext
from audiotag.crossval.label_selection import stage_clips
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.folds import stratified_folds
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import evaluation_batches, training_batches
from audiotag.data.records import read_manifest, write_records
from audiotag.data.sources import find_clips
from audiotag.data.synthetic import make_demo
from audiotag.errors import ConfigError, DataError
from audiotag.evaluation.measures import evaluate
from audiotag.evaluation.scoring import out_of_fold_predictions, score_test_clips
from audiotag.layers import LogMel
from audiotag.metrics import lwlrap, mean_average_precision_at_k
from audiotag.models.label_groups import split_groups
from audiotag.models.tagger import Tagger
from audiotag.models.windowing import to_float
from audiotag.runs.building import build_tagger
from audiotag.runs.models import load_tagger
from audiotag.runs.weights import load_weights
from audiotag.training import loop
from audiotag.training.callbacks import CheckRecords, SaveState
from audiotag.training.state import INITIAL

ONE_EPOCH = ("stages.noisy.epochs=1", "stages.curated.epochs=1")


def fit(experiment, folder, **more):
    return loop.fit(experiment, folder, say=lambda sentence: None, **more)


def only(stage, experiment):
    """The override that leaves one stage, which starts with initial weights."""
    content = next(content for content in json.loads(dump(experiment))["stages"] if content["name"] == stage)
    return f"stages={json.dumps([content | {'start_from': None}])}"


@pytest.fixture
def again(run, tmp_path):
    """A copy of the trained run, to write into."""
    return shutil.copytree(run.folder, tmp_path / "again")


@pytest.fixture
def no_training(monkeypatch):
    """Fails the test if a stage is trained."""
    monkeypatch.setattr(Tagger, "fit", lambda *args, **options: pytest.fail("trained"))


def stop(*args, **options):
    raise Stopped


# The files of a run


def test_a_finished_run_has_all_its_files_and_no_others(run):
    present = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    stage_files = {"history.csv", "best.weights.h5", "result.json", "training_clips.csv"}
    assert present >= {
        "experiment.json",
        "environment.json",
        "data.json",
        "folds.csv",
        "fold-0/curated/oof.csv",
    }
    assert present >= {f"fold-0/{stage}/{name}" for stage in ("noisy", "curated") for name in stage_files}
    assert not [name for name in present if "unfinished" in name or "state" in name or "previous" in name]


def test_its_experiment_is_the_one_that_was_given(run, tiny):
    assert load(run.folder / "experiment.json") == tiny() == run.experiment


def test_its_folds_are_those_of_the_curated_clips(run, records):
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    curated = read_clips(records / "clips.csv").query("subset == 'curated'").set_index("name", drop=False)
    expected = stratified_folds(curated, 5, seed=2019, groups="group")
    assert folds.to_dict() == expected.to_dict()
    assert sorted(folds.unique()) == [0, 1, 2, 3, 4]


def test_its_history_and_its_result_agree(run):
    for stage in ("noisy", "curated"):
        history = pd.read_csv(run.stage_files(0, stage).history)
        result = run.result(0, stage)
        assert history.columns.tolist() == ["epoch", "loss", "lwlrap", "val_loss", "val_lwlrap"]
        assert history["epoch"].tolist() == [0, 1]
        assert result["epochs"] == 2
        assert result["value"] == pytest.approx(history["val_lwlrap"].max(), abs=1e-12)
        assert result["best_epoch"] == history["val_lwlrap"].idxmax()
        assert result["sha256"] == files.sha256(run.weights(0, stage))
        assert (result["schema_version"], result["resumed"], result["round"]) == (2, False, None)
        assert 0 < result["seconds"] < 600


def test_its_out_of_fold_scores_give_the_lwlrap_that_was_monitored(run, records):
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    scores = pd.read_csv(run.stage_files(0, "curated").oof_scores(), index_col="name")
    assert set(scores.index) == set(folds.index[folds == 0])
    assert scores.columns.tolist() == list(run.vocabulary)
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    truth = [[label in labels[name].split(",") for label in run.vocabulary] for name in scores.index]
    assert lwlrap(np.array(truth, int), scores.to_numpy()) == pytest.approx(run.result(0, "curated")["value"])


# A second call


def test_a_second_call_does_nothing(run, tiny, no_training):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != ".lock"}
    sentences, begun = [], time.perf_counter()
    assert loop.fit(tiny(), run.folder, say=sentences.append) == run
    assert time.perf_counter() - begun < 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [sentence.split(",")[0] for sentence in sentences] == ["noisy stage", "curated stage"]
    pattern = r"curated stage, fold 0: lwlrap 0\.\d{4} on \d validation clips, split clip by clip, epoch [12] of 2\."
    assert re.fullmatch(pattern, sentences[1])


def test_a_run_that_continues_on_another_number_of_cores_says_so(again, tiny, no_training):
    environment = json.loads((again / "environment.json").read_text())
    (again / "environment.json").write_text(json.dumps(environment | {"cores": 99}))
    sentences = []
    loop.fit(tiny(), again, say=sentences.append)
    assert sentences[0].startswith(f"{again}: began on 99 cores and continues on {environment['cores']}, so its weight")


def test_another_experiment_in_its_directory_is_refused(again, tiny, no_training):
    with pytest.raises(DataError, match=r"trained with another experiment: seed is now 1 and was 2019\. Choose"):
        fit(tiny("seed=1"), again)
    with pytest.raises(DataError, match="with another experiment: stages.curated.epochs is now 3 and was 2"):
        fit(tiny("stages.curated.epochs=3"), again)


def test_other_records_are_refused(again, tiny, no_training):
    data = json.loads((again / "data.json").read_text())
    (again / "data.json").write_text(json.dumps(data | {"fingerprint": "other"}))
    with pytest.raises(DataError, match=r"again: was trained on other records than .*demo: .*\. Choose another name"):
        fit(tiny(), again)


@pytest.fixture
def replaced(demo, tmp_path):
    """A folder of records of copied recordings, and a function that replaces them by records of other audio."""
    shutil.copytree(demo, tmp_path / "recordings")
    options = {"sample_rate": 16_000, "workers": 0, "clips_per_shard": 16}
    write_records(find_clips(tmp_path / "recordings"), tmp_path / "records", **options)

    def replace():
        path = sorted((tmp_path / "recordings").rglob("*.wav"))[0]
        samples, rate = sf.read(path, dtype="int16")
        sf.write(path, samples[::-1], rate)
        write_records(find_clips(tmp_path / "recordings"), tmp_path / "records", overwrite=True, **options)

    return tmp_path / "records", replace


def test_records_of_other_audio_are_refused(again, tiny, replaced, no_training):
    folder, replace = replaced
    assert fit(tiny(), again).fingerprint == read_manifest(folder).fingerprint
    content = json.loads((again / "experiment.json").read_text())
    (again / "experiment.json").write_text(json.dumps(content | {"records": str(folder)}))
    fit(tiny(f"records={folder}"), again)
    replace()
    with pytest.raises(DataError, match=r"again: was trained on other records than .*: the audio of the rec"):
        fit(tiny(f"records={folder}"), again)


@pytest.mark.check("B5", 2)
def test_records_replaced_while_it_trains_end_it_before_the_epoch_is_saved(tiny, tmp_path, replaced, monkeypatch):
    folder, replace = replaced
    run, on_epoch_begin = tmp_path / "run", CheckRecords.on_epoch_begin

    def replace_in_second_epoch(callback, epoch, logs=None):
        on_epoch_begin(callback, epoch, logs)
        if epoch == 1:
            replace()

    monkeypatch.setattr(CheckRecords, "on_epoch_begin", replace_in_second_epoch)
    with pytest.raises(DataError, match="records: the records were replaced while they were in use: they had"):
        fit(tiny(f"records={folder}"), run)
    assert len(pd.read_csv(run / "fold-0" / "noisy" / "history.csv")) == 1
    monkeypatch.undo()
    with pytest.raises(DataError, match="was trained on other records than"):
        fit(tiny(f"records={folder}"), run)
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="and there are no complete records now"):
        CheckRecords(manifest).on_epoch_begin(0)


@pytest.mark.check("B6")
def test_a_shard_cut_while_it_trains_is_named(tiny, tmp_path, replaced, monkeypatch):
    folder, _ = replaced
    path = folder / read_manifest(folder).shards[0].file
    on_epoch_end = CheckRecords.on_epoch_end

    def cut_after_the_first_epoch(callback, epoch, logs=None):
        on_epoch_end(callback, epoch, logs)
        os.truncate(path, path.stat().st_size // 2)

    monkeypatch.setattr(CheckRecords, "on_epoch_end", cut_after_the_first_epoch)
    with pytest.raises(DataError, match=f"{path.name}: damaged: its SHA-256 is not the manifest's"):
        fit(tiny(f"records={folder}"), tmp_path / "run", fold=0)


def test_weights_do_not_depend_on_how_records_are_read(run, tiny, tmp_path, records, monkeypatch):
    assert loop.find_offsets(read_manifest(records)) is not None  # `run` was trained on windows by offset
    monkeypatch.setattr(loop, "find_offsets", lambda manifest: None)
    sequential = fit(tiny(only("noisy", tiny())), tmp_path / "sequential", fold=0)
    for one, another in zip(load_tagger(run, 0, "noisy").weights, load_tagger(sequential, 0, "noisy").weights):
        np.testing.assert_array_equal(one, another)


def test_restart_removes_the_old_run(again, tiny, monkeypatch):
    monkeypatch.setattr(Tagger, "fit", stop)
    with pytest.raises(Stopped):
        fit(tiny("seed=1"), again, restart=True)
    assert not (again / "fold-0" / "noisy" / "result.json").exists()
    assert load(again / "experiment.json").seed == 1


def test_restart_removes_nothing_but_a_run(tiny, tmp_path, monkeypatch):
    (tmp_path / "letters").write_text("dear")
    monkeypatch.setattr(Tagger, "fit", stop)
    with pytest.raises(Stopped):
        fit(tiny(), tmp_path, restart=True)
    assert (tmp_path / "letters").read_text() == "dear"


# Initial weights, and training clips


def weights_at_the_start(monkeypatch):
    """A list to which every stage adds the weights that it starts with; it then stops."""
    weights = []

    def record(tagger, *args, **options):
        weights.append(tagger.get_weights())
        raise Stopped

    monkeypatch.setattr(Tagger, "fit", record)
    return weights


@pytest.mark.check("D4")
def test_a_stage_starts_with_the_best_weights_of_the_stage_that_it_names(again, tiny, monkeypatch):
    shutil.rmtree(again / "fold-0" / "curated")
    initial = weights_at_the_start(monkeypatch)
    with pytest.raises(Stopped):
        fit(tiny(), again)
    best = build_tagger(tiny(), sample_rate=16_000, num_classes=14)
    load_weights(best, again / "fold-0" / "noisy" / "best.weights.h5")
    for ours, theirs in zip(initial[0], best.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_stage_after_another_downloads_nothing_and_keeps_the_momentum_of_its_statistics(run, tiny, monkeypatch):
    def download(*args, **options):
        pytest.fail("downloaded")

    image = 'image_preprocess=[{"name": "resize", "height": 32, "width": 32}, {"name": "repeat_channels"}]'
    experiment = tiny(image, 'model={"name": "mobilenet", "weights": "imagenet"}')
    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    monkeypatch.setattr("audiotag.runs.models.load_weights", lambda tagger, path: None)
    run = dataclasses.replace(run, experiment=experiment)
    manifest = read_manifest(experiment.records)
    clips = training_clips(run, read_clips(manifest.directory / "clips.csv"))
    tagger = loop._compiled_tagger(FoldContext(run, manifest, clips, 0, experiment.stages[1]), 1, 1)
    layers = tagger.network.layers
    assert {layer.momentum for layer in layers if hasattr(layer, "momentum")} == {0.99}


def test_a_stage_that_names_none_starts_with_weights_of_the_seed(again, tiny, monkeypatch):
    initial = weights_at_the_start(monkeypatch)
    for folder, seed in ((again / "a", 1), (again / "b", 1), (again / "c", 2)):
        with pytest.raises(Stopped):
            fit(tiny(f"seed={seed}"), folder)
    a, b, c = initial
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert any(not np.array_equal(x, y) for x, y in zip(a, c))


def test_a_single_fold_is_trained_and_never_on_the_clips_that_it_holds_out(tiny, tmp_path, monkeypatch):
    trained_on, validated_on = [], []
    make_training, make_validation = loop.training_batches, loop.evaluation_batches

    def training_batches(manifest, clips, *args, **options):
        trained_on.append(set(clips["name"]))
        return make_training(manifest, clips, *args, **options)

    def evaluation_batches(manifest, clips, **options):
        validated_on.append(set(clips["name"]))
        return make_validation(manifest, clips, **options)

    monkeypatch.setattr(loop, "training_batches", training_batches)
    monkeypatch.setattr(loop, "evaluation_batches", evaluation_batches)
    run = fit(tiny(*ONE_EPOCH), tmp_path / "run", fold=1)
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    held_out = set(folds.index[folds == 1])
    assert validated_on == [held_out, held_out]
    assert [len(names) for names in trained_on] == [40, 40 - len(held_out)]
    assert trained_on[0].isdisjoint(folds.index)
    assert trained_on[1] == set(folds.index) - held_out
    assert [path.name for path in run.folder.glob("fold-*")] == ["fold-1"]
    assert run.trained_folds("curated") == [1]
    assert set(pd.read_csv(run.stage_files(1, "curated").oof_scores())["name"]) == held_out


def test_a_fold_that_does_not_exist_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no fold 5\. Accepted: 0 to 4\."):
        fit(tiny(), tmp_path / "run", fold=5)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ("noisy", "has no noisy clips for stage 'noisy', or none with a weight"),
        ("curated", "has no curated clips to hold out for validation."),
    ],
)
def test_records_without_a_subset_are_an_error(tiny, tmp_path, monkeypatch, subset, message):
    without = lambda clips: clips[clips["subset"] != subset]
    monkeypatch.setattr(loop, "read_clips", lambda path: without(read_clips(path)))
    with pytest.raises(DataError, match=message):
        fit(tiny(), tmp_path / "run")


def test_a_batch_that_the_clips_cannot_fill_is_an_error(tiny, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"^stages\.noisy\.batch_size: 40 clips do not fill a batch of 64\. Give more clips or a smaller one\.",
    ):
        fit(tiny("stages.noisy.batch_size=64"), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):  # with a smaller batch, it trains
        patch.setattr(Tagger, "fit", stop)
        fit(tiny(), tmp_path / "run")


def test_a_wrong_experiment_does_not_remove_an_old_run(again, tiny):
    with pytest.raises(ConfigError, match="label_smoothing"):
        fit(tiny("stages.curated.loss.label_smoothing=2"), again, restart=True)
    assert (again / "fold-0" / "curated" / "result.json").is_file()


def test_the_last_weights_of_a_stage_are_the_average_that_was_validated(tiny, tmp_path):
    averaged = ("stages.noisy.optimizer.use_ema=true", "stages.noisy.keep=last", *ONE_EPOCH)
    experiment = tiny(*averaged, only("noisy", tiny(*averaged)))
    run = fit(experiment, tmp_path / "run")
    clips = read_clips(read_manifest(experiment.records).directory / "clips.csv")
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    held_out = clips[clips["name"].map(folds) == 0].reset_index(drop=True)
    truth = [[label in labels.split(",") for label in run.vocabulary] for labels in held_out["labels"]]
    path = run.stage_files(0, "noisy").oof_scores()
    scores = pd.read_csv(path, index_col="name").loc[held_out["name"]]
    assert run.weights(0, "noisy").name == "last.weights.h5"
    assert lwlrap(np.array(truth, int), scores.to_numpy()) == pytest.approx(run.result(0, "noisy")["value"])


def test_keep_decides_between_the_weights_of_the_best_and_of_the_last_epoch(run, tiny, tmp_path):
    runs = {"highest": run}
    for name, mode, keep in (("lowest", "min", "best"), ("last", "max", "last")):
        checkpoint = f'[{{"name": "ModelCheckpoint", "mode": "{mode}"}}]'
        experiment = tiny("model.filters=[8]", f"stages.noisy.callbacks={checkpoint}", f"stages.noisy.keep={keep}")
        runs[name] = fit(tiny("model.filters=[8]", only("noisy", experiment)), tmp_path / name)
    histories = {run.stage_files(0, "noisy").history.read_bytes() for run in runs.values()}
    assert len(histories) == 1  # the stages differ only in the weights that they keep
    results = {name: run.result(0, "noisy") for name, run in runs.items()}
    lwlraps = pd.read_csv(runs["last"].stage_files(0, "noisy").history)["val_lwlrap"]
    epochs = {"highest": lwlraps.idxmax(), "lowest": lwlraps.idxmin(), "last": 1}
    assert sorted(epochs.values()) in ([0, 1, 1], [0, 0, 1])
    assert {name: result["best_epoch"] for name, result in results.items()} == epochs
    for name, epoch in epochs.items():
        assert results[name]["value"] == pytest.approx(lwlraps[epoch], abs=1e-12)
    assert [result["weights"] for result in results.values()] == ["best.weights.h5"] * 2 + ["last.weights.h5"]
    assert runs["last"].stage_files(0, "noisy").best_weights.is_file()
    weights = {name: load_tagger(run, 0, "noisy").network.get_weights() for name, run in runs.items()}
    for name in ("highest", "lowest"):
        same = [np.array_equal(ours, last) for ours, last in zip(weights[name], weights["last"], strict=True)]
        assert all(same) if epochs[name] == 1 else not all(same)


def test_a_backbone_with_a_multiplier_of_0_is_frozen_with_its_statistics(again, tiny):
    shutil.rmtree(again / "fold-0" / "curated")
    experiment = tiny("stages.curated.backbone_lr_multiplier=0.0")
    (again / "experiment.json").write_text(dump(experiment))
    fit(experiment, again)
    before, after = (arrays_in(again / "fold-0" / stage / "best.weights.h5") for stage in ("noisy", "curated"))
    names = [name for name in before if not name.startswith("optimizer") and "seed_generator" not in name]
    changed = [before[name].shape for name in names if np.any(before[name] != after[name])]
    assert len(names) > 5
    assert sorted(changed) == [(8, 14), (14,)]  # the head


# Damage and divergence


@pytest.mark.check("B4")
def test_a_damaged_shard_is_named(tiny, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    shard = next(shard for shard in read_manifest(copy).shards if shard.subset == "noisy")
    data = bytearray((copy / shard.file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / shard.file).write_bytes(data)
    undamaged = tf.data.TFRecordDataset(str(records / shard.file)).as_numpy_iterator()
    ends = np.cumsum([16 + len(record) for record in undamaged])
    damaged_clip = shard.clips[np.searchsorted(ends, len(data) // 2, side="right")]
    with pytest.raises(DataError) as error:
        fit(tiny(f"records={copy}"), tmp_path / "run")
    assert str(error.value) == (
        f"{copy / shard.file}: damaged: its SHA-256 is not the manifest's. "
        f"It holds 16 noisy clips, {shard.clips[0]} to {shard.clips[-1]}. "
        f"The first damaged record is that of {damaged_clip}.\n"
        "Make the records again with --overwrite."
    )


@pytest.mark.check("D6")
@pytest.mark.parametrize("keep", ["best", "last"])
def test_training_that_diverges_is_an_error(tiny, tmp_path, keep):
    diverging = ("stages.noisy.optimizer.learning_rate=1e38", f"stages.noisy.keep={keep}")
    for _ in range(2):  # the same error after resuming
        with pytest.raises(
            ConfigError, match=r"fold-0/noisy: training diverged to NaN: the loss is nan in step 2 of epoch 1, with th"
        ):
            fit(tiny(*diverging, *ONE_EPOCH), tmp_path / "run")
    assert not (tmp_path / "run" / "fold-0" / "noisy" / "result.json").exists()


@pytest.mark.check("D1")
def test_files_that_a_kill_left_in_a_finished_stage_are_removed_later(again, tiny, no_training):
    stage, before = again / "fold-0" / "noisy", set(again.rglob("*"))
    left = ("training_state.npz", "previous-training_state.npz", "previous-best.weights.h5")
    for name in (*left, ".unfinished-1-oof.csv"):
        (stage / name).write_bytes(b"no longer needed")
    for folder in (again, stage.parent, stage / "1"):
        (folder / ".unfinished-99-x" / "variables").mkdir(parents=True)
    fit(tiny(), again)
    assert set(again.rglob("*")) - before <= {again / ".lock", stage / "1"}


@pytest.mark.check("D3")
def test_a_stage_that_stopped_early_and_was_killed_stays_stopped(tiny, tmp_path, monkeypatch):
    no_progress = (
        "stages.noisy.epochs=9",
        "stages.noisy.keep=last",
        "stages.noisy.optimizer.learning_rate=1e-30",
        'stages.noisy.callbacks=[{"name": "EarlyStopping", "monitor": "val_lwlrap", "min_delta": 0.5, "patience": 1}]',
    )
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_finish_stage", stop)
        with pytest.raises(Stopped):
            fit(tiny(*no_progress), tmp_path / "run")
    noisy = tmp_path / "run" / "fold-0" / "noisy"
    assert (noisy / "training_state.npz").exists() and not (noisy / "result.json").exists()
    monkeypatch.setattr(Tagger, "fit", stop)
    with pytest.raises(Stopped):  # by the next stage
        fit(tiny(*no_progress), tmp_path / "run")
    result = json.loads((noisy / "result.json").read_text())
    assert (result["epochs"], result["best_epoch"], result["weights"]) == (2, 1, "last.weights.h5")
    assert result["resumed"] is True
    assert not list(noisy.glob("*training_state.npz"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs_done": 9}, "9 epochs and 0 steps are done, but the stage has 1 epochs of"),
        ({"steps_done": 999}, "0 epochs and 999 steps are done, but the stage has 1 epochs of"),
        (
            {"stop_training": True, "callbacks": {}},
            "the callbacks none, expected CSVLogger, ModelCheckpoint.",
        ),
    ],
)
def test_a_state_that_does_not_fit_its_stage_is_refused(tiny, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(loop, "resume", lambda path, model: INITIAL | changes)
    with pytest.raises(DataError, match=message):
        fit(tiny(*ONE_EPOCH), tmp_path / "run")


def test_half_precision_trains_and_keeps_small_gradients(tiny, tmp_path, monkeypatch):
    optimizers = []
    keras_fit = Tagger.fit

    def spy(tagger, *args, **options):
        optimizers.append(tagger.optimizer)
        return keras_fit(tagger, *args, **options)

    monkeypatch.setattr(Tagger, "fit", spy)
    run = fit(tiny("dtype_policy=mixed_float16", only("noisy", tiny(*ONE_EPOCH))), tmp_path / "run")
    assert [type(optimizer) for optimizer in optimizers] == [keras.optimizers.LossScaleOptimizer]
    assert run.result(0, "noisy")["epochs"] == 1


def test_a_training_step_compiled_with_xla_trains_too(tiny, tmp_path):
    run = fit(tiny("jit_compile=true", "deterministic=false", only("noisy", tiny(*ONE_EPOCH))), tmp_path / "run")
    assert np.isfinite(run.result(0, "noisy")["value"])


# Ctrl-C


def test_ctrl_c_reaches_the_caller_and_fit_continues_outside_the_main_thread(run, tiny, tmp_path, monkeypatch):
    experiment = tiny(only("noisy", tiny()))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in background jobs
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="Stopped by Ctrl-C .* all is saved"):
        interrupt = lambda callback, batch, logs=None: os.kill(os.getpid(), signal.SIGINT)
        patch.setattr(SaveState, "on_train_batch_begin", interrupt)
        fit(experiment, tmp_path / "run")
    assert signal.signal(signal.SIGINT, before) == signal.default_int_handler
    assert (tmp_path / "run" / "fold-0" / "noisy" / "training_state.npz").is_file()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        continued = pool.submit(fit, experiment, tmp_path / "run").result()
    assert continued.result(0, "noisy")["resumed"]
    pd.testing.assert_frame_equal(continued.history(), run.history(stage="noisy"))
    expected, weights = (arrays_in(each.weights(0, "noisy")) for each in (run, continued))
    assert all(map(np.array_equal, expected.values(), weights.values()))


# Labels and learning


@pytest.fixture(scope="module")
def more_records(tmp_path_factory):
    """Records of enough clips to learn from."""
    folder = tmp_path_factory.mktemp("more")
    make_demo(folder / "demo", curated=140, noisy=1, test=70)
    write_records(find_clips(folder / "demo"), folder / "records", sample_rate=16_000, workers=0)
    return folder / "records"


@pytest.mark.parametrize(("shuffled", "lowest", "highest"), [(False, 0.75, 1.0), (True, 0.0, 0.42)])
def test_nothing_is_learned_from_shuffled_labels(tiny, more_records, tmp_path, monkeypatch, shuffled, lowest, highest):
    def read(path):
        clips = read_clips(path)
        train = clips["subset"] != "test"
        clips.loc[train, "labels"] = np.random.default_rng(1).permutation(clips.loc[train, "labels"])
        return clips

    if shuffled:
        monkeypatch.setattr(loop, "read_clips", read)
    stages = only("curated", tiny("stages.curated.epochs=10", "stages.curated.optimizer.learning_rate=0.003"))
    run = fit(tiny(stages, f"records={more_records}", "augment=[]", "model.filters=[16,32,64]"), tmp_path / "run")
    overall, _ = evaluate(*score_test_clips(run), run.vocabulary)
    assert lowest <= overall["value"][0] <= highest
    assert overall["chance"][0] < 0.3


# Clips, labels and statistics


def clips_of(experiment, run, records, stage=0):
    """The clips that a stage of an experiment trains on with fold 0 of a run held out."""
    run = dataclasses.replace(run, experiment=experiment)
    clips = training_clips(run, read_clips(records / "clips.csv"))
    return stage_clips(FoldContext(run, read_manifest(records), clips, 0, experiment.stages[stage]))


def test_a_stage_may_train_on_both_subsets_and_never_on_held_out_clips(run, records, tiny):
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    clips = clips_of(tiny('stages.noisy.subset=["curated","noisy"]'), run, records)
    assert set(clips["subset"]) == {"curated", "noisy"}
    assert len(clips) == 40 + (folds != 0).sum()
    assert not set(clips["name"]) & set(folds.index[folds == 0])


METRICS = [{"name": name} for name in ("mean_average_precision", "auc", "lrap", "map_at_k", "f_beta", "lwlrap")]


def validation_predictions(run, records, stage):
    """Truth and logits of the validation clips of fold 0, with the weights that a stage saved."""
    clips = read_clips(records / "clips.csv")
    clips = clips[clips["name"].isin(held_out_of(run))].reset_index(drop=True)
    tagger = load_tagger(run, 0, stage)
    logits = np.zeros((len(clips), len(run.vocabulary)), "float32")
    for waveform, rows in evaluation_batches(read_manifest(records), clips, window_samples=16_000, batch_size=16):
        logits[rows.numpy()] = tagger(waveform)
    return multi_hot(clips["labels"], run.vocabulary), logits


def held_out_of(run):
    folds = pd.read_csv(run.folds_file, index_col="name")["fold"]
    return folds.index[folds == 0]


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory):
    """A run of one stage of three epochs of four steps with these metrics, and what `fit` said."""
    options = (f"metrics={json.dumps(METRICS)}", "stages.curated.batch_size=8", "stages.curated.epochs=3")
    experiment, said = tiny(*options, only("curated", tiny(*options))), []
    return loop.fit(experiment, tmp_path_factory.mktemp("measured") / "run", say=said.append), said


def test_metrics_in_the_history_equal_those_of_scikit_learn_and_decide_which_weights_are_kept(measured, records):
    run, said = measured
    history, result = run.history(), run.result(0, "curated")
    streaming = ["lrap", "map_at_k", "f_beta", "lwlrap"]
    validated = [f"val_{name}" for name in ("loss", *streaming, "mean_average_precision", "auc")]
    assert sorted(history.columns) == sorted(["epoch", "loss", *streaming, *validated])
    assert (result["monitor"], result["best_epoch"]) == (
        "val_mean_average_precision",
        history["val_mean_average_precision"].idxmax(),
    )
    assert result["value"] == history["val_mean_average_precision"].max()
    assert f"curated stage, fold 0: mean_average_precision {result['value']:.4f} on 8 valid" in said[-1]
    truth, logits = validation_predictions(run, records, "curated")
    logged = history.iloc[result["best_epoch"]]
    columns = [(t, s) for t, s in zip(truth.T, logits.T) if t.any()]  # no class is in every clip
    expected = {
        "mean_average_precision": np.mean([average_precision_score(*column) for column in columns]),
        "auc": np.mean([roc_auc_score(*column) for column in columns]),
        "lrap": label_ranking_average_precision_score(truth, logits),
        "map_at_k": mean_average_precision_at_k(truth, logits, k=3),
        "f_beta": fbeta_score(truth, logits > 0, beta=1, average="macro", zero_division=np.nan),
        "lwlrap": lwlrap(truth, logits),
    }
    assert {name: logged[f"val_{name}"] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert logged["val_auc"] != logged["val_mean_average_precision"] != logged["val_lrap"]


def test_metrics_of_an_epoch_that_was_interrupted_and_resumed_are_those_of_a_complete_one(
    measured, tmp_path, monkeypatch
):
    complete, _ = measured
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="after 1 epochs and 2 steps"):
        steps = iter(range(100))  # 4 per epoch
        interrupt = lambda callback, batch, logs=None: next(steps) == 5 and os.kill(os.getpid(), signal.SIGINT)
        patch.setattr(SaveState, "on_train_batch_begin", interrupt)
        fit(complete.experiment, tmp_path / "resumed")
    signal.signal(signal.SIGINT, before)
    resumed = fit(complete.experiment, tmp_path / "resumed")
    assert resumed.result(0, "curated")["resumed"]
    pd.testing.assert_frame_equal(resumed.history(), complete.history(), check_exact=True)


SOFTMAX = [f'stages.{stage}.loss={{"name": "categorical_crossentropy"}}' for stage in ("noisy", "curated")]


def test_a_softmax_trains_on_clips_with_one_label_and_keeps_all_columns(run, records, tiny, tmp_path):
    experiment = tiny("task=single_label", *SOFTMAX, *ONE_EPOCH)
    clips = clips_of(experiment, run, records)
    everything = clips_of(tiny(), run, records)
    assert set(clips["name"]) == {clip.name for clip in everything.itertuples() if "," not in clip.labels}
    assert 0 < len(clips) < len(everything)
    softmax = fit(experiment, tmp_path / "softmax")
    scores = pd.read_csv(softmax.stage_files(0, "curated").oof_scores(), index_col="name")
    assert scores.columns.tolist() == list(run.vocabulary)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)  # of one window, or the mean of several
    history = pd.read_csv(softmax.stage_files(0, "curated").history)
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    single = labels[scores.index][~labels[scores.index].str.contains(",")]
    losses = [-np.log(scores.loc[clip, label]) for clip, label in single.items()]
    assert 0 < len(single) < len(scores)
    np.testing.assert_allclose(history["val_loss"].iloc[-1], np.mean(losses), rtol=1e-4)


def test_accuracy_of_a_task_with_one_label_and_balanced_classes(tiny, records, tmp_path):
    options = ("task=single_label", *SOFTMAX, "model.filters=[8]", "stages.curated.class_weights=balanced")
    accuracy = 'metrics=[{"name": "categorical_accuracy"}, {"name": "binary_accuracy", "threshold": 0.2}]'
    run = fit(tiny(*options, accuracy, only("curated", tiny(*options))), tmp_path / "run")
    truth, logits = validation_predictions(run, records, "curated")
    single = truth.sum(axis=1) == 1  # validation clips have one label each
    logged = run.history().iloc[run.result(0, "curated")["best_epoch"]]
    accuracy = accuracy_score(truth[single].argmax(axis=1), logits[single].argmax(axis=1))
    assert logged["val_categorical_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert logged["val_binary_accuracy"] == pytest.approx(
        np.mean((expit(logits) > 0.2) == truth, where=single[:, None])
    )
    assert run.result(0, "curated")["monitor"] == "val_categorical_accuracy"


def test_each_head_trains_on_the_clips_of_its_subset(tiny, tmp_path, monkeypatch):
    groups = []
    keras_fit = Tagger.fit

    def record(tagger, batches, **options):
        groups.extend(split_groups(truth) for _, truth in batches)
        return keras_fit(tagger, batches, **options)

    monkeypatch.setattr(Tagger, "fit", record)
    both = ("noisy_head=true", "stages.noisy.epochs=1", 'stages.noisy.subset=["noisy", "curated"]')
    run = fit(tiny(*both, only("noisy", tiny(*both))), tmp_path / "run")
    labels, fractions = (np.concatenate(tensors) for tensors in zip(*groups))
    clips = pd.read_csv(run.stage_files(0, "noisy").training_clips)
    assert len(fractions) == len(clips) // 16 * 16
    assert 0 < fractions[:, 0].sum() < len(fractions)  # both heads were trained
    np.testing.assert_array_equal(labels.any(axis=2), fractions.astype(bool))


def test_an_epoch_of_draws_has_as_many_steps_as_the_stage_says(tiny, tmp_path):
    draws = 'stages.noisy.subset_sampling_weights={"noisy": 0.1, "curated": 0.9}'
    both = 'stages.noisy.subset=["curated","noisy"]'
    options = (both, draws, "stages.noisy.steps_per_epoch=3", "stages.noisy.class_balanced=true", *ONE_EPOCH)
    experiment = tiny(only("noisy", tiny(*options)))
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        keras_fit = Tagger.fit
        patch.setattr(Tagger, "fit", lambda *a, **k: steps.append(k["steps_per_epoch"]) or keras_fit(*a, **k))
        fit(experiment, tmp_path / "draws")
    assert steps == [3]


def test_a_stage_whose_learning_rate_is_far_too_large_warns_once(tiny, tmp_path, capsys):
    fit(tiny(only("noisy", tiny("stages.noisy.optimizer.learning_rate=1e6"))), tmp_path / "run")
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Warning: ")]
    assert re.fullmatch(
        r"Warning: noisy stage, fold 0: training diverges: the loss is \d\.\d+e\+\d+ after epoch 1, expected below "
        r"26\.39\. Lower stages\.noisy\.optimizer\.learning_rate and retrain with --restart\.",
        line,
    )


def test_only_the_last_epoch_may_be_validated_and_folds_may_be_predefined(tiny, tmp_path, recordings):
    source, _ = recordings(tmp_path / "clips", [8_000] * 48)
    source.clips["fold"] = [1 + index % 3 for index in range(48)]
    write_records(source, tmp_path / "records", sample_rate=16_000, workers=0)
    stage = json.loads(dump(tiny()))["stages"][1] | {"start_from": None, "epochs": 4, "validation_freq": 4}
    folds = 'validation={"folds": {"num_folds": 3, "by": "predefined", "held_out": [0, 2]}}'
    run = fit(tiny(f"records={tmp_path / 'records'}", f"stages={json.dumps([stage])}", folds), tmp_path / "run")
    predefined = source.clips.set_index("name")["fold"] - 1
    assert pd.read_csv(run.folds_file, index_col="name")["fold"].to_dict() == predefined.to_dict()
    history = pd.read_csv(run.stage_files(2, "curated").history)
    assert history["val_lwlrap"].notna().tolist() == [False, False, False, True]
    assert run.result(2, "curated")["best_epoch"] == 3
    clips, scores = out_of_fold_predictions(run)
    assert sorted(clips["name"]) == sorted(predefined.index[predefined != 1])
    overall, _ = evaluate(clips, scores, run.vocabulary)
    lwlraps = overall[overall["measure"] == "lwlrap"].set_index("split")["value"]
    assert lwlraps.index.tolist() == ["all", "fold 0", "fold 2"]
    for fold in (0, 2):
        assert lwlraps[f"fold {fold}"] == pytest.approx(run.result(fold, "curated")["value"])


def test_statistics_are_those_of_the_training_clips_and_saved_with_the_weights(tiny, records, tmp_path):
    adapted = 'image_preprocess=[{"name": "dataset_standardize", "per": "band"}]'
    experiment = tiny(adapted, "stages.noisy.batch_size=8", *ONE_EPOCH)
    run = fit(experiment, tmp_path / "adapted")
    clips = clips_of(experiment, run, records)
    noisy, curated = (load_tagger(run, 0, stage) for stage in ("noisy", "curated"))
    batches = training_batches(
        read_manifest(records), clips, np.zeros((len(clips), 1)), window_samples=noisy.window_samples,
        pad="repeat", batch_size=8, seed=experiment.seed, epochs=range(1),
    )  # fmt: skip
    (log_mel,) = (layer for layer in noisy.preprocessor.layers if isinstance(layer, LogMel))
    front_end = keras.Model(noisy.preprocessor.inputs[0], log_mel.output)
    spectrograms = np.concatenate([front_end(to_float(waveform)) for waveform, _ in batches])  # [clips, T, M]
    for tagger in (noisy, curated):
        (standardize,) = (layer for layer in tagger.preprocessor.layers if hasattr(layer, "adapt"))
        assert standardize.adapted
        np.testing.assert_allclose(np.ravel(standardize.mean), spectrograms.mean(axis=(0, 1)), rtol=1e-4, atol=1e-4)
