import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import RawWave


def test_extremes_span_from_minus_a_half_to_a_half(extremes):
    for name, clip in extremes(16_000).items():
        exact = clip.astype("float64")
        expected = (exact - exact.min()) / (exact.max() - exact.min() + 1e-6) - 0.5
        assert_allclose(RawWave(sample_rate=16_000)(clip[None])[0, :, 0], expected, atol=1e-6, err_msg=name)


def test_real_clips_are_scaled_each_by_its_own_extremes(real_clips):
    waves = RawWave(sample_rate=44_100)(real_clips).numpy()
    assert waves.shape == (10, 88_200, 1)
    assert_allclose(waves.min(axis=1), -0.5, atol=1e-6)
    assert_allclose(waves.max(axis=1), 0.5, atol=1e-4)


def test_without_scaling_the_samples_stay_as_they_are():
    waveform = np.random.default_rng(0).standard_normal((2, 99)).astype("float32")
    assert_array_equal(RawWave(sample_rate=16_000, scaling=None)(waveform)[..., 0], waveform)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "peak"}, "scaling must be 'min_max' or None. Received: scaling='peak'"),
        ({"sample_rate": 0}, "sample_rate must be above 0. Received: sample_rate=0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        RawWave(**{"sample_rate": 16_000} | options)
    assert message in str(error.value)
