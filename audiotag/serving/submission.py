"""submission.csv as the competition wants it."""

from pathlib import Path

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.data.clips import read_table
from audiotag.errors import DataError


def write_submission(path, clips, scores, vocabulary, *, sample=None):
    """Writes `fname` and one column a class in sorted order, one row a test clip; or the three best labels of each.

    Args:
        path: The file to write.
        clips: The table of the clips scored.
        scores: [len(clips), K].
        vocabulary: The K class names.
        sample: The competition's sample_submission.csv, whose order of rows to follow; None sorts by name. One with
            the columns fname,label, as FSDKaggle2018's, gets three labels with spaces between them, the best first.

    Raises:
        DataError: The sample names other clips or classes than were scored, or a clip twice.
    """
    names = clips["name"].to_numpy()
    wanted = None if sample is None else read_table(sample, ["fname"])
    if wanted is not None and list(wanted.columns) == ["fname", "label"]:
        table = pd.DataFrame({"label": best_labels(scores, vocabulary)})
    else:
        table = pd.DataFrame(scores, columns=list(vocabulary))[sorted(vocabulary)]
    table.insert(0, "fname", names)
    if wanted is None:
        table = table.sort_values("fname")
    else:
        _check_sample(sample, wanted, table)
        table = table.set_index("fname").loc[wanted["fname"]].reset_index()
    files.write_text(Path(path), table.to_csv(index=False, lineterminator="\n"))


def best_labels(scores, vocabulary, *, count=3):
    """The best labels of each clip, the best first, with spaces between them.

    Example:
        >>> best_labels([[0.1, 0.7, 0.2, 0.0]], ["Bark", "Meow", "None", "Rain"])
        ['Meow None Bark']
    """
    spaced = [label for label in vocabulary if " " in label]
    if spaced:
        raise DataError(f"class {spaced[0]!r} holds a space, which parts labels in this kind of file. Use '_' instead.")
    best = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :count]
    return [" ".join(vocabulary[label] for label in row) for row in best]


def _check_sample(sample, wanted, table):
    """Refuses a sample that asks for other columns or clips than a table has."""
    if list(wanted.columns) != list(table.columns):
        differing = sorted(set(wanted.columns) ^ set(table.columns)) or "another order"
        raise DataError(
            f"{sample}: its columns are not fname and the {len(table.columns) - 1} classes in sorted order: "
            f"{differing}."
        )
    twice = wanted["fname"][wanted["fname"].duplicated()]
    if len(twice):
        raise DataError(f"{sample}: {twice.iloc[0]} stands there twice.")
    missing = sorted(set(wanted["fname"]) ^ set(table["fname"]))
    if missing:
        raise DataError(f"{sample}: names other clips than were scored, such as {missing[0]} ({len(missing)} in all).")
