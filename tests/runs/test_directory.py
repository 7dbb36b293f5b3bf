import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from audiotag import files
from audiotag.config.loading import load
from audiotag.data.records.manifest import Manifest
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.runs.directory import Run, environment, held, open_run, start_run

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
HEARING = {"sample_rate": 16_000, "trim": "level", "trim_db": None, "peak_db": -0.1}
MANIFEST = Manifest(
    directory=Path("tfrecords/demo"),
    options=HEARING,
    plan="abc",
    vocabulary=("Bark", "Meow"),
    shards=(),
    tables={},
)


def start(folder, *overrides, manifest=MANIFEST, **more):
    with start_run(folder, load(DEMO, overrides), manifest, **more) as run:
        return run


@pytest.fixture
def begun(tmp_path):
    """A run that has begun and trained nothing yet."""
    return start(tmp_path / "runs" / "demo")


def finish(run, fold, stage, data=b"weights"):
    """Writes what a stage leaves."""
    folder = run.stage_folder(fold, stage)
    folder.mkdir(parents=True)
    (folder / "best.weights.h5").write_bytes(data)
    known = {"weights": "best.weights.h5", "sha256": files.sha256(folder / "best.weights.h5"), "epochs": 3}
    known |= {"best_epoch": 2, "val_lwlrap": 0.5}
    (folder / "finished.json").write_text(json.dumps(known))
    return folder / "best.weights.h5"


def test_a_run_knows_what_it_was_begun_with(begun, tmp_path):
    assert begun == Run(
        folder=tmp_path / "runs" / "demo",
        experiment=load(DEMO),
        hearing=HEARING,
        vocabulary=("Bark", "Meow"),
        plan="abc",
    )
    assert open_run(begun.folder) == begun


def test_its_files_say_it_to_people_too(begun):
    assert load(begun.folder / "experiment.json") == load(DEMO)
    assert '"deterministic": true' in (begun.folder / "experiment.json").read_text()  # every default written out
    known = json.loads((begun.folder / "records.json").read_text())
    assert known == {"hearing": HEARING, "vocabulary": ["Bark", "Meow"], "plan": "abc"}
    assert json.loads((begun.folder / "environment.json").read_text()) == environment()


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert set(found) == {"python", "machine", "system", "cores", "packages"}
    assert {"audiotag", "tensorflow", "keras", "numpy", "librosa"} <= set(found["packages"])
    assert all(found["packages"].values())


def test_begun_again_with_the_same_it_goes_on(begun):
    (begun.folder / "left").write_text("from before")
    assert start(begun.folder) == begun
    assert (begun.folder / "left").exists()


def test_a_beginning_that_was_killed_is_begun_again(begun):
    (begun.folder / "records.json").unlink()  # the last of the three to be written
    assert start(begun.folder, "seed=7").experiment.seed == 7


def test_another_experiment_or_other_records_are_refused_once_something_is_trained(begun):
    finish(begun, 0, "noisy")
    way_out = r"Give the run another name with --run, or train it anew with --restart\."
    with pytest.raises(DataError, match=rf"demo: was trained with another experiment than this one\. {way_out}"):
        start(begun.folder, "seed=7")
    for change, difference in (
        ({}, "the audio of the recordings, their labels or other options of make-records differ"),
        ({"options": HEARING | {"trim": None, "peak_db": None}}, "trim is None there .* peak_db is None there"),
        ({"vocabulary": ("Bark", "Moo")}, "they have other classes"),
    ):
        other = Manifest(**{**vars(MANIFEST), "plan": "xyz", **change})
        message = rf"demo: was trained on other records than tfrecords/demo: {difference}(?s:.*)\. {way_out}"
        with pytest.raises(DataError, match=message):
            start(begun.folder, manifest=other)


@pytest.mark.parametrize("done", [None, "state.npz", "before-state.npz", "finished.json"])
def test_an_experiment_that_got_nowhere_may_be_mended(begun, done):
    stage = begun.stage_folder(0, "noisy") / "1"
    stage.mkdir(parents=True)
    for path in (stage / "heard.csv", begun.folder / "folds.csv", begun.folder / "letters"):
        path.write_text("of another seed")
    if done:
        (stage / done).touch()
        with pytest.raises(DataError, match="another experiment"):
            start(begun.folder, "seed=7")
    else:
        assert start(begun.folder, "seed=7").experiment.seed == 7
        held = {path.name for path in begun.folder.iterdir()}
        assert held == {"experiment.json", "environment.json", "records.json", ".lock", "letters"}


def test_what_another_process_trains_is_neither_replaced_nor_swept(begun):
    (begun.folder / ".unfinished-99-saved_model").mkdir()
    with held(begun.folder):
        with pytest.raises(DataError, match="demo: another fit is training here. Wait for it, or choose another --run"):
            start(begun.folder, "seed=7", restart=True)
        with pytest.raises(DataError, match="demo: was trained with another experiment"):
            start(begun.folder, "seed=7")
        assert start(begun.folder) == begun  # another fold of it, say
        assert (begun.folder / ".unfinished-99-saved_model").exists()
    start(begun.folder)
    assert not (begun.folder / ".unfinished-99-saved_model").exists()


def test_a_run_is_held_while_it_trains(begun):
    with start_run(begun.folder, load(DEMO), MANIFEST):
        with pytest.raises(DataError, match="another fit is training here"):
            start(begun.folder, restart=True)


