"""The callbacks of experiments and of training.

They are those of Keras, or replacements that survive a killed process.
"""

import contextlib
import math
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import pandas as pd
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError
from tqdm import tqdm

from audiotag import files
from audiotag.config.components import Section
from audiotag.config.loading import parse
from audiotag.data.records.manifest import refuse_replaced
from audiotag.errors import ConfigError, DataError
from audiotag.runs import mirror, weights
from audiotag.runs.directory import RETRAIN, previous
from audiotag.training import state


class ModelCheckpointState(Section):
    """The state of a ModelCheckpoint; all None until an epoch was saved."""

    best: float | None
    best_epoch: state.Count | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None  # of the weights file

    @model_validator(mode="after")
    def refuse_half_a_state(self) -> "ModelCheckpointState":
        """Refuses a best value without its epoch or file, and the reverse."""
        if len({value is None for value in (self.best, self.best_epoch, self.sha256)}) > 1:
            raise PydanticCustomError(
                "complete_message", "best, best_epoch and sha256 must be null together or not at all."
            )
        return self


class ModelCheckpoint(keras.callbacks.Callback):
    """Saves the weights of the best epoch so far.

    Keras' callback of this name writes in place, so a kill in the middle loses both the
    old best weights and the new. This one replaces the file atomically.

    Args:
        path: The file to write; ends in .weights.h5.
        monitor: The logged value that decides.
        mode: Whether its "max" or its "min" is best; "auto" is "min" for a loss and else "max".
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
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.sha256: str | None = None

    def on_epoch_end(self, epoch, logs=None):
        """Writes the weights if this epoch is better than all before it."""
        if _not_validated(self.monitor, logs):
            return
        if self.monitor not in logs:
            raise ValueError(f"monitor must be one of {', '.join(logs)}. Received: monitor={self.monitor!r}")
        value = float(logs[self.monitor])
        better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if better and math.isfinite(value):
            self.sha256 = weights.save_weights(self.model, self.path, keep=previous(Path(self.path)))
            self.best, self.best_epoch = value, epoch

    def get_state(self) -> dict[str, Any]:
        """The best epoch and its value, and the SHA-256 of its weights file."""
        return {"best": self.best, "best_epoch": self.best_epoch, "sha256": self.sha256}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned, and the weights file of that state.

        A kill may have come between writing the two.

        Raises:
            ConfigError: A field is missing, unknown or of a wrong type.
            DataError: Neither the file nor its previous version is the one.
        """
        checked = parse(state, ModelCheckpointState, "ModelCheckpoint")
        self.best, self.best_epoch, self.sha256 = checked.best, checked.best_epoch, checked.sha256
        for path in (Path(self.path), previous(Path(self.path))):
            if self.sha256 is None or path.is_file() and files.sha256(path) == self.sha256:
                if path != Path(self.path):
                    files.rename(path, self.path)
                return
        raise DataError(f"{self.path}: missing or damaged: its SHA-256 is not that in the training state. {RETRAIN}")


class CSVLoggerState(Section):
    """The state of a CSVLogger."""

    rows: tuple[dict[state.LogName, state.Logged], ...]


class CSVLogger(keras.callbacks.Callback):
    """Writes one row of logs per epoch.

    Keras' callback of this name appends, so after a kill rows are missing or doubled. Here the
    rows are part of the training state, and the file is replaced atomically.

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

    def get_state(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what `get_state` returned.

        Raises:
            ConfigError: A field is missing, unknown or of a wrong type.
        """
        rows = parse(state, CSVLoggerState, "CSVLogger").rows
        self.rows = [row | {"epoch": epoch} for epoch, row in enumerate(rows)]  # not 0.0


def _not_validated(monitor, logs):
    """Whether a callback monitors validation and this epoch has none, because of validation_freq."""
    return monitor.startswith("val_") and not any(key.startswith("val_") for key in logs)


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' callback, silent in epochs that are not validated."""

    def on_epoch_end(self, epoch, logs=None):
        """Logs the rate; lowers it after `patience` validations without improvement."""
        with warnings.catch_warnings():
            if _not_validated(self.monitor, logs):
                warnings.simplefilter("ignore")
            super().on_epoch_end(epoch, logs)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' callback, silent in epochs that are not validated."""

    def on_epoch_end(self, epoch, logs=None):
        """Stops after `patience` validations without improvement."""
        if not _not_validated(self.monitor, logs):
            super().on_epoch_end(epoch, logs)


