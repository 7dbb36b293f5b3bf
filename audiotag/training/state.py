"""The training state on disk: one file from which a stage resumes.

An interrupted stage resumes with the same weights.
"""

import hashlib
import inspect
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from audiotag import files
from audiotag.errors import DataError
from audiotag.runs.directory import RETRAIN, previous

# The metadata: all of the training state but the model's and the optimizer's variables; here before the first step.
# `steps_done` are those of the epoch after `epochs_done`.
INITIAL: dict[str, Any] = {
    "epochs_done": 0,
    "steps_done": 0,
    "stop_training": False,
    "seconds": 0.0,
    "history": [],
    "callbacks": {},
    "metric_state": [],
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
        callbacks: Those whose state to store.
        history: The logs of each epoch done.
        seconds: Time spent on the stage so far.
        steps_done: Steps done of the epoch that is under way.

    Returns:
        The metadata, as `load_state` returns it.

    Raises:
        FloatingPointError: A weight is NaN or infinite. Nothing is written.
    """
    arrays = [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]
    metric_state = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables] if steps_done else []
    if not all(np.isfinite(array).all() for array in [*arrays, *metric_state]):
        raise FloatingPointError("a weight is NaN or infinite")
    metadata = {
        "epochs_done": len(history),
        "steps_done": steps_done,
        "seconds": seconds,
        "history": history,
        "stop_training": bool(model.stop_training),
        "callbacks": {type(callback).__name__: _callback_state(callback) for callback in callbacks},
    }
    arrays = [*arrays, *metric_state, np.frombuffer(json.dumps(metadata).encode(), "uint8")]
    with files.atomic_file(path, keep=previous(path)) as unfinished:
        np.savez(unfinished, *arrays, sha256=np.array(_digest(arrays)))
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
        DataError: Both files are damaged, or belong to another network.
    """
    try:
        arrays = _read_state(path)
    except Exception as error:  # zipfile and NumPy raise a dozen kinds
        try:
            arrays = _read_state(previous(path))
        except Exception:
            raise DataError(
                f"{path}: the training state is damaged ({error}), and there is no usable previous version. {RETRAIN}"
            ) from error
        print(f"{path}: damaged ({error}). Training resumes from {previous(path).name}.", file=sys.stderr)
    metadata = json.loads(arrays.pop().tobytes())
    if not model.optimizer.built:  # or LossScaleOptimizer would count its variables twice
        model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    metric_state = arrays[len(variables) :]
    if [array.shape for array in arrays[: len(variables)]] != [tuple(variable.shape) for variable in variables]:
        raise DataError(f"{path}: the training state of another network. {RETRAIN}")
    for variable, array in zip(variables, arrays):
        variable.assign(array)
    return metadata | {"metric_state": metric_state}


def resume(path: Path, model: keras.Model) -> dict[str, Any]:
    """`load_state`, or `INITIAL` if nothing was saved yet."""
    return load_state(path, model) if is_saved(path) else INITIAL


def is_saved(path: Path) -> bool:
    """Whether there is a state to resume from.

    A kill may have left only the version before.
    """
    return path.exists() or previous(path).exists()


def _read_state(path):
    """The arrays in a file of `save_state`, if their SHA-256 is right."""
    with open(path, "rb") as data:
        if data.read(4) != b"PK\3\4":  # or NumPy would advise to load it unsafely
            raise ValueError("it is not a zip archive")
        data.seek(0)
        with np.load(data) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("it is compressed")
            arrays = dict(file)
    expected = str(arrays.pop("sha256"))
    if expected != _digest(arrays.values()):
        raise ValueError("its SHA-256 is wrong")
    return list(arrays.values())


def _digest(arrays):
    """SHA-256 of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def restore_callbacks(callbacks: Iterable[keras.callbacks.Callback], states: dict[str, dict[str, Any]]) -> None:
    """Restores the state of callbacks from the metadata of a training state.

    Each callback is found by its class.
    """
    for callback in callbacks:
        vars(callback).update(states.get(type(callback).__name__, {}))
        if hasattr(callback, "after_restore"):
            callback.after_restore()


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _callback_state(callback):
    """The attributes of a callback that training changes and JSON can hold; not its constructor arguments."""
    arguments = inspect.signature(type(callback).__init__).parameters
    state = {}
    for key, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        changes = key not in arguments and not key.startswith("_")
        if changes and isinstance(value, (bool, int, float, str, list, type(None))):
            state[key] = value
    return state
