"""Atomic writes of files and folders, file locks, CSV cells and hashes.

What is written goes to a temporary name beside its place, is synced to the disk and then renamed.
"""

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from audiotag.errors import DataError

if TYPE_CHECKING:  # `audiotag --help` imports this file and needs no pandas
    import pandas as pd

UNFINISHED = ".unfinished-"
REMOVED = ".removed-"
# First characters of cells that spreadsheets run as formulas, full-width forms included, and the apostrophe that marks
# a cell as text.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
DISK_FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)  # Lustre, some NFS
WINDOWS = sys.platform == "win32"
RENAMING_SECONDS = 2.0  # that a rename on Windows waits for a reader to close the file
_warned_about: set[int] = set()  # file systems without locks, by their device numbers


@contextmanager
def atomic_file(path: str | Path, *, keep: str | Path | None = None) -> Iterator[Path]:
    """Yields a path to write to; renames it to `path` after the block.

    If the block raises an error, nothing changes. The bytes reach the disk before the name does, so a
    crash or `kill -9` leaves either the old file or the complete new one.

    Args:
        path: The file to write.
        keep: Where to move the old file; None overwrites it.

    Raises:
        DataError: The disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "answer.txt"
        >>> with atomic_file(path) as unfinished:
        ...     _ = unfinished.write_text("42")
        >>> path.read_text()
        '42'
    """
    path = Path(path)
    unfinished = _beside(path)
    try:
        with _explain_full_disk(path):
            yield unfinished
            sync(unfinished)
            if keep and path.exists():
                rename(path, keep)
            rename(unfinished, path)
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yields a folder to fill; it replaces `path` after the block.

    If the block raises an error, nothing changes. A crash or `kill -9` leaves the old folder, the new
    one or, for a moment between two renames, none. Several processes may replace a folder at the same time: the last
    one's stays. A reader who finds no folder in that moment, or loses it while reading, opens it again.

    Raises:
        DataError: The disk is full.
    """
    path = Path(path)
    unfinished = _beside(path)
    try:
        with _explain_full_disk(path):
            unfinished.mkdir(parents=True)
            yield unfinished
            _sync_tree(unfinished)
            aside = _replace_folder(unfinished, path)
            sync(path.parent)
            _delete(aside)
    finally:
        _delete(unfinished)


def rename(old: str | Path, new: str | Path) -> None:
    """Renames a file or a folder; replaces a file of that name.

    Windows refuses while another process, such as a reader or a virus scanner, has a file open. There it tries
    again for two seconds.
    """
    end = time.monotonic() + RENAMING_SECONDS
    while True:
        try:
            return os.replace(old, new)
        except PermissionError:
            if not WINDOWS or os.path.isdir(new) or time.monotonic() > end:
                raise
            time.sleep(0.05)


def remove(path: str | Path) -> None:
    """Removes a file or a folder: a crash leaves all of it, or nothing at `path`."""
    aside = _set_aside(Path(path))
    sync(aside.parent)
    _delete(aside)


def remove_unless_locked(folder: Path, lock: Path, message: str) -> None:
    """Removes a folder, unless another process holds a lock file in it.

    Raises:
        Busy: Another process holds it.
    """
    with locked(lock, message):
        if not WINDOWS:
            return remove(folder)
    # Windows renames no folder with an open file: if another process has taken the lock by now, this fails.
    remove(folder)


def delete_leftovers(path: Path) -> None:
    """Deletes what a crash in `remove` or `atomic_folder` left of the old `path`."""
    for leftover in path.parent.glob(f"{REMOVED}[0-9]*-{glob.escape(path.name)}"):
        _delete(leftover)


def delete_unfinished(folder: str | Path) -> None:
    """Deletes unfinished files of killed processes in a folder.

    No other process may write to the folder.
    """
    for prefix in (UNFINISHED, REMOVED):
        for leftover in Path(folder).glob(prefix + "*"):
            _delete(leftover)


class Busy(DataError):
    """Another process holds a lock."""


@contextmanager
def locked(path: Path, message: str, *, shared: bool = False) -> Iterator[None]:
    """Holds a lock file during the block.

    The lock ends with the process, even by `kill -9`. Where there are no locks, as on Lustre and some NFS, a warning on
    stderr says so, once for each file system, and the block runs without.

    Args:
        path: The lock file; created if it is missing.
        message: The text of the error if the lock is not free.
        shared: Share the lock with other processes, after waiting for an exclusive holder. False takes it
            exclusively, and fails at once if it is not free.

    Raises:
        Busy: Another process holds the lock, or has removed the file in the meantime.
    """
    with open(path, "a") as lock:
        try:
            has_lock = _lock(lock, shared=shared)
        except BlockingIOError:
            raise Busy(message) from None
        if not has_lock:
            _warn_without_locks(lock, path)
        if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            raise Busy(message)
        yield


def _lock(file, *, shared):
    """Locks an open file; BlockingIOError if another process holds it, False if there are no locks here."""
    try:
        import portalocker  # here, as `audiotag --help` needs none
    except ImportError:  # a Python without fcntl
        return False
    flags = portalocker.LockFlags
    try:
        portalocker.lock(file, flags.SHARED if shared else flags.EXCLUSIVE | flags.NON_BLOCKING)
    except portalocker.exceptions.AlreadyLocked as error:
        raise BlockingIOError from error
    except portalocker.exceptions.LockException as error:
        if not isinstance(error.__cause__, OSError):
            raise
        if error.__cause__.errno not in NO_LOCKS:
            raise error.__cause__ from None
        return False
    return True


def _warn_without_locks(lock, path):
    device = os.fstat(lock.fileno()).st_dev
    if device not in _warned_about:
        _warned_about.add(device)
        print(
            f"Warning: {path}: this file system has no file locks, so nothing keeps two commands from writing to this "
            f"folder at the same time. Run one at a time.",
            file=sys.stderr,
        )


def write_text(path: str | Path, text: str) -> None:
    """Writes a text atomically, as UTF-8 and without changing its line ends."""
    with atomic_file(path) as unfinished:
        unfinished.write_bytes(text.encode())


def reserve_space(path: str | Path, size: int) -> None:
    """Creates a file of `size` bytes, to be overwritten later.

    Linux reserves them at once; macOS and Windows write zeros.

    Raises:
        OSError: The disk has too little space.
    """
    with open(path, "wb") as file:
        if not hasattr(os, "posix_fallocate"):
            zeros = bytes(1 << 20)
            for start in range(0, size, len(zeros)):
                file.write(zeros[: size - start])
            return
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system cannot reserve
                raise


def csv_text(table: "pd.DataFrame") -> str:
    """A table as CSV text; text cells and the header are escaped with `as_cell`."""
    table = table.copy()
    for column in table.select_dtypes(exclude=["number", "bool"]):
        table[column] = table[column].map(as_cell)
    return table.rename(columns=as_cell).to_csv(index=False, lineterminator="\n")


def as_cell(text: str) -> str:
    """A text for a CSV cell that no spreadsheet runs as a formula.

    One that looks like a formula gets a leading apostrophe.

    Example:
        >>> as_cell("=1+1"), from_cell(as_cell("=1+1")), as_cell("1+1")
        ("'=1+1", '=1+1', '1+1')
    """
    return f"'{text}" if str(text).startswith(FORMULAS) else text


def from_cell(text: str) -> str:
    """The inverse of `as_cell`."""
    return text[1:] if text.startswith("'") else text


def is_utf8(path: str | Path) -> bool:
    """Whether a name is valid UTF-8; Python has lone surrogates for other bytes.

    Example:
        >>> is_utf8("hé.wav"), is_utf8("h\\udce9.wav")
        (True, False)
    """
    return not re.search("[\ud800-\udfff]", str(path))


def sync(path: str | Path) -> None:
    """Flushes a file or a folder to the disk.

    Windows cannot open folders, and flushes files that are open for writing.
    """
    if WINDOWS and os.path.isdir(path):
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder):
    """Flushes a folder and everything in it to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(Path(root, name))
        sync(Path(root))


