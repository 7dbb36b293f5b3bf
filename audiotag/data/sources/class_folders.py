"""Source: one folder of audio per class."""

import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from audiotag.data.clips import COLUMNS
from audiotag.data.sources.class_names import FOLD, split_subset
from audiotag.data.sources.files import (
    AUDIO_SUFFIXES,
    Found,
    audio_names,
    audio_suffixes,
    files_below,
    header_of,
    other_files,
)
from audiotag.errors import DataError

MOST_LINES = 1_000  # of a table that is looked through for the names of recordings
LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "category", "species", "annotation", "tag", "tags", "target"),
    *("sound", "scene", "event", "primary_label", "scene_label", "classid", "class_id"),
)
UNREAD = (".xlsx", ".xls", ".ods", ".parquet", ".arff", ".pkl", ".mat")


def is_class_folders(source: Path) -> bool:
    """Whether there is audio in folders."""
    return any("/" in name and name.lower().endswith(audio_suffixes()) for name, _ in files_below(source, 2))


def read_class_folders(source: Path) -> Found:
    """Reads <label>/<file>, or <subset>/<label>/<file>, or <fold>/<label>/<file>.

    The labels are the vocabulary. The folders of subsets are curated or train, noisy, test, and valid or validation;
    those of folds are fold1, fold2, and so on. Files of other types are left out.

    Raises:
        DataError: A recording is in no class folder, or a class folder has files but no recordings.
    """
    names = audio_names(source)
    refuse_empty_folders(source, names)
    first = {name.split("/")[0] for name in names}
    subsets = {folder: "noisy" if folder.lower() == "noisy" else split_subset(folder, first) for folder in first}
    folds = {folder: FOLD.fullmatch(folder) for folder in first}
    has_folds, has_subsets = all(folds.values()), all(subsets.values())
    if all(name.count("/") == 1 for name in names):  # train/a.wav, which the check of class names refuses
        has_folds = has_subsets = False
    records = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != (2 if has_subsets or has_folds else 1):
            expected = "<subset>/<label>/<file>" if has_subsets else "<label>/<file>"
            expected = "<fold>/<label>/<file>" if has_folds else expected
            raise DataError(f"{source / name}: expected {expected}, as every folder is a label. Move it, or remove it.")
        fold = folds[folders[0]] if has_folds else None
        subset = (has_subsets and subsets[folders[0]]) or "curated"
        records.append(single_label(name, subset, folders[-1], int(fold["number"]) if fold else 0))
    clips = pd.DataFrame(records)
    return Found(clips, None, dict.fromkeys(clips["subset"], source))


def refuse_empty_folders(source: Path, names: Iterable[str]) -> None:
    """Refuses a folder with files but without recordings, whose class would vanish.

    Raises:
        DataError: Names the folder and one of its files.
    """
    with_audio = {name.rpartition("/")[0] for name in names}
    for name in other_files(source):
        if (folder := name.rpartition("/")[0]) and folder not in with_audio:
            raise DataError(
                f"{source / folder}: no recordings that audiotag reads, only files such as {name!r}. Expected files "
                f"that end in {', '.join(AUDIO_SUFFIXES[:6])} and others. Convert them, or remove the folder."
            )


def single_label(name: str, subset: str, label: str, fold: int = 0, group: str = "") -> dict[str, str | int]:
    """The row of a clip whose folder is its label."""
    if "," in label:
        raise DataError(
            f"{name}: the folder {label!r} has a comma, which separates labels. Rename it, for example with '_and_'."
        )
    return dict(zip([*COLUMNS, "row"], (name, subset, label.strip(), "", fold, group, name)))


def refuse_unread_tables(source: Path, names: Iterable[str]) -> None:
    """Refuses class folders beside a table that lists the recordings.

    It may have other labels. Looked through are the tables in the source and directly in the folder above it.

    Args:
        source: The folder of class folders.
        names: The recordings in it.

    Raises:
        DataError: Names the table.
    """
    files = {PurePosixPath(name).name for name in names}
    known = files | {PurePosixPath(name).stem for name in files if not PurePosixPath(name).stem.isdigit()}
    near = [Path(entry.path) for _, entry in files_below(source, 2) if os.path.isfile(entry.path)]
    above = source.resolve().parent
    near += [path for path in above.glob("*.[cCtT][sS][vV]") if path.is_file() and _has_labels(path)]
    for path in sorted(near):
        suffix = path.suffix.lower()
        if suffix in UNREAD or suffix in (".csv", ".tsv", ".json", ".jsonl", ".txt") and lists_any(path, known, files):
            raise DataError(
                f"{path}: may be a table of labels, and is not read. Give it the columns fname,labels and name it as "
                "the source; if the folders are the labels, say so with --layout folders."
            )


def _has_labels(path):
    """Whether a table has a column of labels, and is none that audiotag wrote: of corrections, or of scores."""
    header = {column.lower() for column in header_of(path)}
    return bool(header & {*LABEL_COLUMNS}) and not {"clip", "weight"} <= header


def lists_any(path: Path, known: set[str], files: set[str]) -> bool:
    """Whether a table or a text names a recording."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [file.readline(10_000) for _ in range(MOST_LINES)]
    except OSError:
        return False
    is_table = path.suffix.lower() in (".csv", ".tsv")
    for line in lines:
        fields = line.replace(";", ",").replace("\t", ",").replace("|", ",").split(",")
        words = {PurePosixPath(field.strip(" \r\n'\"[]{}")).name for field in fields}
        if not words.isdisjoint(known if is_table else files):
            return True
    if path.suffix.lower() in (".json", ".jsonl"):
        text = "".join(lines)
        return any(json.dumps(name) in text or f'/{name}"' in text for name in list(files)[:MOST_LINES])
    return False
