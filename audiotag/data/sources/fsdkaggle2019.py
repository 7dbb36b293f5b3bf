"""Source: FSDKaggle2019 as Kaggle and as Zenodo distribute it.

Reference: Fonseca et al., "Audio tagging with noisy labels and minimal supervision", 2019,
https://arxiv.org/abs/1906.02975.
"""

from pathlib import Path

import pandas as pd

from audiotag.data.clips import check_clips, csv_lines, read_table
from audiotag.data.sources.files import clips_of, refuse_empty_labels
from audiotag.errors import DataError

FOLDERS = {"curated": "train_curated", "noisy": "train_noisy", "test": "test"}  # {subset: its folder and table}
# The clips of FSDKaggle2019 that its authors and the winner of the competition found to have wrong labels.
RENAMED = "wrong label ({}): a renaming bug gave the file another clip's name"
KNOWN_BAD = {
    "1d44b0bd.wav": "no signal (labeled Whispering)",
    "6a1f682a.wav": RENAMED.format("Male_speech_and_man_speaking"),
    "7752cc8a.wav": RENAMED.format("Male_speech_and_man_speaking"),
    "77b925c2.wav": RENAMED.format("Stream"),
    "c7db12aa.wav": RENAMED.format("Male_speech_and_man_speaking"),
    "f76181c4.wav": RENAMED.format("Male_speech_and_man_speaking"),
}


def is_kaggle2019(source: Path) -> bool:
    """Whether there is Kaggle's table or folder of curated clips."""
    return (source / "train_curated.csv").exists() or (source / "train_curated").is_dir()


def read_kaggle2019(source: Path) -> tuple[pd.DataFrame, tuple[str, ...], dict[str, Path]]:
    """Reads Kaggle's layout; labels of test clips, published later, are optional."""
    sample = source / "sample_submission.csv"
    if not sample.is_file():
        raise DataError(f"{sample}: not found. Its header lists the classes and its rows the test clips. Put it there.")
    submission = read_table(sample, ["fname"])
    vocabulary = tuple(submission.columns.drop("fname"))
    folders = existing_folders({subset: source / folder for subset, folder in FOLDERS.items()})
    clips = [label_table(source / f"{FOLDERS[subset]}.csv", subset) for subset in folders if subset != "test"]
    if "test" in folders:
        clips.append(kaggle_test_clips(source, submission))
    return pd.concat(clips), vocabulary, folders


def kaggle_test_clips(source: Path, submission: pd.DataFrame) -> pd.DataFrame:
    """The clips of sample_submission.csv, with labels if there is a table of them.

    The table may have more clips: Kaggle published only some of the clips that were labeled in the end.
    """
    listed = clips_of(submission[["fname"]].assign(labels=""), "test")
    check_clips(listed)
    for path in (source / "test_post_competition.csv", source / "test_labels.csv"):
        if path.is_file():
            labeled = label_table(path, "test")
            names = set(labeled["name"])
            for row, name in zip(listed["row"], listed["name"]):
                if name not in names:
                    raise DataError(f"{row}: {name!r} has no row in {path}. Add its labels, or remove that table.")
            return labeled[labeled["name"].isin(set(listed["name"]))]
    return listed


def is_zenodo2019(source: Path) -> bool:
    """Whether there are Zenodo's folders FSDKaggle2019.*."""
    return any(source.glob("FSDKaggle2019.*"))


def read_zenodo2019(source: Path) -> tuple[pd.DataFrame, tuple[str, ...] | None, dict[str, Path]]:
    """Reads Zenodo's layout; vocabulary.csv is optional."""
    meta = source / "FSDKaggle2019.meta"
    folders = existing_folders({s: source / f"FSDKaggle2019.audio_{folder}" for s, folder in FOLDERS.items()})
    clips = [label_table(meta / f"{FOLDERS[subset]}_post_competition.csv", subset) for subset in folders]
    classes = meta / "vocabulary.csv"
    return pd.concat(clips), read_vocabulary(classes) if classes.is_file() else None, folders


def existing_folders(folders: dict[str, Path]) -> dict[str, Path]:
    """The folder of curated audio and, as they are optional, existing others."""
    return {subset: folder for subset, folder in folders.items() if subset == "curated" or folder.is_dir()}


def read_vocabulary(path: Path) -> tuple[str, ...]:
    """Reads vocabulary.csv: rows "0,Accordion", counted from 0, without a header."""
    vocabulary: list[str] = []
    for line, fields in csv_lines(path):
        index = len(vocabulary)
        if len(fields) != 2 or fields[0].strip() != str(index):
            raise DataError(
                f"{path} line {line}: found {','.join(fields)!r}. Expected '{index},' and the name of a class."
            )
        vocabulary.append(fields[1].strip())
    return tuple(vocabulary)


def label_table(path: Path, subset: str) -> pd.DataFrame:
    """Reads one of FSDKaggle2019's tables, which holds the clips of one subset."""
    table = read_table(path, ["fname", "labels"]).rename(columns={"freesound_id": "group"})
    return refuse_empty_labels(clips_of(table, subset))
