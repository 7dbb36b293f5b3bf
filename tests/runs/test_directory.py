import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from audiotag import files
from audiotag.config.loading import load
from audiotag.config.schema import SCHEMA_VERSION
from audiotag.data.records import Manifest
from audiotag.data.records.manifest import write_manifest
from audiotag.errors import AudiotagError, ConfigError, DataError
from audiotag.runs.directory import (
    Run,
    environment,
    find_records,
    is_run,
    open_run,
    shared_lock,
    start_run,
    with_records,
)

DEMO = Path(__file__).parents[2] / "experiments" / "demo.json"
AUDIO_CONFIG = {"sample_rate": 16_000, "trim": "absolute", "trim_db": None, "peak_db": -0.1}
MANIFEST = Manifest(
    directory=Path("tfrecords/demo"),
    options=AUDIO_CONFIG,
    fingerprint="abc",
    vocabulary=("Bark", "Meow"),
    shards=(),
    tables={},
)


def start(folder, *overrides, manifest=MANIFEST, **more):
    with start_run(folder, load(DEMO, overrides), manifest, **more) as run:
        return run


@pytest.fixture
def begun(tmp_path):
    """A run whose directory was created and that has trained nothing yet."""
    return start(tmp_path / "runs" / "demo")


def finish(run, fold, stage, data=b"weights"):
    """Writes the files of a finished stage; the path of its weights."""
    stage_files = run.stage_files(fold, stage)
    stage_files.folder.mkdir(parents=True)
    stage_files.best_weights.write_bytes(data)
    result = {
        "schema_version": SCHEMA_VERSION,
        "weights": "best.weights.h5",
        "sha256": files.sha256(stage_files.best_weights),
        "epochs": 3,
        "best_epoch": 2,
        "monitor": "val_lwlrap",
        "value": 0.5,
        "seconds": 1.5,
        "resumed": False,
    }
    stage_files.result.write_text(json.dumps(result))
    return stage_files.best_weights


def test_a_run_has_the_experiment_and_the_records_that_it_was_started_with(begun, tmp_path):
    assert begun == Run(
        folder=tmp_path / "runs" / "demo",
        experiment=load(DEMO),
        audio_config=AUDIO_CONFIG,
        vocabulary=("Bark", "Meow"),
        fingerprint="abc",
    )
    assert open_run(begun.folder) == begun


def test_the_files_of_a_run_can_be_read_without_audiotag(begun):
    assert load(begun.folder / "experiment.json") == load(DEMO)
    assert '"deterministic": true' in (begun.folder / "experiment.json").read_text()  # every default written out
    data = json.loads((begun.folder / "data.json").read_text())
    expected = {"audio_config": AUDIO_CONFIG, "vocabulary": ["Bark", "Meow"], "fingerprint": "abc"}
    assert data == expected | {"schema_version": 2}
    assert json.loads(begun.environment_file.read_text()) == environment() | {"components": {}}


def test_the_names_of_a_runs_files(begun):
    folder = begun.folder
    assert begun.folds_file == folder / "folds.csv"
    assert begun.corrections_file == folder / "corrections.csv"
    assert (begun.report, begun.submission) == (folder / "report.html", folder / "submission.csv")
    assert begun.saved_model == folder / "saved_model"
    stage_files = begun.stage_files(2, "verified/1")
    names = {path.relative_to(folder / "fold-2" / "verified" / "1").as_posix() for path in (
        stage_files.result, stage_files.training_state, stage_files.history, stage_files.best_weights,
        stage_files.last_weights, stage_files.tensorboard, stage_files.training_clips, stage_files.selected_clips,
        stage_files.oof_scores(), stage_files.oof_scores("noisy", "verified/2"),
    )}  # fmt: skip
    assert names == {
        "result.json", "training_state.npz", "history.csv", "best.weights.h5", "last.weights.h5", "tensorboard",
        "training_clips.csv", "selected_clips.csv", "oof.csv", "oof_noisy_for_verified-2.csv",
    }  # fmt: skip


