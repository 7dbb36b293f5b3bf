"""Tests of your own components: layers, augmentations, networks and losses.

Each function checks what holds for every component of its kind in audiotag, on any backend of Keras, and raises an
AssertionError at the first property that does not hold: it says which one, how to fix it and what was found. Call them
in a test of your own:

    def test_chirp():
        check_augmentation(Chirp, {"max_db": 6.0, "probability": 0.9, "seed": 3}, (None, None))
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from audiotag.layers.augmentation.random_augmentation import RandomAugmentation

HALF_PRECISIONS = ("mixed_float16", "mixed_bfloat16")


def check_layer(
    layer_class: type[keras.layers.Layer],
    options: dict[str, Any],
    input_shape: Sequence[int | None],
    *,
    lengths: Sequence[int] = (400, 401, 800),
    jit_compile: bool = True,
) -> None:
    """Checks a front end or an image preprocessing layer.

    - Its config holds the options as they were passed, and makes the same layer.
    - `compute_output_shape` gives the real shape; in a model unknown sizes stay unknown, known ones are right.
    - A clip's output does not depend on the other clips of its batch.
    - Outputs and gradients of weights are finite, for noise and for silence.
    - A compiled graph of unknown batch size and length gives the numbers of eager calls.
    - The dtype policy changes nothing: it computes in float32.
    - Loaded from a .keras file, or with TensorFlow from a SavedModel, it gives the same numbers.

    Args:
        layer_class: The class.
        options: A value for each option; in JSON, as in an experiment.
        input_shape: [B, ...], with None for the batch size and for sizes that may vary.
        lengths: Sizes to use for those, at least two different ones.
        jit_compile: Whether XLA, too, must give the same numbers (TensorFlow and JAX).

    Raises:
        AssertionError: The first property that does not hold.

    Example:
        >>> from audiotag.layers import Quantize8Bit
        >>> check_layer(Quantize8Bit, {}, (None, 24, None, 1))
    """
    _check_layer(layer_class, options, tuple(input_shape), lengths, jit_compile)


def check_augmentation(
    layer_class: type[RandomAugmentation],
    options: dict[str, Any],
    input_shape: Sequence[int | None],
    *,
    num_classes: int = 7,
    lengths: Sequence[int] = (400, 401, 800),
    jit_compile: bool = True,
) -> None:
    """Checks a random augmentation, with labels beside the clips.

    - All that `check_layer` checks.
    - At inference it is the identity.
    - While training it has the computed type and shape.
    - One seed repeats, eagerly and in a graph; another seed differs.
    - Two calls of a graph, and two clips of a batch, are changed differently.
    - Only `get_random_transformation` draws.
    - Clips without labels are changed as those with labels, unless the layer changes labels.

    Args:
        layer_class: A subclass of `RandomAugmentation`.
        options: A value for each option, with which nearly every clip changes.
        input_shape: That of the clips, [B, ...], with None for the batch size and for sizes that may vary.
        num_classes: K of the labels [B, K].
        lengths: Sizes to use for those, at least two different ones.
        jit_compile: Whether XLA, too, must give the same numbers (TensorFlow and JAX).

    Raises:
        AssertionError: The first property that does not hold.

    Example:
        >>> from audiotag.layers import Gain
        >>> check_augmentation(Gain, {"min_db": -9.0, "max_db": 9.0, "probability": 1.0, "seed": 3}, (None, None),
        ...                    jit_compile=False)
    """
    name = layer_class.__name__
    with _property(name, "An augmentation must derive from audiotag.layers.RandomAugmentation."):
        assert issubclass(layer_class, RandomAugmentation), f"bases {[base.__name__ for base in layer_class.__bases__]}"
    with _property(name, "An augmentation must accept the options probability and seed through **kwargs, or seed."):
        layer_class(**options | {"seed": 3})
    shapes = [tuple(input_shape), (None, num_classes)]
    _check_layer(layer_class, options, shapes, lengths, jit_compile)
    make = lambda seed=3: layer_class(**options | {"seed": seed})
    batch = _noise(shapes, 3, lengths[0])
    clips, labels = batch

    with _property(name, "At inference an augmentation must be the identity: change clips only while training."):
        for arguments in ({}, {"training": False}):
            outputs, output_labels = map(_array, make()(batch, **arguments))
            np.testing.assert_array_equal(outputs, clips)
            np.testing.assert_array_equal(output_labels[:, :num_classes], labels)
            assert not output_labels[:, num_classes:].any(), "further labels that are not 0"

    with _property(name, "While training the type and the shape must be those that compute_output_spec says."):
        layer = make()
        specs = layer.compute_output_spec(_inputs(shapes), training=True)
        for spec, tensor in zip(specs, layer(batch, training=True), strict=True):
            sizes = [size if known is not None else None for known, size in zip(spec.shape, tensor.shape, strict=True)]
            assert (spec.dtype, list(spec.shape)) == (_dtype(tensor), sizes), f"{spec} and {tuple(tensor.shape)}"

    with _property(
        name,
        "One seed must repeat, eagerly and in a graph, and another seed must differ: draw only with random_selection, "
        "random_uniform, random_integers or seed=self.generator.",
    ):
        one, other, graph = make(), make(seed=4), _compiled(make(), training=True)
        for _ in range(2):
            drawn = one(batch, training=True)
            _assert_close(graph(batch), drawn)
            _assert_different(drawn[0], other(batch, training=True)[0], "two seeds")

    different, _ = many = _noise(shapes, 8, lengths[0])
    equal = np.repeat(different[:1], 8, axis=0)
    for jit in _compilers(jit_compile):
        graph = _compiled(make(), training=True, jit_compile=jit)
        with _property(
            name,
            "Two calls of a graph must be changed differently: draw random numbers with the methods of "
            "RandomAugmentation, not with NumPy or Python.",
        ):
            _assert_different(graph(many)[0], graph(many)[0], "two calls")
        with _property(
            name, "Every clip must be changed differently: draw with a shape that begins with the batch size."
        ):
            changed = _array(graph([equal, many[1]])[0])
            if changed.shape != equal.shape or not np.allclose(changed, equal, rtol=1e-4):  # mixing leaves equal clips
                _assert_different(changed, np.repeat(changed[:1], 8, axis=0), "eight clips")

    with _property(name, "transform_inputs and transform_labels must draw nothing: draw in get_random_transformation."):
        layer = make()
        tensors = [ops.convert_to_tensor(tensor) for tensor in batch]
        transformation = layer.get_random_transformation(tensors[0])
        for method, tensor in ((layer.transform_inputs, tensors[0]), (layer.transform_labels, tensors[1])):
            np.testing.assert_array_equal(
                _array(method(tensor, transformation)), _array(method(tensor, transformation))
            )

    if layer_class.transform_labels is RandomAugmentation.transform_labels:
        with _property(
            name, "Clips without labels must be changed as clips with labels: leave call to the base class."
        ):
            _assert_close(make()(clips, training=True), make()(batch, training=True)[0])


def check_model(
    function: Callable[..., keras.Model],
    input_shape: Sequence[int | None],
    options: dict[str, Any],
    *,
    num_classes: int = 80,
    lengths: Sequence[int] = (40, 41, 64),
    half_precisions: Sequence[str] = HALF_PRECISIONS,
) -> None:
    """Checks a network: a function that builds a Keras model.

    Its arguments are the input shape, the number of classes and options. Its weights
    are perturbed first, as if it had been trained a little.

    - An image of any length gives finite logits [B, K], float32; a network of one size can be built for others.
    - A compiled graph of unknown batch size and length gives the numbers of eager calls; with TensorFlow that
      graph is a SavedModel.
    - A clip's logits do not depend on the other clips of its batch at inference.
    - The gradient reaches every weight, and a small step against it lowers the loss as much as it predicts.
    - Half precision gives float32 logits near those of float32.
    - Loaded from a .keras file it gives the same numbers.

    Args:
        function: The function.
        input_shape: That of an image without the batch size: [M, T, C], or [N, 1] for a waveform, with None
            for sizes that may vary.
        options: A value for each option.
        num_classes: K.
        lengths: Sizes to use for those, or widths to build for if there are none; at least two different ones.
        half_precisions: The dtype policies to check.

    Raises:
        AssertionError: The first property that does not hold.

    Example:
        >>> from audiotag.models import MODELS
        >>> check_model(MODELS["conv_skip"], (24, None, 1), {"filters": [4, 8]}, half_precisions=())
    """
    name, shape = getattr(function, "__name__", str(function)), tuple(input_shape)
    images = lambda batch, length: _noise((None, *shape), batch, length, scale=1.0)
    with _property(name, "A network must be a keras.Model from images of the input shape to one logit per class."):
        model = function(shape, num_classes, **options)
        assert isinstance(model, keras.Model), f"a {type(model).__name__}"
        found = (model.input_shape, model.output_shape)
        assert found == ((None, *shape), (None, num_classes)), f"{found[0]} to {found[1]}"
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:  # scales that start at 0 hide the layers before them
        scale = 0.1 if len(weight.shape) < 2 else 0.01
        weight.assign(weight + scale * rng.standard_normal(weight.shape).astype("float32"))
    model(images(3, lengths[0]), training=True)  # updates the batch statistics

    with tempfile.TemporaryDirectory() as folder:
        with _property(
            name, "A graph of unknown batch size and length must compile: use keras.ops, and sizes by ops.shape."
        ):
            graph = _saved_graph(model, Path(folder)) or _compiled(model)
        together = _array(graph(images(3, lengths[0])))
        with _property(name, "A graph of unknown batch size and length must give the numbers of eager calls."):
            for batch, length in zip((1, 2), lengths):
                _assert_close(graph(images(batch, length)), model(images(batch, length)), rtol=1e-3)
        with _property(name, "An image of any length must give finite float32 logits of shape [B, K]."):
            for length in lengths:
                if None in shape:
                    logits = graph(images(3, length))
                else:
                    size: tuple[Any, ...] = (3, *shape[:-2], length, shape[-1])
                    resized = np.resize(images(3, length), size)
                    logits = function(resized.shape[1:], num_classes, **options)(resized)
                assert (tuple(logits.shape), _dtype(logits)) == ((3, num_classes), "float32"), f"{logits.shape}"
                assert np.isfinite(_array(logits)).all(), f"logits that are not finite at length {length}"
        with _property(
            name, "A clip's logits must not depend on the other clips of its batch: take no statistics over axis 0."
        ):
            for i in range(3):
                _assert_close(graph(images(3, lengths[0])[i : i + 1]), together[i : i + 1], rtol=1e-3)
        with _property(name, "A .keras file must give the same numbers: register the network's layers for saving."):
            model.save(Path(folder) / "model.keras")
            _assert_close(
                keras.models.load_model(Path(folder) / "model.keras")(images(3, lengths[0])), together, rtol=1e-3
            )
    _check_gradient(name, model, images(2, lengths[0]), num_classes)
    for policy in half_precisions:
        with _property(name, f"With {policy} the logits must be float32 and near those of float32: end in float32."):
            with _dtype_policy(policy):
                halved = function(shape, num_classes, **options)
            halved.set_weights(model.get_weights())
            logits, expected = halved(images(1, lengths[0])), _array(model(images(1, lengths[0])))
            assert _dtype(logits) == "float32", _dtype(logits)
            error = np.abs(_array(logits) - expected).max()
            assert error < 0.1 * np.abs(expected).max(), f"a difference of {error}"


def check_loss(
    loss_class: Callable[..., keras.losses.Loss],
    options: dict[str, Any],
    *,
    batch_independent: bool = True,
    jit_compile: bool = True,
) -> None:
    """Checks a loss of truth [B, K], 0 to 1, and logits [B, K].

    - Its config holds the options as they were passed, and makes the same loss.
    - It gives one loss per clip without reduction, and one number with it, float32.
    - The loss of a clip does not depend on its batch.
    - Losses and gradients of extreme logits are finite.
    - A compiled graph of unknown batch size gives the numbers of eager calls.
    - Half-precision logits are computed in float32.

    Args:
        loss_class: A subclass of `keras.losses.Loss`, or a function that returns one, with an option `reduction`.
        options: A value for each option except the reduction.
        batch_independent: False if the loss of a clip depends on its batch on purpose.
        jit_compile: Whether XLA, too, must give the same numbers (TensorFlow and JAX).

    Raises:
        AssertionError: The first property that does not hold.

    Example:
        >>> from audiotag.losses import Focal
        >>> check_loss(Focal, {"gamma": 1.5})
    """
    name = getattr(loss_class, "__name__", str(loss_class))
    truth, logits = _truth_and_logits()
    with _property(
        name, "get_config must return every option as it was passed, and deserializing it must make the same loss."
    ):
        loss = loss_class(reduction="sum", **options)
        config = loss.get_config()
        _assert_contains(config, options | {"reduction": "sum"})
        again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
        assert again.get_config() == config, f"{again.get_config()} and {config}"
        np.testing.assert_array_equal(_array(again(truth, logits)), _array(loss(truth, logits)))
    with _property(name, "call must return one float32 loss per clip, [B]: reduce over the classes only."):
        for reduction, shape in (("none", (len(truth),)), ("sum_over_batch_size", ())):
            value = loss_class(reduction=reduction, **options)(truth, logits)
            assert (tuple(value.shape), _dtype(value)) == (shape, "float32"), f"{tuple(value.shape)}, {_dtype(value)}"
    if batch_independent:
        with _property(name, "The loss of a clip must not depend on its batch: take no statistics over axis 0."):
            loss = loss_class(reduction="none", **options)
            together = _array(loss(truth, logits))
            alone = [_array(loss(truth[i : i + 1], logits[i : i + 1]))[0] for i in range(len(truth))]
            np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    loss = loss_class(**options)
    for jit in _compilers(jit_compile):
        with _property(name, "A graph of unknown batch size must give the numbers of eager calls: use keras.ops."):
            graph = keras.Sequential([keras.layers.Identity()])
            graph.compile(loss=loss, jit_compile=jit)
            for count in (6, 8, 7):
                value = graph.test_on_batch(logits[:count], truth[:count])
                np.testing.assert_allclose(value, _array(loss(truth[:count], logits[:count])), rtol=1e-5)
        with _property(
            name, "The loss and the gradient of extreme logits must be finite: use softplus or log_softmax, not log."
        ):
            model = _Logits(truth.shape)
            model.compile(_GradientOptimizer(), loss=loss, jit_compile=jit)
            for size in (0.0, 100.0, 1e4):
                for sign in (np.sign(truth - 0.5), np.sign(0.5 - truth), np.sign(logits)):  # right, wrong, random
                    model.set_weights([size * sign])
                    value = model.train_on_batch(truth, truth)
                    assert np.isfinite(value), f"a loss of {value} for logits of {size}"
                    assert np.isfinite(model.get_weights()[0]).all(), f"a gradient for logits of {size}"
    for dtype in ("float16", "bfloat16"):
        with _property(name, f"The loss of {dtype} logits must be computed in float32: leave the dtype to Loss."):
            rounded = ops.cast(10 * logits, dtype)
            value = loss(ops.cast(np.round(truth), dtype), rounded)
            assert _dtype(value) == "float32", _dtype(value)
            np.testing.assert_array_equal(_array(value), _array(loss(np.round(truth), ops.cast(rounded, "float32"))))


def _check_layer(layer_class, options, shape, lengths, jit_compile):
    """The properties of `check_layer`; `shape` may be a list of two: those of clips and labels."""
    name = layer_class.__name__
    with _property(
        name, "get_config must return every option as it was passed, and from_config must make the same layer of it."
    ):
        config = layer_class(**options).get_config()
        _assert_contains(config, options)
        again = layer_class.from_config(json.loads(json.dumps(config))).get_config()
        assert again == config, f"{again} and {config}"

    layer, batch = layer_class(**options), _noise(shape, 3, lengths[0])
    expected = layer(batch)
    with _property(name, "compute_output_shape must give the real shape of the output."):
        for length in lengths:
            noise = _noise(shape, 3, length)
            real = [tuple(tensor.shape) for tensor in _tensors(layer(noise))]
            computed = layer.compute_output_shape(_shapes(noise))
            computed = list(map(tuple, computed)) if isinstance(shape, list) else [tuple(computed)]
            assert computed == real, f"computed {computed}, real {real}"
    with _property(
        name,
        "In a model the type and known sizes of the output must be right, and unknown sizes None: compute_output_spec.",
    ):
        symbolic, longer = _tensors(layer(_inputs(shape))), _tensors(layer(_noise(shape, 2, lengths[-1])))
        for spec, one, other in zip(symbolic, _tensors(expected), longer, strict=True):
            sizes = [size if size == same else None for size, same in zip(one.shape, other.shape, strict=True)]
            assert (spec.dtype, list(spec.shape)) == (_dtype(one), sizes), f"{spec}, real {sizes}, {_dtype(one)}"

    with _property(
        name, "A clip's output must not depend on the other clips of its batch: take no statistics over axis 0."
    ):
        for i in range(3):
            alone = [tensor[i : i + 1] for tensor in batch] if isinstance(batch, list) else batch[i : i + 1]
            _assert_close(layer(alone), [_array(tensor)[i : i + 1] for tensor in _tensors(expected)])

    with _property(
        name, "Outputs and gradients must be finite, for silence too: use ops.maximum(x, 1e-7) before log and division."
    ):
        for some in (batch, keras.tree.map_structure(np.zeros_like, batch)):
            output, *_ = _tensors(layer(some))
            assert np.isfinite(_array(output)).all(), "an output that is not finite"
            for weight, gradient in zip(layer.trainable_variables, _gradients(layer, some)):
                assert np.isfinite(gradient).all(), f"a gradient of {weight.path} that is not finite"

    for jit in _compilers(jit_compile):
        with _property(
            name, "A graph of unknown batch size and length must give the numbers of eager calls: use keras.ops."
        ):
            graph = _compiled(layer, jit_compile=jit)
            for size, length in zip((1, 3, 2), (*lengths[:2], lengths[0])):
                noise = _noise(shape, size, length)
                _assert_close(graph(noise), layer(noise))

    for policy in HALF_PRECISIONS:
        with _property(
            name, f"With {policy} the numbers must be those of float32: pass autocast=False to super().__init__."
        ):
            with _dtype_policy(policy):
                halved = layer_class(**options)
                halved(batch)
                halved.set_weights(layer.get_weights())
                result = _tensors(halved(batch))
            for ours, full in zip(result, _tensors(expected), strict=True):
                assert _dtype(ours) == _dtype(full), f"{_dtype(ours)} instead of {_dtype(full)}"
                np.testing.assert_array_equal(_array(ours), _array(full))

    with tempfile.TemporaryDirectory() as folder:
        with _property(
            name,
            "A .keras file and a SavedModel must give the same numbers: decorate the class with "
            "@keras.saving.register_keras_serializable.",
        ):
            symbolic = _inputs(shape)
            model = keras.Model(symbolic, layer(symbolic))
            model.save(Path(folder) / "layer.keras")
            _assert_close(keras.models.load_model(Path(folder) / "layer.keras")(batch), expected)
            graph = _saved_graph(model, Path(folder))
            if graph:
                _assert_close(graph(batch), expected)


def _check_gradient(name, model, images, num_classes):
    """The gradient of a network, and a small step against it."""
    truth = np.eye(num_classes, dtype="float32")[: len(images)]
    crossentropy = keras.losses.BinaryCrossentropy(from_logits=True)
    before = model.get_weights()
    loss = float(_array(crossentropy(truth, model(images, training=False))))
    weights = [_array(weight) for weight in model.trainable_variables]
    gradients = _gradients(model, images, truth, crossentropy)
    with _property(name, "A finite gradient must reach every weight: leave out what the logits do not depend on."):
        for weight, gradient in zip(model.trainable_variables, gradients):
            assert np.isfinite(gradient).all() and gradient.any(), f"the gradient of {weight.path} is 0 or not finite"
    with _property(name, "A small step against the gradient must lower the loss as much as the gradient predicts."):
        expected = 0.001 * loss
        rate = expected / sum(np.square(gradient, dtype="float64").sum() for gradient in gradients)
        try:
            for weight, value, gradient in zip(model.trainable_variables, weights, gradients):
                weight.assign(value - (rate * gradient).astype("float32"))
            lowered = loss - float(_array(crossentropy(truth, model(images, training=False))))
        finally:
            model.set_weights(before)
        assert 0.5 * expected < lowered < 1.5 * expected, f"{lowered} instead of {expected}"


@contextlib.contextmanager
def _property(name: str, sentence: str) -> Iterator[None]:
    """Raises any error of the block as an AssertionError that says which property does not hold."""
    try:
        yield
    except Exception as error:
        found = str(error).strip() if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise AssertionError(f"{name}: {sentence} Found: {found}") from error


@contextlib.contextmanager
def _dtype_policy(policy: str) -> Iterator[None]:
    """Layers that are created during the block have this dtype policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class _AsTraining(keras.Model):
    """Calls a layer with a fixed `training`; returns only its first output if asked."""

    def __init__(self, layer, training, *, first=False):
        super().__init__(name="as_training")
        self.layer, self.as_training, self.first = layer, training, first

    def call(self, inputs):
        outputs = self.layer(inputs, training=self.as_training)
        return _tensors(outputs)[0] if self.first else outputs


