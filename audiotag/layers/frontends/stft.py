"""Power spectrograms: the short-time Fourier transform and what it needs."""

from typing import Any

import keras
import numpy as np
from keras import ops

# Of an FFT and of the filters applied to it. The rounding error of a float32 FFT is white: it moves levels 80 dB below
# a pure tone by up to 2e-2 dB, amplitudes (power 1) by several decibels, and the TF32 products of a GPU add to it.
# JAX has no float64 unless the user enables it.
COMPUTE_DTYPE = "float32" if keras.config.backend() == "jax" else "float64"


def hann_window(window_length: int, fft_length: int) -> np.ndarray:
    """A periodic Hann window in the middle of zeros: [fft_length] float64.

    Example:
        >>> hann_window(4, 6).round(3).tolist()
        [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    before = (fft_length - window_length) // 2
    return np.pad(window, (before, fft_length - window_length - before))


def reflect_pad(waveform: Any, margin: int) -> Any:
    """Pads a waveform with its mirror image: [B, N] to [B, N + 2 * margin].

    A clip shorter than the margin is reflected repeatedly, as `numpy.pad` does.

    Example:
        >>> np.asarray(reflect_pad(np.array([[1, 2, 3]]), 3))[0].tolist()
        [2, 3, 2, 1, 2, 3, 2, 1, 2]
    """
    last = ops.shape(waveform)[1] - 1
    index = ops.concatenate([ops.arange(-margin, 0), last + 1 + ops.arange(margin)])
    index = ops.mod(index, ops.maximum(2 * last, 1))
    mirrors = ops.take(waveform, ops.minimum(index, 2 * last - index), axis=1)  # [B, 2 * margin]
    return ops.concatenate([mirrors[:, :margin], waveform, mirrors[:, margin:]], axis=1)


def power_spectrogram(waveform: Any, window: np.ndarray, *, frame_step: int, num_frames: Any) -> Any:
    """Squared magnitudes of the FFT of windowed frames, in float64 (float32 on JAX).

    Frame t starts at sample t * frame_step and is as long as the window; zeros follow
    the waveform. The waveform is cut into steps once and a frame is a few consecutive
    steps: this copies complete rows, where gathering sample by sample takes several
    times as long.

    Args:
        waveform: [B, N].
        window: [fft_length].
        frame_step: Step from one frame to the next, in samples.
        num_frames: T, an int or an integer tensor.

    Returns:
        [B, T, F] with F = fft_length // 2 + 1.

    Example:
        >>> power = power_spectrogram(np.arange(10.0)[None], np.ones(4), frame_step=3, num_frames=3)
        >>> np.asarray(power)[0].round(3).tolist()
        [[36.0, 8.0, 4.0], [324.0, 8.0, 4.0], [900.0, 8.0, 4.0]]
    """
    width = -(-len(window) // frame_step)  # steps per frame
    num_steps = num_frames + width - 1
    waveform = ops.pad(waveform, [[0, 0], [0, width * frame_step]])[:, : num_steps * frame_step]
    steps = ops.reshape(ops.cast(waveform, COMPUTE_DTYPE), (ops.shape(waveform)[0], num_steps, frame_step))
    frames = ops.take(steps, ops.arange(num_frames)[:, None] + ops.arange(width), axis=1)  # [B, T, width, frame_step]
    frames = ops.reshape(frames, (ops.shape(waveform)[0], num_frames, width * frame_step))
    padded = np.pad(window, (0, width * frame_step - len(window))).astype(COMPUTE_DTYPE)
    real, imaginary = ops.rfft(ops.multiply(frames, padded), len(window))  # [B, T, F]
    return ops.square(real) + ops.square(imaginary)
