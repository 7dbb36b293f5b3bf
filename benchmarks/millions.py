"""What limits training on millions of clips on many hosts: a simulation on one machine.

It writes the manifest and the table of two million clips of 10 s at 16 kHz, and sparse shards of their real sizes.
They take little disk, as only the bytes around the PCM are there. Then it does what each host does before and while it
trains, and prints seconds, memory and bytes, and what network, store and checkpoints would have to carry.

    python benchmarks/millions.py --clips 2000000 --hosts 64
"""

import argparse
import json
import resource
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

RATE, SECONDS, NUM_CLASSES = 16_000, 10.0, 527
SAMPLES = int(RATE * SECONDS)
GET_DOLLARS, PUT_DOLLARS = 0.4e-6, 5e-6  # per request, as of large stores in one region
STORED_DOLLARS = 0.023  # per GB and month
NAME = "{:011d}.wav"


def record_around(name):
    """The bytes of a record before and after its PCM, and the number of bytes of both, the checksums zero."""
    from audiotag.data.records.schema import Record, encode

    pcm = b"\1" * (2 * SAMPLES)
    message = encode(Record(name, pcm, "pcm", RATE, SAMPLES))
    start = message.index(pcm)
    head = struct.pack("<Q", len(message)) + bytes(4) + message[:start]
    return head, message[start + len(pcm) :] + bytes(4)


