"""Checks of class names, so that nothing else becomes a class.

For example splits, several names in one, and one name in two spellings. A vocabulary file, which lists the classes,
settles what is doubtful.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import pandas as pd

from audiotag.config.signatures import nearest
from audiotag.data.clips import csv_lines, rows
from audiotag.errors import DataError

TRAIN: tuple[str, ...] = ("train", "training", "trn", "tr", "curated")
VALID = ("val", "valid", "validation", "validate")
HELD_OUT = ("test", "testing", "tst", "holdout")
DEVELOPMENT, EVALUATION = ("dev", "devel", "development"), ("eval", "evaluation", "evaluate")
SPLIT_WORDS = (
    *TRAIN,
    *VALID,
    *HELD_OUT,
    *DEVELOPMENT,
    *EVALUATION,
    "noisy",
    "unlabeled",
    "unlabelled",
    "split",
    "fold",
)
# Words that may stand beside one of those in the name of a folder, and are no class themselves.
FOLDER_WORDS: tuple[str, ...] = (
    "audio",
    "wav",
    "wavs",
    "flac",
    "mp3",
    "ogg",
    "sound",
    "sounds",
    "clip",
    "clips",
    "data",
    "dataset",
)
FOLDER_WORDS += ("set", "files", "recordings", "raw", "segments", "samples")
FOLD = re.compile(r"(fold|split|part|cv|kfold)[ _-]*(?P<number>\d+)", re.IGNORECASE)
REMEDY = "or list the classes in a file, one per line, and name it with --vocabulary"


def split_subset(word: str, words: Iterable[str]) -> str | None:
    """The subset that the name of a split means, or None for another word.

    `words` are the names of all splits.

    train is curated, validation is valid. dev is curated too, but valid beside train; eval is test, but valid beside
    test.

    Example:
        >>> [split_subset(word, ["train", "dev", "test"]) for word in ("Train", "dev", "test", "rain")]
        ['curated', 'valid', 'test', None]
    """
    word, others = word.strip().lower(), {other.strip().lower() for other in words}
    if word in TRAIN:
        return "curated"
    if word in VALID:
        return "valid"
    if word in HELD_OUT:
        return "test"
    if word in DEVELOPMENT:
        return "valid" if others.intersection(TRAIN) else "curated"
    if word in EVALUATION:
        return "valid" if others.intersection(HELD_OUT) else "test"
    return None


def refuse_split_names(vocabulary: Collection[str], source: Path) -> None:
    """Refuses class names that are splits or folds.

    Raises:
        DataError: All classes are such words, or there are train and test or validation among them, or all clips have
            the name of a folder of audio as their label.
    """
    exact = {name.strip().lower(): name for name in vocabulary}
    training = [exact[word] for word in TRAIN if word in exact]
    others = [exact[word] for word in (*VALID, *HELD_OUT, *EVALUATION) if word in exact]
    rests: set[tuple[str, ...] | str] = set()
    for name in vocabulary:
        words = [word for word in re.split(r"[^a-z]+", FOLD.sub("fold", name.lower())) if word]
        rest = tuple(word for word in words if word not in (*SPLIT_WORDS, *FOLDER_WORDS))
        rests.add(rest if {*words} & {*SPLIT_WORDS} else name)
    all_splits = len(rests) == 1 and isinstance(next(iter(rests)), tuple)
    only_folder = len(exact) == 1 and next(iter(exact)) in FOLDER_WORDS
    if all_splits or training and others or only_folder:
        names = ", ".join([*training, *others] if training and others else list(vocabulary)[:5])
        raise DataError(
            f"{source}: the classes would be {names}: names of splits, folds or folders, not of sounds. Put one "
            "folder per class inside each, as train/Bark/a.wav and test/Bark/b.wav, or write a CSV file "
            f"fname,labels,subset, {REMEDY}."
        )


def refuse_doubtful(clips: pd.DataFrame, vocabulary: Sequence[str], source: Path) -> None:
    """Refuses labels that may be several or parts of one, and double spellings.

    Args:
        clips: A table of clips with the column `text`, the labels as they are written in a table.
        vocabulary: The class names.
        source: The dataset, for messages.

    Raises:
        DataError: Names the labels, and how to settle it.
    """
    for row, text, labels in zip(rows(clips), clips.get("text", clips["labels"]), clips["labels"]):
        if bracketed := re.fullmatch(r"\s*[\[({].*[\])}]\s*", text):
            raise DataError(
                f"{row}: labels {text!r} look like a list written by a program. Write the names with commas between "
                f"them, as {bare_names(bracketed[0])!r}, {REMEDY}."
            )
        if found := re.search(r"[;|]", labels):
            raise DataError(
                f"{row}: labels {text!r}: {found[0]!r} may separate several labels, or be part of one name. Labels are "
                f"separated by commas: write {re.sub(r' *[;|] *', ',', labels)!r}, {REMEDY}."
            )
        if re.search(r"(^|,)\s*[A-Z][^,]*, +[a-z]", text):
            raise DataError(
                f"{row}: labels {text!r} look like one name of AudioSet, whose names have commas. If they are several "
                f"labels, write {labels!r}, without a space after the comma; if they are one, list the classes in a "
                "file, one per line, and name it with --vocabulary."
            )
    spellings: dict[str, str] = {}
    for name in vocabulary:
        other = spellings.setdefault(re.sub(r"[\s_-]+", "_", name.casefold()), name)
        if other != name:
            raise DataError(
                f"{source}: the classes {other!r} and {name!r} differ only in upper and lower case, spaces or "
                f"underscores. Write them in one way, {REMEDY}."
            )


def bare_names(text: str) -> str:
    """A list as programs write it, without brackets and quotation marks.

    Example:
        >>> bare_names("['Bark', 'Dog']")
        'Bark,Dog'
    """
    return ",".join(part.strip().strip("'\"") for part in text.strip().strip("[](){}").split(","))


def read_vocabulary_file(path: str | Path) -> tuple[str, ...]:
    """The class names in a file, one per line, in its order.

    A line may be CSV: an index before the name, or quotation marks around a name with commas. Of a file with the column
    display_name, class, label or name, as AudioSet's class_labels_indices.csv, that column is read.

    Raises:
        DataError: The file cannot be read, has no classes, or one twice.
    """
    path = Path(path)
    lines = [fields for _, fields in csv_lines(path)]
    header = [field.strip().lower() for field in lines[0]] if lines else []
    column = next((header.index(name) for name in ("display_name", "class", "label", "name") if name in header), None)
    if column is not None and len(lines) > 1:
        names = [fields[column] if column < len(fields) else "" for fields in lines[1:]]
    elif all(len(fields) >= 2 and fields[0].strip() == str(index) for index, fields in enumerate(lines)):
        names = [fields[1] for fields in lines]
    else:
        names = [",".join(fields) for fields in lines]  # a name with commas needs no quotation marks
    names = [",".join(part.strip() for part in name.split(",")) for name in names]
    if not names or "" in names:
        raise DataError(f"{path}: a line without the name of a class. Expected one name per line.")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"{path}: the class {twice!r} is listed twice. List each once.")
    return tuple(names)


def class_name(name: str) -> str:
    """The name of a class without commas, which separate labels.

    Example:
        >>> class_name("Accelerating,revving,vroom")
        'Accelerating and revving and vroom'
    """
    return " and ".join(part.strip() for part in name.split(","))


def resolve(text: str, names: Sequence[str]) -> str:
    """The labels that a text means, given the class names, joined by commas.

    Commas, semicolons, bars and brackets separate labels where they are no part of a name; upper and lower case count
    only where names differ in nothing else.

    Raises:
        DataError: A part of the text is no class.

    Example:
        >>> resolve("['bark', 'Bell, church']; Rain", ["Bark", "Bell,church", "Rain"])
        'Bark,Bell and church,Rain'
    """
    exact = {name: name for name in names}
    folded = [name.casefold() for name in names]
    by_case = {name.casefold(): name for name in names if folded.count(name.casefold()) == 1}
    known = lambda text: exact.get(text) or by_case.get(text.casefold())
    text = ",".join(part.strip() for part in text.split(","))
    if not text:
        return ""
    if whole := known(text):
        return class_name(whole)
    text = bare_names(text) if re.fullmatch(r"[\[({].*[\])}].*", text) else text
    parts = [part.strip().strip("[](){}'\"").strip() for part in re.split(r"[;|,]", text)]
    found = []
    while parts:
        for length in range(len(parts), 0, -1):
            if name := known(",".join(parts[:length])):
                break
        else:
            raise DataError(
                f"unknown label {parts[0]!r}. {nearest(parts[0], names)}Expected the {len(names)} classes of the "
                "vocabulary file."
            )
        found.append(class_name(name))
        parts = parts[length:]
    return ",".join(dict.fromkeys(found))
