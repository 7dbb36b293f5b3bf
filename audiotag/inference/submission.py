"""submission.csv as the competition wants it."""

from pathlib import Path

import pandas as pd

from audiotag import files
from audiotag.data.clips import read_table
from audiotag.errors import DataError


def write_submission(path, clips, scores, vocabulary, *, sample=None):
    """Writes `fname` and one column a class in sorted order, one row a test clip.

    Args:
        path: The file to write.
        clips: The table of the clips scored.
        scores: [len(clips), K].
        vocabulary: The K class names.
        sample: The competition's sample_submission.csv, whose order of rows to follow; None sorts by name.

    Raises:
        DataError: The sample names other clips or classes than were scored, or a clip twice.
    """
    table = pd.DataFrame(scores, columns=list(vocabulary))[sorted(vocabulary)]
    table.insert(0, "fname", clips["name"].to_numpy())
    if sample is None:
        table = table.sort_values("fname")
    else:
        wanted = read_table(sample, ["fname"])
        if list(wanted.columns) != list(table.columns):
            differing = sorted(set(wanted.columns) ^ set(table.columns)) or "another order"
            raise DataError(
                f"{sample}: its columns are not fname and the {len(vocabulary)} classes in sorted order: {differing}."
            )
        twice = wanted["fname"][wanted["fname"].duplicated()]
        if len(twice):
            raise DataError(f"{sample}: {twice.iloc[0]} stands there twice.")
        missing = sorted(set(wanted["fname"]) ^ set(table["fname"]))
        if missing:
            raise DataError(
                f"{sample}: names other clips than were scored, such as {missing[0]} ({len(missing)} in all)."
            )
        table = table.set_index("fname").loc[wanted["fname"]].reset_index()
    files.write_text(Path(path), table.to_csv(index=False, lineterminator="\n"))
