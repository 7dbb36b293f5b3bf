"""Source: recordings with selection tables of Raven, or label tracks of Audacity.

Each marked stretch is a clip, from its start to its end. It has the labels of all marks with which it shares at least
half of the shorter of the two. Clips of one recording are a group.

References: Raven Pro, https://www.ravensoundsoftware.com/knowledge-base/; Audacity,
https://manual.audacityteam.org/man/importing_and_exporting_labels.html.
"""

import math
import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from audiotag.data.clips import read_table
from audiotag.data.sources.audioset import part_name
from audiotag.data.sources.class_names import split_subset
from audiotag.data.sources.files import Found, audio_suffixes, files_below, header_of
from audiotag.errors import DataError

BEGIN, END, OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
FILES = ("Begin File", "Begin Path")
LABELS = ("annotation", "label", "class", "species", "common name", "species code", "call type", "tags")
KNOWN = ("Selection", "View", "Channel", "Low Freq (Hz)", "High Freq (Hz)", "Delta Time (s)", "Confidence", "Score")
TRACK = re.compile(r"\s*(?P<start>\d+([.,]\d+)?)\t\s*(?P<end>\d+([.,]\d+)?)(\t(?P<label>.*))?")
SUFFIXES = (".txt", ".tsv", ".csv")


def is_selections(source: Path) -> bool:
    """Whether there is a selection table, or a label track named as a recording."""
    return bool(_tables(source)[0])


def _tables(source):
    """({name: path} of the tables, their kinds, names of the recordings)."""
    entries = list(files_below(source))
    recordings = sorted(name for name, _ in entries if name.lower().endswith(audio_suffixes()))
    tables = {}
    for name, entry in sorted(entries, key=lambda item: item[0]):
        kind = _kind(Path(entry.path)) if name.lower().endswith(SUFFIXES) and os.path.isfile(entry.path) else None
        if kind == "raven" or kind == "audacity" and _recording(name, recordings):
            tables[name] = (Path(entry.path), kind)
    return tables, recordings


def _kind(path):
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(10_000)
    if BEGIN in first and END in first:
        return "raven"
    return "audacity" if path.suffix.lower() == ".txt" and TRACK.fullmatch(first.rstrip("\r\n")) else None


def read_selections(source: Path) -> Found:
    """Reads every table; folders train, validation and test are the subsets.

    Raises:
        DataError: A mark has no label or no length, or no recording fits a table.
    """
    tables, recordings = _tables(source)
    marks: dict[str, list[tuple[float, float, str, str]]] = {}  # {recording: start, end, label, row}
    notes = []
    for name, (path, kind) in tables.items():
        rows, unused = _raven(path, name, recordings) if kind == "raven" else (_audacity(path, name, recordings), [])
        notes += [f"{path}: columns that are not used: {', '.join(unused)}."] if unused else []
        for file, *mark in rows:
            start, end, label, row = mark
            if not label:
                raise DataError(
                    f"{row}: the mark from {start:g} to {end:g} s has no label. Add it, or remove the mark."
                )
            if not 0 <= start < end < math.inf:
                raise DataError(f"{row}: the mark from {start:g} to {end:g} s has no length. Mark the whole sound.")
            marks.setdefault(file, []).append((start, end, label, row))
    clips = [clip for file, found in marks.items() for clip in _clips(file, found)]
    first = {clip["file"].split("/")[0] for clip in clips}
    if all("/" in clip["file"] for clip in clips) and all(split_subset(folder, first) for folder in first):
        for clip in clips:
            clip["subset"] = split_subset(clip["file"].split("/")[0], first)
    without = sorted(set(recordings) - set(marks))
    if without:
        notes.append(f"{len(without)} recordings have no marks, and are left out: {', '.join(without[:3])}.")
    table = pd.DataFrame(clips)
    return Found(table, None, dict.fromkeys(table["subset"], source), tuple(notes))


def _clips(file, marks):
    """The rows of the marks of one recording; several marks of one stretch are one clip."""
    clips: dict[str, dict] = {}
    for start, end, _, row in marks:
        labels = []
        for other_start, other_end, label, _ in marks:
            shared = min(end, other_end) - max(start, other_start)
            if shared >= min(end - start, other_end - other_start) / 2 and label not in labels:
                labels.append(label)
        name = part_name(file, start, end)
        text = ",".join(sorted({part.strip() for label in labels for part in label.split(",")}))
        row_of = {"name": name, "subset": "curated", "labels": text, "usage": "", "fold": 0, "group": file, "row": row}
        clips.setdefault(name, row_of | {"file": file, "start_seconds": start, "end_seconds": end})
    return list(clips.values())


def _recording(table, recordings):
    """The recording that a table belongs to by its name: of those whose name its own begins with, the longest."""
    fits = [name for name in recordings if _fits(PurePosixPath(table), PurePosixPath(name))]
    beside = [name for name in fits if PurePosixPath(name).parent == PurePosixPath(table).parent] or fits
    longest = [
        name for name in beside if len(PurePosixPath(name).stem) == max(len(PurePosixPath(n).stem) for n in beside)
    ]
    return longest[0] if len(longest) == 1 else None


def _fits(table, recording):
    stem, name = recording.stem.lower(), table.name.lower()
    return name.startswith((stem + ".", stem + "_", stem + "-", recording.name.lower() + "."))


def _raven(path, name, recordings):
    """((recording, start, end, label, row) of each selection, the columns that are not used)."""
    table = read_table(path, [BEGIN, END])
    header = header_of(path)
    label = next((column for word in LABELS for column in header if column.lower() == word), None)
    if label is None:
        raise DataError(
            f"{path}: no column of labels; its columns are {', '.join(header)}. Add the annotation column Annotation."
        )
    file_column = next((column for column in FILES if column in header), None)
    rows = []
    for row, selection in table.iterrows():
        start, end = (_seconds(selection[column], column, row) for column in (BEGIN, END))
        if file_column:
            base = re.split(r"[/\\]", selection[file_column])[-1]
            found = [each for each in recordings if PurePosixPath(each).name.lower() == base.lower()]
            if len(found) != 1:
                raise DataError(f"{row}: {len(found)} recordings are called {base!r} below the folder. Expected one.")
            if OFFSET in header:
                offset = _seconds(selection[OFFSET], OFFSET, row)
                start, end = offset, offset + end - start
            rows.append((found[0], start, end, selection[label].strip(), row))
        else:
            recording = _recording(name, recordings)
            if recording is None:
                raise DataError(f"{path}: no recording, or no single one, is called like it. Name both alike.")
            rows.append((recording, start, end, selection[label].strip(), row))
    unused = [column for column in header if column not in (BEGIN, END, label, *FILES, OFFSET, *KNOWN)]
    return rows, unused


def _audacity(path, name, recordings):
    """(recording, start, end, label, row) of each label; lines with a backslash are its frequencies."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.startswith("\\"):
            continue
        match = TRACK.fullmatch(line)
        row = f"{path.name} line {number}"
        if not match:
            raise DataError(
                f"{row}: {line!r}. Expected start, end and label, separated by tabs, as Audacity writes them."
            )
        start, end = (float(match[key].replace(",", ".")) for key in ("start", "end"))
        rows.append((_recording(name, recordings), start, end, (match["label"] or "").strip(), row))
    return rows


def _seconds(text, column, row):
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise DataError(f"{row}: {column} is {text!r}. Expected seconds.") from None
