"""A pool of worker processes that replaces workers that crash."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import wait
from typing import Any

from audiotag.errors import DataError
from audiotag.files import WINDOWS

MEMORY = 4 << 30  # bytes that a worker may allocate beyond what it starts with
SECONDS = 120  # that a worker may spend on one entry
AHEAD = 8  # entries per worker that are in progress or whose results wait to be yielded
MAX_ON_WINDOWS = 60  # workers: one wait takes 63 pipes at most
KILLED = "its worker died of SIGKILL"
FILES = 3  # that this process keeps open per worker: the pipe, and two that show its end
MORE_FILES = 12  # for the fork server, the start of a worker, and what the caller opens meanwhile
PENDING = 2  # entries sent to a worker at a time, so that it never waits for the next


def in_order(
    function: Callable[[Any], Any], entries: Iterable[Any], *, workers: int
) -> Generator[tuple[Any, str | None], None, None]:
    """Yields (function(entry), None) per entry, in order; (None, reason) if it fails.

    Decoders of untrusted files may crash, hang or exhaust memory. A worker that dies is replaced and its entry tried
    once more; if the second worker dies too, the entry fails. If SIGKILL ended both, the cause is outside, most likely
    a lack of memory, which says nothing about the entry.

    Args:
        function: Takes one entry. It, the entries and the results can be pickled. Its exceptions are raised here.
        entries: Any iterable.
        workers: Number of processes.

    Raises:
        DataError: SIGKILL ended a worker twice in a row, or this process may not open enough files.
    """
    _check_open_files(workers)
    # Not a fork of this process: TensorFlow's threads do not survive one. The server has the module loaded, no threads.
    # Windows has no such server: there each worker is a new process.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([function_module(function)])
    if WINDOWS:
        workers = min(workers, MAX_ON_WINDOWS)
    entries = ((number, entry, None) for number, entry in enumerate(entries))  # None: no worker has died of it
    todo: deque[tuple] = deque()
    results: dict[int, Any] = {}
    pool: list[_Worker] = []
    next_number = 0
    try:
        pool.extend(_Worker(context, function) for _ in range(workers))
        while True:
            in_progress = len(todo) + sum(len(worker.pending) for worker in pool) + len(results)
            todo.extend(itertools.islice(entries, AHEAD * workers - in_progress))
            for worker in pool:
                while todo and len(worker.pending) < PENDING:
                    worker.send(todo.popleft())
            if next_number in results:
                yield results.pop(next_number)
                next_number += 1
                continue
            busy = [worker for worker in pool if worker.pending]
            if not busy:
                return
            wait([worker.pipe for worker in busy], timeout=1)
            for worker in busy:
                try:
                    for number, result in worker.receive():
                        results[number] = result
                except EOFError:
                    pool[pool.index(worker)] = _Worker(context, function)
                    failed, retry = worker.unfinished()
                    results |= failed
                    todo.extendleft(reversed(retry))
    finally:
        for worker in pool:
            worker.kill()


def function_module(function: Callable[..., Any]) -> str:
    """The name of the module that defines a function, or that of a partial."""
    return getattr(function, "func", function).__module__


def _check_open_files(workers):
    """Refuses more workers than the limit on open files allows, where there is one."""
    try:
        import resource

        num_open = len(os.listdir("/dev/fd"))
    except (ImportError, OSError):
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_open + FILES * workers + MORE_FILES
    if limit != resource.RLIM_INFINITY and needed > limit:
        raise DataError(
            f"{workers} worker processes need up to {needed} open files, and the limit is {limit}. Raise it with: "
            f"ulimit -n {needed}. Or give fewer with --workers; 0 starts none."
        )


class _Worker:
    """A process, the pipe to it, and the entries sent to it that have no result yet."""

    def __init__(self, context, function):
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_work, args=(function, far_end), daemon=True)
        self.process.start()
        far_end.close()
        self.pending = deque()
        self.timed_out = False

    def send(self, entry):
        if not self.pending:
            self.started = time.monotonic()
        self.pending.append(entry)
        try:
            self.pipe.send(entry[:2])
        except (BrokenPipeError, ConnectionResetError):
            pass  # it is dead: `receive` raises EOFError

    def receive(self):
        """Yields (number, result) as available; EOFError if it died or timed out."""
        while True:
            try:
                if not self.pipe.poll():
                    break
                number, result, error = self.pipe.recv()
            except OSError:
                raise EOFError from None
            if error is not None:
                raise error
            self.pending.popleft()
            self.started = time.monotonic()
            yield number, result
        if self.pending and time.monotonic() - self.started > SECONDS:
            self.timed_out = True
            raise EOFError

    def unfinished(self):
        """After an EOFError: {number: result} of a failed entry, entries to retry.

        Raises:
            DataError: SIGKILL ended this worker and the one before it.
        """
        reason = self.reason()
        if not self.pending:  # it died after its last entry
            return {}, []
        (number, entry, previous_reason), *rest = self.pending
        if previous_reason is None:
            return {}, [(number, entry, reason), *rest]
        if reason == previous_reason == KILLED:  # the cause is outside
            raise DataError(
                "A worker process was killed twice, perhaps for lack of memory. Run make-records again: it continues "
                "where it stopped, and --workers 1 needs the least memory."
            ) from None
        return {number: (None, reason)}, rest

    def reason(self):
        """Waits for the end of the process and says why it ended."""
        if self.timed_out:
            self.kill()
            return f"not done after {SECONDS} s"
        self.process.join()
        self.pipe.close()
        return _exit_reason(self.process.exitcode)

    def kill(self):
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _exit_reason(exit_code):
    if exit_code < 0:
        return f"its worker died of {signal.Signals(-exit_code).name}"
    return f"its worker ended the process with code {exit_code}"


def _work(function, pipe):
    """The loop of a worker, until its pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _limit_memory()
    while True:
        try:
            number, entry = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            result, error = (function(entry), None), None
        except MemoryError:
            result, error = (None, f"it takes more than {MEMORY >> 30} GiB of memory"), None
        except Exception as raised:
            result, error = None, raised
        try:
            pipe.send((number, result, error))
        except (BrokenPipeError, ConnectionResetError):
            return


def _limit_memory():
    """Limits this process to `MEMORY` more than it has; only Linux says how much that is and keeps to the limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm") as sizes:
            initial_bytes = int(sizes.read().split()[0]) * resource.getpagesize()
    except (ImportError, FileNotFoundError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (initial_bytes + MEMORY, resource.RLIM_INFINITY))


def _end_with_parent():
    """Ends this worker when its parent process ends, even by `kill -9`."""
    multiprocessing.parent_process().join()
    os._exit(1)
