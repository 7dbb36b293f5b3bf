"""Sixty short recordings and their records."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from record_folders import OPTIONS, SUBSETS

from audiotag.data.records import source_hashes, write_records
from audiotag.data.sources import find_clips


@pytest.fixture(scope="session")
def source(recordings, tmp_path_factory):
    return recordings(tmp_path_factory.mktemp("sixty") / "in", 400 + np.arange(60), subsets=SUBSETS)[0]


@pytest.fixture(scope="session")
def complete(source, tmp_path_factory):
    """The records of `source`, decoded in this process. Tests must not write into them."""
    out = tmp_path_factory.mktemp("sixty") / "out"
    write_records(source, out, **OPTIONS)
    return out


@pytest.fixture
def copy(source, tmp_path):
    """A copy of the recordings of `source`, to change."""
    return shutil.copytree(Path(source.clips["path"][0]).parents[1], tmp_path / "in")


@pytest.fixture
def made(copy, tmp_path):
    """The records of `copy`, finished."""
    time.sleep(0.05)  # a file that was written just now is hashed again
    write_records(find_clips(copy), tmp_path / "out", **OPTIONS)
    return tmp_path / "out"


@pytest.fixture
def hashed(monkeypatch):
    """The names of the files that are read only to be hashed, in order."""
    paths, identify = [], source_hashes.identify
    monkeypatch.setattr(source_hashes, "identify", lambda path: paths.append(Path(path).name) or identify(path))
    return paths
