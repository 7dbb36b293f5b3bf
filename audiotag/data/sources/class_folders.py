"""Source: one folder of audio per class."""

from pathlib import Path

import pandas as pd

from audiotag.data.clips import COLUMNS
from audiotag.data.sources.files import AUDIO_SUFFIXES, audio_names, files_below, other_files
from audiotag.errors import DataError

SUBSET_FOLDERS = {"curated": "curated", "train": "curated", "noisy": "noisy", "test": "test"}


def is_class_folders(source: Path) -> bool:
    """Whether there is audio in folders."""
    return any("/" in name and name.lower().endswith(AUDIO_SUFFIXES) for name, _ in files_below(source, 2))


def read_class_folders(source: Path) -> tuple[pd.DataFrame, None, dict[str, Path]]:
    """Reads <label>/<file> or <subset>/<label>/<file>; the labels are the vocabulary.

    The folders of subsets are curated or train, noisy and test. Files of other types are left out.

    Raises:
        DataError: A recording is in no class folder, or a class folder has files but no recordings.
    """
    names = audio_names(source)
    with_audio = {name.rpartition("/")[0] for name in names}
    for name in other_files(source):
        if (folder := name.rpartition("/")[0]) and folder not in with_audio:
            raise DataError(
                f"{source / folder}: no recordings that audiotag reads, only files such as {name!r}. Expected files "
                f"that end in {', '.join(AUDIO_SUFFIXES)}. Convert them, or remove the folder."
            )
    has_subsets = {name.split("/")[0] for name in names} <= SUBSET_FOLDERS.keys()
    records = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != (2 if has_subsets else 1):
            expected = "<subset>/<label>/<file>" if has_subsets else "<label>/<file>"
            raise DataError(f"{source / name}: expected {expected}, as every folder is a label. Move it, or remove it.")
        records.append(single_label(name, SUBSET_FOLDERS[folders[0]] if has_subsets else "curated", folders[-1]))
    return pd.DataFrame(records), None, dict.fromkeys(SUBSET_FOLDERS.values(), source)


def single_label(name: str, subset: str, label: str, fold: int = 0, group: str = "") -> dict[str, str | int]:
    """The row of a clip whose folder is its label."""
    if "," in label:
        raise DataError(
            f"{name}: the folder {label!r} has a comma, which separates labels. Rename it, for example with '_and_'."
        )
    return dict(zip([*COLUMNS, "row"], (name, subset, label.strip(), "", fold, group, name)))
