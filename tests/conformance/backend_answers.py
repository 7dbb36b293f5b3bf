"""Writes what every layer, loss and metric and one small tagger answer on the backend that KERAS_BACKEND names.

    KERAS_BACKEND=jax python tests/conformance/backend_answers.py answers.npz
"""

import contextlib
import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np

from audiotag.config.loading import load
from audiotag.losses import LOSSES
from audiotag.metrics import Lwlrap
from audiotag.runs.building import build_tagger

ROOT = Path(__file__).parents[2]
DICE = 'augment=[{"name": "flip_labels"}, {"name": "mixup", "end_epoch": 3}, {"name": "time_mask", "max_width": 9}]'


def layer_laws():
    """The module with the list of all layers."""
    spec = importlib.util.spec_from_file_location("layer_laws", ROOT / "tests" / "conformance" / "test_layers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def thrown_by_numpy():
    """Every backend has dice of its own; inside the block all throw NumPy's."""
    rng = np.random.default_rng(5)
    own = {name: getattr(keras.random, name) for name in ("uniform", "normal", "randint")}

    def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
        return keras.ops.convert_to_tensor((minval + (maxval - minval) * rng.random(shape)).astype(dtype or "float32"))

    def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
        return keras.ops.convert_to_tensor(rng.normal(mean, stddev, shape).astype(dtype or "float32"))

    def randint(shape, minval, maxval, dtype="int32", seed=None):
        return keras.ops.convert_to_tensor(rng.integers(minval, maxval, shape).astype(dtype))

    try:
        keras.random.uniform, keras.random.normal, keras.random.randint = uniform, normal, randint
        yield
    finally:
        vars(keras.random).update(own)


def layer_answers():
    """(name, array): what each layer makes of noise, and each disturbance of the same throws everywhere.

    Then what its own dice do: that they are alive and give finite numbers.
    """
    laws = layer_laws()
    for index, (layer, options, shape) in enumerate(laws.LAYERS):
        built, sound = layer(**options), keras.tree.map_structure(keras.ops.convert_to_tensor, laws.clips(shape))
        for number, tensor in enumerate(laws.tensors(built(sound))):
            yield f"{layer.__name__} {index}.{number}", keras.ops.convert_to_numpy(tensor)
        if (layer, options, shape) in laws.RANDOM:
            with thrown_by_numpy():
                for number, tensor in enumerate(laws.tensors(built(sound, training=True))):
                    yield f"{layer.__name__} {index}.{number} disturbed", keras.ops.convert_to_numpy(tensor)
            one, other = (keras.ops.convert_to_numpy(laws.tensors(built(sound, training=True))[0]) for _ in range(2))
            alive = one.shape != other.shape or np.any(one != other)
            yield f"{layer.__name__} {index} alive", np.array([alive and np.isfinite(one).all()])


def loss_answers():
    """(name, array): each loss of random and of extreme logits, and the metric."""
    rng = np.random.default_rng(0)
    truth = np.eye(6, 5, dtype="float32")[:, ::-1].copy()
    for name, loss in LOSSES.items():
        for scale in (1, 100):
            logits = (scale * rng.standard_normal((6, 5))).astype("float32")
            yield f"loss {name} {scale}", keras.ops.convert_to_numpy(loss()(truth, logits))
    metric = Lwlrap(5)
    metric.update_state(truth, logits)
    yield "metric lwlrap", keras.ops.convert_to_numpy(metric.result())


def tagger_answers():
    """(name, array): the logits of a small tagger of known weights, and whether a step of training stays finite."""
    changes = ["window.seconds=0.5", "model.filters=[8,16]", DICE]
    experiment = load(ROOT / "experiments" / "demo.json", changes)
    tagger = build_tagger(experiment, sample_rate=16_000, num_classes=5)
    rng = np.random.default_rng(1)
    for variable in tagger.network.variables:  # variances must not be negative
        variable.assign(np.abs(0.2 * rng.standard_normal(variable.shape)))
    waveform = rng.uniform(-1, 1, (2, 20_000)).astype("float32")
    yield "tagger logits", keras.ops.convert_to_numpy(tagger(waveform))
    tagger.compile(optimizer="adam", loss=LOSSES["binary_crossentropy"](), metrics=[Lwlrap(5)])
    window, truth = waveform[:, : tagger.window_samples], np.eye(2, 5, dtype="float32")
    before = keras.ops.convert_to_numpy(tagger.network.trainable_variables[0])
    history = tagger.fit((window, truth), truth, epochs=2, verbose=0, validation_data=(waveform, truth)).history
    moved = np.any(before != keras.ops.convert_to_numpy(tagger.network.trainable_variables[0]))
    yield "tagger trains", np.array([moved and all(np.isfinite(value).all() for value in history.values())])


if __name__ == "__main__":
    np.savez(sys.argv[1], **dict([*layer_answers(), *loss_answers(), *tagger_answers()]))
