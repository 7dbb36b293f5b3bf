"""Training speed of each network on the CPU, and where a step of `audiotag fit` spends its time.

    make demo && python benchmarks/training.py

First, clips/s of a training step (forward, backward, Adam) of each network on images of 64 x 64 x 3, or of the size
that it is made for. Then an experiment: Keras' `fit` on batches from its records, the same on one cached batch, and the
preprocessor (front end, preprocessing, augmentation) alone. Rounds are interleaved; rates and ratios are medians over
the rounds.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from audiotag.config.components import options
from audiotag.config.loading import load
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.pipeline import training_batches
from audiotag.data.records import read_manifest
from audiotag.data.records.offsets import find_offsets
from audiotag.losses import LOSSES, binary_crossentropy
from audiotag.metrics import Lwlrap
from audiotag.models import MODELS
from audiotag.models.windowing import to_float
from audiotag.runs.building import build_tagger

SHAPES = {"conv1d": (32_000, 1), "conv2d": (40, 173, 1), "vgg_gap": (128, 384, 1)}  # others: 64 x 64 x 3
BATCH, NUM_CLASSES, STEPS = 16, 80, 40


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", default="experiments/demo.json")
    parser.add_argument("--records", help="records other than the experiment's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=list(MODELS), choices=list(MODELS))
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{'network':20} {'image':>14} {'clips/s':>8}")
    for name in args.networks:
        shape = SHAPES.get(name, (64, 64, 3))
        (seconds,) = interleaved({name: network_step(name, shape)}, args.rounds).values()
        print(f"{name:20} {'x'.join(map(str, shape)):>14} {BATCH / statistics.median(seconds):8.1f}", flush=True)
    experiment = load(args.experiment, [f"records={args.records}"] if args.records else [])
    compare(experiment, args.rounds)


def network_step(name, shape):
    """A training step of a network on random images: a function that returns its seconds."""
    network = MODELS[name](shape, NUM_CLASSES)
    network.compile(keras.optimizers.Adam(1e-4), binary_crossentropy(), jit_compile=False)
    images, truth = np.random.default_rng(0).random((BATCH, *shape), "float32"), np.eye(BATCH, NUM_CLASSES)
    images, truth = tf.constant(images), tf.constant(truth, tf.float32)
    return lambda: seconds_of(lambda: float(network.train_on_batch(images, truth)))


def compare(experiment, rounds):
    """Prints the cost of the pipeline and the preprocessor in a step of `fit`."""
    manifest = read_manifest(experiment.records)
    stage, clips = experiment.stages[0], read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["subset"].isin(stage.subset)].reset_index(drop=True)
    num_classes = len(manifest.vocabulary)
    tagger = build_tagger(experiment, sample_rate=manifest.sample_rate, num_classes=num_classes, stage=stage)
    loss = LOSSES[stage.loss.name](**options(stage.loss))
    tagger.compile(keras.optimizers.Adam(1e-4), loss, metrics=[Lwlrap(num_classes)], jit_compile=False)
    batches = training_batches(
        manifest,
        clips,
        multi_hot(clips["labels"], manifest.vocabulary),
        window_samples=tagger.window_samples,
        pad=experiment.window.pad,
        batch_size=stage.batch_size,
        seed=1,
        epochs=range(1000),
        offsets=find_offsets(manifest),
    ).map(lambda waveform, truth: ((waveform, truth), truth))
    batch = next(iter(batches))
    repeated = tf.data.Dataset.from_tensors(batch).repeat()
    preprocess = tf.function(lambda waveform, truth: tagger.preprocessor((to_float(waveform), truth), training=True)[0])
    rows = {
        "fit, from records": lambda: fit_seconds(tagger, batches),
        "fit, one cached batch": lambda: fit_seconds(tagger, repeated),
        "preprocessor alone": lambda: seconds_of(lambda: [preprocess(*batch[0]).numpy() for _ in range(STEPS)]),
    }
    seconds = interleaved(rows, rounds)
    print(f"\n{experiment.model.name + f', batches of {stage.batch_size}':34} {'clips/s':>8} {'of cached':>10}")
    for name, times in seconds.items():
        ratio = statistics.median(one / time for time, one in zip(times, seconds["fit, one cached batch"]))
        print(f"{name:34} {STEPS * stage.batch_size / statistics.median(times):8.1f} {ratio:9.2f}x")


class Stopwatch(keras.callbacks.Callback):
    """Measures the duration of each epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.started


def fit_seconds(tagger, batches):
    """Seconds that `fit` takes for `STEPS` steps, after an epoch of warm-up."""
    stopwatch = Stopwatch()
    tagger.fit(batches, epochs=2, steps_per_epoch=STEPS, verbose=0, shuffle=False, callbacks=[stopwatch])
    return stopwatch.seconds


def seconds_of(run):
    """Seconds that a function takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleaved(rows, rounds):
    """{name: the seconds that its function returns in each round}, without the first round, which traces."""
    seconds = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            elapsed = row()
            if number:
                seconds[name].append(elapsed)
    return seconds


if __name__ == "__main__":
    main()
