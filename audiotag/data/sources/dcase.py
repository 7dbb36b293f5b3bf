"""Source: acoustic scenes of DCASE challenges: meta.csv and evaluation_setup/.

With one fold, as since 2018, the clips that it evaluates are test clips; with several, each clip has the fold that
evaluates it.

Reference: A. Mesaros, T. Heittola and T. Virtanen, "A multi-device dataset for urban acoustic scene classification",
2018, https://arxiv.org/abs/1807.09840.
"""

import re
from pathlib import Path

from audiotag.data.clips import csv_lines, read_table
from audiotag.data.sources.files import (
    Found,
    clips_of,
    files_below,
    only_table,
    refuse_empty_labels,
    tables_with,
    unused_columns,
    with_audio,
)
from audiotag.errors import DataError

COLUMNS = ("filename", "scene_label")
KNOWN = ("identifier", "source_label")
SETUP = re.compile(r"(?P<folder>.*/)?fold(?P<fold>\d+)_(?P<part>train|evaluate)\.(csv|txt)", re.IGNORECASE)


def is_dcase(source: Path) -> bool:
    """Whether there is a table with its columns."""
    return bool(tables_with(source, *COLUMNS))


def read_dcase(source: Path) -> Found:
    """Reads meta.csv and the lists; clips of one location are a group.

    Raises:
        DataError: A table is missing, or a list names a clip that meta.csv lacks.
    """
    path = _meta(source)
    table = read_table(path, COLUMNS).rename(columns={"filename": "fname", "scene_label": "labels"})
    table = table.rename(columns={"identifier": "group"})
    setup: dict[str, dict[int, list[str]]] = {"train": {}, "evaluate": {}}
    for name, entry in files_below(source, 2):
        if match := SETUP.fullmatch(name):
            rows = [fields for _, fields in csv_lines(entry.path)]
            listed = [fields[0].strip() for fields in rows if fields[0].strip() != "filename"]
            setup[match["part"].lower()][int(match["fold"])] = listed
    if not setup["evaluate"] or setup["train"].keys() != setup["evaluate"].keys():
        raise DataError(
            f"{source}: expected evaluation_setup/ with fold1_train.csv and fold1_evaluate.csv, or such a pair for "
            "each fold, which say which clips are for training. Put them there."
        )
    known, notes = set(table["fname"]), unused_columns(path, COLUMNS, KNOWN)
    for part, folds in setup.items():
        for fold, names in folds.items():
            if strange := sorted(set(names) - known):
                raise DataError(
                    f"{source}: fold{fold}_{part} lists {strange[0]!r}, which is not in {path}. Add its row."
                )
    if len(setup["evaluate"]) == 1:
        (train,), (evaluate,) = setup["train"].values(), setup["evaluate"].values()
        if both := sorted(set(train) & set(evaluate)):
            raise DataError(f"{source}: fold 1 trains on {both[0]!r} and evaluates it. Remove it from one list.")
        subset = dict.fromkeys(train, "curated") | dict.fromkeys(evaluate, "test")
        used = table["fname"].isin(set(subset))
        if (~used).any():
            notes.append(f"{path}: {(~used).sum()} clips are in neither list of evaluation_setup/, and are left out.")
        table = table[used].assign(subset=table["fname"][used].map(subset))
    else:
        fold_of = {name: str(fold) for fold, names in setup["evaluate"].items() for name in names}
        table = table.assign(fold=table["fname"].map(fold_of).fillna(""))
    folder, table = with_audio(source, table)
    clips = refuse_empty_labels(clips_of(table, "curated"))
    return Found(clips, None, dict.fromkeys(clips["subset"], folder), tuple(notes))


def _meta(source):
    """meta.csv: the table with these columns that is no list of a fold."""
    found = [path for path in tables_with(source, *COLUMNS) if not SETUP.fullmatch(path.name)]
    if len(found) != 1 and (called := [path for path in found if path.name.lower() == "meta.csv"]):
        found = called
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{source}: meta.csv is missing, the table with the columns {','.join(COLUMNS)}. Put it there.")
    return only_table(source, "meta.csv", *COLUMNS)
