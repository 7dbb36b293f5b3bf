"""Properties of every loss: those of audiotag.testing, and some that only audiotag's own losses have."""

import inspect

import keras
import numpy as np
import pytest
from examples import collected

from audiotag.losses import LOSSES
from audiotag.testing import check_loss

# Each loss, and a value for each of its options except the reduction.
(CASES,) = collected("test_losses.py")
NAMES = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]
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
def test_a_loss_has_every_property_of_its_kind(name, options):
    # As published the loss of a clip is that of its batch.
    check_loss(LOSSES[name], options, batch_independent=not options.get("published"))


@every_loss
def test_no_loss_is_negative(name, options):
    assert np.all(np.asarray(LOSSES[name](reduction="none", **options)(*clips())) >= 0)


@every_loss
def test_the_order_of_classes_and_clips_does_not_matter(name, options):
    rng = np.random.default_rng(1)
    truth, logits = clips()
    loss = LOSSES[name](reduction="none", **options)
    expected = np.asarray(loss(truth, logits))
    classes, order = rng.permutation(CLASSES), rng.permutation(len(truth))
    np.testing.assert_allclose(loss(truth[:, classes], logits[:, classes]), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss(truth[order], logits[order]), expected[order], rtol=1e-5, atol=1e-6)


@every_loss
@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_sample_weights_multiply_the_losses_of_clips(name, options, shape):
    truth, logits = clips()
    weight = np.array([0, 2, 0.5, 1, 0, 3, 1, 1], "float32")
    losses = np.asarray(LOSSES[name](reduction="none", **options)(truth, logits))
    weighted = LOSSES[name](reduction="sum", **options)(truth, logits, sample_weight=weight.reshape(shape))
    assert float(weighted) == pytest.approx((weight * losses).sum(), rel=1e-5)


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
