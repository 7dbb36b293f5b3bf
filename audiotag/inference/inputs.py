"""Which audio files are to be predicted: files, folders, patterns, or a list."""

import glob
import os
from collections.abc import Iterable, Iterator

from audiotag.data.sources.files import audio_suffixes, files_below
from audiotag.errors import DataError

LIST = "-"  # stands for the paths that standard input lists


def find_files(paths: Iterable[str], lines: Iterable[str] = ()) -> list[str]:
    """The audio files that are meant, each once.

    A folder stands for the audio files below it, sorted; hidden ones and links to folders are left out. A pattern such
    as "day/**/*.wav" stands for what matches it, sorted. A file that is named is kept, whatever its suffix, and also if
    it does not exist: predicting it says what is wrong.

    Args:
        paths: Files, folders and patterns; "-" stands for the lines.
        lines: A file or a folder each. Empty ones are left out.

    Raises:
        DataError: There is no audio file, or a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for path in paths:
        if path == LIST:
            for line in lines:
                if name := line.rstrip("\r\n"):
                    found.update(dict.fromkeys(_files_at(name)))
        elif os.path.lexists(path) or not glob.has_magic(path):
            found.update(dict.fromkeys(_files_at(path)))
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise DataError(f"{path}: no file matches this pattern.")
            for match in matches:
                if not os.path.isdir(match):
                    found[match] = None
    if not found:
        raise DataError(
            f"there are no files to predict. Expected files, or folders with some, that end in "
            f"{', '.join(audio_suffixes())}."
        )
    return list(found)


def _files_at(path: str) -> Iterator[str]:
    """The audio files below a folder, sorted; any other path is itself."""
    if not os.path.isdir(path):
        yield path
        return
    suffixes = audio_suffixes()
    below = (entry.path for name, entry in files_below(path) if name.lower().endswith(suffixes))
    yield from sorted(found for found in below if not os.path.isdir(found))
