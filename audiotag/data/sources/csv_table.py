"""Source: a CSV table of labels beside a folder of audio."""

import difflib
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from audiotag.data.clips import csv_lines, read_table
from audiotag.data.sources.files import clips_of, csv_files
from audiotag.errors import DataError


def is_csv_table(source: Path) -> bool:
    """Whether there is a CSV file in the folder."""
    return bool(csv_files(source))


def read_csv_table(source: Path) -> tuple[pd.DataFrame, None, dict[str, Path]]:
    """Reads a CSV with fname, labels and optionally subset, usage, fold and group.

    Without a column subset all clips are curated.
    The audio is in the folder of the table or in the only folder beside it. `source` is the table or its folder.
    """
    path = source if source.is_file() else find_label_table(source)
    table = read_table(path, ["fname", "labels"])
    optional = ("subset", "usage", "fold", "group")
    for column in table.columns.drop(["fname", "labels"]):
        near = difflib.get_close_matches(column.lower(), optional, n=1, cutoff=0.8)
        if near and column not in optional:
            raise DataError(
                f"{path} line 1: the column {column!r} is not {near[0]!r}. Rename it to that, or to another word."
            )
    clips = clips_of(table, "curated")
    return clips, None, dict.fromkeys(clips["subset"], audio_folder(path.parent, clips["name"]))


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


def audio_folder(folder: Path, names: Iterable[str]) -> Path:
    """The folder of the audio: that of the CSV file, or the only folder in it."""
    entries = [path for path in folder.iterdir() if not path.name.startswith(".")]
    folders = [path for path in entries if path.is_dir()]
    first_components = {name.split("/")[0] for name in names}
    beside_table = any(unicodedata.normalize("NFC", path.name) in first_components for path in entries)
    return folders[0] if len(folders) == 1 and not beside_table else folder
