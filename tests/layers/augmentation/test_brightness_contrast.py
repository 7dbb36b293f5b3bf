import numpy as np
import pytest
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from scipy.stats import binomtest, kstest, loguniform, spearmanr, uniform

from audiotag.layers import BrightnessContrast

EXAMPLES = [
    (
        BrightnessContrast,
        {"min_brightness": 0.3, "max_brightness": 0.7, "min_contrast": 0.5, "max_contrast": 2.0}
        | {"probability": 0.9, "seed": 3},
        IMAGE,
    ),
]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def changed(pixels, brightness, contrast):
    """A row of pixels with a given brightness and contrast."""
    layer = BrightnessContrast(
        min_brightness=brightness,
        max_brightness=brightness,
        min_contrast=contrast,
        max_contrast=contrast,
        probability=1.0,
    )
    return np.asarray(layer(np.reshape(np.array(pixels, "float32"), (1, 1, -1, 1)), training=True)).reshape(-1)


@pytest.mark.parametrize(
    ("pixel", "brightness", "contrast", "expected"),
    [
        (0.5, 0.6, 1, 0.6),  # gray takes the brightness
        (0.5, 0.4, 1, 0.4),
        (0.5, 0.5, 1.25, 0.5),  # contrast does not change it
        (0.8, 0.5, 2, 16 / 17),  # odds 4 : 1, squared
        (0.2, 0.5, 2, 1 / 17),
        (0.8, 0.6, 1, 6 / 7),  # odds 4 : 1 times 3 : 2
        (0.2, 0.6, 2, 9 / 73),  # odds 1 : 4 times 3 : 2 is 3 : 8, squared 9 : 64
        (0.2, 0.4, 0.5, 1 / (1 + 6**0.5)),  # odds 1 : 4 times 2 : 3 is 1 : 6, square root
    ],
)
def test_pixels_worked_by_hand(pixel, brightness, contrast, expected):
    assert_allclose(changed([pixel], brightness, contrast), [expected], rtol=1e-5)


def test_it_follows_the_logit_formula_and_stays_within_zero_and_one():
    pixels = np.concatenate([[0, 1, -0.5, 1.5, 1e-9], np.random.default_rng(0).uniform(0, 1, 500)])
    for brightness, contrast in ((0.4, 0.8), (0.6, 1.25), (0.45, 1.1)):
        ours = changed(pixels, brightness, contrast)
        expected = expit((logit(np.clip(pixels, 1e-7, 1 - 1e-7)) + logit(brightness)) * contrast)
        assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
        assert ours.min() > 0 and ours.max() <= 1


def draws(probability, seed):
    """Brightness and contrast of each of 10,000 images, computed from two pixels."""
    layer = BrightnessContrast(probability=probability, seed=seed)
    pixels = np.repeat(np.array([0.3, 0.7], "float32").reshape(1, 1, 2, 1), 1000, axis=0)
    pixels = np.concatenate([layer(pixels, training=True) for _ in range(10)]).reshape(-1, 2)
    assert len(pixels) == 10_000
    low, high = logit(pixels.astype("float64")).T
    contrast = (high - low) / (logit(0.7) - logit(0.3))
    return expit(low / contrast - logit(0.3)), contrast


def test_brightness_is_uniform_and_contrast_uniform_in_its_logarithm():
    brightness, contrast = draws(1.0, seed=1)
    assert kstest(brightness, uniform(0.4, 0.2).cdf).pvalue > ERROR_RATE
    assert kstest(contrast, loguniform(0.8, 1.25).cdf).pvalue > ERROR_RATE
    assert spearmanr(brightness, contrast).pvalue > ERROR_RATE


def test_brightness_and_contrast_change_independently_three_times_in_four():
    brightness, contrast = draws(0.75, seed=1)
    brightens, contrasts = abs(brightness - 0.5) > 1e-5, abs(contrast - 1) > 1e-5
    assert binomtest(int(brightens.sum()), 10_000, 0.75).pvalue > ERROR_RATE
    assert binomtest(int(contrasts.sum()), 10_000, 0.75).pvalue > ERROR_RATE
    assert binomtest(int((brightens & contrasts).sum()), 10_000, 0.75**2).pvalue > ERROR_RATE


def test_an_image_that_is_not_selected_is_unchanged():
    black = np.zeros((200, 1, 1, 1), "float32")  # any change makes it at least 1e-7 or so
    pixels = np.asarray(BrightnessContrast(seed=1)(black, training=True)).reshape(-1)
    assert 2 < (pixels == 0).sum() < 30
    assert_allclose(pixels[pixels != 0], 1e-7, rtol=100)


def test_all_pixels_of_an_image_change_alike():
    images = np.full((20, 4, 5, 3), 0.5, "float32")
    images = np.asarray(BrightnessContrast(probability=1.0, seed=1)(images, training=True))
    assert_array_equal(images, np.broadcast_to(images[:, :1, :1, :1], images.shape))
    assert len(np.unique(images)) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"min_brightness": 0},
            "min_brightness must be above 0 and at most max_brightness, and max_brightness below 1. "
            "Received: min_brightness=0, max_brightness=0.6",
        ),
        ({"max_brightness": 1}, "min_brightness=0.4, max_brightness=1"),
        ({"min_brightness": 0.7}, "min_brightness=0.7, max_brightness=0.6"),
        ({"min_contrast": 0}, "min_contrast must be above 0 and at most max_contrast. Received: min_contrast=0, "),
        ({"max_contrast": 0.5}, "min_contrast=0.8, max_contrast=0.5"),
    ],
)
def test_ranges_out_of_order_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        BrightnessContrast(**options)
    assert message in str(error.value)
