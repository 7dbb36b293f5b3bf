"""D: a training that is killed, stopped or out of disk space loses nothing and ends with the same weights."""

import contextlib
import io
import json
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tiers

from audiotag import files
from audiotag.data.records.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.runs.directory import is_trained, open_run, start_run
from audiotag.serving.saved_model import load_predictor

HERE = Path(__file__).parent
FIT, KERAS = HERE / "fit_alone.py", HERE / "keras_alone.py"
EPOCHS = 3  # the first stage may take more: it stops early
STAGES = ("noisy", "curated")
STATES = ("training_state.npz", "previous-training_state.npz")
RUN_FILES = ("experiment.json", "environment.json", "data.json")
CALLBACKS = [{"name": "CSVLogger"}, {"name": "ModelCheckpoint"}]
# With these, every epoch counts as one without progress.
NO_PROGRESS = {"monitor": "val_lwlrap", "mode": "max", "min_delta": 0.9}
# Names of layers in HDF5 files depend on how many there were before, and time and interruptions differ.
MAY_DIFFER = {"sha256": "", "seconds": 0, "resumed": False}
PLATEAU = {"name": "ReduceLROnPlateau", "patience": 1, "factor": 0.7, **NO_PROGRESS}
STOPPING = {"name": "EarlyStopping", "patience": EPOCHS - 1, **NO_PROGRESS}
OVERRIDES = [
    "model.filters=[8]",
    *(f"stages.{stage}.{option}" for stage in STAGES for option in (f"epochs={EPOCHS}", "batch_size=8")),
    f"stages.noisy.epochs={2 * EPOCHS}",
    f"stages.noisy.callbacks={json.dumps([PLATEAU, STOPPING, *CALLBACKS])}",
    'stages.curated.schedule={"name": "one_cycle"}',
    "stages.curated.optimizer.use_ema=true",
]


@pytest.fixture(scope="module")
def uninterrupted(tiny_file, start, tmp_path_factory):
    """An uninterrupted run, and the number of operations on files that it took."""
    folder, count = tmp_path_factory.mktemp("uninterrupted") / "run", tmp_path_factory.mktemp("count") / "count"
    job = start(tiny_file, folder, *OVERRIDES, script=FIT, folder=folder, report=count)
    assert job.wait() == 0, job.output()[-1000:]
    return folder, int(count.read_text())


@pytest.fixture
def resume(tiny_file, start, tmp_path):
    """A function that resumes the run in a folder, with a fault on the way if one is given: a `Job`."""

    def resume(name, *more, **fault):
        folder = tmp_path / name
        return start(tiny_file, folder, *OVERRIDES, *more, script=FIT, **fault and {"folder": folder}, **fault)

    return resume


def assert_same(expected_run, run):
    """Fails if two runs did not end with the same weights, scores and history."""
    for stage in STAGES:
        reference, folder = (path / "fold-0" / stage for path in (expected_run, run))
        history = (folder / "history.csv").read_bytes()
        assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == list(range(EPOCHS)), "epochs not each once"
        assert history == (reference / "history.csv").read_bytes()
        result, expected = (json.loads((path / "result.json").read_text()) for path in (folder, reference))
        assert result["seconds"] > 0 and not expected["resumed"]
        assert result | MAY_DIFFER == expected | MAY_DIFFER
        assert result["sha256"] == files.sha256(folder / result["weights"])
        arrays, expected = (arrays_in(path / result["weights"]) for path in (folder, reference))
        assert len(arrays) == len(expected) and all(map(np.array_equal, arrays, expected)), "other weights"
    for name in ("folds.csv", "fold-0/curated/oof.csv"):
        assert (run / name).read_bytes() == (expected_run / name).read_bytes()
    assert not list(run.rglob("training_state.npz")) and not list(run.rglob(".unfinished*"))


def assert_callbacks_resumed(expected_run, run):
    """Fails if an interrupted run lost its patience, its learning rate or its best value."""
    reference, folder = (path / "fold-0" / "noisy" for path in (expected_run, run))
    history, expected = (pd.read_csv(path / "history.csv") for path in (folder, reference))
    result = json.loads((folder / "result.json").read_text())
    assert result["epochs"] == len(history) == EPOCHS
    assert history["learning_rate"].tolist() == expected["learning_rate"].tolist()
    assert history["learning_rate"].is_monotonic_decreasing and history["learning_rate"].nunique() == EPOCHS - 1
    assert result["best_epoch"] == history["val_lwlrap"].idxmax()
    assert result["value"] == expected["val_lwlrap"].max()


def arrays_in(path):
    """Every array in an HDF5 file, in order, without names: those of layers depend on how many there were before."""
    arrays = []
    with h5py.File(path) as file:
        file.visititems(lambda _, node: arrays.append(node[()]) if isinstance(node, h5py.Dataset) else None)
    return arrays


