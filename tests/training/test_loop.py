import dataclasses
import importlib
import json
import random
import re
import shutil
import subprocess
import time

import keras
import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import tensorflow as tf
from kills import Stopped, arrays_in, fit_command, run_until

from audiotag import files
from audiotag.config.loading import dump, load
from audiotag.crossval.label_selection import heard_clips
from audiotag.crossval.splits import training_clips
from audiotag.data.clips import read_clips
from audiotag.data.folds import stratified_folds
from audiotag.data.pipeline import training_batches
from audiotag.data.records.manifest import read_manifest
from audiotag.data.records.writing import write_records
from audiotag.data.sources.layouts import find_clips
from audiotag.data.synthetic import make_demo
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.evaluation.measures import evaluate
from audiotag.evaluation.scoring import held_out_answers, score_test_clips
from audiotag.layers import LogMel
from audiotag.metrics import lwlrap
from audiotag.models.label_groups import by_subset
from audiotag.models.tagger import Tagger
from audiotag.runs.building import build_tagger
from audiotag.runs.models import load_tagger
from audiotag.runs.weights import load_weights
from audiotag.training.callbacks import CheckRecords

module = importlib.import_module("audiotag.training.loop")  # not the function of the same name
ONE_EPOCH = ("stages.noisy.epochs=1", "stages.curated.epochs=1")


def fit(experiment, folder, **more):
    return module.fit(experiment, folder, say=lambda sentence: None, **more)


def only(stage, experiment):
    """The override that leaves one stage, which begins anew."""
    content = next(known for known in json.loads(dump(experiment))["stages"] if known["name"] == stage)
    return f"stages={json.dumps([content | {'start_from': None}])}"


@pytest.fixture
def again(run, tmp_path):
    """A copy of the trained run, to write into."""
    return shutil.copytree(run.folder, tmp_path / "again")


@pytest.fixture
def no_training(monkeypatch):
    """Training is a failure."""
    monkeypatch.setattr(Tagger, "fit", lambda *args, **options: pytest.fail("trained"))


def stop(*args, **options):
    raise Stopped


# What a run is


def test_a_run_holds_what_it_should(run):
    held = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    stage_files = {"history.csv", "best.weights.h5", "finished.json"}
    assert held >= {"experiment.json", "environment.json", "records.json", "folds.csv"}
    assert held >= {"fold-0/noisy/heard.csv", "fold-0/curated/heard.csv", "fold-0/curated/curated_scores.csv"}
    assert held >= {f"fold-0/{stage}/{name}" for stage in ("noisy", "curated") for name in stage_files}
    assert not [name for name in held if "unfinished" in name or "state" in name]


def test_its_experiment_is_the_one_that_was_asked_for(run, tiny):
    assert load(run.folder / "experiment.json") == tiny() == run.experiment


def test_its_folds_are_those_of_the_curated_clips(run, records):
    folds = pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]
    curated = read_clips(records / "clips.csv").query("subset == 'curated'").set_index("name", drop=False)
    expected = stratified_folds(curated, 5, seed=2019, groups="group")
    assert folds.to_dict() == expected.to_dict()
    assert sorted(folds.unique()) == [0, 1, 2, 3, 4]


def test_its_history_and_its_verdict_agree(run):
    for stage in ("noisy", "curated"):
        history = pd.read_csv(run.stage_folder(0, stage) / "history.csv")
        known = run.finished(0, stage)
        assert history.columns.tolist() == ["epoch", "loss", "lwlrap", "val_loss", "val_lwlrap"]
        assert history["epoch"].tolist() == [0, 1]
        assert known["epochs"] == 2
        assert known["val_lwlrap"] == pytest.approx(history["val_lwlrap"].max(), abs=1e-12)
        assert known["best_epoch"] == history["val_lwlrap"].idxmax()
        assert known["sha256"] == files.sha256(run.weights(0, stage))