CALLBACKS = {
    "CSVLogger": CSVLogger,
    "ReduceLROnPlateau": ReduceLROnPlateau,
    "ModelCheckpoint": ModelCheckpoint,
    "EarlyStopping": EarlyStopping,
    "TensorBoard": keras.callbacks.TensorBoard,
}


class SetEpoch(keras.callbacks.Callback):
    """Sets the epoch of augmentations that have a `stop_epoch`."""

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the epoch of every layer that has one."""
        for layer in self.model.preprocessor.layers:
            if hasattr(layer, "epoch"):
                layer.epoch.assign(epoch)


class EvaluateAverage(keras.callbacks.Callback):
    """Validates and saves the moving average of the weights, if there is one.

    The optimizer keeps one with use_ema. The average replaces the weights from the start of
    validation until the callbacks before this one in the list are done. Keras' SwapEMAWeights swaps
    by adding and subtracting, which rounds, and does not survive a kill.
    """

    def __init__(self):
        super().__init__()
        self.trained = []

    def on_test_begin(self, logs=None):
        """Replaces the weights by their average."""
        weights = self.model.trainable_variables
        self.trained = [keras.ops.convert_to_numpy(weight) for weight in weights] if self._keeps_average() else []
        self.model.optimizer.finalize_variable_values(weights)

    def on_epoch_end(self, epoch, logs=None):
        """Restores the weights."""
        for weight, value in zip(self.model.trainable_variables, self.trained):
            weight.assign(value)
        self.trained = []

    def _keeps_average(self):
        optimizer = self.model.optimizer
        return getattr(optimizer, "inner_optimizer", optimizer).use_ema


class StopAtNan(keras.callbacks.Callback):
    """Stops training at a loss that is NaN or infinite, before anything is saved.

    It must be the first callback in the list. The loss of a step is read after the next step, so
    training does not wait for the device.

    Args:
        where: The folder of the stage, for the message.
        steps_done: Steps of the first epoch that an earlier process did.
        clips_of_step: A function of (epoch, step), both from 0, to the names of the clips in that step.
    """

    def __init__(self, where, steps_done, clips_of_step):
        super().__init__()
        self.where = where
        self.steps_done = steps_done
        self.clips_of_step = clips_of_step
        self.epoch = None
        self.latest = None

    def on_epoch_begin(self, epoch, logs=None):
        """Stores the epoch."""
        if self.epoch is not None:
            self.steps_done = 0
        self.epoch, self.latest = epoch, None

    def on_train_batch_end(self, batch, logs=None):
        """Checks the loss of the step before, and stores this one."""
        self._check()
        self.latest = self.steps_done + batch, logs["loss"]

    def on_test_begin(self, logs=None):
        """Checks the loss of the last step before validation."""
        self._check()

    def on_epoch_end(self, epoch, logs=None):
        """Checks the loss of the last step."""
        self._check()

    def _check(self):
        """Raises ConfigError if the latest loss, a mean over the epoch so far, is not finite."""
        step, loss = self.latest or (0, 0.0)
        if not math.isfinite(loss):
            raise ConfigError(
                f"{self.where}: training diverged to NaN: the loss is {float(loss)} in step {step + 1} of epoch "
                f"{self.epoch + 1}, with the clips {', '.join(self.clips_of_step(self.epoch, step))}. What was saved "
                f"before is unchanged. Lower the learning rate and retrain with --restart."
            )


class WarnAtDivergence(keras.callbacks.Callback):
    """Warns once if the loss of an epoch is far above that of a guess.

    Such weights are finite, so `StopAtNan` accepts them, and worthless. The limit is ten times the loss of the first
    step, clipped to the range from ln K to K: a stage may start from good weights, whose loss is low, or from diverged
    ones. A guess costs ln K in categorical cross-entropy and K ln 2 in binary cross-entropy summed over the classes.

    Args:
        stage: The name of the stage in the experiment.
        fold: The fold, for the message.
        num_classes: K.
    """

    def __init__(self, stage, fold, num_classes):
        super().__init__()
        self.stage = stage
        self.fold = fold
        self.num_classes = num_classes
        self.first = None
        self.warned = False

    def on_train_batch_end(self, batch, logs=None):
        """Stores the loss of the first step."""
        if self.first is None:
            self.first = logs["loss"]

    def on_epoch_end(self, epoch, logs=None):
        """Prints the warning, unless it did before."""
        limit = 10 * min(max(float(self.first), math.log(self.num_classes)), self.num_classes)
        if logs["loss"] > limit and not self.warned:
            self.warned = True
            tqdm.write(
                f"Warning: {self.stage} stage, fold {self.fold}: training diverges: the loss is {logs['loss']:.4g} "
                f"after epoch {epoch + 1}, expected below {limit:.4g}. Lower "
                f"stages.{self.stage}.optimizer.learning_rate and retrain with --restart.",
                file=sys.stderr,
            )


class CheckRecords(keras.callbacks.Callback):
    """Ends training if the records are replaced meanwhile.

    It does so before anything of the epoch is saved.

    Args:
        manifest: The `Manifest` that training began with.
    """

    def __init__(self, manifest):
        super().__init__()
        self.manifest = manifest

    def on_epoch_begin(self, epoch, logs=None):
        """Raises DataError if other records are there now."""
        refuse_replaced(self.manifest)

    def on_epoch_end(self, epoch, logs=None):
        """Raises DataError if other records are there now."""
        refuse_replaced(self.manifest)


class SaveState(keras.callbacks.Callback):
    """Writes the training state after every epoch; the last callback in the list.

    Once `stop_signal` is set, it writes the state after the current step and ends the training.

    Args:
        path: The file to write.
        callbacks: Those whose state to store.
        metadata: What `state.resume` returned: the training state without the weights, that is the epochs and steps
            done, seconds, logs of each epoch, and the states of the callbacks and of the metrics.
    """

    def __init__(self, path, callbacks, metadata):
        super().__init__()
        self.path = path
        self.callbacks = callbacks
        self.metadata = metadata
        self.stop_signal = None

    def on_train_begin(self, logs=None):
        """Restores the state of the callbacks, and starts the clock.

        The callbacks have just reset their state.
        """
        self.begun = time.monotonic() - self.metadata["seconds"]
        if self.metadata["callbacks"] is not None:
            state.restore_callbacks(self.path, self.callbacks, self.metadata["callbacks"])

    def on_train_batch_end(self, batch, logs=None):
        """Writes the state if asked to stop; after the last step, `on_epoch_end` does."""
        stops = self.stop_signal and batch + 1 < self.params["steps"]
        if (stops or self.metadata["metric_state"]) and keras.backend.backend() == "jax":
            self.model.jax_state_sync()  # variables have no values between the steps of an epoch
        if self.metadata["metric_state"]:  # of an interrupted epoch; Keras' metrics have variables only after a batch
            state.check_arrays(self.path, self.metadata["metric_state"], self.model.metrics_variables)
            for variable, value in zip(self.model.metrics_variables, self.metadata["metric_state"], strict=True):
                variable.assign(value + variable)
            self.metadata = self.metadata | {"metric_state": []}
        if stops:
            self._save(self.metadata["history"], steps_done=self.metadata["steps_done"] + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the state."""
        for name in logs:
            if not re.fullmatch(state.LOG_NAME, name):
                raise ConfigError(
                    f"{self.path.parent}: a callback or metric logs {name!r}. Expected letters, digits and _, since it "
                    "names a column of history.csv."
                )
        self._save([*self.metadata["history"], {key: float(value) for key, value in logs.items()}])

    def _save(self, history, *, steps_done=0):
        seconds = time.monotonic() - self.begun
        try:
            self.metadata = state.save_state(
                self.path, self.model, self.callbacks, history, seconds=seconds, steps_done=steps_done
            )
        except FloatingPointError as error:
            raise ConfigError(
                f"{self.path.parent}: training diverged to NaN: {error} after epoch {len(history)}. What was saved "
                f"before is unchanged. Lower the learning rate and retrain with --restart."
            ) from error
        mirror.after_saving()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Ends the training, which is saved, if a signal asked for it.

        Raises:
            KeyboardInterrupt: The signal is SIGINT.
            SystemExit: It is SIGTERM.
        """
        if self.stop_signal is None:
            return
        name = "Ctrl-C (SIGINT)" if self.stop_signal == signal.SIGINT else self.stop_signal.name
        message = (
            f"Stopped by {name} after {len(self.metadata['history'])} epochs and {self.metadata['steps_done']} steps; "
            f"all is saved. The same command continues from there."
        )
        tqdm.write(message, file=sys.stderr)  # not into a progress bar
        if self.stop_signal == signal.SIGINT:
            raise KeyboardInterrupt(message)
        raise SystemExit(128 + self.stop_signal)


class FollowState(SaveState):
    """Restores the state of callbacks and metrics as `SaveState`, and writes nothing.

    Args:
        callbacks: Those whose state to restore.
        metadata: As for `SaveState`; it may have states of other callbacks, too.
    """

    def __init__(self, callbacks, metadata):
        names = {type(callback).__name__ for callback in callbacks}
        if metadata["callbacks"] is not None:
            known = {name: value for name, value in metadata["callbacks"].items() if name in names}
            metadata = metadata | {"callbacks": known}
        super().__init__(Path("training_state.npz"), callbacks, metadata)

    def _save(self, history, *, steps_done=0):
        """Process 0 writes."""

    def stop_if_asked(self) -> None:
        """Process 0, which gets the signal, too, ends the training when it has saved."""


@contextlib.contextmanager
def signals_save(save_state: SaveState) -> Iterator[None]:
    """During the block SIGTERM or Ctrl-C makes a `SaveState` stop the training.

    A second signal has its usual effect at once. A signal that the process ignores stays ignored, as in jobs that a
    shell script starts in the background. Outside the main thread Python handles no signals: there nothing changes.
    """

    def ask(number, frame):
        save_state.stop_signal = signal.Signals(number)
        restore()

    def restore():
        for number, handler in earlier.items():
            signal.signal(number, handler)

    earlier: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        earlier = {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in earlier:
            signal.signal(number, ask)
        yield
    finally:
        restore()
    save_state.stop_if_asked()  # the signal came after the last step


class Progress(keras.callbacks.Callback):
    """Shows progress: a bar on a terminal, else a line per epoch.

    Both show clips/s and the fraction of time that the device waited for data.

    Args:
        label: The stage and fold.
        batch_size: Clips per step.
        stopwatch: A `Stopwatch` over the batches.
    """

    def __init__(self, label, batch_size, stopwatch):
        super().__init__()
        self.label = label
        self.batch_size = batch_size
        self.stopwatch = stopwatch

    def on_train_begin(self, logs=None):
        """Starts the clock for the time left."""
        self.begun = time.monotonic()
        self.epochs_seen = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the bar of this epoch."""
        self.epoch = epoch
        self.started = time.monotonic()
        self.waited_before = self.stopwatch.seconds
        self.speed = ""
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=self.params["steps"], unit="step", leave=False, dynamic_ncols=True, desc=self._title()
            )

    def on_train_batch_end(self, batch, logs=None):
        """Updates the bar."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        waited = (self.stopwatch.seconds - self.waited_before) / seconds
        self.speed = f"{(batch + 1) * self.batch_size / seconds:.1f} clips/s, waits {min(waited, 1):.0%} for data"
        if self.bar:
            self.bar.set_postfix_str(f"loss {float(logs['loss']):.4f}, {self.speed}", refresh=False)
            self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Prints the logs of this epoch."""
        if self.bar:
            self.bar.close()
        self.epochs_seen += 1
        left = (time.monotonic() - self.begun) / self.epochs_seen * (self.params["epochs"] - epoch - 1)
        shown = ", ".join(f"{key} {float(value):.4g}" for key, value in logs.items())
        tqdm.write(f"{self._title()}: {shown}, {self.speed}, at most {left:.0f} s left", file=sys.stderr)

    def _title(self):
        return f"{self.label} {self.epoch + 1}/{self.params['epochs']}"
