"""Properties of every loss."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from examples import collected

from audiotag.losses import LOSSES

# Each loss, and a value for each of its options except the reduction.
(CASES,) = collected("test_losses.py")
NAMES = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]
# As published the loss of a clip is that of its batch.
INDEPENDENT = [case for case in CASES if not case[1].get("published")]
every_independent_loss = pytest.mark.parametrize(
    ("name", "options"), INDEPENDENT, ids=[name for name, _ in INDEPENDENT]
)
every_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
CLASSES = 9


def clips(count=8, spread=3.0, seed=0):
    """Truth and logits of clips without labels, with all, with one, with mixed and with soft labels."""
    rng = np.random.default_rng(seed)
    truth = np.eye(count, CLASSES)
    truth[0], truth[1] = 0, 1
    truth[3:5] = 0.7 * truth[3:5] + 0.3 * truth[5:7]
    truth[5] = rng.uniform(size=CLASSES)
    return truth.astype("float32"), rng.normal(0, spread, truth.shape).astype("float32")


def test_no_loss_is_missing_from_the_list():
    assert {name for name, _ in CASES} == set(LOSSES)


@every_loss
def test_every_option_is_a_keyword_with_a_default(name, options):
    parameters = dict(inspect.signature(LOSSES[name]).parameters)
    parameters.pop("kwargs", None)
    assert set(parameters) == {*options, "reduction"}
    for parameter in parameters.values():
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@every_loss
def test_round_trip_the_config_equals_what_was_passed(name, options):
    loss = LOSSES[name](reduction="sum", **options)
    config = loss.get_config()
    assert {key: config[key] for key in (*options, "reduction")} == options | {"reduction": "sum"}
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert type(again) is type(loss) and again.get_config() == config
    np.testing.assert_array_equal(again(*clips()), loss(*clips()))


@every_loss
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "none"])
def test_shape_one_loss_per_clip_and_one_per_reduced_batch(name, options, reduction):
    loss = LOSSES[name](reduction=reduction, **options)(*clips())
    assert loss.dtype == "float32"
    assert tuple(loss.shape) == ((8,) if reduction == "none" else ())


@every_loss
def test_no_loss_is_negative(name, options):
    assert np.all(np.asarray(LOSSES[name](reduction="none", **options)(*clips())) >= 0)


@every_loss
@pytest.mark.parametrize("jit_compile", [False, True])
def test_loss_and_gradient_of_extreme_logits_are_finite(name, options, jit_compile):
    loss = LOSSES[name](**options)

    @tf.function(jit_compile=jit_compile)
    def slope(truth, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(truth, logits)
        return value, tape.gradient(value, logits)

    truth, logits = clips()
    for size in (0.0, 100.0, 1e4):
        for sign in (np.sign(truth - 0.5), np.sign(0.5 - truth), np.sign(logits)):  # right, wrong, random
            value, gradient = slope(tf.constant(truth), tf.constant(size * sign, "float32"))
            assert np.isfinite(value) and np.all(np.isfinite(gradient))


@every_loss
def test_graph_of_unknown_batch_size_equals_eager(name, options):
    loss = LOSSES[name](**options)
    shape = tf.TensorSpec((None, CLASSES))
    for jit_compile in (False, True):
        graph = tf.function(lambda t, z: loss(t, z), input_signature=[shape, shape], jit_compile=jit_compile)
        for count in (7, 8):
            assert float(graph(*clips(count))) == pytest.approx(float(loss(*clips(count))), rel=1e-5)


@every_loss
def test_the_order_of_classes_and_clips_does_not_matter(name, options):
    rng = np.random.default_rng(1)
    truth, logits = clips()
    loss = LOSSES[name](reduction="none", **options)
    expected = np.asarray(loss(truth, logits))
    classes, order = rng.permutation(CLASSES), rng.permutation(len(truth))
    np.testing.assert_allclose(loss(truth[:, classes], logits[:, classes]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss(truth[order], logits[order]), expected[order], rtol=1e-5, atol=1e-6)


@every_independent_loss
def test_batch_independence_the_loss_of_a_clip_does_not_depend_on_its_batch(name, options):
    loss = LOSSES[name](reduction="none", **options)
    truth, logits = clips()
    for i, in_batch in enumerate(np.asarray(loss(truth, logits))):
        assert float(loss(truth[i : i + 1], logits[i : i + 1])[0]) == pytest.approx(in_batch, rel=1e-5, abs=1e-6)


@every_loss
@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_sample_weights_multiply_the_losses_of_clips(name, options, shape):
    truth, logits = clips()
    weight = np.array([0, 2, 0.5, 1, 0, 3, 1, 1], "float32")
    losses = np.asarray(LOSSES[name](reduction="none", **options)(truth, logits))
    weighted = LOSSES[name](reduction="sum", **options)(truth, logits, sample_weight=weight.reshape(shape))
    assert float(weighted) == pytest.approx((weight * losses).sum(), rel=1e-5)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_logits_are_computed_in_float32(name, options, dtype):
    truth, logits = clips(spread=30.0)
    rounded = tf.cast(logits, dtype)
    loss = LOSSES[name](**options)
    ours = loss(tf.cast(tf.round(truth), dtype), rounded)
    assert ours.dtype == "float32"
    assert float(ours) == float(loss(np.round(truth), tf.cast(rounded, "float32")))


@every_loss
def test_labels_may_be_integers(name, options):
    truth, logits = clips()
    loss = LOSSES[name](**options)
    assert float(loss(np.round(truth).astype("int32"), logits)) == float(loss(np.round(truth), logits))


@every_loss
def test_fit_with_sample_weights_lowers_the_loss(name, options):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    truth, _ = clips()
    inputs = rng.normal(size=(8, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES)])
    model.compile(keras.optimizers.SGD(1e-3), LOSSES[name](**options))
    weight = rng.uniform(0.5, 2, 8).astype("float32")
    history = model.fit(inputs, truth, sample_weight=weight, batch_size=8, epochs=2, verbose=0).history["loss"]
    assert np.all(np.isfinite(history)) and history[1] < history[0]
