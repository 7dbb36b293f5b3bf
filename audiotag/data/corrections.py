"""corrections.csv: new labels and weights of clips, by hand or by a model."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from audiotag import files
from audiotag.data.clips import numbers, read_table
from audiotag.data.labels import parse_labels
from audiotag.errors import DataError

COLUMNS = ("clip", "labels", "weight", "reason", "source")


def write_corrections(path: str | Path, table: pd.DataFrame) -> None:
    """Writes a table of corrections sorted by clip; equal rows give equal bytes.

    Args:
        path: The file to write.
        table: The columns `clip`, `labels` (joined by ","), `weight` (0 leaves the clip out; otherwise how often it
            is drawn, relative to 1 for other clips), and the free texts `reason` and `source`. More columns of texts
            follow these.
    """
    files.write_text(path, corrections_text(table))


def corrections_text(table: pd.DataFrame) -> str:
    """The text of the file that `write_corrections` writes."""
    more = [column for column in table if column not in COLUMNS]
    return files.csv_text(table[[*COLUMNS, *more]].sort_values("clip"))


def read_corrections(path: str | Path, vocabulary: Sequence[str]) -> pd.DataFrame:
    """Reads a table of corrections, which may be written by hand.

    Args:
        path: The file; it may lack the columns `reason` and `source`.
        vocabulary: The K class names.

    Returns:
        A table with the columns `clip`, `labels`, `weight` (float), `reason`, `source`, and the others of the file as
        text, such as those of `audiotag review`.

    Raises:
        DataError: A clip is listed twice, a label is not a class, or a weight is negative or not a number; the
            message names the line.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "corrections.csv"
        >>> _ = path.write_text("clip,labels,weight\\n1.wav,Bark,0.5\\n")
        >>> read_corrections(path, ["Bark"])["weight"].tolist()
        [0.5]
    """
    # from_cell removes the apostrophe that files.as_cell puts before a text that looks like a formula.
    table = read_table(path, COLUMNS[:3]).map(files.from_cell).rename(columns=files.from_cell)
    row_of_clip: dict[str, str] = {}
    for row, clip, labels in zip(table.index, table["clip"], table["labels"]):
        if clip in row_of_clip:
            raise DataError(f"{row}: clip {clip!r} is already in {row_of_clip[clip]}. Keep one of the two rows.")
        row_of_clip[clip] = row
        try:
            parse_labels(labels, vocabulary)
        except DataError as error:
            raise DataError(f"{row}: {error}") from None
    weights = numbers(table["weight"], float)
    for row, weight in zip(table.index, weights):
        if not 0 <= weight < float("inf"):
            raise DataError(f"{row}: weight is {weight}. Expected a finite number, at least 0; 0 leaves the clip out.")
    texts = {column: table.get(column, "") for column in COLUMNS[3:]}
    more = [column for column in table if column not in COLUMNS]
    return table.assign(weight=weights, **texts)[[*COLUMNS, *more]].reset_index(drop=True)


def corrected(clips: pd.DataFrame, corrections: pd.DataFrame, *, source: str | Path = "corrections") -> pd.DataFrame:
    """Applies corrections: replaces labels and multiplies weights.

    Args:
        clips: A table of clips; a `weight` that it already has is multiplied.
        corrections: A table as `read_corrections` returns it; clips without a correction have weight 1.
        source: The name of the corrections in messages.

    Returns:
        The same rows in the same order, those of weight 0 included.

    Raises:
        DataError: A corrected clip is not in `clips`, or loses all its labels.
    """
    unknown = sorted(set(corrections["clip"]) - set(clips["name"]))
    if unknown:
        raise DataError(f"{source}: there is no training clip {unknown[0]!r} ({len(unknown)} such rows in all).")
    rows = corrections.set_index("clip")
    labels, weights = rows["labels"].to_dict(), rows["weight"].to_dict()
    for name, label in zip(clips["name"], clips["labels"]):
        if label and labels.get(name) == "" and weights[name]:
            raise DataError(
                f"{source}: the labels of clip {name!r} are empty. Add one, or give it weight 0 to leave it out."
            )
    previous = clips["weight"] if "weight" in clips else [1.0] * len(clips)
    return clips.assign(
        labels=[labels.get(name, label) for name, label in zip(clips["name"], clips["labels"])],
        weight=[float(weights.get(name, 1.0)) * weight for name, weight in zip(clips["name"], previous)],
    )


def summarize_corrections(clips: pd.DataFrame, corrections: pd.DataFrame) -> str:
    """How many clips a table of corrections changes, and a hash of these changes.

    Rows that change nothing, such as those of labels that were found right, do not count.

    Args:
        clips: The table of clips of the records.
        corrections: A table as `read_corrections` returns it.

    Returns:
        For example "40 changed, 3 left out (4f2a1c9)"; "" if nothing changes.
    """
    labels = dict(zip(clips["name"], clips["labels"]))
    left_out = corrections["weight"] == 0
    changed = ~left_out & (corrections["labels"] != corrections["clip"].map(labels))
    reweighted = ~left_out & (corrections["weight"] != 1)
    kinds = {"changed": changed, "reweighted": reweighted, "left out": left_out}
    counts = [f"{rows.sum()} {kind}" for kind, rows in kinds.items() if rows.any()]
    if not counts:
        return ""
    effective = corrections[left_out | changed | reweighted].sort_values("clip")
    effective = effective[["clip", "labels", "weight"]].assign(labels=effective["labels"].mask(left_out, ""))
    digest = hashlib.sha256(files.csv_text(effective).encode()).hexdigest()
    return f"{', '.join(counts)} ({digest[:7]})"
