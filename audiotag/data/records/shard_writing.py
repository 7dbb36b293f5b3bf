"""A shard of records: decoding its recordings, writing it, and its metadata.

With the metadata make-records continues after it was killed.
"""

import contextlib
import json
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.data.audio import worker_pool
from audiotag.data.records import source_hashes
from audiotag.data.records.comparison import Request
from audiotag.data.records.manifest import Shard, digest
from audiotag.data.records.preparation import Entry, prepare
from audiotag.data.records.schema import Record, encode
from audiotag.errors import DataError

WORK = ".work"  # the folder of everything that is not complete yet


def entries(clips: pd.DataFrame) -> list[Entry]:
    """What is decoded for each clip: its path, or (path, start, end) of a part."""
    if "start_seconds" not in clips:
        return clips["path"].tolist()
    parts = zip(clips["path"], clips["start_seconds"], clips["end_seconds"])
    return [path if pd.isna(start) else (path, float(start), float(end)) for path, start, end in parts]


def prepare_all(paths: Sequence[Entry], options: dict[str, Any], workers: int | None) -> Generator[Any]:
    """Yields what `prepare` returns for each path, in order; a crash is a reason."""
    function = partial(prepare, **options)
    if workers == 0:
        yield from map(function, paths)
        return
    results = worker_pool.in_order(function, paths, workers=workers or os.cpu_count() or 1)
    with contextlib.closing(results):
        for path, (result, reason) in zip(paths, results):
            if reason:
                path = path[0] if isinstance(path, tuple) else path
                sentence = f"{path}: {reason}. Leave this file out, or convert it with another program."
                result = source_hashes.identify(path), sentence
            yield result


def write_shard(path: Path, clips: pd.DataFrame, results: Iterator[Any], sample_rate: int) -> dict[str, Any]:
    """Writes a shard from the next results of `prepare_all`; returns its metadata."""
    import tensorflow as tf

    metadata: dict[str, Any] = {
        "clips": [],
        "rejects": [],
        "identities": {},
    }  # identities: {clip: that of its file when it was read}
    with files.atomic_file(path) as unfinished, _explain_tensorflow_error(path):
        with tf.io.TFRecordWriter(str(unfinished)) as shard:
            for clip in clips.itertuples():
                metadata["identities"][clip.name], result = next(results)
                if isinstance(result, str):
                    metadata["rejects"].append({"name": clip.name, "reason": result.replace(clip.path, clip.name)})
                    continue
                audio, codec, measures = result
                shard.write(encode(Record(clip.name, audio, codec, sample_rate, measures["num_samples"])))
                metadata["clips"].append({"name": clip.name, **measures})
        size, sha256 = unfinished.stat().st_size, files.sha256(unfinished)
    names = tuple(clip["name"] for clip in metadata["clips"])
    metadata["shard"] = asdict(Shard(path.name, clips["subset"].iloc[0], size, sha256, names))
    return metadata


@contextlib.contextmanager
def _explain_tensorflow_error(path):
    """Turns TensorFlow's error about a full or broken disk into one with the shard."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(
            f"{path}: cannot be written: {error.message}. Nothing incomplete is left. Make room and run the same "
            f"command again: it continues where it stopped."
        ) from error


def metadata_text(fingerprint: str, content: Any) -> str:
    """A file of the fingerprint of a request, and a shard's metadata."""
    return json.dumps({"fingerprint": fingerprint, "content": content, "sha256": digest([fingerprint, content])})


def parse_metadata(data: bytes) -> tuple[str | None, Any]:
    """(fingerprint, shard metadata) of the bytes of `metadata_text`.

    Both are None if the bytes are damaged.
    """
    try:
        metadata = json.loads(data)
        if metadata["sha256"] == digest([metadata["fingerprint"], metadata["content"]]):
            return metadata["fingerprint"], metadata["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return None, None


def write_metadata(path: Path, fingerprint: str, content: Any = None) -> None:
    """Writes what a later make-records needs to resume.

    Args:
        path: The file.
        fingerprint: That of the request.
        content: A shard's metadata.
    """
    files.write_text(path, metadata_text(fingerprint, content))


def read_metadata(path: Path) -> tuple[str | None, Any]:
    """`parse_metadata` of a file; (None, None) if there is none."""
    return parse_metadata(path.read_bytes()) if path.is_file() else (None, None)


def unchanged(finished: dict[str, Any], request: Request) -> dict[str, Any]:
    """The finished shards whose recordings have not changed since.

    Args:
        finished: {file name: metadata}.
        request: What is asked for.
    """
    before = {
        name: tuple(identity) for metadata in finished.values() for name, identity in metadata["identities"].items()
    }
    now = source_hashes.identify_all({name: request.paths[name] for name in before}, before)
    changed = set(source_hashes.changed(before, now))
    for metadata in finished.values():
        metadata["identities"] = {name: now[name] for name in metadata["identities"]}
    return {name: metadata for name, metadata in finished.items() if changed.isdisjoint(metadata["identities"])}
