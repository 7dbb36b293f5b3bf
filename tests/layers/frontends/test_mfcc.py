import warnings

import librosa
import numpy as np
import pytest
import scipy.fft
from examples import MEL, WAVEFORM
from numpy.testing import assert_allclose

from audiotag.layers import Mfcc
from audiotag.layers.frontends.mfcc import dct_matrix

EXAMPLES = [(Mfcc, MEL | {"num_coefficients": 13, "dynamic_range_db": 60.0, "dtype": "float64"}, WAVEFORM)]


def librosa_mfcc(clip, sample_rate, count=40, **options):
    """librosa's coefficients of one clip: [T, count]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clips shorter than a frame
        return librosa.feature.mfcc(y=clip, sr=sample_rate, n_mfcc=count, **options).T


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_extremes_agree_with_librosa(sample_rate, extremes):
    layer = Mfcc(sample_rate=sample_rate)
    for name, clip in extremes(sample_rate).items():
        assert_allclose(layer(clip[None])[0], librosa_mfcc(clip, sample_rate), rtol=0, atol=2e-3, err_msg=name)


def test_real_clips_agree_with_librosa_and_have_the_published_shape(real_clips):
    coefficients = Mfcc(sample_rate=44_100)(real_clips)
    assert tuple(coefficients.shape) == (10, 173, 40)
    assert_allclose(coefficients, [librosa_mfcc(clip, 44_100) for clip in real_clips], rtol=0, atol=2e-3)


def test_every_option_agrees_with_librosa(extremes):
    clip = extremes(16_000)["clipped sine"]
    layer = Mfcc(
        sample_rate=16_000,
        num_coefficients=64,
        num_bands=64,
        fft_length=512,
        frame_step=160,
        low_hz=60.0,
        high_hz=7800.0,
        padding="reflect",
    )
    expected = librosa_mfcc(
        clip, 16_000, 64, n_mels=64, n_fft=512, hop_length=160, fmin=60.0, fmax=7800.0, pad_mode="reflect"
    )
    assert_allclose(layer(clip[None])[0], expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 2048, 5001])
def test_every_length_agrees_with_librosa(samples):
    waveforms = np.random.default_rng(samples).standard_normal((2, samples)).astype("float32")
    expected = [librosa_mfcc(clip, 22_050) for clip in waveforms]
    assert_allclose(Mfcc(sample_rate=22_050)(waveforms), expected, rtol=0, atol=2e-3)
    assert Mfcc(sample_rate=22_050).compute_output_shape((2, samples)) == (2, len(expected[0]), 40)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (5, 3), (128, 128)])
def test_the_dct_is_that_of_scipy(size, count):
    assert_allclose(dct_matrix(size, count), scipy.fft.dct(np.eye(size), norm="ortho")[:, :count], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_coefficients": 0}, "num_coefficients must be above 0. Received: num_coefficients=0"),
        ({"num_coefficients": 129}, "num_coefficients must be at most num_bands=128. Received: num_coefficients=129"),
        ({"high_hz": 8001.0}, "at most 8000.0, half of sample_rate=16000. Received: high_hz=8001.0"),
        ({"dynamic_range_db": -1.0}, "dynamic_range_db must be above 0. Received: dynamic_range_db=-1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError) as error:
        Mfcc(**{"sample_rate": 16_000} | options)
    assert message in str(error.value)
