"""The callbacks an experiment may name: Keras' own where they survive `kill -9`, ours where they do not."""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Literal

import keras
import pandas as pd
from tqdm import tqdm

from audiotag import files
from audiotag.data.records.manifest import refuse_replaced
from audiotag.errors import ConfigError, DataError
from audiotag.runs import weights
from audiotag.training import state


class ModelCheckpoint(keras.callbacks.Callback):
    """Keeps the weights of the best epoch so far.

    Keras' callback of this name writes in place: a kill in the middle loses both the
    old best and the new. Here either the one or the other is there.

    Args:
        path: The file to write; ends in .weights.h5.
        monitor: What tells the best epoch.
        mode: Whether the "max" or the "min" of it is best; "auto" is "min" of a loss.
    """

    def __init__(self, path, *, monitor: str = "val_lwlrap", mode: Literal["auto", "max", "min"] = "auto"):
        super().__init__()
        if mode not in ("auto", "max", "min"):
            raise ValueError(f'mode must be "auto", "max" or "min". Received: mode={mode!r}')
        if mode == "auto":
            mode = "min" if monitor.endswith("loss") else "max"
        self.path = str(path)
        self.monitor = monitor
        self.mode = mode
        self.best = None
        self.best_epoch = None
        self.sha256 = None

    def on_epoch_end(self, epoch, logs=None):
        """Writes the weights when this epoch beats all before it."""
        if self.monitor.startswith("val_") and not any(key.startswith("val_") for key in logs):
            return  # an epoch that is not judged
        if self.monitor not in logs:
            raise ValueError(f"monitor must be one of {', '.join(logs)}. Received: monitor={self.monitor!r}")
        value = float(logs[self.monitor])
        better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if better and math.isfinite(value):
            keep = state.before(Path(self.path))
            self.sha256 = weights.save_weights(self.model, self.path, keep=keep)
            self.best, self.best_epoch = value, epoch

    def take_back(self):
        """Makes the file the one that the numbers tell of: a kill may have come after it and before the state.

        Raises:
            DataError: Neither the file nor the one before it is that one.
        """
        for path in (Path(self.path), state.before(Path(self.path))):
            if self.sha256 is None or path.is_file() and files.sha256(path) == self.sha256:
                if path != Path(self.path):
                    os.replace(path, self.path)
                return
        raise DataError(
            f"{self.path}: missing or damaged: its SHA-256 is not that in the training state. "
            f"Train anew with --restart."
        )


class CSVLogger(keras.callbacks.Callback):
    """Writes one row an epoch.

    Keras' callback of this name appends, so that after a kill rows stand twice or not
    at all. Here the rows belong to the training state and the file is written whole.

    Args:
        path: The file to write.
    """

    def __init__(self, path):
        super().__init__()
        self.path = str(path)
        self.rows = []

    def on_epoch_end(self, epoch, logs=None):
        """Adds the row of this epoch."""
        self.rows.append({"epoch": epoch, **{key: float(value) for key, value in logs.items()}})
        files.write_text(self.path, pd.DataFrame(self.rows).to_csv(index=False, lineterminator="\n"))


CALLBACKS = {
    "CSVLogger": CSVLogger,
    "ReduceLROnPlateau": keras.callbacks.ReduceLROnPlateau,
    "ModelCheckpoint": ModelCheckpoint,
    "EarlyStopping": keras.callbacks.EarlyStopping,
    "TensorBoard": keras.callbacks.TensorBoard,
}


