import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, logit
from scipy.stats import binomtest, kstest, loguniform, spearmanr, uniform

from audiotag.layers import Lighting

ERROR_RATE = 1e-3  # the share of seeds with which a true layer fails a test; the seeds are fixed


def lit(pixels, brightness, contrast):
    """A row of pixels in a light that is known."""
    light = Lighting(
        min_brightness=brightness,
        max_brightness=brightness,
        min_contrast=contrast,
        max_contrast=contrast,
        probability=1.0,
    )
    return np.asarray(light(np.reshape(np.array(pixels, "float32"), (1, 1, -1, 1)), training=True)).reshape(-1)


@pytest.mark.parametrize(
    ("pixel", "brightness", "contrast", "expected"),
    [
        (0.5, 0.6, 1, 0.6),  # grey takes the brightness
        (0.5, 0.4, 1, 0.4),
        (0.5, 0.5, 1.25, 0.5),  # and no contrast
        (0.8, 0.5, 2, 16 / 17),  # odds 4 : 1, squared
        (0.2, 0.5, 2, 1 / 17),
        (0.8, 0.6, 1, 6 / 7),  # odds 4 : 1 times 3 : 2
        (0.2, 0.6, 2, 9 / 73),  # odds 1 : 4 times 3 : 2 is 3 : 8, squared 9 : 64
        (0.2, 0.4, 0.5, 1 / (1 + 6**0.5)),  # odds 1 : 4 times 2 : 3 is 1 : 6, its root
    ],
)
def test_the_light_worked_by_hand(pixel, brightness, contrast, expected):
    assert_allclose(lit([pixel], brightness, contrast), [expected], rtol=1e-5)


def test_it_is_the_logit_rule_and_stays_within_zero_and_one():
    pixels = np.concatenate([[0, 1, -0.5, 1.5, 1e-9], np.random.default_rng(0).uniform(0, 1, 500)])
    for brightness, contrast in ((0.4, 0.8), (0.6, 1.25), (0.45, 1.1)):
        ours = lit(pixels, brightness, contrast)
        expected = expit((logit(np.clip(pixels, 1e-7, 1 - 1e-7)) + logit(brightness)) * contrast)
        assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)
        assert ours.min() > 0 and ours.max() <= 1


def throws(probability, seed):
    """Brightness and contrast that struck each of 10,000 pictures, read off two pixels."""
    light = Lighting(probability=probability, seed=seed)
    pixels = np.repeat(np.array([0.3, 0.7], "float32").reshape(1, 1, 2, 1), 1000, axis=0)
    seen = np.concatenate([light(pixels, training=True) for _ in range(10)]).reshape(-1, 2)
    assert len(seen) == 10_000
    low, high = logit(seen.astype("float64")).T
    contrast = (high - low) / (logit(0.7) - logit(0.3))
    return expit(low / contrast - logit(0.3)), contrast


def test_brightness_is_uniform_and_contrast_uniform_in_its_logarithm():
    brightness, contrast = throws(1.0, seed=1)
    assert kstest(brightness, uniform(0.4, 0.2).cdf).pvalue > ERROR_RATE
    assert kstest(contrast, loguniform(0.8, 1.25).cdf).pvalue > ERROR_RATE
    assert spearmanr(brightness, contrast).pvalue > ERROR_RATE


def test_brightness_and_contrast_strike_apart_three_times_in_four():
    brightness, contrast = throws(0.75, seed=1)
    brightens, contrasts = abs(brightness - 0.5) > 1e-5, abs(contrast - 1) > 1e-5
    assert binomtest(int(brightens.sum()), 10_000, 0.75).pvalue > ERROR_RATE
    assert binomtest(int(contrasts.sum()), 10_000, 0.75).pvalue > ERROR_RATE
    assert binomtest(int((brightens & contrasts).sum()), 10_000, 0.75**2).pvalue > ERROR_RATE


def test_a_picture_in_its_own_light_is_untouched():
    black = np.zeros((200, 1, 1, 1), "float32")  # any light leaves more than nothing
    dark = np.asarray(Lighting(seed=1)(black, training=True)).reshape(-1)
    assert 2 < (dark == 0).sum() < 30
    assert_allclose(dark[dark != 0], 1e-7, rtol=100)


def test_a_light_falls_on_the_whole_picture():
    pictures = np.full((20, 4, 5, 3), 0.5, "float32")
    seen = np.asarray(Lighting(probability=1.0, seed=1)(pictures, training=True))
    assert_array_equal(seen, np.broadcast_to(seen[:, :1, :1, :1], seen.shape))
    assert len(np.unique(seen)) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_brightness": 0}, "min_brightness must be above 0 and at most max_brightness, and that below 1. Receiv"),
        ({"max_brightness": 1}, "min_brightness=0.4, max_brightness=1"),
        ({"min_brightness": 0.7}, "min_brightness=0.7, max_brightness=0.6"),
        ({"min_contrast": 0}, "min_contrast must be above 0 and at most max_contrast. Received: min_contrast=0, "),
        ({"max_contrast": 0.5}, "min_contrast=0.8, max_contrast=0.5"),
    ],
)
def test_ranges_out_of_order_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        Lighting(**options)
    assert message in str(error.value)
