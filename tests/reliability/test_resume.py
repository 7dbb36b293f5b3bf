"""D: a training that is killed, stopped or starved of disk loses nothing and ends as it would have."""

import contextlib
import io
import json
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from audiotag import files
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.runs.directory import is_trained, open_run, start_run
from audiotag.serving.saved_model import load_listener

HERE = Path(__file__).parent
FIT, KERAS = HERE / "fit_alone.py", HERE / "keras_alone.py"
EPOCHS = 3  # of more that the first stage may take: it stops early
STAGES = ("noisy", "curated")
NOTES = ("experiment.json", "environment.json", "records.json")
CALLBACKS = [{"name": "CSVLogger"}, {"name": "ModelCheckpoint"}]
NO_PROGRESS = {"monitor": "val_lwlrap", "mode": "max", "min_delta": 0.9}  # and so each epoch is one of patience
PLATEAU = {"name": "ReduceLROnPlateau", "patience": 1, "factor": 0.7, **NO_PROGRESS}
STOPPING = {"name": "EarlyStopping", "patience": EPOCHS - 1, **NO_PROGRESS}
OVERRIDES = [
    "model.filters=[8]",
    *(f"stages.{stage}.{part}" for stage in STAGES for part in (f"epochs={EPOCHS}", "batch_size=8")),
    f"stages.noisy.epochs={2 * EPOCHS}",
    f"stages.noisy.callbacks={json.dumps([PLATEAU, STOPPING, *CALLBACKS])}",
    'stages.curated.schedule={"name": "one_cycle"}',
    "stages.curated.optimizer.use_ema=true",
]


@pytest.fixture(scope="module")
def whole(tiny_file, start, tmp_path_factory):
    """An undisturbed run, and how many operations on files it took."""
    folder, count = tmp_path_factory.mktemp("whole") / "run", tmp_path_factory.mktemp("count") / "count"
    job = start(tiny_file, folder, *OVERRIDES, script=FIT, folder=folder, report=count)
    assert job.wait() == 0, job.output()[-1000:]
    return folder, int(count.read_text())


@pytest.fixture
def resume(tiny_file, start, tmp_path):
    """A function that goes on with the run in a folder, and meets a fault on the way: a `Job`."""

    def go_on(name, *more, **fault):
        folder = tmp_path / name
        return start(tiny_file, folder, *OVERRIDES, *more, script=FIT, **fault and {"folder": folder}, **fault)

    return go_on


def same(whole, other):
    """Fails where two runs did not end with the same weights, scores and history."""
    for stage in STAGES:
        ours, theirs = (folder / "fold-0" / stage for folder in (whole, other))
        history = (theirs / "history.csv").read_bytes()
        assert pd.read_csv(theirs / "history.csv")["epoch"].tolist() == list(range(EPOCHS)), "epochs not each once"
        assert history == (ours / "history.csv").read_bytes()
        known, expected = (json.loads((folder / "finished.json").read_text()) for folder in (theirs, ours))
        assert known | {"sha256": ""} == expected | {"sha256": ""}
        assert known["sha256"] == files.sha256(theirs / known["weights"])
        arrays, expected = (arrays_in(folder / known["weights"]) for folder in (theirs, ours))
        assert len(arrays) == len(expected) and all(map(np.array_equal, arrays, expected)), "other weights"
    assert not list(other.rglob("state.npz")) and not list(other.rglob(".unfinished*"))


def goes_on(whole, other):
    """Fails where a run that was stopped lost its patience, its learning rate or its best value."""
    ours, theirs = (folder / "fold-0" / "noisy" for folder in (whole, other))
    history, expected = (pd.read_csv(folder / "history.csv") for folder in (theirs, ours))
    known = json.loads((theirs / "finished.json").read_text())
    assert known["epochs"] == len(history) == EPOCHS
    assert history["learning_rate"].tolist() == expected["learning_rate"].tolist()
    assert history["learning_rate"].is_monotonic_decreasing and history["learning_rate"].nunique() == EPOCHS - 1
    assert known["best_epoch"] == history["val_lwlrap"].idxmax() and known["val_lwlrap"] == expected["val_lwlrap"].max()


def arrays_in(path):
    """Every array in an HDF5 file, in order; what layers are called in it depends on how many there were before."""
    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda _, node: arrays.append(node[()]) if isinstance(node, h5py.Dataset) else None)
    return arrays


def moments(operations, many, seed, kinds):
    dice = random.Random(seed)
    return [{"at": dice.randrange(2, operations), "what": dice.choice(kinds)} for _ in range(many)]


