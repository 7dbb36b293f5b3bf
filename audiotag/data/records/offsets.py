"""Where the PCM of each clip is in its shard.

With it, a window is read without the rest of its clip. TFRecord frames a record by its length (8 bytes), a checksum
(4), the record, and another checksum (4); the record is an `Example`, whose first field is `audio`.
"""

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audiotag import files
from audiotag.data.clips import read_clips
from audiotag.data.records.manifest import Manifest, Shard
from audiotag.data.records.remote import RemoteShards
from audiotag.errors import AudiotagError

VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
# The length of a message, thrice, between the tags of features, its first entry, the key, its feature, its bytes.
BEFORE_PCM = re.compile(rb"\n%b\n%b\n\x05audio\x12%b\n%b\n(?P<bytes>%b)" % ((VARINT,) * 5))
HEADER = 12  # bytes of the length of a record and of its checksum
MAX_BEFORE_PCM = 64  # bytes


class PcmShard:
    """Reads the PCM of a shard by position, and refuses a shard that changed.

    Every read compares the size and time of the file with those at the start. If they differ, the file is hashed: a
    copy with the same content is read on.

    Args:
        path: The shard.
        sha256: Its SHA-256.
        num_clips: The number of its clips.

    Attributes:
        offsets: int64 [num_clips], the byte at which the PCM of each clip starts.
        num_samples: int64 [num_clips], the samples of each clip.

    Raises:
        OSError: The shard cannot be read.
        ValueError: The shard does not have this number of records of PCM.
    """

    def __init__(self, path: str | Path, sha256: str, num_clips: int) -> None:
        self.path, self.sha256 = str(path), sha256
        with open(self.path, "rb", buffering=0) as file:
            self._state = _state(file)
            places = np.array([*_places(file, end=self._state[0])], "int64").reshape(-1, 2)
        if len(places) != num_clips:
            raise ValueError(f"{path}: has {len(places)} records, expected {num_clips}.")
        self.offsets, self.num_samples = places[:, 0], places[:, 1] // 2

    def read(self, clip: int, start: int, pcm: np.ndarray) -> None:
        """Fills an int16 array with samples of a clip.

        Args:
            clip: Its place in the shard, from 0.
            start: The first sample.
            pcm: The array.

        Raises:
            ValueError: The shard is gone, or no longer the one that it was.
        """
        try:
            with open(self.path, "rb", buffering=0) as file:
                state = _state(file)
                if state != self._state:
                    self._refuse_other_content()
                    self._state = state  # copied or touched
                file.seek(int(self.offsets[clip]) + 2 * start)
                complete = file.readinto(pcm.data) == pcm.nbytes
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read: {error}.") from error
        if not complete:
            raise ValueError(f"{self.path}: was cut while it was in use.")

    def _refuse_other_content(self):
        if files.sha256(self.path) != self.sha256:
            raise ValueError(f"{self.path}: was changed while it was in use.")


class RemoteShard:
    """Reads the PCM of a shard at a URL by position, from a copy in the cache.

    The copy is made, and verified, when it is needed.

    Args:
        remote: The shards of the records.
        shard: The shard.
        num_samples: int64 [clips], the samples of each of its clips.

    Attributes:
        num_samples: The same.
    """

    def __init__(self, remote: RemoteShards, shard: Shard, num_samples: np.ndarray) -> None:
        self.num_samples = num_samples
        self._remote, self._shard = remote, shard
        self._copy: PcmShard | None = None

    def read(self, clip: int, start: int, pcm: np.ndarray) -> None:
        """As that of `PcmShard`.

        Raises:
            ValueError: The shard cannot be fetched, or is not the one in the manifest.
        """
        self._remote.reading(self._shard.file)
        while True:
            copy = self._copy or self._open()
            try:
                copy.read(clip, start, pcm)
            except ValueError as error:
                was_missing = isinstance(error.__cause__, FileNotFoundError)  # another thread may have fetched it again
                if os.path.exists(copy.path) and not was_missing:
                    raise
                self._copy = None  # it was removed to make room
                continue
            return self._remote.used(copy.path)

    def _open(self):
        while True:
            try:
                path = self._remote.fetch(self._shard.file)
            except AudiotagError as error:
                raise ValueError(str(error)) from error
            try:
                copy = PcmShard(path, self._shard.sha256, len(self._shard.clips))
            except FileNotFoundError:  # removed again
                continue
            if not np.array_equal(copy.num_samples, self.num_samples):
                raise ValueError(f"{path}: has clips of other lengths than clips.csv says.")
            self._copy = copy
            return copy


Shards = Mapping[str, PcmShard | RemoteShard]  # {file name: what reads it by position}


def find_offsets(manifest: Manifest, subset: str | None = None) -> Shards | None:
    """The places of all clips in the shards of PCM, or in those of one subset.

    It reads a few bytes per clip. Call it before `refuse_damage`: then what is verified is what is read later. Shards
    at a URL are not read yet.

    Returns:
        {file name: `PcmShard` or `RemoteShard`}; None if the records are compressed, or not as make-records writes
        them: then shards can only be read from their start.
    """
    if manifest.options["codec"] != "pcm":
        return None
    if manifest.remote is not None:
        table = read_clips(manifest.directory / "clips.csv")
        num_samples = dict(zip(table["name"], table["num_samples"]))
        return {
            shard.file: RemoteShard(manifest.remote, shard, np.array([num_samples[name] for name in shard.clips]))
            for shard in manifest.shards
            if subset in (None, shard.subset)
        }
    try:
        return {
            shard.file: PcmShard(manifest.directory / shard.file, shard.sha256, len(shard.clips))
            for shard in manifest.shards
            if subset in (None, shard.subset)
        }
    except (OSError, ValueError):
        return None


def _state(file):
    """(size, time of the last change) of an open file."""
    stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


def _places(file, end):
    """Yields (offset, number) of the bytes of PCM of each record of a shard of `end` bytes."""
    at = 0
    while at < end:
        file.seek(at)
        head = file.read(HEADER + MAX_BEFORE_PCM)
        found = BEFORE_PCM.match(head, HEADER)
        if not found:
            raise ValueError(f"{file.name}: no PCM in the record at byte {at}.")
        start, number = at + found.end(), _from_varint(found["bytes"])
        at += HEADER + struct.unpack_from("<Q", head)[0] + 4
        if start + number > at - 4 or at > end:
            raise ValueError(f"{file.name}: the record that ends at byte {at} is incomplete.")
        yield start, number


def _from_varint(data):
    """The number that a varint encodes: seven bits per byte, the lowest first."""
    return sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data))
