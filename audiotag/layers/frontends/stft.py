"""From waveforms to the power in the bins of an FFT, frame by frame."""

import keras
import numpy as np
from keras import ops

# Of an FFT and of what gathers its bins. The rounding of a float32 FFT is white: it moves what lies 80 dB under a pure
# tone by up to 2e-2 dB, amplitudes (power 1) by several decibels, and the TF32 products of a GPU add to it. JAX has no
# float64 unless the user switches it on.
PRECISION = "float32" if keras.config.backend() == "jax" else "float64"


def hann_window(window_length, fft_length):
    """A periodic Hann window in the middle of `fft_length` samples: [F] float64.

    Example:
        >>> hann_window(4, 6).round(3).tolist()
        [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    before = (fft_length - window_length) // 2
    return np.pad(window, (before, fft_length - window_length - before))


def reflected(waveform, margin):
    """A waveform [B, N] between its mirror images, `margin` samples on both sides: [B, N + 2 * margin].

    A clip shorter than the margin is reflected again and again, as `numpy.pad` does.

    Example:
        >>> np.asarray(reflected(np.array([[1, 2, 3]]), 3))[0].tolist()
        [2, 3, 2, 1, 2, 3, 2, 1, 2]
    """
    last = ops.shape(waveform)[1] - 1
    place = ops.concatenate([ops.arange(-margin, 0), last + 1 + ops.arange(margin)])
    place = ops.mod(place, ops.maximum(2 * last, 1))
    mirrors = ops.take(waveform, ops.minimum(place, 2 * last - place), axis=1)
    return ops.concatenate([mirrors[:, :margin], waveform, mirrors[:, margin:]], axis=1)


def power_spectrum(waveform, window, *, frame_step, num_frames):
    """Power of the FFT of overlapping frames: [B, N] → [B, T, F // 2 + 1], in `PRECISION`.

    Frame t is the samples from t * frame_step on, as many as the window has, times
    the window; zeros stand beyond the end. The waveform is cut into steps once and a
    frame is the next few steps side by side: copies of whole rows, where gathering
    sample by sample takes several times as long.

    Example:
        >>> power = power_spectrum(np.arange(10.0)[None], np.ones(4), frame_step=3, num_frames=3)
        >>> np.asarray(power)[0].round(3).tolist()
        [[36.0, 8.0, 4.0], [324.0, 8.0, 4.0], [900.0, 8.0, 4.0]]
    """
    width = -(-len(window) // frame_step)  # P, steps in a frame
    num_steps = num_frames + width - 1  # S
    waveform = ops.pad(waveform, [[0, 0], [0, width * frame_step]])[:, : num_steps * frame_step]
    steps = ops.reshape(ops.cast(waveform, PRECISION), (ops.shape(waveform)[0], num_steps, frame_step))
    frames = ops.take(steps, ops.arange(num_frames)[:, None] + ops.arange(width), axis=1)  # [B, T, P, frame_step]
    frames = ops.reshape(frames, (ops.shape(waveform)[0], num_frames, width * frame_step))
    padded = np.pad(window, (0, width * frame_step - len(window))).astype(PRECISION)
    real, imaginary = ops.rfft(ops.multiply(frames, padded), len(window))  # [B, T, F // 2 + 1]
    return ops.square(real) + ops.square(imaginary)
