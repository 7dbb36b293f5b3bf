"""D: NaN, flipped bits and folds in a training, and what Keras' own callbacks make of kills."""

import dataclasses
import importlib
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from flips import bits, flipped
from trainings import FIT, FLIPS, KERAS, OVERRIDES, moments, network, polled

from audiotag.errors import ConfigError, DataError
from audiotag.training.checkpoint import load_state, save_state


def broken_clip(module, patch, bad):
    """From now on the sound of step `bad`, from 0, is NaN."""
    batches = module.training_batches

    def broken(*args, epochs, **more):
        whole = batches(*args, epochs=epochs, **more)
        if len(epochs) == 1:  # those that are named
            return whole
        return whole.enumerate().map(lambda step, batch: (tf.where(step == bad, np.nan, batch[0]), batch[1]))

    patch.setattr(module, "training_batches", broken)


def huge_rate(module, patch, bad):
    """After step `bad - 1` the weights are beyond all bounds, and so is the loss of step `bad`, from 0."""
    begin, steps = module.SaveState.on_train_batch_end, iter(range(1, 1_000_000))

    def end(callback, batch, logs=None):
        if next(steps) == bad - 1:
            callback.model.optimizer.learning_rate.assign(1e38)
        begin(callback, batch, logs)

    patch.setattr(module.SaveState, "on_train_batch_end", end)


@pytest.mark.check("D6")
@pytest.mark.parametrize("hurt", [broken_clip, huge_rate])
def test_a_loss_of_nan_stops_training_and_what_was_saved_stays(hurt, tiny, monkeypatch, tier, tally, tmp_path):
    module, saved = importlib.import_module("audiotag.training.fit"), {}
    monkeypatch.setattr(module, "_finish_stage", lambda *args: pytest.fail("it went on"))
    save = module.SaveState.on_epoch_end

    def note(callback, epoch, logs=None):
        save(callback, epoch, logs)
        saved.update({path: path.read_bytes() for path in callback.path.parent.iterdir()})

    monkeypatch.setattr(module.SaveState, "on_epoch_end", note)
    steps = {broken_clip: tier([6, 9, 10], range(5, 15)), huge_rate: tier([7, 12], [6, 7, 8, 9, 11, 12, 13, 14, 6, 9])}
    for number, bad in enumerate(steps[hurt]):  # of 5 an epoch, in the second and third epoch
        with tally.trial(f"step {bad}"), monkeypatch.context() as patch:
            hurt(module, patch, bad)
            saved.clear()
            folder = tmp_path / f"run{number}"
            with pytest.raises(ConfigError) as error:
                module.fit(tiny(*OVERRIDES), folder, say=lambda sentence: None)
            said = str(error.value)
            assert f"the loss is nan in step {bad % 5 + 1} of epoch {bad // 5 + 1}, with the clips " in said
            names = said.split("with the clips ")[1].split(". What was saved")[0].split(", ")
            stage = folder / "fold-0" / "noisy"
            assert len(set(names)) == 8 and set(names) <= set(pd.read_csv(stage / "heard.csv")["name"])
            assert stage / "state.npz" in saved and {path: path.read_bytes() for path in stage.iterdir()} == saved


@pytest.mark.check("D12")
def test_a_flipped_bit_of_a_state_is_found_or_says_nothing(tier, tally, tmp_path):
    model, path = network(), tmp_path / "state.npz"
    save_state(path, model, [], [{"loss": 1.0}])
    expected, harmless = load_state(path, model), 0
    variables = [*model.variables, *model.optimizer.variables]
    numbers = [np.array(variable) for variable in variables]
    content = path.read_bytes()
    for bit in bits(content, count=tier(200, 5_000)):
        path.write_bytes(flipped(content, bit))
        with tally.trial(f"bit {bit}"):
            try:
                assert load_state(path, model) == expected
            except DataError as error:
                assert "state.npz: the training state is damaged" in str(error)
            else:
                harmless += 1
            assert all(map(np.array_equal, variables, numbers))
    tally.say(f"{harmless} of the flipped bits of a state say nothing, as dates and names in an archive do")


@pytest.mark.check("D12")
def test_a_flipped_bit_of_the_weights_of_a_run_is_found(run, tier, tally, tmp_path):
    copy = dataclasses.replace(run, folder=shutil.copytree(run.folder, tmp_path / "copy"))
    path = copy.weights(0, "curated")
    content = path.read_bytes()
    for bit in bits(content, count=tier(200, 5_000)):
        path.write_bytes(flipped(content, bit))
        with tally.trial(f"bit {bit}"), pytest.raises(DataError, match="best.weights.h5: missing or damaged"):
            copy.weights(0, "curated")


