"""Work in processes that may die of what they are given: an entry that kills its worker twice is lost, and only it."""

import itertools
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections import deque
from multiprocessing.connection import wait

from audiotag.errors import DataError

MEMORY = 4 << 30  # bytes that a worker may ask for beyond what it begins with
SECONDS = 120  # that a worker may spend on one entry
AHEAD = 8  # entries a worker that are under way or waiting to be taken
WAITING = 2  # of them in a worker's own hands, so that it never waits for the next


def in_order(function, entries, *, workers):
    """Yields (function(entry), None) for every entry, in order; or (None, reason) where its worker died of it.

    A worker that dies is replaced and its entry tried once more. One that dies of SIGKILL twice was ended by
    somebody else, most likely for want of memory, which says nothing about the entry.

    Args:
        function: Of one entry; both, and the answer, can be pickled. What it raises is raised here.
        entries: Any iterable.
        workers: How many processes.

    Raises:
        DataError: A worker was ended by SIGKILL twice in a row.
    """
    # Not forked from here: TensorFlow's threads do not survive that. The server has loaded the module but no threads.
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload([function_module(function)])
    entries = ((number, entry, None) for number, entry in enumerate(entries))  # None: nobody has died of it
    todo, answers, next_out = deque(), {}, 0
    crew = []
    try:
        crew.extend(_Worker(spawn, function) for _ in range(workers))
        while True:
            under_way = len(todo) + sum(len(worker.hands) for worker in crew) + len(answers)
            todo.extend(itertools.islice(entries, AHEAD * workers - under_way))
            for worker in crew:
                while todo and len(worker.hands) < WAITING:
                    worker.give(todo.popleft())
            if next_out in answers:
                yield answers.pop(next_out)
                next_out += 1
                continue
            busy = [worker for worker in crew if worker.hands]
            if not busy:
                return
            wait([worker.pipe for worker in busy], timeout=1)
            for worker in busy:
                try:
                    for number, answer in worker.taken():
                        answers[number] = answer
                except EOFError:
                    crew[crew.index(worker)] = _Worker(spawn, function)
                    lost, left = worker.left_behind()
                    answers |= lost
                    todo.extendleft(reversed(left))
    finally:
        for worker in crew:
            worker.end()


def function_module(function):
    """The name of the module that a function, or what a partial holds, comes from."""
    return getattr(function, "func", function).__module__


class _Worker:
    """A process, the pipe to it, and the entries that it has been given and not answered."""

    def __init__(self, spawn, function):
        self.pipe, far_end = spawn.Pipe()
        self.process = spawn.Process(target=_work, args=(function, far_end), daemon=True)
        self.process.start()
        far_end.close()
        self.hands = deque()
        self.late = False

    def give(self, entry):
        if not self.hands:
            self.since = time.monotonic()
        self.hands.append(entry)
        try:
            self.pipe.send(entry[:2])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is dead, and `taken` will say so

    def taken(self):
        """Yields the answers that are there; EOFError where the worker is gone or has had its time."""
        while self.pipe.poll():
            try:
                number, answer, error = self.pipe.recv()
            except (ConnectionResetError, OSError):
                raise EOFError from None
            if error is not None:
                raise error
            self.hands.popleft()
            self.since = time.monotonic()
            yield number, answer
        if self.hands and time.monotonic() - self.since > SECONDS:
            self.late = True
            raise EOFError

    def left_behind(self):
        """Of a worker that answers no more: {number: answer} for an entry that is lost, and entries to do.

        Raises:
            DataError: SIGKILL has ended it and the one before it.
        """
        reason = self.reason()
        if not self.hands:  # it died when its work was done
            return {}, []
        (number, entry, died_before), *left = self.hands
        if died_before is None:
            return {}, [(number, entry, reason), *left]
        if reason == died_before == _said(-signal.SIGKILL):  # somebody else's doing
            raise DataError(
                "A worker process died, perhaps for want of memory. Run make-records again: it goes on where it "
                "stopped, and --workers 1 needs the least memory."
            ) from None
        return {number: (None, reason)}, left

    def reason(self):
        """Waits for the end of a process that answers no more; what it died of, in words."""
        if self.late:
            self.end()
            return f"not done after {SECONDS} s"
        self.process.join()
        self.pipe.close()
        return _said(self.process.exitcode)

    def end(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _said(exit_code):
    if exit_code < 0:
        return f"its decoder died of {signal.Signals(-exit_code).name}"
    return f"its decoder ended the process with code {exit_code}"


def _work(function, pipe):
    """What a worker does until nobody is there any more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as sizes:
        begun_with = int(sizes.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (begun_with + MEMORY, resource.RLIM_INFINITY))
    while True:
        try:
            number, entry = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer, error = (function(entry), None), None
        except MemoryError:
            answer, error = (None, f"decoding it takes more than {MEMORY >> 30} GiB of memory"), None
        except Exception as raised:
            answer, error = None, raised
        try:
            pipe.send((number, answer, error))
        except (BrokenPipeError, ConnectionResetError):
            return


def _end_with_parent():
    """Ends this worker when the process that started it is gone, even by `kill -9`."""
    multiprocessing.parent_process().join()
    os._exit(1)
