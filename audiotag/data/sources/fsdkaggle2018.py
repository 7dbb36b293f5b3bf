"""Source: FSDKaggle2018 as Kaggle and as Zenodo distribute it.

Every clip has one label. Training clips whose label was verified by hand are curated, the others noisy.

Reference: Fonseca et al., "General-purpose tagging of Freesound audio with AudioSet labels", DCASE 2018,
https://arxiv.org/abs/1807.09902.
"""

from pathlib import Path

import pandas as pd

from audiotag.data.clips import csv_lines, read_table
from audiotag.data.sources.files import clips_of, csv_files, refuse_empty_labels
from audiotag.errors import DataError

SUBSETS = {"1": "curated", "0": "noisy"}  # by manually_verified
TRAIN_TABLES = ("train_post_competition.csv", "train.csv")  # the first one that is there; both list the same clips
TEST_TABLES = ("test_post_competition_scoring_clips.csv", "test_post_competition.csv")
IGNORED = "Ignored"  # usage of clips that Kaggle added to the test clips and that are not scored
EMPTY = "no audio, and not scored"
KNOWN_BAD = {"0b0427e2.wav": EMPTY, "6ea0099f.wav": EMPTY, "b39975f5.wav": EMPTY}

FoundClips = tuple[pd.DataFrame, None, dict[str, Path]]


def is_kaggle2018(source: Path) -> bool:
    """Whether a table has the column manually_verified.

    Without any table it is the folder audio_train/ that counts, so that it is not read as a class.
    """
    tables = [source / name for name in TRAIN_TABLES if (source / name).is_file()]
    if any("manually_verified" in next(csv_lines(path), (0, []))[1] for path in tables):
        return True
    return (source / "audio_train").is_dir() and not csv_files(source)


def read_kaggle2018(source: Path) -> FoundClips:
    """Reads Kaggle's layout; labels of test clips, published later, are optional."""
    return _read(source, source / "audio_train", source / "audio_test", samples=source / "sample_submission.csv")


def is_zenodo2018(source: Path) -> bool:
    """Whether there are Zenodo's folders FSDKaggle2018.*."""
    return any(source.glob("FSDKaggle2018.*"))


def read_zenodo2018(source: Path) -> FoundClips:
    """Reads Zenodo's layout."""
    prefix = "FSDKaggle2018."
    return _read(source / f"{prefix}meta", source / f"{prefix}audio_train", source / f"{prefix}audio_test")


def _read(tables, train, test, *, samples=None):
    """The clips of both folders; test clips may be left out, with their folder."""
    folders = {"curated": train, "noisy": train}
    clips = [_training_clips(tables)]
    if test.is_dir():
        folders["test"] = test
        clips.append(_test_clips(tables, samples))
    return pd.concat(clips), None, folders


def _training_clips(folder):
    """The training clips, curated or noisy by manually_verified."""
    path = next((folder / name for name in TRAIN_TABLES if (folder / name).is_file()), folder / TRAIN_TABLES[-1])
    table = read_table(path, ["fname", "label", "manually_verified"])
    for row, verified in table["manually_verified"].items():
        if verified not in SUBSETS:
            raise DataError(f"{row}: manually_verified is {verified!r}. Expected 1 or 0.")
    return _clips(table.assign(subset=table["manually_verified"].map(SUBSETS)), "curated")


def _test_clips(folder, samples):
    """The scored test clips; without a table of their labels, all clips of sample_submission.csv."""
    for name in TEST_TABLES:
        if (folder / name).is_file():
            table = read_table(folder / name, ["fname", "label", "usage"])
            for row, label, usage in zip(table.index, table["label"], table["usage"]):
                if (label == "None") != (usage == IGNORED):
                    raise DataError(
                        f"{row}: label is {label!r} and usage {usage!r}. Expected the label None for the usage "
                        f"{IGNORED}, and a class for Public and Private."
                    )
            scored = table[table["usage"] != IGNORED]
            if scored.empty:
                raise DataError(f"{folder / name}: no clip is scored. Expected the usage Public or Private.")
            return _clips(scored, "test")
    if samples is None:
        raise DataError(f"{folder / TEST_TABLES[0]}: not found. It lists the test clips. Put it there.")
    if not samples.is_file():
        raise DataError(
            f"{folder}: neither {' nor '.join((*TEST_TABLES, samples.name))}, which list the test clips. Put one "
            "there, or move the folder of test clips away."
        )
    return clips_of(read_table(samples, ["fname"]).assign(labels="")[["fname", "labels"]], "test")


def _clips(table, subset):
    """A table of clips from rows with one label each."""
    for row, label in table["label"].items():
        if "," in label:
            raise DataError(f"{row}: label is {label!r}. Expected one class, as in all of FSDKaggle2018.")
    return refuse_empty_labels(clips_of(table.rename(columns={"label": "labels", "freesound_id": "group"}), subset))