@pytest.mark.check("D9")
def test_folds_that_are_done_are_not_trained_again(tiny_file, start, tally, tmp_path):
    stage = json.loads(tiny_file.read_text())["stages"][0] | {"epochs": 1}
    folds = 'folds={"count": 5, "held_out": [0, 1, 2, 3, 4]}'
    overrides = ["model.filters=[8]", f"stages={json.dumps([stage])}", folds]
    job = start(tiny_file, tmp_path / "run", *overrides, script=FIT)
    with tally.trial("killed in fold 3 of 5"):
        assert job.shows("noisy, fold 2 1/"), job.output()[-1000:]
        job.kill().wait()
        done = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("finished.json")}
        dealt = (tmp_path / "run" / "folds.csv").read_bytes()
        assert len(done) >= 2
    with tally.trial("the end"):
        job = start(tiny_file, tmp_path / "run", *overrides, script=FIT)
        assert job.wait() == 0, job.output()[-1000:]
        assert {path: path.stat().st_mtime_ns for path in done} == done
        assert (tmp_path / "run" / "folds.csv").read_bytes() == dealt
        assert len(list((tmp_path / "run").rglob("finished.json"))) == 5


# The same for Keras alone


def keras_series(start, folder, faults, double=""):
    """What becomes of Keras' own callbacks: [resumes that crashed, epochs trained twice, whether the end differs]."""
    crashed = 0
    for fault in [*faults, {}]:
        for _ in range(2):
            options = fault and {"folder": folder, **fault}
            code = start(folder, "", double, script=KERAS, **options).wait()
            if code == 1:  # neither killed nor done
                crashed += 1
                shutil.rmtree(folder / "backup", ignore_errors=True)  # what a user does then
                (folder / "epochs.jsonl").unlink(missing_ok=True)
                continue
            break
    epochs = [int(line) for line in (folder / "epochs.jsonl").read_text().split()]
    return crashed, len(epochs) - len(set(epochs)), np.load(folder / "final.npz")


@pytest.mark.check("D1")
@pytest.mark.parametrize("double", ["", "double_checkpoint"])
def test_killed_training_as_keras_callbacks_take_it(start, tier, tally, tmp_path, double):
    count = tmp_path / "count"
    folder = tmp_path / "whole"
    assert start(folder, "", double, script=KERAS, folder=folder, report=count).wait() == 0
    expected, operations = np.load(folder / "final.npz"), int(count.read_text())
    kinds = ["kill", "kill", "kill at byte 300", "kill at byte 100000"]
    crashed = twice = different = series = 0
    with polled("best.weights.h5", tmp_path) as reads:
        for number in range(tier(2, 25)):
            faults = moments(max(operations, 3), 2, number, kinds)
            more = keras_series(start, tmp_path / f"run{number}", faults, double)
            crashed, twice, series = crashed + more[0], twice + more[1], series + 1
            different += any(not np.array_equal(more[2][name], expected[name]) for name in expected.files)
    tally.say(
        f"Keras' BackupAndRestore{' with double_checkpoint' * bool(double)}: of {series} trainings killed twice, "
        f"{different} end with other weights; {crashed} resumes crash, {twice} epochs are trained twice; "
        f"ModelCheckpoint's best could not be read {reads[1]} of {reads[0]} times"
    )


@pytest.mark.check("D6")
def test_nan_as_keras_callbacks_take_it(start, tally, tmp_path):
    code, backup = start(tmp_path / "nan", "20", script=KERAS).wait(), tmp_path / "nan" / "backup"
    epochs = len((tmp_path / "nan" / "epochs.jsonl").read_text().split())
    weights = np.load(tmp_path / "nan" / "final.npz")
    bad = any(np.isnan(weights[name]).any() for name in weights.files)
    tally.say(
        f"Keras' TerminateOnNaN and BackupAndRestore: exit {code} after {epochs} epochs, without a step or clip; the "
        f"model is {'NaN' if bad else 'finite'}, the backup is {'kept' if backup.exists() else 'gone'}"
    )


@pytest.mark.check("D12")
def test_flipped_bits_as_keras_takes_them(start, tier, tally, tmp_path):
    job = start(tmp_path, tier(30, 1_000), script=FLIPS)
    code = job.wait(3_000)
    for line in job.output().splitlines():
        if line.startswith("flips "):
            tally.say(f"Keras: {line.removeprefix('flips ')}")
    assert code == 0, job.output()[-500:]
