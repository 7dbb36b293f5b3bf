"""What is in a dataset? Counts, labels together, lengths, faults and doubles, as tables and as one page."""

import hashlib
import itertools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag import __version__, progress
from audiotag.data.audio import worker_pool
from audiotag.data.audio.decoding import FULL_SCALE, decode_file, read_bytes
from audiotag.data.clips import read_clips
from audiotag.data.labels import split_labels
from audiotag.data.records.manifest import NAME, read_manifest
from audiotag.data.sources.fsdkaggle2019 import label_table, read_vocabulary
from audiotag.data.sources.layouts import find_clips
from audiotag.errors import DataError
from audiotag.reporting.page import cells, count_bar, drawn, violin, write_page

SILENCE_DB = -60.0
MOST_PAIRS, MOST_OUTLIERS, MOST_FAULTS = 30, 10, 100
TABLES = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}


def read_source(source, *, num_workers=None):
    """(clips, vocabulary) of records, of recordings, or of FSDKaggle2019's tables without their sound.

    Args:
        source: A directory of records, any folder that make-records reads, or FSDKaggle2019.meta.
        num_workers: Processes that decode recordings; None is one a core.

    Returns:
        A table of clips, with `seconds`, `peak`, `rms`, `sha256` and `fault` where there is sound, and the classes.

    Raises:
        DataError: The source is none of them.
    """
    source = Path(source)
    if (source / NAME).is_file():
        manifest = read_manifest(source)
        return read_clips(source / "clips.csv").assign(fault=""), manifest.vocabulary
    tables = {subset: source / f"{part}_post_competition.csv" for subset, part in TABLES.items()}
    folders = [source / part for part in TABLES.values()]
    if all(path.is_file() for path in tables.values()) and not any(folder.is_dir() for folder in folders):
        clips = pd.concat([label_table(path, subset) for subset, path in tables.items()], ignore_index=True)
        return clips, read_vocabulary(source / "vocabulary.csv")
    found = find_clips(source)
    heard = worker_pool.in_order(measure, found.clips["path"], workers=num_workers or os.cpu_count())
    heard = progress.bar(heard, total=len(found.clips), unit="clip", label="listen")
    measures = [known or {"fault": reason} for known, reason in heard]
    measures = pd.DataFrame(measures, columns=["seconds", "peak", "rms", "sha256", "fault"])
    measures = measures.astype({"seconds": float, "peak": float, "rms": float})
    return pd.concat([found.clips, measures], axis=1).fillna({"fault": ""}), found.vocabulary


def measure(path):
    """What is heard in a recording: seconds, peak, rms, sha256 of its samples; or the fault that forbids it."""
    try:
        waveform, rate = decode_file(read_bytes(path), path=Path(path))
    except DataError as error:
        return {"fault": str(error).removeprefix(f"{path}: ")}
    return {
        "seconds": len(waveform) / rate,
        "peak": float(np.abs(waveform).max()),
        "rms": float(np.sqrt(np.mean(np.square(waveform, dtype="float64")))),
        "sha256": hashlib.sha256(waveform.tobytes()).hexdigest(),
        "fault": "",
    }


def explore(clips, vocabulary):
    """{name: table} of what is in a table of clips.

    Its tables are subsets, labels_per_clip, classes, pairs, and where there is sound lengths, outliers, faults
    and doubles.

    Args:
        clips: A table of clips, maybe with what `read_source` measures.
        vocabulary: The K class names.
    """
    labels = clips["labels"].map(split_labels)
    subsets = [subset for subset in TABLES if (clips["subset"] == subset).any()]
    of = {subset: labels[clips["subset"] == subset] for subset in subsets}
    counts = {subset: Counter(itertools.chain.from_iterable(rows)) for subset, rows in of.items()}
    tables = {
        "subsets": pd.DataFrame(_summary(subset, of[subset], clips) for subset in subsets),
        "labels_per_clip": _labels_per_clip(of),
        "classes": _classes(counts, vocabulary),
        "pairs": _pairs(of, counts),
    }
    if "seconds" not in clips:
        return tables
    heard = clips[clips["seconds"].notna()]
    lengths = heard.groupby("subset")["seconds"].describe()[["count", "min", "25%", "50%", "75%", "max"]]
    lengths = lengths.rename(columns={"25%": "quarter", "50%": "median", "75%": "three_quarters"}).reset_index()
    by_length = heard.sort_values("seconds", kind="stable")[["name", "subset", "labels", "seconds"]]
    outliers = pd.concat([by_length.head(MOST_OUTLIERS), by_length.tail(MOST_OUTLIERS)]).drop_duplicates()
    return tables | {
        "lengths": lengths.astype({"count": int}),
        "outliers": outliers,
        "faults": _faults(clips),
        "doubles": _doubles(heard),
    }


