"""Finds the clips of a dataset: recognizes, reads and checks its source.

A source only reads names and labels. What holds for all sources is checked here once: every clip has labels of the
vocabulary, or is background, and a file.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from audiotag.config.signatures import nearest
from audiotag.data.clips import COLUMNS, EXCERPT, TEST, check_clips, check_labels, rows
from audiotag.data.labels import split_labels
from audiotag.data.sources.audiofolder import is_audiofolder, read_audiofolder
from audiotag.data.sources.audioset import is_audioset, read_audioset
from audiotag.data.sources.birdnet import is_birdnet, read_birdnet
from audiotag.data.sources.class_folders import is_class_folders, read_class_folders, refuse_unread_tables
from audiotag.data.sources.class_names import (
    class_name,
    read_vocabulary_file,
    refuse_doubtful,
    refuse_split_names,
    resolve,
)
from audiotag.data.sources.csv_table import is_csv_table, read_csv_table
from audiotag.data.sources.dcase import is_dcase, read_dcase
from audiotag.data.sources.esc import ESC_CLIP, is_esc, read_esc
from audiotag.data.sources.files import Found, following_links, locate, unread_notes
from audiotag.data.sources.fsd50k import is_fsd50k, read_fsd50k
from audiotag.data.sources.fsdkaggle2018 import KNOWN_BAD as KNOWN_BAD_2018
from audiotag.data.sources.fsdkaggle2018 import is_kaggle2018, is_zenodo2018, read_kaggle2018, read_zenodo2018
from audiotag.data.sources.fsdkaggle2019 import (
    KNOWN_BAD,
    is_kaggle2019,
    is_zenodo2019,
    read_kaggle2019,
    read_zenodo2019,
)
from audiotag.data.sources.selections import is_selections, read_selections
from audiotag.data.sources.speech_commands import is_speech_commands, read_speech_commands
from audiotag.data.sources.urbansound8k import is_urbansound8k, read_urbansound8k
from audiotag.errors import AudiotagError, ConfigError, DataError, shortened


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
        notes: Sentences about what was not read: columns of tables, files, clips without labels.
    """

    layout: str
    clips: pd.DataFrame
    vocabulary: tuple[str, ...]
    excluded: dict[str, str]
    folder: Path | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How one kind of source is recognized and read.

    Attributes:
        description: What it looks like, for error messages.
        recognize: Whether a folder is such a source.
        read: Reads one: (table of clips with the column `row`, vocabulary or None if no file lists it, {subset: folder
            that the names are relative to}), and optionally notes: a `files.Found`.
        known_bad: {name: reason} of clips that are known to be bad.
    """

    description: str
    recognize: Callable[[Path], bool]
    read: Callable[[Path], Found | tuple[pd.DataFrame, tuple[str, ...] | None, dict[str, Path]]]
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
    "fsd50k": Layout("FSD50K.ground_truth/dev.csv and FSD50K.dev_audio/", is_fsd50k, read_fsd50k),
    "urbansound8k": Layout("metadata/UrbanSound8K.csv and audio/fold1/", is_urbansound8k, read_urbansound8k),
    "esc": Layout("meta/esc50.csv, or folders such as '001 - Dog bark' with ESC's file names", is_esc, read_esc),
    "dcase": Layout("DCASE's meta.csv (filename, scene_label) and evaluation_setup/", is_dcase, read_dcase),
    "audioset": Layout("AudioSet's CSV segments (# YTID) and recordings called by videos", is_audioset, read_audioset),
    "audiofolder": Layout("metadata.csv or metadata.jsonl with file_name and label", is_audiofolder, read_audiofolder),
    "speech_commands": Layout(
        "a folder per word, validation_list.txt and testing_list.txt", is_speech_commands, read_speech_commands
    ),
    "selections": Layout(
        "recordings with selection tables of Raven or label tracks of Audacity", is_selections, read_selections
    ),
    "csv": Layout("a CSV file with the columns fname,labels beside the audio", is_csv_table, read_csv_table),
    "birdnet": Layout("a folder per species, as 'Parus major_Great Tit', and Noise", is_birdnet, read_birdnet),
    "folders": Layout("one folder of audio per class", is_class_folders, read_class_folders),
}


def find_clips(
    source: str | Path,
    *,
    layout: str = "auto",
    follow_links: str | Path | None = None,
    vocabulary: str | Path | None = None,
    group_by: str | None = None,
    background: Collection[str] = (),
) -> Source:
    """Finds the recordings of a dataset and their labels; reads no audio.

    The order of rows in the tables changes nothing but `row`. Audio that no table lists is ignored.

    Args:
        source: The folder; for the layout `csv` also the table itself.
        layout: A name in `LAYOUTS`, "auto" to recognize it, or "package.module:Name" of a `Layout` of one's own.
        follow_links: A folder outside the source, such as the cache of git-annex, DVC or Hugging Face: links to files
            and folders anywhere below it are followed. Other links out of the source are refused.
        vocabulary: A file that lists the classes, one per line. It settles which labels a text means, as
            `class_names.resolve` reads it.
        group_by: A regular expression that is searched for in the name of each clip: what its first group, or all of
            it, matches is the group of the clip, such as the speaker or the recorder.
        background: Labels, or folders that are labels, that are no classes: their clips have no label unless they
            have others, and teach what none of the classes sounds like.

    Returns:
        A `Source`. If no file lists the vocabulary, it is the labels of all clips but test clips, sorted.

    Raises:
        DataError: A table, a label or a file is invalid; the message names the row and the fix.
        ConfigError: There is no such layout, or the regular expression is invalid.

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
    with following_links(follow_links):
        return _find_clips(source, layout, follow_links, vocabulary, group_by, background)