@contextlib.contextmanager
def polled(pattern, folder):
    """Reads the files that fit a pattern all the while: yields [times read, times it could not be read]."""
    counts, over = [0, 0], threading.Event()

    def poll():
        while not over.is_set():
            for path in folder.rglob(pattern):
                try:
                    data = path.read_bytes()
                    with h5py.File(io.BytesIO(data)) as file:
                        file.visititems(lambda _, node: node[()] if isinstance(node, h5py.Dataset) else None)
                except FileNotFoundError:
                    continue
                except Exception:
                    counts[1] += 1
                counts[0] += 1
            time.sleep(0.02)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


@pytest.mark.check("D1")
def test_killed_anywhere_it_ends_with_the_same_weights(whole, resume, tier, tally, tmp_path):
    kinds = ["kill", "kill at byte 300", "kill at byte 9000", "kill at byte 20000"]
    with polled("best.weights.h5", tmp_path) as reads:
        for number in range(tier(3, 17)):
            name, done = f"run{number}", None
            for moment in moments(whole[1], 3, number, kinds):
                with tally.trial(f"{number}: {moment}"):
                    job = resume(name, **moment)
                    assert job.wait() in (0, -signal.SIGKILL, -signal.SIGXFSZ), job.output()[-1000:]
                    first = tmp_path / name / "fold-0" / "noisy" / "finished.json"
                    if done:
                        with tally.trial("stage 1 stays done", check="D4"):
                            assert first.stat().st_mtime_ns == done
                    done = first.exists() and first.stat().st_mtime_ns
            with tally.trial(f"{number}: the end", check="D4"):
                job = resume(name)
                assert job.wait() == 0, job.output()[-1000:]
                same(whole[0], tmp_path / name)
            with tally.trial(f"{number}: patience, rate and best value", check="D3"):
                goes_on(whole[0], tmp_path / name)
    tally.count("D2", *reads)


@pytest.mark.check("D1")
def test_a_restart_killed_anywhere_leaves_the_old_run_or_nothing_of_it(tiny, tiny_file, whole, start, tally, tmp_path):
    changed = (*OVERRIDES, "seed=7")

    def begin(name, **fault):
        folder = tmp_path / name
        shutil.copytree(whole[0], folder / "run")
        return folder, start(tiny_file, folder / "run", *changed, "--begin", script=FIT, folder=folder, **fault)

    (_, job), other = begin("count", report=tmp_path / "count.txt"), tiny(*changed)
    assert job.wait() == 0, job.output()[-1000:]
    for at in range(1, int((tmp_path / "count.txt").read_text()) + 1):
        with tally.trial(f"operation {at}"):
            folder, job = begin(str(at), at=at)
            assert job.wait() == -signal.SIGKILL, job.output()[-1000:]
            if is_trained(folder / "run"):
                for stage in STAGES:
                    open_run(folder / "run").weights(0, stage)
                with pytest.raises(DataError, match="was trained with another experiment than this one"):
                    start_run(folder / "run", other, read_manifest(other.records)).__enter__()
            for restart in (is_trained(folder / "run"), True):
                with start_run(folder / "run", other, read_manifest(other.records), restart=restart) as run:
                    assert run.experiment.seed == 7 and not list(run.folder.glob("fold-*"))
            assert [path.name for path in folder.iterdir()] == ["run"]
            assert {path.name for path in run.folder.iterdir()} == {".lock", *NOTES}


@pytest.mark.check("D1")
def test_an_export_killed_anywhere_leaves_a_whole_model_or_none(tiny, whole, start, tier, tally, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "run")

    def export(**fault):
        return start("", folder, "--export", script=FIT, **fault and {"folder": folder}, **fault)

    assert export().wait() == 0
    model = shutil.copytree(folder / "saved_model", tmp_path / "model")
    assert export(report=tmp_path / "count").wait() == 0
    last = int((tmp_path / "count").read_text())
    for at in tier([last - 14, last - 6], range(1, last + 1)):  # the one moment without a model, and a later one
        with tally.trial(f"operation {at}"):
            assert (job := export(at=at)).wait() == -signal.SIGKILL, job.output()[-1000:]
            with start_run(folder, tiny(*OVERRIDES), read_manifest(tiny().records)):  # which sweeps
                held = {path.name for path in folder.iterdir()}
            assert held - {"saved_model"} == {".lock", "folds.csv", "fold-0", *NOTES}
            if "saved_model" in held:
                load_listener(folder / "saved_model")
            else:
                shutil.copytree(model, folder / "saved_model")


