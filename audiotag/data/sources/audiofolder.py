"""Source: AudioFolder of Hugging Face: metadata.csv or .jsonl beside the audio.

Reference: https://huggingface.co/docs/datasets/audio_dataset#audiofolder
"""

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from audiotag.data.clips import read_table
from audiotag.data.sources.class_names import class_name, split_subset
from audiotag.data.sources.files import Found, audio_names, clips_of, files_below
from audiotag.errors import DataError

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABELS = ("label", "labels", "class", "category", "classes", "tags")
OPTIONAL = ("subset", "fold", "group", "usage")


def is_audiofolder(source: Path) -> bool:
    """Whether there is a metadata file in the folder, or in one of its folders."""
    return any(name.lower().rpartition("/")[2] in TABLES for name, _ in files_below(source, 2))


def read_audiofolder(source: Path) -> Found:
    """Reads every metadata file; folders train, validation and test are the subsets.

    Raises:
        DataError: A metadata file has no column of labels, or a folder of recordings has no metadata file.
    """
    metadata = sorted((name, entry.path) for name, entry in files_below(source, 2) if _is_metadata(name))
    tables, notes = [], []
    for name, path in metadata:
        folder = name.rpartition("/")[0]
        table, unused = _read(Path(path))
        notes += [f"{path}: columns that are not used: {', '.join(unused)}."] if unused else []
        tables.append(table.assign(fname=[f"{folder}/{file}" if folder else file for file in table["fname"]]))
    rows = pd.concat(tables)
    rows = rows.assign(fname=[file.replace("/./", "/").removeprefix("./") for file in rows["fname"]])
    if "subset" not in rows:
        rows = rows.assign(subset=_subsets(rows["fname"]))
    listed = {name.split("/")[0] for name in rows["fname"]}
    for name in audio_names(source):
        if "/" in name and name.split("/")[0] not in listed:
            raise DataError(
                f"{source / name.split('/')[0]}: has recordings, and no metadata file lists any of them. Add their "
                "metadata.csv, or move the folder away."
            )
    clips = clips_of(rows.fillna(""), "curated")
    return Found(clips, None, dict.fromkeys(clips["subset"], source), tuple(notes))


def _is_metadata(name):
    return name.lower().rpartition("/")[2] in TABLES


def _subsets(names: Iterable[str]) -> list[str]:
    """The subset of each file: what its first folder means, if the first folders of all are splits."""
    names = list(names)
    first = {name.split("/")[0] if "/" in name else "" for name in names}
    if all(split_subset(folder, first) for folder in first):
        return [split_subset(name.split("/")[0], first) or "" for name in names]
    if any(split_subset(folder, first) for folder in first):
        raise DataError(
            f"the folders are {', '.join(sorted(first))}: some are splits and some are not. Expected train, validation "
            "and test, or none of them."
        )
    return ["curated"] * len(names)


def _read(path):
    """(the rows of a metadata file with fname and labels, its columns that are not used)."""
    if path.suffix.lower() == ".parquet":
        raise DataError(f"{path}: audiotag reads no Parquet here. Write it as metadata.csv or metadata.jsonl.")
    table = read_table(path, ["file_name"]) if path.suffix.lower() == ".csv" else _read_jsonl(path)
    found = [column for column in LABELS if column in table]
    if len(found) != 1:
        raise DataError(
            f"{path}: {'several columns of labels: ' + ', '.join(found) if found else 'no column of labels'}; its "
            f"columns are {', '.join(table.columns)}. Call the one with labels label, and others by other words."
        )
    unused = [column for column in table if column not in ("file_name", found[0], *OPTIONAL)]
    return table.rename(columns={"file_name": "fname", found[0]: "labels"}).drop(columns=unused), unused


def _read_jsonl(path):
    """A table of text from a file with a JSON object per line; lists of labels are joined by commas."""
    rows, names = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
                raise ValueError
        except ValueError:
            raise DataError(f"{path} line {number}: expected a JSON object with file_name. Correct it.") from None
        text = {key: _text(value, key) for key, value in row.items()}
        rows.append(text)
        names.append(f"{path.name} line {number}")
    if not rows:
        raise DataError(f"{path}: has no rows. Expected one per recording.")
    return pd.DataFrame(rows, index=pd.Index(names, name="row")).fillna("")


def _text(value, key):
    """A value of JSON as the text of a cell."""
    if value is None:
        return ""
    if isinstance(value, list) and key in LABELS:
        return ",".join(class_name(str(label)) for label in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
