"""Weights on disk: written atomically, and only plain numbers are read."""

from pathlib import Path

import h5py
import keras

from audiotag import files
from audiotag.errors import DataError

MOST_WEIGHTS = 100_000  # in a file; the largest networks have a few thousand


def save_weights(model, path, *, keep=None):
    """Writes a model's weights and returns the file's SHA-256.

    Args:
        model: A `keras.Model`.
        path: Ends in .weights.h5.
        keep: Where the weights go that were there before; None throws them away.
    """
    sizes = [variable.nbytes for variable in map(keras.ops.convert_to_numpy, model.variables)]
    if getattr(model, "optimizer", None) is not None:  # Keras saves its variables, too
        sizes += [variable.nbytes for variable in map(keras.ops.convert_to_numpy, model.optimizer.variables)]
    with files.whole_file(path, keep=keep) as unfinished:
        # HDF5 ends the process where the disk is full, so ask for room beforehand: the numbers, and a page for each.
        files.ask_for_room(unfinished, sum(sizes) + 4096 * (len(sizes) + 16))
        model.save_weights(unfinished)
        return files.sha256(unfinished)


def load_weights(model, path):
    """Reads weights that `save_weights` wrote for a model of the same experiment, by their names and shapes alone.

    Raises:
        DataError: The file is absent, damaged, holds the weights of another network, or more than weights.
    """
    check_weights(path)
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: no weights for this network: {error}") from error


def check_weights(path):
    """Refuses an HDF5 file that holds anything but plain numbers in its own bytes.

    Links, storage in other files, filters, types that are made of code, and shapes larger than the
    file are how such files have been turned against those who load them.

    Raises:
        DataError: Says what the file holds.
    """
    try:
        with h5py.File(path, "r") as file:
            fault, promised = _strange(file)
    except Exception as error:  # h5py's own kinds
        raise DataError(f"{path}: no weights for this network: {error}") from error
    if fault is None and promised > Path(path).stat().st_size:
        fault = f"promises {promised} bytes of numbers"
    if fault is not None:
        raise DataError(f"{path}: no weights for this network: {fault}. Files of weights hold plain numbers only.")


def _strange(file):
    """(what is in an HDF5 file besides plain numbers, or None; the bytes of numbers that it promises)."""
    groups, promised, seen = [file], 0, set()
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                return f"{name!r} is a link", promised
            node = group[name]
            address = h5py.h5o.get_info(node.id).addr
            if address in seen or len(seen) > MOST_WEIGHTS:
                return f"{name!r} stands in several places, or there are too many", promised
            seen.add(address)
            if isinstance(node, h5py.Group):
                groups.append(node)
                continue
            if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "fiub":
                return f"{name!r} is not made of numbers", promised
            if node.external or node.is_virtual or node.id.get_create_plist().get_nfilters():
                return f"{name!r} is packed, or lies in another file", promised
            promised += node.size * node.dtype.itemsize
    return None, promised
