"""What the tests of D share: a training of two stages that takes seconds, and ways to look at what it leaves."""

import contextlib
import io
import json
import random
import threading
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd

from audiotag import files

HERE = Path(__file__).parent / "reliability"
FIT, KERAS, FLIPS = HERE / "fit_alone.py", HERE / "keras_alone.py", HERE / "flips_alone.py"
EPOCHS = 3  # of more that the first stage may take: it stops early
STAGES = ("noisy", "curated")
NOTES = ("experiment.json", "environment.json", "records.json")
CALLBACKS = [{"name": "CSVLogger"}, {"name": "ModelCheckpoint"}]
NO_PROGRESS = {"monitor": "val_lwlrap", "mode": "max", "min_delta": 0.9}  # and so each epoch is one of patience
PLATEAU = {"name": "ReduceLROnPlateau", "patience": 1, "factor": 0.7, **NO_PROGRESS}
STOPPING = {"name": "EarlyStopping", "patience": EPOCHS - 1, **NO_PROGRESS}
OVERRIDES = [
    "model.filters=[8]",
    *(f"stages.{stage}.{part}" for stage in STAGES for part in (f"epochs={EPOCHS}", "batch_size=8")),
    f"stages.noisy.epochs={2 * EPOCHS}",
    f"stages.noisy.callbacks={json.dumps([PLATEAU, STOPPING, *CALLBACKS])}",
    'stages.curated.schedule={"name": "one_cycle"}',
    "stages.curated.optimizer.use_ema=true",
]


def same(whole, other):
    """Fails where two runs did not end with the same weights, scores and history."""
    for stage in STAGES:
        ours, theirs = (folder / "fold-0" / stage for folder in (whole, other))
        history = (theirs / "history.csv").read_bytes()
        assert pd.read_csv(theirs / "history.csv")["epoch"].tolist() == list(range(EPOCHS)), "epochs not each once"
        assert history == (ours / "history.csv").read_bytes()
        known, expected = (json.loads((folder / "finished.json").read_text()) for folder in (theirs, ours))
        assert known | {"sha256": ""} == expected | {"sha256": ""}
        assert known["sha256"] == files.sha256(theirs / known["weights"])
        arrays, expected = (arrays_in(folder / known["weights"]) for folder in (theirs, ours))
        assert len(arrays) == len(expected) and all(map(np.array_equal, arrays, expected)), "other weights"
    assert not list(other.rglob("state.npz")) and not list(other.rglob(".unfinished*"))


def goes_on(whole, other):
    """Fails where a run that was stopped lost its patience, its learning rate or its best value."""
    ours, theirs = (folder / "fold-0" / "noisy" for folder in (whole, other))
    history, expected = (pd.read_csv(folder / "history.csv") for folder in (theirs, ours))
    known = json.loads((theirs / "finished.json").read_text())
    assert known["epochs"] == len(history) == EPOCHS
    assert history["learning_rate"].tolist() == expected["learning_rate"].tolist()
    assert history["learning_rate"].is_monotonic_decreasing and history["learning_rate"].nunique() == EPOCHS - 1
    assert known["best_epoch"] == history["val_lwlrap"].idxmax() and known["val_lwlrap"] == expected["val_lwlrap"].max()


def arrays_in(path):
    """Every array in an HDF5 file, in order; what layers are called in it depends on how many there were before."""
    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda _, node: arrays.append(node[()]) if isinstance(node, h5py.Dataset) else None)
    return arrays


def moments(operations, many, seed, kinds):
    dice = random.Random(seed)
    return [{"at": dice.randrange(2, operations), "what": dice.choice(kinds)} for _ in range(many)]


@contextlib.contextmanager
def polled(pattern, folder):
    """Reads the files that fit a pattern all the while: yields [times read, times it could not be read]."""
    counts, over = [0, 0], threading.Event()

    def poll():
        while not over.is_set():
            for path in folder.rglob(pattern):
                try:
                    data = path.read_bytes()
                    with h5py.File(io.BytesIO(data)) as file:
                        file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)
                except FileNotFoundError:
                    continue
                except Exception:
                    counts[1] += 1
                counts[0] += 1
            time.sleep(0.02)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def network():
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(60), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 40)), np.zeros((2, 2)))
    return model
