"""Scores and events of audio files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import progress
from audiotag.data.audio.decoding import read_waveform
from audiotag.inference.long_recordings import ahead, events, finite_logits, predict_windows, seconds_of
from audiotag.inference.predictor import Predictor, pool_windows

LONG_SECONDS = 600  # a longer recording is scored window by window


def score_files(predictor: Predictor, paths: Sequence[Path]) -> np.ndarray:
    """Logits of audio files.

    Files are read as make-records reads clips, but not rounded to 16 bits. Recordings longer than
    ten minutes are scored window by window, and not trimmed.

    Args:
        predictor: A `Predictor`.
        paths: Audio files of any length, rate and number of channels.

    Returns:
        float64 [len(paths), K].

    Raises:
        DataError: A file cannot be read, or its logits are not finite.
    """
    read = lambda path: None if seconds_of(path) > LONG_SECONDS else read_waveform(path, **predictor.audio_config)
    waveforms = ahead((path, read(path)) for path in paths)
    scores = []
    for path, waveform in progress.bar(waveforms, total=len(paths), unit="file", label="predict"):
        if waveform is None:
            logits = pool_windows(predict_windows(predictor, path)[2], predictor.pool)
        else:
            logits = np.asarray(predictor.logits(waveform[None]))[0]
        scores.append(finite_logits(logits, path).astype("float64"))
    return np.stack(scores)


def score_events(predictor: Predictor, paths: Sequence[Path], *, threshold: float) -> tuple[np.ndarray, pd.DataFrame]:
    """Logits of audio files, and when each class is detected in them.

    The files are scored window by window.

    Args:
        predictor: A `Predictor`.
        paths: Audio files of any length, rate and number of channels. They are not trimmed.
        threshold: The probability from which a class is detected.

    Returns:
        (logits float64 [len(paths), K], table): `table` has the columns fname, start, end (seconds), class,
        probability.

    Raises:
        DataError: A file cannot be read, or its logits are not finite.
    """
    scores, tables = [], []
    for path in progress.bar(paths, total=len(paths), unit="file", label="predict"):
        starts, ends, logits = predict_windows(predictor, path)
        scores.append(pool_windows(logits, predictor.pool))
        table = events(starts, ends, expit(logits.astype("float64")), predictor.vocabulary, threshold=threshold)
        table.insert(0, "fname", str(path))
        tables.append(table)
    return np.stack(scores), pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def top_classes(names: Sequence[str | Path], logits: np.ndarray, vocabulary: Sequence[str], top: int) -> str:
    """The `top` most probable classes of each file, as lines of text.

    Each comes with its probability.
    """
    lines = []
    for name, row in zip(names, expit(logits)):
        best = np.argsort(-row, kind="stable")[:top]
        lines += [str(name), *(f"  {row[label]:6.1%}  {vocabulary[label]}" for label in best)]
    return "\n".join(lines)
