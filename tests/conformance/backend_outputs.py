"""Writes the outputs of layers, losses, metrics, published networks and a tagger on the backend in KERAS_BACKEND.

KERAS_BACKEND=jax python tests/conformance/backend_outputs.py outputs.npz
"""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np

from audiotag.config.loading import load
from audiotag.layers import FRONTENDS, RandomAugmentation, ToImage
from audiotag.losses import LOSSES
from audiotag.metrics import (
    AreaUnderRoc,
    BinaryAccuracy,
    CategoricalAccuracy,
    FBeta,
    LabelRankingAveragePrecision,
    Lwlrap,
    MeanAveragePrecision,
    MeanAveragePrecisionAtK,
)
from audiotag.models import MODELS
from audiotag.runs.building import build_tagger
from audiotag.runs.pretrained import PUBLISHED

ROOT = Path(__file__).parents[2]
AUGMENT = (
    'augment=[{"name": "flips_as_classes"}, {"name": "mixup", "stop_epoch": 3}, {"name": "time_mask", "max_width": 9}]'
)


@contextlib.contextmanager
def numpy_draws():
    """Replaces the random numbers of the backend by NumPy's, so that all backends draw the same."""
    rng = np.random.default_rng(5)
    original = {name: getattr(keras.random, name) for name in ("uniform", "normal", "randint")}

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
        vars(keras.random).update(original)


@contextlib.contextmanager
def zeros_as_initial_weights():
    """Kernels are built as zeros, of which JAX, unlike of random numbers, compiles nothing for each shape."""
    original = keras.initializers.VarianceScaling.__call__
    zeros = lambda initializer, shape, dtype=None: keras.ops.convert_to_tensor(np.zeros(shape, dtype or "float32"))
    try:
        keras.initializers.VarianceScaling.__call__ = zeros
        yield
    finally:
        keras.initializers.VarianceScaling.__call__ = original


def layer_outputs():
    """(name, array): outputs of each layer on noise, and of each augmentation with the same draws on every backend.

    For the backend's own draws: whether two calls differ and give finite numbers.
    """
    sys.path.append(str(ROOT / "tests"))  # the tests' own modules, as for pytest
    from examples import collected

    for index, (layer, options, shape) in enumerate(
        example for examples in collected("layers") for example in examples
    ):
        sizes = [400 if size is None else size for size in (3, *shape[1:])]
        loudness = 10.0 ** np.arange(-2, 1).reshape(-1, *[1] * (len(shape) - 1))
        clips = (np.random.default_rng(0).standard_normal(sizes) * loudness).astype("float32")
        is_random = issubclass(layer, RandomAugmentation)
        inputs = keras.tree.map_structure(
            keras.ops.convert_to_tensor, (clips, np.eye(3, 7, dtype="float32")) if is_random else clips
        )
        built = layer(**options)
        for number, tensor in enumerate(keras.tree.flatten(built(inputs))):
            yield f"{layer.__name__} {index}.{number}", keras.ops.convert_to_numpy(tensor)
        if is_random:
            with numpy_draws():
                for number, tensor in enumerate(built(inputs, training=True)):
                    yield f"{layer.__name__} {index}.{number} augmented", keras.ops.convert_to_numpy(tensor)
            one, other = (keras.ops.convert_to_numpy(built(inputs, training=True)[0]) for _ in range(2))
            differ = one.shape != other.shape or np.any(one != other)
            yield f"{layer.__name__} {index} is random", np.array([differ and np.isfinite(one).all()])


def loss_outputs():
    """(name, array): each loss for random and for extreme logits, and each metric."""
    rng = np.random.default_rng(0)
    truth = np.eye(6, 5, dtype="float32")[:, ::-1].copy()
    for name, loss in LOSSES.items():
        for scale in (1, 100):
            logits = (scale * rng.standard_normal((6, 5))).astype("float32")
            yield f"loss {name} {scale}", keras.ops.convert_to_numpy(loss()(truth, logits))
    metrics = [MeanAveragePrecision(5, 6), AreaUnderRoc(5, 6), CategoricalAccuracy(), BinaryAccuracy(), FBeta(5)]
    for metric in [Lwlrap(5), *metrics, LabelRankingAveragePrecision(), MeanAveragePrecisionAtK()]:
        metric.update_state(truth, logits)
        yield f"metric {metric.name}", keras.ops.convert_to_numpy(metric.result())


def published_outputs():
    """(name, array): embeddings and scores of the networks with published weights, here with others."""
    for name in ("yamnet", "mn04"):  # mn10 has the same layers, and more of them
        published = PUBLISHED[name]
        front_end = FRONTENDS[published.frontend](sample_rate=published.sample_rate)
        with zeros_as_initial_weights():
            network = MODELS[name](published.input_shape, 5)
        rng = np.random.default_rng(1)
        for variable in network.variables:  # activations keep their scale
            scale = np.prod(variable.shape[:-1]) ** -0.5 if variable.shape[-1] > 1 else 0.5
            variable.assign(scale * rng.standard_normal(variable.shape))
        outputs = [network.get_layer(published.embeddings).output, network.output]
        waveform = keras.Input((None,))
        model = keras.Model(waveform, keras.Model(network.input, outputs)(ToImage()(front_end(waveform))))
        noise = rng.uniform(-1, 1, (2, 2 * published.sample_rate)).astype("float32")
        for number, array in enumerate(model.predict_on_batch(noise)):
            yield f"published {name}.{number}", array


def tagger_outputs():
    """(name, array): the logits of a small tagger with fixed weights, and whether its training is finite."""
    overrides = ["window.seconds=0.5", "model.filters=[8,16]", AUGMENT]
    experiment = load(ROOT / "experiments" / "demo.json", overrides)
    with zeros_as_initial_weights():
        tagger = build_tagger(experiment, sample_rate=16_000, num_classes=5)
    rng = np.random.default_rng(1)
    for variable in tagger.network.variables:  # variances must not be negative
        variable.assign(np.abs(0.2 * rng.standard_normal(variable.shape)))
    waveform = rng.uniform(-1, 1, (2, 20_000)).astype("float32")
    yield "tagger logits", tagger.predict_on_batch(waveform)
    tagger.compile(
        optimizer="adam",
        loss=LOSSES["binary_crossentropy"](),
        metrics=[Lwlrap(5)],
        validation_metrics=[AreaUnderRoc(5, 2)],
    )
    window, truth = waveform[:, : tagger.window_samples], np.eye(2, 5, dtype="float32")
    before = keras.ops.convert_to_numpy(tagger.network.trainable_variables[0])
    history = tagger.fit((window, truth), truth, epochs=2, verbose=0, validation_data=(waveform, truth)).history
    changed = np.any(before != keras.ops.convert_to_numpy(tagger.network.trainable_variables[0]))
    assert "val_auc" in history and "auc" not in history
    yield "tagger trains", np.array([changed and all(np.isfinite(value).all() for value in history.values())])


if __name__ == "__main__":
    np.savez(sys.argv[1], **dict([*layer_outputs(), *loss_outputs(), *published_outputs(), *tagger_outputs()]))
