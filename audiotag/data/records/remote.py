"""Shards of records at a URL, and their copies in a cache of bounded size.

A shard is copied when it is read. The copy is verified with the SHA-256 in the manifest before it gets its name, and
again by each process that finds it there. The copies used longest ago make room for others. Training reads shards in an
order that is known before, so threads fetch the next ones meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audiotag import files
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.remote import BLOCK, CACHE_GB, Store, cache_bytes, cache_folder, local_name

if TYPE_CHECKING:
    from audiotag.data.records.manifest import Shard

ATTEMPTS = 3  # to fetch a shard whose bytes are not those of the manifest
THREADS = 4  # that fetch shards before they are read
MIN_AHEAD, MAX_AHEAD = 4, 64  # shards that are fetched before they are read; as many as are read at once, or more
AHEAD_FRACTION = 1 / 8  # of the cache for these, if it is more than the fewest
ABANDONED_SECONDS = 3600  # after which an unfinished copy is that of a killed process
_room = threading.Lock()  # of the names in the cache: one thread at a time makes room


class RemoteShards:
    """The shards of records at a URL.

    Args:
        store: The `Store` of the URL.
        shards: Those in the manifest.
        fingerprint: That of the records.

    Attributes:
        store: The `Store`.
        folder: The folder of the cache with the copies.
        failure: The last error of a fetch, for who gets only TensorFlow's error about it.
    """

    def __init__(self, store: Store, shards: Sequence[Shard], fingerprint: str) -> None:
        self.store = store
        self.folder = cache_folder() / "records" / local_name(store.url, fingerprint)
        self.failure: AudiotagError | None = None
        self._shards = {shard.file: shard for shard in shards}
        self._locks = {shard.file: threading.Lock() for shard in shards}  # one thread at a time fetches a shard
        self._verified: set[str] = set()
        self._passes: dict[str, _Pass] = {}  # the latest of each kind
        self._lock = threading.Lock()  # of the passes
        self._wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def fetch(self, file: str) -> Path:
        """The verified local copy of a shard.

        Other fetches may remove it, but not while it is open.

        Raises:
            DataError: It cannot be read, or its bytes are not those of the manifest.
            ConfigError: The cache has no room for it.
        """
        try:
            return self._fetch(file)
        except AudiotagError as error:
            self.failure = error
            raise

    def read_records(self, file: str) -> list[bytes]:
        """All records of a shard.

        Raises:
            DataError, ConfigError: As for `fetch`.
        """
        self.reading(file)
        while True:
            try:
                data = self.fetch(file).read_bytes()
                break
            except FileNotFoundError:  # removed to make room, before it was open
                pass
        records, at = [], 0
        while at < len(data):  # its length, a checksum, the record, a checksum; the SHA-256 of all is right
            start = at + 12
            at = start + int.from_bytes(data[at : at + 8], "little") + 4
            records.append(data[start : at - 4])
        return records

    def fetch_table(self, name: str, sha256: str) -> None:
        """Copies a table into the folder of the copies, unless it is there."""
        path = self.folder / name
        if path.is_file() and files.sha256(path) == sha256:
            return
        if (data := self.store.read(name)) is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with files.atomic_file(path) as unfinished:
                unfinished.write_bytes(data)

    def expect(self, order: Iterable[str], kind: str) -> None:
        """Says in which order shards will be read, so that they are fetched before.

        Args:
            order: Their names.
            kind: What reads them, such as "training"; the order that it gave before no longer holds.
        """
        with self._lock:
            self._passes = self._passes | {kind: _Pass(order)}
            while len(self._threads) < THREADS:
                thread = threading.Thread(target=self._fetch_ahead, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._fetch_next(self._passes[kind])

    def reading(self, file: str) -> None:
        """Says that a shard is read now."""
        for one in self._passes.values():
            if file in one.unread:
                with self._lock:
                    one.unread.discard(file)
                    one.position = max(one.position, one.places[file] + 1)
                    self._fetch_next(one)

    @staticmethod
    def used(path: str | Path) -> None:
        """Notes the time of the last use of a copy."""
        with contextlib.suppress(FileNotFoundError):  # it was removed to make room
            os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))

    def _fetch_next(self, one):
        """Asks for the next shards of a pass."""
        largest = max(shard.bytes for shard in self._shards.values())
        ahead = min(MAX_AHEAD, max(MIN_AHEAD, int(cache_bytes() * AHEAD_FRACTION / largest)))
        for file in one.order[one.num_wanted : one.position + ahead]:
            self._wanted.put(file)
        one.num_wanted = max(one.num_wanted, min(one.position + ahead, len(one.order)))

    def _fetch_ahead(self):
        while True:
            file = self._wanted.get()
            with contextlib.suppress(AudiotagError, OSError):  # who reads the shard gets the error
                self._fetch(file, ahead=True)

    def _fetch(self, file, *, ahead=False):
        shard, path = self._shards[file], self.folder / file
        with self._locks[file]:
            if file not in self._verified or not path.is_file():
                if not self._is_intact(path, shard):
                    self._copy(shard, path, ahead)
                self._verified.add(file)
        return path

    def _is_intact(self, path, shard):
        try:
            return path.stat().st_size == shard.bytes and files.sha256(path) == shard.sha256
        except FileNotFoundError:
            return False

    def _copy(self, shard, path, ahead):
        """Copies a shard from the store, or raises a DataError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(ATTEMPTS):
            unfinished = path.with_name(f"{files.UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
            try:
                self._reserve(unfinished, shard.bytes, ahead)
                if self._copy_bytes(shard, unfinished) == shard.sha256:
                    with _room:  # whoever lists the copies finds it once
                        files.rename(unfinished, path)
                    return
            except FileNotFoundError:
                raise DataError(
                    f"{self.store.url}/{shard.file}: is missing. The records may be replaced at the moment. Run the "
                    f"same command again, or upload them again with make-records --overwrite."
                ) from None
            finally:
                unfinished.unlink(missing_ok=True)
        raise DataError(
            f"{self.store.url}/{shard.file}: its SHA-256 is not the manifest's: it is damaged, or being replaced. Run "
            f"the same command again, or upload the records again with make-records --overwrite."
        )

    def _copy_bytes(self, shard, path):
        """The SHA-256 of what was copied."""
        digest = hashlib.sha256()
        with open(path, "r+b") as file:
            for start in range(0, shard.bytes, BLOCK):
                block = self.store.read_part(shard.file, start, min(start + BLOCK, shard.bytes))
                digest.update(block)
                file.write(block)
        return digest.hexdigest()

    def _reserve(self, path, size, ahead):
        """Creates a file of this size, once the cache has room for it."""
        bound = cache_bytes()
        if size > bound:
            raise ConfigError(
                f"{self.store.url}: a shard has {size / 1e9:.3g} GB, and {CACHE_GB} allows {bound / 1e9:.3g} GB. "
                f"Allow more: room for 16 shards, or for all if there are fewer."
            )
        while True:
            with _room:
                if self._make_room(bound - size, ahead):
                    return files.reserve_space(path, size)
            time.sleep(0.02)  # until the copy of another thread is complete, and can be removed

    def _make_room(self, bound, ahead):
        """Removes copies, those used longest ago first, until the cache has at most so many bytes; whether it has."""
        found = [(entry, entry.stat()) for entry in _copies(self.folder.parent)]
        total = sum(status.st_size for _, status in found)
        if total <= bound:
            return True
        next_ones = {str(self.folder / file) for one in self._passes.values() for file in one.next_files()}
        removable = [
            (entry.path in next_ones, status.st_atime_ns, entry.path, status.st_size)
            for entry, status in found
            if not entry.name.startswith(files.UNFINISHED) or time.time() - status.st_mtime > ABANDONED_SECONDS
        ]
        for is_next, _, path, size in sorted(removable):
            if is_next and ahead:
                raise DataError("no room to read ahead")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
            if total <= bound:
                return True
        return False


class _Pass:
    """The order in which shards will be read once, and how far that is."""

    def __init__(self, order):
        self.order = list(order)
        self.places = {file: place for place, file in enumerate(self.order)}
        self.unread = set(self.order)
        self.position = 0  # after the last shard that was read
        self.num_wanted = 0  # shards that were fetched or asked for

    def next_files(self):
        return self.order[self.position : self.num_wanted]


def _copies(folder):
    """All shards below the folders of the cache, complete or not."""
    for one in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(one.path):
                if entry.name.endswith(".tfrecord"):
                    with contextlib.suppress(FileNotFoundError):
                        entry.stat()  # cached
                        yield entry
