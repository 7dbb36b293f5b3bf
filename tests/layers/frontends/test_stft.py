import librosa
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers import FRONTENDS
from audiotag.layers.frontends.stft import (
    are_portable,
    hann_window,
    portable_operators,
    power_by_products,
    power_spectrogram,
    reflect_pad,
)


@pytest.mark.parametrize(("window_length", "fft_length"), [(400, 400), (400, 512), (401, 512), (25, 32)])
def test_the_window_is_that_of_librosa(window_length, fft_length):
    expected = librosa.util.pad_center(librosa.filters.get_window("hann", window_length), size=fft_length)
    assert_allclose(hann_window(window_length, fft_length), expected, atol=1e-15)


@pytest.mark.parametrize("frame_step", [1, 3, 8, 20, 31, 50])
@pytest.mark.parametrize("num_frames", [1, 2, 90])
def test_the_power_is_that_of_slices_of_the_zero_padded_waveform(frame_step, num_frames):
    num_frames = min(num_frames, -(-90 // frame_step))
    waveform, window = np.random.default_rng(0).standard_normal((2, 90)), np.arange(20.0)
    power = power_spectrogram(waveform, window, frame_step=frame_step, num_frames=num_frames)
    padded = np.pad(waveform, [(0, 0), (0, 20)])
    starts = range(0, num_frames * frame_step, frame_step)
    frames = np.stack([padded[:, start : start + 20] * window for start in starts], axis=1)
    assert_allclose(power, np.abs(np.fft.rfft(frames)) ** 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("samples", [1, 2, 3, 7, 8, 20])
@pytest.mark.parametrize("margin", [0, 1, 7, 20])
def test_reflection_is_that_of_numpy_for_clips_of_any_length(samples, margin):
    waveform = np.random.default_rng(0).standard_normal((2, samples))
    assert_array_equal(reflect_pad(waveform, margin), np.pad(waveform, [(0, 0), (margin, margin)], mode="reflect"))


@pytest.mark.parametrize("fft_length", [1, 2, 7, 400, 512, 2560])
def test_products_of_small_matrices_are_as_exact_as_a_float32_fft(fft_length):
    frames = np.random.default_rng(0).standard_normal((2, 3, fft_length))
    magnitude = np.abs(np.fft.rfft(frames))
    found = np.sqrt(power_by_products(frames.astype("float32")))
    assert_allclose(found, magnitude, atol=1e-6 * magnitude.max())


@pytest.mark.parametrize("name", sorted(FRONTENDS))
def test_front_ends_have_the_same_values_with_portable_operators(name):
    """Those in float64 differ most: PCEN raises what is far below the loudest band."""
    rate = 16_000 if name == "yamnet_mel" else 32_000
    layer = FRONTENDS[name](sample_rate=rate)
    waveform = 0.1 * np.random.default_rng(0).standard_normal((2, 12_000)).astype("float32")
    expected = np.asarray(layer(waveform))
    with portable_operators():
        assert are_portable()
        found = np.asarray(layer(waveform))
    assert not are_portable()
    assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
