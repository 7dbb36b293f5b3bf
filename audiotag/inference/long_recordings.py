"""Predictions per window for recordings of any length, in constant memory."""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile as sf

from audiotag.data.audio.decoding import gain_to, open_recording, refuse_too_loud, resampled_blocks
from audiotag.errors import DataError
from audiotag.inference.predictor import Predictor

WINDOWS_PER_BATCH = 64
T = TypeVar("T")


def predict_windows(
    predictor: Predictor, path: str | Path, waveform: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logits of each window of a recording, however long.

    Windows are placed like "sliding" ones. The recording is not trimmed: times are those of the
    file.

    Args:
        predictor: A `Predictor`.
        path: An audio file, as for `read_waveform`.
        waveform: What `read_recording` returns for it, if it was read already.

    Returns:
        (starts in seconds float64 [W], ends in seconds float64 [W], logits float32 [W, K]).

    Raises:
        DataError: `read_waveform` would refuse the file, apart from its length; or the logits are not finite.
    """
    starts, ends, predictions = [], [], []
    for batch_starts, batch_ends, windows in ahead(window_batches_of(predictor, path, waveform)):
        starts.append(batch_starts)
        ends.append(batch_ends)
        predictions.append(finite_logits(predictor.logits(windows), path))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(predictions)


def window_batches_of(
    predictor: Predictor, path: str | Path, waveform: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields the windows of a recording, however long, in batches.

    Args:
        predictor: A `Predictor`.
        path: An audio file, as for `read_waveform`.
        waveform: What `read_recording` returns for it, if it was read already.

    Yields:
        (starts in seconds float64 [B], ends in seconds float64 [B], waveform float32 [B, N]): N is the model's window,
        or the length of a shorter recording.

    Raises:
        DataError: `read_waveform` would refuse the file, apart from its length.
    """
    rate = predictor.audio_config["sample_rate"]
    blocks = (lambda: _blocks(path, rate)) if waveform is None else (lambda: [waveform])
    n = predictor.window_samples
    gain = _gain(blocks, predictor.audio_config["peak_db"])
    windows = windows_of(blocks(), n, predictor.hop)
    while batch := list(itertools.islice(windows, WINDOWS_PER_BATCH)):
        starts = np.array([start / rate for start, _ in batch])
        waveforms = np.stack([window for _, window in batch])  # [B, N]
        if predictor.audio_config["peak_db"] is None:
            refuse_too_loud(waveforms.ravel(), path=path)
        if gain != 1:
            waveforms *= gain
        yield starts, starts + waveforms.shape[1] / rate, prepare_windows(waveforms, n)


def prepare_windows(waveforms: np.ndarray, window_samples: int) -> np.ndarray:
    """Clips windows float32 [B, N] to -1 to 1, in place.

    Zeros at the end of a window of full length become almost zero, since they would count as padding.
    """
    np.clip(waveforms, -1, 1, out=waveforms)
    if waveforms.shape[1] == window_samples:
        waveforms[:, -1] = np.where(waveforms[:, -1] == 0, 1e-30, waveforms[:, -1])
    return waveforms


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; a thread makes the next while the caller uses one.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not `end`


def finite_logits(logits: np.ndarray, path: str | Path) -> np.ndarray:
    """The same logits, if they are finite.

    Raises:
        DataError: One of them is NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise DataError(
            f"{path}: the model predicts NaN or infinity. Leave the file out; if other files fail too, retrain it."
        )
    return logits


def windows_of(blocks: Iterable[np.ndarray], n: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (start, window [n]) over a recording that arrives in blocks.

    The last window ends with the recording. A recording shorter than a window is one window of its
    own length.

    Example:
        >>> [(start, window.tolist()) for start, window in windows_of([np.arange(3), np.arange(3, 5)], 4, 3)]
        [(0, [0.0, 1.0, 2.0, 3.0]), (1, [1.0, 2.0, 3.0, 4.0])]
    """
    buffer = tail = np.zeros(0, "float32")  # samples from the start of the next window; the last n samples
    start = total = 0
    for block in blocks:
        total += len(block)
        tail = np.concatenate([tail, block])[-n:]
        buffer = np.concatenate([buffer, block])
        while len(buffer) > n:
            yield start, buffer[:n]
            start, buffer = start + hop, buffer[hop:]
    yield total - len(tail), tail


def seconds_of(path: str | Path) -> float:
    """The length of a recording by its header, in seconds; 0 if unreadable."""
    try:
        with open_recording(path) as (header, _):
            if header.num_samples is None:  # an MP3
                return sf.info(path).duration
            return header.num_samples / header.sample_rate
    except (DataError, sf.LibsndfileError, OSError, ValueError):
        return 0.0


def _blocks(path, rate):
    """Yields a recording as mono float32 at a rate, in blocks."""
    with open_recording(path) as (header, blocks):
        if header.sample_rate != rate:
            blocks = resampled_blocks(blocks, rate=header.sample_rate, sample_rate=rate, path=path)
        yield from blocks


def read_recording(path: str | Path, sample_rate: int) -> np.ndarray:
    """A recording as mono float32 [N] at a rate in Hz, neither trimmed nor scaled.

    Raises:
        DataError: As for `predict_windows`.
    """
    return np.concatenate([*_blocks(path, sample_rate)])


def _gain(blocks, peak_db):
    """The factor that brings the peak of a recording to `peak_db` dBFS; 1 for None."""
    if peak_db is None:
        return np.float32(1)
    peak = max(float(np.abs(block).max(initial=0.0)) for block in blocks())
    return np.float32(gain_to(peak_db, peak=peak))
