"""Mel filters, the mel scale, and applying filters to the bins of an FFT."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from audiotag.layers.frontends.stft import are_portable, portable_matmul

# A band covers few bins. Multiplying this many bands at a time, each group by its own bins only, is a fraction of the
# work of the full matrix product.
BANDS_PER_MATMUL = 32
FIRST_10_BITS = -(2**13)  # a mask of float32: sign, exponent and the first 10 of 23 bits of the mantissa


def mel_filters(
    *,
    sample_rate: int,
    fft_length: int,
    num_bands: int,
    low_hz: float,
    high_hz: float,
    mel_scale: Literal["slaney", "htk"],
    norm: Literal["slaney"] | None,
) -> np.ndarray:
    """Triangular mel filters, with the values of `librosa.filters.mel`.

    Reference: M. Slaney, "Auditory Toolbox", 1998; S. Young et al., "The HTK Book", 2006.

    Returns:
        [F, M] float64 with F = fft_length // 2 + 1: one column per band.

    Example:
        >>> filters = mel_filters(sample_rate=16_000, fft_length=512, num_bands=40, low_hz=0.0, high_hz=8000.0,
        ...                       mel_scale="htk", norm=None)
        >>> filters.shape
        (257, 40)
    """
    lowest, highest = hz_to_mel(np.array([low_hz, high_hz]), mel_scale)
    edges_hz = mel_to_hz(np.linspace(lowest, highest, num_bands + 2), mel_scale)  # [M + 2]
    bins_hz = np.fft.rfftfreq(fft_length, 1 / sample_rate)[:, None]  # [F, 1]
    rising = (bins_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])  # [F, M]
    falling = (edges_hz[2:] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])  # [F, M]
    filters = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2 / (edges_hz[2:] - edges_hz[:-2])
    return filters


def mel_scale_triangles(
    *, sample_rate: int, fft_length: int, num_bands: int, low_hz: float, high_hz: float
) -> np.ndarray:
    """Mel filters that are triangles over mel instead of Hz.

    The values are those of `tf.signal.linear_to_mel_weight_matrix` and of Kaldi, on which networks from outside
    were trained.

    Returns:
        [F, M] float64 with F = fft_length // 2 + 1: one column per band.

    Example:
        >>> filters = mel_scale_triangles(sample_rate=16_000, fft_length=512, num_bands=64, low_hz=125.0,
        ...                               high_hz=7500.0)
        >>> filters.shape
        (257, 64)
    """
    lowest, highest = hz_to_mel(np.array([low_hz, high_hz]), "htk")
    edges = np.linspace(lowest, highest, num_bands + 2)  # [M + 2], in mel
    bins = hz_to_mel(np.fft.rfftfreq(fft_length, 1 / sample_rate), "htk")[:, None]  # [F, 1], in mel
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])  # [F, M]
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])  # [F, M]
    return np.maximum(0, np.minimum(rising, falling))


def hz_to_mel(hz: np.ndarray, scale: Literal["slaney", "htk"]) -> np.ndarray:
    """Converts frequencies from Hz to mel.

    Example:
        >>> hz_to_mel(np.array([0.0, 500.0, 1000.0]), "slaney").tolist()
        [0.0, 7.5, 15.0]
    """
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def mel_to_hz(mel: np.ndarray, scale: Literal["slaney", "htk"]) -> np.ndarray:
    """Converts frequencies from mel to Hz, the inverse of `hz_to_mel`.

    Example:
        >>> mel_to_hz(np.array([0.0, 7.5, 15.0]), "slaney").tolist()
        [0.0, 500.0, 1000.0]
    """
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def filter_groups(filters: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """Splits filters [F, M] into groups of neighboring bands and their bins.

    Yields:
        (first, last, filters[first:last, group]): outside these bins the filters of the group are 0.

    Example:
        >>> [(first, last, group.shape) for first, last, group in filter_groups(np.eye(80, 64))]
        [(0, 32, (32, 32)), (32, 64, (32, 32))]
    """
    for start in range(0, filters.shape[1], BANDS_PER_MATMUL):
        group = filters[:, start : start + BANDS_PER_MATMUL]
        nonzero = np.flatnonzero(group.any(axis=1))
        first, last = (int(nonzero[0]), int(nonzero[-1]) + 1) if nonzero.size else (0, 1)
        yield first, last, group[first:last]


def apply_filters(spectrogram: Any, groups: Iterable[tuple[int, int, np.ndarray]]) -> Any:
    """Applies the filters in `filter_groups`, in their type: [B, T, F] to [B, T, M].

    Example:
        >>> groups = filter_groups(np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]))
        >>> np.asarray(apply_filters(np.array([[[1.0, 2.0, 3.0]]]), groups))[0, 0].tolist()
        [3.0, 2.5]
    """
    bands = [full_matmul(spectrogram[..., first:last], filters) for first, last, filters in groups]
    return ops.concatenate(bands, axis=-1)  # [B, T, M]


def full_matmul(x: Any, matrix: np.ndarray) -> Any:
    """The product x @ matrix in the precision of the matrix, also on GPUs.

    There TensorFlow and JAX round the factors of float32 products to TF32, whose mantissa
    has 10 bits: decibels would be off by up to 4e-3. Keras cannot switch that off, so where
    it sees a GPU each factor is split into its first 10 bits, which TF32 holds exactly, and
    the rest. Three products give all but the product of the rests, 1e-6 of the result.

    Args:
        x: [..., F], cast to the type of the matrix.
        matrix: [F, M], float32 or float64.

    Returns:
        [..., M].

    Example:
        >>> np.asarray(full_matmul(np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]))).tolist()
        [[11.0]]
    """
    if are_portable():
        return portable_matmul(ops.cast(x, "float32"), matrix)
    x = ops.cast(x, matrix.dtype.name)
    if matrix.dtype == "float64" or not rounds_products():
        return ops.matmul(x, matrix)
    high = ops.view(ops.bitwise_and(ops.view(x, "int32"), FIRST_10_BITS), "float32")
    matrix_high = (matrix.view("int32") & FIRST_10_BITS).view("float32")
    rests = ops.matmul(high, matrix - matrix_high) + ops.matmul(x - high, matrix_high)
    return ops.matmul(high, matrix_high) + rests


def rounds_products() -> bool:
    """Whether float32 products may be rounded: TensorFlow and JAX on a GPU."""
    if keras.config.backend() == "torch":  # it does not, unless the user asks for it
        return False
    return any("gpu" in device.lower() for device in keras.distribution.list_devices())
