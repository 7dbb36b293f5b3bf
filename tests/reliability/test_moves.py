"""D14: records and runs that were moved, renamed or copied give the same results."""

import contextlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from tiers import tier

from audiotag.cli import main
from audiotag.config.loading import load
from audiotag.data.records.manifest import read_manifest, write_manifest
from audiotag.training import loop
from audiotag.training.loop import fit

SAME = "the same place"


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def make_project(folder, run, records, tiny_file):
    """A folder with records and a run, as make-records and `fit` leave them."""
    shutil.copytree(records, folder / "tfrecords" / "demo")
    shutil.copytree(run.folder, folder / "runs" / "tiny")
    for path in (folder / "tiny.json", folder / "runs" / "tiny" / "experiment.json"):
        source = tiny_file if path.name == "tiny.json" else path
        path.write_text(json.dumps(json.loads(source.read_text()) | {"records": "tfrecords/demo"}))
    members = [{"run": "runs/tiny", "stage": stage} for stage in ("noisy", "curated")]
    (folder / "two.json").write_text(json.dumps({"members": members, "combiner": {"name": "mean"}}))
    return folder


@pytest.fixture
def project(run, records, tiny_file, tmp_path, monkeypatch):
    """The working directory, with records and a run."""
    monkeypatch.chdir(tmp_path)
    return make_project(tmp_path, run, records, tiny_file)


def results(run, records=None):
    """What commands that need records print and write."""
    where = ["--records", records] if records else []
    output = []
    for words in (
        ("evaluate", run, "--out", "out", *where),
        ("evaluate", run, "--out-of-fold", "--out", "out-of-fold", *where),
        ("label-issues", run, "--csv", "issues.csv", *where),
    ):
        result = invoke(*words)
        assert result.exit_code == 0, (words, result.output)
        output.append(result.stdout)
    issues = pd.read_csv("issues.csv").drop(columns="source")  # it has the name of the run
    return [
        *output,
        *(Path(path).read_text() for path in ("out/scores.csv", "out-of-fold/scores.csv")),
        issues.to_csv(),
    ]


@pytest.fixture(scope="module")
def expected(run, records, tiny_file, tmp_path_factory):
    """The results before any move."""
    with contextlib.chdir(make_project(tmp_path_factory.mktemp("project"), run, records, tiny_file)):
        return results("runs/tiny")


# How the records move, how the run moves, and whether a command must be told where the records are.
MOVES = {
    "records renamed": ("tfrecords/other", SAME, False),
    "records copied": ("copy:tfrecords/other", SAME, False),
    "run renamed": (SAME, "runs/other", False),
    "run copied": (SAME, "copy:runs/other", False),
    "both renamed": ("tfrecords/x/../b", "runs/b", False),
    "to another project": ("new/tfrecords/demo", "new/runs/tiny", False),
    "records to another disk": ("disk/sets/demo", SAME, True),
    "both to other disks": ("disk/sets/demo", "other/disk/run", True),
}


@pytest.mark.check("D14")
@pytest.mark.parametrize("move", [*MOVES][:: tier(3, 1)])
def test_results_stay_the_same(project, expected, move):
    records, run, told = MOVES[move]
    places = {"tfrecords/demo": records, "runs/tiny": run}
    (project / "tfrecords" / "x").mkdir()
    for source, target in places.items():
        how, _, place = target.rpartition(":")
        if target != SAME:
            shutil.copytree(source, place)
            if how != "copy" or source == "tfrecords/demo":
                shutil.rmtree(source)
            places[source] = place
        else:
            places[source] = source
    run, records = places["runs/tiny"], places["tfrecords/demo"]
    if told:
        for command in (["evaluate", run], ["report", run], ["label-issues", run]):
            result = invoke(*command)
            fingerprint = read_manifest(records).fingerprint[:12]
            assert result.exit_code == 1 and "tfrecords/demo: no such directory of records" in result.output
            assert fingerprint in result.output and "give their place with --records" in result.output
        assert results(run, records) == expected
        assert invoke("make-submission", run, "--records", records).exit_code == 0
        assert invoke("doctor", run, "--records", records, "--workers", 1).exit_code == 0
        assert invoke("compare", run, "--records", records).exit_code == 0
    else:
        assert results(run) == expected


