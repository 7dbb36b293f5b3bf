"""Functions that the sources share: rows of clips and files below a folder."""

import math
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from audiotag.data.audio.headers import SUFFIXES
from audiotag.data.clips import numbers
from audiotag.errors import DataError
from audiotag.files import is_utf8

AUDIO_SUFFIXES = tuple(SUFFIXES)


def clips_of(table: pd.DataFrame, subset: str) -> pd.DataFrame:
    """A table of clips from rows with fname, labels and optional columns.

    `subset` is the subset of all clips if there is no such column.
    """
    labels = [",".join(label.strip() for label in text.split(",")) for text in table["labels"]]
    clips = {
        "name": table["fname"],
        "subset": table.get("subset", subset),
        "labels": labels,
        "usage": table.get("usage", ""),
        "fold": numbers(table["fold"].replace("", "0"), int) if "fold" in table else 0,
        "group": table.get("group", ""),
    }
    return pd.DataFrame(clips, index=table.index).reset_index()


def csv_files(folder: Path) -> list[Path]:
    """The CSV files directly in a folder, sorted by name."""
    return sorted(path for path in folder.glob("*.csv") if path.is_file() and not path.name.startswith("."))


def audio_names(source: Path) -> list[str]:
    """The names of all audio files below a folder, sorted."""
    names = []
    for name, entry in files_below(source):
        if os.path.isdir(entry.path):  # False for a link to itself, where entry.is_dir() raises
            raise DataError(
                f"{entry.path}: a link to a folder, and links are not followed. Put the folder itself there."
            )
        if name.lower().endswith(AUDIO_SUFFIXES):
            if not is_utf8(name):
                raise DataError(f"{source}: the name {name!r} has bytes that are not UTF-8. Rename it.")
            names.append(name)
    if not names:
        raise DataError(f"{source}: no audio in its folders. Expected files that end in {', '.join(AUDIO_SUFFIXES)}.")
    return sorted(names)


def other_files(source: Path) -> list[str]:
    """The names of all files below a folder that are no recordings, sorted."""
    others = [(name, entry) for name, entry in files_below(source) if not name.lower().endswith(AUDIO_SUFFIXES)]
    return sorted(name for name, entry in others if os.path.isfile(entry.path))


def files_below(folder: str | Path, depth: float = math.inf, prefix: str = "") -> Iterator[tuple[str, os.DirEntry]]:
    """Yields (name, entry) of all files at most `depth` folders down.

    Hidden files and folders are skipped. A directory entry has its type, so this reads folders only and opens no
    file. A link to a folder is yielded, not followed. Names are in Unicode's form NFC, like those in tables.
    """
    try:
        entries = [*os.scandir(folder)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}.") from None
    for entry in entries:
        name = unicodedata.normalize("NFC", prefix + entry.name)
        if entry.name.startswith("."):
            continue
        if not entry.is_dir(follow_symlinks=False):
            yield name, entry
        elif depth > 0:
            yield from files_below(entry.path, depth - 1, name + "/")


def locate(clips: pd.DataFrame, folder: Path, *, follow_links: str | Path | None = None) -> dict[str, str]:
    """{name: absolute path} of each clip; raises if one is not a file in `folder`.

    Args:
        clips: Table with the columns name and row.
        folder: The folder that the names are relative to.
        follow_links: Another folder: links to files anywhere below it are followed, too.
    """
    root = os.path.realpath(folder)
    roots = [root] if follow_links is None else [root, os.path.realpath(follow_links)]
    if not os.path.isdir(root):
        raise DataError(f"{folder}: there is no such folder. Expected the audio of {len(clips)} clips in it.")
    row = dict(zip(clips["name"], clips["row"]))
    paths = {}
    for name, entry in files_below(root, depth=max(name.count("/") for name in row)):
        if name not in row or not os.path.isfile(entry.path):
            continue
        if entry.is_symlink() and not any(_is_below(entry.path, allowed) for allowed in roots):
            outside = " and ".join(map(str, [folder] if follow_links is None else [folder, follow_links]))
            raise DataError(
                f"{row[name]}: {name!r} is a link that leads out of {outside}, to {os.path.realpath(entry.path)}. Put "
                f"the file itself there, or allow the links to a folder that you trust: make-records --follow-links "
                f"FOLDER."
            )
        if name in paths:
            raise DataError(f"{row[name]}: {folder} has two files {name!r} in different Unicode forms. Remove one.")
        paths[name] = entry.path
    absent = [f"{name!r} ({row[name]})" for name in row if name not in paths]
    if absent:
        raise DataError(
            f"{folder}: {len(absent)} of {len(row)} clips are not there: {', '.join(absent[:5])}"
            f"{', ...' if len(absent) > 5 else ''}. Put the files there, or remove their rows."
        )
    return paths


def _is_below(path, folder):
    """Whether a path, with its links resolved, is in a folder, which has none."""
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder
