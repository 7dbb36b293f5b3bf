"""Properties of every layer."""

import inspect
import json
import pkgutil
from importlib import import_module

import keras
import numpy as np
import pytest
import tensorflow as tf
from examples import collected

import audiotag.layers
from audiotag.layers import (
    FRONTENDS,
    IMAGE_AUGMENTATIONS,
    IMAGE_PREPROCESSING,
    WAVEFORM_AUGMENTATIONS,
    RandomAugmentation,
)

# Each layer, a value for each of its options, and the shape of its input: [B, ...], None where it may vary. Layers that
# change labels take a list of two.
LAYERS = [example for examples in collected("layers") for example in examples]
RANDOM = [case for case in LAYERS if case[0] in {*IMAGE_AUGMENTATIONS.values(), *WAVEFORM_AUGMENTATIONS.values()}]
LENGTHS = [*range(300, 340, 3), 1600, 1601]


def names(cases):
    return [f"{layer.__name__}-{len(first(shape))}d" for layer, _, shape in cases]


def first(shapes):
    """The shape of the clips, also for layers that take labels too."""
    return shapes[0] if isinstance(shapes, list) else shapes


every_layer = pytest.mark.parametrize(("layer", "options", "shape"), LAYERS, ids=names(LAYERS))
every_random_layer = pytest.mark.parametrize(("layer", "options", "shape"), RANDOM, ids=names(RANDOM))


def clips(shape, batch=3, length=400, seed=0):
    """Noise of that shape, each clip ten times as loud as the one before; for a list of two also labels."""
    if isinstance(shape, list):
        clip_shape, (_, num_classes) = shape
        return [clips(clip_shape, batch, length, seed), np.eye(batch, num_classes, dtype="float32")]
    noise = np.random.default_rng(seed).standard_normal(
        [length if size is None else size for size in (batch, *shape[1:])]
    )
    return (noise * 0.01 * 10.0 ** np.arange(batch).reshape(-1, *[1] * (len(shape) - 1))).astype("float32")


def inputs(shape):
    """The inputs of a functional model of the layer."""
    if isinstance(shape, list):
        return [keras.Input(s[1:], dtype="float32") for s in shape]
    return keras.Input(shape[1:], dtype="float32")


def signature(shape):
    """The input signature of a graph of the layer, one argument."""
    return [[tf.TensorSpec(s) for s in shape] if isinstance(shape, list) else tf.TensorSpec(shape)]


