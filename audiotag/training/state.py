"""The training state on disk: one file from which a stage resumes.

An interrupted stage resumes with the same weights. The file may come from somebody else: what it holds is
checked against the schemas below, and no path is ever read from it.
"""

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from audiotag.config.components import Section
from audiotag.config.loading import parse
from audiotag.errors import ConfigError, DataError, shortened
from audiotag.runs.arrays import load_arrays, save_arrays
from audiotag.runs.directory import RETRAIN, previous

# The metadata of a stage before its first step. Metadata is the training state without the variables of the model and
# the optimizer. `steps_done` counts the finished steps of the epoch that follows the `epochs_done` finished epochs.
INITIAL: dict[str, Any] = {
    "epochs_done": 0,
    "steps_done": 0,
    "stop_training": False,
    "seconds": 0.0,
    "history": [],
    "callbacks": None,
    "metric_state": [],
}

Count = Annotated[int, Field(ge=0, lt=2**31)]
LOG_NAME = r"[A-Za-z_]\w{0,99}"
LogName = Annotated[str, Field(pattern=f"^{LOG_NAME}$", max_length=100)]  # it becomes a header of history.csv


def _refuse_overflow(value: float) -> float:
    """Refuses a finite number that float32, the type of what is logged, cannot hold."""
    if math.isfinite(value) and abs(value) > float(np.finfo("float32").max):
        raise PydanticCustomError(
            "complete_message", "expected a number that float32 can hold, found {value}.", {"value": value}
        )
    return value


# A validation loss may be NaN.
Logged = Annotated[float, Field(allow_inf_nan=True), AfterValidator(_refuse_overflow)]


class Metadata(Section):
    """The metadata in the file of a training state."""

    epochs_done: Count
    steps_done: Count
    stop_training: bool
    seconds: float = Field(ge=0)
    history: tuple[dict[LogName, Logged], ...]
    callbacks: dict[str, dict[str, Any]]  # each is checked by the callback


class EarlyStoppingState(Section):
    """The state of Keras' EarlyStopping."""

    wait: Count
    best: Logged | None
    best_epoch: Count
    stopped_epoch: Count


class ReduceLROnPlateauState(Section):
    """The state of Keras' ReduceLROnPlateau."""

    wait: Count
    best: Logged | None
    cooldown_counter: Count


# Keras' callbacks whose state is saved. Others that have a state define `get_state` and `set_state`.
KERAS_STATES: dict[type, type[Section]] = {
    keras.callbacks.EarlyStopping: EarlyStoppingState,
    keras.callbacks.ReduceLROnPlateau: ReduceLROnPlateauState,
}


def save_state(
    path: Path,
    model: keras.Model,
    callbacks: Iterable[keras.callbacks.Callback],
    history: list[dict[str, float]],
    *,
    seconds: float = 0.0,
    steps_done: int = 0,
) -> dict[str, Any]:
    """Writes everything that training needs to resume, in one file.

    The version before is kept. The file holds the weights, statistics and random generators of the
    model, the optimizer's variables, the state of the callbacks, and the logs of the epochs done; within
    an epoch also the steps done and the state of the metrics.

    Args:
        path: The file to write.
        model: A compiled model.
        callbacks: Those whose state to store, by `get_state` or as `KERAS_STATES` says.
        history: The logs of each epoch done.
        seconds: Time spent on the stage so far.
        steps_done: Steps done of the epoch that is under way.

    Returns:
        The metadata, as `load_state` returns it.

    Raises:
        FloatingPointError: A weight is NaN or infinite. Nothing is written.
    """
    arrays = [keras.ops.convert_to_numpy(variable) for variable in state_variables(model)]
    metric_state = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables] if steps_done else []
    if not all(np.isfinite(array).all() for array in [*arrays, *metric_state]):
        raise FloatingPointError("a weight is NaN or infinite")
    metadata = {
        "epochs_done": len(history),
        "steps_done": steps_done,
        "seconds": seconds,
        "history": history,
        "stop_training": bool(model.stop_training),
        "callbacks": {name: get_callback_state(callback) for name, callback in _with_state(callbacks).items()},
    }
    save_arrays(path, [*arrays, *metric_state], metadata, keep=previous(path))
    return metadata | {"metric_state": metric_state}


def forget_state(path: Path) -> None:
    """Removes the state of a finished stage, and previous versions of its files."""
    for kept in (path, *path.parent.glob(previous(path.with_name("*")).name)):
        kept.unlink(missing_ok=True)


