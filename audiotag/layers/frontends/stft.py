"""Power spectrograms: the short-time Fourier transform and what it needs."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers import checks

Dtype = Literal["float32", "float64"]
# JAX has no float64 unless the user enables it.
FLOAT64: Dtype = "float32" if keras.config.backend() == "jax" else "float64"
# The rounding error of a float32 FFT is white: levels 80 dB below a loud tone are off by up to 1e-2 dB, levels
# 100 dB below it by 0.1 dB.
FLOAT32_RANGE_DB = 100.0


def spectrum_dtype(dtype: Dtype | None, *, range_db: float | None = 0.0) -> Dtype:
    """The type to compute a spectrum in; on JAX always "float32".

    Args:
        dtype: The type that the user chose, or None.
        range_db: How far below the loudest power the output resolves levels, in decibels; None for no floor. If it is
            more than 100 dB, None stands for "float64".

    Raises:
        ValueError: Another type.

    Example:
        >>> spectrum_dtype(None, range_db=80.0)
        'float32'
    """
    checks.one_of(("float32", "float64", None), dtype=dtype)
    if dtype is None:
        dtype = "float64" if range_db is None or range_db > FLOAT32_RANGE_DB else "float32"
    return FLOAT64 if dtype == "float64" else "float32"


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


def power_spectrogram(waveform: Any, window: np.ndarray, *, frame_step: int, num_frames: Any, margin: int = 0) -> Any:
    """Squared magnitudes of the FFT of windowed frames, in the type of the window.

    Frame t starts at sample t * frame_step - margin and is as long as the window; zeros
    precede and follow the waveform. The waveform is cut into steps once and a frame is a
    few consecutive steps: this copies complete rows, where gathering sample by sample
    takes several times as long.

    Args:
        waveform: [B, N].
        window: [fft_length], float32 or float64.
        frame_step: Step from one frame to the next, in samples.
        num_frames: T, an int or an integer tensor.
        margin: Zeros before the waveform, below fft_length.

    Returns:
        [B, T, F] with F = fft_length // 2 + 1.

    Example:
        >>> power = power_spectrogram(np.arange(10.0)[None], np.ones(4), frame_step=3, num_frames=3)
        >>> np.asarray(power)[0].round(3).tolist()
        [[36.0, 8.0, 4.0], [324.0, 8.0, 4.0], [900.0, 8.0, 4.0]]
    """
    width = -(-len(window) // frame_step)  # steps per frame
    num_steps = num_frames + width - 1
    waveform = ops.cast(waveform, window.dtype.name)[:, : num_steps * frame_step - margin]
    batch, samples = ops.shape(waveform)
    waveform = ops.pad(waveform, [[0, 0], [margin, num_steps * frame_step - margin - samples]])
    steps = ops.reshape(waveform, (batch, num_steps, frame_step))
    frames = ops.take(steps, ops.arange(num_frames)[:, None] + ops.arange(width), axis=1)  # [B, T, width, frame_step]
    frames = ops.reshape(frames, (batch, num_frames, width * frame_step))
    padded = np.pad(window, (0, width * frame_step - len(window)))
    real, imaginary = ops.rfft(ops.multiply(frames, padded), len(window))  # [B, T, F]
    return ops.square(real) + ops.square(imaginary)