def test_restart_removes_a_run(begun):
    finish(begun, 0, "noisy")
    (begun.folder / "left").write_text("from before")
    assert start(begun.folder, "seed=7", restart=True).experiment.seed == 7
    assert not (begun.folder / "left").exists() and not list(begun.folder.glob("fold-*"))
    assert [path.name for path in begun.folder.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("gone", ["experiment.json", "records.json"])
def test_restart_removes_what_is_half_a_run(begun, gone):
    finish(begun, 0, "noisy")
    (begun.folder / gone).unlink()
    with pytest.raises(AudiotagError):
        start(begun.folder, "seed=7")
    assert start(begun.folder, "seed=7", restart=True).experiment.seed == 7
    assert not list(begun.folder.glob("fold-*"))


def test_folds_without_their_run_are_not_taken_over(begun):
    finish(begun, 0, "noisy")
    for name in ("experiment.json", "records.json"):
        (begun.folder / name).unlink()
    for restart in (False, True):
        with pytest.raises(
            DataError, match=r"fold-0: of a run that is no longer whole\. Remove .*demo, or choose another --run\."
        ):
            start(begun.folder, restart=restart)


def test_a_restart_that_was_killed_is_brought_to_its_end(begun):
    left = begun.folder.parent / ".removed-99-demo"
    finish(dataclasses.replace(begun, folder=left), 0, "noisy")
    other = begun.folder.parent / ".removed-99-other"
    other.mkdir()
    start(begun.folder)
    assert not left.exists() and other.exists()


def test_a_run_behind_a_link_is_removed_there(begun, tmp_path):
    finish(begun, 0, "noisy")
    (tmp_path / "link").symlink_to(begun.folder)
    assert start(tmp_path / "link", "seed=7", restart=True).experiment.seed == 7
    assert open_run(begun.folder).experiment.seed == 7 and not list(begun.folder.glob("fold-*"))


def test_restart_removes_nothing_but_a_run(tmp_path):
    (tmp_path / "letters").write_text("dear")
    start(tmp_path, restart=True)
    assert (tmp_path / "letters").read_text() == "dear"


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    message = r"not the directory of a run: it has no records\.json\. Train one with: audiotag fit EXPERIMENT"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=f"{folder}: {message}"):
            open_run(folder)


def test_a_run_without_its_experiment_is_refused(begun):
    (begun.folder / "experiment.json").unlink()
    with pytest.raises(ConfigError, match=r"experiment\.json: cannot be read: No such file or directory\."):
        open_run(begun.folder)


def test_a_finished_stage_gives_its_weights(begun):
    assert begun.finished(2, "noisy") is None
    path = finish(begun, 2, "noisy")
    assert begun.finished(2, "noisy")["epochs"] == 3
    assert begun.weights(2, "noisy") == path
    assert begun.trained_folds("noisy") == [2]
    assert begun.trained_folds("curated") == []


def test_folds_are_told_in_their_order(begun):
    for fold in (4, 0, 3):
        finish(begun, fold, "curated")
    assert begun.trained_folds("curated") == [0, 3, 4]


def test_weights_of_a_stage_that_is_not_finished_are_refused(begun):
    with pytest.raises(
        DataError, match=r"demo: stage 'noisy' of fold 1 is not trained yet\. Finish it with: audiotag fit"
    ):
        begun.weights(1, "noisy")


@pytest.mark.check("E1")
def test_weights_that_were_lost_or_altered_are_refused(begun):
    path = finish(begun, 0, "noisy")
    message = r"best\.weights\.h5: missing or damaged: its SHA-256 is not that in finished\.json\. Train anew with"
    path.write_bytes(b"weighty")
    with pytest.raises(DataError, match=message):
        begun.weights(0, "noisy")
    path.unlink()
    with pytest.raises(DataError, match=message):
        begun.weights(0, "noisy")


def test_a_run_may_be_moved(run, tmp_path):
    moved = open_run(shutil.copytree(run.folder, tmp_path / "moved"))
    assert moved.weights(0, "curated") == tmp_path / "moved" / "fold-0" / "curated" / "best.weights.h5"
    assert moved.vocabulary == run.vocabulary


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("records.json", b"{", "not a JSON file: Expecting property name"),
        ("records.json", b"\x80", "not a JSON file: 'utf-8' codec can't decode"),
        ("records.json", {"hearing": {}}, "hearing.sample_rate: this key is missing"),
        ("records.json", {"hearing": HEARING | {"sample_rate": "x"}}, "hearing.sample_rate: Input should be a valid"),
        ("records.json", {"hearing": None}, "hearing: Input should be a valid object"),  # as of an older version
        ("records.json", {"vocabulary": [1, 2]}, r"vocabulary\[0\]: Input should be a valid string, found 1"),
        ("finished.json", b"", "not a JSON file: Expecting value"),
        ("finished.json", b"[" * 100_000, "not a JSON file: "),
        ("finished.json", {"round": "zz"}, "round: Input should be a valid integer, found 'zz'"),
        ("finished.json", {"weights": 3}, "weights: Input should be a valid string, found 3"),
    ],
)
def test_a_run_that_is_damaged_is_refused_in_a_sentence(begun, name, content, message):
    path = begun.folder / name if name == "records.json" else finish(begun, 0, "noisy").with_name(name)
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    way_out = r"Damaged, or an older audiotag's: train the run anew with --restart\."
    with pytest.raises(DataError, match=rf"{path}: {message}(?s:.*)\. {way_out}"):
        open_run(begun.folder).weights(0, "noisy")
