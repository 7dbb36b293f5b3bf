"""The table of clips, its file clips.csv, and the CSV files it is read from."""

import contextlib
import csv
import io
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from audiotag.config.components import SUBSET_PATTERN
from audiotag.config.signatures import nearest
from audiotag.data.labels import parse_labels, split_labels
from audiotag.errors import DataError
from audiotag.files import as_cell, from_cell, write_text

TEST = "test"  # the subset that only evaluates; all others may be trained on
USAGES = ("", "Public", "Private")

# The columns of every table of clips. Missing text is "", a missing fold is 0.
COLUMNS = {
    "name": str,  # unique; path of the file inside the folder of audio, with "/"
    "subset": str,  # TEST, or any other name of letters, digits, - and _
    "labels": str,  # joined by ","; "" for background, and in a test subset without labels
    "usage": str,  # one of USAGES: the leaderboard that scores a test clip
    "fold": int,  # the predefined fold, from 1
    "group": str,  # the recording that the clip was cut from
}
# The columns that make-records adds. `seconds`, `peak` and `rms` are those of the record, which lacks the recording's
# first `trimmed_start_seconds` and last `trimmed_end_seconds` and is louder by `gain_db`.
MEASURES = {
    "num_samples": int,
    "seconds": float,
    "peak": float,
    "rms": float,
    "trimmed_start_seconds": float,
    "trimmed_end_seconds": float,
    "gain_db": float,
    "sha256": str,
}
# Where a clip was found. clips.csv leaves it out: the same clips give the same bytes in any folder.
EXCERPT = ("start_seconds", "end_seconds")  # of a clip that is part of a file; the name of such a clip has them, too
LOCATION_COLUMNS = ("path", "row", *EXCERPT)

DRIVE = re.compile("[A-Za-z]:")  # as Windows has them
CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def check_clips(table: pd.DataFrame, *, background: bool = False) -> None:
    """Raises DataError if a table of clips is invalid, and names the row.

    Args:
        table: Has the columns `COLUMNS`.
        background: Whether any clip may have no labels, as in records.

    Example:
        >>> check_clips(pd.DataFrame({"name": ["1.wav"], "subset": ["curated"]}))
        Traceback (most recent call last):
        audiotag.errors.DataError: The table of clips has no column 'labels'. Expected: name, subset, labels, ...
    """
    for column in COLUMNS:
        if column not in table:
            raise DataError(f"The table of clips has no column {column!r}. Expected: {', '.join(COLUMNS)}.")
    if table.empty:
        raise DataError("The table of clips is empty: there is nothing to train on or to evaluate.")
    row_of_name: dict[str, str] = {}
    test_is_labeled = ((table["subset"] == TEST) & (table["labels"] != "")).any()
    checked = set()  # clips differ in name and group, and have few different other values
    for row, *values in zip(rows(table), *(table[column].tolist() for column in COLUMNS)):
        clip = _Clip(*values)
        others = clip.subset, clip.labels, clip.usage, clip.fold
        if others not in checked or not is_plain_path(clip.name) or CONTROL_CHARACTERS.search(clip.group):
            try:
                _check_clip(clip, labels_needed=not background and (clip.subset != TEST or test_is_labeled))
            except DataError as error:
                raise DataError(f"{row}: {error}") from None
            checked.add(others)
        if clip.name in row_of_name:
            raise DataError(
                f"{row}: file name {clip.name!r} is already in {row_of_name[clip.name]}. Remove or rename one of them."
            )
        row_of_name[clip.name] = row
    for column in [column for column, kind in MEASURES.items() if column in table and kind is not str]:
        finite = np.isfinite(table[column].to_numpy(float))
        if not finite.all():
            place = int(finite.argmin())
            raise DataError(f"{rows(table)[place]}: {column} is {table[column].iloc[place]}. Expected a finite number.")


class _Clip(NamedTuple):
    """A row of a table of clips: the values of `COLUMNS`."""

    name: str
    subset: str
    labels: str
    usage: str
    fold: int
    group: str


