"""Source: AudioSet, its CSV segments over a folder of recordings.

A recording is called by the id of its video, with or without a Y before it and the start (and end) of the segment after
it. Clips of balanced_train_segments.csv are curated, those of unbalanced_train_segments.csv noisy, and those of
eval_segments.csv test. Segments without a recording are left out: many videos are gone.

Reference: https://research.google.com/audioset/download.html
"""

import os
import re
from pathlib import Path, PurePosixPath

import pandas as pd

from audiotag.data.audio.decoding import open_recording
from audiotag.data.clips import COLUMNS, read_table
from audiotag.data.sources.class_names import class_name
from audiotag.data.sources.files import Found, audio_suffixes, files_below, tables_with
from audiotag.errors import DataError

SEGMENT = re.compile(r'(?P<id>[\w-]{11})\s*,\s*(?P<start>[\d.]+)\s*,\s*(?P<end>[\d.]+)\s*,\s*"?(?P<labels>[^"]*)"?\s*')
NAMES = ("mid", "display_name")
ID = 11  # characters of the id of a video


def is_audioset(source: Path) -> bool:
    """Whether a CSV file begins as AudioSet's segments do."""
    return bool(_segment_files(source))


def _segment_files(source):
    found = []
    for name, entry in files_below(source, 1):
        if name.lower().endswith(".csv") and os.path.isfile(entry.path):
            with open(entry.path, encoding="utf-8", errors="replace") as file:
                head = [file.readline(1_000) for _ in range(4)]
            if any(re.match(r"#\s*YTID", line) for line in head):
                found.append(Path(entry.path))
    return sorted(found)


def read_audioset(source: Path) -> Found:
    """Reads every CSV of segments; class_labels_indices.csv names the classes.

    Raises:
        DataError: A line is no segment, the name of a file of segments does not say its subset, or none of the
            recordings is there.
    """
    names = {}
    for path in tables_with(source, *NAMES)[:1]:
        table = read_table(path, NAMES)
        names = {mid: class_name(name) for mid, name in zip(table["mid"], table["display_name"])}
    files: dict[str, list[tuple[str, str]]] = {}  # {id: (what follows it in the name of the file, the name)}
    for name, _ in files_below(source):
        if name.lower().endswith(audio_suffixes()):
            stem = PurePosixPath(name).stem
            for start in (0, 1) if stem[:1] == "Y" else (0,):
                if len(stem) >= start + ID and re.fullmatch(r"([_.-].*)?", rest := stem[start + ID :]):
                    files.setdefault(stem[start : start + ID], []).append((rest, name))
    clips, notes = [], []
    for path in _segment_files(source):
        rows = _segments(path)
        found = [clip for segment in rows if (clip := _clip(source, path, segment, files, names))]
        if len(found) < len(rows):
            notes.append(
                f"{path}: {len(rows) - len(found)} of {len(rows)} segments have no recording; they are left out."
            )
        clips += found
    if not clips:
        raise DataError(
            f"{source}: no recording is called by a video of the segments, as --PJHxphWEs.wav. Rename them."
        )
    table = pd.DataFrame(clips)
    return Found(table, None, dict.fromkeys(table["subset"], source), tuple(notes))


def _segments(path):
    """(line, id, start, end, labels) of each segment; start and end in seconds."""
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = SEGMENT.fullmatch(line.strip())
            if not match:
                raise DataError(f'{path} line {number}: {line!r}. Expected YTID, start, end, "labels" as in AudioSet.')
            rows.append((number, match["id"], float(match["start"]), float(match["end"]), match["labels"]))
    return rows


def _subset(path):
    name = path.name.lower()
    for word, subset in (("unbalanced", "noisy"), ("balanced", "curated"), ("eval", "test"), ("train", "curated")):
        if word in name:
            return subset
    raise DataError(f"{path}: expected a name with balanced_train, unbalanced_train or eval, which says its subset.")


def _clip(source, path, segment, files, names):
    """The row of a segment; None if its recording is not there."""
    number, video, start, end, mids = segment
    subset = _subset(path)
    labels = ",".join(names.get(mid.strip(), mid.strip()) for mid in mids.split(","))
    row = {"subset": subset, "labels": labels, "usage": "", "fold": 0, "group": video}
    row |= {"row": f"{path.name} line {number}"}
    whole = [name for rest, name in files.get(video, ()) if not rest]
    parts = [name for rest, name in files.get(video, ()) if _begins(rest) in (start, start * 1000)]
    found = parts or whole
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{path.name} line {number}: {' and '.join(found)} both fit the segment. Remove one of them.")
    (name,) = found
    cut = not parts and _seconds(source / name) > end - start + 0.5
    excerpt = {"start_seconds": start, "end_seconds": end} if cut else {"start_seconds": None, "end_seconds": None}
    clip_name = part_name(name, start, end) if cut else name
    return {column: row.get(column, clip_name) for column in COLUMNS} | row | {"file": name} | excerpt


def part_name(name: str, start: float, end: float) -> str:
    """The name of a clip that is a part of a file; start and end in seconds.

    Example:
        >>> part_name("night/a.wav", 1.5, 3)
        'night/a@1.500-3.000.wav'
    """
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}@{start:.3f}-{end:.3f}{path.suffix}"))


def _begins(rest):
    """The number after the id in the name of a file, or None."""
    match = re.match(r"[_.-]0*(\d+(\.\d+)?)", rest)
    return float(match[1]) if match else None


def _seconds(path):
    """The length of a recording by its header, in seconds; 0 if it is unknown or the file is refused later."""
    try:
        with open_recording(path) as (header, _):
            return (header.num_samples or 0) / header.sample_rate
    except DataError:
        return 0.0