def write_set(folder, num_clips, per_shard, num_read_shards):
    """manifest.json, clips.csv, and sparse shards, of which some have records; the manifest."""
    from audiotag.data.clips import COLUMNS, MEASURES
    from audiotag.data.records.manifest import Manifest, Shard, write_manifest

    names = [NAME.format(index) for index in range(num_clips)]
    head, tail = record_around(names[0])
    number = len(head) + 2 * SAMPLES + len(tail)
    num_shards = -(-num_clips // per_shard)
    shards = []
    for index in range(num_shards):
        clips = names[index * per_shard : (index + 1) * per_shard]
        file = f"clips-{index:05d}-of-{num_shards:05d}.tfrecord"
        with open(folder / file, "wb") as shard:
            shard.truncate(number * len(clips))
            for place, name in enumerate(clips if index < num_read_shards else ()):
                shard.seek(place * number)
                shard.write(head.replace(names[0].encode(), name.encode()))
                shard.seek((place + 1) * number - len(tail))
                shard.write(tail.replace(names[0].encode(), name.encode()))
        shards.append(Shard(file, "noisy", number * len(clips), "0" * 64, tuple(clips)))
    rng = np.random.default_rng(0)
    labels = np.array([f"Class {index}" for index in range(NUM_CLASSES)])
    table = pd.DataFrame(
        {"name": names, "subset": "noisy", "labels": labels[rng.integers(NUM_CLASSES, size=num_clips)]}
    )
    for column, kind in {**COLUMNS, **MEASURES}.items():
        if column not in table:
            table[column] = "" if kind is str else kind(0)
    table["num_samples"], table["seconds"], table["group"] = SAMPLES, SECONDS, table["name"]
    table["sha256"] = "0" * 64
    table[[*COLUMNS, *MEASURES]].to_csv(folder / "clips.csv", index=False)
    options = {"sample_rate": RATE, "codec": "pcm", "trim": None, "trim_db": 60.0, "peak_db": None}
    manifest = Manifest(folder, options, "0" * 64, tuple(labels), tuple(shards), {})
    write_manifest(manifest)
    return manifest


class Stages:
    """Prints the seconds of each stage, and the memory after it."""

    def __init__(self):
        self.began = time.perf_counter()

    def done(self, what):
        now = time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{what:<62}{now - self.began:>8.1f} s, at most {memory:.1f} GB so far", flush=True)
        self.began = time.perf_counter()


def spread(shards_of_order, batch_size, num_batches):
    """The mean number of different shards in a batch, and in eight batches in a row."""
    batches = shards_of_order[: num_batches * batch_size].reshape(num_batches, batch_size)
    rows = batches[: num_batches // 8 * 8].reshape(-1, 8 * batch_size)
    return [float(np.mean([len(set(row)) for row in some.tolist()])) for some in (batches, rows)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--hosts", type=int, default=64)
    parser.add_argument("--clips-per-shard", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32, help="Of a host.")
    parser.add_argument("--speed", type=float, default=1000, help="Clips that a host trains on per second.")
    parser.add_argument(
        "--weights-mb", type=float, default=30, help="Of the network, with the optimizer's three times."
    )
    arguments = parser.parse_args()
    from audiotag.data.clips import read_clips
    from audiotag.data.pipeline import training_batches
    from audiotag.data.records.manifest import load_manifest
    from audiotag.data.records.offsets import PcmShard

    with tempfile.TemporaryDirectory() as place:
        folder, stages = Path(place), Stages()
        num_shards = -(-arguments.clips // arguments.clips_per_shard)
        share = -(-num_shards // arguments.hosts)
        written = write_set(folder, arguments.clips, arguments.clips_per_shard, share)
        size = sum(shard.bytes for shard in written.shards)
        sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("manifest.json", "clips.csv")}
        stages.done(f"write {num_shards} sparse shards, {size / 1e9:.0f} GB, and their tables")
        print(", ".join(f"{name} {number:.0f} MB" for name, number in sizes.items()))
        del written

        manifest = load_manifest(folder)
        stages.done("each host: read and check manifest.json")
        clips = read_clips(folder / "clips.csv")
        stages.done("each host: read clips.csv")
        held = manifest.shards[:share]  # the share of the first host
        offsets = {shard.file: PcmShard(folder / shard.file, shard.sha256, len(shard.clips)) for shard in held}
        stages.done(f"each host: find the clips in its {share} shards")
        names = {name for shard in held for name in shard.clips}
        clips = clips[clips["name"].isin(names)].reset_index(drop=True)
        truth = np.arange(len(clips), dtype="float32")[:, None]
        batches = training_batches(
            manifest,
            clips,
            truth,
            window_samples=SAMPLES,
            pad="zeros",
            batch_size=arguments.batch_size,
            seed=0,
            epochs=range(1),
            offsets=offsets,
        )
        iterator = iter(batches)
        order = [next(iterator)[1].numpy()[:, 0]]
        stages.done("each host: order of the epoch, and its first batch")
        began, number = time.perf_counter(), 0
        for _, rows in iterator:
            order.append(rows.numpy()[:, 0])
            number += len(rows)
        speed = number / (time.perf_counter() - began)
        stages.done(f"read the share of one host: {speed:.0f} clips/s, {speed * 2 * SAMPLES / 1e6:.0f} MB/s of zeros")
        shard_of = np.repeat(np.arange(len(held)), [len(shard.clips) for shard in held])
        rank = {name: rank for rank, name in enumerate(name for shard in held for name in shard.clips)}
        ranks = np.array([rank[name] for name in clips["name"]])
        in_order = shard_of[ranks[np.concatenate(order).astype(int)]]
        one, eight = spread(in_order, arguments.batch_size, len(order))
        print(f"shuffling: {one:.1f} shards in a batch of {arguments.batch_size} clips, {eight:.1f} in eight batches")

    hosts, speed = arguments.hosts, arguments.speed
    epoch = arguments.clips / hosts / speed
    requests = num_shards * -(-size // num_shards // (16 << 20))
    network = speed * 2 * SAMPLES / 1e6
    state = 4 * arguments.weights_mb
    print(f"\n{hosts} hosts at {speed:.0f} clips/s each: an epoch takes {epoch / 60:.1f} minutes")
    total = f"{network * hosts / 1e3:.1f} GB/s for all, {size / 1e9:.0f} GB per epoch"
    print(f"  from the store: {network:.0f} MB/s per host, {total}")
    print(f"  requests per epoch: {requests:.0f}, {requests * GET_DOLLARS:.3f} dollars")
    print(
        f"  a cache that holds the share of a host needs {size / hosts / 1e9:.1f} GB; the next epochs then read nothing"
    )
    print(f"  each host reads both tables: {sum(sizes.values()) * hosts / 1e3:.0f} GB in all at the start")
    print(f"  a state of {state:.0f} MB, by one host every epoch: {state / epoch:.2f} MB/s")
    print(f"  storage: {size / 1e9 * STORED_DOLLARS:.0f} dollars a month as PCM, about half as FLAC")
    print(json.dumps({"shards": num_shards, "shards_per_host": share, "bytes": size}))


if __name__ == "__main__":
    main()
