"""Faults of a clip's sound, and its fingerprint; runs in worker processes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiotag.data.audio.decoding import FULL_SCALE, decode_excerpt, decode_file, read_bytes, refuse_too_loud
from audiotag.data.audio.fingerprints import Fingerprint, fingerprint
from audiotag.errors import DataError

FLAT = 4  # equal samples at the peak, at least: sound changes from sample to sample
FULL = (FULL_SCALE - 1) / FULL_SCALE - 1e-6
NUM_LEVELS = 64  # of a spectrum, from 0 to half of the sample rate
CLIFF_DB = 30.0  # by which all of the spectrum is below its neighbors
LOWEST_CLIFF_HZ = 3000.0  # of a recording at 8,000 Hz; lower edges are those of deep sounds
HIGHEST_CLIFF = 0.62  # of half of the sample rate: lossy formats cut at 0.7 and above
Waveform = tuple[np.ndarray, int]  # float32 or int16 [N], and its sample rate in Hz


@dataclass(frozen=True)
class Examination:
    """What one clip sounds like, or why it cannot be decoded.

    Args:
        fault: Why it cannot be decoded; "" if it can. All else is 0 or None then.
        seconds: Its duration.
        sample_rate: That of the file, in Hz.
        peak: The largest absolute sample, 1 at full scale.
        rms: Root mean square.
        mean: Of all samples: the DC offset.
        clipped: How many runs of samples are flat at the peak, or at full scale.
        bandwidth_hz: Above it there is next to nothing, and below it there is; None if the spectrum has no such edge.
        sha256: Of the samples.
        fingerprint: The `Fingerprint`.
    """

    fault: str = ""
    seconds: float = 0.0
    sample_rate: int = 0
    peak: float = 0.0
    rms: float = 0.0
    mean: float = 0.0
    clipped: int = 0
    bandwidth_hz: float | None = None
    sha256: str = ""
    fingerprint: Fingerprint | None = None


def examine(entry: str | Path | tuple[str, float, float] | Waveform) -> Examination:
    """Examines a recording.

    Args:
        entry: A file, or a part of it (the file, start and end in seconds), or a waveform and its sample rate.
    """
    path = "" if isinstance(entry, tuple) and isinstance(entry[0], np.ndarray) else _path(entry)
    try:
        waveform, rate = _decoded(entry, path)
        refuse_too_loud(waveform, path=path)
    except DataError as error:
        return Examination(fault=str(error).removeprefix(f"{path}: "))
    print_, spectrum = fingerprint(waveform, rate)
    peak = float(np.abs(waveform).max())
    return Examination(
        seconds=len(waveform) / rate,
        sample_rate=rate,
        peak=peak,
        rms=float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))),
        mean=float(np.mean(waveform, dtype="float64")),
        clipped=count_flat_peaks(waveform, peak=peak),
        bandwidth_hz=edge_of(spectrum, rate),
        sha256=hashlib.sha256(waveform.tobytes()).hexdigest(),
        fingerprint=print_,
    )


def _path(entry):
    return str(entry[0] if isinstance(entry, tuple) else entry)


def _decoded(entry: Any, path: str) -> tuple[np.ndarray, int]:
    """(waveform float32 [N], sample rate) of what `examine` takes."""
    if not path:
        waveform, rate = entry
        return waveform.astype("float32") / (np.float32(FULL_SCALE if waveform.dtype == np.int16 else 1)), rate
    return decode_excerpt(*entry) if isinstance(entry, tuple) else decode_file(read_bytes(path), path=Path(path))


def count_flat_peaks(waveform: np.ndarray, *, peak: float) -> int:
    """The runs of at least 4 samples at the peak of a waveform, or at full scale.

    Args:
        waveform: float32 [N].
        peak: Its largest absolute sample.

    Example:
        >>> wave = np.sin(np.linspace(0, 40 * np.pi, 4000)).astype("float32")
        >>> count_flat_peaks(wave, peak=1.0), count_flat_peaks(np.clip(2 * wave, -0.9, 0.9), peak=0.9)
        (0, 40)
    """
    level = min(peak * (1 - 1e-5), FULL)
    if not peak:
        return 0
    runs = 0
    for side in (waveform >= level, waveform <= -level):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], side.view("int8"), [0]])))
        runs += int((edges[1::2] - edges[::2] >= FLAT).sum())
    return runs


def edge_of(spectrum: np.ndarray, sample_rate: int) -> float | None:
    """The frequency in Hz above which a spectrum is empty; None if there is none.

    A recording that was made at a lower rate and resampled has one. All above is 30 dB or more below the levels just
    under it. The edges of lossy formats, above 0.62 of half of the sample rate, do not count.

    Args:
        spectrum: [F], mean power of each FFT bin, from 0 to half of the sample rate.
        sample_rate: In Hz.
    """
    bounds = np.linspace(0, len(spectrum), NUM_LEVELS + 1).astype(int)
    if len(spectrum) < 2 * NUM_LEVELS or not spectrum.any():
        return None
    power = np.add.reduceat(spectrum, bounds[:-1]) / np.diff(bounds)
    levels = 10 * np.log10(np.maximum(power, 1e-30 + 1e-14 * power.max()))
    drops = [levels[edge - 3 : edge].min() - levels[edge + 1 :].max() for edge in range(3, NUM_LEVELS - 1)]
    best = int(np.argmax(drops))
    fraction = (best + 3) / NUM_LEVELS
    edge_hz = fraction * sample_rate / 2
    return edge_hz if drops[best] >= CLIFF_DB and fraction <= HIGHEST_CLIFF and edge_hz >= LOWEST_CLIFF_HZ else None
