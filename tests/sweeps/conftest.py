"""A sweep of two variations and two seeds on the tiny records, trained once."""

import json

import pytest
from selection_runs import STAGE

from audiotag.config.loading import load
from audiotag.sweeps.schema import SweepConfig
from audiotag.sweeps.training import run_sweep

ONE_STAGE = {"stages": [STAGE | {"name": "curated", "subset": "curated", "epochs": 1}]}


@pytest.fixture(scope="session")
def sweep_file(tiny_file, tmp_path_factory):
    """The file of the sweep."""
    path = tmp_path_factory.mktemp("sweep") / "tiny_sweep.json"
    content = {"experiment": str(tiny_file), "seeds": [1, 2], "variations": {"as it is": ONE_STAGE}}
    content["variations"]["no masks"] = ONE_STAGE | {"augment": []}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def sweep(sweep_file):
    """The sweep."""
    return load(sweep_file, kind=SweepConfig)


@pytest.fixture(scope="session")
def swept(sweep, sweep_file, tmp_path_factory):
    """(the folder of its runs, the `Comparison`). Tests read them and must not write into the folder."""
    folder = tmp_path_factory.mktemp("runs") / "tiny_sweep"
    return folder, run_sweep(sweep, folder, sweep_file, say=lambda sentence: None)
