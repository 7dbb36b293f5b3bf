"""Folders of records, for tests: their files, replaced recordings, and a make-records that stops."""

import os

import numpy as np
import pytest
import soundfile as sf
import tensorflow as tf

from audiotag.data.records import shard_writing, write_records
from audiotag.data.records.schema import decode
from audiotag.data.records.source_hashes import CACHE

RATE = 16_000
OPTIONS = {"sample_rate": RATE, "clips_per_shard": 8, "workers": 0}
SUBSETS = ("curated", "noisy", "test")


def tree(folder):
    """{path: bytes} of all files below a folder except the cache of hashes, which differs between machines."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != CACHE]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def finished_files(folder):
    """{path: bytes} of the files with final names."""
    return {name: content for name, content in tree(folder).items() if not name.startswith(".")}


def read_shards(out):
    """{shard: [record, ...]} of every shard in a directory, read by TensorFlow."""
    return {
        path.name: [
            {key: value.numpy() for key, value in decode(serialized).items()}
            for serialized in tf.data.TFRecordDataset(str(path))
        ]
        for path in sorted(out.glob("clips-*.tfrecord"))
    }


def by_name(out):
    """{name: record} of all records in a directory."""
    return {record["name"].decode(): record for shard in read_shards(out).values() for record in shard}


def replace_recording(path, seed=9):
    """Replaces a recording by noise of the same size and modification time."""
    before = path.stat()
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, (before.st_size - 44) // 2).astype("int16")
    sf.write(path, samples, RATE)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def stop_after(source, out, clips, **options):
    """Writes records until so many clips are decoded; the next one raises."""
    decoded = iter(range(clips))

    def prepare(*args, **options):
        if next(decoded, None) is None:
            raise KeyboardInterrupt
        return true_prepare(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        true_prepare = shard_writing.prepare
        patch.setattr(shard_writing, "prepare", prepare)
        with pytest.raises(KeyboardInterrupt):
            write_records(source, out, **OPTIONS, **options)
