"""ESC-10 and ESC-50."""

import re

import pandas as pd

from audiotag.data.clips import read_table
from audiotag.data.sources.class_folders import one_label
from audiotag.data.sources.files import audio_names, clips_of, files_below
from audiotag.errors import DataError

ESC_CLIP = re.compile(r"\d+ - (?P<label>[^/]+)/(?P<fold>\d+)-(?P<recording>\d+)-[A-Z](-\d+)?\.\w+")


def esc(source):
    """ESC-10 and ESC-50: a table meta/esc50.csv, or folders such as "001 - Dog bark"."""
    table = source / "meta" / "esc50.csv"
    if table.is_file():
        rows = read_table(table, ["filename", "fold", "category", "src_file"])
        rows = rows.rename(columns={"category": "labels"})
        rows = rows.assign(fname="audio/" + rows["filename"], group=rows["fold"] + "-" + rows["src_file"])
        return clips_of(rows, "curated"), None, {"curated": source}
    records = []
    for name in audio_names(source):
        match = ESC_CLIP.fullmatch(name)
        if not match:
            raise DataError(f"{source / name}: expected a path such as '001 - Dog bark/1-100032-A.ogg' as in ESC-10.")
        records.append(
            one_label(name, "curated", match["label"], int(match["fold"]), f"{match['fold']}-{match['recording']}")
        )
    return pd.DataFrame(records), None, {"curated": source}


def _looks_like_esc(source):
    return (source / "meta" / "esc50.csv").exists() or any(
        ESC_CLIP.fullmatch(name) for name, _ in files_below(source, 1)
    )
