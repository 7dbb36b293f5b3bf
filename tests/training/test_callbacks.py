import os
import re
import signal
import sys

import keras
import numpy as np
import pandas as pd
import pytest

from audiotag.data.pipeline import Stopwatch
from audiotag.errors import ConfigError, DataError
from audiotag.runs import weights
from audiotag.runs.directory import previous
from audiotag.training.callbacks import (
    CALLBACKS,
    CSVLogger,
    ModelCheckpoint,
    Progress,
    SaveState,
    StopAtNan,
    WarnAtDivergence,
    signals_save,
)
from audiotag.training.state import INITIAL, load_state


def bare_network(seed):
    keras.utils.set_random_seed(seed)
    layers = keras.Input((4,)), keras.layers.Dense(6), keras.layers.Dropout(0.5), keras.layers.Dense(2)
    return keras.Sequential(layers)


def network():
    """A compiled network; its few steps are faster than tracing one."""
    model = bare_network(seed=0)
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
    return model


class LogValues(keras.callbacks.Callback):
    """Puts given values into the logs, one per epoch."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_lwlrap"] = logs["val_loss"] = self.values[epoch]


def after_each(model, callback, values):
    """Passes values of val_lwlrap to a callback; the weights are filled with the number of the epoch."""
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(values):
        model.set_weights([np.full_like(weight, epoch) for weight in model.get_weights()])
        callback.on_epoch_end(epoch, {"loss": 1.0, "val_lwlrap": value})


def kept_weights(folder):
    model = bare_network(seed=1)
    weights.load_weights(model, folder / "best.weights.h5")
    return model.get_weights()


def kept_epoch(folder):
    return kept_weights(folder)[0][0, 0]


# ModelCheckpoint


@pytest.mark.parametrize(
    ("mode", "values", "best"),
    [
        ("max", [0.5, 0.7, 0.6, 0.7], 1),
        ("max", [0.5, 0.4, 0.3], 0),
        ("max", [float("nan"), 0.4, float("nan"), 0.6, float("inf")], 3),
        ("min", [0.5, 0.7, 0.3, 0.3, float("-inf")], 2),
        ("auto", [0.5, 0.7, 0.6, 0.7], 1),
    ],
)
def test_the_weights_of_the_best_epoch_are_kept(tmp_path, mode, values, best):
    callback = ModelCheckpoint(tmp_path / "best.weights.h5", mode=mode)
    after_each(network(), callback, values)
    assert kept_epoch(tmp_path) == best
    assert (callback.best_epoch, callback.best) == (best, values[best])


def test_the_lowest_loss_is_best_unless_the_mode_is_given(tmp_path):
    assert ModelCheckpoint(tmp_path / "best.weights.h5", monitor="val_loss").mode == "min"
    assert ModelCheckpoint(tmp_path / "best.weights.h5", monitor="val_loss", mode="max").mode == "max"


def test_an_epoch_that_is_no_better_leaves_the_file_alone(tmp_path):
    path = tmp_path / "best.weights.h5"
    callback = ModelCheckpoint(path)
    after_each(network(), callback, [0.5])
    before = path.stat()
    callback.on_epoch_end(1, {"val_lwlrap": 0.5})
    assert path.stat() == before


@pytest.mark.check("D2")
def test_a_save_that_dies_in_the_middle_leaves_the_old_best(tmp_path, monkeypatch):
    path, model = tmp_path / "best.weights.h5", network()
    callback = ModelCheckpoint(path)
    after_each(model, callback, [0.5])

    def die(unfinished):
        unfinished.write_bytes(path.read_bytes()[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save_weights", die)
    with pytest.raises(KeyboardInterrupt):
        callback.on_epoch_end(1, {"val_lwlrap": 0.9})
    assert kept_epoch(tmp_path) == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.check("D2")
@pytest.mark.parametrize("kept", [0, 1])
def test_after_a_kill_before_the_state_the_weights_that_it_names_are_restored(tmp_path, kept):
    callback, model = ModelCheckpoint(tmp_path / "best.weights.h5"), network()
    after_each(model, callback, [0.5])
    saved = callback.get_state()
    if kept == 0:
        after_each(model, callback, [0.5, 0.6])  # the state has only 0.5
        assert previous(tmp_path / "best.weights.h5").is_file()
    callback.set_state(saved)
    assert kept_epoch(tmp_path) == 0
    (tmp_path / "best.weights.h5").write_bytes(b"damaged")
    with pytest.raises(DataError, match="best.weights.h5: missing or damaged: its SHA-256 is not that in the training"):
        callback.set_state(saved)


def test_a_checkpoint_returns_the_state_that_it_was_given_and_keeps_its_path(tmp_path):
    callback, other = (ModelCheckpoint(tmp_path / "best.weights.h5") for _ in range(2))
    after_each(network(), callback, [0.5, 0.7])
    other.set_state(callback.get_state())
    assert other.get_state() == callback.get_state()
    assert (other.best, other.best_epoch, other.path) == (0.7, 1, str(tmp_path / "best.weights.h5"))


def test_a_monitor_or_a_mode_that_is_unknown_is_refused(tmp_path):
    with pytest.raises(ValueError, match='mode must be "auto", "max" or "min". Received: mode=\'most\''):
        ModelCheckpoint(tmp_path / "best.weights.h5", mode="most")
    callback = ModelCheckpoint(tmp_path / "best.weights.h5", monitor="val_lwrap")
    with pytest.raises(ValueError, match="monitor must be one of loss, val_lwlrap. Received: monitor='val_lwrap'"):
        after_each(network(), callback, [0.5])


# CSVLogger


def test_each_epoch_has_a_row(tmp_path):
    logger = CSVLogger(tmp_path / "history.csv")
    data = np.random.default_rng(0).normal(size=(32, 4)), np.zeros((32, 2))
    history = network().fit(*data, validation_data=data, epochs=3, callbacks=[logger], verbose=0).history
    table = pd.read_csv(tmp_path / "history.csv")
    assert table.columns.tolist() == ["epoch", "loss", "val_loss"]
    assert table["epoch"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(table["val_loss"], history["val_loss"], rtol=1e-12)


def test_the_history_is_complete_after_every_epoch(tmp_path):
    logger = CSVLogger(tmp_path / "history.csv")
    for epoch in range(3):
        logger.on_epoch_end(epoch, {"loss": np.float32(0.5), "val_lwlrap": 0.25 * epoch})
        lines = (tmp_path / "history.csv").read_text().splitlines()
        assert lines == ["epoch,loss,val_lwlrap", "0,0.5,0.0", "1,0.5,0.25", "2,0.5,0.5"][: epoch + 2]


# StopAtNan


@pytest.mark.check("D6")
@pytest.mark.parametrize(("step", "bad"), [(0, np.nan), (3, np.inf), (7, np.nan), (11, np.nan)])
def test_a_loss_that_is_not_finite_stops_within_a_step_and_names_step_and_clips(tmp_path, step, bad):
    inputs, truth = np.random.default_rng(0).normal(size=(2, 12, 4))
    inputs[step] = bad
    seen = []
    stop_at_nan = StopAtNan(tmp_path, 0, lambda epoch, step: [f"{epoch}-{step}.wav", "b.wav"])
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    late = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: pytest.fail("saved"))
    with pytest.raises(ConfigError, match=rf"in step {step + 1} of epoch 3, with the clips 2-{step}.wav, b.wav."):
        network().fit(
            inputs, truth[:, :2], batch_size=1, shuffle=False, callbacks=[stop_at_nan, count, late], verbose=0,
            epochs=3, initial_epoch=2, validation_data=(inputs[:1], truth[:1, :2]),
        )  # fmt: skip
    assert len(seen) <= step + 1


@pytest.mark.check("D6")
def test_weights_that_are_not_finite_after_the_last_step_are_not_saved(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[-1].bias.assign([np.nan, 0.0])

    path, data = tmp_path / "training_state.npz", np.random.default_rng(0).normal(size=(8, 4))
    callbacks = [Break(), SaveState(path, [], INITIAL)]
    with pytest.raises(ConfigError, match="training diverged to NaN: a weight is NaN or infinite after epoch 2. What"):
        network().fit(data, data[:, :2], epochs=3, callbacks=callbacks, verbose=0)
    assert load_state(path, network())["epochs_done"] == 1


# SaveState, and Keras' callbacks after a resume

VALUES = [0.50, 0.51, 0.495, 0.60, 0.61, 0.40, 0.42, 0.41, 0.43, 0.44]


def callbacks_in(folder):
    """Callbacks whose state decides what happens next, or what is left at the end."""
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2, min_delta=0.01, cooldown=1),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=4, min_delta=0.01),
        ModelCheckpoint(folder / "best.weights.h5", monitor="val_loss", mode="min"),
        CSVLogger(folder / "history.csv"),
    ]


def fit(folder, *, until):
    """Trains up to an epoch, from the state in the folder if there is one."""
    folder.mkdir(exist_ok=True)
    model, callbacks, path = network(), callbacks_in(folder), folder / "training_state.npz"
    metadata = load_state(path, model) if path.is_file() else INITIAL
    inputs, truth = np.random.default_rng(0).normal(size=(2, 16, 4))
    if not metadata["stop_training"]:
        model.fit(
            inputs,
            truth[:, :2],
            epochs=until,
            initial_epoch=metadata["epochs_done"],
            shuffle=False,
            callbacks=[LogValues(VALUES), *callbacks, SaveState(path, callbacks, metadata)],
            verbose=0,
        )
    return model


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """The model of a training that was not stopped, and its folder."""
    folder = tmp_path_factory.mktemp("complete")
    return fit(folder, until=10), folder


@pytest.mark.check("D3")
@pytest.mark.parametrize("stops", [[1], [3], [5], [1, 2, 3, 4, 5, 6, 7]])
def test_stopped_and_resumed_training_ends_with_the_same_files(complete, tmp_path, stops):
    model, folder = complete
    for stop in stops:
        fit(tmp_path / "resumed", until=stop)
    resumed = fit(tmp_path / "resumed", until=10)
    for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(kept_weights(folder), kept_weights(tmp_path / "resumed"), strict=True):
        np.testing.assert_array_equal(a, b)
    history = (folder / "history.csv").read_bytes()
    assert (tmp_path / "resumed" / "history.csv").read_bytes() == history
    assert float(model.optimizer.learning_rate) == float(resumed.optimizer.learning_rate) < 0.01
    assert len(history.splitlines()) < 11  # stopped early, both


@pytest.mark.check("D3")
def test_training_that_stopped_early_stays_stopped(tmp_path):
    fit(tmp_path, until=10)
    before = (tmp_path / "training_state.npz").read_bytes()
    fit(tmp_path, until=10)
    assert (tmp_path / "training_state.npz").read_bytes() == before


def test_a_run_that_was_moved_continues_in_its_new_place(tmp_path):
    fit(tmp_path / "here", until=2)
    (tmp_path / "here").rename(tmp_path / "there")
    fit(tmp_path / "there", until=4)
    assert not (tmp_path / "here").exists()
    assert len(pd.read_csv(tmp_path / "there" / "history.csv")) == 4


def test_tensorboard_continues_too(tmp_path):
    for until in (2, 4):
        model, path = network(), tmp_path / "training_state.npz"
        callbacks = [CALLBACKS["TensorBoard"](log_dir=str(tmp_path / "tensorboard"), update_freq="batch")]
        metadata = load_state(path, model) if path.is_file() else INITIAL
        inputs, truth = np.zeros((16, 4)), np.zeros((16, 2))
        model.fit(
            inputs,
            truth,
            epochs=until,
            initial_epoch=metadata["epochs_done"],
            validation_data=(inputs, truth),
            callbacks=[*callbacks, SaveState(path, callbacks, metadata)],
            verbose=0,
        )
    assert list((tmp_path / "tensorboard").rglob("events*"))
    assert load_state(path, network())["epochs_done"] == 4


STOPS = {signal.SIGTERM: (SystemExit, "SIGTERM"), signal.SIGINT: (KeyboardInterrupt, "Ctrl-C (SIGINT)")}


@pytest.fixture
def handlers():
    """The handlers before the test; that of Ctrl-C as in a terminal, since shells ignore it in background jobs."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield {number: signal.getsignal(number) for number in STOPS}
    signal.signal(signal.SIGINT, usual)