def _find_clips(source, layout, follow_links, vocabulary, group_by, background):
    """`find_clips`, which says what may be followed."""
    by_hand = layout != "auto"
    layout = _recognized_layout(source, layout)
    read_as = _layout(layout)
    found = Found(*(read_as.read(source) if layout in LAYOUTS else _read_custom(layout, read_as, source)))
    clips, classes, folders, notes = found
    if layout in ("folders", "birdnet") and not by_hand:
        refuse_unread_tables(source, clips["name"])
    if layout == "folders" and clips["name"].map(lambda name: bool(ESC_CLIP.search(f"1 - {name}"))).all():
        notes += (f"{source}: the files are called as in ESC, whose folds are read only with --layout esc.",)
    if vocabulary is not None:
        names = read_vocabulary_file(vocabulary)
        clips, classes = _with_vocabulary(clips, names), tuple(map(class_name, names))
    check_clips(clips, background=True)
    if background:
        clips = _without_labels(clips, background, source)
        classes = classes and tuple(label for label in classes if label not in background)
    if classes is None:
        classes = _training_labels(clips, source)
        refuse_split_names(classes, source)
        refuse_doubtful(clips, classes, source)
    _check_vocabulary(classes, source)
    check_labels(clips, classes)
    clips = clips.sort_values("name", ignore_index=True)
    if group_by is not None:
        clips = _grouped(clips, group_by)
    paths: dict[str, str] = {}
    for subset, group in clips.groupby("subset"):
        files = group.assign(name=group["file"]) if "file" in group else group
        located = locate(files, folders[subset], follow_links=follow_links)
        paths |= {name: located[file] for name, file in zip(group["name"], files["name"])}
    clips["path"] = clips["name"].map(paths)
    known_bad = read_as.known_bad
    excluded = {name: known_bad[name] for name in clips["name"] if name in known_bad}
    table = clips[[*COLUMNS, "path", "row", *(column for column in EXCERPT if column in clips)]]
    notes = (
        *notes,
        *unread_notes({source} if source.is_dir() else set(folders.values()), paths.values()),
        *_clip_notes(clips, classes),
    )
    return Source(layout, table, classes, excluded, source if source.is_dir() else None, notes)