def test_a_directory_is_that_of_a_run_once_it_is_complete(begun, tmp_path):
    assert is_run(begun.folder) and is_run(str(begun.folder))
    assert not is_run(tmp_path) and not is_run(tmp_path / "nowhere")


def test_a_stage_is_named_by_itself_or_is_the_last(begun):
    assert begun.stage_name() == "curated"
    assert begun.stage_name("noisy") == "noisy"
    with pytest.raises(DataError, match="demo: has no stage 'nosy'. Did you mean 'noisy'. Accepted: noisy, curated."):
        begun.stage_name("nosy")


def test_the_environment_names_versions_and_machine():
    found = environment()
    assert set(found) == {"python", "machine", "system", "cores", "packages"}
    assert {"audiotag", "tensorflow", "keras", "numpy", "librosa"} <= set(found["packages"])
    assert all(found["packages"].values())


def test_started_again_with_the_same_experiment_a_run_continues(begun):
    (begun.folder / "left").write_text("from before")
    assert start(begun.folder) == begun
    assert (begun.folder / "left").exists()


def test_a_start_that_was_killed_is_repeated(begun):
    (begun.folder / "data.json").unlink()  # the last of the three to be written
    assert start(begun.folder, "seed=7").experiment.seed == 7


def test_another_experiment_or_other_records_are_refused_once_something_is_trained(begun):
    finish(begun, 0, "noisy")
    remedy = r"Choose another name with --run, or retrain with --restart\. To continue this run, undo the change\. "
    remedy += r"Only stages that no fold has begun may change: curated\.$"
    with pytest.raises(DataError, match=rf"demo: was trained with another experiment: seed is now 7 .*2019\. {remedy}"):
        start(begun.folder, "seed=7")
    for change, difference in (
        ({}, "the audio of the recordings, their labels or other options of make-records differ"),
        ({"options": AUDIO_CONFIG | {"trim": None, "peak_db": None}}, "trim is now None and .* peak_db is now None"),
        ({"vocabulary": ("Bark", "Moo")}, "they have other classes"),
    ):
        other = Manifest(**{**vars(MANIFEST), "fingerprint": "xyz", **change})
        message = rf"demo: was trained on other records than tfrecords/demo: {difference}(?s:.*)\. {remedy}"
        with pytest.raises(DataError, match=message):
            start(begun.folder, manifest=other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.noisy.epochs=7"], "stages.noisy.epochs is now 7 and was 10. Ch"),
        (["augment=[]"], r"augment is now \(\) and was \(\{'name': 'freq.* Choose"),
        (
            ["stages.noisy.optimizer.name=sgd"],
            r"stages.noisy.optimizer is now \{'name': 'sgd', .* and was \{'name': ",
        ),
        (
            ["seed=1", "window.seconds=1", "predict.overlap=0", "jit_compile=true", "deterministic=false"],
            "seed is now 1 and was 2019, window.seconds is now 1.0 and was 2.0, predict.overlap is now 0.0 and was "
            "0.5, and 2 more. Choose",
        ),
    ],
)
def test_the_changed_keys_of_an_experiment_are_named(begun, overrides, message):
    finish(begun, 0, "noisy")
    with pytest.raises(DataError, match=f"demo: was trained with another experiment: {message}"):
        start(begun.folder, *overrides)


@pytest.mark.parametrize("key", ["about", "command", "quick_command", "expect"])
def test_the_descriptions_of_an_experiment_may_change_after_training(begun, key):
    finish(begun, 0, "noisy")
    changed = start(begun.folder, f"{key}=other words")
    assert getattr(changed.experiment, key) == "other words" and open_run(begun.folder) == changed


