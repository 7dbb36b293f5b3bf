"""Power spectrograms: the short-time Fourier transform and what it needs."""

import contextlib
import contextvars
import math
from collections.abc import Iterator
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
_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable_operators() -> Iterator[None]:
    """Computes in float32 and without an FFT in this block.

    For graphs that are converted to other formats, such as ONNX and LiteRT, which lack both: a layer that is called
    here uses matrix products. Spectra differ by rounding errors of float32.

    Example:
        >>> with portable_operators():
        ...     are_portable()
        True
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def are_portable() -> bool:
    """Whether this is called in a block of `portable_operators`."""
    return _portable.get()


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
    window = window.astype("float32") if are_portable() else window
    width = -(-len(window) // frame_step)  # steps per frame
    num_steps = num_frames + width - 1
    waveform = ops.cast(waveform, window.dtype.name)[:, : num_steps * frame_step - margin]
    batch, samples = ops.shape(waveform)
    waveform = ops.pad(waveform, [[0, 0], [margin, num_steps * frame_step - margin - samples]])
    steps = ops.reshape(waveform, (batch, num_steps, frame_step))
    frames = ops.take(steps, ops.arange(num_frames)[:, None] + ops.arange(width), axis=1)  # [B, T, width, frame_step]
    frames = ops.reshape(frames, (batch, num_frames, width * frame_step))
    if are_portable():
        return power_by_products(frames[..., : len(window)] * window)  # [B, T, F]
    padded = np.pad(window, (0, width * frame_step - len(window)))
    real, imaginary = ops.rfft(ops.multiply(frames, padded), len(window))  # [B, T, F]
    return ops.square(real) + ops.square(imaginary)


def power_by_products(frames: Any) -> Any:
    """Squared magnitudes of the FFT of frames, by products with two small matrices.

    A frame of n = n1 n2 samples is a matrix. The transform of its columns, a rotation of each number, and the transform
    of its rows are its spectrum. For a prime n it is one product with a large matrix.

    Reference: J. Cooley and J. Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965.

    Args:
        frames: float32 [B, T, n].

    Returns:
        [B, T, n // 2 + 1].

    Example:
        >>> np.asarray(power_by_products(np.arange(4.0, dtype="float32")[None, None]))[0, 0].round(3).tolist()
        [36.0, 8.0, 4.0]
    """
    batch, num_frames, n = ops.shape(frames)
    n1 = max(divisor for divisor in range(1, math.isqrt(n) + 1) if n % divisor == 0)
    n2, rows = n // n1, n // n1 // 2 + 1  # rows k2 of k = k1 + n1 k2 up to n // 2
    cosine, sine = _rotation(n1, n1, n1)
    columns = ops.swapaxes(ops.reshape(frames, (-1, n1, n2)), 1, 2)  # [B * T, n2, n1]
    parts = portable_matmul(columns, np.concatenate([cosine, -sine], axis=1))  # [B * T, n2, 2 n1]
    real, imaginary = parts[..., :n1], parts[..., n1:]
    cosine, sine = _rotation(n2, n1, n)
    rotated = [real * cosine + imaginary * sine, imaginary * cosine - real * sine]  # [B * T, n2, n1] both
    rotated = ops.swapaxes(ops.concatenate(rotated, axis=1), 1, 2)  # [B * T, n1, 2 n2]
    cosine, sine = _rotation(n2, rows, n2)
    parts = portable_matmul(rotated, np.block([[cosine, -sine], [sine, cosine]]))  # [B * T, n1, 2 rows]
    power = ops.square(parts[..., :rows]) + ops.square(parts[..., rows:])  # [B * T, n1, rows]
    power = ops.reshape(ops.swapaxes(power, 1, 2), (batch, num_frames, n1 * rows))
    return power[..., : n // 2 + 1]


def portable_matmul(x: Any, matrix: np.ndarray) -> Any:
    """The product x @ matrix in float32, whatever a converter quantizes.

    Converters to 8 bits round constants. An 8-bit matrix would ruin a spectrum, whose largest and smallest numbers are
    1e8 apart. So the matrix depends on x in form: a zero is added to it.

    Example:
        >>> np.asarray(portable_matmul(np.array([[1.0, 2.0]], "float32"), np.array([[3.0], [4.0]]))).tolist()
        [[11.0]]
    """
    zero = ops.maximum(ops.minimum(ops.reshape(x, (-1,))[:1], 0.0), 0.0)  # [1]
    return ops.matmul(x, matrix.astype("float32") + zero)


def _rotation(rows, columns, period):
    """(cosine, sine) of 2 pi row column / period: float32 [rows, columns] both."""
    angle = 2 * np.pi / period * (np.outer(np.arange(rows), np.arange(columns)) % period)
    return np.cos(angle).astype("float32"), np.sin(angle).astype("float32")
