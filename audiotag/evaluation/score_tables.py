"""Tables of scores, as CSV or Parquet.

They have a row per clip, and a probability and a logit per class.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from audiotag import files
from audiotag.errors import ConfigError

LOGIT = " logit"  # after a class name: the column that distinguishes scores whose probabilities round to 0 or 1


def scores_table(names: Iterable[Any], logits: Any, vocabulary: Sequence[str]) -> pd.DataFrame:
    """The table of scores: fname, K probabilities and K logits.

    The columns of logits have names such as "Bark logit".

    Example:
        >>> scores_table(["1.wav"], np.array([[0.0]]), ["Bark"]).to_dict("records")
        [{'fname': '1.wav', 'Bark': 0.5, 'Bark logit': 0.0}]
    """
    logits = np.asarray(logits, "float64")
    table = pd.DataFrame({"fname": [str(name) for name in names]})
    values = np.concatenate([expit(logits), logits], axis=1)  # [n, 2 K]
    columns = [*vocabulary, *(f"{label}{LOGIT}" for label in vocabulary)]
    return pd.concat([table, pd.DataFrame(values, columns=columns)], axis=1)


def write_scores(path: str | Path, table: pd.DataFrame) -> None:
    """Writes a table of scores, with exact numbers.

    The format is Parquet if the name ends in .parquet, else CSV.

    Raises:
        ConfigError: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        files.write_text(path, files.csv_text(table))
        return
    check_parquet(path)
    with files.atomic_file(path) as unfinished:
        table.to_parquet(unfinished, engine="pyarrow", index=False)


def check_parquet(path: str | Path) -> None:
    """Raises ConfigError if `path` is a Parquet file and pyarrow is not installed."""
    if not can_write_parquet():
        raise ConfigError(f"{path}: Parquet needs pyarrow. Install it with: pip install 'audiotag-trainer[parquet]'")


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None
