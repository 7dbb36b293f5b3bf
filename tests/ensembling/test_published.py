"""The published ensembles evaluate and make submissions on small forms of their members, and export if they can.

Their members train one step per fold, so this is in the full tier alone. A process for each keeps no other's memory.
"""

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from tiers import tier

from audiotag.config.loading import load
from audiotag.data.clips import read_table
from audiotag.data.records import write_records

ROOT = Path(__file__).parents[2]
# And whether it exports: Maxwell_110's networks have different sample rates.
ENSEMBLES = tier((), (("vgg_gap_three", True), ("xresnet_six", True), ("maxwell_twenty", False)))


FIT = """
import json, sys
from audiotag.config.loading import load
from audiotag.training.loop import fit
experiment, overrides, folder = sys.argv[1:]
fit(load(experiment, json.loads(overrides)), folder)
"""


@pytest.fixture(scope="module")
def train(recordings, start, tmp_path_factory):
    """A function: the name of an experiment → the folder of its small form, trained for one step per fold."""
    folder, runs = tmp_path_factory.mktemp("published"), {}
    script = folder / "fit.py"
    script.write_text(FIT)
    source, _ = recordings(folder / "noise", [8_000] * 80, subsets=("curated", "curated", "noisy", "test"))

    def train(name):
        if name in runs:
            return runs[name]
        path = ROOT / "experiments" / f"{name}.json"
        words = shlex.split(load(path).quick_command)
        overrides = [word for before, word in pairwise(words) if before == "--set"]
        rate = {"conv1d": 16_000, "mfcc": 44_100}.get(name, 32_000 if name.startswith("vgg") else 44_100)
        if not (folder / str(rate)).is_dir():
            write_records(source, folder / str(rate), sample_rate=rate, workers=0)
        overrides += [f"records={folder / str(rate)}"]
        (first, *_) = load(path, overrides).stages
        stage = first.model_dump(mode="json", exclude_unset=True) | {"epochs": 1, "batch_size": 2, "steps_per_epoch": 1}
        stage |= {"keep": "last", "validation_freq": 1, "callbacks": [], "schedule": None}
        overrides += [f"stages={json.dumps([stage])}"]
        if load(path).validation is not None:
            held_out = list(load(path).validation.folds.held_out)
            overrides += [f"validation.folds.num_folds={len(held_out)}", f"validation.folds.held_out={held_out}"]
        job = start(path, json.dumps(overrides), folder / name, script=script)
        assert job.wait(1800) == 0, job.output()[-2000:]
        runs[name] = folder / name
        return runs[name]

    return train


@pytest.mark.parametrize(("name", "exports"), ENSEMBLES)
def test_it_evaluates_makes_a_submission_and_exports_if_its_members_share_a_rate(name, exports, train, start, tmp_path):
    content = json.loads((ROOT / "ensembles" / f"{name}.json").read_text())
    for member in content["members"]:
        member["run"] = str(train(Path(member["run"]).name))
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(content))

    def call(*arguments):
        job = start(*arguments)
        return job.wait(1800), job.output()

    code, output = call("evaluate", path)
    assert code == 0 and "lwlrap" in output, output
    code, output = call("make-submission", path, "--top", 3, "--out", tmp_path / "top.csv")
    assert code == 0, output
    table = read_table(tmp_path / "top.csv", ["fname", "label"])
    assert len(table) == 20 and set(table["label"]) <= {"a b", "b a"}
    code, output = call("export", path, tmp_path / "saved")
    assert (code == 0) == exports and exports != ("An ensemble reads a file once" in output), output
