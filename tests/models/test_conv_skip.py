import keras
import numpy as np
import pytest

from audiotag.losses import binary_crossentropy
from audiotag.models.conv_skip import conv_skip

EXAMPLES = {"conv_skip": ({"filters": (8, 16, 24), "leak": 0.2, "dropout": 0.3}, (24, None, 1))}


def counted_by_hand(channels, num_classes, filters):
    """Weights of every layer, block by block."""
    total = 0
    for width in filters:
        total += channels * width + width  # 1x1 convolution of the skip connection
        total += 9 * channels * width + 4 * width  # 3x3 convolution without bias, batch normalization
        total += 9 * width * width + 4 * width
        channels = width
    return total + channels * num_classes + num_classes


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filters", [(64, 128, 256, 512), (16, 32, 64, 128), (8,)])
def test_the_number_of_weights_matches_the_layout(channels, filters):
    model = conv_skip((128, None, channels), 80, filters=filters)
    assert model.count_params() == counted_by_hand(channels, 80, filters)


def test_the_default_network_has_five_million_weights():
    assert conv_skip((128, 128, 1), 80).count_params() == 4_904_080


@pytest.mark.parametrize("size", [1, 16, 17, 31])
def test_it_takes_images_of_any_size(size):
    model = conv_skip((None, None, 1), 5, filters=(4, 4, 4, 4))
    assert np.isfinite(model(np.ones((1, size, 16, 1), "float32"))).all()
    assert np.isfinite(model(np.ones((1, 16, size, 1), "float32"))).all()


def test_filters_may_be_a_list():
    model = conv_skip((16, 16, 1), 5, filters=[4, 8])
    assert model.count_params() == counted_by_hand(1, 5, (4, 8))


def test_options_reach_the_layers():
    model = conv_skip((16, 16, 1), 5, filters=(4, 8), leak=0.3, dropout=0.4)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
        if isinstance(layer, keras.layers.LeakyReLU):
            assert layer.negative_slope == pytest.approx(0.3)
        if isinstance(layer, keras.layers.Dropout):
            assert layer.rate == 0.4
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3):
            assert not layer.use_bias


def test_it_learns_to_separate_high_from_low_compiled_by_xla():
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((64, 16, 24, 1)).astype("float32")
    truth = np.eye(2, dtype="float32")[np.arange(64) % 2]
    images[::2, 3:6, 8:12] += 3
    images[1::2, 10:13, 8:12] += 3
    model = conv_skip((16, None, 1), 2, filters=(4, 8), dropout=0.1)
    model.compile(keras.optimizers.Adam(0.01), binary_crossentropy(), jit_compile=True)
    history = model.fit(images, truth, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
    assert np.mean(model.predict(images, verbose=0).argmax(axis=1) == truth.argmax(axis=1)) > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": ()}, "filters must be one or more numbers, each at least 1. Received: filters=()"),
        ({"filters": (8, 0)}, "filters must be one or more numbers, each at least 1. Received: filters=(8, 0)"),
        ({"leak": -0.1}, "leak must be at least 0. Received: leak=-0.1"),
        ({"dropout": 1.0}, "dropout must be from 0 to below 1. Received: dropout=1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        conv_skip((16, 16, 1), 5, **options)
    assert message in str(error.value)