def test_its_scores_out_of_fold_give_the_lwlrap_that_was_monitored(run, records):
    folds = pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]
    scores = pd.read_csv(run.stage_folder(0, "curated") / "curated_scores.csv", index_col="name")
    assert set(scores.index) == set(folds.index[folds == 0])
    assert scores.columns.tolist() == list(run.vocabulary)
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    truth = [[label in labels[name].split(",") for label in run.vocabulary] for name in scores.index]
    assert lwlrap(np.array(truth, int), scores.to_numpy()) == pytest.approx(run.finished(0, "curated")["val_lwlrap"])


# What a second call does


def test_a_second_call_does_nothing(run, tiny, no_training):
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != ".lock"}
    said, begun = [], time.perf_counter()
    assert module.fit(tiny(), run.folder, say=said.append) == run
    assert time.perf_counter() - begun < 2
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [sentence.split(",")[0] for sentence in said] == ["noisy stage", "curated stage"]
    assert re.fullmatch(
        r"curated stage, fold 0: lwlrap 0\.\d{4} on \d held-out curated clips, epoch [12] of 2\.", said[1]
    )


def test_another_experiment_in_its_directory_is_refused(again, tiny, no_training):
    with pytest.raises(
        DataError, match=r"again: was trained with another experiment than this one\. Give the run anoth"
    ):
        fit(tiny("seed=1"), again)
    with pytest.raises(DataError, match="again: was trained with another experiment"):
        fit(tiny("stages.curated.epochs=3"), again)


def test_other_records_are_refused(again, tiny, no_training):
    known = json.loads((again / "records.json").read_text())
    (again / "records.json").write_text(json.dumps(known | {"plan": "other"}))
    with pytest.raises(DataError, match=r"again: was trained on other records than .*demo: .*\. Give the run"):
        fit(tiny(), again)


@pytest.fixture
def replaced(demo, tmp_path):
    """A copy of the recordings of `records`, a folder of their records, a function that makes these of other audio."""
    shutil.copytree(demo, tmp_path / "recordings")
    options = {"sample_rate": 16_000, "workers": 0, "clips_per_shard": 16}
    write_records(find_clips(tmp_path / "recordings"), tmp_path / "records", **options)

    def replace():
        path = sorted((tmp_path / "recordings").rglob("*.wav"))[0]
        sound, rate = sf.read(path, dtype="int16")
        sf.write(path, sound[::-1], rate)
        write_records(find_clips(tmp_path / "recordings"), tmp_path / "records", overwrite=True, **options)

    return tmp_path / "records", replace


def test_records_made_of_other_audio_are_refused(again, tiny, replaced, no_training):
    folder, replace = replaced
    assert fit(tiny(), again).plan == read_manifest(folder).plan
    known = json.loads((again / "experiment.json").read_text())
    (again / "experiment.json").write_text(json.dumps(known | {"records": str(folder)}))
    fit(tiny(f"records={folder}"), again)
    replace()
    with pytest.raises(DataError, match=r"again: was trained on other records than .*: the audio of the rec"):
        fit(tiny(f"records={folder}"), again)


@pytest.mark.check("B5", 2)
def test_records_replaced_while_it_trains_end_it_before_the_epoch_is_kept(tiny, tmp_path, replaced, monkeypatch):
    folder, replace = replaced
    run, begun = tmp_path / "run", CheckRecords.on_epoch_begin

    def begin(callback, epoch, logs=None):
        begun(callback, epoch, logs)
        if epoch == 1:
            replace()

    monkeypatch.setattr(CheckRecords, "on_epoch_begin", begin)
    with pytest.raises(DataError, match="records: the records were replaced while they were in use: they had"):
        fit(tiny(f"records={folder}"), run)
    assert len(pd.read_csv(run / "fold-0" / "noisy" / "history.csv")) == 1
    monkeypatch.undo()
    with pytest.raises(DataError, match="was trained on other records than"):
        fit(tiny(f"records={folder}"), run)
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="and no complete records are there now"):
        CheckRecords(manifest).on_epoch_begin(0)


