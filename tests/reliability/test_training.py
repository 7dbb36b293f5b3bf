"""D: a training that diverges stops, a damaged state is refused, and folds that are done stay so."""

import dataclasses
import importlib
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
from audiotag.runs.weights import save_weights
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
def test_weights_and_states_that_find_no_room_are_refused_and_the_old_ones_stay(limit, tmp_path):
    model = network()
    save_weights(model, tmp_path / "best.weights.h5")
    save_state(tmp_path / "state.npz", model, [], [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    others = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, others[1]))
    try:
        with pytest.raises(DataError, match="best.weights.h5: File too large: nothing half-written is left"):
            save_weights(model, tmp_path / "best.weights.h5")
        if limit < 20_000:
            with pytest.raises(DataError, match="state.npz: File too large: nothing half-written is left"):
                save_state(tmp_path / "state.npz", model, [], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, others)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


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
    module, saved = importlib.import_module("audiotag.training.loop"), {}
    told = ["model.filters=[8]", "stages.noisy.epochs=3", "stages.noisy.batch_size=8"]
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
                module.fit(tiny(*told), folder, say=lambda sentence: None)
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