@pytest.mark.parametrize("key", ["epochs=40", "batch_size=8", "callbacks=[]", "name=expert", "start_from=null"])
def test_a_stage_that_no_fold_has_begun_may_change(begun, key):
    finish(begun, 0, "noisy")
    change = f"stages.curated.{key}"
    changed = start(begun.folder, change)
    assert changed.experiment == load(DEMO, [change]) != begun.experiment
    assert open_run(begun.folder) == changed
    begun.stage_files(3, changed.experiment.stages[1].name).folder.mkdir(parents=True)  # another fold begins it
    with pytest.raises(DataError, match=r"demo: was trained with another experiment: .* To continue.*the change\.$"):
        start(begun.folder)


def test_a_stage_may_be_added_and_removed_until_a_fold_has_begun_it(begun):
    finish(begun, 0, "noisy")
    stages = json.loads(DEMO.read_text())["stages"]
    more = f"stages={json.dumps([*stages, stages[1] | {'name': 'again'}])}"
    assert [stage.name for stage in start(begun.folder, more).experiment.stages] == ["noisy", "curated", "again"]
    finish(begun, 0, "curated")
    assert start(begun.folder) == begun
    with pytest.raises(DataError, match="demo: was trained with another experiment: stages is now"):
        start(begun.folder, f"stages={json.dumps(stages[:1])}")


def test_a_stage_does_not_change_while_another_process_trains(begun):
    finish(begun, 0, "noisy")
    with shared_lock(begun.folder):
        with pytest.raises(DataError, match="another experiment: stages.curated.epochs is now 40"):
            start(begun.folder, "stages.curated.epochs=40")
    assert open_run(begun.folder) == begun


def records_at(folder, **changes):
    """An empty set of records with the fingerprint of MANIFEST, or with another one."""
    folder.mkdir(parents=True)
    manifest = dataclasses.replace(MANIFEST, directory=folder, **changes)
    write_manifest(manifest)
    return manifest


