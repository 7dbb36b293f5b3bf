"""Tables of scores, as CSV or Parquet.

They have a row per clip, and a probability and a logit per class.
"""

import importlib.util
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
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


def write_in_parts(path: str | Path, tables: Iterable[pd.DataFrame]) -> None:
    """Writes one table, of which a part at a time is in memory.

    Args:
        path: A file whose name ends in .parquet, or in anything else for CSV.
        tables: One part or more with the same columns, of numbers and texts.

    Raises:
        ConfigError: Parquet without pyarrow.
    """
    parquet = Path(path).suffix == ".parquet"
    if parquet:
        check_parquet(path)
    with files.atomic_file(path) as unfinished:
        (_parquet_parts if parquet else _csv_parts)(unfinished, tables)


def _csv_parts(path, tables):
    with open(path, "wb") as file:
        for number, table in enumerate(tables):
            text = files.csv_text(table)
            file.write((text if number == 0 else text.partition("\n")[2]).encode())


def _parquet_parts(path, tables):
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = iter(tables)
    first = next(tables)
    kinds = {column: pa.float64() if is_numeric_dtype(first[column]) else pa.string() for column in first}
    with pq.ParquetWriter(path, pa.schema(kinds)) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(pa.Table.from_pandas(table, schema=writer.schema, preserve_index=False))


def check_parquet(path: str | Path) -> None:
    """Raises ConfigError if `path` is a Parquet file and pyarrow is not installed."""
    if not can_write_parquet():
        raise ConfigError(f"{path}: Parquet needs pyarrow. Install it with: pip install 'audiotag-trainer[parquet]'")


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None
