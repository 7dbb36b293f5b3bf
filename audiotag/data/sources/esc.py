"""Source: ESC-10 and ESC-50.

Reference: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015,
https://doi.org/10.1145/2733373.2806390.
"""

import re
from pathlib import Path

import pandas as pd

from audiotag.data.clips import read_table
from audiotag.data.sources.class_folders import single_label
from audiotag.data.sources.files import (
    Found,
    audio_names,
    clips_of,
    files_below,
    only_table,
    refuse_empty_labels,
    refuse_missing_folds,
    tables_with,
    unused_columns,
    with_audio,
)
from audiotag.errors import DataError

COLUMNS = ("filename", "fold", "category", "src_file")
KNOWN = ("target", "esc10", "take")
ESC_CLIP = re.compile(r"\d+ - (?P<label>[^/]+)/(?P<fold>\d+)-(?P<recording>\d+)-[A-Z](-\d+)?\.\w+")


def is_esc(source: Path) -> bool:
    """Whether there is ESC-50's table, or a clip named and numbered as in ESC-10."""
    numbered = re.compile(r"0(0[1-9]|10) - .*")
    if any(ESC_CLIP.fullmatch(name) and numbered.match(name) for name, _ in files_below(source, 1)):
        return True
    return (source / "meta" / "esc50.csv").exists() or bool(tables_with(source, *COLUMNS))


def read_esc(source: Path) -> Found:
    """Reads ESC-50's esc50.csv, or ESC-10's folders such as "001 - Dog bark"."""
    if (source / "meta" / "esc50.csv").exists() or tables_with(source, *COLUMNS):
        path = source / "meta" / "esc50.csv"
        path = path if path.exists() else only_table(source, "esc50.csv", *COLUMNS)
        rows = read_table(path, COLUMNS).rename(columns={"category": "labels"})
        rows = rows.assign(fname=rows["filename"], group=rows["fold"] + "-" + rows["src_file"])
        folder, rows = with_audio(source, rows)
        if folder == source / "audio":  # as in its repository
            folder, rows = source, rows.assign(fname="audio/" + rows["fname"])
        clips = refuse_missing_folds(refuse_empty_labels(clips_of(rows, "curated")))
        return Found(clips, None, {"curated": folder}, tuple(unused_columns(path, COLUMNS, KNOWN)))
    records = []
    for name in audio_names(source):
        match = ESC_CLIP.fullmatch(name)
        if not match:
            raise DataError(f"{source / name}: expected a path such as '001 - Dog bark/1-100032-A.ogg' as in ESC-10.")
        records.append(
            single_label(name, "curated", match["label"], int(match["fold"]), f"{match['fold']}-{match['recording']}")
        )
    return Found(pd.DataFrame(records), None, {"curated": source})
