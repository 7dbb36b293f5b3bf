"""Ways to stop training in the middle, and to compare the files that it leaves."""

import h5py


class Stopped(BaseException):
    """Raised by a test in place of `kill -9`."""


def arrays_in(path):
    """{name: array} of every dataset in an HDF5 file."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return arrays


def sets(overrides):
    """The options of a command that sets these overrides."""
    return [text for override in overrides for text in ("--set", override)]
