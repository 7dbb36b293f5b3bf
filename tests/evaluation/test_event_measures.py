import itertools

import numpy as np
import pytest

from audiotag.errors import DataError
from audiotag.evaluation.event_measures import Agreement, event_agreement, read_events, segment_agreement


@pytest.mark.parametrize("seed", range(20))
def test_as_many_events_are_matched_as_possible(seed):
    """Against all ways to match."""
    rng = np.random.default_rng(seed)
    true, found = np.round(rng.uniform(0, 2, 4), 2), np.round(rng.uniform(0, 2, 5), 2)
    most = max(
        sum(abs(onset - other) <= 0.2 + 1e-9 for onset, other in zip(true, chosen))
        for chosen in itertools.permutations(found, len(true))
    )
    assert event_agreement(true, found, collar_seconds=0.2) == Agreement(most, 5 - most, 4 - most)


def test_no_events_agree_with_no_events():
    none = np.empty(0)
    assert event_agreement(none, none) == Agreement() and Agreement().f1 == Agreement().recall == 0
    assert event_agreement(none, np.array([1.0])) == Agreement(false=1)
    assert segment_agreement(np.empty((0, 2)), np.empty((0, 2)), 10.0) == Agreement()


def test_a_segment_is_active_if_an_event_overlaps_it():
    true, found = np.array([[0.0, 1.0], [4.9, 5.1]]), np.array([[0.2, 2.0]])
    assert segment_agreement(true, found, 6.0) == Agreement(hits=1, false=1, missed=2)


def test_a_table_of_events_is_checked(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("fname,start,end,class,probability\na.wav,1,2.5,Bell,0.9\nb.wav,,,,\n")
    assert read_events(path, ["Bell"])["start"].tolist()[0] == 1.0
    for row, message in {
        "a.wav,1,2,Bark": r"events\.csv line 2: the model has no class 'Bark'\. Correct or remove the row\.",
        "a.wav,3,2,Bell": r"events\.csv line 2: found start 3(\.0)? and end 2(\.0)?\. Expected seconds from the start",
        "a.wav,x,2,Bell": r"found start nan and end 2",
    }.items():
        path.write_text(f"fname,start,end,class\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_events(path, ["Bell"])