def _with_vocabulary(clips, names):
    """The clips with the labels that their texts mean, given the names of the classes."""
    labels = []
    for row, text in zip(rows(clips), clips.get("text", clips["labels"])):
        try:
            labels.append(resolve(text, names))
        except DataError as error:
            raise DataError(f"{row}: {error}") from None
    return clips.assign(labels=labels)


def _grouped(clips, pattern):
    """The clips with the groups that a regular expression finds in their names."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group-by {pattern!r}: is no regular expression: {error}.") from None
    if (clips["group"] != "").any():
        first = clips[clips["group"] != ""].iloc[0]
        raise ConfigError(
            f"--group-by: the dataset has groups of its own, as {first['group']!r} of {first['name']!r}. Leave "
            "--group-by out, or remove the column group."
        )
    groups = []
    for name in clips["name"]:
        match = expression.search(name)
        group = (match[1] if expression.groups else match[0]) if match else None
        if not group:
            raise ConfigError(f"--group-by {pattern!r}: finds no group in the name {name!r}. Expected one in each.")
        groups.append(group)
    if len(set(groups)) == 1 and len(groups) > 1:
        raise ConfigError(
            f"--group-by {pattern!r}: all {len(groups)} clips are of the group {groups[0]!r}. Expected several."
        )
    return clips.assign(group=groups)


def _clip_notes(clips, classes):
    """Sentences about clips that may surprise: without labels, classes that no training clip has, other subsets."""
    notes = []
    training = clips[clips["subset"] != TEST]
    empty = training["labels"] == ""
    if empty.any():
        notes.append(f"Clips without labels: {empty.sum()}. They are examples of no class.")
    present = {label for text in training["labels"] for label in split_labels(text)}
    if absent := [label for label in classes if label not in present]:
        notes.append(f"Classes without a training clip: {len(absent)}, {', '.join(absent[:5])}.")
    subsets = sorted(set(training["subset"]))
    if "valid" in subsets:
        notes.append('The subset valid validates with "validation": {"subset": "valid"} in the experiment.')
    if (num_folds := training["fold"].max()) > 1:
        validation = f'{{"folds": {{"num_folds": {num_folds}, "by": "predefined"}}}}'
        notes.append(f'The folds of the dataset are used with "validation": {validation} in the experiment.')
    if subsets and "curated" not in subsets:
        notes.append(
            f"The subsets are {', '.join(subsets)}, and experiments train on curated by default. Call the clips with "
            'reliable labels curated, or name their subset in "trusted" and in the stages.'
        )
    return notes


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
    from audiotag.config.custom import allowed, import_component  # they read the signatures of Keras

    with allowed():  # the user names it, and no file does
        layout = import_component(name)
    if not isinstance(layout, Layout):
        raise ConfigError(f"{name}: is a {type(layout).__name__}. Expected an audiotag.data.sources.Layout.")
    return layout


def _read_custom(name, layout, source):
    """What a layout of a user's own reads, checked; the column `row` may be absent."""
    try:
        clips, vocabulary, folders, notes = Found(*layout.read(source))
        clips = clips if "row" in clips else clips.assign(row=clips["name"])
        if missing := sorted(set(clips["subset"]) - set(folders)):
            raise ValueError(f"read() returns no folder of the subset {missing[0]!r}")
        folders = {subset: Path(folder) for subset, folder in folders.items()}
        return Found(clips, vocabulary and tuple(vocabulary), folders, tuple(notes))
    except Exception as error:  # whatever the user's code raises
        if isinstance(error, AudiotagError):
            raise
        from audiotag.config.custom import described

        raise ConfigError(f"{name}: {described(error)}") from error


def _without_labels(clips, background, source):
    """The table of clips without the labels of background."""
    labels = clips["labels"].map(split_labels)
    present = sorted({label for each in labels for label in each})
    for name in background:
        if name not in present:
            raise DataError(
                f"{source}: no clip has the label {name!r}, which is to be background. {nearest(name, present)}"
                f"Its labels: {shortened(', '.join(present))}."
            )
    return clips.assign(labels=labels.map(lambda each: ",".join(label for label in each if label not in background)))


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