def random_faults(operations, count, seed, kinds):
    rng = random.Random(seed)
    return [{"at": rng.randrange(2, operations), "what": rng.choice(kinds)} for _ in range(count)]


@contextlib.contextmanager
def polled(pattern, folder):
    """Reads the files that match a pattern during the block: yields [times read, times that reading failed]."""
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
def test_a_training_killed_anywhere_ends_with_the_same_weights(uninterrupted, resume, tier, tally, tmp_path):
    kinds = ["kill", "kill at byte 300", "kill at byte 9000", "kill at byte 20000"]
    with polled("best.weights.h5", tmp_path) as reads:
        for number in range(tier(2, 17)):
            name, done = f"run{number}", None
            for fault in random_faults(uninterrupted[1], tier(2, 3), number, kinds):
                with tally.trial(f"{number}: {fault}"):
                    job = resume(name, **fault)
                    assert job.wait() in (0, -signal.SIGKILL, -signal.SIGXFSZ), job.output()[-1000:]
                    first = tmp_path / name / "fold-0" / "noisy" / "result.json"
                    if done:
                        with tally.trial("stage 1 stays finished", check="D4"):
                            assert first.stat().st_mtime_ns == done
                    done = first.exists() and first.stat().st_mtime_ns
            with tally.trial(f"{number}: the end", check="D4"):
                job = resume(name)
                assert job.wait() == 0, job.output()[-1000:]
                assert_same(uninterrupted[0], tmp_path / name)
            with tally.trial(f"{number}: patience, rate and best value", check="D3"):
                assert_callbacks_resumed(uninterrupted[0], tmp_path / name)
    tally.count("D2", *reads)


@pytest.mark.check("D1")
def test_a_restart_killed_anywhere_leaves_the_old_run_or_none(tiny, tiny_file, uninterrupted, start, tally, tmp_path):
    changed = (*OVERRIDES, "seed=7")

    def begin(name, **fault):
        folder = tmp_path / name
        shutil.copytree(uninterrupted[0], folder / "run")
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
                message = "trained with another experiment: .*seed is now 7 and was .* Choose another name with --run"
                with pytest.raises(DataError, match=message):
                    start_run(folder / "run", other, read_manifest(other.records)).__enter__()
            for restart in (is_trained(folder / "run"), True):
                with start_run(folder / "run", other, read_manifest(other.records), restart=restart) as run:
                    assert run.experiment.seed == 7 and not list(run.folder.glob("fold-*"))
            assert [path.name for path in folder.iterdir()] == ["run"]
            assert {path.name for path in run.folder.iterdir()} == {".lock", *RUN_FILES}


@pytest.mark.check("D1")
def test_an_export_killed_anywhere_leaves_a_complete_model_or_none(tiny, uninterrupted, start, tier, tally, tmp_path):
    folder = shutil.copytree(uninterrupted[0], tmp_path / "run")

    def export(**fault):
        return start("", folder, "--export", script=FIT, **fault and {"folder": folder}, **fault)

    assert export().wait() == 0
    model = shutil.copytree(folder / "saved_model", tmp_path / "model")
    assert export(report=tmp_path / "count").wait() == 0
    last = int((tmp_path / "count").read_text())
    for at in tier([last - 14, last - 6], range(1, last + 1)):  # the only moment without a model, and a later one
        with tally.trial(f"operation {at}"):
            assert (job := export(at=at)).wait() == -signal.SIGKILL, job.output()[-1000:]
            with start_run(folder, tiny(*OVERRIDES), read_manifest(tiny().records)):  # which removes unfinished files
                present = {path.name for path in folder.iterdir()}
            assert present - {"saved_model"} == {".lock", "folds.csv", "fold-0", *RUN_FILES}
            if "saved_model" in present:
                load_predictor(folder / "saved_model")
            else:
                shutil.copytree(model, folder / "saved_model")


