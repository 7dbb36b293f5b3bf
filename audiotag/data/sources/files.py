"""Functions that the sources share: rows of clips and files below a folder."""

import contextlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from audiotag.data.audio import ffmpeg
from audiotag.data.audio.headers import FFMPEG_SUFFIXES, SUFFIXES
from audiotag.data.clips import csv_lines, numbers
from audiotag.errors import DataError
from audiotag.files import is_utf8

AUDIO_SUFFIXES = tuple(SUFFIXES)
# Sound in files that audiotag does not read: these without ffmpeg, and others.
AUDIO_LIKE = (*FFMPEG_SUFFIXES, ".mpc", ".ra", ".rm", ".dsf", ".dff", ".ac3", ".dts", ".gsm", ".vox", ".raw", ".pcm")
AUDIO_LIKE += (".mid", ".midi", ".flv", ".avi", ".aa", ".aax", ".xi", ".sd2", ".shn", ".npy")
TABLE_SUFFIXES = (".csv", ".tsv")
SKIPPED_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")
DEPTH = 3  # how many folders down from a table its audio may be
_LINK_ROOT: ContextVar[str | None] = ContextVar("link_root", default=None)


class Found(NamedTuple):
    """What a layout reads.

    Attributes:
        clips: The columns of a table of clips, `row`, which says where the clip is listed, and optionally `text`, the
            labels as they are written there, and of clips that are parts of a file `file`, its name, `start_seconds`
            and `end_seconds`.
        vocabulary: The names of the classes if a file of the dataset lists them.
        folders: {subset: folder that the names are relative to}.
        notes: Sentences about what was not read.
    """

    clips: pd.DataFrame
    vocabulary: tuple[str, ...] | None
    folders: dict[str, Path]
    notes: tuple[str, ...] = ()


def clips_of(table: pd.DataFrame, subset: str) -> pd.DataFrame:
    """A table of clips from rows with fname, labels and optional columns.

    `subset` is the subset of all clips if there is no such column.
    """
    labels = [",".join(label.strip() for label in text.split(",")) for text in table["labels"]]
    clips = {
        "name": table["fname"],
        "subset": table.get("subset", subset),
        "labels": labels,
        "text": table["labels"],
        "usage": table.get("usage", ""),
        "fold": fold_numbers(table) if "fold" in table else 0,
        "group": table.get("group", ""),
    }
    return pd.DataFrame(clips, index=table.index).reset_index()


def refuse_empty_labels(clips: pd.DataFrame) -> pd.DataFrame:
    """The same clips of a dataset in which every clip has labels.

    Raises:
        DataError: Names the row without labels.
    """
    for row, labels, subset in zip(clips["row"], clips["labels"], clips["subset"]):
        if not labels:
            raise DataError(f"{row}: labels are empty. A {subset} clip needs at least one. Add it, or remove the row.")
    return clips


def refuse_missing_folds(clips: pd.DataFrame) -> pd.DataFrame:
    """The same clips of a dataset in which every clip has a fold.

    Raises:
        DataError: Names the row without a fold.
    """
    for row, fold in zip(clips["row"], clips["fold"]):
        if fold < 1:
            raise DataError(f"{row}: fold is {fold}. Expected the dataset's own, from 1. Correct it.")
    return clips


def fold_numbers(table: pd.DataFrame) -> list[int]:
    """The column `fold` as numbers from 1: "2", "2.0" and "fold2" are the same.

    0 is none.

    Raises:
        DataError: A fold is no number, or folds of clips to train on count from 0.
    """
    column = table["fold"].str.replace(r"(?i)^\s*(fold|split)[ _-]*", "", regex=True).replace("", "0")
    folds = [int(number) for number in numbers(column.rename("fold"), int)]
    training = table["subset"] != "test" if "subset" in table else [True] * len(table)
    found = {fold for fold, text, trained in zip(folds, table["fold"], training) if text != "" and trained}
    if 0 in found and len(found) > 1 and found == set(range(len(found))):
        raise DataError(
            f"{table.index[0]}: the folds are {min(found)} to {max(found)}. Expected numbers from 1, as 0 means none: "
            "add 1 to each, or empty the cells of clips without a fold."
        )
    return folds


