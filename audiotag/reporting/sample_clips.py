"""Cards of single clips for the page of `explore`: spectrogram and audio."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiotag.data.audio.decoding import decode_excerpt, decode_file, read_bytes
from audiotag.data.clips import TEST, read_clips
from audiotag.data.labels import split_labels
from audiotag.data.records.manifest import MANIFEST_FILE, Manifest, read_manifest
from audiotag.data.records.shard_writing import entries
from audiotag.reporting.page import column_chart, sound_url, spectrogram

MAX_SAMPLES = 100  # clips of classes: one of each, the most frequent first, and a second while there is room
NUM_EXTREMES = 3  # of the shortest, and of the longest
NUM_COLUMNS = 200  # of a chart
SOUND_SECONDS = 10.0  # of audio per clip
SPECTRUM_SECONDS = 60.0  # at most: a recording may have hours


def sample_cards(source: str | Path, clips: pd.DataFrame) -> list[dict[str, Any]]:
    """Clips to look at and listen to.

    They are one or two of each class, the shortest and the longest.

    Args:
        source: The directory of records, or the recordings that `clips` has the paths of.
        clips: The table of clips with its `seconds`, as `dataset_page.read_source` returns it.

    Returns:
        [{"title": what the clips are, "clips": [a card each]}]; a card has name, labels, seconds, image and axes of
        its spectrogram, the charts waveform and spectrum, sound, and after how many seconds it is cut. Without audio
        there are none.
    """
    if "seconds" not in clips:
        return []
    clips = clips[clips["seconds"] > 0]
    by_duration = clips.sort_values("seconds", kind="stable")
    shortest, longest = by_duration.index[:NUM_EXTREMES], by_duration.index[NUM_EXTREMES:][-NUM_EXTREMES:][::-1]
    chosen = {
        "Clips of each class": _of_each_class(clips),
        "The shortest clips": shortest,
        "The longest clips": longest,
    }
    shown = clips[clips.index.isin([row for rows in chosen.values() for row in rows])]
    waveforms = dict(zip(shown.index, _waveforms(Path(source), shown)))
    cards = {row: _card(clips.loc[row], *waveform) for row, waveform in waveforms.items()}
    return [{"title": title, "clips": [cards[row] for row in rows]} for title, rows in chosen.items() if len(rows)]


def _of_each_class(clips):
    """The rows of one or two clips per class, by class: with few labels, test clips last, and the first by name."""
    labels = clips.sort_values("name", kind="stable")["labels"].map(split_labels)
    is_test = (clips["subset"] == TEST).loc[labels.index]
    labels = labels.iloc[np.lexsort((is_test, labels.map(len)))].explode().dropna()
    frequent = labels.value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    rows: dict[str, list[Any]] = {label: [] for label in frequent}
    for _ in range(2):
        for label in frequent:
            taken = [row for several in rows.values() for row in several]
            if len(taken) < MAX_SAMPLES:
                rows[label] += [row for row in labels.index[labels == label] if row not in taken][:1]
    return [row for label in sorted(rows) for row in rows[label]]


def _waveforms(source, clips):
    """(float32 [N], sample rate) of each clip."""
    if (source / MANIFEST_FILE).is_file():
        manifest = read_manifest(source)
        waveforms = waveforms_of_records(manifest, clips["name"])
        return [(waveforms[name], manifest.sample_rate) for name in clips["name"]]
    return [
        decode_excerpt(*entry) if isinstance(entry, tuple) else decode_file(read_bytes(entry), path=Path(entry))
        for entry in entries(clips)
    ]


def waveforms_of_records(manifest: Manifest, names: Iterable[str]) -> dict[str, np.ndarray]:
    """{name: float32 [N]} of some clips of records."""
    # It imports TensorFlow, which recordings do not need.
    from audiotag.data.pipeline import evaluation_batches, explain_damage
    from audiotag.models.windowing import to_float

    clips = read_clips(manifest.directory / "clips.csv")
    clips = clips[clips["name"].isin(set(names))].reset_index(drop=True)
    waveforms = {}
    with explain_damage(manifest):
        for batch, rows in evaluation_batches(manifest, clips, window_samples=manifest.sample_rate, batch_size=8):
            for waveform, row in zip(to_float(batch).numpy(), rows.numpy()):
                waveforms[clips["name"][row]] = waveform[: clips["num_samples"][row]]
    return waveforms


def _card(clip, waveform, rate):
    seconds = len(waveform) / rate
    part = waveform[: round(SPECTRUM_SECONDS * rate)]
    amplitudes = 2 * np.abs(np.fft.rfft(part)) / len(part)  # of the sine of each frequency
    cut = waveform[: round(SOUND_SECONDS * rate)]
    return {
        "name": clip["name"],
        "labels": clip["labels"].replace(",", ", ") or "no class",
        "subset": clip["subset"],
        "seconds": f"{seconds:.2f}",
        **spectrogram(cut, rate),
        "waveform": column_chart(*_extremes(waveform), right=seconds, x="seconds", y="Samples"),
        "spectrum": column_chart(0, _extremes(amplitudes)[1], right=rate / 2000, x="kHz", y="Amplitude"),
        "sound": sound_url(cut, rate),
        "cut": f"{SOUND_SECONDS:g}" if len(cut) < len(waveform) else "",
    }


def _extremes(values):
    """The least and the greatest of the values in each column: [N] → two of [at most NUM_COLUMNS]."""
    starts = np.unique(np.linspace(0, len(values), NUM_COLUMNS, endpoint=False).astype(int))
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
