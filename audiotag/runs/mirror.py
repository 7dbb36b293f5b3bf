"""Runs at URLs: a local copy, and all its files at the URL, listed by run.json.

A file is stored under a name with its SHA-256, and run.json is written after the files that it lists. So run.json
always lists a complete state of the run, and what is read is verified.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from audiotag import files
from audiotag.data.records.manifest import canonical, digest
from audiotag.errors import DataError
from audiotag.remote import Store, cache_folder, in_parallel, local_name

RUN_FILE = "run.json"  # written last: a run at a URL is what it lists
SCHEMA_VERSION = 1
SECONDS = 60.0  # at least between two uploads of a run that trains
ATTEMPTS = 3  # to read a run that another process writes to
Listing = dict[str, dict[str, Any]]  # {path in the run: {"sha256", "bytes"}}
_training: "list[Mirror]" = []  # the run that this process trains


class Mirror:
    """A run at a URL and its local copy.

    Args:
        url: Where the run is, such as s3://bucket/runs/demo.
        kind: The folder of the cache for the local copy: "runs", or "training" to train it there.

    Attributes:
        folder: The local copy.
    """

    def __init__(self, url: str, kind: str = "runs") -> None:
        self._store = Store(url)
        self.folder = cache_folder() / kind / local_name(self._store.url)
        self._known: bytes | None = None  # run.json as this process read or wrote it last
        self._before: Listing = {}
        self._hashes: dict[str, tuple[tuple[int, int], str]] = {}  # {path: (size and time, SHA-256)}
        self._pushed_at = time.monotonic()

    def pull(self) -> bool:
        """Makes the local copy like the run at the URL.

        Returns:
            Whether there is a run. If there is none, the copy is empty.

        Raises:
            DataError: run.json is damaged, or a file is not the one that it lists.
        """
        for attempt in range(ATTEMPTS):
            self._known = self._store.read(RUN_FILE)
            self._before = {} if self._known is None else self._parse(self._known)
            try:
                self._pull_files()
                return self._known is not None
            except FileNotFoundError as error:
                missing = error  # another process may have written a new state and removed this one
                time.sleep(0.3 * attempt)
        raise DataError(f"{self._store.url}: a file that {RUN_FILE} lists is missing: {missing}. Train the run again.")

    def push(self) -> None:
        """Makes the run at the URL like the local copy, at once for all who read it.

        Raises:
            DataError: Another process has written to the URL since `pull`.
        """
        found = self._listing()
        if not found and self._known is None:
            return
        if self._store.read(RUN_FILE) != self._known:
            raise DataError(
                f"{self._store.url}: another fit trains this run. Wait for it, or choose another --run. What this one "
                f"did is in {self.folder}."
            )
        there = self._store.sizes()
        todo = [path for path, entry in found.items() if there.get(_stored(path, entry)) != entry["bytes"]]
        for _ in in_parallel(lambda path: self._store.upload(self.folder / path, _stored(path, found[path])), todo):
            pass
        content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "files": found}
        self._known = canonical(content | {"sha256": digest(content)})
        self._store.write(RUN_FILE, self._known)
        # Who has just read the listing before this one can still read its files.
        kept = {_stored(path, entry) for listing in (self._before, found) for path, entry in listing.items()}
        for name in sorted(there.keys() - kept - {RUN_FILE}):
            self._store.remove(name)
        self._before, self._pushed_at = found, time.monotonic()

    def push_sometimes(self) -> None:
        """`push`, unless the last was a short time ago."""
        if time.monotonic() - self._pushed_at >= SECONDS:
            self.push()

    def _parse(self, data):
        """The listing in run.json."""
        try:
            content = json.loads(data)
            if content.pop("sha256") == digest(content) and content["schema_version"] == SCHEMA_VERSION:
                return content["files"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        raise DataError(
            f"{self._store.url}/{RUN_FILE}: damaged, or written by another version of audiotag. Train the run again at "
            f"another place."
        )

    def _pull_files(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in _files_in(self.folder):
            if path not in self._before:
                (self.folder / path).unlink()
        for _ in in_parallel(self._pull_file, self._before):
            pass

    def _pull_file(self, path):
        entry, target = self._before[path], self.folder / path
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DataError(f"{self._store.url}/{RUN_FILE}: lists {path!r}, which is not in the run.")
        if target.is_file() and files.sha256(target) == entry["sha256"]:
            return
        name = _stored(path, entry)
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_file(target) as unfinished:
            self._store.download(name, unfinished, entry["bytes"])
            if files.sha256(unfinished) != entry["sha256"]:
                raise DataError(
                    f"{self._store.url}/{name}: damaged: its SHA-256 is not that in {RUN_FILE}. Run the same command "
                    f"again, or train the run again."
                )

    def _listing(self):
        """The `Listing` of the local copy."""
        found = {}
        for path in _files_in(self.folder):
            status = (self.folder / path).stat()
            state = status.st_size, status.st_mtime_ns
            if self._hashes.get(path, (None, ""))[0] != state:
                self._hashes[path] = state, files.sha256(self.folder / path)
            found[path] = {"sha256": self._hashes[path][1], "bytes": status.st_size}
        return found


def _files_in(folder):
    """The paths of all files of a run, relative and with "/", except hidden ones: locks and unfinished files."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]


def _stored(path, entry):
    """The name of a file at the URL.

    Example:
        >>> _stored("fold-0/noisy/history.csv", {"sha256": "0123456789abcdef"})
        'fold-0/noisy/history-0123456789ab.csv'
    """
    name = PurePosixPath(path)
    return str(name.with_name(f"{name.stem}-{entry['sha256'][:12]}{name.suffix}"))


def local_run(url: str) -> Path:
    """The local copy of a run at a URL, brought up to date.

    Raises:
        DataError: There is no run at the URL, or it is damaged.
    """
    mirror = Mirror(url)
    if not mirror.pull():
        raise DataError(f"{url}: no run: it has no {RUN_FILE}. Train one with: audiotag fit EXPERIMENT --run {url}")
    return mirror.folder


@contextmanager
def trained_at(url: str) -> Iterator[Path]:
    """Yields the local copy of a run to train.

    It is copied to the URL meanwhile and at the end.

    Raises:
        DataError: Another process trains the run, or it is damaged.
    """
    mirror = Mirror(url, "training")
    mirror.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = mirror.folder.with_name(f"{mirror.folder.name}.lock")
    with files.locked(lock, f"{url}: another fit is training here. Wait for it, or choose another --run."):
        mirror.pull()
        _training.append(mirror)
        try:
            yield mirror.folder
        finally:
            _training.remove(mirror)
            mirror.push()


def after_saving() -> None:
    """Copies the run that this process trains to its URL, if it has one.

    For who has just saved a state.
    """
    for mirror in _training:
        mirror.push_sometimes()
