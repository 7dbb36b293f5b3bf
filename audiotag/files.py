"""A file is whole or it is not there: written beside its place, synced, renamed."""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path):
    """Yields a path beside `path` to write to; moves it to `path` when the block ends well.

    The bytes reach the disk before the name does, so a crash or `kill -9` leaves
    either the file that was there before or the new one, never a part.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "answer.txt"
        >>> with whole_file(place) as unfinished:
        ...     _ = unfinished.write_text("42")
        >>> place.read_text()
        '42'
    """
    path = Path(path)
    # The suffix stays last: Keras and soundfile choose a format by it.
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
        sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path, text):
    """Writes `text` as UTF-8 with line feeds, whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(text.encode())


def sync(path):
    """Returns when what `path` names, a file or a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path):
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
