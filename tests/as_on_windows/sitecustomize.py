"""Takes from Python what Windows does not have or refuses; every process with this folder in PYTHONPATH runs it first.

It is no Windows: the names of `os.name`, paths and locks stay those of Linux.
"""

import builtins
import errno
import fcntl
import io
import multiprocessing
import multiprocessing.context
import os
import shutil
import sys

from audiotag import files

open_file, open_handle, fsync, replace, unlink = io.open, os.open, os.fsync, os.replace, os.unlink
get_flags = fcntl.fcntl


def without_proc(file, *args, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file)
    return open_file(file, *args, **options)


def open_no_folder(path, flags, *args, **options):
    if os.path.isdir(path) and flags & os.O_TMPFILE != os.O_TMPFILE:  # a temporary file: Windows has its own kind
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return open_handle(path, flags, *args, **options)


def fsync_of_writer(file):
    number = file if isinstance(file, int) else file.fileno()
    if get_flags(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fsync(file)


def refuse_open(path):
    """As Windows refuses to rename or to remove a file that this process has open, or a folder with such a file."""
    path = os.path.abspath(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the list itself
            continue
        if name == path or name.startswith(f"{path}/"):
            raise PermissionError(errno.EACCES, f"{name} is open", path)


def replace_closed(old, new, **options):
    refuse_open(old)
    refuse_open(new)
    if os.path.isdir(new):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), new)
    return replace(old, new, **options)


def unlink_closed(path, **options):
    refuse_open(path)
    return unlink(path, **options)


for module in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[module] = None  # import raises an ImportError
for name in ("posix_fallocate", "sched_getaffinity", "fork", "O_NONBLOCK", "O_NOFOLLOW", "O_DIRECTORY"):
    delattr(os, name)
builtins.open = io.open = without_proc
os.open, os.fsync, os.replace, os.rename, os.unlink = (
    open_no_folder,
    fsync_of_writer,
    replace_closed,
    replace_closed,
    unlink_closed,
)
shutil._use_fd_functions = False  # these open folders
multiprocessing.set_start_method("spawn")
del multiprocessing.context._concrete_contexts["fork"], multiprocessing.context._concrete_contexts["forkserver"]
multiprocessing.get_all_start_methods = lambda: ["spawn"]
files.WINDOWS = True
