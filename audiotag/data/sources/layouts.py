"""From a folder of recordings and label tables to one table of clips, in each of the ways such folders are laid out.

A layout only says where names and labels stand. What holds for all of them, that every clip has known labels and lies
where its table says, is checked once, in `find_clips`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from audiotag.config.signatures import nearest
from audiotag.data.clips import COLUMNS, check_clips, check_labels
from audiotag.data.labels import split_labels
from audiotag.data.sources.class_folders import _looks_like_folders, folder_a_class
from audiotag.data.sources.csv_table import _looks_like_csv, csv_beside_audio
from audiotag.data.sources.esc import _looks_like_esc, esc
from audiotag.data.sources.files import locate
from audiotag.data.sources.fsdkaggle2019 import (
    KNOWN_BAD,
    _looks_like_kaggle,
    _looks_like_zenodo,
    kaggle2019,
    zenodo2019,
)
from audiotag.errors import ConfigError, DataError


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


# What the readers share


# All layouts


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
