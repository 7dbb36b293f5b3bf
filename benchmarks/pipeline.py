"""Windows per second that reach the network: audiotag's pipeline and others on the same clips.

    python benchmarks/pipeline.py                     # the demo's clips, noise of 5 s and of 15 s, at 44.1 kHz
    python benchmarks/pipeline.py --source MYDATASET  # anything make-records reads

Every row gives shuffled batches of random windows with their labels, short clips repeated: int16 by audiotag, whose
model scales them, float32 by the others. "plain reading" only reads the same records, whole, from disk. Rounds are
interleaved and the files are in the page cache; ratios are medians over the rounds, so other load affects all rows
alike. CPU time is that of the process and its workers. audiotag does not need PyTorch; `pip install torch` adds its
row.
"""

import argparse
import functools
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import librosa
import numpy as np
import soundfile as sf
import tensorflow as tf

from audiotag.data import pipeline, synthetic
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.records import write_records
from audiotag.data.records.offsets import find_offsets
from audiotag.data.sources import find_clips

try:
    import torch
except ImportError:
    torch = None

BATCH_SIZE = 64
CORES = os.cpu_count()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a dataset; synthesized clips of three lengths by default")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of a window")
    parser.add_argument("--epochs", type=int, default=8, help="epochs per round")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for make in SYNTHESIZED if args.source is None else [lambda folder: args.source]:
        compare_on(make, args)


def noise(folder, seconds, *, num_clips=384, sample_rate=44_100):
    """A folder of clips of noise, of ten classes."""
    rng = np.random.default_rng(0)
    for number in range(num_clips):
        path = folder / f"class{number % 10}" / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, rng.integers(-20_000, 20_000, round(seconds * sample_rate), "int16"), sample_rate)
    return folder


def demo(folder):
    """The clips of make-demo."""
    synthetic.make_demo(folder)
    return folder


SYNTHESIZED = [demo, functools.partial(noise, seconds=5), functools.partial(noise, seconds=15)]


def compare_on(make, args):
    """Runs all pipelines on a folder of clips, which `make` makes."""
    with tempfile.TemporaryDirectory() as scratch:
        source = find_clips(make(Path(scratch) / "clips"))
        manifest = write_records(source, Path(scratch) / "records", clips_per_shard=64)
        clips = read_clips(manifest.directory / "clips.csv").merge(source.clips[["name", "path"]], on="name")
        clips = clips[clips["labels"] != ""].reset_index(drop=True)
        seconds = clips["seconds"]
        print(
            f"{len(clips)} clips of {seconds.min():.1f} to {seconds.max():.1f} s, {seconds.mean():.1f} s on average, "
            f"{(seconds < args.seconds).mean():.0%} shorter than a window; windows of {args.seconds} s at "
            f"{manifest.sample_rate} Hz, batches of {BATCH_SIZE}; {CORES} cores, load {os.getloadavg()[0]:.1f}"
        )
        compare(pipelines(manifest, clips, round(args.seconds * manifest.sample_rate), args.epochs), args.rounds)


def pipelines(manifest, clips, window_samples, epochs):
    """{name: function that reads some epochs and returns the number of windows}."""
    truth = multi_hot(clips["labels"], manifest.vocabulary)  # [clips, K]
    paths = manifest.paths_holding(clips["name"])
    records = pipeline._read(tf.data.Dataset.from_tensor_slices(paths).repeat(epochs)).prefetch(tf.data.AUTOTUNE)
    by_offset, sequential = (
        pipeline.training_batches(
            manifest,
            clips,
            truth,
            window_samples=window_samples,
            pad="repeat",
            batch_size=BATCH_SIZE,
            seed=1,
            epochs=range(epochs),
            offsets=offsets,
        )
        for offsets in (find_offsets(manifest), None)
    )
    return {
        "audiotag": lambda: BATCH_SIZE * count(by_offset),
        "audiotag, read by Python": lambda: sum(len(waveform) for waveform, _ in by_offset),
        "audiotag, whole shards": lambda: BATCH_SIZE * count(sequential),
        "plain reading of its shards": lambda: count(records),
        "PyTorch DataLoader, soundfile": torch_loader(clips, truth, window_samples, epochs) if torch else None,
        "Keras PyDataset, librosa.load": keras_sequence(clips, truth, window_samples, manifest.sample_rate),
    }


