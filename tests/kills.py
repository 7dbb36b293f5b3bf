"""Ways to stop training in the middle, and to compare the files that it leaves."""

import re
import subprocess
import sys
import time

import h5py


class Stopped(BaseException):
    """Raised by a test in place of `kill -9`."""


def fit_command(path, folder, overrides=()):
    """The command that trains an experiment in a directory."""
    sets = [text for override in overrides for text in ("--set", override)]
    return [sys.executable, "-m", "audiotag", "fit", str(path), "--run", str(folder), *sets]


def run_until(command, pattern, count, pause):
    """Runs a command until `count` of its lines match a pattern, waits `pause` seconds and kills it; its exit code."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        for line in process.stdout:
            count -= bool(re.search(pattern, line))
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
