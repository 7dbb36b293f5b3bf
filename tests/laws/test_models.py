"""The laws of a network, over every network."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.models import MODELS

# Each network, a value for every option it has, and the shape of a picture it takes.
NETWORKS = [
    ("conv_skip", {"filters": (8, 16, 24), "leak": 0.2, "dropout": 0.3}, (24, None, 1)),
    ("densenet169", {"weights": None}, (32, None, 3)),
]
every_network = pytest.mark.parametrize(("name", "options", "shape"), NETWORKS, ids=[name for name, *_ in NETWORKS])


@functools.cache
def built(name):
    """One network of each kind, for the laws that leave it as it is."""
    _, options, shape = next(case for case in NETWORKS if case[0] == name)
    keras.utils.set_random_seed(0)
    return MODELS[name](shape, 7, **options)


@functools.cache
def traced(name):
    """The same network as a graph for pictures of unknown batch size and length."""
    return tf.function(built(name), input_signature=[tf.TensorSpec(built(name).input_shape)])


def pictures(shape, batch=3, length=40, seed=0):
    noise = np.random.default_rng(seed).standard_normal((batch, shape[0], length, shape[2]))
    return (noise * 10.0 ** np.arange(batch).reshape(-1, 1, 1, 1)).astype("float32")


def assert_close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=1e-3, atol=1e-4)


def test_no_network_is_missing_from_the_list():
    assert {name for name, *_ in NETWORKS} == set(MODELS)


@every_network
def test_every_option_is_a_keyword_with_a_default(name, options, shape):
    parameters = list(inspect.signature(MODELS[name]).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["input_shape", "num_classes"]
    assert {parameter.name for parameter in parameters[2:]} == set(options)
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@every_network
@pytest.mark.parametrize("length", [32, 33, 47, 64])
def test_shape_a_picture_of_any_length_gives_a_logit_a_class(name, options, shape, length):
    model = built(name)
    assert isinstance(model, keras.Model)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, 7))
    logits = model(pictures(shape, length=length))
    assert (tuple(logits.shape), logits.dtype) == ((3, 7), "float32")


@every_network
def test_solitude_a_loud_neighbour_changes_nothing(name, options, shape):
    together = built(name)(pictures(shape))
    for i in range(3):
        assert_close(built(name)(pictures(shape)[i : i + 1]), together[i : i + 1])


@every_network
def test_graph_unknown_batch_and_length_give_what_eager_gives(name, options, shape):
    for batch, length in ((1, 40), (2, 41)):
        assert_close(traced(name)(pictures(shape, batch, length)), built(name)(pictures(shape, batch, length)))


@every_network
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_the_logits_are_float32_and_nearly_the_same(name, options, shape, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = MODELS[name](shape, 7, **options)
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(built(name).get_weights())
    logits, expected = np.asarray(model(pictures(shape, 1))), np.asarray(built(name)(pictures(shape, 1)))
    assert logits.dtype == "float32"
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@every_network
def test_return_files_give_the_same_numbers(name, options, shape, tmp_path):
    expected = built(name)(pictures(shape))
    built(name).save(tmp_path / "model.keras")
    assert_close(keras.models.load_model(tmp_path / "model.keras")(pictures(shape)), expected)
    served = tf.Module()
    served.weights = built(name).variables
    served.serve = traced(name)
    tf.saved_model.save(served, tmp_path / "saved")
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(pictures(shape)), expected)


@every_network
def test_life_every_weight_feels_the_loss(name, options, shape):
    model = built(name)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(pictures(shape, 2), training=False) ** 2)
    for weight, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert np.any(gradient != 0), weight.path
