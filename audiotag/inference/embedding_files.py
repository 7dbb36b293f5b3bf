"""Embeddings of audio files of any length, in constant memory."""

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from audiotag import files, progress
from audiotag.errors import ConfigError, DataError
from audiotag.inference.long_recordings import window_batches_of
from audiotag.inference.predictor import Predictor

Per = Literal["window", "clip"]
COLUMNS = ("fname", "start", "end")  # of a table of embeddings, before the vectors
SUFFIXES = (".npz", ".parquet")


def embed_files(
    predictor: Predictor, paths: Sequence[Path], *, per: Per = "window"
) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
    """Yields what the backbone of a model makes of audio files, before the head.

    Files are not trimmed: times are those of the file.

    Args:
        predictor: A `Predictor`.
        paths: Audio files of any length, rate and number of channels.
        per: A row per "window", or per "clip": the mean over the windows of a file.

    Yields:
        (table with the columns fname, start and end in seconds, embeddings float32 [rows, D]), in parts.

    Raises:
        DataError: A file cannot be read, an embedding is not finite, or the model has none.
    """
    embeddings = predictor.needed_embeddings()
    for path in progress.bar(paths, total=len(paths), unit="file", label="embed"):
        total: Any = 0.0
        count, end = 0, 0.0
        for starts, ends, waveform in window_batches_of(predictor, path):
            vectors = np.asarray(embeddings(waveform))  # [B, D]
            if not np.isfinite(vectors).all():
                raise DataError(f"{path}: the backbone makes NaN or infinity of it. Leave the file out.")
            if per == "window":
                yield _table(path, starts, ends), vectors
            total = total + vectors.sum(axis=0, dtype="float64")
            count, end = count + len(vectors), ends[-1]
        if per == "clip":
            yield _table(path, [0.0], [end]), (total / count).astype("float32")[None]


def _table(path, starts, ends):
    return pd.DataFrame(dict(zip(COLUMNS, ([str(path)] * len(starts), starts, ends))))


def write_embeddings(path: str | Path, parts: Iterable[tuple[pd.DataFrame, np.ndarray]]) -> int:
    """Writes embeddings part by part; returns the number of rows.

    Args:
        path: Ends in .npz, for the arrays fname, start, end and embeddings [rows, D]; or in .parquet, for a table whose
            column `embedding` has lists of D numbers.
        parts: What `embed_files` yields.

    Raises:
        ConfigError: The name has another ending.
        DataError: The disk is full.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: found the ending {path.suffix!r}. Expected {' or '.join(SUFFIXES)}.")
    with files.atomic_file(path) as unfinished:
        return _write_parquet(unfinished, parts) if path.suffix == ".parquet" else _write_npz(unfinished, parts)


def _write_npz(path, parts):
    """The vectors are first in a file of their own, as the header of an array has the number of its rows."""
    tables, width = [], 0
    with tempfile.TemporaryFile(dir=path.parent) as rows:
        for table, vectors in parts:
            tables.append(table)
            width = vectors.shape[1]
            rows.write(np.ascontiguousarray(vectors, "<f4").tobytes())
        table = pd.concat(tables, ignore_index=True)
        columns = {"fname": table["fname"].to_numpy("U"), "start": table["start"], "end": table["end"]}
        with zipfile.ZipFile(path, "w") as archive:
            for name, values in columns.items():
                with _member(archive, name) as file:
                    np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)
            with _member(archive, "embeddings") as file:
                header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (len(table), width)}
                np.lib.format.write_array_header_1_0(file, header)
                rows.seek(0)
                shutil.copyfileobj(rows, file, 1 << 20)
    return len(table)


@contextlib.contextmanager
def _member(archive, name):
    """A file in an archive, of the same bytes whenever it is written."""
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        yield file


def _write_parquet(path, parts):
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, count = None, 0
    try:
        for table, vectors in parts:
            if writer is None:
                vector = pa.list_(pa.float32(), vectors.shape[1])
                schema = pa.schema(
                    [("fname", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("embedding", vector)]
                )
                writer = pq.ParquetWriter(path, schema)
            flat = pa.array(np.ascontiguousarray(vectors, "float32").ravel())
            columns = [pa.array(table[name]) for name in COLUMNS]
            writer.write_table(
                pa.table([*columns, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])], schema=schema)
            )
            count += len(vectors)
    finally:
        if writer is not None:
            writer.close()
    return count
