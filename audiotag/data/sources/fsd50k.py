"""Source: FSD50K as Zenodo distributes it.

Clips of the split train are curated, those of val valid, and those of the evaluation set test.

Reference: Fonseca et al., "FSD50K: an open dataset of human-labeled sound events", 2020,
https://arxiv.org/abs/2010.00475.
"""

from pathlib import Path

import pandas as pd

from audiotag.data.clips import csv_lines, read_table
from audiotag.data.sources.class_names import split_subset
from audiotag.data.sources.files import (
    Found,
    clips_of,
    csv_files,
    files_below,
    header_of,
    refuse_empty_labels,
    tables_with,
    unused_columns,
    with_audio,
)
from audiotag.errors import DataError

COLUMNS = ("fname", "labels", "mids")


def is_fsd50k(source: Path) -> bool:
    """Whether a table has FSD50K's columns, or a folder its name."""
    folders = {name.split("/")[0].lower() for name, _ in files_below(source, 1) if "/" in name}
    return any(folder.startswith("fsd50k") for folder in folders) or bool(tables_with(source, *COLUMNS))


def read_fsd50k(source: Path) -> Found:
    """Reads dev.csv, and eval.csv and vocabulary.csv if they are there."""
    tables = tables_with(source, *COLUMNS)
    development = [path for path in tables if "split" in header_of(path)]
    evaluation = [path for path in tables if path not in development]
    if len(development) != 1 or len(evaluation) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in tables) or "none"
        raise DataError(
            f"{source}: the tables with the columns {','.join(COLUMNS)} are {names}. Expected FSD50K's dev.csv, which "
            "has the column split too, and eval.csv. Put them there, as in FSD50K.ground_truth/."
        )
    table = read_table(development[0], [*COLUMNS, "split"])
    subsets = []
    for row, word in table["split"].items():
        if (subset := split_subset(word, ["train", "val"])) not in ("curated", "valid"):
            raise DataError(f"{row}: split is {word!r}. Expected train or val.")
        subsets.append(subset)
    folder, table = with_audio(source, table.assign(subset=subsets))
    clips, folders = [clips_of(table, "curated")], {"curated": folder, "valid": folder}
    notes = unused_columns(development[0], [*COLUMNS, "split"])
    for path in evaluation:
        folder, table = with_audio(source, read_table(path, COLUMNS))
        notes += unused_columns(path, COLUMNS)
        if any((folder / name).exists() for name in table["fname"]):
            clips.append(clips_of(table, "test"))
            folders["test"] = folder
        else:
            notes.append(f"{path}: none of its {len(table)} recordings are there; they are left out.")
    both = refuse_empty_labels(pd.concat(clips))
    return Found(both, _vocabulary(development[0].parent), folders, tuple(notes))


def _vocabulary(folder):
    """The classes in the rows "0,Accelerating_and_revving_and_vroom,/m/07q2z82" of vocabulary.csv, if it is there."""
    for path in csv_files(folder):
        if path.name.lower() == "vocabulary.csv":
            rows = [fields for _, fields in csv_lines(path)]
            if all(len(fields) == 3 and fields[0] == str(index) for index, fields in enumerate(rows)):
                return tuple(fields[1].strip() for fields in rows)
            raise DataError(f"{path}: expected rows such as 0,Accordion,/m/0mkg, counted from 0.")
    return None
