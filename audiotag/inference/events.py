"""When each class is detected in a recording, from the scores of windows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field, ValidationError
from scipy.ndimage import median_filter

from audiotag.config.components import Section
from audiotag.errors import ConfigError, DataError

COLUMNS = ["start", "end", "class", "probability"]


class EventSettings(Section):
    """How detections become events.

    A JSON file of `fit-events` or of your own holds them. The defaults change nothing.

    Args:
        thresholds: The probability from which a class is detected, of each class; None leaves them to the model.
        low_fraction: An event goes on while the probability is at least this fraction of the threshold (hysteresis).
        smooth_seconds: A median over the windows within so many seconds replaces each probability.
        edge_seconds: An event begins this long after the start of its first window, and ends as long before the end of
            its last one: a window detects a sound that covers only a part of it.
        max_gap_seconds: Events of a class with a shorter gap are one.
        min_seconds: Shorter events are left out.
    """

    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    low_fraction: float = Field(default=1.0, gt=0, le=1)
    smooth_seconds: float = Field(default=0.0, ge=0)
    edge_seconds: float = Field(default=0.0, ge=0)
    max_gap_seconds: float = Field(default=0.0, ge=0)
    min_seconds: float = Field(default=0.0, ge=0)


AS_THEY_ARE = EventSettings()


def read_event_settings(path: str | Path) -> EventSettings:
    """Reads a JSON file of event settings.

    Raises:
        ConfigError: It is no such file.
    """
    try:
        return EventSettings.model_validate(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "its content"
        raise ConfigError(f"{path}: {where}: {fault['msg']}. Write it with: audiotag fit-events") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a JSON file: {error}") from error


def events(
    starts: Sequence[float] | np.ndarray,
    ends: Sequence[float] | np.ndarray,
    probabilities: np.ndarray,
    vocabulary: Sequence[str],
    *,
    threshold: float | Sequence[float] | np.ndarray = 0.5,
    settings: EventSettings = AS_THEY_ARE,
) -> pd.DataFrame:
    """The events in a recording: when each class is detected.

    Detections in windows that overlap or touch are one event.

    Args:
        starts: [W], seconds.
        ends: [W], seconds.
        probabilities: [W, K].
        vocabulary: The K class names.
        threshold: The probability from which a class is detected, for all classes or [K].
        settings: How detections become events. Its thresholds are not used here: see `thresholds_of`.

    Returns:
        A table by time: start, end (seconds), class, probability (the maximum over the windows).

    Example:
        >>> table = events([0, 1, 5], [2, 3, 7], np.array([[0.9], [0.6], [0.7]]), ["Bark"])
        >>> table.to_dict("split")["data"]
        [[0.0, 3.0, 'Bark', 0.9], [5.0, 7.0, 'Bark', 0.7]]
    """
    starts, ends, probabilities = (np.asarray(each) for each in (starts, ends, probabilities))
    thresholds = np.broadcast_to(threshold, len(vocabulary))
    smooth = smoothed(starts, probabilities, settings.smooth_seconds)
    found = [
        detect(starts, ends, smooth[:, label], probabilities[:, label], thresholds[label], settings)
        for label in range(len(vocabulary))
    ]
    table = pd.DataFrame(np.concatenate(found), columns=["start", "end", "probability"])
    table["class"] = np.repeat(np.array(list(vocabulary), object), [len(each) for each in found])
    return table[COLUMNS].sort_values(["start", "class"], ignore_index=True)


def thresholds_of(
    settings: EventSettings, vocabulary: Sequence[str], threshold: float | Sequence[float] | np.ndarray
) -> np.ndarray:
    """The probability from which each class is detected: [K].

    It is the given one if the settings have none.

    Raises:
        DataError: The settings have thresholds, but not of each class.
    """
    if settings.thresholds is None:
        return np.broadcast_to(np.asarray(threshold, "float64"), len(vocabulary))
    for name in vocabulary:
        if name not in settings.thresholds:
            raise DataError(
                f"the file of event settings has no threshold of the class {name!r}. Fit it for this model: "
                "audiotag fit-events"
            )
    return np.array([settings.thresholds[name] for name in vocabulary])


def smoothed(starts: np.ndarray, probabilities: np.ndarray, seconds: float) -> np.ndarray:
    """The median of the probabilities [W, K] over the windows within so many seconds.

    Example:
        >>> smoothed(np.arange(4.0), np.array([[0.1], [0.9], [0.2], [0.3]]), 2.0)[:, 0].tolist()
        [0.1, 0.2, 0.3, 0.3]
    """
    if len(starts) < 3 or not seconds:
        return probabilities
    width = 2 * int(seconds / (starts[1] - starts[0]) / 2) + 1
    return median_filter(probabilities, size=(width, 1), mode="nearest") if width > 1 else probabilities


def detect(
    starts: np.ndarray,
    ends: np.ndarray,
    smooth: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    settings: EventSettings,
) -> np.ndarray:
    """The events of one class.

    Args:
        starts: [W], seconds.
        ends: [W], seconds.
        smooth: [W], which are compared with the threshold.
        probabilities: [W], whose maximum is that of an event.
        threshold: From which the class is detected.
        settings: As for `events`.

    Returns:
        [events, 3], by time: start, end, probability.
    """
    active = np.flatnonzero(smooth >= settings.low_fraction * threshold)  # windows
    if not active.size:
        return np.empty((0, 3))
    touching = starts[active[1:]] <= ends[active[:-1]]
    if settings.edge_seconds or settings.low_fraction < 1:  # runs of windows, not windows that overlap
        touching &= np.diff(active) == 1
    first = active[np.flatnonzero(np.concatenate([[True], ~touching]))]
    last = active[np.flatnonzero(np.concatenate([~touching, [True]]))]
    groups = np.flatnonzero(np.concatenate([[True], ~touching]))
    peak = np.maximum.reduceat(smooth[active], groups)
    shown = np.maximum.reduceat(probabilities[active], groups)
    begin, end = starts[first] + settings.edge_seconds, ends[last] - settings.edge_seconds
    middle = (starts[first] + ends[last]) / 2
    inside = begin < end
    begin, end = np.where(inside, begin, middle), np.where(inside, end, middle)
    kept = peak >= threshold
    begin, end, shown = begin[kept], end[kept], shown[kept]
    if not begin.size:
        return np.empty((0, 3))
    new = np.concatenate([[True], begin[1:] - np.maximum.accumulate(end)[:-1] > settings.max_gap_seconds])
    groups = np.flatnonzero(new)
    merged = np.stack(
        [begin[groups], np.maximum.reduceat(end, groups), np.maximum.reduceat(shown, groups)], axis=1
    ).astype("float64")
    return merged[merged[:, 1] - merged[:, 0] >= settings.min_seconds]