def open_without_waiting(path: str | Path, flags: int) -> int:
    """An `opener` for `open`: a pipe that nobody writes to does not block it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no pipes in folders


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _explain_full_disk(path):
    """Adds the file and what to do to the error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DataError(
            f"{path}: {error.strerror}: no partial file is left, and existing files are unchanged. "
            f"Free some space and run the same command again."
        ) from error


def _beside(path, prefix=UNFINISHED):
    """A temporary name of its own, with the same suffix, because Keras infers the format from it."""
    return path.with_name(f"{prefix}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")  # containers share process ids


def _set_aside(path):
    """Renames what is at `path`, if anything, and returns its new, temporary name."""
    delete_leftovers(path)
    aside = _beside(path, REMOVED)
    if os.path.lexists(path):
        with suppress(FileNotFoundError):  # another process was faster
            rename(path, aside)
    return aside


def _replace_folder(new, path):
    """Renames the folder `new` to `path`; returns the temporary name of the one before, if there was any."""
    while True:
        aside = _set_aside(path)
        try:
            rename(new, path)
            return aside
        except OSError as error:
            # Another process has put its folder there meanwhile; Windows denies access then.
            denied = WINDOWS and isinstance(error, PermissionError) and os.path.lexists(path)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) or denied:
                continue
            if os.path.lexists(aside) and not os.path.lexists(path):
                rename(aside, path)
            raise


def _delete(path):
    """Deletes a file or a folder if it exists, as far as possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
