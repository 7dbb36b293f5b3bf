"""When is each class heard? Recordings of any length, window by window, in as much memory as a minute takes."""

from pathlib import Path
from stat import S_ISREG

import numpy as np
import pandas as pd
import soundfile as sf
import soxr

from audiotag.errors import DataError

SMALL_BYTES = 1 << 20  # ten minutes of any codec are more
BLOCK = 1 << 18  # samples to decode at a time
WINDOWS_AT_ONCE = 64


def hear_windows(listener, path):
    """What is heard in each window of a recording, however long; windows lie as "covering" ones do.

    Nothing is trimmed: times are those of the file.

    Args:
        listener: A `Listener`.
        path: An audio file that soundfile reads.

    Returns:
        (starts in seconds float64 [W], ends in seconds float64 [W], logits float32 [W, K]).

    Raises:
        DataError: The file cannot be decoded, or holds no samples.
    """
    rate = listener.hearing["sample_rate"]
    gain = _gain(path, rate, listener.hearing["peak_db"])
    starts, ends, answers, waiting = [], [], [], []
    for start, window in windows_of(_blocks(path, rate), listener.window_samples, listener.hop):
        starts.append(start / rate)
        ends.append((start + len(window)) / rate)
        waiting.append(gain * window)
        if len(waiting) == WINDOWS_AT_ONCE:
            answers.append(listener.logits(np.stack(waiting)))
            waiting = []
    if waiting:
        answers.append(listener.logits(np.stack(waiting)))
    return np.array(starts), np.array(ends), np.concatenate(answers)


def windows_of(blocks, n, hop):
    """Yields (start, window [n]) over a sound that comes in blocks; the last window ends where the sound does.

    A sound shorter than a window is one window of its own length.

    Example:
        >>> [(start, window.tolist()) for start, window in windows_of([np.arange(3), np.arange(3, 5)], 4, 3)]
        [(0, [0.0, 1.0, 2.0, 3.0]), (1, [1.0, 2.0, 3.0, 4.0])]
    """
    held = tail = np.zeros(0, "float32")  # what begins with the next window; the last n samples
    start = total = 0
    for block in blocks:
        total += len(block)
        tail = np.concatenate([tail, block])[-n:]
        held = np.concatenate([held, block])
        while len(held) > n:
            yield start, held[:n]
            start, held = start + hop, held[hop:]
    yield total - len(tail), tail


def events(starts, ends, probabilities, vocabulary, *, threshold=0.5):
    """When each class is heard: windows that say yes and touch one another are one event.

    Args:
        starts: [W], seconds.
        ends: [W], seconds.
        probabilities: [W, K].
        vocabulary: The K class names.
        threshold: From which probability on a class is heard.

    Returns:
        A table by time: start, end (seconds), class, probability (the greatest).

    Example:
        >>> table = events([0, 1, 5], [2, 3, 7], np.array([[0.9], [0.6], [0.7]]), ["Bark"])
        >>> table.to_dict("split")["data"]
        [[0, 3, 'Bark', 0.9], [5, 7, 'Bark', 0.7]]
    """
    found = []
    for label, name in enumerate(vocabulary):
        last = None
        for window in np.flatnonzero(probabilities[:, label] >= threshold):
            probability = probabilities[window, label]
            if last and starts[window] <= last["end"]:
                last |= {"end": ends[window], "probability": max(last["probability"], probability)}
            else:
                last = {"start": starts[window], "end": ends[window], "class": name, "probability": probability}
                found.append(last)
    table = pd.DataFrame(found, columns=["start", "end", "class", "probability"])
    return table.sort_values(["start", "class"], ignore_index=True)


def seconds_of(path):
    """How long a recording is, as its header says; 0 where it is no file, says nothing sensible, or is small."""
    try:
        found = Path(path).stat()
        return sf.info(path).duration if S_ISREG(found.st_mode) and found.st_size > SMALL_BYTES else 0.0
    except (sf.LibsndfileError, OSError, ValueError):
        return 0.0


def _blocks(path, rate):
    """Yields a recording as mono float32 at a rate, in blocks."""
    try:
        with sf.SoundFile(path) as file:
            stream = soxr.ResampleStream(file.samplerate, rate, 1, quality="HQ") if file.samplerate != rate else None
            heard = 0
            while len(channels := file.read(BLOCK, dtype="float32", always_2d=True)):
                heard += len(channels)
                block = channels.mean(axis=1)
                if not np.isfinite(block).all():
                    raise DataError(f"{path}: samples near {heard / file.samplerate:.0f} s are NaN or infinite.")
                yield block if stream is None else stream.resample_chunk(block)
            if not heard:
                raise DataError(f"{path}: a header but no samples.")
            if stream is not None:
                yield stream.resample_chunk(np.zeros(0, "float32"), last=True)
    except (sf.LibsndfileError, OSError) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from error


def _gain(path, rate, peak_db):
    """What to multiply a recording by so that its peak is at `peak_db` dBFS; None leaves it as it is."""
    if peak_db is None:
        return np.float32(1)
    peak = max((float(np.abs(block).max()) for block in _blocks(path, rate) if len(block)), default=0.0)
    return np.float32(10 ** (peak_db / 20) / peak if peak >= 0.5 / 32_768 else 1)
