import zlib

import keras
import librosa
import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import ColourMap, Deltas, EightBit, FrequencyChannel, RepeatChannels
from audiotag.layers.preprocessing.channels import MAGMA


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


def test_channels_are_repeated_in_order():
    picture = pictures(2, 4, 5, 2)
    assert_array_equal(RepeatChannels(count=2)(picture), np.concatenate([picture, picture], axis=-1))


@pytest.mark.parametrize("width", [3, 5, 9])
@pytest.mark.parametrize("length", [9, 10, 60])
def test_deltas_are_librosas(width, length):
    picture = pictures(2, 8, length, 2)
    deltas = np.asarray(Deltas(width=width)(picture))
    assert_array_equal(deltas[..., :2], picture)
    for order in (1, 2):
        expected = librosa.feature.delta(picture.astype("float64"), width=width, order=order, axis=2)
        assert_allclose(deltas[..., 2 * order : 2 * order + 2], expected, atol=2e-5)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_last_frame_of_a_clip_too_short_for_deltas_goes_on(length):
    picture = pictures(1, 8, length, 1)
    lengthened = np.pad(picture.astype("float64"), ((0, 0), (0, 0), (0, 9 - length), (0, 0)), mode="edge")
    deltas = np.asarray(Deltas()(picture))
    for order in (1, 2):
        expected = librosa.feature.delta(lengthened, order=order, axis=2)[:, :, :length, 0]
        assert_allclose(deltas[..., order], expected, atol=2e-5)


def test_deltas_by_hand():
    picture = np.array([0.0, 1, 4, 9, 9], "float32").reshape(1, 1, 5, 1)
    deltas = np.asarray(Deltas(width=3)(picture))[0, 0]
    assert_allclose(deltas[:, 1], [2, 2, 4, 2.5, 2.5], atol=1e-6)  # (next - previous) / 2
    assert_allclose(deltas[:, 2], [2, 2, 2, -5, -5], atol=1e-6)  # next - 2 * this + previous


@pytest.mark.parametrize("bands", [1, 2, 7, 128])
def test_the_frequency_channel_rises_evenly_from_the_lowest_band(bands):
    picture = pictures(2, bands, 5, 2)
    result = np.asarray(FrequencyChannel()(picture))
    assert_array_equal(result[..., :2], picture)
    expected = np.linspace(-1, 1, bands)[:, None] * np.ones((2, 1, 5))
    assert_allclose(result[..., 2], expected, atol=1e-6)


def test_magma_is_matplotlibs():
    # Of np.rint(255 * matplotlib.colormaps["magma"](np.arange(256))[:, :3]), matplotlib 3.11.2.
    assert zlib.crc32(MAGMA.tobytes()) == 3499139746
    five = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]
    assert MAGMA[[0, 64, 128, 192, 255]].tolist() == five


def test_magma_is_drawn_by_matplotlib_in_these_very_bytes():
    colours = matplotlib.colormaps["magma"](np.arange(256))[:, :3]
    assert_array_equal(MAGMA, np.rint(255 * colours))


def painted(picture, low, high):
    """The colours of [M, T], pixel by pixel."""
    result = np.zeros((*picture.shape, 3))
    for place, value in np.ndenumerate(picture):
        entry = 256 * (value - low) / (high - low)
        result[place] = MAGMA[int(min(max(entry, 0), 255))] / 255
    return result


def test_each_picture_is_painted_between_its_own_extremes():
    batch = pictures(3, 8, 9, 1) * np.array([1, 10, 0.01], "float32").reshape(3, 1, 1, 1)
    expected = [painted(x, x.min(), x.max()) for x in batch[..., 0].astype("float64")]
    colours = np.asarray(ColourMap()(batch))
    assert np.mean(np.abs(colours - expected) > 1e-6) < 0.01  # float32 may step over a colour's edge
    assert_allclose(colours, expected, atol=5 / 255)


def test_fixed_limits_paint_all_pictures_alike():
    batch = pictures(3, 8, 9, 1)
    colours = ColourMap(low=-60, high=-30)(batch)
    assert_allclose(colours, [painted(x, -60, -30) for x in batch[..., 0]], atol=5 / 255)
    assert_array_equal(ColourMap(low=-60, high=-30)(batch[:1]), colours[:1])
    one_sided = ColourMap(low=-60)(batch[:1])
    assert_allclose(one_sided, [painted(batch[0, ..., 0], -60, batch[0].max())], atol=5 / 255)


def test_each_of_256_levels_keeps_its_colour():
    levels = EightBit()(np.arange(256, dtype="float32").reshape(1, 16, 16, 1))
    assert_allclose(ColourMap()(levels), MAGMA.reshape(1, 16, 16, 3) / 255, atol=1e-7)
    assert_allclose(ColourMap(low=0, high=1)(levels), MAGMA.reshape(1, 16, 16, 3) / 255, atol=1e-7)


def test_a_constant_picture_has_the_first_colour():
    assert_allclose(ColourMap()(np.full((1, 4, 4, 1), -80.0)), np.tile(MAGMA[0] / 255, (1, 4, 4, 1)), atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layer", [RepeatChannels(), FrequencyChannel()])
def test_moving_numbers_keeps_their_type(layer, dtype):
    assert layer(pictures(1, 4, 4, 1).astype(dtype)).dtype == dtype
    assert layer(keras.Input((4, 4, 1), dtype=dtype)).dtype == dtype


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RepeatChannels(count=0), "count must be at least 1. Received: count=0"),
        (lambda: Deltas(width=4), "width must be odd and at least 3. Received: width=4"),
        (lambda: Deltas(width=1), "width must be odd and at least 3. Received: width=1"),
        (lambda: ColourMap(low=1, high=1), "low must be below high=1. Received: low=1"),
        (lambda: ColourMap()(np.ones((1, 4, 4, 3))), "expected axis -1 of input shape to have value 1"),
        (lambda: FrequencyChannel()(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
    ],
)
def test_what_makes_no_channels_is_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
