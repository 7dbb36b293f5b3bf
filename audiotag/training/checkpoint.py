"""Weights and whole training states on disk: each file is written whole, or the one before it stays."""

import inspect
import json

import keras
import numpy as np

from audiotag import files
from audiotag.errors import DataError

# The notes of a training that has not begun.
FRESH = {"epochs_done": 0, "stop_training": False, "history": [], "callbacks": {}}


def save_weights(model, path):
    """Writes a model's weights; `path` ends in .weights.h5."""
    with files.whole_file(path) as unfinished:
        model.save_weights(unfinished)


def load_weights(model, path):
    """Reads weights that `save_weights` wrote for a model of the same experiment.

    Raises:
        DataError: The file is absent, damaged, or holds the weights of another network.
    """
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: no weights for this network: {error}") from error


def save_state(path, model, callbacks, history):
    """Writes all that training needs to go on as if it had never stopped, in one file.

    That is: weights, statistics and random generators of the model, the optimizer's
    variables, the numbers that the callbacks keep, and the logs of the epochs done.
    """
    arrays = [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]
    notes = {
        "epochs_done": len(history),
        "history": history,
        "stop_training": bool(model.stop_training),
        "callbacks": {type(callback).__name__: _memory(callback) for callback in callbacks},
    }
    with files.whole_file(path) as unfinished:
        np.savez(unfinished, *arrays, notes=np.frombuffer(json.dumps(notes).encode(), "uint8"))


def load_state(path, model):
    """Puts what `save_state` wrote back into a compiled model.

    Returns:
        The notes, with the keys of `FRESH`.

    Raises:
        DataError: The file is damaged or belongs to another network.
    """
    try:
        with open(path, "rb") as data, np.load(data) as file:
            arrays = dict(file)  # reads every byte, and so checks the archive's CRCs
        notes = json.loads(arrays.pop("notes").tobytes())
    except Exception as error:  # zipfile and NumPy raise a dozen kinds
        raise DataError(
            f"{path}: the training state is damaged ({error}). Start this run anew with --restart."
        ) from error
    if not model.optimizer.built:  # or LossScaleOptimizer would count its variables twice
        model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    if [array.shape for array in arrays.values()] != [tuple(variable.shape) for variable in variables]:
        raise DataError(f"{path}: the training state of another network. Start this run anew with --restart.")
    for variable, array in zip(variables, arrays.values()):
        variable.assign(array)
    return notes


def restore_callbacks(callbacks, memories):
    """Gives callbacks of the same kinds the numbers back that `save_state` found in them."""
    for callback in callbacks:
        vars(callback).update(memories.get(type(callback).__name__, {}))


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
