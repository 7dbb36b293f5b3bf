import numpy as np
import pytest
from examples import WAVEFORM
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import RawWaveform

EXAMPLES = [
    (RawWaveform, {"sample_rate": 16_000, "scaling": "min_max"}, WAVEFORM),
    (RawWaveform, {"sample_rate": 16_000, "scaling": None}, WAVEFORM),
]


def test_extremes_agree_with_the_formula(extremes):
    for name, clip in extremes(16_000).items():
        exact = clip.astype("float64")
        expected = (exact - exact.min()) / (exact.max() - exact.min() + 1e-6) - 0.5
        assert_allclose(RawWaveform(sample_rate=16_000)(clip[None])[0, :, 0], expected, atol=1e-6, err_msg=name)


def test_each_real_clip_is_scaled_by_its_own_minimum_and_maximum(real_clips):
    scaled = RawWaveform(sample_rate=44_100)(real_clips).numpy()
    assert scaled.shape == (10, 88_200, 1)
    assert_allclose(scaled.min(axis=1), -0.5, atol=1e-6)
    assert_allclose(scaled.max(axis=1), 0.5, atol=1e-4)


def test_without_scaling_the_samples_are_unchanged():
    waveform = np.random.default_rng(0).standard_normal((2, 99)).astype("float32")
    assert_array_equal(RawWaveform(sample_rate=16_000, scaling=None)(waveform)[..., 0], waveform)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "peak"}, "scaling must be 'min_max' or None. Received: scaling='peak'"),
        ({"sample_rate": 0}, "sample_rate must be above 0. Received: sample_rate=0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        RawWaveform(**{"sample_rate": 16_000} | options)
    assert message in str(error.value)
