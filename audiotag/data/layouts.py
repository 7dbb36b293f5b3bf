"""From a folder of recordings and label tables to one table of clips, in each of the ways such folders are laid out.

A layout only says where names and labels stand. What holds for all of them, that every clip has known labels and lies
where its table says, is checked once, in `find_clips`.
"""

import difflib
import math
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from audiotag.data.clips import COLUMNS, SUBSETS, check_clips, check_labels, csv_lines, numbers, read_table
from audiotag.data.headers import SUFFIXES
from audiotag.data.labels import split_labels
from audiotag.errors import ConfigError, DataError
from audiotag.files import is_utf8
from audiotag.lookup import nearest

AUDIO_SUFFIXES = tuple(SUFFIXES)

# The clips of FSDKaggle2019 that its authors and the competition's winner found to be labelled wrongly.
MIXED_UP = "wrong label ({}): a renaming bug gave the file another clip's name"
KNOWN_BAD = {
    "1d44b0bd.wav": "no signal (labelled Whispering)",
    "6a1f682a.wav": MIXED_UP.format("Male_speech_and_man_speaking"),
    "7752cc8a.wav": MIXED_UP.format("Male_speech_and_man_speaking"),
    "77b925c2.wav": MIXED_UP.format("Stream"),
    "c7db12aa.wav": MIXED_UP.format("Male_speech_and_man_speaking"),
    "f76181c4.wav": MIXED_UP.format("Male_speech_and_man_speaking"),
}


@dataclass(frozen=True, eq=False)
class Source:
    """The recordings that `find_clips` found, and what they are labelled with.

    Attributes:
        layout: Its name in `LAYOUTS`.
        clips: Table of clips, sorted by name: the columns `clips.COLUMNS`, the absolute `path` of the file,
            and the `row` that the clip comes from, such as "train_curated.csv line 17".
        vocabulary: Names of the classes.
        excluded: {name: reason} of the clips in the table that are known to be bad.
    """

    layout: str
    clips: pd.DataFrame
    vocabulary: tuple[str, ...]
    excluded: dict[str, str]


# Each reader returns the table of clips, the vocabulary or None where no file lists it, and {subset: folder of audio}.


def kaggle2019(source):
    """FSDKaggle2019 as Kaggle has it. Labels of the test clips, published later, may lie beside it."""
    sample = source / "sample_submission.csv"
    if not sample.is_file():
        raise DataError(f"{sample}: not there. Its header lists the classes and its rows the test clips; put it there.")
    submission = read_table(sample, ["fname"])
    vocabulary = tuple(submission.columns.drop("fname"))
    parts = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}
    folders = downloaded({subset: source / part for subset, part in parts.items()})
    clips = [label_table(source / f"{parts[subset]}.csv", subset) for subset in folders if subset != "test"]
    if "test" in folders:
        clips.append(kaggle_test(source, submission))
    return pd.concat(clips), vocabulary, folders


def kaggle_test(source, submission):
    """The clips that sample_submission.csv asks for, with their labels where a table has them.

    The table may know more clips: Kaggle gave out only a part of those that were labelled in the end.
    """
    asked = clips_of(submission[["fname"]].assign(labels=""), "test")
    check_clips(asked)
    for labelled in (source / "test_post_competition.csv", source / "test_labels.csv"):
        if labelled.is_file():
            clips = label_table(labelled, "test")
            known = set(clips["name"])
            for row, name in zip(asked["row"], asked["name"]):
                if name not in known:
                    raise DataError(f"{row}: {name!r} has no row in {labelled}. Add its labels, or remove that table.")
            return clips[clips["name"].isin(set(asked["name"]))]
    return asked


def zenodo2019(source):
    """FSDKaggle2019 as Zenodo has it."""
    meta = source / "FSDKaggle2019.meta"
    parts = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}
    folders = downloaded({subset: source / f"FSDKaggle2019.audio_{part}" for subset, part in parts.items()})
    clips = [label_table(meta / f"{parts[subset]}_post_competition.csv", subset) for subset in folders]
    listed = meta / "vocabulary.csv"
    return pd.concat(clips), read_vocabulary(listed) if listed.is_file() else None, folders


