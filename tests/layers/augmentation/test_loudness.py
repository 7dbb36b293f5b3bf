import numpy as np
import pytest
from examples import WAVEFORM
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, norm, spearmanr, uniform

from audiotag.layers import Gain, WhiteNoise

EXAMPLES = [
    (Gain, {"min_db": -10.0, "max_db": 3.0, "probability": 0.9, "seed": 3}, WAVEFORM),
    (WhiteNoise, {"min_snr_db": 0.0, "max_snr_db": 9.0, "probability": 0.9, "seed": 3}, WAVEFORM),
]

ERROR_RATE = 1e-3  # the fraction of seeds with which a correct layer fails a test; the seeds are fixed


def waveforms(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def augmented(layer, waveform):
    """The outputs of ten calls on 1,000 clips: [10,000, N] float64."""
    return np.concatenate([layer(waveform, training=True) for _ in range(10)]).astype("float64")


def test_twenty_decibels_are_ten_times_the_amplitude():
    waveform = waveforms(3, 50)
    for gain_db, factor in ((20, 10), (-20, 0.1), (6, 1.9952623), (0, 1)):
        louder = Gain(min_db=gain_db, max_db=gain_db)(waveform, training=True)
        assert_allclose(louder, waveform * factor, rtol=1e-6)


def test_gains_are_uniform_in_decibels():
    gains = augmented(Gain(min_db=-12.0, max_db=3.0, seed=1), np.tile(np.array([[0.5, -0.25]], "float32"), (1000, 1)))
    assert_allclose(gains[:, 0] / 0.5, gains[:, 1] / -0.25, rtol=1e-5)  # one gain per clip
    assert kstest(20 * np.log10(gains[:, 0] / 0.5), uniform(-12, 15).cdf).pvalue > ERROR_RATE


def test_signal_to_noise_ratios_are_uniform_in_decibels():
    waveform = waveforms(1000, 128) * np.geomspace(1e-3, 1, 1000, dtype="float32")[:, None]
    noise = WhiteNoise(min_snr_db=-5.0, max_snr_db=25.0, probability=1.0, seed=1)
    added = augmented(noise, waveform) - np.tile(waveform, (10, 1))
    power = np.tile(np.mean(np.square(waveform.astype("float64")), axis=1), 10)
    ratio_db = 10 * np.log10(power / np.mean(np.square(added), axis=1))
    assert kstest(ratio_db, uniform(-5, 30).cdf).pvalue > ERROR_RATE
    assert spearmanr(ratio_db, power).pvalue > ERROR_RATE  # independent of the level of the clip


@pytest.mark.parametrize("length", [999, 1000])
def test_the_signal_to_noise_ratio_is_exact(length):
    waveform = waveforms(4, length)
    noise = WhiteNoise(min_snr_db=12.0, max_snr_db=12.0, probability=1.0)
    added = np.asarray(noise(waveform, training=True)) - waveform
    ratio = np.mean(np.square(waveform), axis=1) / np.mean(np.square(added), axis=1)
    assert_allclose(10 * np.log10(ratio), 12, atol=1e-3)


def test_white_noise_is_normal_and_its_samples_are_independent():
    ones = np.ones((100, 500), "float32")
    added = np.asarray(WhiteNoise(min_snr_db=0.0, max_snr_db=0.0, probability=1.0, seed=1)(ones, training=True)) - 1
    assert kstest(added.reshape(-1), norm.cdf).pvalue > ERROR_RATE
    for one, other in ((added[:, 1:], added[:, :-1]), (added[1:], added[:-1])):
        assert spearmanr(one.reshape(-1), other.reshape(-1)).pvalue > ERROR_RATE


def test_silence_stays_silence():
    for layer in (WhiteNoise(probability=1.0), Gain()):
        assert_array_equal(layer(np.zeros((3, 100), "float32"), training=True), np.zeros((3, 100)))


def test_the_level_is_measured_in_full_precision():
    waveform = (1e-3 * waveforms(3, 2000)).astype("float16")  # its square underflows
    added = np.asarray(WhiteNoise(min_snr_db=0, max_snr_db=0, probability=1)(waveform, training=True)).astype("float32")
    added -= waveform.astype("float32")
    ratio = np.mean(np.square(waveform.astype("float32")), axis=1) / np.mean(np.square(added), axis=1)
    assert_allclose(10 * np.log10(ratio), 0, atol=0.05)


def test_a_clip_without_noise_is_unchanged():
    waveform = waveforms(200, 50)
    noisy = np.asarray(WhiteNoise(seed=1)(waveform, training=True))
    unchanged = (noisy == waveform).all(axis=1)
    assert 60 < unchanged.sum() < 140


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gain(min_db=7.0), "min_db must be at most max_db. Received: min_db=7.0, max_db=6.0"),
        (
            lambda: WhiteNoise(max_snr_db=0.0),
            "min_snr_db must be at most max_snr_db. Received: min_snr_db=10.0, max_snr_db=0.0",
        ),
    ],
)
def test_options_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value) == message
