"""E6: whatever a forged training state holds, training writes inside its run alone."""

import copy
import functools
import json
import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiers

from audiotag import files
from audiotag.errors import ConfigError, DataError
from audiotag.runs.arrays import _digest
from audiotag.runs.directory import StageFiles
from audiotag.training.callbacks import CSVLogger, ModelCheckpoint, SaveState
from audiotag.training.state import INITIAL, load_state

NUM_STATES = tiers.tier(600, 10_000)
FIELDS = {
    "EarlyStopping": ["wait", "best", "best_epoch", "stopped_epoch"],
    "ReduceLROnPlateau": ["wait", "best", "cooldown_counter"],
    "ModelCheckpoint": ["best", "best_epoch", "sha256"],
    "CSVLogger": ["rows"],
}
# Attributes of callbacks that are no state.
SETTINGS = [
    "path", "filepath", "log_dir", "_train_dir", "callbacks", "metadata", "model", "_model", "params", "monitor",
    "mode", "monitor_op", "on_epoch_end", "set_state", "__class__", "__dict__", "best_weights",
]  # fmt: skip
METADATA = ["epochs_done", "steps_done", "stop_training", "seconds", "history", "callbacks"]


class LogLwlrap(keras.callbacks.Callback):
    """Puts a score into the logs that falls with the epochs."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_lwlrap"] = 0.9 - 0.1 * epoch


def callbacks_in(folder):
    """One of each callback that has a state."""
    stage_files = StageFiles(folder)
    return [
        keras.callbacks.ReduceLROnPlateau(monitor="val_lwlrap", mode="max", patience=1),
        keras.callbacks.EarlyStopping(monitor="val_lwlrap", mode="max", patience=9),
        ModelCheckpoint(stage_files.best_weights),
        CSVLogger(stage_files.history),
    ]


@functools.cache  # to make them takes longer than an epoch
def batches():
    data = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    return tf.data.Dataset.from_tensors((data, data[:, :2]))


def train(model, callbacks, folder, metadata, *, until):
    """Trains until an epoch, as `fit` does."""
    model.fit(
        batches(),
        epochs=until,
        initial_epoch=metadata["epochs_done"],
        shuffle=False,
        callbacks=[LogLwlrap(), *callbacks, SaveState(folder / "training_state.npz", callbacks, metadata)],
        verbose=0,
    )


def compiled():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A model; its files, metadata and arrays after two epochs."""
    folder, model = tmp_path_factory.mktemp("honest"), compiled()
    train(model, callbacks_in(folder), folder, INITIAL, until=2)
    with np.load(folder / "training_state.npz") as state:
        *arrays, text = (array for name, array in state.items() if name != "sha256")
    return model, {path.name: path.read_bytes() for path in folder.iterdir()}, json.loads(text.tobytes()), arrays


def forge(content, arrays, rng, outside):
    """Changes one to three things in the metadata and the arrays of a training state; says which."""
    values = [
        str(outside / "evil.csv"), "../evil.csv", "../../outside/evil.weights.h5", "/tmp/evil", "", "\0", "\ud800",
        "=HYPERLINK(1)", "a" * 10_000, "0" * 64, None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -0.5, 1e308,
        float("nan"), float("inf"), float("-inf"), [], {}, [[]], [{}], [None], ["../evil.csv"], {"path": "../evil.csv"},
        [{"epoch": "../evil.csv"}], [{"=cmd|' /C calc'!A0": 1.0}], [{"../evil.csv": 0.5}], [{"loss": "../evil.csv"}],
        {"class_name": "os.system", "config": {"path": str(outside)}},
    ]  # fmt: skip

    def pick(options):  # rng.choice would convert them
        return options[rng.integers(len(options))]

    said = []
    for _ in range(rng.integers(1, 4)):
        states = content.get("callbacks")
        name = pick([*FIELDS, "SaveState", "TensorBoard", "LambdaCallback", "../../evil", "os.system"])
        kind, value = rng.integers(8), pick(values)
        state = states.get(name) if isinstance(states, dict) else None
        if kind == 0:
            content[key := pick([*METADATA, "path", "metric_state", "class_name"])] = value
        elif kind == 1:
            content.pop(key := pick(METADATA), None)
        elif kind == 2 and isinstance(states, dict):
            states[key := name] = pick([{"path": value}, {"rows": value}, value])
        elif kind == 3 and isinstance(states, dict):
            states.pop(key := name, None)
        elif kind == 4 and isinstance(state, dict) and name in FIELDS:
            state[key := pick(FIELDS[name])] = value
        elif kind == 5 and isinstance(state, dict):
            state[key := pick(SETTINGS)] = value
        elif kind == 6 and isinstance(state, dict) and name in FIELDS:
            state.pop(key := pick(FIELDS[name]), None)
        else:
            index, key = rng.integers(len(arrays)), "array"
            shape = arrays[index].shape
            arrays[index] = pick(
                [
                    np.full(shape, np.nan, "float32"), np.full(shape, "../evil"), np.zeros(shape, "complex64"),
                    np.zeros(shape, "int64"), np.zeros(shape, ">f4"), np.zeros(shape, "float64"), np.zeros(shape, "V4"),
                    np.zeros((7, *shape), "float32"), np.full(shape, 1e38, "float32"), np.zeros(0),
                ]
            )  # fmt: skip
            if rng.integers(3) == 0:
                arrays.append(np.ones((), "float32"))
        said.append((int(kind), name, key, value))
    return said


