import json

import keras
import numpy as np
import pytest
from keras import layers
from waveforms import noise

from audiotag.config.loading import load
from audiotag.errors import ConfigError
from audiotag.models.heads import NetworkParts, is_head
from audiotag.models.tagger import Tagger
from audiotag.runs.building import build_tagger

SIZES = {"sample_rate": 16_000, "num_classes": 5}
SMALL = ("window.seconds=0.5", "model.filters=[8]", "augment=[]")


def dense(names):
    """A network of dense layers of these names."""
    image = keras.Input((4, 4, 1))
    x = layers.GlobalAveragePooling2D()(image)
    for name in names:
        x = layers.Dense(3, name=name)(x)
    return keras.Model(image, x, name="dense")


@pytest.fixture(scope="module")
def tagger():
    keras.utils.set_random_seed(1)
    image = keras.Input((64, None, 1))
    x = layers.BatchNormalization(momentum=0.5)(layers.Conv2D(8, 3)(image))
    x = layers.Dropout(0.5)(x)
    logits = layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D()(x))
    whole = build_tagger(load("demo", SMALL), **SIZES)
    network = keras.Model(image, logits)
    return Tagger(whole.preprocessor, network, num_classes=5, window_samples=8000)


def test_the_head_is_all_layers_of_its_names():
    parts = NetworkParts(dense(["first", "head_hidden", "logits"]))
    assert [layer.name for layer in parts.head.layers[1:]] == ["head_hidden", "logits"]
    assert parts.backbone.output_shape == (None, 3)


@pytest.mark.parametrize(("names", "found"), [(["a", "b"], 0), (["head_a", "b", "logits"], 2)])
def test_a_network_without_one_head_is_refused(names, found):
    with pytest.raises(ValueError, match=rf"^dense: {found} tensors enter its head, .* Expected one: name the last"):
        NetworkParts(dense(names)).backbone


def test_embeddings_are_the_mean_of_what_enters_the_head():
    overrides = 'model={"name": "vgg_gap", "width": 4}', "frontend.frame_step=160"
    vgg = build_tagger(load("demo", overrides), **SIZES)
    windows = noise(2, 32_000)
    features = vgg.features(windows)
    assert len(features.shape) == 4
    np.testing.assert_allclose(vgg.embeddings(windows), np.mean(features, axis=(1, 2)), rtol=1e-5)


def test_a_window_has_the_same_embedding_alone_and_in_a_batch(tagger):
    windows = noise(8, 8000)
    together = np.asarray(tagger.embeddings(windows))
    alone = np.concatenate([tagger.embeddings(windows[i : i + 1]) for i in range(8)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_a_frozen_backbone_keeps_its_statistics_and_drops_nothing(tagger):
    windows, labels = noise(4, 8000), np.zeros((4, 5), "float32")
    free, _ = tagger((windows, labels), training=True)
    inference = tagger.network(tagger.preprocessor((windows, labels), training=False)[0], training=False)
    assert np.abs(free - inference).max() > 1e-3
    before = [weight.numpy() for weight in tagger.weights]
    tagger.freeze_backbone()
    frozen, _ = tagger((windows, labels), training=True)
    assert tagger.trainable_variables == tagger.network.get_layer("logits").trainable_variables
    for weight, value in zip(tagger.weights, before, strict=True):
        if "seed" not in weight.path:
            np.testing.assert_array_equal(weight, value)
    np.testing.assert_allclose(frozen, inference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "layers_of_head"),
    [
        ({"name": "linear"}, ["logits"]),
        (
            {"name": "mlp", "units": [6, 4], "dropout": 0.1},
            ["head_hidden_1", "head_dropout_1", "head_hidden_2", "head_dropout_2", "logits"],
        ),
    ],
)
def test_a_head_of_the_experiment_replaces_that_of_the_network(head, layers_of_head):
    overrides = 'model={"name": "vgg_gap", "width": 4}', "frontend.frame_step=160", f"head={json.dumps(head)}"
    network = build_tagger(load("demo", overrides), **SIZES).network
    assert [layer.name for layer in network.layers if is_head(layer.name)] == layers_of_head
    assert network.output_shape == (None, 5)
    assert NetworkParts(network).features.shape == (None, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": []}, r"^head mlp: units must be one or more numbers"),
        ({"dropout": 1.0}, r"^head mlp: dropout must be from 0 to below 1\. Received: dropout=1\.0"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build_tagger(load("demo", [*SMALL, f"head={json.dumps({'name': 'mlp'} | options)}"]), **SIZES)
