"""corrections.csv: what is known better about single clips than their table says, by hand or by a model."""

from audiotag import files
from audiotag.data.clips import numbers, read_table
from audiotag.data.labels import known_labels
from audiotag.errors import DataError

COLUMNS = ("clip", "labels", "weight", "reason", "source")


def write_corrections(path, table):
    """Writes a table of corrections by clip; the same rows give the same bytes.

    Args:
        path: The file to write.
        table: The columns `clip`, `labels` (joined by ","), `weight` (0 leaves the clip out; else how often it
            is drawn, beside 1 for others), and in words `reason` and `source`.
    """
    table = table[[*COLUMNS]].sort_values("clip")
    files.write_text(path, files.csv_text(table))


def read_corrections(path, vocabulary):
    """A table of corrections; it may be edited by hand, and `reason` and `source` may be missing.

    Args:
        path: The file.
        vocabulary: The K class names.

    Returns:
        A table with the columns `clip`, `labels`, `weight` (float), `reason`, `source`.

    Raises:
        DataError: A clip stands there twice, a label is no class, or a weight is no number from 0; names the line.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "corrections.csv"
        >>> _ = path.write_text("clip,labels,weight\\n1.wav,Bark,0.5\\n")
        >>> read_corrections(path, ["Bark"])["weight"].tolist()
        [0.5]
    """
    table = read_table(path, COLUMNS[:3]).map(files.from_cell)
    seen = {}
    for row, clip, labels in zip(table.index, table["clip"], table["labels"]):
        if clip in seen:
            raise DataError(f"{row}: clip {clip!r} stands in {seen[clip]} already. Keep one of the two rows.")
        seen[clip] = row
        try:
            known_labels(labels, vocabulary)
        except DataError as error:
            raise DataError(f"{row}: {error}") from None
    weights = numbers(table["weight"], float)
    for row, labels, weight in zip(table.index, table["labels"], weights):
        if not 0 <= weight < float("inf"):
            raise DataError(f"{row}: weight is {weight}. Expected a number from 0; 0 leaves the clip out.")
        if weight and not labels:
            raise DataError(f"{row}: labels are empty. Name one, or give the clip weight 0 to leave it out.")
    words = {column: table.get(column, "") for column in COLUMNS[3:]}
    return table.assign(weight=weights, **words)[[*COLUMNS]].reset_index(drop=True)


def corrected(clips, corrections, *, source="corrections"):
    """A table of clips as the corrections have it: other labels, and a column `weight`, 1 where nothing is said.

    Args:
        clips: A table of clips; a `weight` that it has already is multiplied.
        corrections: What `read_corrections` answers.
        source: What to call the corrections in a message.

    Returns:
        The same rows in the same order, those of weight 0 included.

    Raises:
        DataError: A correction is about a clip that is not there.
    """
    strangers = sorted(set(corrections["clip"]) - set(clips["name"]))
    if strangers:
        raise DataError(f"{source}: there is no training clip {strangers[0]!r} ({len(strangers)} such rows in all).")
    rows = corrections.set_index("clip")
    labels, weights = rows["labels"].to_dict(), rows["weight"].to_dict()
    before = clips["weight"] if "weight" in clips else [1.0] * len(clips)
    return clips.assign(
        labels=[labels.get(name, label) for name, label in zip(clips["name"], clips["labels"])],
        weight=[float(weights.get(name, 1.0)) * weight for name, weight in zip(clips["name"], before)],
    )
