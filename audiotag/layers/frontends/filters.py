"""Filters that gather the bins of an FFT into bands, and the mel scale."""

import numpy as np
from keras import ops

from audiotag.layers.frontends.stft import PRECISION

# A band touches few bins. So many bands at a time multiply the bins they touch: a tenth of the work of all by all.
BANDS_PER_PRODUCT = 8


def mel_filters(*, sample_rate, fft_length, num_bands, low_hz, high_hz, mel_scale, norm):
    """Triangles that gather the bins of an FFT into mel bands, as `librosa.filters.mel` has them.

    Reference: M. Slaney, "Auditory Toolbox", 1998; S. Young et al., "The HTK Book", 2006.

    Returns:
        [fft_length // 2 + 1, M] float64, a column a band.

    Example:
        >>> filters = mel_filters(sample_rate=16_000, fft_length=512, num_bands=40, low_hz=0.0, high_hz=8000.0,
        ...                       mel_scale="htk", norm=None)
        >>> filters.shape
        (257, 40)
    """
    lowest, highest = hz_to_mel(np.array([low_hz, high_hz]), mel_scale)
    edges = mel_to_hz(np.linspace(lowest, highest, num_bands + 2), mel_scale)  # [M + 2]
    bins = np.fft.rfftfreq(fft_length, 1 / sample_rate)[:, None]  # [F, 1]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])  # [F, M]
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])  # [F, M]
    filters = np.maximum(0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2 / (edges[2:] - edges[:-2])
    return filters


def hz_to_mel(hz, scale):
    """Frequencies on a mel scale, "slaney" or "htk".

    Example:
        >>> hz_to_mel(np.array([0.0, 500.0, 1000.0]), "slaney").tolist()
        [0.0, 7.5, 15.0]
    """
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def mel_to_hz(mel, scale):
    """The inverse of `hz_to_mel`.

    Example:
        >>> mel_to_hz(np.array([0.0, 7.5, 15.0]), "slaney").tolist()
        [0.0, 500.0, 1000.0]
    """
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def touched_bins(filters):
    """Groups of neighbouring bands with the bins that they touch: (first, last, filters[first:last, group]).

    Example:
        >>> [(first, last, part.shape) for first, last, part in touched_bins(np.eye(20, 16))]
        [(0, 8, (8, 8)), (8, 16, (8, 8))]
    """
    for start in range(0, filters.shape[1], BANDS_PER_PRODUCT):
        group = filters[:, start : start + BANDS_PER_PRODUCT]
        touched = np.flatnonzero(group.any(axis=1))
        first, last = (int(touched[0]), int(touched[-1]) + 1) if touched.size else (0, 1)
        yield first, last, group[first:last].astype(PRECISION)


def gathered(bins, groups):
    """What is in the bins [B, T, F], gathered into bands by the groups of `touched_bins`: [B, T, M], in `PRECISION`.

    Example:
        >>> groups = touched_bins(np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 0.5]]))
        >>> np.asarray(gathered(np.array([[[1.0, 2.0, 3.0]]]), groups))[0, 0].tolist()
        [3.0, 2.5]
    """
    bins = ops.cast(bins, PRECISION)
    return ops.concatenate([ops.matmul(bins[..., first:last], filters) for first, last, filters in groups], axis=-1)
