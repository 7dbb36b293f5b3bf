"""Scores for clips: of the records, for metrics and submissions, or of any audio files."""


import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import progress
from audiotag.data.audio.decoding import read_waveform
from audiotag.inference.long_recordings import events, finite_logits, hear_windows, seconds_of
from audiotag.inference.predictor import pool_windows

LONG_SECONDS = 600  # beyond which a recording is heard window by window


def score_files(listener, paths):
    """Scores of audio files, read as make-records read the clips, but for the rounding to 16 bits.

    Recordings of more than ten minutes are heard window by window, and nothing is trimmed off them.

    Args:
        listener: A `Listener`.
        paths: Audio files of any length, rate and number of channels.

    Returns:
        Logits float64 [len(paths), K].
    """
    scores = []
    for path in progress.bar(paths, total=len(paths), unit="file", label="predict"):
        if seconds_of(path) > LONG_SECONDS:
            logits = pool_windows(hear_windows(listener, path)[2], listener.pool)
        else:
            logits = np.asarray(listener.logits(read_waveform(path, **listener.hearing)[None]))[0]
        scores.append(finite_logits(logits, path).astype("float64"))
    return np.stack(scores)


def score_timelines(listener, paths, *, threshold):
    """Scores of audio files that are heard window by window, and when each class is heard.

    Args:
        listener: A `Listener`.
        paths: Audio files of any length, rate and number of channels. Nothing is trimmed off them.
        threshold: From which probability on a class is heard.

    Returns:
        (logits float64 [len(paths), K], table): `table` has the columns fname, start, end (seconds), class,
        probability.
    """
    scores, tables = [], []
    for path in progress.bar(paths, total=len(paths), unit="file", label="predict"):
        starts, ends, logits = hear_windows(listener, path)
        scores.append(pool_windows(logits, listener.pool))
        heard = events(starts, ends, expit(logits.astype("float64")), listener.vocabulary, threshold=threshold)
        heard.insert(0, "fname", str(path))
        tables.append(heard)
    return np.stack(scores), pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def best_classes(names, logits, vocabulary, top):
    """Scores in words: for each file its `top` classes and their probabilities."""
    lines = []
    for name, row in zip(names, expit(logits)):
        best = np.argsort(-row, kind="stable")[:top]
        lines += [str(name), *(f"  {row[label]:6.1%}  {vocabulary[label]}" for label in best)]
    return "\n".join(lines)
