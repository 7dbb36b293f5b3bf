"""The page of `explore`: classes, labels, durations and faults of a dataset."""

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audiotag import __version__, progress
from audiotag.data.audio import worker_pool
from audiotag.data.audio.decoding import FULL_SCALE, decode_excerpt, decode_file, read_bytes, refuse_too_loud
from audiotag.data.clips import TEST, read_clips
from audiotag.data.labels import split_labels
from audiotag.data.records.manifest import MANIFEST_FILE, read_manifest
from audiotag.data.records.preparation import Entry
from audiotag.data.records.shard_writing import entries
from audiotag.data.sources import find_clips
from audiotag.data.sources.fsdkaggle2019 import label_table, read_vocabulary
from audiotag.errors import DataError
from audiotag.reporting.page import cells, chart_column, column_chart, count_bar, violin, write_page

SILENCE_DB = -60.0
MAX_PAIRS, MAX_OUTLIERS, MAX_FAULTS = 30, 10, 100
NUM_BINS = 100  # of the histograms of durations
TABLES = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}


def read_source(
    source: str | Path,
    *,
    num_workers: int | None = None,
    layout: str = "auto",
    vocabulary: str | Path | None = None,
    say: Callable[[str], Any] = lambda note: None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The clips and the vocabulary of a dataset, with the measures of its audio.

    Args:
        source: A directory of records, a source of make-records, or FSDKaggle2019.meta.
        num_workers: Processes that decode recordings; None is one per core.
        layout: As for `find_clips`, and so is `vocabulary`.
        say: Called with each sentence about what is not read.

    Returns:
        A table of clips, with `seconds`, `peak`, `rms`, `sha256` and `fault` if there is audio, and the class names.

    Raises:
        DataError: The source is none of these.
    """
    source = Path(source)
    if (source / MANIFEST_FILE).is_file():
        manifest = read_manifest(source)
        return read_clips(source / "clips.csv").assign(fault=""), manifest.vocabulary
    tables = {subset: source / f"{name}_post_competition.csv" for subset, name in TABLES.items()}
    folders = [source / name for name in TABLES.values()]
    if all(path.is_file() for path in tables.values()) and not any(folder.is_dir() for folder in folders):
        clips = pd.concat([label_table(path, subset) for subset, path in tables.items()], ignore_index=True)
        return clips, read_vocabulary(source / "vocabulary.csv")
    found = find_clips(source, layout=layout, vocabulary=vocabulary)
    for note in found.notes:
        say(note)
    results = worker_pool.in_order(measure_file, entries(found.clips), workers=num_workers or os.cpu_count() or 1)
    results = progress.bar(results, total=len(found.clips), unit="clip", label="explore")
    measures = [measured or {"fault": reason} for measured, reason in results]
    measures = pd.DataFrame(measures, columns=["seconds", "peak", "rms", "sha256", "fault"])
    measures = measures.astype({"seconds": float, "peak": float, "rms": float})
    return pd.concat([found.clips, measures], axis=1).fillna({"fault": ""}), found.vocabulary


def measure_file(entry: Entry) -> dict[str, Any]:
    """Measures a recording or a part of it, for `read_source`.

    Returns:
        seconds, peak and rms (1 is full scale), the sha256 of the samples and fault ""; of an unreadable file only its
        fault.
    """
    path = entry[0] if isinstance(entry, tuple) else entry
    try:
        if isinstance(entry, tuple):
            waveform, rate = decode_excerpt(*entry)
        else:
            waveform, rate = decode_file(read_bytes(entry), path=Path(entry))
        refuse_too_loud(waveform, path=path)
    except DataError as error:
        return {"fault": str(error).removeprefix(f"{path}: ")}
    return {
        "seconds": len(waveform) / rate,
        "peak": float(np.abs(waveform).max()),
        "rms": float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))),
        "sha256": hashlib.sha256(waveform.tobytes()).hexdigest(),
        "fault": "",
    }


def dataset_tables(clips: pd.DataFrame, vocabulary: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Statistics of a table of clips.

    Args:
        clips: A table of clips, as from `read_source`.
        vocabulary: The K class names.

    Returns:
        {name: table}, with the names subsets, labels_per_clip, classes, pairs, and if there is audio durations,
        histogram, outliers, faults and duplicates.
    """
    labels = clips["labels"].map(split_labels)
    subsets = sorted(set(clips["subset"]), key=lambda subset: (subset == TEST, subset))  # test clips last
    subset_labels = {subset: labels[clips["subset"] == subset] for subset in subsets}
    counts = {subset: Counter(itertools.chain.from_iterable(rows)) for subset, rows in subset_labels.items()}
    tables = {
        "subsets": pd.DataFrame(_subset_row(subset, subset_labels[subset], clips) for subset in subsets),
        "labels_per_clip": _labels_per_clip(subset_labels),
        "classes": _classes(counts, vocabulary),
        "pairs": _pairs(subset_labels, counts),
    }
    if "seconds" not in clips:
        return tables
    decoded = clips[clips["seconds"].notna()]
    durations = decoded.groupby("subset")["seconds"].describe()[["count", "min", "25%", "50%", "75%", "max"]]
    durations = durations.rename(columns={"25%": "quarter", "50%": "median", "75%": "three_quarters"}).reset_index()
    by_duration = decoded.sort_values("seconds", kind="stable")[["name", "subset", "labels", "seconds"]]
    outliers = pd.concat([by_duration.head(MAX_OUTLIERS), by_duration.tail(MAX_OUTLIERS)]).drop_duplicates()
    return tables | {
        "durations": durations.astype({"count": int}),
        "histogram": _histogram(decoded, subsets),
        "outliers": outliers,
        "faults": _faults(clips),
        "duplicates": _duplicates(decoded),
    }


def _subset_row(subset, labels, clips):
    """One row about a subset: what `audiotag explore` prints."""
    single = labels[labels.map(len) == 1]
    row = {
        "subset": subset,
        "clips": len(labels),
        "classes": len(set(itertools.chain.from_iterable(labels))),
        "single_label_clips": len(single),
        "label_combinations": labels.map(frozenset).nunique(),
        "classes_that_occur_alone": single.nunique(),
    }
    if "seconds" in clips:
        row["hours"] = round(float(clips.loc[labels.index, "seconds"].sum() / 3600), 2)
    return row


def _labels_per_clip(subset_labels):
    table = pd.DataFrame({subset: labels.map(len).value_counts() for subset, labels in subset_labels.items()})
    return table.fillna(0).astype(int).sort_index().rename_axis("labels").reset_index()


def _classes(counts, vocabulary):
    """A row per class: its clips in each subset, and its fraction of the labels."""
    table = {"class": list(vocabulary)}
    for subset, count in counts.items():
        table[subset] = [count[label] for label in vocabulary]
    for subset, count in counts.items():
        table[f"{subset}_fraction"] = [count[label] / max(1, count.total()) for label in vocabulary]
    return pd.DataFrame(table)


def _pairs(subset_labels, counts):
    """Pairs of labels in the first subset, the most frequent first; the fractions are of all clips with that label."""
    subset = next(iter(subset_labels))
    pairs = Counter(pair for labels in subset_labels[subset] for pair in itertools.combinations(sorted(labels), 2))
    rows = [
        {"one": one, "other": other, "clips": count, "fraction_of_one": count / counts[subset][one]}
        | {"fraction_of_other": count / counts[subset][other]}
        for (one, other), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    ]
    return pd.DataFrame(rows, columns=["one", "other", "clips", "fraction_of_one", "fraction_of_other"])


def _histogram(clips, subsets):
    """The clips of each subset in bins of equal width, from 0 to the longest clip; a row per bin."""
    longest = clips["seconds"].max() if len(clips) else 0.0
    edges = np.linspace(0, max(longest, 1e-3), NUM_BINS + 1)
    counts = {subset: np.histogram(clips["seconds"][clips["subset"] == subset], edges)[0] for subset in subsets}
    return pd.DataFrame({"from_seconds": edges[:-1], "to_seconds": edges[1:], **counts})


def _faults(clips):
    peak, rms = clips["peak"], clips["rms"]
    kinds = [
        ("cannot be read", clips["fault"] != ""),
        ("silent", peak == 0),
        (f"below {SILENCE_DB:g} dBFS", (peak > 0) & (rms < 10 ** (SILENCE_DB / 20))),
        ("at full scale: maybe clipped", peak >= (FULL_SCALE - 1) / FULL_SCALE),
    ]
    tables = [clips.loc[rows, ["name", "subset", "labels", "fault"]].assign(kind=kind) for kind, rows in kinds]
    return pd.concat(tables)[["kind", "name", "subset", "labels", "fault"]]


def _duplicates(clips):
    duplicated = clips[clips["sha256"].duplicated(keep=False)]
    rows = [
        {"clips": len(group), "names": ", ".join(group["name"]), "labels": " | ".join(group["labels"])}
        | {"same_labels": "yes" if group["labels"].nunique() == 1 else "no"}
        for _, group in duplicated.groupby("sha256", sort=False)
    ]
    return pd.DataFrame(rows, columns=["clips", "names", "labels", "same_labels"])


def summary(tables: Mapping[str, pd.DataFrame]) -> str:
    """The table of subsets as text, a column per subset, for a terminal."""
    return tables["subsets"].astype(str).set_index("subset").T.to_string().replace("_", " ")


def write_dataset_page(
    path: str | Path,
    source: str | Path,
    clips: pd.DataFrame,
    vocabulary: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    *,
    samples: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Writes the page of a dataset.

    Args:
        path: The HTML file to write.
        source: Where the clips are from, for the title.
        clips: The table of clips.
        vocabulary: The K class names.
        tables: What `dataset_tables` returns for them.
        samples: What `sample_clips.sample_cards` returns: clips to listen to.
    """
    subsets = list(tables["subsets"]["subset"])
    classes = tables["classes"].copy()
    largest = classes[subsets].sum(axis=1).max()
    bars = [count_bar(row, largest) for row in classes[subsets].itertuples(index=False, name=None)]
    classes.insert(1, "counts", chart_column(bars))
    measured = "seconds" in clips
    if measured:
        longest = np.nan_to_num(clips["seconds"].quantile(0.99)) or 1.0
        seconds: dict[str, list[float]] = {label: [] for label in vocabulary}
        for labels, duration in zip(clips["labels"], clips["seconds"]):
            for label in split_labels(labels) if not np.isnan(duration) else ():
                seconds[label].append(min(duration, longest))
        classes[f"0_to_{longest:.0f}_s"] = chart_column(violin(seconds[label], longest) for label in vocabulary)
    first = tables["subsets"].iloc[0]
    cards = [
        {"name": f"{row.subset} clips", "value": f"{row.clips:,}", "more": f"{row.classes} classes"}
        for row in tables["subsets"].itertuples()
    ]
    cards += [
        {"name": f"{name} in {first['subset']}", "value": f"{first[key]:,}", "more": more}
        for key, name, more in (
            ("label_combinations", "label combinations", "different sets of labels"),
            ("single_label_clips", "single-label clips", "with exactly one label"),
            ("classes_that_occur_alone", "classes that occur alone", f"of {len(vocabulary)}"),
        )
    ]
    shown = dict(tables) | {"pairs": tables["pairs"].head(MAX_PAIRS), "classes": classes}
    if measured:
        shown |= {name: tables[name].head(MAX_FAULTS) for name in ("faults", "duplicates")}
    write_page(
        path,
        "dataset.html",
        title=f"Dataset {Path(source).resolve().name}",
        source=str(source),
        version=__version__,
        cards=cards,
        bars=subsets,
        measured=measured,
        histograms=_histogram_charts(tables["histogram"]) if measured else [],
        num_bins=NUM_BINS,
        samples=samples,
        **{name: cells(table) for name, table in shown.items() if name != "histogram"},
    )


def _histogram_charts(histogram):
    """(subset, chart) of each subset with decoded clips, all over the same axis."""
    edges = ["from_seconds", "to_seconds"]
    counts = histogram.drop(columns=edges)
    right = histogram["to_seconds"].iloc[-1]
    return [
        (subset, column_chart(0, counts[subset], right=right, x="seconds", y=f"Number of {subset} clips"))
        for subset in counts
        if counts[subset].any()
    ]
