"""A file of corrections that several people and programs change, row by row.

A change reads the file again if its content is another, checks that the row is still the one that its author saw, and
replaces the file atomically, under a lock. So no decision is lost to a crash, to an editor or to a second browser.
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.data.clips import csv_lines
from audiotag.data.corrections import COLUMNS, corrections_text, read_corrections
from audiotag.errors import DataError

REVIEW_COLUMNS = ("who", "when", "why")  # that `audiotag review` adds: a name, a time in UTC, one of DECISIONS
DECISIONS = ("labeled", "accepted", "changed", "removed", "unsure")  # "labeled" is of clips without labels
NO_ROW = "the row is not one of a table of decisions. Load the page again."
WAITING_SECONDS = 10.0  # for the lock
Row = dict[str, str | float]  # the cells of a row by column, without the clip; `weight` is a number


class Conflict(DataError):
    """The row of a clip is no longer the one that a change was made for.

    Args:
        message: What happened.
        row: The row as it is now; None if there is none.
    """

    def __init__(self, message: str, row: Row | None) -> None:
        super().__init__(message)
        self.row = row


class CorrectionsFile:
    """The rows of a file of corrections.

    Args:
        path: The file; the first change creates it.
        vocabulary: The K class names.
        start: Another file of corrections, whose rows a new file begins with; None begins without rows.
    """

    def __init__(self, path: str | Path, vocabulary: Sequence[str], *, start: Path | None = None) -> None:
        self.path = Path(path)
        self.vocabulary, self._start = tuple(vocabulary), start
        self._thread_lock = threading.Lock()
        self._digest: str | None = None
        self._rows: dict[str, Row] = {}

    def decided(self, before: Row | None, *, labels: str, why: str, **about: str) -> Row:
        """The row of a decision.

        Decisions but "removed", which has weight 0, keep the weight of the row, or give 1 to a clip that was removed.

        Args:
            before: The row of the clip until now.
            labels: Joined by ",".
            why: One of `DECISIONS`.
            about: The other columns: reason, source, who and when.
        """
        weight = 0.0 if why == "removed" else float(before["weight"]) if before and before["weight"] else 1.0
        return dict(before or {}) | {"labels": labels, "weight": weight, "why": why, **about}

    def checked(self, row: Any) -> Row:
        """A row from outside, if it is one.

        It has texts that a CSV file can hold, and a weight.

        Raises:
            DataError: It is none.
        """
        weight = row.get("weight") if isinstance(row, dict) else None
        if not isinstance(weight, (int, float)) or not 0 <= weight < 1e9:
            raise DataError(NO_ROW)
        texts = {column: cell for column, cell in row.items() if column != "weight"}
        return dict.fromkeys(COLUMNS[1:], "") | checked_texts(texts, but="clip") | {"weight": float(weight)}

    def rows(self) -> dict[str, Row]:
        """The row of each clip that has one.

        Raises:
            DataError: The file was edited and is not valid; the message names the line.
        """
        with self._thread_lock:
            return dict(self._read())

    def replace(self, clip: str, row: Mapping[str, str | float] | None, *, version: str) -> Row | None:
        """Replaces the row of a clip. When it returns, the file is on the disk.

        Args:
            clip: The name of the clip.
            row: The new row; None removes it.
            version: The `version` of the row that the author of the change saw.

        Returns:
            The row before; None if there was none.

        Raises:
            Conflict: The clip has another row by now. Nothing is written.
            DataError: The file was edited and is not valid, or another program holds it.
        """
        with self._thread_lock:
            end = time.monotonic() + WAITING_SECONDS
            while True:
                try:
                    with files.locked(self._lock_file, f"{self.path}: another program is writing it. Try again."):
                        return self._replace(clip, row, version)
                except (files.Busy, _ChangedMeanwhile):
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.01)

    @property
    def _lock_file(self):
        return self.path.with_name(f".{self.path.name}.lock")

    def _replace(self, clip, row, version):
        rows = dict(self._read())
        before = rows.get(clip)
        if version_of(before) != version:
            raise Conflict(f"{self.path}: the row of clip {clip!r} was changed meanwhile. Nothing was written.", before)
        if row is not None:
            rows[clip] = dict(row)
        else:
            rows.pop(clip, None)
        data = self._text(rows).encode()
        target = self.path.resolve()  # a link stays one
        with files.atomic_file(target) as unfinished:
            unfinished.write_bytes(data)
            files.sync(unfinished)
            if self._digest != _digest(self.path):
                raise _ChangedMeanwhile(f"{self.path}: it changes all the time. Close the program that writes it.")
        self._rows, self._digest = rows, hashlib.sha256(data).hexdigest()
        return before

    def _text(self, rows):
        """The content of the file with these rows."""
        more = dict.fromkeys(column for row in rows.values() for column in row)
        columns = [*COLUMNS, *(column for column in more if column not in COLUMNS)]
        table = pd.DataFrame([{"clip": name} | rows[name] for name in sorted(rows)], columns=columns)
        return corrections_text(table.fillna(""))

    def _rows_of(self, path):
        """The rows of a file; None stands for a file without rows."""
        has_rows = path is not None and len([*csv_lines(path)]) > 1
        table = read_corrections(path, self.vocabulary) if has_rows else pd.DataFrame(columns=COLUMNS)
        return {row.pop("clip"): row for row in table.to_dict("records")}

    def _read(self):
        digest = _digest(self.path)
        if digest != self._digest:
            self._rows = self._rows_of(self.path if digest else self._start)
            self._digest = digest
        return self._rows


class _ChangedMeanwhile(DataError):
    """Another program wrote the file while its next content was on its way."""


def checked_texts(row: Mapping[str, Any], *, but: str) -> dict[str, str]:
    """The cells of a row from outside, if they are texts that a CSV file can hold.

    Args:
        row: The cells by column.
        but: A column that it may not have.

    Raises:
        DataError: They are not.
    """
    for text in (*row, *row.values()):
        if not isinstance(text, str) or "\0" in text or not files.is_utf8(text) or but in row:
            raise DataError(NO_ROW)
    return dict(row)


def version_of(row: Mapping[str, str | float] | None) -> str:
    """A text that differs for different rows; "" for none.

    Example:
        >>> version_of(None), len(version_of({"labels": "Bark", "weight": 1.0}))
        ('', 16)
    """
    if row is None:
        return ""
    cells = {column: cell for column, cell in sorted(row.items()) if cell != ""}
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def _digest(path):
    """The SHA-256 of a file's bytes; "" without a file."""
    try:
        return files.sha256(path)
    except FileNotFoundError:
        return ""
