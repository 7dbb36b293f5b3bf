"""What each disturbance costs, as a share of a training step of DenseNet169, on the CPU, in one run.

    python benchmarks/disturbances.py

Batches of 64 pictures of 64 x 64 x 3, or of 64 waveforms of 2 s at 44.1 kHz. The step is forward, backward and Adam on
the pictures alone. Rounds are interleaved and shares are medians over the rounds, so other load hits all rows alike.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from audiotag.layers import AUGMENTS, LABELLED, WAVEFORMS
from audiotag.losses import binary_crossentropy
from audiotag.models import MODELS

BATCH, SIZE, NUM_CLASSES, SAMPLES = 64, 64, 80, 88_200
OPTIONS = {
    "time_mask": {"max_width": 8, "count": 2},
    "frequency_mask": {"max_width": 8, "count": 2},
    "bars": {"max_length": 5, "min_length": 1},
    "random_crop": {"num_frames": 48},
}
S1 = ("flip_labels", "zoom", "lighting", "bars", "mixup")
STEP, TOGETHER = "a step of DenseNet169", "S1's together: " + ", ".join(S1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    pictures = tf.constant(rng.random((BATCH, SIZE, SIZE, 3)), tf.float32)
    waveforms = tf.constant(rng.uniform(-1, 1, (BATCH, SAMPLES)), tf.float32)
    labels = tf.eye(BATCH, NUM_CLASSES)
    rows = {STEP: training_step(pictures, labels)}
    rows |= {name: run([(name, kind)], pictures, labels) for name, kind in AUGMENTS.items()}
    rows[TOGETHER] = run([(name, AUGMENTS[name]) for name in S1], pictures, labels)
    rows |= {f"{name}, on waves": run([(name, kind)], waveforms, labels) for name, kind in WAVEFORMS.items()}
    seconds = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            started = time.perf_counter()
            row()
            if number:  # the first round traces
                seconds[name].append(time.perf_counter() - started)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{'':50} {'ms':>8} {'of a step':>10}")
    for name, times in seconds.items():
        share = statistics.median(time / step for time, step in zip(times, seconds[STEP]))
        print(f"{name:50} {1000 * statistics.median(times):8.1f} {share:10.2%}")


def training_step(pictures, labels):
    """One step of forward, backward and Adam."""
    network = MODELS["densenet169"]((SIZE, SIZE, 3), NUM_CLASSES)
    network.compile(keras.optimizers.Adam(9e-4), binary_crossentropy(), jit_compile=False)
    return lambda: float(network.train_on_batch(pictures, labels))


def run(parts, sound, labels):
    """A run of a graph of disturbances, one after the other."""
    layers = [kind(**OPTIONS.get(name, {}), seed=1) for name, kind in parts]

    @tf.function
    def disturbed(sound, labels):
        for layer in layers:
            if isinstance(layer, LABELLED):
                sound, labels = layer((sound, labels), training=True)
            else:
                sound = layer(sound, training=True)
        return sound, labels

    return lambda: disturbed(sound, labels)[0].numpy()


if __name__ == "__main__":
    main()
