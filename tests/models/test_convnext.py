import keras
import numpy as np
import pytest

from audiotag.models.convnext import convnext_tiny

EXAMPLES = {"convnext_tiny": ({"weights": None, "frozen": False}, (32, None, 3))}
NUM_WEIGHTS = {"convnext_tiny": 27_818_592 + 63_056}


def count(weights):
    return sum(np.prod(weight.shape) for weight in weights)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file of Keras' network without its top, and that network; its last normalization is untrained."""
    backbone = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    rng = np.random.default_rng(0)
    initial = [weight + rng.uniform(0.01, 0.02, weight.shape) for weight in backbone.get_weights()[:-2]]
    backbone.set_weights([*initial, np.ones(768), np.zeros(768)])
    path = tmp_path_factory.mktemp("weights") / "convnext_tiny.weights.h5"
    backbone.save_weights(path)
    return path, backbone


@pytest.fixture(scope="module")
def frozen(weights):
    """Our network with these initial weights."""
    return convnext_tiny((32, None, 3), 80, weights=str(weights[0]))


def test_only_the_new_head_is_trainable(frozen):
    assert [weight.path for weight in frozen.trainable_variables] == [
        "head_norm/gamma",
        "head_norm/beta",
        "logits/kernel",
        "logits/bias",
    ]
    assert count(frozen.trainable_variables) == 63_056
    assert count(frozen.non_trainable_variables) == 27_818_592


def test_the_backbone_has_the_weights_of_the_file_and_one_normalization_follows(weights, frozen):
    _, backbone = weights
    for ours, theirs in zip(frozen.non_trainable_variables, backbone.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image = np.random.default_rng(1).uniform(size=(2, 32, 32, 3)).astype("float32")
    normalized = keras.Model(frozen.input, frozen.get_layer("head_norm").output)
    np.testing.assert_allclose(normalized(image), backbone(255 * image), rtol=1e-4, atol=1e-4)
    assert frozen.get_layer("head_norm").epsilon == 1e-6
    assert frozen.layers[-2].name == "head_norm"
    assert not isinstance(frozen.layers[-3], keras.layers.LayerNormalization)


def test_a_training_step_changes_only_the_head_even_in_a_clone(frozen):
    model = keras.models.clone_model(frozen)
    assert count(model.trainable_variables) == 63_056
    before = model.get_weights()
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), run_eagerly=True)
    model.train_on_batch(np.ones((2, 32, 32, 3), "float32"), np.ones((2, 80), "float32"))
    changed = [np.any(old != new) for old, new in zip(before, model.get_weights())]
    assert not any(changed[:-4]) and all(changed[-4:])


def test_unfrozen_it_is_trainable_as_a_whole():
    model = convnext_tiny((32, 32, 1), 80, frozen=False)
    assert count(model.non_trainable_variables) == 0
    assert model.count_params() == 27_818_592 + 63_056 - 2 * 4 * 4 * 96  # one channel where color images have three
