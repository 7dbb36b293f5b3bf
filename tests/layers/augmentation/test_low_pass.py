import numpy as np
import pytest
from examples import WAVEFORM
from numpy.testing import assert_allclose
from scipy.stats import kstest, uniform

from audiotag.layers import LowPass

EXAMPLES = [
    (
        LowPass,
        {"min_cutoff": 0.1, "max_cutoff": 0.5, "min_slope": 6.0, "max_slope": 60.0, "probability": 0.9, "seed": 3},
        WAVEFORM,
    ),
]
ALWAYS = {"probability": 1.0}


def gains_db(num_samples=1000, clips=4, **options):
    """The gain of each frequency of an impulse: [B, F], and the frequencies in parts of half the sample rate."""
    impulse = np.zeros((clips, num_samples), "float32")
    impulse[:, 0] = 1
    filtered = np.asarray(LowPass(**ALWAYS, **options)(impulse, training=True))
    gain = np.abs(np.fft.rfft(filtered))
    return 20 * np.log10(np.maximum(gain, 1e-6)), np.arange(gain.shape[1]) * 2 / num_samples


@pytest.mark.parametrize("num_samples", [999, 1000])
def test_frequencies_above_the_cutoff_lose_the_slope_per_octave(num_samples):
    gain, frequency = gains_db(num_samples, min_cutoff=0.25, max_cutoff=0.25, min_slope=30.0, max_slope=30.0)
    expected = -30 * np.maximum(np.log2(np.maximum(frequency, 1e-9) / 0.25), 0)
    assert_allclose(gain, np.broadcast_to(expected, gain.shape), atol=0.01)


def test_cutoffs_are_uniform_in_octaves_and_slopes_in_decibels():
    gain, frequency = gains_db(400, 3000, min_cutoff=0.1, max_cutoff=0.4, min_slope=12.0, max_slope=24.0, seed=1)
    at, above = -gain[:, frequency == 0.5][:, 0], -gain[:, frequency == 1][:, 0]
    slope = above - at  # over one octave
    assert kstest(slope, uniform(12, 12).cdf).pvalue > 1e-3
    octaves = np.log2(0.5) - at / slope  # of the cutoff
    assert kstest(octaves, uniform(np.log2(0.1), 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(octaves, slope)[0, 1]) < 0.06


def test_nothing_is_delayed():
    time = np.arange(2000)
    sound = np.sin(2 * np.pi * 0.02 * time) * np.hanning(2000)  # far below the cutoff
    filtered = LowPass(**ALWAYS, min_cutoff=0.3)(sound[None].astype("float32"), training=True)
    assert_allclose(np.asarray(filtered)[0], sound, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cutoff": 0.0}, "min_cutoff must be above 0 and at most max_cutoff"),
        ({"max_cutoff": 1.1}, "max_cutoff at most 1. Received: min_cutoff=0.15, max_cutoff=1.1"),
        ({"min_cutoff": 0.9}, "Received: min_cutoff=0.9, max_cutoff=0.8"),
        ({"min_slope": 100.0}, "min_slope must be from 0 to max_slope. Received: min_slope=100.0, max_slope=96.0"),
        ({"min_slope": -1.0}, "min_slope must be from 0 to max_slope"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LowPass(**options)