def test_restart_throws_the_old_run_away(again, tiny, monkeypatch):
    monkeypatch.setattr(Tagger, "fit", stop)
    (again / "left").write_text("from before")
    with pytest.raises(Stopped):
        fit(tiny("seed=1"), again, restart=True)
    assert not (again / "left").exists()
    assert not (again / "fold-0" / "noisy" / "finished.json").exists()
    assert load(again / "experiment.json").seed == 1


def test_restart_removes_nothing_but_a_run(tiny, tmp_path, monkeypatch):
    (tmp_path / "letters").write_text("dear")

    monkeypatch.setattr(Tagger, "fit", stop)
    with pytest.raises(Stopped):
        fit(tiny(), tmp_path, restart=True)
    assert (tmp_path / "letters").read_text() == "dear"


# What is trained on what


def weights_at_the_start(monkeypatch):
    """A list to which every stage adds the weights it begins with, and stops."""
    weights = []

    def note(tagger, *args, **options):
        weights.append(tagger.get_weights())
        raise Stopped

    monkeypatch.setattr(Tagger, "fit", note)
    return weights


@pytest.mark.check("D4")
def test_a_stage_begins_with_the_best_weights_of_the_one_it_names(again, tiny, monkeypatch):
    shutil.rmtree(again / "fold-0" / "curated")
    began_with = weights_at_the_start(monkeypatch)
    with pytest.raises(Stopped):
        fit(tiny(), again)
    best = build_tagger(tiny(), sample_rate=16_000, num_classes=14)
    load_weights(best, again / "fold-0" / "noisy" / "best.weights.h5")
    for ours, theirs in zip(began_with[0], best.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_stage_after_another_downloads_nothing_and_its_statistics_keep_their_memory(run, tiny, monkeypatch):
    def download(*args, **options):
        pytest.fail("downloaded")

    picture = 'picture=[{"name": "resize", "height": 32, "width": 32}, {"name": "repeat_channels"}]'
    begun_with = tiny(picture, 'model={"name": "mobilenet", "weights": "imagenet"}')
    monkeypatch.setattr("keras.src.applications.mobilenet.file_utils.get_file", download)
    monkeypatch.setattr("audiotag.runs.models.load_weights", lambda tagger, path: None)
    stage = begun_with.stages[1]
    tagger = module._compiled_tagger(dataclasses.replace(run, experiment=begun_with), 0, 1, stage, 1)
    layers = tagger.network.layers
    assert {layer.momentum for layer in layers if hasattr(layer, "momentum")} == {0.99}


def test_a_stage_that_names_none_begins_anew(again, tiny, monkeypatch):
    began_with = weights_at_the_start(monkeypatch)
    for folder, seed in ((again / "a", 1), (again / "b", 1), (again / "c", 2)):
        with pytest.raises(Stopped):
            fit(tiny(f"seed={seed}"), folder)
    a, b, c = began_with
    assert all(np.array_equal(x, y) for x, y in zip(a, b))
    assert any(not np.array_equal(x, y) for x, y in zip(a, c))


def test_one_fold_alone_and_what_it_holds_out_is_never_trained_on(tiny, tmp_path, monkeypatch):
    trained_on, judged_by = [], []
    batches, judge = module.training_batches, module.evaluation_batches

    def training_batches(manifest, clips, *args, **options):
        trained_on.append(set(clips["name"]))
        return batches(manifest, clips, *args, **options)

    def evaluation_batches(manifest, clips, **options):
        judged_by.append(set(clips["name"]))
        return judge(manifest, clips, **options)

    monkeypatch.setattr(module, "training_batches", training_batches)
    monkeypatch.setattr(module, "evaluation_batches", evaluation_batches)
    run = fit(tiny(*ONE_EPOCH), tmp_path / "run", fold=1)
    folds = pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]
    held_out = set(folds.index[folds == 1])
    assert judged_by == [held_out, held_out]
    assert [len(names) for names in trained_on] == [40, 40 - len(held_out)]
    assert trained_on[0].isdisjoint(folds.index)
    assert trained_on[1] == set(folds.index) - held_out
    assert [path.name for path in run.folder.glob("fold-*")] == ["fold-1"]
    assert run.trained_folds("curated") == [1]
    assert set(pd.read_csv(run.stage_folder(1, "curated") / "curated_scores.csv")["name"]) == held_out


