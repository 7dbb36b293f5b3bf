"""Finds the clips of a dataset: recognizes, reads and checks its source.

A source only reads names and labels. What holds for all sources is checked here once: every clip has labels of the
vocabulary and a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from audiotag.config.custom import allowed, described, import_component
from audiotag.config.signatures import nearest
from audiotag.data.clips import COLUMNS, TEST, check_clips, check_labels
from audiotag.data.labels import split_labels
from audiotag.data.sources.class_folders import is_class_folders, read_class_folders
from audiotag.data.sources.csv_table import is_csv_table, read_csv_table
from audiotag.data.sources.esc import is_esc, read_esc
from audiotag.data.sources.files import locate, other_files
from audiotag.data.sources.fsdkaggle2018 import KNOWN_BAD as KNOWN_BAD_2018
from audiotag.data.sources.fsdkaggle2018 import is_kaggle2018, is_zenodo2018, read_kaggle2018, read_zenodo2018
from audiotag.data.sources.fsdkaggle2019 import (
    KNOWN_BAD,
    is_kaggle2019,
    is_zenodo2019,
    read_kaggle2019,
    read_zenodo2019,
)
from audiotag.errors import AudiotagError, ConfigError, DataError


@dataclass(frozen=True, eq=False)
class Source:
    """The clips of a dataset and their labels, as `find_clips` returns them.

    Attributes:
        layout: Its name in `LAYOUTS`.
        clips: Table of clips, sorted by name: the columns `clips.COLUMNS`, the absolute `path` of the file,
            and the `row` that lists the clip, such as "train_curated.csv line 17".
        vocabulary: Names of the classes.
        excluded: {name: reason} of the clips in the table that are known to be bad.
        folder: The folder of the dataset; None for a table whose audio is next to it.
        other_files: Files in folders of classes that are no recordings, and so are left out.
    """

    layout: str
    clips: pd.DataFrame
    vocabulary: tuple[str, ...]
    excluded: dict[str, str]
    folder: Path | None
    other_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How one kind of source is recognized and read.

    Attributes:
        description: What it looks like, for error messages.
        recognize: Whether a folder is such a source.
        read: Reads one: (table of clips with the column `row`, vocabulary or None if no file lists it, {subset: folder
            that the names are relative to}).
        known_bad: {name: reason} of clips that are known to be bad.
    """

    description: str
    recognize: Callable[[Path], bool]
    read: Callable[[Path], tuple[pd.DataFrame, tuple[str, ...] | None, dict[str, Path]]]
    known_bad: Mapping[str, str] = field(default_factory=dict)


# "auto" takes the first that recognizes the folder.
LAYOUTS = {
    "kaggle2019": Layout("train_curated.csv and train_curated/", is_kaggle2019, read_kaggle2019, KNOWN_BAD),
    "zenodo2019": Layout(
        "FSDKaggle2019.meta/ and FSDKaggle2019.audio_train_curated/", is_zenodo2019, read_zenodo2019, KNOWN_BAD
    ),
    "kaggle2018": Layout(
        "train.csv with the column manually_verified, and audio_train/", is_kaggle2018, read_kaggle2018, KNOWN_BAD_2018
    ),
    "zenodo2018": Layout("FSDKaggle2018.meta/ and FSDKaggle2018.audio_train/", is_zenodo2018, read_zenodo2018),
    "csv": Layout("a CSV file with the columns fname,labels beside the audio", is_csv_table, read_csv_table),
    "esc": Layout("meta/esc50.csv, or folders such as '001 - Dog bark' with ESC's file names", is_esc, read_esc),
    "folders": Layout("one folder of audio per class", is_class_folders, read_class_folders),
}


