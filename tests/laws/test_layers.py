"""The laws of a layer, over every layer."""

import inspect
import json
import pkgutil
from importlib import import_module

import keras
import numpy as np
import pytest
import tensorflow as tf

import audiotag.layers
from audiotag.layers import (
    AUGMENTS,
    FRONTENDS,
    PICTURES,
    EightBit,
    FrequencyMask,
    LogMel,
    RepeatChannels,
    Resize,
    Standardise,
    TimeMask,
    ToPicture,
)

# Each layer, a value for every option it has, and shapes of what it takes: [B, ...], None where it may vary.
LAYERS = [
    (
        LogMel,
        {
            "sample_rate": 16_000,
            "num_bands": 40,
            "fft_length": 512,
            "frame_step": 160,
            "low_hz": 50,
            "high_hz": None,
            "power": 1.0,
            "window_length": 400,
            "padding": "reflect",
            "mel_scale": "htk",
            "norm": None,
            "reference": "max",
            "silence": 1e-8,
            "dynamic_range_db": 60.0,
        },
        (None, None),
    ),
    (ToPicture, {}, (None, None, 24)),
    (Standardise, {}, (None, 24, None, 1)),
    (EightBit, {}, (None, 24, None, 2)),
    (Resize, {"height": 16, "width": 20, "interpolation": "nearest"}, (None, 24, None, 1)),
    (Resize, {"height": 32, "width": 20, "interpolation": "bilinear"}, (None, 24, None, 3)),
    (RepeatChannels, {"count": 3}, (None, 24, None, 1)),
    (TimeMask, {"max_width": 12, "count": 2, "fill": -1.0, "seed": 3}, (None, None, 24)),
    (TimeMask, {"max_width": 12, "count": 1, "fill": 0.0, "seed": 3}, (None, 24, None, 1)),
    (FrequencyMask, {"max_width": 12, "count": 2, "fill": -1.0, "seed": 3}, (None, None, 24)),
    (FrequencyMask, {"max_width": 12, "count": 1, "fill": 0.0, "seed": 3}, (None, 24, None, 1)),
]
RANDOM = [case for case in LAYERS if case[0] in AUGMENTS.values()]
LENGTHS = [*range(300, 340, 3), 1600, 1601]


def names(cases):
    return [f"{layer.__name__}-{len(shape)}d" for layer, _, shape in cases]


every_layer = pytest.mark.parametrize(("layer", "options", "shape"), LAYERS, ids=names(LAYERS))
every_random_layer = pytest.mark.parametrize(("layer", "options", "shape"), RANDOM, ids=names(RANDOM))


def clips(shape, batch=3, length=400, seed=0):
    """Noise of that shape, each clip ten times as loud as the one before."""
    noise = np.random.default_rng(seed).standard_normal(
        [length if size is None else size for size in (batch, *shape[1:])]
    )
    return (noise * 0.01 * 10.0 ** np.arange(batch).reshape(-1, *[1] * (len(shape) - 1))).astype("float32")


def assert_close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=1e-5, atol=1e-4)


def test_no_layer_is_missing_from_the_list():
    listed = {layer for layer, _, _ in LAYERS}
    modules = [
        import_module(f"audiotag.layers.{name}") for _, name, _ in pkgutil.iter_modules(audiotag.layers.__path__)
    ]
    written = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer) and not name.startswith("_")
    }
    assert written == listed
    assert {*FRONTENDS.values(), *PICTURES.values(), *AUGMENTS.values()} <= listed
    assert {name for name in audiotag.layers.__all__ if not name.isupper()} == {layer.__name__ for layer in listed}


@every_layer
def test_round_trip_the_config_is_what_was_passed(layer, options, shape):
    assert set(options) == set(inspect.signature(layer).parameters) - {"kwargs"}
    config = layer(**options).get_config()
    assert {key: config[key] for key in options} == options
    assert layer.from_config(json.loads(json.dumps(config))).get_config() == config


@every_layer
@pytest.mark.parametrize("length", LENGTHS)
def test_shape_the_promise_is_the_truth(layer, options, shape, length):
    waiting = layer(**options)
    picture = clips(shape, length=length)
    assert tuple(waiting(picture).shape) == tuple(waiting.compute_output_shape(picture.shape))


@every_layer
def test_shape_what_is_unknown_stays_unknown(layer, options, shape):
    real = layer(**options)(clips(shape))
    symbolic = layer(**options)(keras.Input(shape[1:]))
    assert symbolic.dtype == keras.backend.standardize_dtype(real.dtype)
    assert symbolic.shape[0] is None
    for promised, found in zip(symbolic.shape, real.shape):
        assert promised in (None, found)
    if layer is not Resize:
        assert symbolic.shape.count(None) == 2


@every_layer
def test_solitude_a_loud_neighbour_changes_nothing(layer, options, shape):
    heard = layer(**options)
    together = heard(clips(shape))
    for i in range(3):
        assert_close(heard(clips(shape)[i : i + 1]), together[i : i + 1])


@every_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph_unknown_batch_and_length_give_what_eager_gives(layer, options, shape, jit_compile):
    traced = layer(**options)
    graph = tf.function(traced, input_signature=[tf.TensorSpec(shape)], jit_compile=jit_compile)
    for batch, length in ((1, 400), (3, 401)):
        picture = clips(shape, batch, length)
        assert_close(graph(picture), layer(**options)(picture))


@every_random_layer
@pytest.mark.parametrize("jit_compile", [False, True])
def test_life_every_call_and_every_clip_draws_anew(layer, options, shape, jit_compile):
    alive = layer(**options)
    graph = tf.function(
        lambda x: alive(x, training=True), input_signature=[tf.TensorSpec(shape)], jit_compile=jit_compile
    )
    ones = np.ones((8, *[40 if size is None else size for size in shape[1:]]), "float32")
    first, second = graph(ones).numpy(), graph(ones).numpy()
    assert np.any(first != second)
    assert np.any(first != first[:1])


@every_random_layer
def test_life_one_seed_repeats_eagerly_and_in_a_graph(layer, options, shape):
    one, same, other = layer(**options), layer(**options), layer(**options | {"seed": 4})
    graph = tf.function(lambda x: same(x, training=True), input_signature=[tf.TensorSpec(shape)])
    for _ in range(2):
        drawn = one(clips(shape), training=True)
        assert_close(drawn, graph(clips(shape)))
        assert np.any(drawn != other(clips(shape), training=True))


@every_random_layer
def test_peace_outside_training_it_is_the_identity(layer, options, shape):
    for arguments in ({}, {"training": False}):
        np.testing.assert_array_equal(layer(**options)(clips(shape), **arguments), clips(shape))


@every_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_the_policy_changes_nothing(layer, options, shape, policy):
    expected = layer(**options)(clips(shape))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        halved = layer(**options)
        result, symbolic = halved(clips(shape)), halved(keras.Input(shape[1:], dtype="float32"))
    finally:
        keras.config.set_dtype_policy(before)
    assert result.dtype == expected.dtype == symbolic.dtype == "float32"
    np.testing.assert_array_equal(result, expected)


@every_layer
def test_return_files_give_the_same_numbers(layer, options, shape, tmp_path):
    picture = clips(shape)
    model = keras.Sequential([keras.Input(shape[1:]), layer(**options)])
    expected = model(picture)
    model.save(tmp_path / "layer.keras")
    assert_close(keras.models.load_model(tmp_path / "layer.keras")(picture), expected)
    model.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(picture), expected)
