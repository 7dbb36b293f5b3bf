"""D: a training that diverges stops, damaged states are refused, and finished folds are not trained again."""

import dataclasses
import json
import resource
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from flips import bits, flipped

from audiotag.errors import ConfigError, DataError
from audiotag.models.windowing import to_float
from audiotag.runs.weights import save_weights
from audiotag.training import loop
from audiotag.training.state import load_state, save_state

HERE = Path(__file__).parent
FIT, KERAS, FLIPS = HERE / "fit_alone.py", HERE / "keras_alone.py", HERE / "flips_alone.py"


def network():
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(60), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 40)), np.zeros((2, 2)))
    return model


@pytest.mark.check("D10")
@pytest.mark.parametrize("limit", [0, 10, 100, 1_000, 5_000, 10_000, 20_000, 30_000, 45_000])
def test_if_weights_and_states_do_not_fit_on_the_disk_the_old_ones_stay(limit, tmp_path):
    model = network()
    save_weights(model, tmp_path / "best.weights.h5")
    save_state(tmp_path / "training_state.npz", model, [], [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(DataError, match="best.weights.h5: File too large: no partial file is left"):
            save_weights(model, tmp_path / "best.weights.h5")
        if limit < 20_000:
            with pytest.raises(DataError, match="state.npz: File too large: no partial file is left"):
                save_state(tmp_path / "training_state.npz", model, [], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def nan_waveforms(patch, bad):
    """The waveforms of step `bad`, from 0, are NaN."""
    batches = loop.training_batches

    def with_nan(*args, epochs, **options):
        dataset = batches(*args, epochs=epochs, **options)
        if len(epochs) == 1:  # the error message reads the names of the clips again
            return dataset
        return dataset.enumerate().map(
            lambda step, batch: (tf.where(step == bad, np.nan, to_float(batch[0])), batch[1])
        )

    patch.setattr(loop, "training_batches", with_nan)


def huge_learning_rate(patch, bad):
    """Before step `bad`, from 0, the weights become huge, so its loss is not finite."""
    save, steps = loop.SaveState.on_train_batch_end, iter(range(1, 1_000_000))

    def end(callback, batch, logs=None):
        if next(steps) == bad - 1:
            callback.model.optimizer.learning_rate.assign(1e38)
        save(callback, batch, logs)

    patch.setattr(loop.SaveState, "on_train_batch_end", end)


@pytest.mark.check("D6")
@pytest.mark.parametrize("fault", [nan_waveforms, huge_learning_rate])
def test_a_loss_of_nan_stops_training_and_keeps_what_was_saved(fault, tiny, monkeypatch, tier, tally, tmp_path):
    saved = {}
    overrides = ["model.filters=[8]", "stages.noisy.epochs=3", "stages.noisy.batch_size=8"]
    monkeypatch.setattr(loop, "_finish_stage", lambda *args: pytest.fail("training continued"))
    save = loop.SaveState.on_epoch_end

    def record(callback, epoch, logs=None):
        save(callback, epoch, logs)
        saved.update({path: path.read_bytes() for path in callback.path.parent.iterdir()})

    monkeypatch.setattr(loop.SaveState, "on_epoch_end", record)
    steps = {
        nan_waveforms: tier([6, 10], range(5, 15)),
        huge_learning_rate: tier([12], [6, 7, 8, 9, 11, 12, 13, 14, 6, 9]),
    }
    for number, bad in enumerate(steps[fault]):  # of 5 per epoch, in the second and third epoch
        with tally.trial(f"step {bad}"), monkeypatch.context() as patch:
            fault(patch, bad)
            saved.clear()
            folder = tmp_path / f"run{number}"
            with pytest.raises(ConfigError) as error:
                loop.fit(tiny(*overrides), folder, say=lambda sentence: None)
            message = str(error.value)
            assert f"the loss is nan in step {bad % 5 + 1} of epoch {bad // 5 + 1}, with the clips " in message
            names = message.split("with the clips ")[1].split(". What was saved")[0].split(", ")
            stage = folder / "fold-0" / "noisy"
            assert len(set(names)) == 8 and set(names) <= set(pd.read_csv(stage / "training_clips.csv")["name"])
            assert stage / "training_state.npz" in saved
            assert {path: path.read_bytes() for path in stage.iterdir()} == saved


@pytest.mark.check("D12")
def test_a_flipped_bit_of_a_training_state_is_found_or_harmless(tier, tally, tmp_path):
    model, path = network(), tmp_path / "training_state.npz"
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
    tally.say(f"{harmless} of the flipped bits of a state change nothing, such as dates and names in an archive")


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
def test_finished_folds_are_not_trained_again(tiny_file, start, tally, tmp_path):
    stage = json.loads(tiny_file.read_text())["stages"][0] | {"epochs": 1}
    folds = 'validation={"folds": {"num_folds": 5, "held_out": [0, 1, 2, 3, 4]}}'
    overrides = ["model.filters=[8]", f"stages={json.dumps([stage])}", folds]
    job = start(tiny_file, tmp_path / "run", *overrides, script=FIT)
    with tally.trial("killed in fold 3 of 5"):
        assert job.shows("noisy, fold 2 1/"), job.output()[-1000:]
        job.kill().wait()
        finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("result.json")}
        assigned = (tmp_path / "run" / "folds.csv").read_bytes()
        assert len(finished) >= 2
    with tally.trial("the end"):
        job = start(tiny_file, tmp_path / "run", *overrides, script=FIT)
        assert job.wait() == 0, job.output()[-1000:]
        assert {path: path.stat().st_mtime_ns for path in finished} == finished
        assert (tmp_path / "run" / "folds.csv").read_bytes() == assigned
        assert len(list((tmp_path / "run").rglob("result.json"))) == 5


# The same faults with Keras' callbacks and files


@pytest.mark.check("D6")
def test_nan_with_keras_callbacks_is_reported(start, tally, tmp_path):
    code, backup = start(tmp_path / "nan", "20", script=KERAS).wait(), tmp_path / "nan" / "backup"
    epochs = len((tmp_path / "nan" / "epochs.jsonl").read_text().split())
    weights = np.load(tmp_path / "nan" / "final.npz")
    bad = any(np.isnan(weights[name]).any() for name in weights.files)
    tally.say(
        f"Keras' TerminateOnNaN and BackupAndRestore: exit {code} after {epochs} epochs, without a step or clip; the "
        f"model is {'NaN' if bad else 'finite'}, the backup is {'kept' if backup.exists() else 'gone'}"
    )


@pytest.mark.check("D12")
def test_flipped_bits_in_keras_files_are_reported(start, tier, tally, tmp_path):
    job = start(tmp_path, tier(30, 1_000), script=FLIPS)
    code = job.wait(3_000)
    for line in job.output().splitlines():
        if line.startswith("flips "):
            tally.say(f"Keras: {line.removeprefix('flips ')}")
    assert code == 0, job.output()[-500:]