def csv_files(folder: Path) -> list[Path]:
    """The CSV and TSV files directly in a folder, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    )


def tables_with(source: Path, *columns: str, depth: int = 2) -> list[Path]:
    """The tables at most `depth` folders down whose header has these columns.

    They are sorted by depth and name.
    """
    found = []
    for name, entry in files_below(source, depth):
        is_table = name.lower().endswith(TABLE_SUFFIXES) and os.path.isfile(entry.path)
        if is_table and set(columns) <= set(header_of(Path(entry.path))):
            found.append(Path(entry.path))
    return sorted(found, key=lambda path: (len(path.parts), path.name))


def only_table(source: Path, name: str, *columns: str) -> Path:
    """The one table with these columns, which is called `name` in the dataset.

    Raises:
        DataError: There is none, or there are several.
    """
    found = tables_with(source, *columns)
    if not found:
        raise DataError(f"{source}: {name} is missing, the table with the columns {','.join(columns)}. Put it there.")
    if len(found) > 1:
        paths = ", ".join(str(path.relative_to(source)) for path in found)
        raise DataError(f"{source}: several tables like {name}: {paths}. Remove all but one.")
    return found[0]


def header_of(path: Path) -> list[str]:
    """The column names of a table; [] of a file that is none."""
    try:
        return [column.strip() for column in next(csv_lines(path), (0, []))[1]]
    except DataError:
        return []


def audio_suffixes() -> tuple[str, ...]:
    """The suffixes of the files that are read: with ffmpeg more."""
    return AUDIO_SUFFIXES + tuple(FFMPEG_SUFFIXES) if ffmpeg.is_installed() else AUDIO_SUFFIXES


def audio_names(source: Path) -> list[str]:
    """The names of all audio files below a folder, sorted."""
    names = []
    for name, entry in files_below(source):
        if os.path.isdir(entry.path):  # False for a link to itself, where entry.is_dir() raises
            raise DataError(
                f"{entry.path}: a link to a folder, and such links are not followed. Put the folder itself there, or "
                "allow the links to a folder that you trust: make-records --follow-links FOLDER."
            )
        if name.lower().endswith(audio_suffixes()):
            if not is_utf8(name):
                raise DataError(f"{source}: the name {name!r} has bytes that are not UTF-8. Rename it.")
            names.append(name)
    if not names:
        raise DataError(f"{source}: no audio in its folders. Expected files that end in {', '.join(AUDIO_SUFFIXES)}.")
    return sorted(names)


def other_files(source: Path) -> list[str]:
    """The names of all files below a folder that are no recordings, sorted."""
    suffixes = audio_suffixes()
    others = [(name, entry) for name, entry in files_below(source) if not name.lower().endswith(suffixes)]
    return sorted(name for name, entry in others if os.path.isfile(entry.path))


def unread_notes(folders: Iterable[Path], paths: Collection[str]) -> list[str]:
    """Notes that count the files with sound that are no clips, per folder."""
    read, notes = set(paths), []
    counts: dict[tuple[str, str], int] = Counter()
    for folder in sorted({os.path.realpath(folder) for folder in folders}):
        for name, entry in files_below(folder):
            suffix = PurePosixPath(name).suffix.lower()
            if suffix in (*AUDIO_SUFFIXES, *AUDIO_LIKE) and entry.path not in read and os.path.isfile(entry.path):
                read.add(entry.path)  # the folder of one subset may be in that of another
                counts[os.path.dirname(entry.path), suffix] += 1
    for (folder, suffix), count in counts.items():
        if suffix in audio_suffixes():
            notes.append(f"{folder}: {count} {suffix} files are not listed as clips, and are left out.")
        else:
            remedy = "Install ffmpeg to read them, or convert them" if suffix in FFMPEG_SUFFIXES else "Convert them"
            notes.append(f"{folder}: {count} {suffix} files are not read. {remedy}, for example to FLAC.")
    return notes


def unused_columns(path: Path, used: Collection[str], known: Collection[str] = ()) -> list[str]:
    """A note about the columns of a table that are not used, nor `known`."""
    others = [column for column in header_of(path) if column not in (*used, "") and column.lower() not in known]
    return [f"{path}: columns that are not used: {', '.join(others)}."] if others else []


def find_audio(source: Path, names: Iterable[str]) -> tuple[Path, dict[str, str]]:
    """The folder that holds the files of a table, whatever lies beside it.

    Also returned is {name in the table: name of the file}. A name may lack the suffix, or differ in upper and lower
    case, if only one file fits. Of several folders that hold all files, the one fewest folders down is taken.

    Raises:
        DataError: Several folders hold the files.
    """
    names = list(names)
    by_key: dict[str, list[str]] = {}
    for name, _ in files_below(source, DEPTH + max((name.count("/") for name in names), default=0)):
        base = name.rpartition("/")[2]
        stem = base.rpartition(".")[0] if base.lower().endswith((*AUDIO_SUFFIXES, *FFMPEG_SUFFIXES)) else base
        for key in {base.lower(), stem.lower()}:
            by_key.setdefault(key, []).append(name)
    found: dict[str, dict[str, list[str]]] = {}  # {folder: {name in the table: the files that fit}}
    for fits in (_is_name, _is_stem, _is_name_in_other_case, _is_stem_in_other_case):
        better = {folder: set(files) for folder, files in found.items()}  # names that fit more exactly
        for name in names:
            for file in by_key.get(name.rpartition("/")[2].lower(), ()):
                folder = fits(file, name)
                if folder is not None and name not in better.get(folder, ()):
                    found.setdefault(folder, {}).setdefault(name, []).append(file.removeprefix(folder))
        whole = [folder for folder, files in found.items() if len(files) == len(set(names))]
        whole.sort(key=lambda folder: (folder.count("/"), folder))
        if len(whole) > 1 and whole[0].count("/") == whole[1].count("/"):
            raise DataError(
                f"{source}: the recordings of the table are in {whole[0]!r} and in {whole[1]!r}. Remove one of the two "
                "folders, or write its name before the names in the table."
            )
        if whole:
            files_of = {name: sorted(set(files)) for name, files in found[whole[0]].items()}
            twice = next(((name, files) for name, files in files_of.items() if len(files) > 1), None)
            if twice:
                raise DataError(
                    f"{source / whole[0]}: the table lists {twice[0]!r}, and there are {' and '.join(twice[1])}. "
                    "Write the name of the file that is meant, with its suffix."
                )
            return source / whole[0], {name: files[0] for name, files in files_of.items()}
    _, best = max([(0, ""), *((len(files), folder) for folder, files in found.items())], key=lambda item: item[0])
    return source / best, {}


def _is_name(file, name):
    return file[: len(file) - len(name)] if file == name or file.endswith("/" + name) else None


def _is_stem(file, name):
    folder = _is_name(file.rpartition(".")[0], name)
    return folder if folder is not None and file.lower().endswith((*AUDIO_SUFFIXES, *FFMPEG_SUFFIXES)) else None


def _is_name_in_other_case(file, name):
    folder = _is_name(file.lower(), name.lower())
    return None if folder is None else file[: len(folder)]


def _is_stem_in_other_case(file, name):
    folder = _is_stem(file.lower(), name.lower())
    return None if folder is None else file[: len(folder)]


def with_audio(source: Path, table: pd.DataFrame) -> tuple[Path, pd.DataFrame]:
    """`find_audio` for a table: (the folder, the table with the names of files)."""
    folder, names = find_audio(source, table["fname"])
    return folder, table.assign(fname=[names.get(name, name) for name in table["fname"]])


def files_below(
    folder: str | Path, depth: float = math.inf, prefix: str = "", entered: tuple[str, ...] = ()
) -> Iterator[tuple[str, os.DirEntry]]:
    """Yields (name, entry) of all files at most `depth` folders down.

    Hidden files and folders are skipped. A directory entry has its type, so this reads folders only and opens no
    file. A link to a folder is yielded, not followed, unless `following_links` allows it. Names are in Unicode's form
    NFC, like those in tables. `entered` are the folders to which links led so far.
    """
    try:
        entries = [*os.scandir(folder)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}.") from None
    for entry in entries:
        name = unicodedata.normalize("NFC", prefix + entry.name)
        if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
            continue
        if entry.is_dir(follow_symlinks=False):
            linked: tuple[str, ...] = ()
        elif target := _followed(entry, entered):
            linked = (target,)
        else:
            yield name, entry
            continue
        if depth > 0:
            yield from files_below(entry.path, depth - 1, name + "/", entered + linked)


@contextlib.contextmanager
def following_links(root: str | Path | None) -> Iterator[None]:
    """Makes `files_below` enter links to folders anywhere below a root.

    None enters none. A link to a folder that it is in itself is never entered.
    """
    token = _LINK_ROOT.set(None if root is None else os.path.realpath(root))
    try:
        yield
    finally:
        _LINK_ROOT.reset(token)


def _followed(entry, entered):
    """The folder that an entry is a link to, if it may be entered and no link around it led there; else None."""
    root = _LINK_ROOT.get()
    if root is None or not entry.is_symlink() or not os.path.isdir(entry.path) or not _is_below(entry.path, root):
        return None
    around, target = os.path.realpath(os.path.dirname(entry.path)), os.path.realpath(entry.path)
    return None if target in entered or is_inside(around, target) else target


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
    return is_inside(os.path.realpath(path), folder)


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder or in it; both are absolute and without links.

    Example:
        >>> is_inside("/sounds/dog", "/sounds"), is_inside("/sounds2", "/sounds")
        (True, False)
    """
    try:
        return os.path.commonpath([folder, path]) == folder
    except ValueError:  # another drive of Windows
        return False
