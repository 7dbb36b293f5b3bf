"""Source: training folders of BirdNET-Analyzer, a folder per species.

A folder of several species joins their names by commas. The folders Noise, Background, Other and Silence hold clips of
no class, and so do folders with a minus before the label. BirdNET uses those only as negative examples of their own
label, and here they are of every class.

Reference: https://birdnet-team.github.io/BirdNET-Analyzer/best-practices/training.html
"""

import re
from pathlib import Path

import pandas as pd

from audiotag.data.sources.class_folders import refuse_empty_folders, single_label
from audiotag.data.sources.class_names import split_subset
from audiotag.data.sources.files import Found, audio_names, files_below
from audiotag.errors import DataError

NO_CLASS = ("noise", "background", "other", "silence")
SPECIES = re.compile(r"[A-Z][a-z]+ [a-z-]+_[^,/]+")  # Parus major_Great Tit


def is_birdnet(source: Path) -> bool:
    """Whether most folders have names of species as BirdNET writes them."""
    paths = [name.split("/")[:-1] for name, _ in files_below(source, 2)]
    folders = {path[-1] for path in paths if path}
    species = [name for name in folders if all(SPECIES.fullmatch(part.strip().lstrip("-")) for part in name.split(","))]
    return 2 * len(species) > len({name for name in folders if name.lower() not in NO_CLASS}) > 0


def read_birdnet(source: Path) -> Found:
    """Reads <labels>/<file>, or <subset>/<labels>/<file>.

    Raises:
        DataError: A recording is in no such folder, or a folder has files but no recordings.
    """
    names = audio_names(source)
    refuse_empty_folders(source, names)
    first = {name.split("/")[0] for name in names}
    subsets = {folder: split_subset(folder, first) for folder in first}
    has_subsets = all(subsets.values())
    clips, no_class = [], 0
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != (2 if has_subsets else 1):
            expected = "<subset>/<labels>/<file>" if has_subsets else "<labels>/<file>"
            raise DataError(f"{source / name}: expected {expected}, as every folder is a label. Move it, or remove it.")
        labels = [part.strip() for part in folders[-1].split(",") if part.strip()]
        labels = [label for label in labels if label.lower() not in NO_CLASS and not label.startswith("-")]
        no_class += not labels
        subset = (has_subsets and subsets[folders[0]]) or "curated"
        clips.append(single_label(name, subset, "") | {"labels": ",".join(labels)})
    table = pd.DataFrame(clips)
    notes = [f"{no_class} clips of {', '.join(NO_CLASS)} and of -labels are clips of no class."] if no_class else []
    return Found(table, None, dict.fromkeys(table["subset"], source), tuple(notes))
