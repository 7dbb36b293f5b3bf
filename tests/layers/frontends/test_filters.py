import warnings

import librosa
import numpy as np
import pytest
from keras import ops
from numpy.testing import assert_allclose

from audiotag.layers.frontends import filters as filters_module
from audiotag.layers.frontends.filters import apply_filters, filter_groups, full_matmul, mel_filters


@pytest.mark.parametrize("mel_scale", ["slaney", "htk"])
@pytest.mark.parametrize("norm", ["slaney", None])
@pytest.mark.parametrize(
    ("sample_rate", "fft_length", "num_bands", "low_hz", "high_hz"),
    [(44_100, 2560, 128, 20.0, 22_050.0), (16_000, 400, 40, 0.0, 8000.0), (32_000, 1023, 64, 500.0, 999.0)],
)
def test_the_filters_are_those_of_librosa(sample_rate, fft_length, num_bands, low_hz, high_hz, mel_scale, norm):
    ours = mel_filters(
        sample_rate=sample_rate,
        fft_length=fft_length,
        num_bands=num_bands,
        low_hz=low_hz,
        high_hz=high_hz,
        mel_scale=mel_scale,
        norm=norm,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty bands
        expected = librosa.filters.mel(
            sr=sample_rate,
            n_fft=fft_length,
            n_mels=num_bands,
            fmin=low_hz,
            fmax=high_hz,
            htk=mel_scale == "htk",
            norm=norm,
            dtype=np.float64,
        )
    assert_allclose(ours, expected.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_bands", [1, 31, 32, 33, 128])
def test_applying_the_filters_in_groups_equals_the_full_product(num_bands):
    spectrogram = np.random.default_rng(0).random((2, 3, 129))
    filters = mel_filters(
        sample_rate=8000, fft_length=256, num_bands=num_bands, low_hz=0, high_hz=4000, mel_scale="slaney", norm="slaney"
    )  # some of 128 bands are empty
    assert_allclose(apply_filters(spectrogram, filter_groups(filters)), spectrogram @ filters, rtol=1e-9)


def test_a_gpu_that_rounds_factors_to_tf32_gives_nearly_all_digits(monkeypatch):
    """TF32 is imitated: 10 bits of mantissa in both factors, rounded to nearest."""

    def rounded(factor):
        return ((np.asarray(factor).view("int32") + 2**12) & -(2**13)).view("float32")

    product = ops.matmul
    rng = np.random.default_rng(0)
    x = (rng.random((2, 3, 129)) * 10.0 ** rng.integers(-12, 9, (2, 3, 129))).astype("float32")
    matrix = rng.random((129, 5)).astype("float32")
    expected = x.astype("float64") @ matrix.astype("float64")
    monkeypatch.setattr(filters_module.ops, "matmul", lambda a, b: product(rounded(a), rounded(b)))
    assert np.max(np.abs(full_matmul(x, matrix) / expected - 1)) > 1e-4  # what happens without the layer's care
    monkeypatch.setattr(filters_module, "rounds_products", lambda: True)
    assert_allclose(full_matmul(x, matrix), expected, rtol=2e-6)
