"""Flips bits of Keras' own files one at a time and counts how loading them ends."""

import sys
import warnings
from pathlib import Path

import keras
import numpy as np


def numbers(model):
    return [np.array(variable) for variable in (*model.variables, *model.optimizer.variables)]


def outcome(load, expected):
    """How loading a file ends: refused, with the saved numbers, or with other numbers."""
    try:
        model = load()
    except Exception:
        return "refused"
    return "harmless" if all(map(np.array_equal, numbers(model), expected)) else "loaded as other numbers"


def main(folder, num_flips):
    warnings.simplefilter("ignore")
    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(60), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((2, 40)), np.ones((2, 2)))
    expected = numbers(model)
    for name, save, load in [
        ("model.weights.h5", model.save_weights, lambda path: model.load_weights(path) or model),
        ("model.keras", model.save, keras.models.load_model),
    ]:
        path = Path(folder) / name
        save(path)
        content, counts = path.read_bytes(), {}
        for bit in range(0, 8 * len(content), 8 * len(content) // int(num_flips)):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            result = outcome(lambda: load(path), expected)
            counts[result] = counts.get(result, 0) + 1
        print(f"flips in {name}: {counts}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
