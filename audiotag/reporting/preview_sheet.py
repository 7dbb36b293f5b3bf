"""The image of `preview`: clips after each preprocessing step, and augmented."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from audiotag import files
from audiotag.config.custom import create
from audiotag.config.schema import Experiment
from audiotag.data.audio.decoding import read_waveform
from audiotag.data.clips import read_clips
from audiotag.data.labels import multi_hot
from audiotag.data.records.manifest import MANIFEST_FILE, read_manifest
from audiotag.errors import DataError
from audiotag.layers import FRONTENDS, IMAGE_PREPROCESSING, RandomAugmentation, ToImage
from audiotag.layers.augmentation.flips import FLIPS
from audiotag.models.label_groups import group_labels, split_weighted_groups
from audiotag.runs.building import build_tagger
from audiotag.runs.models import without_initial_weights

NAMES = {layer: name for name, layer in (FRONTENDS | IMAGE_PREPROCESSING).items()}


def draw_preview(
    experiment: Experiment,
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    versions: int = 3,
    sample_rate: int | None = None,
) -> None:
    """Draws clips after each preprocessing step of an experiment, and augmented.

    A row shows a clip's waveform, the output of every step up to the image, and augmented images. If the records are
    trimmed, it begins with the front end's output for the complete clip before and after trimming. From then on a
    clip is represented by its loudest window. The clips are one batch, so they are mixed with each
    other, and layers that adapt to a dataset adapt to these clips.

    Args:
        experiment: An `Experiment`.
        paths: Audio files. The labels are those of the clip of that name in the experiment's records;
            any other clip is labeled with its own name.
        out: The PNG file to write.
        versions: Augmented images per clip, each with its labels.
        sample_rate: In Hz; None is that of the records.

    Raises:
        DataError: A file cannot be read, or there are neither records nor a sample rate.
        ConfigError: A component of the experiment refuses its options.
    """
    paths = [Path(path) for path in paths]
    vocabulary, labels, audio_config = _labels(experiment, paths)
    audio_config |= {"sample_rate": sample_rate} if sample_rate else {}
    if not audio_config:
        raise DataError(f"{experiment.records}: no records, so the sample rate is unknown. Give it with --sample-rate.")
    tagger = build_tagger(
        without_initial_weights(experiment), sample_rate=audio_config["sample_rate"], num_classes=len(vocabulary)
    )
    waveforms = [read_waveform(path, **audio_config) for path in paths]
    trimming = list(_trimming(experiment, paths, waveforms, labels, audio_config))
    windows = np.stack([_loudest_window(tagger, waveform) for waveform in waveforms])  # [B, N]
    tagger.adapt(lambda: [windows])
    truth = multi_hot(pd.Series(labels), vocabulary)  # [B, K]
    if tagger.separate_subsets:
        truth = group_labels(truth, [True] * len(paths))  # [B, 2 (K + 1)]
    columns = [*trimming, ("waveform", windows, labels), *_steps(tagger, windows, truth, labels)]
    for version in range(versions):
        image, augmented = tagger.preprocessor((windows, truth), training=True)
        if tagger.separate_subsets:
            augmented = split_weighted_groups(augmented)[0][:, 0]  # [B, K]
        columns.append((f"augmented {version + 1}", np.asarray(image), _as_text(np.asarray(augmented), vocabulary)))
    figure = Figure(figsize=(2.4 * len(columns), 2.2 * len(paths)), layout="constrained")
    for row, axes in enumerate(figure.subplots(len(paths), len(columns), squeeze=False)):
        for axis, (title, values, texts) in zip(axes, columns):
            _draw(axis, values[row], audio_config["sample_rate"])
            axis.set_title(f"{title}\n{texts[row]}" if row == 0 else texts[row], fontsize=8)
    with files.atomic_file(out) as unfinished:
        figure.savefig(unfinished, dpi=110)


def _labels(experiment, paths):
    """(vocabulary, labels of each file, audio options), from records if they exist."""
    stems = [path.stem.replace(",", " ") for path in paths]
    if not (Path(experiment.records) / MANIFEST_FILE).is_file():
        return tuple(sorted(set(stems))), stems, {}
    manifest = read_manifest(experiment.records)
    clips = read_clips(manifest.directory / "clips.csv")
    labels_by_name = dict(zip(clips["name"], clips["labels"]))
    labels = [_labels_of(path, labels_by_name) or stem for path, stem in zip(paths, stems)]
    added = set(stems) & set(labels) - set(manifest.vocabulary)
    return manifest.vocabulary + tuple(sorted(added)), labels, manifest.audio_config


def _labels_of(path, labels_by_name):
    """The labels of the clip whose name is the longest suffix of a path, or ""."""
    suffixes = ("/".join(path.parts[start:]) for start in range(len(path.parts)))
    return next((labels_by_name[suffix] for suffix in suffixes if suffix in labels_by_name), "")


def _trimming(experiment, paths, waveforms, labels, audio_config):
    """(title, front end's output for each complete clip, labels) before and after trimming, if clips are trimmed."""
    if audio_config.get("trim") is None:
        return
    untrimmed = [read_waveform(path, **audio_config | {"trim": None}) for path in paths]
    front_end = create(experiment.frontend, FRONTENDS, sample_rate=audio_config["sample_rate"])
    for title, clips in (("before trimming", untrimmed), ("after trimming", waveforms)):
        yield title, [np.asarray(front_end(waveform[None]))[0] for waveform in clips], labels


def _loudest_window(tagger, waveform):
    windows = np.asarray(tagger.windows(waveform[None])[0])[0]  # [W, N]
    return windows[np.square(windows).sum(axis=1).argmax()]


def _steps(tagger, windows, truth, labels):
    """(title, values, labels) of every layer except augmentation and transposes."""
    for layer in tagger.preprocessor.layers:
        if not isinstance(layer, (RandomAugmentation, keras.layers.InputLayer, ToImage)):
            values = keras.Model(tagger.preprocessor.inputs, layer.output)((windows, truth), training=False)
            yield NAMES.get(type(layer), type(layer).__name__), np.asarray(values), labels


def _as_text(labels, vocabulary):
    """Rows of labels [B, K] or [B, 4 K] as texts: "Bark", "0.70 Bark\\n+ 0.30 Rain"."""
    flips = FLIPS if labels.shape[1] > len(vocabulary) else FLIPS[:1]
    names = [name if flip == "none" else f"{name} ({flip})" for flip in flips for name in vocabulary]
    texts = []
    for row in labels:
        present = sorted(((weight, name) for weight, name in zip(row, names) if weight > 0.005), reverse=True)
        texts.append("\n+ ".join(name if weight > 0.995 else f"{weight:.2f} {name}" for weight, name in present))
    return texts


def _draw(axis, values, sample_rate):
    """Draws a waveform [N] or [N, 1], a spectrogram [T, M] or an image [M, T, C]."""
    axis.tick_params(labelsize=6)
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        line = values.reshape(-1)
        axis.plot(np.arange(len(line)) / sample_rate, line, linewidth=0.4)
        axis.set_xlabel("s", fontsize=6)
        return
    values = values.T if values.ndim == 2 else values
    axis.set_xlabel(f"{values.shape[0]} x {values.shape[1]}, {values.min():.3g} to {values.max():.3g}", fontsize=6)
    colored = values.ndim == 3 and values.shape[2] == 3 and np.ptp(values, axis=2).max() > 1e-6
    if colored:
        values = (values - values.min()) / max(np.ptp(values), 1e-9)  # [M, T, 3]
    elif values.ndim == 3:
        values = values[:, :, 0]
    axis.imshow(values, origin="lower", aspect="auto", cmap="magma", interpolation="nearest")
