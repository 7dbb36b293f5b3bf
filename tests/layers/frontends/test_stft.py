import librosa
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from audiotag.layers.frontends.stft import hann_window, power_spectrogram, reflect_pad


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