def count(dataset):
    """Number of elements, counted in the graph, not in Python."""
    return int(dataset.reduce(np.int64(0), lambda number, *element: number + 1))


def repeated(window, window_samples):
    """A short clip, repeated to fill a window, [N]."""
    return np.tile(window, math.ceil(window_samples / len(window)))[:window_samples]


def torch_loader(clips, truth, window_samples, epochs):
    """PyTorch's DataLoader, one worker per core; soundfile decodes only the window."""
    paths = clips["path"].tolist()

    class Windows(torch.utils.data.Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            with sf.SoundFile(paths[index]) as file:
                file.seek(int(torch.randint(max(file.frames - window_samples, 0) + 1, ())))
                window = file.read(window_samples, dtype="float32")
            window = window if window.ndim == 1 else window.mean(axis=1)
            return repeated(window, window_samples), truth[index]

    loader = torch.utils.data.DataLoader(
        Windows(), batch_size=BATCH_SIZE, shuffle=True, drop_last=True, num_workers=CORES, persistent_workers=True
    )
    return lambda: sum(len(waveform) for _ in range(epochs) for waveform, _ in loader)


def keras_sequence(clips, truth, window_samples, sample_rate):
    """A Keras PyDataset, one thread per core; librosa.load decodes only the window."""
    paths, lengths = clips["path"].tolist(), clips["num_samples"].tolist()
    rng = np.random.default_rng(1)
    order = np.arange(len(paths))

    class Windows(keras.utils.PyDataset):
        def __len__(self):
            return len(paths) // BATCH_SIZE

        def __getitem__(self, batch):
            indices = order[batch * BATCH_SIZE : (batch + 1) * BATCH_SIZE]
            return np.stack([self.window(index) for index in indices]), truth[indices]

        def window(self, index):
            start = rng.integers(max(lengths[index] - window_samples, 0) + 1) / sample_rate
            window, _ = librosa.load(paths[index], sr=None, offset=start, duration=window_samples / sample_rate)
            return repeated(window, window_samples)

    def run():
        rng.shuffle(order)
        with ThreadPoolExecutor(CORES) as pool:  # as Keras' own enqueuer does
            return sum(len(waveform) for waveform, _ in pool.map(windows.__getitem__, range(len(windows))))

    windows = Windows()
    return run


def compare(runs, rounds):
    """Runs all pipelines in every round and prints the median rate of each."""
    rates, cpu = ({name: [] for name in runs} for _ in range(2))  # windows per second, CPU seconds per window
    for number in range(rounds + 1):
        for name, run in runs.items():
            if run is None:
                continue
            started, cpu_before = time.perf_counter(), cpu_seconds()
            windows = run()
            if number:  # the first round fills caches and starts workers
                rates[name].append(windows / (time.perf_counter() - started))
                cpu[name].append((cpu_seconds() - cpu_before) / windows)
    print(
        f"{'':32} {'windows/s':>10} {'min':>8} {'max':>8} {'of PyTorch':>11} {'of reading':>11} {'CPU µs':>8} "
        f"{'of PyTorch':>11} {'of reading':>11}"
    )
    for name, rate in rates.items():
        if not rate:
            print(f"{name:32} torch is not installed")
            continue
        print(
            f"{name:32} {statistics.median(rate):10.0f} {min(rate):8.0f} {max(rate):8.0f} "
            f"{ratio(rate, rates['PyTorch DataLoader, soundfile']):>11} "
            f"{ratio(rate, rates['plain reading of its shards']):>11} {1e6 * statistics.median(cpu[name]):8.0f} "
            f"{ratio(cpu['PyTorch DataLoader, soundfile'], cpu[name]):>11} "
            f"{ratio(cpu['plain reading of its shards'], cpu[name]):>11}"
        )


def cpu_seconds():
    """CPU time of this process and of its workers so far, on Linux."""
    ticks = 0
    for worker in multiprocessing.active_children():
        after_name = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(after_name[11]) + int(after_name[12])  # in user and in system mode
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def ratio(rate, other):
    """The median over the rounds of one rate by another, or a dash where there is no other."""
    return f"{statistics.median(a / b for a, b in zip(rate, other)):.2f}x" if other else "-"


if __name__ == "__main__":
    main()