def downloaded(folders):
    """Curated audio, and of the others what is there: they are large, and many do without."""
    return {subset: folder for subset, folder in folders.items() if subset == "curated" or folder.is_dir()}


def read_vocabulary(path):
    """The classes in FSDKaggle2019's vocabulary.csv: rows "0,Accordion", counted from 0, without a header."""
    vocabulary = []
    for line, fields in csv_lines(path):
        index = len(vocabulary)
        if len(fields) != 2 or fields[0].strip() != str(index):
            raise DataError(
                f"{path} line {line}: found {','.join(fields)!r}. Expected '{index},' and the name of a class."
            )
        vocabulary.append(fields[1].strip())
    return tuple(vocabulary)


def csv_beside_audio(source):
    """A CSV with fname, labels and maybe subset, usage, fold, group; audio next to it or in the folder beside it."""
    path = source if source.is_file() else the_label_table(source)
    table = read_table(path, ["fname", "labels"])
    optional = ("subset", "usage", "fold", "group")
    for column in table.columns.drop(["fname", "labels"]):
        near = difflib.get_close_matches(column.lower(), optional, n=1, cutoff=0.8)
        if near and column not in optional:
            raise DataError(
                f"{path} line 1: the column {column!r} is not {near[0]!r}. Rename it, to that or to another word."
            )
    clips = clips_of(table, "curated")
    return clips, None, dict.fromkeys(SUBSETS, audio_folder(path.parent, clips["name"]))


def the_label_table(source):
    """The one CSV file in a folder that can be a table of labels."""
    tables = csv_files(source)
    headers = {path.name: next(csv_lines(path), (0, []))[1] for path in tables}
    found = [path for path in tables if {"fname", "labels"} & set(headers[path.name])]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source}: several tables of labels: {', '.join(p.name for p in found)}. Give the path of one."
        )
    listed = (
        "; ".join(f"{name} has {','.join(header[:8])}" for name, header in headers.items()) or "there is no CSV file"
    )
    raise DataError(
        f"{source}: no table of labels: {listed}. Expected a CSV file with the columns fname,labels. "
        "Where folders are the labels, choose the layout folders."
    )


def audio_folder(here, names):
    """The folder that names in a CSV start from: the one that the CSV lies in, or the only folder beside it."""
    entries = [path for path in here.iterdir() if not path.name.startswith(".")]
    folders = [path for path in entries if path.is_dir()]
    first_parts = {name.split("/")[0] for name in names}
    next_to_it = any(unicodedata.normalize("NFC", path.name) in first_parts for path in entries)
    return folders[0] if len(folders) == 1 and not next_to_it else here


ESC_CLIP = re.compile(r"\d+ - (?P<label>[^/]+)/(?P<fold>\d+)-(?P<recording>\d+)-[A-Z](-\d+)?\.\w+")


def esc(source):
    """ESC-10 and ESC-50: a table meta/esc50.csv, or folders such as "001 - Dog bark"."""
    table = source / "meta" / "esc50.csv"
    if table.is_file():
        rows = read_table(table, ["filename", "fold", "category", "src_file"])
        rows = rows.rename(columns={"category": "labels"})
        rows = rows.assign(fname="audio/" + rows["filename"], group=rows["fold"] + "-" + rows["src_file"])
        return clips_of(rows, "curated"), None, {"curated": source}
    records = []
    for name in audio_names(source):
        match = ESC_CLIP.fullmatch(name)
        if not match:
            raise DataError(f"{source / name}: expected a path such as '001 - Dog bark/1-100032-A.ogg' as in ESC-10.")
        records.append(
            one_label(name, "curated", match["label"], int(match["fold"]), f"{match['fold']}-{match['recording']}")
        )
    return pd.DataFrame(records), None, {"curated": source}


SUBSET_FOLDERS = {"curated": "curated", "train": "curated", "noisy": "noisy", "test": "test"}


