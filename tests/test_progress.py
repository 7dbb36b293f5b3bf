import sys
import time

import pytest

from audiotag import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves on."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def through(entries, clock, seconds_each, **options):
    """What a bar yields when every entry takes so long."""
    seen = []
    for entry in progress.bar(entries, total=len(entries), unit="clip", label="make-records", **options):
        clock[0] += seconds_each
        seen.append(entry)
    return seen


def test_every_entry_comes_through_in_order(clock, capsys):
    assert through("abc", clock, 1) == ["a", "b", "c"]


def test_entries_are_asked_for_only_when_they_are_wanted():
    asked = []
    entries = progress.bar((asked.append(n) or n for n in range(5)), total=5, unit="clip", label="")
    assert [next(entries), next(entries)] == [0, 1]
    assert asked == [0, 1]


def test_off_a_terminal_quick_work_is_one_line_at_the_end(clock, capsys):
    through("abcd", clock, 0.5)
    assert capsys.readouterr().err == "make-records: 4/4 clips, 2.0 clips/s\n"


def test_off_a_terminal_long_work_is_a_line_now_and_then(clock, capsys):
    through("abcdefgh", clock, 4)
    assert capsys.readouterr().err.splitlines() == [
        "make-records: 3/8 clips, 0.2 clips/s, 20 s left",
        "make-records: 6/8 clips, 0.2 clips/s, 8 s left",
        "make-records: 8/8 clips, 0.2 clips/s",
    ]


def test_nothing_to_do_says_nothing(clock, capsys):
    assert through("", clock, 1) == []
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_rate_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.bar("abc", total=3, unit="clip", label="make-records")) == ["a", "b", "c"]
    shown = capsys.readouterr().err
    assert "make-records: 100%" in shown and "3/3" in shown and "clip/s" in shown


def test_a_rate_line_counts_measures_and_foretells():
    assert progress.rate_line(120, 560, 1.5, "clip") == "120/560 clips, 80.0 clips/s, 6 s left"
    assert progress.rate_line(560, 560, 7, "clip") == "560/560 clips, 80.0 clips/s"


def test_no_time_and_no_progress_are_no_division_by_zero():
    assert progress.rate_line(1, 2, 0.0, "clip").startswith("1/2 clips")
    assert progress.rate_line(0, 2, 1.0, "clip").startswith("0/2 clips, 0.0 clips/s")