@pytest.mark.check("D5")
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_save_after_the_step(uninterrupted, resume, tier, tally, tmp_path, stop_signal):
    rng = random.Random(5)
    options, exit_code = ("--signal", stop_signal.name, "--stop"), 128 + stop_signal
    states = lambda: {path: path.read_bytes() for path in (tmp_path / name).rglob("*.npz") if path.name in STATES}
    num_steps = tier(1, 4)
    for number in range(tier(1, 4)):
        name = f"run{number}"
        with tally.trial(f"{number}: from outside, in the second epoch"):
            job = resume(name)
            assert job.shows("loss") and job.kill(stop_signal).wait() == exit_code, job.output()[-1000:]
        for step in (1, rng.randrange(3, 9), rng.randrange(2, 9), rng.randrange(1, 4))[:num_steps]:
            with tally.trial(f"{number}: in step {step}"):
                job = resume(name, *options, step)
                assert job.wait() == exit_code, job.output()[-1000:]
                assert re.search(
                    rf"Stopped by .*{stop_signal.name}.* after \d+ epochs and \d+ steps; all is saved. "
                    "The same command continues from there.\n$",
                    job.output(),
                ), job.output()[-1000:]
        with tally.trial(f"{number}: twice"):
            before = states()
            job = resume(name, *options, 1, "--again")
            # SIGTERM itself ends the process, which a shell reports as 143, too.
            assert job.wait() == (130 if stop_signal == signal.SIGINT else -signal.SIGTERM), job.output()[-1000:]
            assert states() == before and "Stopped by" not in job.output() and "Traceback" not in job.output()
        with tally.trial(f"{number}: before training starts"):
            job = resume(name)
            time.sleep(0.1)
            assert job.kill(signal.SIGTERM).wait(60) == -signal.SIGTERM
        with tally.trial(f"{number}: the end"):
            job = resume(name)
            assert job.wait() == 0, job.output()[-1000:]
            assert_same(uninterrupted[0], tmp_path / name)
        with tally.trial(f"{number}: patience, rate and best value", check="D3"):
            assert_callbacks_resumed(uninterrupted[0], tmp_path / name)


@pytest.mark.check("D10")
def test_a_full_disk_costs_only_the_epoch(uninterrupted, resume, tier, tally, tmp_path):
    kinds = ["ENOSPC", "limit 2000", "limit 12000", "EIO"]
    for number in range(tier(1, 9)):
        for fault in random_faults(uninterrupted[1], 2, number + 50, kinds):
            with tally.trial(f"{number}: {fault}"):
                job = resume(f"run{number}", **fault)
                code, output = job.wait(), job.output()
                assert code in (0, 1), output[-1000:]
                assert code == 0 or "Error: " in output and "Traceback" not in output, output[-2000:]
        with tally.trial(f"{number}: the end"):
            job = resume(f"run{number}")
            assert job.wait() == 0, job.output()[-1000:]
            assert_same(uninterrupted[0], tmp_path / f"run{number}")
        with tally.trial(f"{number}: patience, rate and best value", check="D3"):
            assert_callbacks_resumed(uninterrupted[0], tmp_path / f"run{number}")


@pytest.mark.check("D7")
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(uninterrupted, resume, tier, tally, tmp_path):
    for number in range(tier(1, 5)):
        with tally.trial(f"the same, {number}"):
            assert resume(f"same{number}").wait() == 0
            assert_same(uninterrupted[0], tmp_path / f"same{number}")
        with tally.trial(f"another, {number}"):
            assert resume(f"other{number}", f"seed={number}").wait() == 0
            with pytest.raises(AssertionError):
                assert_same(uninterrupted[0], tmp_path / f"other{number}")


# The same faults with Keras' callbacks


def keras_series(start, folder, faults, double=""):
    """A training with Keras' callbacks under faults: (crashed resumes, epochs trained twice, final weights)."""
    crashed = 0
    for fault in [*faults, {}]:
        for _ in range(2):
            options = fault and {"folder": folder, **fault}
            code = start(folder, "", double, script=KERAS, **options).wait()
            if code == 1:  # neither killed nor finished
                crashed += 1
                shutil.rmtree(folder / "backup", ignore_errors=True)  # as a user would then
                (folder / "epochs.jsonl").unlink(missing_ok=True)
                continue
            break
    epochs = [int(line) for line in (folder / "epochs.jsonl").read_text().split()]
    return crashed, len(epochs) - len(set(epochs)), np.load(folder / "final.npz")


@pytest.mark.check("D1")
@pytest.mark.parametrize("double", tiers.tier(["double_checkpoint"], ["", "double_checkpoint"]))
def test_killed_trainings_with_keras_callbacks_are_reported(start, tier, tally, tmp_path, double):
    count = tmp_path / "count"
    folder = tmp_path / "uninterrupted"
    assert start(folder, "", double, script=KERAS, folder=folder, report=count).wait() == 0
    expected, operations = np.load(folder / "final.npz"), int(count.read_text())
    kinds = ["kill", "kill", "kill at byte 300", "kill at byte 100000"]
    crashed = twice = different = series = 0
    with polled("best.weights.h5", tmp_path) as reads:
        for number in range(tier(1, 25)):
            faults = random_faults(max(operations, 3), 2, number, kinds)
            crashes, repeats, final = keras_series(start, tmp_path / f"run{number}", faults, double)
            crashed, twice, series = crashed + crashes, twice + repeats, series + 1
            different += any(not np.array_equal(final[name], expected[name]) for name in expected.files)
    tally.say(
        f"Keras' BackupAndRestore{' with double_checkpoint' * bool(double)}: of {series} trainings killed twice, "
        f"{different} end with other weights; {crashed} resumes crash, {twice} epochs are trained twice; "
        f"ModelCheckpoint's best could not be read {reads[1]} of {reads[0]} times"
    )
