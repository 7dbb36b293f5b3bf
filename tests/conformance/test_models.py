"""Properties of every network: those of audiotag.testing, its options and its number of weights."""

import inspect

import keras
import numpy as np
import pytest
from examples import collected
from tiers import tier

from audiotag.models import MODELS
from audiotag.models.heads import NetworkParts, pooled
from audiotag.testing import check_model


def merged(name):
    """The entries of all dictionaries of that name in the tests of networks."""
    return {key: value for entries in collected("models", name) for key, value in entries.items()}


# Each network, a value for every option, and its input shape: None where it may vary.
NETWORKS = merged("EXAMPLES")
NUM_WEIGHTS = merged("NUM_WEIGHTS")  # where the number is published
LENGTHS = merged("LENGTHS")  # that the network accepts, if they are not the ones below
NUM_CLASSES = 80
# Built as another network is, or one of Keras with the same head: they take a training step, and have every property
# in the full tier.
LARGER = {"densenet169", "resnet50", "mobilenet_v2", "convnext_tiny", "mn10", "xresnet34", "xresnet50"}
every_network = pytest.mark.parametrize("name", NETWORKS)


def lengths(name):
    """Lengths that the network accepts."""
    return (40, 47) if name in LARGER else LENGTHS.get(name, (40, 32, 33, 47, 64))


def test_no_network_is_missing_from_the_list():
    assert set(NETWORKS) == set(MODELS)


@pytest.mark.parametrize("name", [name for name in NUM_WEIGHTS if name not in LARGER])
def test_the_number_of_weights_is_as_published(name):
    options, shape = NETWORKS[name]
    assert MODELS[name](shape, NUM_CLASSES, **options).count_params() == NUM_WEIGHTS[name]


@every_network
def test_every_option_is_a_keyword_with_a_default(name):
    parameters = list(inspect.signature(MODELS[name]).parameters.values())
    assert [parameter.name for parameter in parameters[:2]] == ["input_shape", "num_classes"]
    assert {parameter.name for parameter in parameters[2:]} == set(NETWORKS[name][0])
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert parameter.annotation is not parameter.empty


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in tier(LARGER, ())])
def test_a_network_has_every_property_of_its_kind(name):
    options, shape = NETWORKS[name]
    half_precisions = () if name in LARGER else ("mixed_float16", "mixed_bfloat16")
    check_model(MODELS[name], shape, options, lengths=lengths(name), half_precisions=half_precisions)


# Of the large networks, which add their head with the same function, one.
@pytest.mark.parametrize(
    "name", [name for name in NETWORKS if "weights" not in NETWORKS[name][0] or name == "mobilenet"]
)
def test_backbone_and_head_together_are_the_network(name):
    options, shape = NETWORKS[name]
    network = MODELS[name](shape, NUM_CLASSES, **options)
    parts = NetworkParts(network)
    images = np.random.default_rng(0).random((2, *(size or lengths(name)[0] for size in shape))).astype("float32")
    features = parts.backbone(images)
    np.testing.assert_allclose(parts.head(features), network(images), rtol=1e-5, atol=1e-6)
    assert len(pooled(features).shape) == 2
    in_head = sum(keras.ops.size(weight) for weight in parts.head.weights)
    assert in_head + sum(keras.ops.size(weight) for weight in parts.backbone.weights) >= network.count_params()


@pytest.mark.parametrize("name", sorted(LARGER))
def test_a_training_step_of_a_larger_network_changes_its_weights_and_gives_finite_logits(name):
    options, shape = NETWORKS[name]
    model = MODELS[name](shape, NUM_CLASSES, **options)
    assert model.count_params() == NUM_WEIGHTS.get(name, model.count_params())  # as published
    images = np.random.default_rng(0).standard_normal((2, shape[0], shape[1] or 40, shape[2])).astype("float32")
    before = [weight.numpy() for weight in model.trainable_variables]
    model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    assert np.isfinite(model.train_on_batch(images, np.eye(2, NUM_CLASSES)))
    assert any(np.any(weight.numpy() != old) for weight, old in zip(model.trainable_variables, before, strict=True))
    logits = model(images, training=True)  # by its batch statistics: the others are hardly begun
    assert (tuple(logits.shape), logits.dtype) == ((2, NUM_CLASSES), "float32") and np.isfinite(logits.numpy()).all()