@pytest.mark.check("D5")
def test_sigterm_saves_within_the_step(whole, resume, tier, tally, tmp_path):
    dice = random.Random(5)
    for number in range(tier(1, 4)):
        name = f"run{number}"
        for step in (1, 2, dice.randrange(3, 9), dice.randrange(2, 9), dice.randrange(1, 4)):
            with tally.trial(f"{number}: in step {step}"):
                job = resume(name, "--sigterm", step)
                assert job.wait() == 143, job.output()[-1000:]
                assert "Stopped by SIGTERM after" in job.output() and "all is saved" in job.output()
        with tally.trial(f"{number}: while nothing is trained"):
            job = resume(name)
            time.sleep(0.5)
            assert job.kill(signal.SIGTERM).wait(60) == -signal.SIGTERM  # which a shell calls 143, too
        with tally.trial(f"{number}: the end"):
            job = resume(name)
            assert job.wait() == 0, job.output()[-1000:]
            same(whole[0], tmp_path / name)
        with tally.trial(f"{number}: patience, rate and best value", check="D3"):
            goes_on(whole[0], tmp_path / name)


@pytest.mark.check("D10")
def test_a_full_disk_costs_the_epoch_alone(whole, resume, tier, tally, tmp_path):
    kinds = ["ENOSPC", "limit 2000", "limit 12000", "EIO"]
    for number in range(tier(1, 9)):
        for moment in moments(whole[1], 2, number + 50, kinds):
            with tally.trial(f"{number}: {moment}"):
                job = resume(f"run{number}", **moment)
                code, said = job.wait(), job.output()
                assert code in (0, 1), said[-1000:]
                assert code == 0 or "Error: " in said and "Traceback" not in said, said[-2000:]
        with tally.trial(f"{number}: the end"):
            job = resume(f"run{number}")
            assert job.wait() == 0, job.output()[-1000:]
            same(whole[0], tmp_path / f"run{number}")
        with tally.trial(f"{number}: patience, rate and best value", check="D3"):
            goes_on(whole[0], tmp_path / f"run{number}")


@pytest.mark.check("D7")
def test_the_same_seed_gives_the_same_and_another_another(whole, resume, tier, tally, tmp_path):
    for number in range(tier(1, 5)):
        with tally.trial(f"the same, {number}"):
            assert resume(f"same{number}").wait() == 0
            same(whole[0], tmp_path / f"same{number}")
        with tally.trial(f"another, {number}"):
            assert resume(f"other{number}", f"seed={number}").wait() == 0
            with pytest.raises(AssertionError):
                same(whole[0], tmp_path / f"other{number}")


# The same for Keras alone


def keras_series(start, folder, faults, double=""):
    """What becomes of Keras' own callbacks: [resumes that crashed, epochs trained twice, whether the end differs]."""
    crashed = 0
    for fault in [*faults, {}]:
        for _ in range(2):
            options = fault and {"folder": folder, **fault}
            code = start(folder, "", double, script=KERAS, **options).wait()
            if code == 1:  # neither killed nor done
                crashed += 1
                shutil.rmtree(folder / "backup", ignore_errors=True)  # what a user does then
                (folder / "epochs.jsonl").unlink(missing_ok=True)
                continue
            break
    epochs = [int(line) for line in (folder / "epochs.jsonl").read_text().split()]
    return crashed, len(epochs) - len(set(epochs)), np.load(folder / "final.npz")


@pytest.mark.check("D1")
@pytest.mark.parametrize("double", ["", "double_checkpoint"])
def test_killed_training_as_keras_callbacks_take_it(start, tier, tally, tmp_path, double):
    count = tmp_path / "count"
    folder = tmp_path / "whole"
    assert start(folder, "", double, script=KERAS, folder=folder, report=count).wait() == 0
    expected, operations = np.load(folder / "final.npz"), int(count.read_text())
    kinds = ["kill", "kill", "kill at byte 300", "kill at byte 100000"]
    crashed = twice = different = series = 0
    with polled("best.weights.h5", tmp_path) as reads:
        for number in range(tier(1, 25)):
            faults = moments(max(operations, 3), 2, number, kinds)
            more = keras_series(start, tmp_path / f"run{number}", faults, double)
            crashed, twice, series = crashed + more[0], twice + more[1], series + 1
            different += any(not np.array_equal(more[2][name], expected[name]) for name in expected.files)
    tally.say(
        f"Keras' BackupAndRestore{' with double_checkpoint' * bool(double)}: of {series} trainings killed twice, "
        f"{different} end with other weights; {crashed} resumes crash, {twice} epochs are trained twice; "
        f"ModelCheckpoint's best could not be read {reads[1]} of {reads[0]} times"
    )
