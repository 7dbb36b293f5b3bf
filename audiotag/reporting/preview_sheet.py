"""A sheet of pictures: clips as the network of an experiment sees them, step by step and disturbed."""

import re
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from audiotag import files
from audiotag.data.audio.decoding import read_waveform
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.layers import AUGMENTS, WAVEFORMS, ToPicture
from audiotag.layers.augmentation.flips import FLIPS
from audiotag.models.label_groups import by_share, kept_apart
from audiotag.runs.building import build_tagger
from audiotag.runs.models import begun_already

DISTURBANCES = (*AUGMENTS.values(), *WAVEFORMS.values())


def draw_sheet(experiment, paths, out, *, versions=3, sample_rate=None):
    """Draws each clip: its waveform, every step from front end to picture, and disturbed versions with their labels.

    A clip is shown by its loudest window. The clips of a sheet are a batch, so they
    are mixed with each other; steps that learn statistics learn them from these clips.

    Args:
        experiment: An `Experiment`.
        paths: Audio files. Labels are those of the clip of that name in the experiment's records;
            elsewhere a clip is labelled with its own name.
        out: The PNG file to write.
        versions: How many disturbed versions of each clip.
        sample_rate: In Hz; None is that of the records.

    Raises:
        DataError: A file cannot be read, or there are neither records nor a sample rate.
        ConfigError: A part of the experiment refuses its settings.
    """
    paths = [Path(path) for path in paths]
    vocabulary, labels, hearing = _labels(experiment, paths)
    hearing |= {"sample_rate": sample_rate} if sample_rate else {}
    if not hearing:
        raise DataError(f"{experiment.records}: no records there to tell the sample rate. Give one with --sample-rate.")
    tagger = build_tagger(begun_already(experiment), sample_rate=hearing["sample_rate"], num_classes=len(vocabulary))
    waveforms = [read_waveform(path, **hearing) for path in paths]
    windows = np.stack([_loudest_window(tagger, waveform) for waveform in waveforms])  # [B, n]
    tagger.adapt(lambda: [windows])
    truth = multi_hot(pd.Series(labels), vocabulary)  # [B, K]
    if tagger.apart:
        truth = kept_apart(truth, ["curated"] * len(paths))  # [B, 2 (K + 1)]
    columns = [("waveform", windows, labels), *_steps(tagger, windows, truth, labels)]
    for version in range(versions):
        picture, moved = tagger.ear((windows, truth), training=True)
        if tagger.apart:
            moved = by_share(moved)[0][:, 0]  # [B, K]
        columns.append((f"disturbed {version + 1}", np.asarray(picture), _in_words(np.asarray(moved), vocabulary)))
    figure = Figure(figsize=(2.4 * len(columns), 2.2 * len(paths)), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(paths), len(columns), squeeze=False)):
        for axis, (title, values, words) in zip(axes, columns):
            _draw(axis, values[row], hearing["sample_rate"])
            axis.set_title(f"{title}\n{words[row]}" if row == 0 else words[row], fontsize=8)
    with files.whole_file(out) as unfinished:
        figure.savefig(unfinished, dpi=110)


def _labels(experiment, paths):
    """(vocabulary, labels of each file, how files are read), from the experiment's records where they are."""
    if not (Path(experiment.records) / "manifest.json").is_file():
        stems = [path.stem.replace(",", " ") for path in paths]
        return tuple(sorted(set(stems))), stems, {}
    manifest = read_manifest(experiment.records)
    clips = read_clips(manifest.directory / "clips.csv")
    known = dict(zip(clips["name"], clips["labels"]))
    labels = [_known_labels(path, known) or path.stem.replace(",", " ") for path in paths]
    strangers = {path.stem.replace(",", " ") for path in paths} & set(labels) - set(manifest.vocabulary)
    return manifest.vocabulary + tuple(sorted(strangers)), labels, manifest.hearing


def _known_labels(path, known):
    """The labels of the clip whose name is the end of a path, the longest that is known; "" where none is."""
    ends = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
    return next((known[end] for end in ends if end in known), "")


def _loudest_window(tagger, waveform):
    windows = np.asarray(tagger.windows(waveform[None])[0])[0]  # [W, n]
    return windows[np.square(windows).sum(axis=1).argmax()]


def _steps(tagger, windows, truth, labels):
    """(title, values, labels) of every step that is no disturbance and no mere turning about."""
    for layer in tagger.ear.layers:
        if not isinstance(layer, (*DISTURBANCES, keras.layers.InputLayer, ToPicture)):
            values = keras.Model(tagger.ear.inputs, layer.output)((windows, truth), training=False)
            yield re.sub(r"_\d+$", "", layer.name), np.asarray(values), labels


def _in_words(labels, vocabulary):
    """Rows of labels [B, K] or [B, 4 K] as texts: "Bark", or "0.70 Bark", a new line, "+ 0.30 Rain (time)"."""
    flips = FLIPS if labels.shape[1] > len(vocabulary) else FLIPS[:1]
    names = [name if flip == "none" else f"{name} ({flip})" for flip in flips for name in vocabulary]
    words = []
    for row in labels:
        heard = sorted(((weight, name) for weight, name in zip(row, names) if weight > 0.005), reverse=True)
        words.append("\n+ ".join(name if weight > 0.995 else f"{weight:.2f} {name}" for weight, name in heard))
    return words


def _draw(axis, values, sample_rate):
    """A waveform [n] or [n, 1] as a line; a spectrogram [T, M] or a picture [M, T, C] with low bands below."""
    axis.tick_params(labelsize=6)
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        line = values.reshape(-1)
        axis.plot(np.arange(len(line)) / sample_rate, line, linewidth=0.4)
        axis.set_xlabel("s", fontsize=6)
        return
    values = values.T if values.ndim == 2 else values
    axis.set_xlabel(f"{values.shape[0]} x {values.shape[1]}, {values.min():.3g} to {values.max():.3g}", fontsize=6)
    coloured = values.ndim == 3 and values.shape[2] == 3 and np.ptp(values, axis=2).max() > 1e-6
    if coloured:
        values = (values - values.min()) / max(np.ptp(values), 1e-9)  # [M, T, 3]
    elif values.ndim == 3:
        values = values[:, :, 0]
    axis.imshow(values, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
