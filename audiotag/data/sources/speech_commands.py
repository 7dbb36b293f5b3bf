"""Source: Speech Commands, a folder per word, with lists of other subsets.

Reference: P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", 2018,
https://arxiv.org/abs/1804.03209.
"""

import re
from pathlib import Path

import pandas as pd

from audiotag.data.sources.class_folders import refuse_empty_folders, single_label
from audiotag.data.sources.files import Found, audio_names, files_below
from audiotag.errors import DataError

LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}
BACKGROUND = "_background_noise_"  # recordings of no word
CLIP = re.compile(r"[^/]+/(?P<speaker>[0-9a-f]+)_nohash_\d+\.wav", re.IGNORECASE)


def is_speech_commands(source: Path) -> bool:
    """Whether there is one of its lists, its noise, or a clip with its file name."""
    for name, _ in files_below(source, 1):
        if name.lower() in LISTS.values() or name.lower().startswith(BACKGROUND + "/") or CLIP.fullmatch(name):
            return True
    return False


def read_speech_commands(source: Path) -> Found:
    """Reads the folders and both lists; clips of one speaker are a group.

    The noise has no labels.

    Raises:
        DataError: A list is missing, or names a clip that is not there.
    """
    names = audio_names(source)
    refuse_empty_folders(source, names)
    subsets, texts = {}, {name.lower(): entry.path for name, entry in files_below(source, 0)}
    for subset, file in LISTS.items():
        if file not in texts:
            raise DataError(
                f"{source / file}: not found. It lists clips of Speech Commands. Put it there; if the folders are "
                "plain classes, say so with --layout folders."
            )
        for number, line in enumerate(Path(texts[file]).read_text(encoding="utf-8").splitlines(), 1):
            name = line.strip().removeprefix("./")
            if name and name not in names:
                raise DataError(f"{file} line {number}: the clip {name!r} is not in {source}. Put it there.")
            if name and name in subsets:
                raise DataError(f"{file} line {number}: the clip {name!r} is listed twice. Remove one of the lines.")
            subsets[name] = subset
    clips = []
    for name in names:
        *folders, _ = name.split("/")
        if len(folders) != 1:
            raise DataError(f"{source / name}: expected <word>/<file>. Move it, or remove it.")
        match, noise = CLIP.fullmatch(name), folders[0].lower() == BACKGROUND
        group = "" if noise or not match else match["speaker"]
        label = "" if noise else folders[0]
        clips.append(single_label(name, subsets.get(name, "curated"), label, 0, group))
    table = pd.DataFrame(clips)
    return Found(table, None, dict.fromkeys(table["subset"], source))