def tensors(outputs):
    """The outputs of the layer as a list: clips, and labels if the layer changes them."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def assert_close(ours, expected):
    for tensor, expected_tensor in zip(tensors(ours), tensors(expected), strict=True):
        np.testing.assert_allclose(np.asarray(tensor), np.asarray(expected_tensor), rtol=1e-5, atol=1e-4)


def test_no_layer_is_missing_from_the_list():
    listed = {layer for layer, _, _ in LAYERS}
    modules = [
        import_module(name) for _, name, _ in pkgutil.walk_packages(audiotag.layers.__path__, "audiotag.layers.")
    ]
    public = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and not name.startswith("_")
    }
    assert public == listed | {RandomAugmentation}  # the base class is abstract
    for table in (WAVEFORM_AUGMENTATIONS, FRONTENDS, IMAGE_PREPROCESSING, IMAGE_AUGMENTATIONS):
        assert set(table.values()) <= listed
    assert {name for name in audiotag.layers.__all__ if not name.isupper()} == {layer.__name__ for layer in public}
    assert all(hasattr(audiotag.layers, name) for name in audiotag.layers.__all__)


@every_layer
def test_round_trip_the_config_equals_what_was_passed(layer, options, shape):
    assert set(options) == set(inspect.signature(layer).parameters) - {"kwargs"}
    config = layer(**options).get_config()
    assert {key: config[key] for key in options} == options
    assert layer.from_config(json.loads(json.dumps(config))).get_config() == config


@every_layer
@pytest.mark.parametrize("length", LENGTHS)
def test_shape_the_computed_shape_is_the_real_shape(layer, options, shape, length):
    built = layer(**options)
    batch = clips(shape, length=length)
    real = [tuple(tensor.shape) for tensor in tensors(built(batch))]
    computed = built.compute_output_shape([s.shape for s in batch] if isinstance(shape, list) else batch.shape)
    assert real == (list(map(tuple, computed)) if isinstance(shape, list) else [tuple(computed)])


@every_layer
def test_shape_unknown_sizes_stay_unknown(layer, options, shape):
    symbolic, real = tensors(layer(**options)(inputs(shape))), tensors(layer(**options)(clips(shape)))
    longer = tensors(layer(**options)(clips(shape, batch=2, length=800)))
    for symbolic_tensor, real_tensor, longer_tensor in zip(symbolic, real, longer, strict=True):
        assert symbolic_tensor.dtype == keras.backend.standardize_dtype(real_tensor.dtype)
        sizes = zip(real_tensor.shape, longer_tensor.shape, strict=True)
        assert symbolic_tensor.shape == tuple(size if size == other else None for size, other in sizes)


@every_layer
def test_batch_independence_a_loud_neighbor_changes_nothing(layer, options, shape):
    built = layer(**options)
    together = tensors(built(clips(shape)))
    for i in range(3):
        alone = keras.tree.map_structure(lambda tensor: tensor[i : i + 1], clips(shape))
        assert_close(built(alone), [tensor[i : i + 1] for tensor in together])


@every_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_of_unknown_batch_and_length_equals_eager(layer, options, shape, jit_compile):
    traced = layer(**options)
    graph = tf.function(lambda x: traced(x), input_signature=signature(shape), jit_compile=jit_compile)
    for batch_size, length in ((1, 400), (3, 401)):
        batch = clips(shape, batch_size, length)
        assert_close(graph(batch), layer(**options)(batch))


@every_random_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_randomness_two_calls_and_two_clips_differ(layer, options, shape, jit_compile):
    built = layer(**options)
    graph = tf.function(lambda x: built(x, training=True), input_signature=signature(shape), jit_compile=jit_compile)
    different = clips(shape, batch=8, length=40)
    same = keras.tree.map_structure(lambda tensor: np.repeat(tensor[:1], 8, axis=0), different)
    if isinstance(shape, list):  # mixing equal clips changes nothing
        same[0] = different[0]
    one, other = tensors(graph(same))[0].numpy(), tensors(graph(same))[0].numpy()
    assert np.any(one != other)
    assert isinstance(shape, list) or np.any(one != one[:1])


@every_random_layer
def test_randomness_one_seed_repeats_eagerly_and_in_a_graph(layer, options, shape):
    one, same, other = layer(**options), layer(**options), layer(**options | {"seed": 4})
    graph = tf.function(lambda x: same(x, training=True), input_signature=signature(shape))
    for _ in range(2):
        drawn = one(clips(shape), training=True)
        assert_close(drawn, graph(clips(shape)))
        assert np.any(tensors(drawn)[0] != tensors(other(clips(shape), training=True))[0])


@every_random_layer
def test_inference_a_random_layer_is_the_identity(layer, options, shape):
    for arguments in ({}, {"training": False}):
        outputs, *labels = tensors(layer(**options)(clips(shape), **arguments))
        np.testing.assert_array_equal(outputs, tensors(clips(shape))[0])
        for label in labels:
            np.testing.assert_array_equal(label[:, :7], clips(shape)[1])  # flips have three more blocks of zeros
            assert not np.any(label[:, 7:])


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_precision_the_dtype_policy_changes_nothing(layer, options, shape, policy):
    expected = tensors(layer(**options)(clips(shape)))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        halved = layer(**options)
        result = tensors(halved(clips(shape)))
        symbolic = tensors(halved(inputs(shape)))
    finally:
        keras.config.set_dtype_policy(before)
    for ours, symbolic_tensor, full in zip(result, symbolic, expected, strict=True):
        assert ours.dtype == full.dtype == symbolic_tensor.dtype == "float32"
        np.testing.assert_array_equal(ours, full)


@every_layer
def test_saving_files_give_the_same_numbers(layer, options, shape, tmp_path):
    batch, symbolic = clips(shape), inputs(shape)
    model = keras.Model(symbolic, layer(**options)(symbolic))
    expected = model(batch)
    model.save(tmp_path / "layer.keras")
    assert_close(keras.models.load_model(tmp_path / "layer.keras")(batch), expected)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(batch), expected)
