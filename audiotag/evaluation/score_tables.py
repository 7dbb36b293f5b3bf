"""Tables of scores: a row a clip, for each class its probability and its logit, as CSV or Parquet."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import files
from audiotag.errors import ConfigError

LOGIT = " logit"  # after a class's name: the column that tells apart what rounds to probability 0 or 1


def scores_table(names, logits, vocabulary):
    """The table of scores: fname, the K classes' probabilities, and K columns such as "Bark logit".

    Example:
        >>> scores_table(["1.wav"], np.array([[0.0]]), ["Bark"]).to_dict("records")
        [{'fname': '1.wav', 'Bark': 0.5, 'Bark logit': 0.0}]
    """
    logits = np.asarray(logits, "float64")
    table = pd.DataFrame({"fname": [str(name) for name in names]})
    values = np.concatenate([expit(logits), logits], axis=1)  # [n, 2 K]
    columns = [*vocabulary, *(f"{label}{LOGIT}" for label in vocabulary)]
    return pd.concat([table, pd.DataFrame(values, columns=columns)], axis=1)


def write_scores(path, table):
    """Writes a table of scores, as Parquet where the name ends in .parquet, else as CSV; numbers keep their last bit.

    Raises:
        ConfigError: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        files.write_text(path, files.csv_text(table))
        return
    check_parquet(path)
    with files.whole_file(path) as unfinished:
        table.to_parquet(unfinished, engine="pyarrow", index=False)


def check_parquet(path):
    """Raises ConfigError where pyarrow is not installed, which a Parquet file at `path` needs."""
    if not can_write_parquet():
        raise ConfigError(f"{path}: Parquet needs pyarrow. Install it with: pip install 'audiotag[parquet]'")


def can_write_parquet():
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None