class _Logits(keras.Model):
    """Returns its weight, whatever the input is."""

    def __init__(self, shape):
        super().__init__(name="logits")
        self.logits = self.add_weight(shape=shape, initializer="zeros", name="logits")

    def call(self, inputs):
        return self.logits + ops.zeros_like(inputs)


class _GradientOptimizer(keras.optimizers.Optimizer):
    """Replaces each weight by its gradient, or by 0 if there is none."""

    def __init__(self):
        super().__init__(learning_rate=1.0)

    def apply(self, grads, trainable_variables=None):
        for gradient, variable in zip(grads, trainable_variables or self._trainable_variables):
            gradient = ops.zeros(variable.shape) if gradient is None else ops.convert_to_tensor(gradient)
            variable.assign(ops.cast(gradient, variable.dtype))


def _gradients(layer, inputs, truth=None, loss=None):
    """The gradients of a layer's trainable weights at inference, NumPy; by default of its mean square output."""
    if not layer.trainable_variables:
        return []
    model = _AsTraining(layer, False, first=True)
    truth = np.zeros_like(_array(model(inputs))) if truth is None else truth
    model.compile(_GradientOptimizer(), loss=loss or keras.losses.MeanSquaredError(), run_eagerly=True)
    before = layer.get_weights()
    try:
        model.train_on_batch(inputs, truth)
        return [_array(weight) for weight in layer.trainable_variables]
    finally:
        layer.set_weights(before)


