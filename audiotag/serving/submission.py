"""submission.csv in the format of the competitions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from audiotag import files
from audiotag.data.clips import read_table
from audiotag.errors import DataError


def write_submission(
    path: str | Path,
    clips: pd.DataFrame,
    scores: np.ndarray,
    vocabulary: Sequence[str],
    *,
    template: str | Path | None = None,
    top: int | None = None,
) -> int:
    """Writes a submission: scores per class, or the top labels of each clip.

    The file has `fname` and a column of scores per class, one row per test clip; with top labels `fname` and `label`.

    Args:
        path: The file to write.
        clips: The table of the scored clips.
        scores: [len(clips), K].
        vocabulary: The K class names.
        template: The competition's sample_submission.csv, whose order of rows to use; None sorts by name. For one
            with the columns fname,label, as FSDKaggle2018's, top labels are written, and clips that were not scored,
            as those that its competition ignored, keep the labels of the template.
        top: The number of labels of each clip, separated by spaces, best first; None writes scores, and three labels
            for a template of labels.

    Returns:
        The number of rows that keep the labels of the template.

    Raises:
        DataError: The template names other clips or classes than were scored, or a clip twice.
    """
    names = clips["name"].to_numpy()
    wanted = None if template is None else read_table(template, ["fname"])
    of_labels = wanted is not None and list(wanted.columns) == ["fname", "label"]
    if of_labels or top is not None:
        table = pd.DataFrame({"label": top_labels(scores, vocabulary, count=top or 3)})
    else:
        table = pd.DataFrame(scores, columns=list(vocabulary))[sorted(vocabulary)]
    table.insert(0, "fname", names)
    num_kept = 0
    if wanted is None:
        table = table.sort_values("fname")
    else:
        _check_template(template, wanted, table, may_have_more=of_labels)
        unscored = wanted[~wanted["fname"].isin(table["fname"])]
        num_kept = len(unscored)
        table = pd.concat([table, unscored]).set_index("fname").loc[wanted["fname"]].reset_index()
    files.write_text(Path(path), table.to_csv(index=False, lineterminator="\n"))
    return num_kept


def top_labels(scores: np.ndarray, vocabulary: Sequence[str], *, count: int = 3) -> list[str]:
    """The labels with the highest scores of each clip, best first, as one text.

    They are separated by spaces.

    Example:
        >>> top_labels([[0.1, 0.7, 0.2, 0.0]], ["Bark", "Meow", "None", "Rain"])
        ['Meow None Bark']
    """
    spaced = [label for label in vocabulary if " " in label]
    if spaced:
        raise DataError(
            f"class {spaced[0]!r} has a space in its name, which separates labels in this format. Use '_' instead."
        )
    top = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :count]
    return [" ".join(vocabulary[label] for label in row) for row in top]


def _check_template(template, wanted, table, *, may_have_more):
    """Refuses a template with other columns or clips than a table has; with more clips, unless it may."""
    if list(wanted.columns) != list(table.columns):
        if list(table.columns) == ["fname", "label"]:
            raise DataError(f"{template}: is for scores, and --top writes labels. Leave out --top or --template.")
        differing = sorted(set(wanted.columns) ^ set(table.columns)) or "another order"
        raise DataError(
            f"{template}: its columns are not fname and the {len(table.columns) - 1} classes in sorted order: "
            f"{differing}."
        )
    duplicates = wanted["fname"][wanted["fname"].duplicated()]
    if len(duplicates):
        raise DataError(f"{template}: {duplicates.iloc[0]} is listed twice.")
    lacking = set(table["fname"]) - set(wanted["fname"])
    differing = sorted(lacking if may_have_more else set(wanted["fname"]) ^ set(table["fname"]))
    if differing:
        raise DataError(
            f"{template}: names other clips than were scored, such as {differing[0]} ({len(differing)} in all)."
        )
