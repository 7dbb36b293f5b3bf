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
SEARCHED_JOINTLY = (("edge_seconds", "smooth_seconds", "low_fraction"), ("max_gap_seconds", "min_seconds"))
PRICES = np.geomspace(0.01, 100, 60)  # of a false event, in found events
# Chosen on folds 1 to 3 of ESC-10: YAMNet and a ridge trained on one, fitted to recordings of another, measured on the
# third (benchmarks/field_recordings.py --choose). There 0.35 leaves 0.42 to 0.43 of the false events, and recall rises
# by 0.08 to 0.18.
MAX_FALSE = 0.35


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
    recordings: Sequence[ScoredRecording],
    vocabulary: Sequence[str],
    *,
    collar_seconds: float = 0.2,
    max_false: float = MAX_FALSE,
) -> EventSettings:
    """The settings that find the most events in these recordings with few false ones.

    At most `max_false` times as many events may be false as at a threshold of 0.5 without other settings, or one per
    ten annotated events if that is more. The settings with the highest F1 can find fewer events in other recordings
    than a threshold of 0.5 does.

    First edges, smoothing and hysteresis are searched jointly, then gaps and durations. For each choice, every
    class gets the threshold with the most found events less a price for each false one, which is the same for all
    classes: the lowest price that keeps the limit. A class without annotated events gets a threshold that finds none.

    Args:
        recordings: Recordings that the model did not train on.
        vocabulary: The K class names.
        collar_seconds: How far from an annotated onset a found one may be.
        max_false: The fraction, from 0.
    """
    # The last window of a recording ends with it, so of two windows the second may start earlier.
    hop = max((np.diff(each.starts[:2])[0] for each in recordings if len(each.starts) > 1), default=1.0)
    window = max(each.ends[0] - each.starts[0] for each in recordings)
    choices: dict[str, list[float]] = {
        "edge_seconds": [round(window * part, 3) for part in (0.0, 0.25, 0.5, 0.625, 0.75, 0.875)],
        "smooth_seconds": [0.0, 3 * hop, 5 * hop, 9 * hop],
        "low_fraction": [1.0, 0.5, 0.3, 0.2],
        "max_gap_seconds": [0.0, hop, window / 2, window, 2 * window],
        "min_seconds": [0.0, hop, window / 2, window],
    }
    plain, _ = measure_events(recordings, vocabulary, EventSettings(), collar_seconds=collar_seconds)
    limit = max(max_false * plain.false, (plain.hits + plain.missed) / 10)
    best, found = EventSettings(), None
    for names in SEARCHED_JOINTLY:
        start = best
        for values in itertools.product(*(choices[name] for name in names)):
            candidate = start.model_copy(update={name: float(value) for name, value in zip(names, values)})
            thresholds, agreement = _fit_thresholds(recordings, vocabulary, candidate, collar_seconds, limit)
            if found is None or (agreement.hits, -agreement.false) > (found.hits, -found.false):
                best = candidate.model_copy(update={"thresholds": dict(zip(vocabulary, thresholds))})
                found = agreement
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


def _fit_thresholds(recordings, vocabulary, settings, collar_seconds, limit):
    """(a threshold per class, the agreement of all classes with these): the most hits with so many false events."""
    smooth = [smoothed(each.starts, each.probabilities, settings.smooth_seconds) for each in recordings]
    tried = []  # of each class: (thresholds, from the highest on, and their agreements)
    for label, name in enumerate(vocabulary):
        onsets = [each.events.loc[each.events["class"] == name, "start"].to_numpy() for each in recordings]
        scores = np.concatenate([each[:, label] for each in smooth])
        thresholds = [min(float(scores.max()) + 1e-6, 1.0)]  # finds nothing
        if sum(map(len, onsets)):
            quantiles = np.quantile(scores, 1 - np.geomspace(1e-4, 0.5, NUM_THRESHOLDS))
            thresholds += np.unique(quantiles)[::-1].tolist()
        agreements = []
        for threshold in thresholds:
            agreements.append(Agreement())
            for each, column, true in zip(recordings, smooth, onsets):
                columns = column[:, label], each.probabilities[:, label]
                found = detect(each.starts, each.ends, *columns, threshold, settings)
                agreements[-1] += event_agreement(true, found[:, 0], collar_seconds=collar_seconds)
        tried.append((thresholds, agreements))
    for price in PRICES:
        chosen = [max(range(len(each)), key=lambda row: each[row].hits - price * each[row].false) for _, each in tried]
        total = sum((each[row] for row, (_, each) in zip(chosen, tried)), Agreement())
        if total.false <= limit:
            break
    return [thresholds[row] for row, (thresholds, _) in zip(chosen, tried)], total
