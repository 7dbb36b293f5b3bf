"""Scores and events of audio files."""

import collections
import functools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import files, progress
from audiotag.data.audio.decoding import read_waveform
from audiotag.errors import DataError
from audiotag.inference.events import AS_THEY_ARE, EventSettings, events
from audiotag.inference.long_recordings import finite_logits, predict_windows, read_recording, seconds_of
from audiotag.inference.predictor import Predictor, pool_windows

LONG_SECONDS = 600  # a longer recording is scored window by window
MAX_READERS = 4  # threads that decode files, and decoded files that wait
EMPTY_EVENTS = pd.DataFrame(
    {"fname": [], "start": [], "end": [], "class": [], "probability": []}, dtype="float64"
).astype({"fname": object, "class": object})


@dataclass(frozen=True)
class FileScores:
    """What was predicted for one file.

    Args:
        name: The file.
        logits: float64 [K]; None if the file is rejected.
        events: A table of the columns start, end (seconds), class, probability; None if not asked for.
        rejected: Why the file cannot be predicted; None if it was.
    """

    name: str
    logits: np.ndarray | None = None
    events: pd.DataFrame | None = None
    rejected: str | None = None


def score_each(
    predictor: Predictor,
    paths: Iterable[str | Path],
    *,
    threshold: float | np.ndarray | None = None,
    settings: EventSettings = AS_THEY_ARE,
) -> Iterator[FileScores]:
    """Yields the scores of audio files, in their order.

    The next files are decoded while the model scores one. Each file is scored alone, so its scores do not depend on the
    others. A file that cannot be read or scored is rejected, and the others go on.

    Args:
        predictor: A `Predictor`.
        paths: Audio files of any length, rate and number of channels.
        threshold: The probability from which a class is detected, for all classes or [K], to find events too. The
            files are then scored window by window and not trimmed. None finds no events.
        settings: How detections become events.
    """
    read = functools.partial(_read, predictor, whole=threshold is not None)
    for path, waveform in _read_ahead(read, paths):
        try:
            yield _score(predictor, path, waveform.result(), threshold, settings)
        except DataError as error:
            yield FileScores(shown(path), rejected=str(error))


def shown(path: str | Path) -> str:
    """A path as text that UTF-8 can hold.

    Example:
        >>> shown("h\\udce9.wav")
        'h\\\\udce9.wav'
    """
    return str(path).encode(errors="backslashreplace").decode()


def _read_ahead(read, paths):
    """Yields (path, future of `read(path)`) in order; threads read the files to come."""
    with ThreadPoolExecutor(MAX_READERS) as threads:
        waiting: collections.deque = collections.deque()
        try:
            for path in paths:
                waiting.append((path, threads.submit(read, path)))
                if len(waiting) > MAX_READERS:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, future in waiting:
                future.cancel()


def _read(predictor, path, *, whole):
    """The waveform [N] of a file; None for a long recording, which is read when it is scored.

    Trimmed and scaled as clips are, or, if `whole`, as it is.
    """
    if not files.is_utf8(path):
        raise DataError(f"the name {str(path)!r} has bytes that are not UTF-8. Rename the file.")
    if seconds_of(path) > LONG_SECONDS:
        return None
    if whole:
        return read_recording(path, predictor.audio_config["sample_rate"])
    return read_waveform(path, **predictor.audio_config)


def _score(predictor, path, waveform, threshold, settings):
    """The `FileScores` of a file that was read."""
    if threshold is None and waveform is not None:
        logits = finite_logits(np.asarray(predictor.logits(waveform[None]))[0], path)
        return FileScores(str(path), logits.astype("float64"))
    starts, ends, logits = predict_windows(predictor, path, waveform)
    found = None
    if threshold is not None:
        probabilities = expit(logits.astype("float64"))
        found = events(starts, ends, probabilities, predictor.vocabulary, threshold=threshold, settings=settings)
    return FileScores(str(path), pool_windows(logits, predictor.pool).astype("float64"), found)


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
    return np.stack([scores.logits for scores in _all_scores(predictor, paths, None) if scores.logits is not None])


def score_events(
    predictor: Predictor, paths: Sequence[Path], *, threshold: float | np.ndarray
) -> tuple[np.ndarray, pd.DataFrame]:
    """Logits of audio files, and when each class is detected in them.

    The files are scored window by window.

    Args:
        predictor: A `Predictor`.
        paths: Audio files of any length, rate and number of channels. They are not trimmed.
        threshold: The probability from which a class is detected, for all classes or [K].

    Returns:
        (logits float64 [len(paths), K], table): `table` has the columns fname, start, end (seconds), class,
        probability.

    Raises:
        DataError: A file cannot be read, or its logits are not finite.
    """
    scores = _all_scores(predictor, paths, threshold)
    return np.stack([each.logits for each in scores if each.logits is not None]), events_table(scores)


def _all_scores(predictor, paths, threshold):
    """The scores of all files; raises if one is rejected."""
    found = []
    scores = score_each(predictor, paths, threshold=threshold)
    for each in progress.bar(scores, total=len(paths), unit="file", label="predict"):
        if each.rejected is not None:
            raise DataError(each.rejected)
        found.append(each)
    return found


def events_table(scores: Iterable[FileScores]) -> pd.DataFrame:
    """The events of several files: fname, start, end (seconds), class, probability."""
    tables = [EMPTY_EVENTS]
    for each in scores:
        if each.events is not None and len(each.events):
            tables.append(each.events.assign(fname=each.name)[EMPTY_EVENTS.columns])
    return pd.concat(tables[1:] or tables, ignore_index=True)


def top_classes(names: Sequence[str | Path], logits: np.ndarray, vocabulary: Sequence[str], top: int) -> str:
    """The `top` most probable classes of each file, as lines of text.

    Each comes with its probability.
    """
    lines = []
    for name, row in zip(names, expit(logits)):
        best = np.argsort(-row, kind="stable")[:top]
        lines += [str(name), *(f"  {row[label]:6.1%}  {vocabulary[label]}" for label in best)]
    return "\n".join(lines)