def folder_a_class(source):
    """<label>/<file>, or <subset>/<label>/<file> where the subsets are curated or train, noisy and test."""
    names = audio_names(source)
    in_subsets = {name.split("/")[0] for name in names} <= SUBSET_FOLDERS.keys()
    records = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != (2 if in_subsets else 1):
            expected = "<subset>/<label>/<file>" if in_subsets else "<label>/<file>"
            raise DataError(f"{source / name}: expected {expected}, as every folder is a label. Move it, or remove it.")
        records.append(one_label(name, SUBSET_FOLDERS[folders[0]] if in_subsets else "curated", folders[-1]))
    return pd.DataFrame(records), None, dict.fromkeys(SUBSETS, source)


def one_label(name, subset, label, fold=0, group=""):
    """The row of a clip whose folder is its label."""
    if "," in label:
        raise DataError(f"{name}: the folder {label!r} has a comma, which parts labels. Rename it, say with '_and_'.")
    return dict(zip([*COLUMNS, "row"], (name, subset, label.strip(), "", fold, group, name)))


# What the readers share


def label_table(path, subset):
    """The clips in one of FSDKaggle2019's tables, all of one subset."""
    return clips_of(read_table(path, ["fname", "labels"]).rename(columns={"freesound_id": "group"}), subset)


def clips_of(table, subset):
    """A table of clips from rows with fname, labels and whatever else is known; `subset` where no column says it."""
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


def csv_files(folder):
    """The CSV files right in a folder, by name."""
    return sorted(path for path in folder.glob("*.csv") if path.is_file() and not path.name.startswith("."))


def audio_names(source):
    """The names of all audio files below a folder, in order."""
    names = []
    for name, entry in files_below(source):
        if entry.is_dir():
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


