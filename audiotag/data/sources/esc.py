"""Source: ESC-10 and ESC-50.

Reference: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", 2015,
https://doi.org/10.1145/2733373.2806390.
"""

import re
from pathlib import Path

import pandas as pd

from audiotag.data.clips import read_table
from audiotag.data.sources.class_folders import single_label
from audiotag.data.sources.files import audio_names, clips_of, files_below
from audiotag.errors import DataError

ESC_CLIP = re.compile(r"\d+ - (?P<label>[^/]+)/(?P<fold>\d+)-(?P<recording>\d+)-[A-Z](-\d+)?\.\w+")


def is_esc(source: Path) -> bool:
    """Whether there is ESC-50's table, or a clip with ESC's file name in a folder."""
    return (source / "meta" / "esc50.csv").exists() or any(
        ESC_CLIP.fullmatch(name) for name, _ in files_below(source, 1)
    )


def read_esc(source: Path) -> tuple[pd.DataFrame, None, dict[str, Path]]:
    """Reads ESC-50's meta/esc50.csv, or ESC-10's folders such as "001 - Dog bark"."""
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
            single_label(name, "curated", match["label"], int(match["fold"]), f"{match['fold']}-{match['recording']}")
        )
    return pd.DataFrame(records), None, {"curated": source}
