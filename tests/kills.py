"""Ways to stop a training in the middle, and to compare what it left."""

import re
import subprocess
import sys
import time

import h5py


class Stopped(BaseException):
    """What a test raises in the place of `kill -9`."""


def fit_command(path, folder, overrides=()):
    sets = [part for override in overrides for part in ("--set", override)]
    return [sys.executable, "-m", "audiotag", "fit", str(path), "--run", str(folder), *sets]


def run_until(command, sign, count, pause):
    """Runs a command until `count` of its lines have matched `sign`, waits a moment and kills it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        for line in process.stdout:
            count -= bool(re.search(sign, line))
            if count == 0:
                break
        time.sleep(pause)
        process.kill()
    return process.returncode


def arrays_in(path):
    """{name: array} of every dataset in an HDF5 file."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, node: arrays.update({name: node[()]} if isinstance(node, h5py.Dataset) else {}))
    return arrays