def files_below(folder, depth=math.inf, prefix=""):
    """Yields (name, entry) of what is no folder, no more than `depth` folders down; hidden names are passed over.

    An entry already knows what it is, so this reads each folder and asks for no file. A link to a
    folder is yielded, not followed. Names are in Unicode's form NFC, as those in tables.
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


def locate(clips, folder):
    """{name: absolute path} of each clip of a table, all of them regular files inside the folder."""
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise DataError(f"{folder}: there is no such folder. Expected the audio of {len(clips)} clips in it.")
    row = dict(zip(clips["name"], clips["row"]))
    paths = {}
    for name, entry in files_below(root, depth=max(name.count("/") for name in row)):
        if name not in row or not entry.is_file():
            continue
        if entry.is_symlink() and os.path.commonpath([root, os.path.realpath(entry.path)]) != root:
            raise DataError(f"{row[name]}: {name!r} is a link that leads out of {folder}. Put the file itself there.")
        if name in paths:
            raise DataError(f"{row[name]}: {folder} has two files {name!r}, spelt with different Unicode. Remove one.")
        paths[name] = entry.path
    absent = [f"{name!r} ({row[name]})" for name in row if name not in paths]
    if absent:
        raise DataError(
            f"{folder}: {len(absent)} of {len(row)} clips are not there: {', '.join(absent[:5])}"
            f"{', ...' if len(absent) > 5 else ''}. Put the files there, or remove their rows."
        )
    return paths


# All layouts


def _looks_like_kaggle(source):
    return (source / "train_curated.csv").exists() or (source / "train_curated").is_dir()


def _looks_like_zenodo(source):
    return any(source.glob("FSDKaggle2019.*"))


def _looks_like_csv(source):
    return bool(csv_files(source))


def _looks_like_esc(source):
    return (source / "meta" / "esc50.csv").exists() or any(
        ESC_CLIP.fullmatch(name) for name, _ in files_below(source, 1)
    )


def _looks_like_folders(source):
    return any("/" in name and name.lower().endswith(AUDIO_SUFFIXES) for name, _ in files_below(source, 2))


@dataclass(frozen=True)
class Layout:
    """A way to lay out recordings: what it is known by, in words and in code, and how it is read."""

    sign: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], tuple]


# The first that fits is chosen.
LAYOUTS = {
    "kaggle2019": Layout("train_curated.csv and train_curated/", _looks_like_kaggle, kaggle2019),
    "zenodo2019": Layout("FSDKaggle2019.meta/ and FSDKaggle2019.audio_train_curated/", _looks_like_zenodo, zenodo2019),
    "csv": Layout("a CSV file with the columns fname,labels beside the audio", _looks_like_csv, csv_beside_audio),
    "esc": Layout("meta/esc50.csv, or folders such as '001 - Dog bark' with ESC's file names", _looks_like_esc, esc),
    "folders": Layout("a folder a class, with audio in it", _looks_like_folders, folder_a_class),
}


def find_clips(source, *, layout="auto"):
    """The recordings below a folder, with their labels. Reads tables and names, no audio.

    The order of rows in the tables changes nothing but `row`. Audio that no table lists is passed over.

    Args:
        source: The folder; for the layout `csv` the table itself will do as well.
        layout: A name in `LAYOUTS`, or "auto" to recognise it.

    Returns:
        A `Source`. Where no file lists the vocabulary, it is the labels of the curated and noisy clips, sorted.

    Raises:
        DataError: A table, a label or a file is not as it has to be; names the row and the way out.
        ConfigError: There is no such layout.

    Example:
        >>> import tempfile
        >>> source = Path(tempfile.mkdtemp())
        >>> for name in ("dog/1.wav", "rain/1.wav"):
        ...     (source / name).parent.mkdir()
        ...     (source / name).touch()
        >>> found = find_clips(source)
        >>> found.layout, found.vocabulary, list(found.clips["name"])
        ('folders', ('dog', 'rain'), ['dog/1.wav', 'rain/1.wav'])
    """
    source = Path(source)
    layout = chosen_layout(source, layout)
    clips, vocabulary, folders = LAYOUTS[layout].read(source)
    check_clips(clips)
    if vocabulary is None:
        vocabulary = training_labels(clips, source)
    check_labels(clips, check_vocabulary(vocabulary, source))
    clips = clips.sort_values("name", ignore_index=True)
    paths = {}
    for subset, some in clips.groupby("subset"):
        paths |= locate(some, folders[subset])
    clips["path"] = clips["name"].map(paths)
    bad = KNOWN_BAD if layout in ("kaggle2019", "zenodo2019") else {}
    excluded = {name: bad[name] for name in clips["name"] if name in bad}
    return Source(layout, clips[[*COLUMNS, "path", "row"]], vocabulary, excluded)


def chosen_layout(source, layout):
    """The name of the layout asked for, or with "auto" of the first that fits."""
    if layout not in ("auto", *LAYOUTS):
        raise ConfigError(
            f"layout {layout!r}: unknown. {nearest(layout, LAYOUTS)}Accepted: auto, {', '.join(LAYOUTS)}."
        )
    if not source.exists():
        raise DataError(
            f"{source}: there is no such file or folder. Expected a folder of recordings, or a CSV file beside it."
        )
    if source.is_file():
        if layout not in ("auto", "csv") or source.suffix.lower() != ".csv":
            raise DataError(f"{source}: a file. Expected a folder, or for the layout csv a file that ends in .csv.")
        return "csv"
    if layout != "auto":
        return layout
    for name, candidate in LAYOUTS.items():
        if candidate.fits(source):
            return name
    signs = "; ".join(f"{name}: {candidate.sign}" for name, candidate in LAYOUTS.items())
    raise DataError(f"{source}: the layout is not recognised. Looked for {signs}.")


def training_labels(clips, source):
    """The labels of curated and noisy clips, sorted."""
    training = clips.loc[clips["subset"] != "test", "labels"]
    if training.empty:
        raise DataError(f"{source}: test clips only. Expected curated clips too, whose labels are the vocabulary.")
    return tuple(sorted({label for text in training for label in split_labels(text)}))


def check_vocabulary(vocabulary, source):
    """The vocabulary, if every class in it has a name of its own that fits into a list of labels and heads a column."""
    if not vocabulary:
        raise DataError(f"{source}: the vocabulary has no classes. Expected their names.")
    for label in vocabulary:
        if not label or "," in label or vocabulary.count(label) > 1:
            raise DataError(
                f"{source}: the vocabulary has a class {label!r}. Expected names without commas, each once."
            )
        if label in ("name", "fname") or label.endswith(" logit"):
            raise DataError(f"{source}: a class cannot be called {label!r}, as columns beside its own are. Rename it.")
    return vocabulary
