import sys
import time

import pytest

from audiotag import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def items_of_bar(items, clock, seconds_each):
    """What a bar yields when every item takes so long."""
    seen = []
    for item in progress.bar(items, total=len(items), unit="clip", label="make-records"):
        clock[0] += seconds_each
        seen.append(item)
    return seen


def test_every_item_is_yielded_in_order(clock, capsys):
    assert items_of_bar("abc", clock, 1) == ["a", "b", "c"]


def test_an_item_is_taken_only_when_it_is_needed():
    taken = []
    items = progress.bar((taken.append(n) or n for n in range(5)), total=5, unit="clip", label="")
    assert [next(items), next(items)] == [0, 1]
    assert taken == [0, 1]


def test_without_a_terminal_quick_work_prints_one_line_at_the_end(clock, capsys):
    items_of_bar("abcd", clock, 0.5)
    assert capsys.readouterr().err == "make-records: 4/4 clips, 2.0 clips/s\n"


def test_without_a_terminal_long_work_prints_a_line_every_ten_seconds(clock, capsys):
    items_of_bar("abcdefgh", clock, 4)
    assert capsys.readouterr().err.splitlines() == [
        "make-records: 3/8 clips, 0.2 clips/s, 20 s left",
        "make-records: 6/8 clips, 0.2 clips/s, 8 s left",
        "make-records: 8/8 clips, 0.2 clips/s",
    ]


def test_no_items_print_nothing(clock, capsys):
    assert items_of_bar("", clock, 1) == []
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_rate_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.bar("abc", total=3, unit="clip", label="make-records")) == ["a", "b", "c"]
    shown = capsys.readouterr().err
    assert "make-records: 100%" in shown and "3/3" in shown and "clip/s" in shown


def test_a_rate_line_has_the_count_the_rate_and_the_time_left():
    assert progress.rate_line(120, 560, 1.5, "clip") == "120/560 clips, 80.0 clips/s, 6 s left"
    assert progress.rate_line(560, 560, 7, "clip") == "560/560 clips, 80.0 clips/s"


def test_several_batches_are_called_so():
    assert progress.rate_line(4, 4, 2.0, "batch") == "4/4 batches, 2.0 batches/s"


def test_zero_seconds_and_a_zero_rate_do_not_divide_by_zero():
    assert progress.rate_line(1, 2, 0.0, "clip").startswith("1/2 clips")
    assert progress.rate_line(0, 2, 1.0, "clip").startswith("0/2 clips, 0.0 clips/s")
