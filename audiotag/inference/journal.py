"""The scores of many files as they come, so that a killed command continues.

A journal is a text file of a line of JSON per file. Its first line says what predicts them. A line that was not
written completely, and all after the first file that has changed since, are predicted again.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.inference.audio_files import FileScores, shown

COLUMNS = ["start", "end", "class", "probability"]  # of events


@contextlib.contextmanager
def continued(
    path: Path,
    key: dict[str, Any],
    names: Sequence[str],
    score: Callable[[Sequence[str]], Iterator[FileScores]],
) -> Iterator[Iterator[FileScores]]:
    """Yields the scores of files: first those in a journal, then new ones.

    The journal gets the new ones.

    Args:
        path: The journal. It is kept; delete it when its content is used.
        key: What the scores depend on besides the files: a journal with another key starts again.
        names: The files.
        score: A function: files → their scores, in their order.

    Raises:
        Busy: Another process writes the journal.
    """
    message = f"{path}: another process is predicting into the same files. Wait for its end, or choose other files."
    with files.locked(_lock(path), message):
        path.touch()
        with open(path, "r+b") as journal:
            yield _continued(journal, key, names, score)


def _continued(journal, key, names, score):
    first = _line(key)
    num_done = 0
    if journal.readline() == first:
        for scores in _known(journal, names):
            num_done += 1
            yield scores
    else:
        journal.seek(0)
    journal.truncate()
    if journal.tell() == 0:
        journal.write(first)
    for name, scores in zip(names[num_done:], score(names[num_done:]), strict=True):
        journal.write(_line(_encode(scores, name)))
        journal.flush()
        yield scores


def _known(journal: BinaryIO, names: Sequence[str]) -> Iterator[FileScores]:
    """The scores of a journal whose files are the first of these and unchanged; leaves it after the last of them."""
    for name in names:
        place = journal.tell()
        line = journal.readline()
        content = _parse(line)
        if content is None or content["name"] != shown(name) or content["stamp"] != _stamp(name):
            journal.seek(place)
            return
        yield _decode(content)


def _parse(line):
    """The content of a line; None if it is not complete."""
    with contextlib.suppress(ValueError):
        return json.loads(line) if line.endswith(b"\n") else None


def delete(path: Path) -> None:
    """Deletes a journal."""
    path.unlink(missing_ok=True)
    _lock(path).unlink(missing_ok=True)


def _lock(path):
    return path.with_name(f"{path.name}.lock")


def read(path: Path) -> Iterator[FileScores]:
    """The scores of a complete journal."""
    with open(path, "rb") as journal:
        journal.readline()
        for line in journal:
            yield _decode(json.loads(line))


def write_part(path: Path, names: Sequence[str], scores: Iterable[FileScores]) -> None:
    """Writes the scores of some files at once, for `read_part`."""
    with files.atomic_file(path) as unfinished, open(unfinished, "wb") as part:
        for name, each in zip(names, scores, strict=True):
            part.write(_line(_encode(each, name)))


def read_part(path: Path, names: Sequence[str]) -> list[FileScores] | None:
    """The scores of these files; None if not all are there, or a file has changed."""
    try:
        with open(path, "rb") as part:
            scores = list(_known(part, names))
    except FileNotFoundError:
        return None
    return scores if len(scores) == len(names) else None


def _line(content):
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _encode(scores, name):
    return {
        "name": scores.name,
        "stamp": _stamp(name),
        "logits": None if scores.logits is None else scores.logits.tolist(),
        "events": None if scores.events is None else scores.events[COLUMNS].to_numpy().tolist(),
        "rejected": scores.rejected,
    }


def _decode(content):
    logits, events = content["logits"], content["events"]
    return FileScores(
        content["name"],
        None if logits is None else np.array(logits),
        None if events is None else pd.DataFrame(events, columns=COLUMNS),
        content["rejected"],
    )


def _stamp(name):
    """The size and the time of a file; None if there is none."""
    try:
        found = os.stat(name)
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]
