"""Arrays and a description of them in one file.

It is written atomically and read safely.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag import files


def save_arrays(path: Path, arrays: Sequence[np.ndarray], content: Any, *, keep: Path | None = None) -> None:
    """Writes arrays and what describes them.

    Args:
        path: The file to write; ends in .npz.
        arrays: Any number of them.
        content: What JSON can hold.
        keep: Where the file that was at `path` is moved; None replaces it.

    Raises:
        DataError: The disk is full.
    """
    text = json.dumps(content, default=lambda number: number.item()).encode()
    arrays = [*arrays, np.frombuffer(text, "uint8")]
    with files.atomic_file(path, keep=keep) as unfinished:
        np.savez(unfinished, *arrays, sha256=np.array(_digest(arrays)))


def load_arrays(path: Path) -> tuple[list[np.ndarray], Any]:
    """The arrays and the content that `save_arrays` wrote.

    Raises:
        Exception: The file is damaged, or none of `save_arrays`; zipfile and NumPy raise a dozen kinds.
    """
    with open(path, "rb") as data:
        if data.read(4) != b"PK\3\4":  # or NumPy would advise to load it unsafely
            raise ValueError("it is not a zip archive")
        data.seek(0)
        with np.load(data, allow_pickle=False) as file:
            if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
                raise ValueError("it is compressed")
            arrays = dict(file)
    expected = str(arrays.pop("sha256"))
    if expected != _digest(arrays.values()):
        raise ValueError("its SHA-256 is wrong")
    *numbers, text = arrays.values()
    return numbers, json.loads(text.tobytes())


def _digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
