"""Properties of a network, checked for every network."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from examples import collected

from audiotag.models import MODELS


def merged(name):
    """The entries of all dictionaries of that name in the tests of networks."""
    return {key: value for entries in collected("models", name) for key, value in entries.items()}


# Each network, a value for every option, and its input shape: None where it may vary.
NETWORKS = merged("EXAMPLES")
NUM_WEIGHTS = merged("NUM_WEIGHTS")  # where the number is published
LENGTHS = merged("LENGTHS")  # that the network accepts, if they are not the ones below
NUM_CLASSES = 80
every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def built(name):
    """One network of each kind, for the tests that do not change it.

    Scales that start at 0 hide the layers before them, so all weights are perturbed and the batch statistics are
    updated once, as if the network had been trained a little.
    """
    options, shape = NETWORKS[name]
    keras.utils.set_random_seed(0)
    model = MODELS[name](shape, NUM_CLASSES, **options)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        scale = 0.1 if len(weight.shape) < 2 else 0.01
        weight.assign(weight + scale * rng.standard_normal(weight.shape, "float32"))
    model(images(name), training=True)
    return model


@functools.cache
def traced(name):
    """The same network as a graph for images of unknown batch size and length."""
    return tf.function(built(name), input_signature=[tf.TensorSpec(built(name).input_shape)])


def lengths(name):
    """Five lengths that the network accepts."""
    return LENGTHS.get(name, (40, 32, 33, 47, 64))


def images(name, batch=3, length=None, seed=0):
    """Noise, each clip ten times as loud as the one before."""
    shape = [length or lengths(name)[0] if size is None else size for size in NETWORKS[name][1]]
    noise = np.random.default_rng(seed).standard_normal((batch, *shape))
    return (noise * 10.0 ** np.arange(batch).reshape(-1, *[1] * len(shape))).astype("float32")


def assert_close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=1e-3, atol=1e-4)


def test_no_network_is_missing_from_the_list():
    assert set(NETWORKS) == set(MODELS)


@pytest.mark.parametrize("name", NUM_WEIGHTS)
def test_the_number_of_weights_is_as_published(name):
    assert built(name).count_params() == NUM_WEIGHTS[name]


@every_network
def test_every_option_is_a_keyword_with_a_default(name):
    parameters = list(inspect.signature(MODELS[name]).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["input_shape", "num_classes"]
    assert {parameter.name for parameter in parameters[2:]} == set(NETWORKS[name][0])
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@every_network
def test_shape_an_image_of_any_length_gives_one_logit_per_class(name):
    options, shape = NETWORKS[name]
    model = built(name)
    assert isinstance(model, keras.Model)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, NUM_CLASSES))
    for length in lengths(name):
        if None in shape:
            logits = traced(name)(images(name, length=length))
        else:  # such a network is built for one size
            image = np.resize(images(name), (3, shape[0], length, shape[2]))
            logits = MODELS[name](image.shape[1:], NUM_CLASSES, **options)(image)
        assert (tuple(logits.shape), logits.dtype) == ((3, NUM_CLASSES), "float32")
        assert np.isfinite(logits).all()


@every_network
def test_batch_independence_a_loud_neighbor_changes_nothing(name):
    together = traced(name)(images(name))
    for i in range(3):
        assert_close(traced(name)(images(name)[i : i + 1]), together[i : i + 1])


@every_network
def test_graph_unknown_batch_and_length_give_the_eager_result(name):
    for batch, length in zip((1, 2), lengths(name)):
        image = images(name, batch, length)
        assert_close(traced(name)(image), built(name)(image))


# Keras tests its own large networks in both half precisions: one is enough here.
HALF_PRECISIONS = [(name, "mixed_float16") for name in NETWORKS]
HALF_PRECISIONS += [(name, "mixed_bfloat16") for name, (options, _) in NETWORKS.items() if "weights" not in options]


@pytest.mark.parametrize(("name", "policy"), HALF_PRECISIONS)
def test_half_precision_gives_float32_logits_close_to_those_of_float32(name, policy):
    options, shape = NETWORKS[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = MODELS[name](shape, NUM_CLASSES, **options)
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(built(name).get_weights())
    logits, expected = np.asarray(model(images(name, 1))), np.asarray(traced(name)(images(name, 1)))
    assert logits.dtype == "float32"
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@every_network
def test_saving_gives_the_same_numbers(name, tmp_path):
    expected = traced(name)(images(name))
    built(name).save(tmp_path / "model.keras")
    assert_close(keras.models.load_model(tmp_path / "model.keras")(images(name)), expected)
    served = tf.Module()
    served.weights = built(name).variables
    served.serve = traced(name)
    tf.saved_model.save(served, tmp_path / "saved", signatures={})
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(images(name)), expected)


@every_network
def test_gradient_reaches_every_weight_and_a_small_step_lowers_the_loss(name):
    model, truth = built(name), np.eye(NUM_CLASSES, dtype="float32")[:2]
    crossentropy = keras.losses.BinaryCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        loss = crossentropy(truth, model(images(name, 2), training=False))
    gradients = tape.gradient(loss, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients):
        assert np.any(gradient != 0), weight.path
    before = model.get_weights()
    try:
        expected = 0.001 * loss  # the decrease that this step along the gradient predicts
        rate = expected / sum(tf.reduce_sum(gradient**2) for gradient in gradients)
        for weight, gradient in zip(model.trainable_variables, gradients):
            weight.assign_sub(rate * gradient)
        lowered = loss - crossentropy(truth, model(images(name, 2), training=False))
    finally:
        model.set_weights(before)
    assert 0.5 * expected < lowered < 1.5 * expected