def _compilers(jit_compile):
    """Whether to compile with XLA: what there is to check on this backend."""
    return (False, True) if jit_compile and keras.backend.backend() != "torch" else (False,)


def _compiled(layer, *, training=False, jit_compile=False):
    """A compiled function of a layer; with TensorFlow sizes that differ between its calls are unknown in its graph."""
    model = _AsTraining(layer, training)
    model.compile(jit_compile=jit_compile)
    return model.predict_on_batch


def _saved_graph(model, folder):
    """A SavedModel of a model, a graph in which sizes are unknown if the model's are; None without TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return None
    model.export(folder / "saved", verbose=False)
    return keras.layers.TFSMLayer(folder / "saved", call_endpoint="serve")


def _noise(shape, batch, length, scale=0.01):
    """Noise of that shape, each clip ten times as loud as the one before; for a list of two also labels."""
    if isinstance(shape, list):
        return [_noise(shape[0], batch, length, scale), np.eye(batch, shape[1][1], dtype="float32")]
    sizes = [batch, *(length if size is None else size for size in shape[1:])]
    loudness = scale * 10.0 ** np.arange(batch).reshape(-1, *[1] * (len(shape) - 1))
    return (np.random.default_rng(0).standard_normal(sizes) * loudness).astype("float32")


def _truth_and_logits(count=8, num_classes=9):
    """Truth and logits of clips without labels, with all, with one, with mixed and with soft labels."""
    rng = np.random.default_rng(0)
    truth = np.eye(count, num_classes)
    truth[0], truth[1] = 0, 1
    truth[3:5] = 0.7 * truth[3:5] + 0.3 * truth[5:7]
    truth[5] = rng.uniform(size=num_classes)
    return truth.astype("float32"), rng.normal(0, 3, truth.shape).astype("float32")


def _inputs(shape):
    """The inputs of a functional model."""
    if isinstance(shape, list):
        return [_inputs(one) for one in shape]
    return keras.Input(shape[1:], dtype="float32")


def _shapes(batch):
    return [tensor.shape for tensor in batch] if isinstance(batch, list) else batch.shape


def _tensors(outputs):
    """The outputs of a layer as a list."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _array(tensor):
    return ops.convert_to_numpy(tensor)


def _dtype(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def _assert_close(ours, expected, rtol=1e-5):
    for one, other in zip(_tensors(ours), _tensors(expected), strict=True):
        np.testing.assert_allclose(_array(one), _array(other), rtol=rtol, atol=1e-4)


def _assert_different(one, other, what):
    one, other = _array(one), _array(other)
    assert one.shape != other.shape or (one != other).any(), f"{what} with equal results"


def _assert_contains(config, options):
    for key, value in options.items():
        assert key in config, f"no {key!r} in the config"
        assert config[key] == value, f"{key!r} is {config[key]!r} instead of {value!r}"
