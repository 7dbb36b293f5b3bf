"""How well found events agree with annotated ones.

Reference: A. Mesaros, T. Heittola and T. Virtanen, "Metrics for polyphonic sound event detection", 2016; sed_eval.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag.data.clips import read_table
from audiotag.errors import DataError, shortened

COLUMNS = ["fname", "start", "end", "class"]


@dataclass(frozen=True)
class Agreement:
    """Counts of true positives, false positives and false negatives.

    Example:
        >>> Agreement(6, 2, 4).precision, Agreement(6, 2, 4).recall, round(Agreement(6, 2, 4).f1, 3)
        (0.75, 0.6, 0.667)
    """

    hits: int = 0
    false: int = 0
    missed: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(self.hits + other.hits, self.false + other.false, self.missed + other.missed)

    @property
    def precision(self) -> float:
        """The fraction of found events that are annotated; 0 without found ones."""
        return self.hits / max(self.hits + self.false, 1)

    @property
    def recall(self) -> float:
        """The fraction of annotated events that are found; 0 without annotated ones."""
        return self.hits / max(self.hits + self.missed, 1)

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + false + missed); 0 without events."""
        return 2 * self.hits / max(2 * self.hits + self.false + self.missed, 1)


def event_agreement(true_onsets: np.ndarray, found_onsets: np.ndarray, *, collar_seconds: float = 0.2) -> Agreement:
    """Event-based agreement of one class in one recording.

    A found event is right if it begins at most the collar away from an annotated one; each is matched once, as many as
    possible.

    Args:
        true_onsets: [events], seconds.
        found_onsets: [events], seconds.
        collar_seconds: How far a found onset may be from an annotated one, at least 0.

    Example:
        >>> event_agreement(np.array([1.0, 5.0]), np.array([0.9, 1.1, 7.0]))
        Agreement(hits=1, false=2, missed=1)
    """
    hits, true, found = 0, sorted(true_onsets), sorted(found_onsets)
    place = 0
    for onset in true:  # the earliest that is near enough: of equal collars this matches the most
        while place < len(found) and found[place] < onset - collar_seconds - 1e-9:
            place += 1
        if place < len(found) and found[place] <= onset + collar_seconds + 1e-9:
            hits, place = hits + 1, place + 1
    return Agreement(hits, len(found) - hits, len(true) - hits)


def segment_agreement(
    true_events: np.ndarray, found_events: np.ndarray, seconds: float, *, segment_seconds: float = 1.0
) -> Agreement:
    """Segment-based agreement of one class in one recording.

    It compares in which segments the class is active.

    Args:
        true_events: [events, 2], start and end in seconds.
        found_events: [events, 2], the same.
        seconds: The length of the recording.
        segment_seconds: Length of a segment.

    Example:
        >>> segment_agreement(np.array([[0.5, 2.5]]), np.array([[1.0, 3.5]]), 5.0)
        Agreement(hits=2, false=1, missed=1)
    """
    true, found = (_active(each, seconds, segment_seconds) for each in (true_events, found_events))
    return Agreement(int((true & found).sum()), int((~true & found).sum()), int((true & ~found).sum()))


def _active(spans, seconds, segment_seconds):
    """Whether each segment overlaps an event."""
    active = np.zeros(max(int(np.ceil(seconds / segment_seconds)), 1), bool)
    for start, end in spans:
        active[int(start / segment_seconds) : int(np.ceil(end / segment_seconds))] = True
    return active


def read_events(path: str | Path, vocabulary: Iterable[str]) -> pd.DataFrame:
    """Reads a table of annotated events.

    Args:
        path: A CSV file with the columns fname, start, end (seconds) and class. A recording without events has one row
            without these three.
        vocabulary: The class names.

    Returns:
        The four columns; start and end are numbers, and class is "" in the row of a recording without events.

    Raises:
        DataError: A column is missing, or a row is wrong.
    """
    table, vocabulary = read_table(path, COLUMNS)[COLUMNS], set(vocabulary)
    for column in ("start", "end"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    for row, event in table[table["class"] != ""].iterrows():
        if event["class"] not in vocabulary:
            raise DataError(f"{row}: the model has no class {shortened(event['class'])!r}. Correct or remove the row.")
        if not 0 <= event["start"] <= event["end"] < np.inf:
            raise DataError(
                f"{row}: found start {event['start']} and end {event['end']}. Expected seconds from the start of the "
                "recording, the end not before the start."
            )
    return table
