import numpy as np
import pytest
from examples import IMAGE
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, uniform

from audiotag.layers import FilterAugment

EXAMPLES = [
    (FilterAugment, {"max_db": 9.0, "count": 4, "min_count": 2, "probability": 0.9, "seed": 3}, IMAGE),
]


def gains(num_clips=500, num_bands=64, **options):
    """The gain of each band: [B, M]."""
    silence = np.zeros((num_clips, 2, num_bands), "float32")
    filtered = np.asarray(FilterAugment(**options)(silence, training=True))
    assert_array_equal(filtered[:, 0], filtered[:, 1])  # the same at all times
    return filtered[:, 0]


def num_kinks(gain):
    """How often the slope of each clip changes: a segment ends between bands, so it may take two of them."""
    bends = np.abs(np.diff(gain, n=2, axis=1)) > 1e-4
    return (bends & ~np.pad(bends, ((0, 0), (1, 0)))[:, :-1]).sum(axis=1)


def test_gains_are_uniform_at_both_ends_and_within_max_db_between():
    gain = gains(max_db=6.0, seed=1)
    assert kstest(gain[:, 0], uniform(-6, 12).cdf).pvalue > 1e-3
    assert kstest(gain[:, -1], uniform(-6, 12).cdf).pvalue > 1e-3
    assert np.abs(gain).max() <= 6.0 + 1e-5
    assert np.std(gain[:, 0] - gain[:, -1]) > 3  # drawn separately


@pytest.mark.parametrize("count", [1, 3])
def test_gains_are_linear_between_the_ends_of_segments(count):
    kinks = num_kinks(gains(count=count, min_count=None, seed=2))
    assert kinks.max() == count - 1
    assert count == 1 or np.mean(kinks == count - 1) > 0.8  # others have two ends between the same bands


def test_the_number_of_segments_is_uniform_from_min_count_to_count():
    kinks = num_kinks(gains(2000, num_bands=2000, count=4, min_count=2, seed=3))
    shares = np.bincount(kinks, minlength=4)[1:] / len(kinks)
    assert_allclose(shares, 1 / 3, atol=0.04)


def test_images_are_filtered_along_their_bands():
    image = np.zeros((4, 16, 5, 2), "float32")
    filtered = np.asarray(FilterAugment(seed=4)(image, training=True))
    assert_array_equal(filtered, np.broadcast_to(filtered[:, :, :1, :1], filtered.shape))
    assert (np.std(filtered[:, :, 0, 0], axis=1) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_db": 0.0}, "max_db must be above 0. Received: max_db=0.0"),
        ({"count": 0}, "count must be at least 1. Received: count=0"),
        ({"count": 2, "min_count": 3}, "min_count must be from 1 to count=2, or None. Received: min_count=3"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FilterAugment(**options)


def test_a_single_band_is_refused():
    with pytest.raises(ValueError, match="at least 2 bands"):
        FilterAugment()(np.zeros((1, 5, 1), "float32"), training=True)
