"""Folders named after classes."""


import pandas as pd

from audiotag.data.clips import COLUMNS, SUBSETS
from audiotag.data.sources.files import AUDIO_SUFFIXES, audio_names, files_below
from audiotag.errors import DataError

SUBSET_FOLDERS = {"curated": "curated", "train": "curated", "noisy": "noisy", "test": "test"}


def folder_a_class(source):
    """<label>/<file>, or <subset>/<label>/<file> where the subsets are curated or train, noisy and test."""
    names = audio_names(source)
    in_subsets = {name.split("/")[0] for name in names} <= SUBSET_FOLDERS.keys()
    records = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != (2 if in_subsets else 1):
            expected = "<subset>/<label>/<file>" if in_subsets else "<label>/<file>"
            raise DataError(f"{source / name}: expected {expected}, as every folder is a label. Move it, or remove it.")
        records.append(one_label(name, SUBSET_FOLDERS[folders[0]] if in_subsets else "curated", folders[-1]))
    return pd.DataFrame(records), None, dict.fromkeys(SUBSETS, source)


def one_label(name, subset, label, fold=0, group=""):
    """The row of a clip whose folder is its label."""
    if "," in label:
        raise DataError(f"{name}: the folder {label!r} has a comma, which parts labels. Rename it, say with '_and_'.")
    return dict(zip([*COLUMNS, "row"], (name, subset, label.strip(), "", fold, group, name)))


def _looks_like_folders(source):
    return any("/" in name and name.lower().endswith(AUDIO_SUFFIXES) for name, _ in files_below(source, 2))