def find_clips(source: str | Path, *, layout: str = "auto", follow_links: str | Path | None = None) -> Source:
    """Finds the recordings of a dataset and their labels; reads no audio.

    The order of rows in the tables changes nothing but `row`. Audio that no table lists is ignored.

    Args:
        source: The folder; for the layout `csv` also the table itself.
        layout: A name in `LAYOUTS`, "auto" to recognize it, or "package.module:Name" of a `Layout` of one's own.
        follow_links: A folder outside the source, such as the cache of git-annex, DVC or Hugging Face: links to files
            anywhere below it are followed. Other links out of the source are refused.

    Returns:
        A `Source`. If no file lists the vocabulary, it is the labels of all clips but test clips, sorted.

    Raises:
        DataError: A table, a label or a file is invalid; the message names the row and the fix.
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
    if follow_links is not None and not Path(follow_links).is_dir():
        raise DataError(f"{follow_links}: there is no such folder. Expected one to which links of {source} may lead.")
    layout = _recognized_layout(source, layout)
    read_as = _layout(layout)
    clips, vocabulary, folders = read_as.read(source) if layout in LAYOUTS else _read_custom(layout, read_as, source)
    check_clips(clips)
    if vocabulary is None:
        vocabulary = _training_labels(clips, source)
    _check_vocabulary(vocabulary, source)
    check_labels(clips, vocabulary)
    clips = clips.sort_values("name", ignore_index=True)
    paths: dict[str, str] = {}
    for subset, group in clips.groupby("subset"):
        paths |= locate(group, folders[subset], follow_links=follow_links)
    clips["path"] = clips["name"].map(paths)
    known_bad = read_as.known_bad
    excluded = {name: known_bad[name] for name in clips["name"] if name in known_bad}
    table = clips[[*COLUMNS, "path", "row"]]
    others = tuple(other_files(source)) if layout == "folders" else ()
    return Source(layout, table, vocabulary, excluded, source if source.is_dir() else None, others)


def _recognized_layout(source, layout):
    """The layout itself, or with "auto" the first that recognizes the source."""
    is_custom = ":" in layout
    if not is_custom and layout not in ("auto", *LAYOUTS):
        raise ConfigError(
            f"layout {layout!r}: unknown. {nearest(layout, LAYOUTS)}Accepted: auto, {', '.join(LAYOUTS)}. "
            'Or name your own as "package.module:Name".'
        )
    if not source.exists():
        raise DataError(
            f"{source}: there is no such file or folder. Expected a folder of recordings, or a CSV file beside it."
        )
    if is_custom:
        return layout
    if source.is_file():
        if layout not in ("auto", "csv") or source.suffix.lower() != ".csv":
            raise DataError(f"{source}: a file. Expected a folder, or for the layout csv a file that ends in .csv.")
        return "csv"
    if layout != "auto":
        return layout
    for name, candidate in LAYOUTS.items():
        if candidate.recognize(source):
            return name
    expected = "; ".join(f"{name}: {candidate.description}" for name, candidate in LAYOUTS.items())
    raise DataError(f"{source}: the layout is not recognized. Expected one of {expected}.")


def _layout(name):
    """The layout of this name, which may be a user's own."""
    if ":" not in name:
        return LAYOUTS[name]
    with allowed():  # the user names it, and no file does
        layout = import_component(name)
    if not isinstance(layout, Layout):
        raise ConfigError(f"{name}: is a {type(layout).__name__}. Expected an audiotag.data.sources.Layout.")
    return layout


def _read_custom(name, layout, source):
    """What a layout of a user's own reads, checked; the column `row` may be absent."""
    try:
        clips, vocabulary, folders = layout.read(source)
        clips = clips if "row" in clips else clips.assign(row=clips["name"])
        if missing := sorted(set(clips["subset"]) - set(folders)):
            raise ValueError(f"read() returns no folder of the subset {missing[0]!r}")
        return clips, vocabulary and tuple(vocabulary), {subset: Path(folder) for subset, folder in folders.items()}
    except Exception as error:  # whatever the user's code raises
        if isinstance(error, AudiotagError):
            raise
        raise ConfigError(f"{name}: {described(error)}") from error


def _training_labels(clips, source):
    """The labels of all clips but test clips, sorted."""
    training = clips.loc[clips["subset"] != TEST, "labels"]
    if training.empty:
        raise DataError(f"{source}: test clips only. Expected others too, whose labels are the vocabulary.")
    return tuple(sorted({label for text in training for label in split_labels(text)}))


def _check_vocabulary(vocabulary, source):
    """Raises DataError if the name of a class is invalid or repeated."""
    if not vocabulary:
        raise DataError(f"{source}: the vocabulary has no classes. Expected their names.")
    for label in vocabulary:
        if not label or "," in label or vocabulary.count(label) > 1:
            raise DataError(
                f"{source}: the vocabulary has a class {label!r}. Expected names without commas, each once."
            )
        if label in ("name", "fname") or label.endswith(" logit"):
            raise DataError(
                f"{source}: a class cannot be called {label!r}, as other columns have such names. Rename it."
            )
