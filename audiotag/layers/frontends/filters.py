"""Mel filters, the mel scale, and applying filters to the bins of an FFT."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
from keras import ops

from audiotag.layers.frontends.stft import COMPUTE_DTYPE

# A band covers few bins. Multiplying this many bands at a time, each group by its own bins only, is a tenth of the work
# of the full matrix product.
BANDS_PER_MATMUL = 8


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
        (first, last, filters[first:last, group]) in float64 (float32 on JAX): outside these
        bins the filters of the group are 0.

    Example:
        >>> [(first, last, group.shape) for first, last, group in filter_groups(np.eye(20, 16))]
        [(0, 8, (8, 8)), (8, 16, (8, 8))]
    """
    for start in range(0, filters.shape[1], BANDS_PER_MATMUL):
        group = filters[:, start : start + BANDS_PER_MATMUL]
        nonzero = np.flatnonzero(group.any(axis=1))
        first, last = (int(nonzero[0]), int(nonzero[-1]) + 1) if nonzero.size else (0, 1)
        yield first, last, group[first:last].astype(COMPUTE_DTYPE)


def apply_filters(spectrogram: Any, groups: Iterable[tuple[int, int, np.ndarray]]) -> Any:
    """Applies the filters in `filter_groups`: [B, T, F] to [B, T, M].

    It computes in float64 (float32 on JAX).

    Example:
        >>> groups = filter_groups(np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]))
        >>> np.asarray(apply_filters(np.array([[[1.0, 2.0, 3.0]]]), groups))[0, 0].tolist()
        [3.0, 2.5]
    """
    spectrogram = ops.cast(spectrogram, COMPUTE_DTYPE)
    bands = [ops.matmul(spectrogram[..., first:last], filters) for first, last, filters in groups]
    return ops.concatenate(bands, axis=-1)  # [B, T, M]
