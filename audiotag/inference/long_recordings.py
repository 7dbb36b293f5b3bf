"""When is each class heard? Recordings of any length, window by window, in as much memory as a minute takes."""

import itertools

import numpy as np
import pandas as pd
import soundfile as sf

from audiotag.data.audio.decoding import gain_to, open_recording, resampled_blocks
from audiotag.errors import DataError

WINDOWS_AT_ONCE = 64


def hear_windows(listener, path):
    """What is heard in each window of a recording, however long; windows lie as "covering" ones do.

    Nothing is trimmed: times are those of the file.

    Args:
        listener: A `Listener`.
        path: A WAV, FLAC, Ogg, MP3 or AIFF file.

    Returns:
        (starts in seconds float64 [W], ends in seconds float64 [W], logits float32 [W, K]).

    Raises:
        DataError: The file is none that `read_waveform` takes, but for its length; or the model answers no numbers.
    """
    rate = listener.hearing["sample_rate"]
    gain = _gain(path, rate, listener.hearing["peak_db"])
    starts, ends, answers = [], [], []
    windows = windows_of(_blocks(path, rate), listener.window_samples, listener.hop)
    while some := list(itertools.islice(windows, WINDOWS_AT_ONCE)):
        starts += [start / rate for start, _ in some]
        ends += [(start + len(window)) / rate for start, window in some]
        waveform = np.clip(np.stack([gain * window for _, window in some]), -1, 1)  # [B, N]
        if waveform.shape[1] == listener.window_samples:  # or silence at its end would be taken for filling
            waveform[:, -1] = np.where(waveform[:, -1] == 0, 1e-30, waveform[:, -1])
        answers.append(finite_logits(listener.logits(waveform), path))
    return np.array(starts), np.array(ends), np.concatenate(answers)


def finite_logits(logits, path):
    """The logits that a model answers for a file.

    Raises:
        DataError: One of them is no number.
    """
    if not np.isfinite(logits).all():
        raise DataError(
            f"{path}: the model answers NaN or infinity. Leave the file out; if it answers others so, train it anew."
        )
    return logits


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
    """How long a recording is, as its header says; 0 where it is none."""
    try:
        with open_recording(path) as (header, _):
            told = header.num_samples is not None  # an MP3 does not
            return header.num_samples / header.sample_rate if told else sf.info(path).duration
    except (DataError, sf.LibsndfileError, OSError, ValueError):
        return 0.0


def _blocks(path, rate):
    """Yields a recording as mono float32 at a rate, in blocks."""
    with open_recording(path) as (header, blocks):
        if header.sample_rate != rate:
            blocks = resampled_blocks(blocks, rate=header.sample_rate, sample_rate=rate, path=path)
        yield from blocks


def _gain(path, rate, peak_db):
    """What to multiply a recording by so that its peak is at `peak_db` dBFS; None leaves it as it is."""
    if peak_db is None:
        return np.float32(1)
    peak = max(float(np.abs(block).max(initial=0.0)) for block in _blocks(path, rate))
    return np.float32(gain_to(peak_db, peak=peak))
