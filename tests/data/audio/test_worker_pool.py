import math
import multiprocessing
import os
import resource
import signal
import threading
import time

import pytest

from audiotag.data.audio import worker_pool
from audiotag.data.audio.worker_pool import in_order
from audiotag.errors import DataError

# Functions of the standard library, which a worker finds by name.
HARMLESS = signal.SIGCHLD


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_entries(count):
    assert list(in_order(math.sqrt, range(100), workers=count)) == [(math.sqrt(n), None) for n in range(100)]
    assert list(in_order(math.sqrt, [], workers=count)) == []
    assert multiprocessing.active_children() == []


def test_a_slow_entry_keeps_the_order():
    assert list(in_order(time.sleep, [0.3, 0, 0, 0.1, 0], workers=2)) == [(None, None)] * 5


@pytest.mark.check("A7")
@pytest.mark.parametrize("crash", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE])
def test_only_the_entry_that_crashes_its_worker_is_lost(crash):
    entries = [HARMLESS, crash, HARMLESS, HARMLESS, crash]
    results = list(in_order(signal.raise_signal, entries, workers=2))
    lost = (None, f"its worker died of {crash.name}")
    assert results == [lost if entry == crash else (None, None) for entry in entries]


def test_the_reason_has_the_exit_code_of_a_worker():
    assert list(in_order(os._exit, [3], workers=1)) == [(None, "its worker ended the process with code 3")]


@pytest.mark.check("A7")
def test_an_entry_that_takes_too_long_is_lost(monkeypatch):
    monkeypatch.setattr(worker_pool, "SECONDS", 0.5)
    started = time.monotonic()
    assert [reason for _, reason in in_order(time.sleep, [0, 60, 0], workers=1)] == [None, "not done after 0.5 s", None]
    assert time.monotonic() - started < 20


@pytest.mark.check("A7")
def test_an_entry_that_takes_too_much_memory_is_lost():
    results = list(in_order(bytes, [3, worker_pool.MEMORY + (1 << 30), 2], workers=1))
    assert results == [(bytes(3), None), (None, "it takes more than 4 GiB of memory"), (bytes(2), None)]


@pytest.mark.check("A14")
@pytest.mark.parametrize("workers", [1, 3, 8, 64])
def test_too_few_open_files_are_reported_before_a_worker_starts(workers):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = len(os.listdir("/dev/fd")) + 12 + 3 * workers
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed - 1, limits[1]))
        with pytest.raises(
            DataError, match=rf"{workers} worker .* {allowed} open files, and the limit is {allowed - 1}"
        ):
            list(in_order(math.sqrt, [4], workers=workers))
        assert multiprocessing.active_children() == []
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, limits[1]))
        assert list(in_order(math.sqrt, range(50), workers=workers))[49] == (7, None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_exception_of_the_function_is_raised_here():
    with pytest.raises(ValueError):
        list(in_order(math.sqrt, [4, -1, 9], workers=2))
    assert multiprocessing.active_children() == []


@pytest.mark.check("A7")
def test_a_worker_that_is_killed_once_is_replaced_and_nothing_is_lost():
    def kill_one():
        while not multiprocessing.active_children():
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    threading.Thread(target=kill_one).start()
    assert list(in_order(time.sleep, [0.2] * 12, workers=2)) == [(None, None)] * 12


@pytest.mark.check("A7")
def test_two_kills_in_a_row_stop_the_pool():
    with pytest.raises(
        DataError,
        match="A worker process was killed twice, perhaps for lack of memory. Run make-records again: it continues",
    ):
        list(in_order(signal.raise_signal, [HARMLESS, signal.SIGKILL], workers=1))