def write_state(path, content, arrays):
    """A training state with the right SHA-256, as whoever forges one would write it."""
    text = np.frombuffer(json.dumps(content).encode(), "uint8")
    np.savez(path, *arrays, text, sha256=np.array(_digest([*arrays, text])))


def tree(folder, but):
    """{path: its time and content} of everything below a folder, but for one folder."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
        if but not in (path, *path.parents)
    }


@pytest.fixture
def writes():
    """The real paths of everything that Python opens for writing, renames, makes or removes."""
    found, watching = [], [True]

    def watch(event, arguments):
        if not watching[0]:
            return
        places = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1}
        count = places.get(event, 0)
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            count = 1
        found.extend(os.path.realpath(os.fsdecode(path)) for path in arguments[:count] if not isinstance(path, int))

    sys.addaudithook(watch)  # cannot be removed, so it is switched off after the test
    yield found
    watching[0] = False


@pytest.mark.check("E6")
def test_no_forged_state_makes_training_write_outside_its_run(honest, tmp_path, tally, monkeypatch, writes):
    model, saved, metadata, arrays = honest
    run, outside = tmp_path / "home" / "run", tmp_path / "outside"
    for folder in (run, outside):
        folder.mkdir(parents=True)
    (outside / "evil.csv").write_text("a file of the user")
    monkeypatch.chdir(run)  # from here relative paths lead out of it
    before, path, refused = tree(tmp_path, run), run / "training_state.npz", 0
    for seed in range(NUM_STATES):
        for name, content in saved.items():
            (run / name).write_bytes(content)
        changed, numbers = copy.deepcopy(metadata), list(arrays)
        said = forge(changed, numbers, np.random.default_rng(seed), outside)
        write_state(path, changed, numbers)
        writes.clear()
        with tally.trial(f"seed {seed}: {said}"):
            try:
                callbacks = callbacks_in(run)
                train(model, callbacks, run, load_state(path, model), until=3)
            except DataError as error:
                refused += 1
                assert str(error).startswith(f"{run}/") and "Retrain with --restart." in str(error)
            except ConfigError as error:  # weights so large that they overflow
                assert "training diverged to NaN" in str(error)
            stray = [place for place in writes if not place.startswith(f"{run}/")]
            assert not stray and tree(tmp_path, run) == before
            assert set(os.listdir(run)) <= {*saved, "previous-best.weights.h5"}
            assert not any(line.startswith(files.FORMULAS) for line in (run / "history.csv").read_text().splitlines())
    assert NUM_STATES > refused > 0.8 * NUM_STATES  # most changes are never valid, and some are


def test_a_write_outside_would_be_found(tmp_path, writes):
    before = tree(tmp_path, tmp_path / "run")
    (tmp_path / "evil.csv").write_text("")
    assert writes == [str(tmp_path / "evil.csv")] and tree(tmp_path, tmp_path / "run") != before
