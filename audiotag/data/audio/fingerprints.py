"""Fingerprints of sounds, alike at another level and in another format.

A fingerprint has the level of 24 bands over time, at most 256 frames of them. It needs the same few kilobytes for a
clip of any length. Recordings in other formats, at other rates and levels, and with the start or the end cut off have
fingerprints that agree once they are aligned.

Reference: Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System", 2002: long overlapping frames, so that a
cut between two frames changes little, and differences of neighboring bands and frames.
"""

import functools
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.sparse import csr_array

FRAME_SECONDS, HOP_SECONDS = 0.064, 0.016
MOST_FRAMES = 256
LOW_HZ, HIGH_HZ, NUM_BANDS = 60.0, 7000.0, 24
SUMMARY_BANDS = 17  # those below 3.7 kHz, which recordings at 8 kHz have
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
LOUD_DB = 15.0  # below the loudest frame: the frames that a summary is of
RANGE_DB = 40.0  # of a summary, below the mean power
SILENCE_DB = -120.0  # a louder frame is needed
STEPS_PER_DB = 100  # of a stored level
NONE = -32_768  # stored for a band above half of the sample rate
SMOOTHING = np.array([1, 4, 6, 4, 1]) / 16  # before every second frame is left out
FRAMES_AT_A_TIME = 64


@dataclass(frozen=True)
class Fingerprint:
    """The levels of a sound.

    Args:
        levels: int16 [T, 24], of each band in each frame, in hundredths of dB; `NONE` above half of the sample rate.
        doublings: How often the time between frames was doubled from 16 ms.
        summary: float32 [S], alike for sounds with similar levels, whatever their order in time; None if silent.
    """

    levels: np.ndarray
    doublings: int
    summary: np.ndarray | None

    @property
    def hop_seconds(self) -> float:
        """Seconds from a frame to the next."""
        return HOP_SECONDS * 2**self.doublings


def fingerprint(waveform: np.ndarray, sample_rate: int) -> tuple[Fingerprint, np.ndarray]:
    """The fingerprint of a waveform, and its mean spectrum.

    Args:
        waveform: float32 [N], N >= 1.
        sample_rate: In Hz.

    Returns:
        (`Fingerprint`, mean power of each FFT bin from 0 to half of the sample rate, float64 [F]).
    """
    length = max(8, round(FRAME_SECONDS * sample_rate))
    count = max(1, 1 + int((len(waveform) - length) / (HOP_SECONDS * sample_rate)))
    starts = np.round(np.arange(count) * HOP_SECONDS * sample_rate).astype(int)
    waveform = np.pad(waveform, (0, max(0, int(starts[-1]) + length - len(waveform))))
    fft_length = scipy.fft.next_fast_len(length, real=True)
    window = np.hanning(length + 2)[1:-1].astype("float32")
    bands = band_matrix(fft_length, sample_rate)  # [B, F]
    powers, spectrum = np.empty((count, NUM_BANDS)), np.zeros(bands.shape[1])
    frames = np.lib.stride_tricks.sliding_window_view(waveform, length)
    for at in range(0, count, FRAMES_AT_A_TIME):
        block = frames[starts[at : at + FRAMES_AT_A_TIME]] * window  # [T, N]
        power = np.square(np.abs(scipy.fft.rfft(block, fft_length)))  # [T, F]
        powers[at : at + FRAMES_AT_A_TIME] = (bands @ power.T).T
        spectrum += power.sum(axis=0, dtype="float64")
    doublings = 0
    while len(powers) > MOST_FRAMES:
        powers, doublings = halved(powers), doublings + 1
    present = bands.sum(axis=1) > 0  # [B]
    with np.errstate(divide="ignore"):
        decibels = np.maximum(10 * np.log10(powers / np.square(window.sum())), -200.0)
    levels = np.where(present, np.round(decibels * STEPS_PER_DB), NONE).astype("int16")
    return Fingerprint(levels, doublings, _summary(decibels, present)), spectrum / count


@functools.lru_cache(maxsize=8)
def band_matrix(fft_length: int, sample_rate: int) -> csr_array:
    """The FFT bins of each band, [24, F]: triangles as of a mel spectrogram.

    A band that reaches above half of the sample rate is empty.
    """
    hertz = np.fft.rfftfreq(fft_length, 1 / sample_rate)[:, None]  # [F, 1]
    to_mel = lambda value: 2595 * np.log10(1 + value / 700)
    edges = 700 * (10 ** (np.linspace(to_mel(LOW_HZ), to_mel(HIGH_HZ), NUM_BANDS + 2) / 2595) - 1)
    rising = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    matrix = np.maximum(0, np.minimum(rising, falling))  # [F, B]
    return csr_array(np.where(edges[2:] <= sample_rate / 2, matrix, 0).T.astype("float32"))


def halved(powers: np.ndarray) -> np.ndarray:
    """Every second frame of powers [T, B], smoothed: [ceil(T / 2), B]."""
    padded = np.pad(powers, ((2, 2), (0, 0)), mode="edge")
    return sum(weight * padded[at : at + len(powers)] for at, weight in enumerate(SMOOTHING))[::2]


def _summary(decibels, present):
    """The mean and quantiles over the loud frames of the first bands, relative to their power; None for silence."""
    decibels = decibels[:, :SUMMARY_BANDS]  # [T, b]
    total = 10 * np.log10(np.sum(10 ** (decibels / 10), axis=1))  # [T]
    if total.max() < SILENCE_DB or not present[:SUMMARY_BANDS].any():
        return None
    loud = total > total.max() - LOUD_DB
    level = 10 * np.log10(np.mean(10 ** (total[loud] / 10)))
    relative = np.maximum(decibels[loud] - level, -RANGE_DB)
    mean = 10 * np.log10(np.mean(10 ** (relative / 10), axis=0))
    return np.concatenate([mean[None], np.quantile(relative, QUANTILES, axis=0)]).ravel().astype("float32")
