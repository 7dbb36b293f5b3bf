"""Which bytes a recording holds, as their SHA-256, and what shows without reading them that they are the same."""

import hashlib
import json
import os
import stat
import time

from audiotag import files, progress
from audiotag.data.audio import decoding
from audiotag.data.records.manifest import digest

CACHE = ".source_hashes.json"  # beside the records, for this machine alone; nothing is lost with it
SETTLED_NS = 20_000_000  # kernels stamp files every 1 to 10 ms: a write right after another may leave the same time
UNREADABLE = (None, "")


def read(path):
    """The bytes of a clip's file, and its identity as `identify` has it.

    Raises:
        DataError: The file cannot be read, is empty or too large.
    """
    with decoding.opened(path) as file:
        found, now = os.fstat(file.fileno()), time.time_ns()
        data = decoding.bytes_of(file, path=path)
        return data, (_signature_while_read(file, found, now), hashlib.sha256(data).hexdigest())


def identify(path):
    """(signature, SHA-256) of a file, which is read for it; `UNREADABLE` where that cannot be done.

    The signature is its size, the times of its last change and its inode. It is None where it would not show a
    change: the file was changed just now.
    """
    try:
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            found, now = os.fstat(file.fileno()), time.time_ns()
            if not stat.S_ISREG(found.st_mode):
                return UNREADABLE
            sha256 = hashlib.sha256()
            while block := file.read(1 << 20):
                sha256.update(block)
            return _signature_while_read(file, found, now), sha256.hexdigest()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return UNREADABLE


def identify_all(paths, known):
    """{name: identity} of the files as they are now; only those whose signature is not that in `known` are read.

    Args:
        paths: {name: path}.
        known: {name: identity}, as far as there are any.
    """
    found = {name: known.get(name, UNREADABLE) for name in paths}
    todo = [name for name, path in paths.items() if found[name][0] is None or found[name][0] != _signature_at(path)]
    for name in progress.bar(todo, total=len(todo), unit="file", label="hash recordings"):
        found[name] = identify(paths[name])
    return found


def changed(before, now):
    """The names of the files whose bytes are not those of before, in order."""
    return sorted(name for name, (_, sha256) in before.items() if now[name][1] != sha256)


def write_cache(path, known):
    """Keeps {name: identity} for the next time."""
    files.write_text(path, json.dumps({"files": known, "sha256": digest(known)}))


def read_cache(path):
    """{name: identity} as `write_cache` was given it; {} where there is none, or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        if content["sha256"] == digest(content["files"]):
            return {name: (signature, sha256) for name, (signature, sha256) in content["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return {}


def _signature(found):
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _signature_at(path):
    """The signature of what lies at a path now, or None."""
    try:
        return _signature(os.stat(path))
    except (OSError, ValueError):
        return None


def _signature_while_read(file, before, now):
    """The signature of a file that was read, or None where it changed meanwhile or just before."""
    signature = _signature(before)
    settled = now - before.st_ctime_ns > SETTLED_NS
    return signature if settled and _signature(os.fstat(file.fileno())) == signature else None
