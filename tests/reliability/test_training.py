"""D: a training that is killed, stopped or starved of disk loses nothing and ends as it would have."""

import random
import resource
import shutil
import signal
import time

import pytest
from trainings import FIT, NOTES, OVERRIDES, STAGES, goes_on, moments, network, polled, same

from audiotag.data.manifest import read_manifest
from audiotag.errors import DataError
from audiotag.inference.export import load_listener
from audiotag.run import is_trained, open_run, start_run
from audiotag.training.checkpoint import save_state, save_weights


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
    for number in range(tier(2, 9)):
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


@pytest.mark.check("D10")
@pytest.mark.parametrize("limit", [0, 10, 100, 1_000, 5_000, 10_000, 20_000, 30_000, 45_000])
def test_weights_and_states_that_find_no_room_are_refused_and_the_old_ones_stay(limit, tmp_path):
    model = network()
    save_weights(model, tmp_path / "best.weights.h5")
    save_state(tmp_path / "state.npz", model, [], [])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    others = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, others[1]))
    try:
        with pytest.raises(DataError, match="best.weights.h5: File too large: nothing half-written is left"):
            save_weights(model, tmp_path / "best.weights.h5")
        if limit < 20_000:
            with pytest.raises(DataError, match="state.npz: File too large: nothing half-written is left"):
                save_state(tmp_path / "state.npz", model, [], [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, others)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


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