@pytest.mark.check("D14")
@pytest.mark.parametrize("place", ["tfrecords/old", "tfrecords/demo 2", "runs/../tfrecords/ä", "{}/tfrecords/x"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_records_are_found_by_their_fingerprint(begun, tmp_path, monkeypatch, capsys, place, elsewhere):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work" if elsewhere else tmp_path)
    for number in range(3):
        records_at(tmp_path / "tfrecords" / f"other{number}", fingerprint=f"other{number}")
    records_at(tmp_path / "tfrecords" / "damaged")
    (tmp_path / "tfrecords" / "damaged" / "manifest.json").write_text("{")
    manifest = records_at(tmp_path / place.format(tmp_path))
    for _ in range(2):
        found = find_records(begun)
        assert found.directory.samefile(manifest.directory) and found.fingerprint == "abc"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"its records are now in {found.directory}, and were in tfrecords/demo." in said


def test_records_where_the_experiment_says_are_used_in_silence(begun, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    records_at(tmp_path / "tfrecords" / "demo")
    records_at(tmp_path / "tfrecords" / "copy")
    assert find_records(begun).directory == Path("tfrecords/demo") and not capsys.readouterr().err


def test_records_of_another_fingerprint_are_not_used(begun, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"tfrecords/demo: no such directory of records\. Make it .* the fingerprint abc,"
    ):
        find_records(begun)
    records_at(tmp_path / "tfrecords" / "demo", fingerprint="new")
    message = r"tfrecords/demo: has other records, with the fingerprint new\. .*demo was trained on records with the "
    message += (
        r"fingerprint abc, which are not there and not in a folder of tfrecords either\. Move .* with --records\."
    )
    with pytest.raises(DataError, match=message):
        find_records(begun)
    records_at(tmp_path / "far" / "away")
    with pytest.raises(DataError, match="tfrecords/demo: has records with the fingerprint new, and .* with abc"):
        with_records(begun, tmp_path / "tfrecords" / "demo")
    with pytest.raises(DataError, match="nowhere: no such directory of records"):
        with_records(begun, tmp_path / "nowhere")
    assert find_records(with_records(begun, tmp_path / "far" / "away")).directory == tmp_path / "far" / "away"
    assert with_records(begun, None) is begun


def test_a_run_continues_on_moved_records_and_keeps_their_place(begun, tmp_path):
    finish(begun, 0, "noisy")
    moved = dataclasses.replace(MANIFEST, directory=tmp_path / "moved")
    run = start(begun.folder, f"records={moved.directory}", manifest=moved)
    assert run.experiment.records == str(moved.directory) and open_run(begun.folder) == run
    assert start(begun.folder, manifest=moved) == run  # found there, though the experiment still has the old place
    with shared_lock(begun.folder):
        assert start(begun.folder) == run


@pytest.mark.parametrize("done", [None, "training_state.npz", "previous-training_state.npz", "result.json"])
def test_the_experiment_of_a_run_without_a_finished_epoch_may_change(begun, done):
    stage = begun.stage_files(0, "noisy").folder / "1"
    stage.mkdir(parents=True)
    for path in (stage / "training_clips.csv", begun.folds_file, begun.corrections_file, begun.folder / "letters"):
        path.write_text("of another seed")
    if done:
        (stage / done).touch()
        with pytest.raises(DataError, match="another experiment"):
            start(begun.folder, "seed=7")
    else:
        assert start(begun.folder, "seed=7").experiment.seed == 7
        present = {path.name for path in begun.folder.iterdir()}
        assert present == {"experiment.json", "environment.json", "data.json", ".lock", "letters"}


def test_a_run_that_another_process_trains_is_neither_replaced_nor_swept(begun):
    (begun.folder / ".unfinished-99-saved_model").mkdir()
    with shared_lock(begun.folder):
        with pytest.raises(DataError, match="demo: another fit is training here. Wait for it, or choose another --run"):
            start(begun.folder, "seed=7", restart=True)
        with pytest.raises(DataError, match="demo: was trained with another experiment"):
            start(begun.folder, "seed=7")
        assert start(begun.folder) == begun  # such as another fold of it
        assert (begun.folder / ".unfinished-99-saved_model").exists()
    start(begun.folder)
    assert not (begun.folder / ".unfinished-99-saved_model").exists()


def test_a_run_is_locked_while_it_trains(begun):
    with start_run(begun.folder, load(DEMO), MANIFEST):
        with pytest.raises(DataError, match="another fit is training here"):
            start(begun.folder, restart=True)


def test_restart_removes_a_run(begun):
    finish(begun, 0, "noisy")
    (begun.folder / "left").write_text("from before")
    with pytest.raises(
        DataError, match=r"demo: --restart would remove left, which fit did not write\. Move it, or choose"
    ):
        start(begun.folder, "seed=7", restart=True)
    assert (begun.folder / "left").exists() and (begun.folder / "fold-0").exists()
    (begun.folder / "left").unlink()
    assert start(begun.folder, "seed=7", restart=True).experiment.seed == 7
    assert not list(begun.folder.glob("fold-*"))
    assert [path.name for path in begun.folder.parent.iterdir()] == ["demo"]


@pytest.mark.parametrize("gone", ["experiment.json", "data.json"])
def test_restart_removes_an_incomplete_run(begun, gone):
    finish(begun, 0, "noisy")
    (begun.folder / gone).unlink()
    with pytest.raises(AudiotagError):
        start(begun.folder, "seed=7")
    assert start(begun.folder, "seed=7", restart=True).experiment.seed == 7
    assert not list(begun.folder.glob("fold-*"))


def test_folds_of_an_incomplete_run_are_not_reused(begun):
    finish(begun, 0, "noisy")
    for name in ("experiment.json", "data.json"):
        (begun.folder / name).unlink()
    for restart in (False, True):
        with pytest.raises(
            DataError, match=r"fold-0: belongs to an incomplete run\. Remove .*demo, or choose another --run\."
        ):
            start(begun.folder, restart=restart)


def test_a_restart_that_was_killed_is_completed(begun):
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


def test_a_folder_without_a_run_is_refused(tmp_path):
    message = r"not the directory of a run: it has no data\.json\. Train one with: audiotag fit EXPERIMENT"
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=f"{folder}: {message}"):
            open_run(folder)


def test_a_run_without_its_experiment_is_refused(begun):
    (begun.folder / "experiment.json").unlink()
    with pytest.raises(ConfigError, match=r"experiment\.json: cannot be read: No such file or directory\."):
        open_run(begun.folder)


def test_a_finished_stage_has_a_result_and_weights(begun):
    assert begun.result(2, "noisy") is None
    path = finish(begun, 2, "noisy")
    result = begun.result(2, "noisy")
    assert (result["epochs"], result["seconds"], result["resumed"], result["round"]) == (3, 1.5, False, None)
    assert begun.weights(2, "noisy") == path
    assert begun.trained_folds("noisy") == [2]
    assert begun.trained_folds("curated") == []


def test_trained_folds_are_in_order(begun):
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
    message = r"best\.weights\.h5: missing or damaged: its SHA-256 is not that in result\.json\. Retrain with --r"
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
        ("data.json", b"{", "not a JSON file: Expecting property name"),
        ("data.json", b"\x80", "not a JSON file: 'utf-8' codec can't decode"),
        ("data.json", {"audio_config": {}}, "audio_config.sample_rate: this key is missing"),
        (
            "data.json",
            {"audio_config": AUDIO_CONFIG | {"sample_rate": "x"}},
            "audio_config.sample_rate: Input should be a valid",
        ),
        ("data.json", {"audio_config": None}, "audio_config: Input should be a valid object"),
        ("data.json", {"schema_version": 1}, "schema_version: Input should be 2, found 1"),
        ("data.json", {"plan": "abc"}, "unknown key 'plan'"),  # as of the first edition
        ("data.json", {"vocabulary": [1, 2]}, r"vocabulary\[0\]: Input should be a valid string, found 1"),
        ("result.json", b"", "not a JSON file: Expecting value"),
        ("result.json", b"[" * 100_000, "not a JSON file: "),
        ("result.json", {"round": "zz"}, "round: Input should be a valid integer, found 'zz'"),
        ("result.json", {"weights": 3}, "weights: Input should be a valid string, found 3"),
        ("result.json", {"schema_version": 3}, "schema_version: Input should be 2, found 3"),
        ("result.json", {"resumed": "no"}, "resumed: Input should be a valid boolean, found 'no'"),
    ],
)
def test_a_run_that_is_damaged_or_of_another_version_is_refused_in_a_sentence(begun, name, content, message):
    path = begun.folder / name if name == "data.json" else finish(begun, 0, "noisy").with_name(name)
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    remedy = r"Damaged, or written by another version of audiotag\. Retrain with --restart\."
    with pytest.raises(DataError, match=rf"{path}: {message}(?s:.*)\. {remedy}"):
        open_run(begun.folder).weights(0, "noisy")


@pytest.mark.parametrize("name", ["data.json", "result.json"])
def test_a_file_of_a_run_without_a_version_is_refused(begun, name):
    path = begun.folder / name if name == "data.json" else finish(begun, 0, "noisy").with_name(name)
    content = json.loads(path.read_text())
    del content["schema_version"]
    path.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=rf"{name}: schema_version: this key is missing\. Damaged, or written by another"
    ):
        open_run(begun.folder).weights(0, "noisy")


def test_a_run_whose_experiment_has_another_version_is_refused(begun):
    path = begun.folder / "experiment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 1}))
    with pytest.raises(ConfigError, match=r"experiment\.json: schema_version: Input should be 2, found 1\."):
        open_run(begun.folder)
