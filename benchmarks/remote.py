"""Training on records in an object store, compared with the same records on the local disk.

The store is moto's S3 on this machine. Records of synthetic clips are trained on from the disk and from the store by
turns, each time with a cold cache that has room for half of them. For each pair it prints the clips per second and
their ratio.

    python benchmarks/remote.py --clips 2048 --pairs 5
"""

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RATE, SECONDS, PER_SHARD, BATCH = 16_000, 2.0, 32, 32


def write_clips(folder, number):
    """Clips of noise in two classes, as records."""
    import pandas as pd
    import soundfile as sf

    from audiotag.data.records import write_records
    from audiotag.data.sources import find_clips

    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    names = [f"{index:06d}.wav" for index in range(number)]
    for name in names:
        sf.write(folder / "audio" / name, rng.integers(-9_000, 9_000, int(RATE * SECONDS), "int16"), RATE)
    labels = ["Hiss" if index % 2 else "Noise" for index in range(number)]
    pd.DataFrame({"fname": names, "labels": labels}).to_csv(folder / "clips.csv", index=False)
    return write_records(
        find_clips(folder / "clips.csv"), folder / "records", sample_rate=RATE, workers=0, clips_per_shard=PER_SHARD
    )


@contextlib.contextmanager
def store():
    """The endpoint of a server of S3 in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def trainer(manifest):
    """A function that trains a small network on an epoch, and returns the clips per second."""
    import keras

    from audiotag.data.clips import read_clips
    from audiotag.data.labels import multi_hot
    from audiotag.data.pipeline import explain_damage, training_batches
    from audiotag.data.records.offsets import find_offsets
    from audiotag.layers import LogMel
    from audiotag.models import MODELS

    clips = read_clips(manifest.directory / "clips.csv")
    truth = multi_hot(clips["labels"], manifest.vocabulary)
    window = int(RATE * SECONDS)
    front_end = keras.Sequential(
        [
            keras.Input((window,)),
            LogMel(sample_rate=RATE, num_bands=64),  # [B, T, M]
            keras.layers.Permute((2, 1)),
            keras.layers.Reshape((64, -1, 1)),
        ]
    )
    network = MODELS["conv_skip"](front_end.output_shape[1:], truth.shape[1], filters=(8, 16))
    model = keras.Sequential([front_end, network])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True))

    def train(epoch, steps=None):
        import tensorflow as tf

        batches = training_batches(
            manifest,
            clips,
            truth,
            window_samples=window,
            pad="repeat",
            batch_size=BATCH,
            seed=0,
            epochs=range(epoch, epoch + 1),
            offsets=find_offsets(manifest),
        )
        batches = batches.map(lambda waveform, labels: (tf.cast(waveform, tf.float32) / 32_768, labels))
        began = time.monotonic()
        with explain_damage(manifest):
            model.fit(batches if steps is None else batches.take(steps), shuffle=False, verbose=0)
        return len(clips) / (time.monotonic() - began)

    train(0, steps=3)  # compiles
    return train


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    from audiotag.data.records import read_manifest
    from audiotag.remote import Store

    with tempfile.TemporaryDirectory() as place, store() as endpoint:
        folder, cache = Path(place), Path(place) / "cache"
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        local = write_clips(folder, arguments.clips)
        size = sum(shard.bytes for shard in local.shards)
        cached = {"AUDIOTAG_CACHE": str(cache), "AUDIOTAG_CACHE_GB": str(size / 2e9)}
        os.environ.update({**keys, **cached, "AWS_ENDPOINT_URL": endpoint})
        import fsspec

        fsspec.filesystem("s3").mkdir("bucket")
        for path in sorted(local.directory.glob("[!.]*")):
            Store("s3://bucket/records").upload(path, path.name)
        there = read_manifest("s3://bucket/records")
        from_disk, from_store = trainer(local), trainer(there)
        print(
            f"{arguments.clips} clips, {size / 1e6:.0f} MB in {len(local.shards)} shards; the cache has room for half"
        )
        ratios = []
        for pair in range(arguments.pairs):
            shutil.rmtree(cache / "records")
            there = read_manifest("s3://bucket/records")
            speeds = {}
            for name in ("disk", "store") if pair % 2 else ("store", "disk"):
                speeds[name] = (from_disk if name == "disk" else from_store)(pair + 1)
            ratios.append(speeds["store"] / speeds["disk"])
            in_cache = sum(path.stat().st_size for path in cache.glob("records/*/*.tfrecord"))
            print(
                f"disk {speeds['disk']:.0f} clips/s, store {speeds['store']:.0f} clips/s: {ratios[-1]:.2f}; "
                f"{in_cache / size:.2f} of the records in the cache"
            )
        print(f"median ratio {statistics.median(ratios):.2f}, lowest {min(ratios):.2f}")


if __name__ == "__main__":
    main()
