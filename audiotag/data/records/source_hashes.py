"""SHA-256 of recordings, cached so that unchanged files are not hashed twice."""

import functools
import hashlib
import json
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiotag import files, progress
from audiotag.data.audio import decoding
from audiotag.data.records.manifest import digest

CACHE = ".source_hashes.json"  # beside the records, for this machine only; it can be deleted at any time
SETTLED_NS = 20_000_000  # time stamps have steps of 1 to 10 ms: two writes in a row may leave the same time
Identity = tuple[list[int] | None, str]  # (size, times and inode of a file, SHA-256 of its bytes)
UNREADABLE: Identity = (None, "")


def read(path: str | Path) -> tuple[bytes, Identity]:
    """The bytes of a clip's file, and its identity as `identify` returns it.

    Raises:
        DataError: The file cannot be read, is empty or too large.
    """
    with decoding.opened(path) as file:
        status, now = os.fstat(file.fileno()), time.time_ns()
        data = decoding.bytes_of(file, path=path)
        return data, (_signature_while_read(file, status, now), hashlib.sha256(data).hexdigest())


def identify(path: str | Path) -> Identity:
    """Reads a file: (signature, SHA-256), or `UNREADABLE` if that fails.

    The signature is its size, the times of its last change and its inode. It is None if the file changed so
    recently that another change might leave the same time.
    """
    try:
        with open(path, "rb", opener=files.open_without_waiting) as file:
            status, now = os.fstat(file.fileno()), time.time_ns()
            if not stat.S_ISREG(status.st_mode):
                return UNREADABLE
            sha256 = hashlib.sha256()
            while block := file.read(1 << 20):
                sha256.update(block)
            return _signature_while_read(file, status, now), sha256.hexdigest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return UNREADABLE


def identify_once(path: str) -> Identity:
    """`identify`, once for a file that several clips are cut from."""
    signature = _signature_at(path)
    return UNREADABLE if signature is None else _identify_once(path, tuple(signature))


@functools.lru_cache(maxsize=64)
def _identify_once(path, signature):
    return identify(path)


def identify_all(paths: Mapping[str, str], cached: Mapping[str, Identity]) -> dict[str, Identity]:
    """{name: identity} of files as they are now; unchanged ones are not read.

    Args:
        paths: {name: path}.
        cached: {name: identity} of some of them; a file with another signature is read.
    """
    found = {name: cached.get(name, UNREADABLE) for name in paths}
    todo = [name for name, path in paths.items() if found[name][0] is None or found[name][0] != _signature_at(path)]
    for name in progress.bar(todo, total=len(todo), unit="file", label="hash recordings"):
        found[name] = identify(paths[name])
    return found


def changed(before: Mapping[str, Identity], now: Mapping[str, Identity]) -> list[str]:
    """The sorted names of the files whose bytes differ from before."""
    return sorted(name for name, (_, sha256) in before.items() if now[name][1] != sha256)


def write_cache(path: Path, identities: Mapping[str, Identity]) -> None:
    """Writes {name: identity} for the next time."""
    files.write_text(path, json.dumps({"files": identities, "sha256": digest(identities)}))


def read_cache(path: Path) -> dict[str, Identity]:
    """{name: identity} from `write_cache`; {} if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
        if content["sha256"] == digest(content["files"]):
            return {name: (signature, sha256) for name, (signature, sha256) in content["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return {}


def _signature(status: Any) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _signature_at(path):
    """The signature of the file at a path now, or None."""
    try:
        return _signature(os.stat(path))
    except (OSError, ValueError):
        return None


def _signature_while_read(file, before, now):
    """The signature of a file that was read; None if it changed during or just before."""
    signature = _signature(before)
    # On Windows st_ctime is the time of creation.
    last_change = before.st_mtime_ns if files.WINDOWS else before.st_ctime_ns
    settled = now - last_change > SETTLED_NS
    return signature if settled and _signature(os.fstat(file.fileno())) == signature else None