def _summary(subset, labels, clips):
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


def _labels_per_clip(of):
    table = pd.DataFrame({subset: labels.map(len).value_counts() for subset, labels in of.items()})
    return table.fillna(0).astype(int).sort_index().rename_axis("labels").reset_index()


def _classes(counts, vocabulary):
    """A row a class: clips in each subset, and its share of the labels there."""
    table = {"class": list(vocabulary)}
    for subset, count in counts.items():
        table[subset] = [count[label] for label in vocabulary]
    for subset, count in counts.items():
        table[f"{subset}_share"] = [count[label] / max(1, count.total()) for label in vocabulary]
    return pd.DataFrame(table)


def _pairs(of, counts):
    """The pairs of labels that stand together most often in curated clips, or in whatever the first subset is."""
    subset = next(iter(of))
    together = Counter(pair for labels in of[subset] for pair in itertools.combinations(sorted(labels), 2))
    rows = [
        {"one": one, "other": other, "clips": count, "of_one": count / counts[subset][one]}
        | {"of_other": count / counts[subset][other]}
        for (one, other), count in sorted(together.items(), key=lambda item: (-item[1], item[0]))
    ]
    return pd.DataFrame(rows, columns=["one", "other", "clips", "of_one", "of_other"])


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


def _doubles(clips):
    same = clips[clips["sha256"].duplicated(keep=False)]
    groups = same.groupby("sha256", sort=False)
    rows = [
        {"clips": len(group), "names": ", ".join(group["name"]), "labels": " | ".join(group["labels"])}
        | {"same_labels": "yes" if group["labels"].nunique() == 1 else "no"}
        for _, group in groups
    ]
    return pd.DataFrame(rows, columns=["clips", "names", "labels", "same_labels"])


def in_words(tables):
    """What `explore` found, for a terminal."""
    return tables["subsets"].astype(str).set_index("subset").T.to_string().replace("_", " ")


def write_exploration(path, source, clips, vocabulary, tables):
    """Writes the page.

    Args:
        path: The HTML file.
        source: What was explored, for its title.
        clips: The table of clips.
        vocabulary: The K class names.
        tables: What `explore` answers.
    """
    subsets = list(tables["subsets"]["subset"])
    classes = tables["classes"].copy()
    most = classes[subsets].sum(axis=1).max()
    bars = [count_bar(row, most) for row in classes[subsets].itertuples(index=False, name=None)]
    classes.insert(1, "counts", drawn(bars))
    measured = "seconds" in clips
    if measured:
        longest = np.nan_to_num(clips["seconds"].quantile(0.99)) or 1.0
        seconds = {label: [] for label in vocabulary}
        for labels, length in zip(clips["labels"], clips["seconds"]):
            for label in split_labels(labels) if length == length else ():
                seconds[label].append(min(length, longest))
        classes[f"0_to_{longest:.0f}_s"] = drawn(violin(seconds[label], longest) for label in vocabulary)
    first = tables["subsets"].iloc[0]
    cards = [
        {"name": f"{row.subset} clips", "value": f"{row.clips:,}", "more": f"{row.classes} classes"}
        for row in tables["subsets"].itertuples()
    ]
    cards += [
        {"name": f"{name} in {first['subset']}", "value": f"{first[key]:,}", "more": more}
        for key, name, more in (
            ("label_combinations", "label combinations", "sets of labels that some clip has"),
            ("single_label_clips", "single-label clips", "with exactly one label"),
            ("classes_that_occur_alone", "classes that occur alone", f"of {len(vocabulary)}"),
        )
    ]
    short = tables | {"pairs": tables["pairs"].head(MOST_PAIRS), "classes": classes}
    if measured:
        short["faults"], short["doubles"] = tables["faults"].head(MOST_FAULTS), tables["doubles"].head(MOST_FAULTS)
    write_page(
        path,
        "explore.html",
        title=f"What is in {Path(source).resolve().name}",
        source=str(source),
        version=__version__,
        cards=cards,
        bars=subsets,
        measured=measured,
        **{name: cells(table) for name, table in short.items()},
    )
