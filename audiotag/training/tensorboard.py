"""Images for TensorBoard: augmented training windows, and confusions."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from audiotag.models.tagger import Tagger
from audiotag.models.windowing import to_float

NUM_WINDOWS = 8
MAX_CLASSES = 50  # of the matrix
LEAST_LABEL = 0.05  # of a class in the title of a window
FOLDER = "images"  # beside train and validation of Keras' callback


def log_folders(callbacks: Iterable[keras.callbacks.Callback]) -> list[Path]:
    """Where the TensorBoard callbacks among these write."""
    return [Path(callback.log_dir) for callback in callbacks if isinstance(callback, keras.callbacks.TensorBoard)]


def write_windows(folder: Path, tagger: Tagger, batches: Iterable[Any], vocabulary: Sequence[str]) -> None:
    """Writes the images of some training windows after augmentation, as step 0.

    The random numbers of training stay what they are. What is no spectrogram, such as a raw waveform, is not written.

    Args:
        folder: The folder of the logs.
        tagger: A built `Tagger`.
        batches: Training batches of (waveform, labels), of which the first is used.
        vocabulary: The K class names.
    """
    waveform, labels = next(iter(batches))
    generators = [weight for weight in tagger.preprocessor.variables if "seed_generator" in weight.path]
    before = [keras.ops.convert_to_numpy(weight) for weight in generators]
    image, labels = tagger.preprocessor((to_float(waveform), labels), training=True)
    for weight, value in zip(generators, before):
        weight.assign(value)
    image, labels = (keras.ops.convert_to_numpy(tensor) for tensor in (image, labels))  # [B, M, T, C], [B, ...]
    if image.ndim != 4:
        return
    labels = labels.reshape(len(labels), -1, len(vocabulary)).max(axis=1)  # of all flips or groups
    shown = image[:NUM_WINDOWS, :, :, 0]
    _write(folder, "augmented training windows", 0, lambda figure: _draw_windows(figure, shown, labels, vocabulary))


def write_confusions(
    folder: Path, tagger: Tagger, batches: Iterable[Any], vocabulary: Sequence[str], *, step: int
) -> None:
    """Writes the confusion matrix of the validation clips.

    Rows are given labels, columns the most probable classes, as in the report. Where that is one of several labels, the
    clip counts there alone. Of more than `MAX_CLASSES` those with the most confusions are shown.

    Args:
        folder: The folder of the logs.
        tagger: A `Tagger` with the weights that a stage ends with.
        batches: Validation batches of (inputs, labels).
        vocabulary: The K class names.
        step: The epoch of the weights, from 0.
    """
    counts = np.zeros((len(vocabulary), len(vocabulary)), int)
    for inputs, labels in batches:
        logits, truth = tagger.predict_on_batch(inputs), labels.numpy().astype(int)  # [B, K] both
        top = np.eye(len(vocabulary), dtype=int)[logits.argmax(axis=1)]
        right = truth * top
        counts += np.diag(right.sum(axis=0)) + (truth * (1 - right.sum(axis=1, keepdims=True))).T @ top
    wrong = counts - np.diag(np.diag(counts))
    shown = np.sort(np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:MAX_CLASSES])
    names = [vocabulary[label] for label in shown]
    _write(folder, "confusions", step, lambda figure: _draw_confusions(figure, counts[np.ix_(shown, shown)], names))


def _write(folder: Path, name: str, step: int, draw: Callable[[Any], None]) -> None:
    """Writes a figure as an image of TensorBoard."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    draw(figure)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=100)
    writer = tf.summary.create_file_writer(str(folder / FOLDER))
    with writer.as_default():
        tf.summary.image(name, tf.image.decode_png(encoded.getvalue(), channels=3)[None], step=step)
    writer.close()


def _draw_windows(figure, images, labels, vocabulary):
    """Two rows of images [B, M, T], low bands at the bottom, each with its labels."""
    figure.set_size_inches(12, 5.5)
    axes = figure.subplots(2, NUM_WINDOWS // 2, sharex=True, sharey=True)
    for axis, image, row in zip(axes.flat, images, labels):
        axis.imshow(image, origin="lower", aspect="auto", cmap="magma")
        present = np.flatnonzero(row >= LEAST_LABEL)
        parts = [vocabulary[k] if row[k] > 0.99 else f"{vocabulary[k]} {row[k]:.2f}" for k in present[:3]]
        axis.set_title("\n".join(parts) or "no class", fontsize=10)
    for axis in axes.flat[len(images) :]:
        axis.set_axis_off()
    figure.supxlabel("frames")
    figure.supylabel("bands")


def _draw_confusions(figure, counts, names):
    """A matrix [K, K], each cell colored by its fraction of the row."""
    size = 2.5 + 0.32 * len(names)
    figure.set_size_inches(size, size)
    axis = figure.subplots()
    axis.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(names))
    axis.set_xticks(places, names, rotation=90)
    axis.set_yticks(places, names)
    axis.set_xlabel("most probable class")
    axis.set_ylabel("given label")
    for row, column in np.argwhere(counts):
        dark = counts[row, column] > counts[row].sum() / 2
        axis.text(column, row, counts[row, column], ha="center", va="center", color="white" if dark else "black")