def load_state(path: Path, model: keras.Model) -> dict[str, Any]:
    """Restores a compiled model from what `save_state` wrote.

    If that is damaged, the previous version is used.

    Returns:
        The metadata, with the keys of `INITIAL`.

    Raises:
        DataError: Both files are damaged, or belong to another network, or the metadata are not valid.
    """
    try:
        arrays, content = load_arrays(path)
    except Exception as error:  # zipfile and NumPy raise a dozen kinds
        try:
            arrays, content = load_arrays(previous(path))
        except Exception:
            raise DataError(
                f"{path}: the training state is damaged ({error}), and there is no usable previous version. {RETRAIN}"
            ) from error
        print(f"{path}: damaged ({error}). Training resumes from {previous(path).name}.", file=sys.stderr)
    with _explain_invalid(path):
        metadata = parse(content, Metadata, "metadata").model_dump()
    metadata["history"] = list(metadata["history"])
    if len(metadata["history"]) != metadata["epochs_done"]:
        raise DataError(
            f"{path}: metadata: {metadata['epochs_done']} epochs are done, but the history has "
            f"{len(metadata['history'])}. {RETRAIN}"
        )
    if not model.optimizer.built:  # or LossScaleOptimizer would count its variables twice
        model.optimizer.build(model.trainable_variables)
    variables = state_variables(model)
    metric_state = arrays[len(variables) :]
    check_arrays(path, arrays[: len(variables)], variables)
    if metric_state and not metadata["steps_done"]:
        raise DataError(f"{path}: the training state of another network. {RETRAIN}")
    for variable, array in zip(variables, arrays):
        variable.assign(array)
    return metadata | {"metric_state": metric_state}


def check_arrays(path: Path, arrays: list[np.ndarray], variables: list[keras.Variable]) -> None:
    """Refuses arrays of a training state that do not fit their variables.

    Args:
        path: The file, for the message.
        arrays: One per variable.
        variables: Those that the arrays are for.

    Raises:
        DataError: A number, shape or type differs, or a value is NaN or infinite.
    """
    found = [(array.shape, array.dtype) for array in arrays]
    if found != [(tuple(variable.shape), np.dtype(variable.dtype)) for variable in variables]:
        raise DataError(f"{path}: the training state of another network. {RETRAIN}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise DataError(f"{path}: a weight is NaN or infinite, which no training state has. {RETRAIN}")


def resume(path: Path, model: keras.Model) -> dict[str, Any]:
    """`load_state`, or `INITIAL` if nothing was saved yet."""
    return load_state(path, model) if is_saved(path) else INITIAL


def is_saved(path: Path) -> bool:
    """Whether there is a state to resume from.

    A kill may have left only the version before.
    """
    return path.exists() or previous(path).exists()


def get_callback_state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """The state of a callback that has one, as `set_callback_state` takes it."""
    if hasattr(callback, "get_state"):
        return callback.get_state()
    values = {field: getattr(callback, field) for field in _keras_state(callback).model_fields}
    return {field: value.item() if isinstance(value, np.generic) else value for field, value in values.items()}


def set_callback_state(callback: keras.callbacks.Callback, state: dict[str, Any]) -> None:
    """Restores the state of a callback that has one.

    Raises:
        ConfigError: A field is missing, unknown or of a wrong type.
    """
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    else:
        checked = parse(state, _keras_state(callback), type(callback).__name__)
        for field, value in checked.model_dump().items():
            setattr(callback, field, value)


def restore_callbacks(
    path: Path, callbacks: Iterable[keras.callbacks.Callback], states: dict[str, dict[str, Any]]
) -> None:
    """Restores the state of callbacks from the metadata of a training state.

    Each callback is found by its class.

    Args:
        path: The file of the training state, for messages.
        callbacks: Those whose state was stored.
        states: `callbacks` of the metadata.

    Raises:
        DataError: The state is that of other callbacks or is not valid, or a file that belongs to it is missing.
    """
    expected = _with_state(callbacks)
    if set(states) != set(expected):
        raise DataError(
            f"{path}: the state of the callbacks {shortened(', '.join(sorted(states)) or 'none')}, expected "
            f"{', '.join(sorted(expected)) or 'none'}. {RETRAIN}"
        )
    with _explain_invalid(path):
        for name, callback in expected.items():
            set_callback_state(callback, states[name])


def _with_state(callbacks):
    """{class name: callback} of the callbacks that have a state."""
    return {
        type(callback).__name__: callback
        for callback in callbacks
        if hasattr(callback, "get_state") or _keras_state(callback)
    }


def _keras_state(callback):
    """The schema of the state of a callback of Keras; None if it has no state."""
    return next((schema for kind, schema in KERAS_STATES.items() if isinstance(callback, kind)), None)


@contextlib.contextmanager
def _explain_invalid(path: Path) -> Iterator[None]:
    """Adds the file and what to do to the error of a state that is not valid."""
    try:
        yield
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise DataError(f"{path}: {said}. Damaged, or written by another version of audiotag. {RETRAIN}") from error


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of a compiled model and its optimizer.

    With their values training continues as if it had not stopped.
    """
    return [*model.variables, *model.optimizer.variables]
