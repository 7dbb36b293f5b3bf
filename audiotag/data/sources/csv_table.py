"""A CSV table of labels beside a folder of audio."""

import difflib
import unicodedata

from audiotag.data.clips import SUBSETS, csv_lines, read_table
from audiotag.data.sources.files import clips_of, csv_files
from audiotag.errors import DataError


def csv_beside_audio(source):
    """A CSV with fname, labels and maybe subset, usage, fold, group; audio next to it or in the folder beside it."""
    path = source if source.is_file() else the_label_table(source)
    table = read_table(path, ["fname", "labels"])
    optional = ("subset", "usage", "fold", "group")
    for column in table.columns.drop(["fname", "labels"]):
        near = difflib.get_close_matches(column.lower(), optional, n=1, cutoff=0.8)
        if near and column not in optional:
            raise DataError(
                f"{path} line 1: the column {column!r} is not {near[0]!r}. Rename it, to that or to another word."
            )
    clips = clips_of(table, "curated")
    return clips, None, dict.fromkeys(SUBSETS, audio_folder(path.parent, clips["name"]))


def the_label_table(source):
    """The one CSV file in a folder that can be a table of labels."""
    tables = csv_files(source)
    headers = {path.name: next(csv_lines(path), (0, []))[1] for path in tables}
    found = [path for path in tables if {"fname", "labels"} & set(headers[path.name])]
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{source}: several tables of labels: {', '.join(p.name for p in found)}. Give the path of one."
        )
    listed = (
        "; ".join(f"{name} has {','.join(header[:8])}" for name, header in headers.items()) or "there is no CSV file"
    )
    raise DataError(
        f"{source}: no table of labels: {listed}. Expected a CSV file with the columns fname,labels. "
        "Where folders are the labels, choose the layout folders."
    )


def audio_folder(here, names):
    """The folder that names in a CSV start from: the one that the CSV lies in, or the only folder beside it."""
    entries = [path for path in here.iterdir() if not path.name.startswith(".")]
    folders = [path for path in entries if path.is_dir()]
    first_parts = {name.split("/")[0] for name in names}
    next_to_it = any(unicodedata.normalize("NFC", path.name) in first_parts for path in entries)
    return folders[0] if len(folders) == 1 and not next_to_it else here


def _looks_like_csv(source):
    return bool(csv_files(source))
