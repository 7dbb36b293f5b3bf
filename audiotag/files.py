"""A file or a folder is whole or it is not there: written beside its place, synced, renamed."""

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

from audiotag.errors import DataError

UNFINISHED = ".unfinished-"
REMOVED = ".removed-"
# How cells begin that spreadsheets run, the full-width forms too; and what marks such a cell as text.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path, *, keep=None):
    """Yields a path beside `path` to write to; moves it to `path` when the block ends well.

    The bytes reach the disk before the name does, so a crash or `kill -9` leaves
    either the file that was there before or the new one, never a part. The file that
    was there moves to the path `keep`, if one is given.

    Raises:
        DataError: The disk is full.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "answer.txt"
        >>> with whole_file(place) as unfinished:
        ...     _ = unfinished.write_text("42")
        >>> place.read_text()
        '42'
    """
    path = Path(path)
    unfinished = _beside(path)
    try:
        with _disk_full_said(path):
            yield unfinished
            sync(unfinished)
            if keep and path.exists():
                os.replace(path, keep)
            os.replace(unfinished, path)
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path):
    """Yields a folder beside `path` to fill; puts it in the place of `path` when the block ends well.

    A crash or `kill -9` leaves the old folder, the new one or, for a moment between two names, none.

    Raises:
        DataError: The disk is full.
    """
    path = Path(path)
    unfinished = _beside(path)
    try:
        with _disk_full_said(path):
            _delete(unfinished)  # of a process of the same number
            unfinished.mkdir(parents=True)
            yield unfinished
            _sync_below(unfinished)
            aside = _set_aside(path)
            try:
                os.replace(unfinished, path)
            except OSError:
                if os.path.lexists(aside):
                    os.replace(aside, path)
                raise
            sync(path.parent)
            _delete(aside)
    finally:
        _delete(unfinished)


def remove(path):
    """Removes a file or a folder; a crash or `kill -9` leaves all of it, or nothing under its name."""
    aside = _set_aside(Path(path))
    sync(aside.parent)
    _delete(aside)


def end_removal(path):
    """Deletes what a crash or `kill -9` left of what was once at `path`, under another name."""
    for left in path.parent.glob(f"{REMOVED}[0-9]*-{glob.escape(path.name)}"):
        _delete(left)


def sweep(folder):
    """Removes what killed processes left unfinished in a folder that nobody else writes to."""
    for mark in (UNFINISHED, REMOVED):
        for left in Path(folder).glob(mark + "*"):
            _delete(left)


class Busy(DataError):
    """Another process holds a lock."""


@contextmanager
def locked(path, refusal, *, shared=False):
    """Holds the lock file `path` during the block, alone or with others who share it.

    Who shares waits for who holds it alone.

    Raises:
        Busy: `refusal`; another process holds the lock, or has removed the file meanwhile.
    """
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(refusal) from None
        if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            raise Busy(refusal)
        yield


def write_text(path, text):
    """Writes `text` as UTF-8 with line feeds, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(text.encode())


def ask_for_room(path, size):
    """Makes a file of so many bytes at `path`, to be overwritten: OSError where the disk has no room for it."""
    with open(path, "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot promise
                raise


def csv_text(table):
    """A pandas table as CSV; texts in it, and its header, are as `as_cell` has them."""
    table = table.copy()
    for column in table.select_dtypes(exclude=["number", "bool"]):
        table[column] = table[column].map(as_cell)
    return table.rename(columns=as_cell).to_csv(index=False, lineterminator="\n")


def as_cell(text):
    """A text as it may stand in a CSV file that somebody opens in a spreadsheet, which runs what looks like a formula.

    Example:
        >>> as_cell("=1+1"), from_cell(as_cell("=1+1")), as_cell("1+1")
        ("'=1+1", '=1+1', '1+1')
    """
    return f"'{text}" if str(text).startswith(FORMULAS) else text


def from_cell(text):
    """The text that `as_cell` was given."""
    return text[1:] if text.startswith("'") else text


def is_utf8(path):
    """Whether a name is UTF-8, as tables and terminals want it; Python has lone surrogates for bytes that are not.

    Example:
        >>> is_utf8("hé.wav"), is_utf8("h\\udce9.wav")
        (True, False)
    """
    return not re.search("[\ud800-\udfff]", str(path))


def sync(path):
    """Returns when what `path` names, a file or a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_below(folder):
    """`sync` of a folder and all that is in it."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def sha256(path):
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _disk_full_said(path):
    """Turns the bare complaint of a full disk into one that names the file and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DataError(
            f"{path}: {error.strerror}: nothing half-written is left, and what was there is whole. "
            f"Make room and run the same command again."
        ) from error


def _beside(path, mark=UNFINISHED):
    """Where to write what shall become `path`. The suffix stays last: Keras and soundfile choose a format by it."""
    return path.with_name(f"{mark}{os.getpid()}-{path.name}")


def _set_aside(path):
    """Gives what is at `path`, if anything, the name of something removed; that name."""
    end_removal(path)
    aside = _beside(path, REMOVED)
    if os.path.lexists(path):
        os.replace(path, aside)
    return aside


def _delete(path):
    """Deletes a file or a folder that nobody needs, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