def _check_clip(clip, labels_needed):
    """Raises DataError if one row of a table of clips is invalid."""
    if not is_plain_path(clip.name):
        raise DataError(
            f"file name {clip.name!r} is not a plain path inside the folder of audio. Expected one like "
            "'1.wav' or 'dog/1.wav', without a leading '/', a drive, '..', '\\' or a control character."
        )
    if not re.fullmatch(SUBSET_PATTERN, clip.subset):
        raise DataError(
            f"subset is {clip.subset!r}. Expected letters, digits, - and _, such as 'curated', 'noisy' or 'test'."
        )
    if clip.subset != TEST and clip.subset.lower() == TEST:
        raise DataError(f"subset is {clip.subset!r}. Did you mean {TEST!r}? Test clips have this name exactly.")
    if clip.usage not in USAGES:
        choices = ", ".join(map(repr, USAGES))
        raise DataError(f"usage is {clip.usage!r}. {nearest(clip.usage, USAGES)}Expected one of {choices}.")
    for column, value in (("labels", clip.labels), ("group", clip.group)):
        if CONTROL_CHARACTERS.search(value):
            raise DataError(
                f"{column} {value!r} contains a line break or another control character. "
                "Is a quotation mark missing here, or too many?"
            )
    if not split_labels(clip.labels) and labels_needed:
        raise DataError(
            f"labels are empty. A {clip.subset} clip needs at least one. Add it, or remove the row; "
            "only a test subset may have no labels, then for all of its clips. Of a clip with none of the classes, "
            "write 'background' and make records with --background background."
        )
    if clip.fold < 0:
        raise DataError(f"fold is {clip.fold}. Expected a whole number from 1, or 0 for none.")


def check_labels(table: pd.DataFrame, vocabulary: Sequence[str]) -> None:
    """Raises DataError if a label is not in the vocabulary, and names the row."""
    classes = dict.fromkeys(vocabulary)
    for row, labels in zip(rows(table), table["labels"]):
        try:
            parse_labels(labels, classes)
        except DataError as error:
            raise DataError(f"{row}: {error}") from None


def rows(table: pd.DataFrame) -> list[str]:
    """The text by which messages refer to each row of a table.

    It is the row's line in a file, or its name.
    """
    return table["row"].tolist() if "row" in table else [f"clip {name!r}" for name in table["name"]]


def is_plain_path(name: str) -> bool:
    """Whether a name is that of a file inside a folder, with "/".

    Example:
        >>> is_plain_path("dog/1.wav"), is_plain_path("../1.wav")
        (True, False)
    """
    return (
        not {"", ".", ".."}.intersection(name.split("/"))
        and not DRIVE.match(name)
        and "\\" not in name
        and not CONTROL_CHARACTERS.search(name)
    )


# clips.csv


def write_clips(path: str | Path, table: pd.DataFrame) -> None:
    """Writes a table of clips as UTF-8 CSV, sorted by subset and name.

    The columns `path` and `row` are left out. The same clips give the same bytes in any order, and `read_clips`
    restores every number exactly.
    """
    check_clips(table, background=True)
    kinds = _kinds(table.columns.drop(list(LOCATION_COLUMNS), errors="ignore"), where=path)
    table = table.sort_values(["subset", "name"])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(kinds)
    # as_cell puts an apostrophe before a text that a spreadsheet would run as a formula; read_clips removes it.
    kinds = {column: as_cell if kind is str else kind for column, kind in kinds.items()}
    writer.writerows(zip(*([kind(value) for value in table[column]] for column, kind in kinds.items())))
    write_text(path, text.getvalue())


def read_clips(path: str | Path) -> pd.DataFrame:
    """Reads the table of clips that `write_clips` wrote.

    Raises:
        DataError: The file is not such a table; the message names the line and the column.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "clips.csv"
        >>> _ = path.write_text("name,subset,labels,usage,fold,group\\n1.wav,curated,Bark,,0,\\n")
        >>> read_clips(path).to_dict("records")
        [{'name': '1.wav', 'subset': 'curated', 'labels': 'Bark', 'usage': '', 'fold': 0, 'group': ''}]
    """
    texts, row_names = _read_columns(path, COLUMNS)
    columns: dict[str, Any] = {"row": row_names}
    index = pd.Index(row_names, dtype=object)
    for column, kind in _kinds(texts, where=f"{path} line 1").items():
        if kind is str:
            columns[column] = list(map(from_cell, texts[column]))
        else:
            columns[column] = numbers(pd.Series(texts[column], index, object, column), kind)
    table = pd.DataFrame(columns)
    check_clips(table, background=True)
    return table.drop(columns="row")


