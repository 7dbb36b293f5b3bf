import zlib

import keras
import librosa
import matplotlib
import numpy as np
import pytest
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import Colormap, Deltas, FlipBands, FrequencyChannel, Quantize8Bit, RepeatChannels
from audiotag.layers.preprocessing.channels import MAGMA

EXAMPLES = [
    (RepeatChannels, {"count": 3}, IMAGE),
    (FlipBands, {}, IMAGE),
    (Deltas, {"width": 5}, (None, 24, None, 2)),
    (FrequencyChannel, {}, (None, 24, None, 2)),
    (Colormap, {"low": None, "high": 0.1}, IMAGE),
]


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


def test_channels_are_repeated_in_order():
    image = images(2, 4, 5, 2)
    assert_array_equal(RepeatChannels(count=2)(image), np.concatenate([image, image], axis=-1))


def test_flipped_bands_are_those_of_the_image_upside_down():
    image = images(2, 5, 4, 3)
    assert_array_equal(FlipBands()(image), image[:, ::-1])


@pytest.mark.parametrize("width", [3, 5, 9])
@pytest.mark.parametrize("length", [9, 10, 60])
def test_deltas_agree_with_librosa(width, length):
    image = images(2, 8, length, 2)
    deltas = np.asarray(Deltas(width=width)(image))
    assert_array_equal(deltas[..., :2], image)
    for order in (1, 2):
        expected = librosa.feature.delta(image.astype("float64"), width=width, order=order, axis=2)
        assert_allclose(deltas[..., 2 * order : 2 * order + 2], expected, atol=2e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_a_clip_shorter_than_the_width_is_extended_with_its_last_frame(length):
    image = images(1, 8, length, 1)
    extended = np.pad(image.astype("float64"), ((0, 0), (0, 0), (0, 9 - length), (0, 0)), mode="edge")
    deltas = np.asarray(Deltas()(image))
    for order in (1, 2):
        expected = librosa.feature.delta(extended, order=order, axis=2)[:, :, :length, 0]
        assert_allclose(deltas[..., order], expected, atol=2e-5)


def test_deltas_of_a_worked_example():
    image = np.array([0.0, 1, 4, 9, 9], "float32").reshape(1, 1, 5, 1)
    deltas = np.asarray(Deltas(width=3)(image))[0, 0]
    assert_allclose(deltas[:, 1], [2, 2, 4, 2.5, 2.5], atol=1e-6)  # (next - previous) / 2
    assert_allclose(deltas[:, 2], [2, 2, 2, -5, -5], atol=1e-6)  # next - 2 * this + previous


@pytest.mark.parametrize("bands", [1, 2, 7, 128])
def test_the_frequency_channel_rises_evenly_from_the_lowest_band(bands):
    image = images(2, bands, 5, 2)
    result = np.asarray(FrequencyChannel()(image))
    assert_array_equal(result[..., :2], image)
    expected = np.linspace(-1, 1, bands)[:, None] * np.ones((2, 1, 5))
    assert_allclose(result[..., 2], expected, atol=1e-6)


def test_magma_has_the_checksum_of_matplotlibs():
    # Of np.rint(255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]), matplotlib 3.11.2.
    assert zlib.crc32(MAGMA.tobytes()) == 3499139746
    five = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]
    assert MAGMA[[0, 64, 128, 192, 255]].tolist() == five


def test_magma_equals_matplotlibs():
    colors = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    assert_array_equal(MAGMA, np.rint(255 * colors))


def reference_colors(image, low, high):
    """The colors of [M, T], pixel by pixel: [M, T, 3]."""
    colors = np.zeros((*image.shape, 3))
    for index, value in np.ndenumerate(image):
        number = 256 * (value - low) / (high - low)
        colors[index] = MAGMA[int(min(max(number, 0), 255))] / 255
    return colors


def test_each_image_is_colored_between_its_own_minimum_and_maximum():
    batch = images(3, 8, 9, 1) * np.array([1, 10, 0.01], "float32").reshape(3, 1, 1, 1)
    expected = [reference_colors(x, x.min(), x.max()) for x in batch[..., 0].astype("float64")]
    colors = np.asarray(Colormap()(batch))
    assert np.mean(np.abs(colors - expected) > 1e-6) < 0.01  # float32 may step over a color's edge
    assert_allclose(colors, expected, atol=5 / 255)


def test_fixed_limits_color_all_images_alike():
    batch = images(3, 8, 9, 1)
    colors = Colormap(low=-60, high=-30)(batch)
    assert_allclose(colors, [reference_colors(x, -60, -30) for x in batch[..., 0]], atol=5 / 255)
    assert_array_equal(Colormap(low=-60, high=-30)(batch[:1]), colors[:1])
    one_sided = Colormap(low=-60)(batch[:1])
    assert_allclose(one_sided, [reference_colors(batch[0, ..., 0], -60, batch[0].max())], atol=5 / 255)


def test_each_of_the_256_levels_has_its_own_color():
    levels = Quantize8Bit()(np.arange(256, dtype="float32").reshape(1, 16, 16, 1))
    assert_allclose(Colormap()(levels), MAGMA.reshape(1, 16, 16, 3) / 255, atol=1e-7)
    assert_allclose(Colormap(low=0, high=1)(levels), MAGMA.reshape(1, 16, 16, 3) / 255, atol=1e-7)


def test_a_constant_image_has_the_first_color():
    assert_allclose(Colormap()(np.full((1, 4, 4, 1), -80.0)), np.tile(MAGMA[0] / 255, (1, 4, 4, 1)), atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layer", [RepeatChannels(), FrequencyChannel()])
def test_the_output_has_the_type_of_the_input(layer, dtype):
    assert layer(images(1, 4, 4, 1).astype(dtype)).dtype == dtype
    assert layer(keras.Input((4, 4, 1), dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepeatChannels(count=0), "count must be at least 1. Received: count=0"),
        (lambda: Deltas(width=4), "width must be odd and at least 3. Received: width=4"),
        (lambda: Deltas(width=1), "width must be odd and at least 3. Received: width=1"),
        (lambda: Colormap(low=1, high=1), "low must be below high=1. Received: low=1"),
        (lambda: Colormap()(np.ones((1, 4, 4, 3))), "expected axis -1 of input shape to have value 1"),
        (lambda: FrequencyChannel()(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
    ],
)
def test_wrong_options_and_inputs_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
