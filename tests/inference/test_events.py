import numpy as np
import pytest

from audiotag.errors import DataError
from audiotag.inference.events import EventSettings, events, thresholds_of

STARTS, ENDS = np.arange(8) * 1.0, np.arange(8) + 2.0  # windows of 2 s, one per second


def found(probabilities, threshold=0.5, **settings):
    """(start, end) of the events of one class."""
    probabilities = np.array(probabilities)[:, None]
    number = len(probabilities)
    table = events(
        STARTS[:number], ENDS[:number], probabilities, "a", threshold=threshold, settings=EventSettings(**settings)
    )
    return list(zip(table["start"], table["end"]))


def test_windows_that_touch_are_one_event():
    starts, ends = STARTS[:5], ENDS[:5]
    probabilities = np.array([[0.9, 0.1], [0.6, 0.1], [0.1, 0.55], [0.1, 0.1], [0.8, 0.1]])
    assert events(starts, ends, probabilities, "ab").values.tolist() == [
        [0.0, 3.0, "a", 0.9], [2.0, 4.0, "b", 0.55], [4.0, 6.0, "a", 0.8],
    ]  # fmt: skip
    assert len(events(starts, ends, probabilities, "ab", threshold=0.7)) == 2  # a higher one separates them
    assert events(starts, ends, probabilities, "ab", threshold=0.95).empty
    assert events(starts, ends, probabilities, "ab", threshold=[0.95, 0.5])["class"].tolist() == ["b"]


def test_an_event_goes_on_while_the_probability_is_above_the_lower_threshold():
    assert found([0.1, 0.9, 0.3, 0.3, 0.1]) == [(1, 3)]
    assert found([0.1, 0.9, 0.3, 0.3, 0.1], low_fraction=0.5) == [(1, 5)]
    assert found([0.1, 0.3, 0.3, 0.3, 0.1], low_fraction=0.5) == []


def test_a_median_removes_single_windows_and_fills_single_gaps():
    assert found([0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.8, 0.9], smooth_seconds=2.0) == [(5, 9)]
    assert found([0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.8, 0.9], smooth_seconds=1.0) == [(1, 3), (4, 9)]


def test_edges_of_windows_are_cut_off():
    assert found([0.1, 0.9, 0.9, 0.9, 0.1], edge_seconds=0.75) == [(1.75, 4.25)]
    assert found([0.1, 0.9, 0.1, 0.9, 0.1], edge_seconds=0.75) == [(1.75, 2.25), (3.75, 4.25)]
    assert found([0.1, 0.9, 0.1], edge_seconds=1.5) == [(2, 2)]  # its middle


def test_short_gaps_are_closed_before_short_events_are_left_out():
    scores = [0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]
    assert found(scores) == [(0, 2), (3, 5), (7, 9)]
    assert found(scores, max_gap_seconds=1.0) == [(0, 5), (7, 9)]
    assert found(scores, max_gap_seconds=1.0, min_seconds=3.0) == [(0, 5)]


def test_the_probability_of_an_event_is_not_smoothed():
    probabilities = np.array([[0.6], [0.95], [0.6], [0.6]])
    settings = EventSettings(smooth_seconds=2.0)
    assert events(STARTS[:4], ENDS[:4], probabilities, "a", settings=settings)["probability"].tolist() == [0.95]


def test_a_recording_of_one_window_is_not_smoothed():
    assert found([0.9], smooth_seconds=5.0) == [(0, 2)]


def test_thresholds_of_the_settings_replace_the_given_ones():
    assert thresholds_of(EventSettings(), "ab", 0.4).tolist() == [0.4, 0.4]
    assert thresholds_of(EventSettings(thresholds={"b": 0.1, "a": 0.2}), "ab", 0.4).tolist() == [0.2, 0.1]
    with pytest.raises(DataError, match="has no threshold of the class 'c'"):
        thresholds_of(EventSettings(thresholds={"a": 0.2}), "ac", 0.4)
