"""FSDKaggle2019 as Kaggle and as Zenodo distribute it."""


import pandas as pd

from audiotag.data.clips import check_clips, csv_lines, read_table
from audiotag.data.sources.files import clips_of
from audiotag.errors import DataError

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


def label_table(path, subset):
    """The clips in one of FSDKaggle2019's tables, all of one subset."""
    return clips_of(read_table(path, ["fname", "labels"]).rename(columns={"freesound_id": "group"}), subset)


def _looks_like_kaggle(source):
    return (source / "train_curated.csv").exists() or (source / "train_curated").is_dir()


def _looks_like_zenodo(source):
    return any(source.glob("FSDKaggle2019.*"))
