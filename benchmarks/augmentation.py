"""Time of each augmentation, relative to a training step of DenseNet169, on the CPU, in one run.

    python benchmarks/augmentation.py

Batches of 64 images of 64 x 64 x 3, or of 64 waveforms of 2 s at 44.1 kHz. The step is forward, backward and Adam on
the images without augmentation. Rounds are interleaved and fractions are medians over the rounds, so other load affects
all rows alike.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from audiotag.layers import IMAGE_AUGMENTATIONS, WAVEFORM_AUGMENTATIONS
from audiotag.losses import binary_crossentropy
from audiotag.models import MODELS

BATCH, SIZE, NUM_CLASSES, SAMPLES = 64, 64, 80, 88_200
OPTIONS = {
    "time_mask": {"max_width": 8, "count": 2},
    "frequency_mask": {"max_width": 8, "count": 2},
    "bar_erasing": {"max_length": 5, "min_length": 1},
    "random_crop": {"num_frames": 48},
}
S1 = ("flips_as_classes", "zoom", "brightness_contrast", "bar_erasing", "mixup")
STEP, ALL_OF_S1 = "a step of DenseNet169", "all of S1: " + ", ".join(S1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((BATCH, SIZE, SIZE, 3)), tf.float32)
    waveforms = tf.constant(rng.uniform(-1, 1, (BATCH, SAMPLES)), tf.float32)
    labels = tf.eye(BATCH, NUM_CLASSES)
    rows = {STEP: training_step(images, labels)}
    rows |= {name: augmentation([(name, layer)], images, labels) for name, layer in IMAGE_AUGMENTATIONS.items()}
    rows[ALL_OF_S1] = augmentation([(name, IMAGE_AUGMENTATIONS[name]) for name in S1], images, labels)
    rows |= {
        f"{name}, on waveforms": augmentation([(name, layer)], waveforms, labels)
        for name, layer in WAVEFORM_AUGMENTATIONS.items()
    }
    seconds = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            start = time.perf_counter()
            row()
            if number:  # the first round traces
                seconds[name].append(time.perf_counter() - start)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n{'':50} {'ms':>8} {'of a step':>10}")
    for name, times in seconds.items():
        fraction = statistics.median(time / step for time, step in zip(times, seconds[STEP]))
        print(f"{name:50} {1000 * statistics.median(times):8.1f} {fraction:10.2%}")


def training_step(images, labels):
    """A function that does one step of forward, backward and Adam."""
    network = MODELS["densenet169"]((SIZE, SIZE, 3), NUM_CLASSES)
    network.compile(keras.optimizers.Adam(9e-4), binary_crossentropy(), jit_compile=False)
    return lambda: float(network.train_on_batch(images, labels))


def augmentation(components, clips, labels):
    """A function that runs a graph of augmentations, one after the other."""
    layers = [layer(**OPTIONS.get(name, {}), seed=1) for name, layer in components]

    @tf.function
    def augmented(clips, labels):
        for layer in layers:
            clips, labels = layer((clips, labels), training=True)
        return clips, labels

    return lambda: augmented(clips, labels)[0].numpy()


if __name__ == "__main__":
    main()
