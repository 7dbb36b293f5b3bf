"""Files at URLs, through fsspec, and the local cache.

URLs are such as s3://bucket/folder and gs://bucket/folder.
An object store has no atomic rename and no locks. So whoever writes several files writes the one that lists them last,
with their SHA-256, and whoever reads them verifies what arrives.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from audiotag.errors import ConfigError, DataError

Result = TypeVar("Result")
Argument = TypeVar("Argument")
ATTEMPTS = 6  # of a request
FIRST_PAUSE = 0.1  # seconds before the second attempt; each pause is twice the one before
CONNECTIONS = 8  # requests at a time
BLOCK = 1 << 24  # bytes of a request for a part of a file
CACHE, CACHE_GB = "AUDIOTAG_CACHE", "AUDIOTAG_CACHE_GB"  # environment variables
DEFAULT_GB = 50.0


def is_url(place: str | Path) -> bool:
    """Whether a place is a URL, and not a path.

    Example:
        >>> is_url("s3://bucket/records"), is_url("tfrecords/demo")
        (True, False)
    """
    return "://" in str(place)


def cache_folder() -> Path:
    """Where copies of remote files are kept.

    It is the environment variable AUDIOTAG_CACHE, or ~/.cache/audiotag.
    """
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "audiotag")


def cache_bytes() -> int:
    """The most bytes of shards in the cache.

    It is the environment variable AUDIOTAG_CACHE_GB, or 50 GB.

    Raises:
        ConfigError: It is not a number above 0.
    """
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        number = int(float(text) * 1e9)
    except (ValueError, OverflowError):
        number = 0
    if number <= 0:
        raise ConfigError(f"{CACHE_GB} is {text!r}. Expected the most gigabytes of records in {cache_folder()}, as 50.")
    return number


class Store:
    """The files below a URL.

    Requests that fail are repeated, with growing pauses.

    Args:
        url: A URL that fsspec knows.

    Attributes:
        url: The same, without a slash at its end.

    Raises:
        ConfigError: fsspec, or its package for this kind of URL, is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = str(url).rstrip("/")
        try:
            import fsspec

            self._system, self._root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                f"{url}: {error}. To read and write URLs: pip install 'audiotag-trainer[remote]'"
            ) from error

    def sizes(self) -> dict[str, int]:
        """{name: bytes} of all files, at any depth."""

        def find():
            self._system.invalidate_cache()
            return self._system.find(self._root, detail=True)

        try:
            found = self._request("", find)
        except FileNotFoundError:
            return {}
        start = len(self._root.rstrip("/")) + 1
        return {name[start:]: entry["size"] for name, entry in found.items()}

    def read(self, name: str) -> bytes | None:
        """The bytes of a small file; None if there is none."""
        try:
            return self._request(name, lambda: self._system.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def read_part(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a file.

        Raises:
            FileNotFoundError: There is none.
        """

        def request():
            data = self._system.cat_file(self._path(name), start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"{len(data)} of {end - start} bytes arrived")
            return data

        return self._request(name, request)

    def download(self, name: str, path: str | Path, size: int) -> None:
        """Copies a file of so many bytes to a local one."""
        with open(path, "wb") as file:
            for start in range(0, size, BLOCK):
                file.write(self.read_part(name, start, min(start + BLOCK, size)))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file; another one of that name is replaced."""
        self._request(name, lambda: self._system.pipe_file(self._path(name), data))

    def upload(self, path: str | Path, name: str) -> None:
        """Copies a local file to a name."""
        self._request(name, lambda: self._system.put_file(str(path), self._path(name)))

    def remove(self, name: str) -> None:
        """Removes a file, if there is one."""
        try:
            self._request(name, lambda: self._system.rm_file(self._path(name)))
        except FileNotFoundError:
            pass

    def _path(self, name):
        return f"{self._root}/{name}"

    def _request(self, name, request):
        """The result of a request, repeated if it fails."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                return request()
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:  # stores raise errors of their own kinds
                last = error
        raise DataError(
            f"{self.url}/{name}: {ATTEMPTS} requests failed, the last with {type(last).__name__}: {last}. "
            f"Check the network and the address, and run the same command again."
        ) from last


def in_parallel(function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Iterator[Result]:
    """Yields the results of a function that makes requests, in order.

    Several run at a time.
    """
    threads = ThreadPoolExecutor(CONNECTIONS)
    try:
        yield from threads.map(function, arguments)
    finally:
        threads.shutdown(cancel_futures=True)


def local_name(url: str, *details: Any) -> str:
    """A name for a folder of the cache.

    It is the last part of a URL, and a hash of it with details.

    Example:
        >>> local_name("s3://bucket/sounds")
        'sounds-3d733d702129'
    """
    digest = hashlib.sha256(repr((url.rstrip("/"), *details)).encode()).hexdigest()
    return f"{url.rstrip('/').rpartition('/')[2]}-{digest[:12]}"
