"""Injected faults: at its n-th operation on files a process is killed, gets an error or finds the disk full.

Operations of Python (open for writing, fsync, rename, unlink, mkdir, rmdir) are counted. Writes of C libraries are
stopped by a limit on the size of files, which the kernel enforces at the exact byte.
"""

import builtins
import contextlib
import errno
import io
import os
import resource
import signal
import time

COUNTED = ("open", "fsync", "replace", "unlink", "mkdir", "rmdir")
PLACES = [*((os, name) for name in COUNTED), (builtins, "open"), (io, "open")]


@contextlib.contextmanager
def installed(folder, at=None, what="kill"):
    """`install` during a block; yields a list with one element, the number of operations so far."""
    before = {(module, name): getattr(module, name) for module, name in PLACES}
    try:
        yield install(folder, at, what)
    finally:
        for (module, name), function in before.items():
            setattr(module, name, function)


def install(folder, at=None, what="kill", report=None):
    """Counts operations from now on; at operation number `at`, from 1, `what` happens.

    Args:
        folder: Operations elsewhere are not counted.
        at: None only counts.
        what: "kill"; a name in errno, such as "ENOSPC"; "sleep S"; after "limit N" no file can grow beyond N bytes,
            and "kill at byte N" kills a process that tries.
        report: A file to which the number of operations so far is written.
    """
    folder, done = str(folder), [0]

    def count(place, within=None):
        name = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fspath(place)
        if within is not None:  # relative, as in shutil.rmtree
            name = os.path.join(os.readlink(f"/proc/self/fd/{within}"), name)
        if not str(name).startswith(folder) or name == report:
            return
        done[0] += 1
        if report:
            with true_open(report, "w") as file:
                file.write(str(done[0]))
        if done[0] == at:
            cause(what)

    def counted(function):
        def call(place, *more, **options):
            count(place, options.get("dir_fd"))
            return function(place, *more, **options)

        return call

    true_open = builtins.open
    for name in COUNTED:
        setattr(os, name, counted(getattr(os, name)))

    def open_counted(place, mode="r", *more, **options):
        if not isinstance(place, int) and set(mode) & set("wax+"):
            count(place)
        return true_open(place, mode, *more, **options)

    builtins.open = io.open = open_counted
    return done


def cause(what):
    kind, _, number = what.rpartition(" ")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "sleep":
        time.sleep(float(number))
    elif kind == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
    elif kind == "kill at byte":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
    else:
        number = getattr(errno, what)
        raise OSError(number, os.strerror(number))