def _kinds(columns, where):
    """{column: type} of `columns`, in the order of clips.csv."""
    accepted = COLUMNS | MEASURES
    for column in columns:
        if column not in accepted:
            raise DataError(
                f"{where}: unknown column {column!r}. {nearest(column, accepted)}Accepted: {', '.join(accepted)}."
            )
    return {column: kind for column, kind in accepted.items() if column in columns}


# Any CSV file


def read_table(path: str | Path, required: Collection[str]) -> pd.DataFrame:
    """Reads a CSV file with a header; all values stay text.

    Args:
        path: The file: UTF-8, with or without a byte order mark, any line ends. Its columns are separated by commas,
            or by the tabs or semicolons that the first line has instead.
        required: Columns that it must have. It may have others.

    Returns:
        A table whose index `row` locates each row, such as "labels.csv line 17".

    Raises:
        DataError: A column is missing or repeated, a row has too few or too many fields, or there are no rows.
    """
    columns, row_names = _read_columns(path, required)
    return pd.DataFrame(columns, index=pd.Index(row_names, name="row"))


def _read_columns(path, required):
    """As `read_table`: ({column: its texts}, the text that locates each row)."""
    path = Path(path)
    lines = csv_lines(path)
    line, header = next(lines, (0, None))
    if header is None:
        raise DataError(f"{path}: the file is empty. Expected a header with the columns {', '.join(required)}.")
    header = [column.strip() for column in header]
    index_column = not header[0] and len(header) > 1  # as pandas writes it
    for column in header[index_column:]:
        if header.count(column) > 1 or not column:
            found = f"the column {column!r} {header.count(column)} times" if column else "a column without a name"
            raise DataError(f"{path} line {line}: the header has {found}. Give each column a unique name.")
    for column in required:
        if column not in header:
            raise DataError(
                f"{path} line {line}: no column {column!r}, only {', '.join(map(repr, header[:8]))}. "
                f"{nearest(column, header)}Expected a header with {','.join(required)}."
            )
    row_names, records = [], []
    for line, fields in lines:
        if len(fields) != len(header):
            raise DataError(
                f"{path} line {line}: the number of fields is {len(fields)}, but the header has {len(header)} columns. "
                'Put quotation marks around several labels: "Bark,Meow".'
            )
        row_names.append(f"{path.name} line {line}")
        records.append(tuple(fields))  # which Python's garbage collection need not visit, unlike a list
    if not records:
        raise DataError(f"{path}: a header and no rows. Expected one row per clip.")
    if index_column and len({fields[0] for fields in records}) < len(records):
        raise DataError(f"{path} line {line}: the header has a column without a name. Give it one.")
    columns = dict(zip(header, zip(*records)))
    if index_column:
        del columns[""]
    return columns, row_names


def csv_lines(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, fields) per row of a CSV file; `line` is its first line, from 1.

    Blank lines are skipped. Columns are separated by commas, unless the first line has none and has tabs or semicolons.
    pandas does not report line numbers and pads rows that are too short.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    if b"\0" in data:
        line = 1 + data.count(b"\n", 0, data.index(b"\0"))
        raise DataError(f"{path} line {line}: a NUL byte: the file is UTF-16 or damaged. Save it as CSV in UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise DataError(
            f"{path} line {line}: byte 0x{data[error.start]:02x} is not UTF-8. Save the file as CSV in UTF-8."
        ) from None
    first = text.lstrip().partition("\n")[0]
    delimiter = "," if "," in first else max(("\t", ";", ","), key=first.count)
    lines = io.StringIO(unicodedata.normalize("NFC", text), newline="")
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    line = 1
    try:
        for fields in reader:
            if fields:
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path} line {line}: not CSV: {error}. Is a quotation mark missing, or too many?") from None


def numbers(column: pd.Series, kind: type[int] | type[float]) -> list[int] | list[float]:
    """Converts a column that `read_table` read as text to int or float."""
    expected = {int: "a whole number", float: "a number"}[kind]
    texts = column.tolist()
    with contextlib.suppress(ValueError, OverflowError):
        return list(map(kind, texts))
    values = []
    for row, text in zip(column.index, texts):
        try:
            whole = kind is int and float(text).is_integer()  # pandas writes 1.0 where a column has empty cells
            values.append(int(float(text)) if whole and not text.strip().lstrip("+-").isdigit() else kind(text))
        except (ValueError, OverflowError):
            raise DataError(f"{row}: {column.name} is {text!r}. Expected {expected}.") from None
    return values
