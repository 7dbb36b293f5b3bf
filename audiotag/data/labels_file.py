"""The table of labels that `audiotag review` fills for recordings without labels.

It has the columns fname and labels, and is a source of make-records. Recordings that were removed, or of which the
reviewer was unsure, stay in it, so that they are not shown again; make-records leaves them out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audiotag import files
from audiotag.data.clips import csv_lines, read_table
from audiotag.data.corrections_file import NO_ROW, REVIEW_COLUMNS, CorrectionsFile, Row, checked_texts
from audiotag.errors import DataError

COLUMNS = ("fname", "labels")
SUBSET_OF_NEW = {"subset": "curated", "split": "train", "set": "train", "partition": "train"}  # if the table has it
LEFT_OUT = ("removed", "unsure")  # decisions after which a recording is no clip


def read_labels(path: str | Path) -> pd.DataFrame:
    """Reads a table of labels; all values are text.

    Args:
        path: A CSV file with the columns fname and labels, and any others.

    Returns:
        What `read_table` returns, without the apostrophes that `files.as_cell` adds if review has written it.

    Raises:
        DataError: It is no such table.
    """
    table = read_table(path, COLUMNS)
    return table.map(files.from_cell).rename(columns=files.from_cell) if is_reviewed(table) else table


def is_reviewed(table: pd.DataFrame) -> bool:
    """Whether a table has the columns that `audiotag review` adds."""
    return set(REVIEW_COLUMNS) <= set(table.columns)


class LabelsFile(CorrectionsFile):
    """The rows of a table of labels, by recording.

    Args:
        path: The table; the first change creates it.
        vocabulary: The K class names. Other rows may have other labels.
        rows: What a new table begins with.
    """

    def __init__(self, path: str | Path, vocabulary: Sequence[str], *, rows: Mapping[str, Row] | None = None) -> None:
        super().__init__(path, vocabulary)
        self._first = dict(rows or {})

    def decided(self, before: Row | None, *, labels: str, why: str, **about: str) -> Row:
        """The row of a decision, as for `CorrectionsFile`.

        Of `about` it has who and when.
        """
        if before is None:
            columns = next(iter(self.rows().values()), {})
            before = {column: SUBSET_OF_NEW[column.lower()] for column in columns if column.lower() in SUBSET_OF_NEW}
        return before | {"labels": labels, "who": about["who"], "when": about["when"], "why": why}

    def checked(self, row: Any) -> Row:
        """A row from outside, if it has texts that a CSV file can hold.

        Raises:
            DataError: It is none.
        """
        if not isinstance(row, dict):
            raise DataError(NO_ROW)
        return {"labels": "", **checked_texts(row, but="fname")}

    def _text(self, rows):
        more = dict.fromkeys(column for row in rows.values() for column in row)
        columns = dict.fromkeys([*COLUMNS, *(column for column in more if column not in REVIEW_COLUMNS)])
        table = pd.DataFrame([{"fname": name} | row for name, row in rows.items()], columns=[*columns, *REVIEW_COLUMNS])
        return files.csv_text(table.fillna(""))

    def _rows_of(self, path):
        if path is None:
            return dict(self._first)
        if len([*csv_lines(path)]) < 2:
            return {}
        rows: dict[str, Row] = {}
        for place, cells in read_labels(path).to_dict("index").items():
            name = cells.pop("fname")
            if name in rows:
                raise DataError(f"{place}: {name!r} is listed twice. Keep one of the two rows.")
            rows[name] = cells
        return rows
