import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import EightBit, Standardise, ToPicture


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).normal(-40, 15, shape).astype("float32")


def test_a_picture_is_a_spectrogram_turned_with_low_bands_first():
    spectrogram = pictures(2, 50, 64)
    picture = np.asarray(ToPicture()(spectrogram))
    assert picture[1, 3, 7, 0] == spectrogram[1, 7, 3]
    assert_array_equal(picture[..., 0], spectrogram.transpose(0, 2, 1))


def test_each_picture_is_standardised_alone():
    batch = pictures(3, 32, 40, 1) * np.array([1, 10, 0.01], "float32").reshape(3, 1, 1, 1)
    expected = [(x - x.mean()) / (x.std() + 1e-6) for x in batch.astype("float64")]
    assert_allclose(Standardise()(batch), expected, atol=1e-4)


def test_a_constant_picture_standardises_to_zeros():
    assert_array_equal(Standardise()(np.full((1, 8, 8, 1), -100.0, "float32")), np.zeros((1, 8, 8, 1)))


def as_uint8(x):
    """The picture files of S0 and S1, worked out in NumPy."""
    z = (x - x.mean()) / (x.std() + 1e-6)
    if z.max() - z.min() <= 1e-6:
        return np.zeros(x.shape, "uint8")
    return (255 * (z - z.min()) / (z.max() - z.min())).astype("uint8")


def test_eight_bits_are_those_of_the_image_files():
    batch = pictures(4, 32, 40, 1)
    levels = np.round(np.asarray(EightBit()(Standardise()(batch))) * 255)
    expected = np.stack([as_uint8(x) for x in batch.astype("float64")])
    assert np.abs(levels - expected).max() <= 1  # float32 rounds some values across a level's edge
    assert np.mean(levels == expected) > 0.999
    assert levels.min() == 0 and levels.max() == 255


def test_levels_are_truncated_not_rounded():
    picture = np.array([0.0, 0.999, 1.0, 1.999, 254.999, 255.0], "float32").reshape(1, 1, 6, 1)
    assert_allclose(EightBit()(picture)[0, 0, :, 0], np.array([0, 0, 1, 1, 254, 255]) / 255)


@pytest.mark.parametrize("spread", [0.0, 5e-7])
def test_a_constant_picture_has_level_zero(spread):
    picture = np.zeros((1, 4, 4, 1), "float32")
    picture[0, 0, 0] = spread
    assert_array_equal(EightBit()(picture), np.zeros((1, 4, 4, 1)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_quietest_pixel_has_the_first_level_and_the_loudest_the_last(jit_compile):
    # In float32, 255 * span / span is 254.99998 for every seventh span.
    batch = pictures(500, 6, 5, 1)
    levels = np.asarray(tf.function(EightBit(), jit_compile=jit_compile)(batch))
    assert_array_equal(levels.min(axis=(1, 2, 3)), 0)
    assert_array_equal(levels.max(axis=(1, 2, 3)), 1)


def test_eight_bits_are_not_rounded_twice():
    once = np.arange(256, dtype="float32").reshape(1, 16, 16, 1)
    assert_allclose(EightBit()(EightBit()(once)), once / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Standardise()(np.ones((2, 8, 8))), "expected ndim=4, found ndim=3"),
        (lambda: ToPicture()(np.ones((2, 8, 8, 1))), "expected ndim=3, found ndim=4"),
    ],
)
def test_what_makes_no_picture_is_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