@pytest.mark.check("D14", 3)
def test_reports_submissions_and_ensembles_find_records_that_were_renamed(project):
    shutil.move("tfrecords/demo", "tfrecords/other")
    for words in (["report", "runs/tiny"], ["make-submission", "runs/tiny"], ["evaluate", "two.json"]):
        result = invoke(*words)
        assert result.exit_code == 0, result.output


@pytest.mark.check("D14")
@pytest.mark.parametrize("words", [["--records", "far/demo"], [], ["--set", "records=far/demo"]][: tier(2, 3)])
def test_fit_continues_on_records_that_were_moved(project, words):
    place = "far/demo" if words else "tfrecords/new"
    weights = {path: path.read_bytes() for path in project.glob("runs/tiny/fold-*/**/*.h5")}
    shutil.copytree("tfrecords/demo", place)
    shutil.rmtree("tfrecords/demo")
    result = invoke("fit", "tiny.json", "--run", "runs/tiny", *words)
    assert result.exit_code == 0, result.output
    assert ("its records are now in tfrecords/new, and were in" in result.stderr) == (place == "tfrecords/new")
    assert {path: path.read_bytes() for path in weights} == weights
    assert json.loads((project / "runs/tiny/experiment.json").read_text())["records"] == place
    said = []
    fit(load("tiny.json"), "runs/tiny", say=said.append)  # the old place is in the experiment, and still gone
    assert said[0] == f"tfrecords/demo: there is no such directory. runs/tiny continues on {place}."


def test_a_new_run_trains_on_the_given_records(project, monkeypatch):
    trained = []
    monkeypatch.setattr(loop, "_fit_folds", lambda run, manifest, *_: trained.append((run, manifest.directory)))
    monkeypatch.setattr("audiotag.serving.saved_model.write_saved_model", lambda run, folder: folder)
    shutil.move("tfrecords/demo", "elsewhere")
    assert invoke("fit", "tiny.json", "--run", "runs/new", "--records", "elsewhere").exit_code == 0
    (run, directory) = trained[0]
    assert str(directory) == run.experiment.records == "elsewhere"
    assert invoke("fit", "tiny.json", "--run", "runs/x", "--records", "nowhere").exit_code == 2
    assert "no such directory of records" in invoke("fit", "tiny.json", "--run", "runs/x").output


@pytest.mark.check("D14", 5)
def test_other_records_are_refused(project):
    shutil.copytree("tfrecords/demo", "tfrecords/other")
    manifest = read_manifest("tfrecords/other")
    write_manifest(type(manifest)(**{**vars(manifest), "fingerprint": "f" * 64}))
    for command in ("report", "label-issues"):
        result = invoke(command, "runs/tiny", "--records", "tfrecords/other")
        assert result.exit_code == 1 and "fingerprint ffffffffffff, and runs/tiny was trained on" in result.output
    result = invoke("compare", "runs/tiny", "--records", "tfrecords/other")
    assert result.exit_code == 1 and "none of the runs was trained on these" in result.output
    result = invoke("evaluate", "runs/tiny", "--out-of-fold", "--records", "tfrecords/other")
    assert result.exit_code == 1 and "Give the place of these." in result.output
    result = invoke("fit", "tiny.json", "--run", "runs/tiny", "--records", "tfrecords/other")
    assert result.exit_code == 1 and "was trained on other records than tfrecords/other" in result.output
    assert invoke("evaluate", "runs/tiny", "--records", "tfrecords/other").exit_code == 0  # other test records
    result = invoke("evaluate", "two.json", "--records", "tfrecords/demo")
    assert result.exit_code == 1 and "each member has its own records" in result.output
