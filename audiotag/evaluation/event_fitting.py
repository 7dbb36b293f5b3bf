"""Fits thresholds and event settings to recordings with annotated events."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import progress
from audiotag.evaluation.event_measures import Agreement, event_agreement, segment_agreement
from audiotag.inference.events import EventSettings, detect, smoothed, thresholds_of
from audiotag.inference.long_recordings import predict_windows
from audiotag.inference.predictor import Predictor

NUM_THRESHOLDS = 24  # that are tried for each class
ROUNDS = 2  # through all settings


@dataclass(frozen=True)
class ScoredRecording:
    """The scores of the windows of a recording, and its annotated events.

    Args:
        starts: float64 [W], seconds.
        ends: float64 [W], seconds.
        probabilities: float64 [W, K].
        events: The columns start, end, class; no rows if it has none.
    """

    starts: np.ndarray
    ends: np.ndarray
    probabilities: np.ndarray
    events: pd.DataFrame


def score_recordings(predictor: Predictor, table: pd.DataFrame, folder: Path) -> list[ScoredRecording]:
    """Scores the recordings of a table of events window by window.

    Args:
        predictor: A `Predictor`.
        table: What `read_events` returns.
        folder: The names in the table are relative to it.

    Raises:
        DataError: A recording cannot be read.
    """
    recordings = []
    groups = table.groupby("fname", sort=False)
    for name, rows in progress.bar(groups, total=len(groups), unit="file", label="score"):
        starts, ends, logits = predict_windows(predictor, folder / str(name))
        events = rows.loc[rows["class"] != "", ["start", "end", "class"]].reset_index(drop=True)
        recordings.append(ScoredRecording(starts, ends, expit(logits.astype("float64")), events))
    return recordings


def fit_event_settings(
    recordings: Sequence[ScoredRecording], vocabulary: Sequence[str], *, collar_seconds: float = 0.2
) -> EventSettings:
    """The settings with the highest event-based F1 on these recordings.

    One setting after the other is changed to the value with the highest F1 over all classes, twice around; for each
    value, each class gets the threshold with its own highest F1. A class without annotated events gets the lowest
    threshold that finds none.

    Args:
        recordings: Recordings that the model did not train on.
        vocabulary: The K class names.
        collar_seconds: How far from an annotated onset a found one may be.
    """
    # The last window of a recording ends with it, so of two windows the second may start earlier.
    hop = max((np.diff(each.starts[:2])[0] for each in recordings if len(each.starts) > 1), default=1.0)
    window = max(each.ends[0] - each.starts[0] for each in recordings)
    choices: dict[str, list[float]] = {
        "edge_seconds": [round(window * part, 3) for part in (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)],
        "smooth_seconds": [0.0, 3 * hop, 5 * hop, 9 * hop],
        "low_fraction": [1.0, 0.7, 0.5, 0.3],
        "max_gap_seconds": [0.0, hop, window / 2, window, 2 * window],
        "min_seconds": [0.0, hop, window / 2, window],
    }
    best, score = EventSettings(), -1.0
    for name, values in itertools.chain.from_iterable(itertools.repeat(choices.items(), ROUNDS)):
        for value in values:
            candidate = best.model_copy(update={name: float(value)})
            thresholds, found = _fit_thresholds(recordings, vocabulary, candidate, collar_seconds)
            if found > score:
                named = dict(zip(vocabulary, thresholds))
                best, score = candidate.model_copy(update={"thresholds": named}), found
    return best


def measure_events(
    recordings: Sequence[ScoredRecording],
    vocabulary: Sequence[str],
    settings: EventSettings,
    *,
    threshold: Any = 0.5,
    collar_seconds: float = 0.2,
) -> tuple[Agreement, Agreement]:
    """(event-based, segment-based) agreement over all classes and recordings.

    Args:
        recordings: Recordings with annotated events.
        vocabulary: The K class names.
        settings: How detections become events.
        threshold: Where the settings have no thresholds.
        collar_seconds: As for `fit_event_settings`.
    """
    thresholds = thresholds_of(settings, vocabulary, threshold)
    by_event, by_segment = Agreement(), Agreement()
    for each in recordings:
        smooth = smoothed(each.starts, each.probabilities, settings.smooth_seconds)
        for label, name in enumerate(vocabulary):
            true = each.events.loc[each.events["class"] == name, ["start", "end"]].to_numpy()
            columns = smooth[:, label], each.probabilities[:, label]
            found = detect(each.starts, each.ends, *columns, thresholds[label], settings)[:, :2]
            by_event += event_agreement(true[:, 0], found[:, 0], collar_seconds=collar_seconds)
            by_segment += segment_agreement(true, found, each.ends[-1])
    return by_event, by_segment


def _fit_thresholds(recordings, vocabulary, settings, collar_seconds):
    """(the best threshold of each class, the event-based F1 of all classes with these)."""
    smooth = [smoothed(each.starts, each.probabilities, settings.smooth_seconds) for each in recordings]
    thresholds, total = [], Agreement()
    for label, name in enumerate(vocabulary):
        onsets = [each.events.loc[each.events["class"] == name, "start"].to_numpy() for each in recordings]
        scores = np.concatenate([each[:, label] for each in smooth])
        highest = min(float(scores.max()) + 1e-6, 1.0)  # finds nothing
        candidates = [highest]
        if sum(map(len, onsets)):
            candidates = np.unique(np.quantile(scores, 1 - np.geomspace(1e-4, 0.5, NUM_THRESHOLDS))).tolist()
        best = None
        for threshold in candidates:
            agreement = Agreement()
            for each, column, true in zip(recordings, smooth, onsets):
                columns = column[:, label], each.probabilities[:, label]
                found = detect(each.starts, each.ends, *columns, threshold, settings)
                agreement += event_agreement(true, found[:, 0], collar_seconds=collar_seconds)
            if best is None or agreement.f1 > best[1].f1:
                best = threshold, agreement
        thresholds.append(best[0])
        total += best[1]
    return thresholds, total.f1
