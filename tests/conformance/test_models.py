"""The laws of a network, over every network."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from audiotag.models import MODELS

# Each network, a value for every option it has, and the shape of a picture or a waveform: None where it may vary.
NETWORKS = {
    "conv_skip": ({"filters": (8, 16, 24), "leak": 0.2, "dropout": 0.3}, (24, None, 1)),
    "xresnet18": ({"attention": True}, (24, None, 1)),
    "xresnet34": ({"attention": False}, (24, None, 1)),
    "xresnet50": ({"attention": True}, (24, None, 1)),
    "vgg_gap": ({"width": 4, "dropout_scale": 0.5}, (47, None, 1)),
    "conv1d": ({}, (None, 1)),
    "conv2d": ({}, (20, 40, 1)),
    "densenet169": ({"weights": None}, (32, None, 3)),
    "resnet50": ({"weights": None}, (32, None, 3)),
    "mobilenet": ({"weights": None}, (32, None, 3)),
    "mobilenet_v2": ({"weights": None}, (32, 40, 3)),
    "convnext_tiny": ({"weights": None, "frozen": False}, (32, None, 3)),
}
NUM_CLASSES = 80
COUNTS = {  # of weights, of those whose number is published
    "conv1d": 400_644,
    "densenet169": 12_776_080,
    "resnet50": 23_751_632,
    "mobilenet": 3_310_864,
    "mobilenet_v2": 2_360_464,
    "convnext_tiny": 27_818_592 + 63_056,
}
LENGTHS = {"vgg_gap": (200, 191, 192, 255, 256), "conv1d": (1700, 1616, 1617, 1999, 2048)}
every_network = pytest.mark.parametrize("name", NETWORKS)


@functools.cache
def built(name):
    """One network of each kind, for the laws that leave it as it is.

    Scales that begin at 0 silence what lies behind them, so its weights are moved a little, as if it had begun to
    learn, and it has heard one batch.
    """
    options, shape = NETWORKS[name]
    keras.utils.set_random_seed(0)
    model = MODELS[name](shape, NUM_CLASSES, **options)
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        scale = 0.1 if len(weight.shape) < 2 else 0.01
        weight.assign(weight + scale * rng.standard_normal(weight.shape, "float32"))
    model(pictures(name), training=True)
    return model


@functools.cache
def traced(name):
    """The same network as a graph for pictures of unknown batch size and length."""
    return tf.function(built(name), input_signature=[tf.TensorSpec(built(name).input_shape)])


def lengths(name):
    """Five lengths that the network hears."""
    return LENGTHS.get(name, (40, 32, 33, 47, 64))


def pictures(name, batch=3, length=None, seed=0):
    """Noise, each clip ten times as loud as the one before."""
    shape = [length or lengths(name)[0] if size is None else size for size in NETWORKS[name][1]]
    noise = np.random.default_rng(seed).standard_normal((batch, *shape))
    return (noise * 10.0 ** np.arange(batch).reshape(-1, *[1] * len(shape))).astype("float32")


def assert_close(ours, expected):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(expected), rtol=1e-3, atol=1e-4)


def test_no_network_is_missing_from_the_list():
    assert set(NETWORKS) == set(MODELS)


@pytest.mark.parametrize("name", COUNTS)
def test_the_weights_are_as_many_as_published(name):
    assert built(name).count_params() == COUNTS[name]


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
def test_shape_a_picture_of_any_length_gives_a_logit_a_class(name):
    options, shape = NETWORKS[name]
    model = built(name)
    assert isinstance(model, keras.Model)
    assert (model.input_shape, model.output_shape) == ((None, *shape), (None, NUM_CLASSES))
    for length in lengths(name):
        if None in shape:
            logits = traced(name)(pictures(name, length=length))
        else:  # such a network is built for one size
            picture = np.resize(pictures(name), (3, shape[0], length, shape[2]))
            logits = MODELS[name](picture.shape[1:], NUM_CLASSES, **options)(picture)
        assert (tuple(logits.shape), logits.dtype) == ((3, NUM_CLASSES), "float32")
        assert np.isfinite(logits).all()


@every_network
def test_solitude_a_loud_neighbour_changes_nothing(name):
    together = traced(name)(pictures(name))
    for i in range(3):
        assert_close(traced(name)(pictures(name)[i : i + 1]), together[i : i + 1])


@every_network
def test_graph_unknown_batch_and_length_give_what_eager_gives(name):
    for batch, length in zip((1, 2), lengths(name)):
        picture = pictures(name, batch, length)
        assert_close(traced(name)(picture), built(name)(picture))


# The networks of Keras are large, and that they know both halves is Keras' affair: one will do.
HALVES = [(name, "mixed_float16") for name in NETWORKS]
HALVES += [(name, "mixed_bfloat16") for name, (options, _) in NETWORKS.items() if "weights" not in options]


@pytest.mark.parametrize(("name", "policy"), HALVES)
def test_half_the_logits_are_float32_and_nearly_the_same(name, policy):
    options, shape = NETWORKS[name]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = MODELS[name](shape, NUM_CLASSES, **options)
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(built(name).get_weights())
    logits, expected = np.asarray(model(pictures(name, 1))), np.asarray(traced(name)(pictures(name, 1)))
    assert logits.dtype == "float32"
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()


@every_network
def test_return_files_give_the_same_numbers(name, tmp_path):
    expected = traced(name)(pictures(name))
    built(name).save(tmp_path / "model.keras")
    assert_close(keras.models.load_model(tmp_path / "model.keras")(pictures(name)), expected)
    served = tf.Module()
    served.weights = built(name).variables
    served.serve = traced(name)
    tf.saved_model.save(served, tmp_path / "saved", signatures={})
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(pictures(name)), expected)


@every_network
def test_life_every_weight_feels_the_loss_and_a_small_step_lowers_it(name):
    model, truth = built(name), np.eye(NUM_CLASSES, dtype="float32")[:2]
    crossentropy = keras.losses.BinaryCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        loss = crossentropy(truth, model(pictures(name, 2), training=False))
    gradients = tape.gradient(loss, model.trainable_variables)
    for weight, gradient in zip(model.trainable_variables, gradients):
        assert np.any(gradient != 0), weight.path
    before = model.get_weights()
    try:
        hoped = 0.001 * loss  # so much lower it must be after a step along the gradient
        rate = hoped / sum(tf.reduce_sum(gradient**2) for gradient in gradients)
        for weight, gradient in zip(model.trainable_variables, gradients):
            weight.assign_sub(rate * gradient)
        lowered = loss - crossentropy(truth, model(pictures(name, 2), training=False))
    finally:
        model.set_weights(before)
    assert 0.5 * hoped < lowered < 1.5 * hoped
