"""Events as Raven's selection tables and Audacity's label tracks."""

import os
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import pandas as pd

from audiotag import files
from audiotag.inference.audio_files import FileScores

RAVEN = ".selections.txt"  # after the name of a recording
AUDACITY = ".labels.txt"


def raven_text(events: pd.DataFrame, *, fname: str, high_hz: float) -> str:
    """A selection table of Raven, one line per event.

    Args:
        events: The columns start, end (seconds), class, probability.
        fname: The recording.
        high_hz: The upper edge of the selections in Hz; the lower is 0.

    Example:
        >>> events = pd.DataFrame({"start": [1.5], "end": [2.0], "class": ["Bark"], "probability": [0.75]})
        >>> print(raven_text(events, fname="a/b.wav", high_hz=8000.0).splitlines()[1].split("\\t"))
        ['1', 'Spectrogram 1', '1', '1.5', '2.0', '0', '8000', 'b.wav', 'Bark', '0.75']
    """
    columns = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    lines = ["\t".join([*columns, "Begin File", "Class", "Score"])]
    for number, event in enumerate(_rows(events), start=1):
        start, end, label, probability = event
        row = [number, "Spectrogram 1", 1, start, end, 0, f"{high_hz:g}", os.path.basename(fname), label, probability]
        lines.append("\t".join(map(str, row)))
    return "\n".join(lines) + "\n"


def audacity_text(events: pd.DataFrame) -> str:
    """A label track of Audacity, one line per event.

    Example:
        >>> events = pd.DataFrame({"start": [1.5], "end": [2.0], "class": ["Bark"], "probability": [0.75]})
        >>> audacity_text(events)
        '1.5\\t2.0\\tBark 0.75\\n'
    """
    return "".join(f"{start}\t{end}\t{label} {probability:.2f}\n" for start, end, label, probability in _rows(events))


def _rows(events):
    """(start, end, class, probability) of each event; a class is one word group without tabs and line ends."""
    for start, end, label, probability in events[["start", "end", "class", "probability"]].to_numpy().tolist():
        yield start, end, " ".join(label.split()), probability


def write_per_recording(
    folder: Path, scores: Iterable[FileScores], names: Iterable[str], *, ending: str, text: Callable[[FileScores], str]
) -> None:
    """Writes a file per recording into a folder, in the same subfolders.

    Recordings on several drives of Windows are in a subfolder per drive, such as C.

    Args:
        folder: The folder; a file that is there is replaced.
        scores: The scores of the recordings; those that are rejected get no file.
        names: All recordings: the folder that they have in common is left out of the subfolders.
        ending: What follows the name of the recording.
        text: The content of its file.
    """
    folders = {os.path.dirname(os.path.abspath(name)) for name in names}
    for each in scores:
        if each.events is not None:
            path = folder / (subpath(os.path.abspath(each.name), folders) + ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, text(each))


def subpath(path: str, folders: Collection[str]) -> str:
    """The path of a recording from the folder that all folders have in common.

    On several drives of Windows they have none; then it is the path from the root, after the letter of the drive.

    Args:
        path: Absolute.
        folders: Absolute, those of all recordings.

    Example:
        >>> subpath("/a/b/1.wav", {"/a/b", "/a/c"})
        'b/1.wav'
    """
    drives = {os.path.splitdrive(folder)[0].lower() for folder in folders}
    if len(drives) < 2:
        return os.path.relpath(path, os.path.commonpath(folders))
    drive, rest = os.path.splitdrive(path)
    return "-".join(re.findall(r"\w+", drive)) + rest
