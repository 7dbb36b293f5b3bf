"""Weights and whole training states on disk: each file is written whole, or the one before it stays."""

import hashlib
import inspect
import json
import sys
import zipfile

import keras
import numpy as np

from audiotag import files
from audiotag.errors import DataError

# The notes of a training that has not begun; `steps_done` are those of the epoch after `epochs_done`.
FRESH = {"epochs_done": 0, "steps_done": 0, "stop_training": False, "history": [], "callbacks": {}, "measured": []}


def save_state(path, model, callbacks, history, *, steps_done=0):
    """Writes all that training needs to go on as if it had never stopped, in one file; the one before is kept.

    That is: weights, statistics and random generators of the model, the optimizer's
    variables, the numbers that the callbacks keep, and the logs of the epochs done;
    within an epoch also the steps done and what the metrics have summed up.

    Returns:
        The notes, as `load_state` will give them.

    Raises:
        FloatingPointError: A weight is NaN or infinite. Nothing is written.
    """
    arrays = [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]
    measured = [keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables] if steps_done else []
    if not all(np.isfinite(array).all() for array in [*arrays, *measured]):
        raise FloatingPointError("a weight is NaN or infinite")
    notes = {
        "epochs_done": len(history),
        "steps_done": steps_done,
        "history": history,
        "stop_training": bool(model.stop_training),
        "callbacks": {type(callback).__name__: _memory(callback) for callback in callbacks},
    }
    arrays = [*arrays, *measured, np.frombuffer(json.dumps(notes).encode(), "uint8")]
    with files.whole_file(path, keep=before(path)) as unfinished:
        np.savez(unfinished, *arrays, sha256=np.array(_digest(arrays)))
    return notes | {"measured": measured}


def before(path):
    """Where the file is kept that was at `path` before the one that is there."""
    return path.with_name(f"before-{path.name}")


def forget_state(path):
    """Removes the state of a training that is finished, and all that was kept beside it for the day it is damaged."""
    for kept in (path, *path.parent.glob(before(path.with_name("*")).name)):
        kept.unlink(missing_ok=True)


def load_state(path, model):
    """Puts what `save_state` wrote back into a compiled model; where that is damaged, what it wrote before.

    Returns:
        The notes, with the keys of `FRESH`.

    Raises:
        DataError: No file is whole, or it belongs to another network.
    """
    try:
        arrays = _read_state(path)
    except Exception as error:  # zipfile and NumPy raise a dozen kinds
        try:
            arrays = _read_state(before(path))
        except Exception:
            raise DataError(
                f"{path}: the training state is damaged ({error}), and there is no whole one before it. "
                f"Start this run anew with --restart."
            ) from error
        print(f"{path}: damaged ({error}). Training goes on from {before(path).name}.", file=sys.stderr)
    notes = json.loads(arrays.pop().tobytes())
    if not model.optimizer.built:  # or LossScaleOptimizer would count its variables twice
        model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    measured = arrays[len(variables) :]
    if [array.shape for array in arrays[: len(variables)]] != [tuple(variable.shape) for variable in variables]:
        raise DataError(f"{path}: the training state of another network. Start this run anew with --restart.")
    for variable, array in zip(variables, arrays):
        variable.assign(array)
    return notes | {"measured": measured}


def resume(path, model):
    """`load_state`, or `FRESH` where nothing was saved yet."""
    return load_state(path, model) if is_saved(path) else FRESH


def is_saved(path):
    """Whether there is a state to go on from; a kill may have left the one before alone."""
    return path.exists() or before(path).exists()


def _read_state(path):
    """The arrays in a file of `save_state`, if they are those that were written."""
    with open(path, "rb") as data:
        if data.read(4) != b"PK\3\4":  # or NumPy would advise to load it unsafely
            raise ValueError("it is no archive")
        data.seek(0)
        with np.load(data) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("it is packed")
            arrays = dict(file)
    expected = str(arrays.pop("sha256"))
    if expected != _digest(arrays.values()):
        raise ValueError("its SHA-256 is another")
    return list(arrays.values())


def _digest(arrays):
    """SHA-256 of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def restore_callbacks(callbacks, memories):
    """Gives callbacks of the same kinds the numbers back that `save_state` found in them."""
    for callback in callbacks:
        vars(callback).update(memories.get(type(callback).__name__, {}))
        if hasattr(callback, "take_back"):
            callback.take_back()


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _memory(callback):
    """What a callback remembers and JSON can hold: patience counters, best values, rows; not what it was told."""
    told = inspect.signature(type(callback).__init__).parameters
    memory = {}
    for key, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        remembered = key not in told and not key.startswith("_")
        if remembered and isinstance(value, (bool, int, float, str, list, type(None))):
            memory[key] = value
    return memory
