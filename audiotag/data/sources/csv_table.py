"""Source: a CSV table of labels beside a folder of audio."""

import difflib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pandas as pd

from audiotag.data.clips import csv_lines
from audiotag.data.corrections_file import REVIEW_COLUMNS
from audiotag.data.labels_file import LEFT_OUT, is_reviewed, read_labels
from audiotag.data.sources.class_folders import lists_any
from audiotag.data.sources.class_names import split_subset
from audiotag.data.sources.files import Found, clips_of, csv_files, header_of, unused_columns, with_audio
from audiotag.errors import DataError

SPLITS = ("split", "set", "partition")  # other names of the column subset


def is_csv_table(source: Path) -> bool:
    """Whether there is a CSV file in the folder."""
    return bool(csv_files(source))


def read_csv_table(source: Path) -> Found:
    """Reads a CSV with fname and labels.

    It may have subset or split, usage, fold and group, too. Without a column subset all clips are curated. The audio is
    in the folder below the table that holds the files, whatever lies beside it. `source` is the table or its folder.
    Of a table that review has filled, rows that are removed or unsure are left out.
    """
    path = source if source.is_file() else find_label_table(source)
    table, left_out = decided_rows(path)
    optional = ("subset", "usage", "fold", "group")
    for column in table.columns.drop(["fname", "labels"]):
        near = difflib.get_close_matches(column.lower(), optional, n=1, cutoff=0.8)
        if near and column not in optional:
            raise DataError(
                f"{path} line 1: the column {column!r} is not {near[0]!r}. Rename it to that, or to another word."
            )
    table, notes = with_subsets(path, table)
    folder, table = with_audio(path.parent, table)
    clips = clips_of(table, "curated")
    others = [] if source.is_file() else other_tables(path, clips["name"])
    known = (*SPLITS, *(REVIEW_COLUMNS if is_reviewed(table) else ()))
    notes += left_out + unused_columns(path, ["fname", "labels", *optional], known) + others
    return Found(clips, None, dict.fromkeys(clips["subset"], folder), tuple(notes))


def decided_rows(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a table of labels, without those that a review left out.

    Also returned is a note about these.

    Raises:
        DataError: There is no other row.
    """
    table = read_labels(path)
    if not is_reviewed(table):
        return table, []
    left_out = table["why"].isin(LEFT_OUT)
    if left_out.all():
        raise DataError(f"{path}: all rows are {' or '.join(LEFT_OUT)}. Label recordings with: audiotag review --files")
    note = f"{path}: rows that are left out because review found them {' or '.join(LEFT_OUT)}: {left_out.sum()}."
    return table[~left_out], [note] if left_out.any() else []


def with_subsets(path: Path, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """A table whose column split, set or partition is subset, and a note.

    Raises:
        DataError: It has several of these columns, or one with other words than train, validation, test.
    """
    found = [column for column in table.columns if column.lower() in (*SPLITS, "subset")]
    if len(found) > 1:
        raise DataError(f"{path} line 1: the columns {' and '.join(found)} both name a subset. Keep one: subset.")
    if not found or found[0] == "subset":
        return table, []
    column = table[found[0]]
    words = sorted(set(column))
    meaning = {word: split_subset(word, words) for word in words}
    for row, word in column.items():
        if meaning[word] is None:
            raise DataError(
                f"{row}: {found[0]} is {word!r}. Expected train, validation or test. Call the column fold if it "
                "numbers the folds of a cross-validation, or subset if it names subsets of your own."
            )
    texts = ", ".join(f"{word} is {subset}" for word, subset in meaning.items() if word != subset)
    note = [f"{path}: the column {found[0]} gives the subsets: {texts}."] if texts else []
    return table.drop(columns=found).assign(subset=column.map(meaning)), note


def other_tables(path: Path, names: Iterable[str]) -> list[str]:
    """Notes about the tables beside one that list recordings and are not read."""
    files = {PurePosixPath(name).name for name in names}
    known = files | {PurePosixPath(name).stem for name in files if not PurePosixPath(name).stem.isdigit()}
    others = [other for other in csv_files(path.parent) if other != path]
    return [
        f"{other}: is not read." for other in others if lists_any(other, known, files) or "fname" in header_of(other)
    ]


def find_label_table(source: Path) -> Path:
    """Finds the only CSV file in a folder that can be a table of labels."""
    headers = {path: next(csv_lines(path), (0, []))[1] for path in csv_files(source)}
    found = [path for path, header in headers.items() if {"fname", "labels"} & set(header)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source}: several tables of labels: {', '.join(p.name for p in found)}. Give the path of one."
        )
    listed = "; ".join(f"{path.name} has {','.join(header[:8])}" for path, header in headers.items())
    raise DataError(
        f"{source}: no table of labels: {listed or 'there is no CSV file'}. Expected a CSV file with the columns "
        "fname,labels. If the folders are the labels, choose the layout folders."
    )