def test_a_fold_that_does_not_exist_is_refused(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"there is no fold 5\. Accepted: 0 to 4\."):
        fit(tiny(), tmp_path / "run", fold=5)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        ("noisy", "holds no noisy clips for stage 'noisy', or none of a weight"),
        ("curated", "holds no curated clips, and some must be held out to judge by."),
    ],
)
def test_clips_that_are_not_there_are_an_error(tiny, tmp_path, monkeypatch, subset, message):
    without = lambda clips: clips[clips["subset"] != subset]
    monkeypatch.setattr(module, "read_clips", lambda path: without(read_clips(path)))
    with pytest.raises(DataError, match=message):
        fit(tiny(), tmp_path / "run")


def test_a_batch_that_clips_cannot_fill_is_an_error(tiny, tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"^stages\.noisy\.batch_size: 40 clips do not fill a batch of 64\. Give more clips or a smaller one\.",
    ):
        fit(tiny("stages.noisy.batch_size=64"), tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):  # mended, it trains
        patch.setattr(Tagger, "fit", stop)
        fit(tiny(), tmp_path / "run")


def test_a_setting_that_keras_refuses_is_named_by_its_place(tiny, tmp_path):
    callbacks = '[{"name": "ReduceLROnPlateau", "factor": 2}]'
    with pytest.raises(ConfigError, match=r"^stages\.noisy: ReduceLROnPlateau does not support a factor >= 1"):
        fit(tiny(f"stages.noisy.callbacks={callbacks}"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^stages\.noisy: label_smoothing must be from 0 to below 1"):
        fit(tiny("stages.noisy.loss.label_smoothing=2"), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.curated.loss.label_smoothing=2"], r"^stages\.curated: label_smoothing must be from 0 to below 1"),
        (['stages.curated.augment=[{"name": "time_mask", "max_width": -1}]'], r"^augment\[0\] time_mask: max_width"),
        (
            [
                'picture=[{"name": "resize", "height": 32, "width": 32}]',
                'stages.curated.subset=["curated", "noisy"]',
                'stages.curated.select={"rule": {"name": "ranked"}, "scored_by": "noisy"}',
                'stages.curated.select.predict={"windows": "whole"}',
            ],
            r'^stages\.curated\.select\.predict\.windows: "whole" needs pictures as long as their sound',
        ),
        (["corrections=nowhere.csv"], r"^nowhere\.csv: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_later_stage_is_told_before_the_first(tiny, tmp_path, overrides, message):
    with pytest.raises(AudiotagError, match=message):
        fit(tiny(*overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_experiment_does_not_throw_an_old_run_away(again, tiny):
    with pytest.raises(ConfigError, match="label_smoothing"):
        fit(tiny("stages.curated.loss.label_smoothing=2"), again, restart=True)
    assert (again / "fold-0" / "curated" / "finished.json").is_file()


def test_without_a_best_epoch_a_stage_ends_with_the_average_that_was_judged(tiny, tmp_path):
    averaged = ("stages.noisy.optimizer.use_ema=true", "stages.noisy.callbacks=[]", *ONE_EPOCH)
    experiment = tiny(*averaged, only("noisy", tiny(*averaged)))
    run = fit(experiment, tmp_path / "run")
    records = read_manifest(experiment.records)
    clips = read_clips(records.directory / "clips.csv")
    folds = pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]
    judges = clips[clips["name"].map(folds) == 0].reset_index(drop=True)
    truth = [[label in labels.split(",") for label in run.vocabulary] for labels in judges["labels"]]
    scores = pd.read_csv(run.stage_folder(0, "noisy") / "curated_scores.csv", index_col="name").loc[judges["name"]]
    assert lwlrap(np.array(truth, int), scores.to_numpy()) == pytest.approx(run.finished(0, "noisy")["val_lwlrap"])


def test_a_trunk_at_rate_nought_stays_as_it_began_statistics_included(again, tiny):
    shutil.rmtree(again / "fold-0" / "curated")
    experiment = tiny("stages.curated.trunk_rate=0.0")
    (again / "experiment.json").write_text(dump(experiment))
    fit(experiment, again)
    before, after = (arrays_in(again / "fold-0" / stage / "best.weights.h5") for stage in ("noisy", "curated"))
    kept = [name for name in before if not name.startswith("optimizer") and "seed_generator" not in name]
    changed = [before[name].shape for name in kept if np.any(before[name] != after[name])]
    assert len(kept) > 10
    assert sorted(changed) == [(14,), (16, 14)]  # the head


# What may go wrong while training


@pytest.mark.check("B4")
def test_a_damaged_shard_is_named(tiny, records, tmp_path):
    copy = shutil.copytree(records, tmp_path / "records")
    shard = next(shard for shard in read_manifest(copy).shards if shard.subset == "noisy")
    data = bytearray((copy / shard.file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / shard.file).write_bytes(data)
    whole = tf.data.TFRecordDataset(str(records / shard.file)).as_numpy_iterator()
    ends = np.cumsum([16 + len(record) for record in whole])
    damaged_clip = shard.clips[np.searchsorted(ends, len(data) // 2, side="right")]
    with pytest.raises(DataError) as error:
        fit(tiny(f"records={copy}"), tmp_path / "run")
    assert str(error.value) == (
        f"{copy / shard.file}: damaged: its SHA-256 is not the manifest's. "
        f"It holds 16 noisy clips, {shard.clips[0]} to {shard.clips[-1]}. "
        f"The first record that is not right is that of {damaged_clip}.\n"
        "Make the records anew with --overwrite."
    )


@pytest.mark.check("D6")
@pytest.mark.parametrize("callbacks", ['[{"name": "ModelCheckpoint"}]', "[]"])
def test_training_that_diverges_is_an_error(tiny, tmp_path, callbacks):
    wild = ("stages.noisy.optimizer.learning_rate=1e38", f"stages.noisy.callbacks={callbacks}")
    for _ in range(2):  # resumed it says the same
        with pytest.raises(
            ConfigError, match=r"fold-0/noisy: training diverged to NaN: the loss is nan in step 2 of epoch 1, with th"
        ):
            fit(tiny(*wild, *ONE_EPOCH), tmp_path / "run")
    assert not (tmp_path / "run" / "fold-0" / "noisy" / "finished.json").exists()


@pytest.mark.check("D1")
def test_what_a_kill_left_in_a_finished_stage_is_removed_later(again, tiny, no_training):
    stage, before = again / "fold-0" / "noisy", set(again.rglob("*"))
    for name in ("state.npz", "before-state.npz", "before-best.weights.h5", ".unfinished-1-curated_scores.csv"):
        (stage / name).write_bytes(b"no longer needed")
    for folder in (again, stage.parent, stage / "1"):
        (folder / ".unfinished-99-x" / "variables").mkdir(parents=True)
    fit(tiny(), again)
    assert set(again.rglob("*")) - before <= {again / ".lock", stage / "1"}


@pytest.mark.check("D3")
def test_stopped_early_and_killed_it_stays_stopped(tiny, tmp_path, monkeypatch):
    still = (
        "stages.noisy.epochs=9",
        "stages.noisy.optimizer.learning_rate=1e-30",
        'stages.noisy.callbacks=[{"name": "EarlyStopping", "monitor": "val_lwlrap", "min_delta": 0.5, "patience": 1}]',
    )

    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish_stage", stop)
        with pytest.raises(Stopped):
            fit(tiny(*still), tmp_path / "run")
    noisy = tmp_path / "run" / "fold-0" / "noisy"
    assert (noisy / "state.npz").exists() and not any((noisy / name).exists() for name in ("finished.json", "resumed"))

    monkeypatch.setattr(Tagger, "fit", stop)
    with pytest.raises(Stopped):  # by the next stage
        fit(tiny(*still), tmp_path / "run")
    known = json.loads((noisy / "finished.json").read_text())
    assert (known["epochs"], known["best_epoch"], known["weights"]) == (2, 1, "last.weights.h5")
    assert not (noisy / "state.npz").exists() and (noisy / "resumed").exists()


def test_half_precision_trains_and_keeps_small_gradients(tiny, tmp_path, monkeypatch):
    optimizers = []
    fit_stage = Tagger.fit

    def spy(tagger, *args, **options):
        optimizers.append(tagger.optimizer)
        return fit_stage(tagger, *args, **options)

    monkeypatch.setattr(Tagger, "fit", spy)
    run = fit(tiny("precision=mixed_float16", only("noisy", tiny(*ONE_EPOCH))), tmp_path / "run")
    assert [type(optimizer) for optimizer in optimizers] == [keras.optimizers.LossScaleOptimizer]
    assert run.finished(0, "noisy")["epochs"] == 1


def test_xla_trains_too(tiny, tmp_path):
    run = fit(tiny("xla=true", "deterministic=false", only("noisy", tiny(*ONE_EPOCH))), tmp_path / "run")
    assert np.isfinite(run.finished(0, "noisy")["val_lwlrap"])


# `kill -9`


def test_killed_in_training_and_before_the_export_it_ends_the_same(tiny_file, tmp_path):
    seed = random.randrange(1_000_000)
    print(f"moments drawn with seed {seed}")  # shown when the test fails
    dice = random.Random(seed)
    callbacks = [
        {"name": "CSVLogger"},
        {"name": "ModelCheckpoint"},
        {"name": "ReduceLROnPlateau", "patience": 1, "min_delta": 0.02, "factor": 0.7},
        {"name": "EarlyStopping", "monitor": "val_lwlrap", "patience": 8},
        {"name": "TensorBoard"},
    ]
    overrides = ["model.filters=[8]"] + [
        f"stages.{stage}.{part}"
        for stage in ("noisy", "curated")
        for part in ("epochs=10", f"callbacks={json.dumps(callbacks)}")
    ]
    overrides += [  # the second stage with a schedule in the plateau's place, and a moving average
        f"stages.curated.callbacks={json.dumps([part for part in callbacks if part['name'] != 'ReduceLROnPlateau'])}",
        'stages.curated.schedule={"name": "one_cycle"}',
        "stages.curated.optimizer.use_ema=true",
    ]
    subprocess.run(fit_command(tiny_file, tmp_path / "whole", overrides), check=True, capture_output=True)

    command = fit_command(tiny_file, tmp_path / "killed", overrides)
    an_epoch, the_last_stage = r"fold 0 \d+/10: loss", "^curated stage, fold 0"
    assert run_until(command, an_epoch, dice.randrange(1, 9), dice.uniform(0, 0.5)) == -9
    assert run_until(command, the_last_stage, 1, dice.uniform(0, 2)) == -9
    shutil.rmtree(tmp_path / "killed" / "saved_model", ignore_errors=True)
    (tmp_path / "killed" / "saved_model" / "variables").mkdir(parents=True)  # half a model, as older versions left it
    subprocess.run(command, check=True, capture_output=True)

    for stage in ("noisy", "curated"):
        whole, killed = (tmp_path / name / "fold-0" / stage for name in ("whole", "killed"))
        assert (whole / "history.csv").read_bytes() == (killed / "history.csv").read_bytes()
        ours, theirs = arrays_in(killed / "best.weights.h5"), arrays_in(whole / "best.weights.h5")
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("fold-0/curated/curated_scores.csv", "experiment.json", "folds.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert (tmp_path / "killed" / "saved_model" / "saved_model.pb").is_file()
    assert not list((tmp_path / "killed").rglob(".unfinished*"))


# Is it the labels that it learns from?


@pytest.fixture(scope="module")
def more_records(tmp_path_factory):
    """The records of enough clips to learn from."""
    folder = tmp_path_factory.mktemp("more")
    make_demo(folder / "demo", curated=140, noisy=1, test=70)
    write_records(find_clips(folder / "demo"), folder / "records", sample_rate=16_000, workers=0)
    return folder / "records"


@pytest.mark.parametrize(("shuffled", "least", "most"), [(False, 0.75, 1.0), (True, 0.0, 0.42)])
def test_shuffled_labels_teach_nothing(tiny, more_records, tmp_path, monkeypatch, shuffled, least, most):
    def read(path):
        clips = read_clips(path)
        train = clips["subset"] != "test"
        clips.loc[train, "labels"] = np.random.default_rng(1).permutation(clips.loc[train, "labels"])
        return clips

    if shuffled:
        monkeypatch.setattr(module, "read_clips", read)
    stages = only("curated", tiny("stages.curated.epochs=10", "stages.curated.optimizer.learning_rate=0.003"))
    run = fit(tiny(stages, f"records={more_records}", "augment=[]", "model.filters=[16,32,64]"), tmp_path / "run")
    overall, _ = evaluate(*score_test_clips(run), run.vocabulary)
    assert least <= overall["value"][0] <= most
    assert overall["chance"][0] < 0.3


# Which clips a stage hears, and who judges


def heard_by(experiment, again, records, held_out=0):
    run = dataclasses.replace(again, experiment=experiment)
    clips = training_clips(run, read_clips(records / "clips.csv"))
    return heard_clips(run, read_manifest(records), clips, held_out, experiment.stages[0])


def test_a_stage_may_hear_both_subsets_and_never_what_is_held_out(run, records, tiny):
    folds = pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"]
    heard = heard_by(tiny('stages.noisy.subset=["curated","noisy"]'), run, records)
    assert set(heard["subset"]) == {"curated", "noisy"}
    assert len(heard) == 40 + (folds != 0).sum()
    assert not set(heard["name"]) & set(folds.index[folds == 0])


SOFTMAX = [f'stages.{stage}.loss={{"name": "categorical_crossentropy"}}' for stage in ("noisy", "curated")]


def test_a_softmax_hears_clips_of_one_label_and_keeps_all_columns(run, records, tiny, tmp_path):
    experiment = tiny("labels=one", *SOFTMAX, *ONE_EPOCH)
    heard = heard_by(experiment, run, records)
    everything = heard_by(tiny(), run, records)
    assert set(heard["name"]) == {clip.name for clip in everything.itertuples() if "," not in clip.labels}
    assert 0 < len(heard) < len(everything)
    softmax = fit(experiment, tmp_path / "softmax")
    scores = pd.read_csv(softmax.stage_folder(0, "curated") / "curated_scores.csv", index_col="name")
    assert scores.columns.tolist() == list(run.vocabulary)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)  # one window or a mean of several: shares of one label
    history = pd.read_csv(softmax.stage_folder(0, "curated") / "history.csv")
    labels = read_clips(records / "clips.csv").set_index("name")["labels"]
    judges = labels[scores.index][~labels[scores.index].str.contains(",")]
    losses = [-np.log(scores.loc[clip, label]) for clip, label in judges.items()]
    assert 0 < len(judges) < len(scores)
    np.testing.assert_allclose(history["val_loss"].iloc[-1], np.mean(losses), rtol=1e-4)


def test_each_head_hears_the_clips_of_its_subset(tiny, tmp_path, monkeypatch):
    asked = []
    learns = Tagger.fit

    def listening(tagger, batches, **options):
        asked.extend(by_subset(truth) for _, truth in batches)
        return learns(tagger, batches, **options)

    monkeypatch.setattr(Tagger, "fit", listening)
    both = ("noisy_head=true", "stages.noisy.epochs=1", 'stages.noisy.subset=["noisy", "curated"]')
    headed = fit(tiny(*both, only("noisy", tiny(*both))), tmp_path / "headed")
    labels, share = (np.concatenate(tensors) for tensors in zip(*asked))
    heard = pd.read_csv(headed.stage_folder(0, "noisy") / "heard.csv")
    assert len(share) == len(heard) // 16 * 16
    assert 0 < share[:, 0].sum() < len(share)  # both heads were asked
    np.testing.assert_array_equal(labels.any(axis=2), share.astype(bool))


def test_an_epoch_of_draws_has_as_many_steps_as_asked(tiny, tmp_path):
    draws = 'stages.noisy.shares={"noisy": 0.1, "curated": 0.9}'
    both = 'stages.noisy.subset=["curated","noisy"]'
    experiment = tiny(both, draws, "stages.noisy.steps=3", "stages.noisy.balanced=true", *ONE_EPOCH)
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        whole = Tagger.fit
        patch.setattr(Tagger, "fit", lambda *a, **k: steps.append(k["steps_per_epoch"]) or whole(*a, **k))
        fit(experiment, tmp_path / "draws")
    assert steps[0] == 3


def test_judges_may_come_only_at_the_end_and_folds_may_be_official(tiny, tmp_path, recordings):
    source, _ = recordings(tmp_path / "clips", [8_000] * 48)
    source.clips["fold"] = [1 + index % 3 for index in range(48)]
    write_records(source, tmp_path / "records", sample_rate=16_000, workers=0)
    stage = json.loads(dump(tiny()))["stages"][1] | {"start_from": None, "epochs": 4, "validation_freq": 4}
    folds = 'folds={"count": 3, "by": "official", "held_out": [0, 2]}'
    run = fit(tiny(f"records={tmp_path / 'records'}", f"stages={json.dumps([stage])}", folds), tmp_path / "run")
    official = source.clips.set_index("name")["fold"] - 1
    assert pd.read_csv(run.folder / "folds.csv", index_col="name")["fold"].to_dict() == official.to_dict()
    history = pd.read_csv(run.stage_folder(2, "curated") / "history.csv")
    assert history["val_lwlrap"].notna().tolist() == [False, False, False, True]
    assert run.finished(2, "curated")["best_epoch"] == 3
    clips, scores = held_out_answers(run)
    assert sorted(clips["name"]) == sorted(official.index[official != 1])
    overall, _ = evaluate(clips, scores, run.vocabulary)
    lwlraps = overall[overall["measure"] == "lwlrap"].set_index("part")["value"]
    assert lwlraps.index.tolist() == ["all", "fold 0", "fold 2"]
    for part in (0, 2):
        assert lwlraps[f"fold {part}"] == pytest.approx(run.finished(part, "curated")["val_lwlrap"])


def test_statistics_are_those_of_the_training_clips_and_stay_with_the_weights(tiny, records, tmp_path):
    adapted = 'picture=[{"name": "adapted_standardise", "per": "band"}]'
    experiment = tiny(adapted, "stages.noisy.batch_size=8", *ONE_EPOCH)
    run = fit(experiment, tmp_path / "adapted")
    heard = heard_by(experiment, run, records)
    noisy, curated = (load_tagger(run, 0, stage) for stage in ("noisy", "curated"))
    batches = training_batches(
        read_manifest(records), heard, np.zeros((len(heard), 1)), window_samples=noisy.window_samples,
        short_clips="repeat", batch_size=8, seed=experiment.seed, epochs=range(1),
    )  # fmt: skip
    (log_mel,) = (layer for layer in noisy.ear.layers if isinstance(layer, LogMel))
    front_end = keras.Model(noisy.ear.inputs[0], log_mel.output)
    spectrograms = np.concatenate([front_end(waveform) for waveform, _ in batches])  # [clips, T, M]
    for tagger in (noisy, curated):
        (step,) = (layer for layer in tagger.ear.layers if hasattr(layer, "adapt"))
        assert step.adapted
        np.testing.assert_allclose(np.ravel(step.mean), spectrograms.mean(axis=(0, 1)), rtol=1e-4, atol=1e-4)