class TellEpoch(keras.callbacks.Callback):
    """Tells the disturbances that end at an epoch which epoch it is."""

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch of every layer that asks for it."""
        for layer in self.model.ear.layers:
            if hasattr(layer, "epoch"):
                layer.epoch.assign(epoch)


class JudgeAverage(keras.callbacks.Callback):
    """Where the optimizer keeps a moving average of the weights (use_ema), it is what is judged and kept.

    The average takes the weights' place from the beginning of the judging until the
    callbacks before this one in the list have had their say. Keras' SwapEMAWeights
    swaps by adding and subtracting, which rounds, and forgets where it was after a kill.
    """

    def __init__(self):
        super().__init__()
        self.trained = []

    def on_test_begin(self, logs=None):
        """Puts the average in."""
        weights = self.model.trainable_variables
        self.trained = [keras.ops.convert_to_numpy(weight) for weight in weights] if self._keeps_average() else []
        self.model.optimizer.finalize_variable_values(weights)

    def on_epoch_end(self, epoch, logs=None):
        """Puts the weights back."""
        for weight, value in zip(self.model.trainable_variables, self.trained):
            weight.assign(value)
        self.trained = []

    def _keeps_average(self):
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer).use_ema


class StopAtNan(keras.callbacks.Callback):
    """Stops training at a loss that is NaN or infinite, before anything of it is kept; stands first in the list.

    A loss is looked at when the next step is done, so that the device is not waited for.

    Args:
        where: The stage, for the message.
        steps_done: Of the first epoch, by an earlier run.
        clips_of: A function of (epoch, step), both from 0, to the names of the clips in that step.
    """

    def __init__(self, where, steps_done, clips_of):
        super().__init__()
        self.where = where
        self.steps_done = steps_done
        self.clips_of = clips_of
        self.epoch = None
        self.latest = None

    def on_epoch_begin(self, epoch, logs=None):
        """Notes which epoch it is."""
        if self.epoch is not None:
            self.steps_done = 0
        self.epoch, self.latest = epoch, None

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss of the step before, and keeps this one for later."""
        self.look()
        self.latest = self.steps_done + batch, logs["loss"]

    def on_test_begin(self, logs=None):
        """Looks at the loss of the last step before the held-out clips are heard."""
        self.look()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the loss of the last step."""
        self.look()

    def look(self):
        """Raises ConfigError where the latest loss, which is a mean over the epoch so far, is not finite."""
        step, loss = self.latest or (0, 0.0)
        if not math.isfinite(loss):
            raise ConfigError(
                f"{self.where}: training diverged to NaN: the loss is {float(loss)} in step {step + 1} of epoch "
                f"{self.epoch + 1}, with the clips {', '.join(self.clips_of(self.epoch, step))}. What was saved "
                f"before stays as it is. Lower the learning rate and begin anew with --restart."
            )


class CheckRecords(keras.callbacks.Callback):
    """Ends training when the records are replaced meanwhile: an epoch is of one set of records, or is not kept.

    Args:
        manifest: Of the records that training began with.
    """

    def __init__(self, manifest):
        super().__init__()
        self.manifest = manifest

    def on_epoch_begin(self, epoch, logs=None):
        """Raises DataError where other records are there now."""
        refuse_replaced(self.manifest)

    def on_epoch_end(self, epoch, logs=None):
        """Raises it before anything of the epoch is kept."""
        refuse_replaced(self.manifest)


class SaveState(keras.callbacks.Callback):
    """Writes the whole training state after every epoch; stands last in the list, when all others have spoken.

    Once `asked_to_stop`, it writes the state after the step that is under way and ends the program.

    Args:
        path: The file to write.
        callbacks: Those whose counters belong to the state.
        notes: Of the run to go on with, as `checkpoint.load_state` answers.
    """

    def __init__(self, path, callbacks, notes):
        super().__init__()
        self.path = path
        self.callbacks = callbacks
        self.notes = notes
        self.asked_to_stop = False

    def on_train_begin(self, logs=None):
        """Gives the callbacks their counters back, which they have just set to nought."""
        state.restore_callbacks(self.callbacks, self.notes["callbacks"])

    def on_train_batch_end(self, batch, logs=None):
        """Writes the state if asked to stop; after the last step it is time enough at the end of the epoch."""
        if self.notes["measured"]:  # in an epoch left half done; before a batch Keras' metrics have no variables yet
            for variable, value in zip(self.model.metrics_variables, self.notes["measured"], strict=True):
                variable.assign(value + variable)
            self.notes = self.notes | {"measured": []}
        if self.asked_to_stop and batch + 1 < self.params["steps"]:
            self._save(self.notes["history"], steps_done=self.notes["steps_done"] + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the state."""
        self._save([*self.notes["history"], {key: float(value) for key, value in logs.items()}])

    def _save(self, history, **more):
        try:
            self.notes = state.save_state(self.path, self.model, self.callbacks, history, **more)
        except FloatingPointError as error:
            raise ConfigError(
                f"{self.path.parent}: training diverged to NaN: {error} after epoch {len(history)}. What was saved "
                f"before stays as it is. Lower the learning rate and begin anew with --restart."
            ) from error
        if self.asked_to_stop:
            print(
                f"Stopped by SIGTERM after {len(history)} epochs and {self.notes['steps_done']} steps; all is saved. "
                f"The same command goes on from there.",
                file=sys.stderr,
            )
            raise SystemExit(128 + signal.SIGTERM)


@contextlib.contextmanager
def sigterm_heeded(save_state):
    """During the block SIGTERM asks a `SaveState` to stop; a second one ends the program at once."""

    def ask(number, frame):
        save_state.asked_to_stop = True
        signal.signal(signal.SIGTERM, earlier)

    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody listen to signals
        yield
        return
    earlier = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


class Progress(keras.callbacks.Callback):
    """Shows how training goes: a bar on a terminal, a line an epoch elsewhere.

    Both tell clips/s and the share of time that the device waited for data.

    Args:
        label: What is trained.
        batch_size: Clips in a step.
        waiting: A `Stopwatch` over the batches.
    """

    def __init__(self, label, batch_size, waiting):
        super().__init__()
        self.label = label
        self.batch_size = batch_size
        self.waiting = waiting

    def on_train_begin(self, logs=None):
        """Starts the clock that the time left is reckoned by."""
        self.begun = time.monotonic()
        self.epochs_seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the bar of this epoch."""
        self.epoch = epoch
        self.started = time.monotonic()
        self.waited_before = self.waiting.seconds
        self.speed = ""
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=self.params["steps"], unit="step", leave=False, dynamic_ncols=True, desc=self._title()
            )

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        waited = (self.waiting.seconds - self.waited_before) / seconds
        self.speed = f"{(batch + 1) * self.batch_size / seconds:.1f} clips/s, waits {min(waited, 1):.0%} for data"
        if self.bar:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4f}, {self.speed}", refresh=False)
            self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Prints what this epoch gave."""
        if self.bar:
            self.bar.close()
        self.epochs_seen += 1
        left = (time.monotonic() - self.begun) / self.epochs_seen * (self.params["epochs"] - epoch - 1)
        shown = ", ".join(f"{key} {float(value):.4g}" for key, value in logs.items())
        tqdm.write(f"{self._title()}: {shown}, {self.speed}, at most {left:.0f} s left", file=sys.stderr)

    def _title(self):
        return f"{self.label} {self.epoch + 1}/{self.params['epochs']}"
