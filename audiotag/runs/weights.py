"""Weights on disk: written atomically, and read only if they are safe.

A file is read only if it holds nothing but plain numbers.
"""

import contextlib
from pathlib import Path

import h5py
import keras

from audiotag import files
from audiotag.errors import DataError

MAX_ARRAYS = 100_000  # in a file; the largest networks have a few thousand


def save_weights(model: keras.Model, path: str | Path, *, keep: Path | None = None) -> str:
    """Writes a model's weights and returns the file's SHA-256.

    Args:
        model: A `keras.Model`.
        path: Ends in .weights.h5.
        keep: Where the weights that were at `path` are moved; None replaces them.

    Raises:
        DataError: The disk is full.
    """
    sizes = [variable.nbytes for variable in map(keras.ops.convert_to_numpy, model.variables)]
    if getattr(model, "optimizer", None) is not None:  # Keras saves its variables, too
        sizes += [variable.nbytes for variable in map(keras.ops.convert_to_numpy, model.optimizer.variables)]
    with files.atomic_file(path, keep=keep) as unfinished:
        # HDF5 aborts the process if the disk is full, so reserve space first: the numbers, and a page for each array.
        files.reserve_space(unfinished, sum(sizes) + 4096 * (len(sizes) + 16))
        with _undistributed():
            model.save_weights(unfinished)
        return files.sha256(unfinished)


@contextlib.contextmanager
def _undistributed():
    """Variables that are created in the block are on this process alone.

    Keras creates some while it saves, and other processes that train would have to create them, too.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Loads weights that `save_weights` wrote, by names and shapes.

    The model that wrote them must be of the same experiment.

    Raises:
        DataError: The file is absent or damaged, has the weights of another network, or more than weights.
    """
    check_weights(path)
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: no weights for this network: {error}") from error


def check_weights(path: str | Path) -> None:
    """Refuses an HDF5 file that holds anything but plain numbers in its own bytes.

    Links, external storage, filters, object types and shapes larger than the file are known ways to attack
    those who load such files.

    Raises:
        DataError: Says what the file holds.
    """
    try:
        with h5py.File(path, "r") as file:
            fault, num_bytes = _inspect(file)
    except Exception as error:  # h5py's own kinds
        raise DataError(f"{path}: no weights for this network: {error}") from error
    if fault is None and num_bytes > Path(path).stat().st_size:
        fault = f"its header promises {num_bytes} bytes of numbers"
    if fault is not None:
        raise DataError(f"{path}: no weights for this network: {fault}. Files of weights hold plain numbers only.")


def _inspect(file):
    """(what an HDF5 file holds besides plain numbers, or None; the bytes of numbers that its header promises)."""
    groups, num_bytes, seen = [file], 0, set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                return f"{name!r} is a link", num_bytes
            node = group[name]
            address = h5py.h5o.get_info(node.id).addr
            if address in seen or len(seen) > MAX_ARRAYS:
                return f"{name!r} is in several places, or there are too many arrays", num_bytes
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups.append(node)
                continue
            if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiub":
                return f"{name!r} does not consist of numbers", num_bytes
            if node.external or node.is_virtual or node.id.get_create_plist().get_nfilters():
                return f"{name!r} is compressed, or stored in another file", num_bytes
            num_bytes += node.size * node.dtype.itemsize
    return None, num_bytes