def fit_with_signal(save, stop_signal, step):
    """Trains 3 epochs of 4 steps; the signal comes in a step of the first epoch."""

    class Ask(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == step:
                os.kill(os.getpid(), stop_signal)

    data = np.random.default_rng(0).normal(size=(16, 4))
    network().fit(data, data[:, :2], batch_size=4, epochs=3, callbacks=[Ask(), save], verbose=0)


@pytest.mark.check("D5")
@pytest.mark.parametrize("stop_signal", STOPS)
@pytest.mark.parametrize("step", [0, 2, 3])
def test_a_signal_lets_the_step_end_saves_and_stops(tmp_path, capsys, handlers, step, stop_signal):
    save = SaveState(tmp_path / "training_state.npz", [], INITIAL)
    stops, name = STOPS[stop_signal]
    with pytest.raises(stops) as stopped, signals_save(save):
        fit_with_signal(save, stop_signal, step)
    assert {number: signal.getsignal(number) for number in STOPS} == handlers
    metadata, steps = load_state(tmp_path / "training_state.npz", network()), step + 1
    # After the last step of an epoch, the epoch is completed.
    assert (metadata["epochs_done"], metadata["steps_done"]) == ((1, 0) if steps == 4 else (0, steps))
    message = (
        f"Stopped by {name} after {steps // 4} epochs and {steps % 4} steps; all is saved. "
        f"The same command continues from there."
    )
    assert capsys.readouterr().err == f"{message}\n"
    assert stopped.value.args == ((143,) if stops is SystemExit else (message,))


@pytest.mark.check("D5")
@pytest.mark.parametrize("stop_signal", STOPS)
def test_a_signal_after_the_last_step_stops_too(tmp_path, handlers, stop_signal):
    save = SaveState(tmp_path / "training_state.npz", [], INITIAL)
    with pytest.raises(STOPS[stop_signal][0]), signals_save(save):
        fit_with_signal(save, stop_signal, step=None)
        os.kill(os.getpid(), stop_signal)
    assert load_state(tmp_path / "training_state.npz", network())["epochs_done"] == 3


@pytest.mark.check("D5")
def test_a_second_ctrl_c_while_saving_stops_at_once_and_keeps_the_state_before(tmp_path, handlers, monkeypatch, capsys):
    path = tmp_path / "training_state.npz"
    fit_with_signal(SaveState(path, [], INITIAL), signal.SIGTERM, step=None)
    before, savez = path.read_bytes(), np.savez

    def interrupted(unfinished, *arrays, **more):
        savez(unfinished, *arrays, **more)
        os.truncate(unfinished, 1000)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(np, "savez", interrupted)
    save = SaveState(path, [], INITIAL)
    with pytest.raises(KeyboardInterrupt, match="^$"), signals_save(save):
        fit_with_signal(save, signal.SIGINT, step=2)
    assert {file.name for file in tmp_path.iterdir()} == {
        path.name,
        previous(path).name,
    } and path.read_bytes() == before
    assert capsys.readouterr().err == ""
    assert {number: signal.getsignal(number) for number in STOPS} == handlers


def test_an_ignored_signal_stays_ignored(tmp_path, handlers):
    save = SaveState(tmp_path / "training_state.npz", [], INITIAL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_save(save):
        fit_with_signal(save, signal.SIGINT, step=1)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert load_state(tmp_path / "training_state.npz", network())["epochs_done"] == 3


# WarnAtDivergence


@pytest.mark.parametrize(
    ("first", "later", "limit"),
    [
        (0.9, 23.1, "23.03"),  # 10 ln 10: the first loss is that of a guess
        (0.001, 23.1, "23.03"),  # starts from good weights
        (7.0, 70.1, "70"),  # a sum over classes
        (1e19, 101.0, "100"),  # starts from diverged weights
    ],
)
def test_a_loss_far_above_that_of_a_guess_causes_one_warning(capsys, first, later, limit):
    callback = WarnAtDivergence("noisy", 2, num_classes=10)
    callback.on_train_batch_end(0, {"loss": first})
    callback.on_train_batch_end(1, {"loss": 1e30})
    callback.on_epoch_end(0, {"loss": float(limit) - 0.1})
    assert capsys.readouterr().err == ""
    callback.on_epoch_end(1, {"loss": later})
    callback.on_epoch_end(2, {"loss": later})
    assert capsys.readouterr().err == (
        f"Warning: noisy stage, fold 2: training diverges: the loss is {later:.4g} after epoch 2, expected below "
        f"{limit}. Lower stages.noisy.optimizer.learning_rate and retrain with --restart.\n"
    )


# ReduceLROnPlateau and EarlyStopping


def test_epochs_without_validation_cause_no_warning_and_do_not_count():
    lower, stop = (CALLBACKS[name](monitor="val_loss", patience=2) for name in ("ReduceLROnPlateau", "EarlyStopping"))
    data, model = np.random.default_rng(0).normal(size=(16, 4)), network()
    validation = {"validation_data": (data, data[:, :2]), "validation_freq": 2}
    model.optimizer.learning_rate = 0.0  # no epoch is better than the first
    history = model.fit(data, data[:, :2], epochs=20, callbacks=[lower, stop], verbose=0, **validation).history
    assert len(history["loss"]) == len(history["learning_rate"]) == 6  # the validations after 2, 4 and 6 epochs


def test_a_misspelled_monitor_still_causes_a_warning():
    for name in ("ReduceLROnPlateau", "EarlyStopping"):
        callback = CALLBACKS[name](monitor="val_los", mode="min")
        callback.set_model(network())
        callback.on_train_begin()
        callback.monitor_op = np.less
        with pytest.warns(UserWarning, match="`val_los` which is not available"):
            callback.on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})


# Progress


def fit_with_progress(epochs, **more):
    progress = Progress("noisy, fold 0", 8, Stopwatch())
    network().fit(
        np.zeros((32, 4)), np.zeros((32, 2)), batch_size=8, epochs=epochs, callbacks=[progress], verbose=0, **more
    )


def test_without_a_terminal_each_epoch_is_a_line(capsys):
    fit_with_progress(3, initial_epoch=1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for number, line in zip((2, 3), lines):
        assert re.fullmatch(
            rf"noisy, fold 0 {number}/3: loss \S+, \d+\.\d clips/s, waits \d+% for data, at most \d+ s left", line
        )


def test_on_a_terminal_there_is_a_bar_too(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit_with_progress(1)
    shown = capsys.readouterr().err
    assert "noisy, fold 0 1/1:   0%|" in shown
    assert "noisy, fold 0 1/1: loss" in shown
