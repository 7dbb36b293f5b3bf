"""Source: UrbanSound8K, with its ten folds.

Reference: J. Salamon, C. Jacoby and J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research", 2014,
https://urbansounddataset.weebly.com/urbansound8k.html.
"""

import re
from pathlib import Path

from audiotag.data.clips import read_table
from audiotag.data.sources.files import (
    Found,
    clips_of,
    files_below,
    only_table,
    refuse_empty_labels,
    refuse_missing_folds,
    tables_with,
    unused_columns,
    with_audio,
)

COLUMNS = ("slice_file_name", "fsID", "fold", "class")
KNOWN = ("start", "end", "salience", "classid")
CLIP = re.compile(r"(.*/)?fold\d+/\d+-\d+-\d+-\d+\.wav", re.IGNORECASE)


def is_urbansound8k(source: Path) -> bool:
    """Whether there is its table, or a clip with its file name in a fold."""
    return any(CLIP.fullmatch(name) for name, _ in files_below(source, 2)) or bool(tables_with(source, *COLUMNS))


def read_urbansound8k(source: Path) -> Found:
    """Reads UrbanSound8K.csv; clips of one recording of Freesound are a group."""
    path = only_table(source, "UrbanSound8K.csv", *COLUMNS)
    rows = read_table(path, COLUMNS).rename(columns={"class": "labels", "fsID": "group"})
    rows = rows.assign(fname="fold" + rows["fold"] + "/" + rows["slice_file_name"])
    folder, rows = with_audio(source, rows)
    clips = refuse_missing_folds(refuse_empty_labels(clips_of(rows, "curated")))
    return Found(clips, None, {"curated": folder}, tuple(unused_columns(path, COLUMNS, KNOWN)))
